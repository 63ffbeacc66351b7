"""What extraction will do, worked out from tables before any image is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import CryopickError, DataError, TableError
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.extraction.recenter import place_particles, project_point
from cryopick.pipeline.convert_formats import detect_source, find_kind
from cryopick.pipeline.convert_micrographs import KnownMicrographs
from cryopick.pipeline.convert_picks import read_picks as read_foreign_picks
from cryopick.tables.micrographs import micrograph_path
from cryopick.tables.model import Micrographs, Particles, Picks, require_columns
from cryopick.tables.names import MicrographNames, bare_name
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import read_particles, read_picks

__all__ = ["ExtractionPlan", "Field", "open_coordinates", "plan_extraction"]

CTF_COLUMNS = (
    "ctf_max_resolution",
    "ctf_fom",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "ctf_bfactor",
    "ctf_scale",
    "phase_shift",
)
_CTF_DEFAULTS = {"ctf_bfactor": 0.0, "ctf_scale": 1.0, "phase_shift": 0.0}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One micrograph with the rows of the particle table that belong to it."""

    micrograph: str
    key: str  # names its results
    path: Path
    pixel_size: float  # A/px of the micrograph
    rows: slice


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """The particle table to come, before images and edges are known."""

    table: pd.DataFrame  # all but image and image_index, sorted by micrograph
    optics: pd.DataFrame  # of the particles
    centers_yx: NDArray[np.float64]  # (n, 2) px, whole numbers
    fields: list[Field]
    n_micrographs: int  # that were given
    n_below_fom: int
    n_unlisted: int  # micrographs that only the coordinates name
    refused: list[CryopickError] = field(default_factory=list)  # coordinate files


def open_coordinates(
    path: Path, *, refused: list[CryopickError] | None = None
) -> Picks | Particles:
    """Read picks of any program, or a STAR file of particles to extract again.

    Parameters
    ----------
    path
        A file or folder.
    refused
        Where given, broken files of single micrographs are left out and their errors added here.

    Raises
    ------
    CryopickError
        If there is nothing that can be read.
    """
    source = detect_source(path, None)
    if source.name != "relion":
        return read_foreign_picks(path, source, KnownMicrographs(), pixel_size=None, passthrough=())
    if find_kind(path, source) == "particles":
        return read_particles(path)
    return read_picks(path, refused=refused)


def plan_extraction(
    micrographs: Micrographs, coordinates: Picks | Particles, parameters: ExtractionParameters
) -> ExtractionPlan:
    """Join coordinates with their micrographs and decide where boxes are cut.

    Parameters
    ----------
    micrographs
        The fields, with pixel sizes and CTF.
    coordinates
        Picks, or particles to be extracted again with their origins.
    parameters
        Resolved parameters.

    Raises
    ------
    DataError
        If no coordinates are left.
    TableError
        If a column is missing, or no micrograph of the coordinates is known.
    """
    source = str(coordinates.source or "coordinates")
    rows = coordinates.rows
    require_columns(rows, ("micrograph", "x", "y"), table=source)
    if not np.isfinite(rows[["x", "y"]].to_numpy(float)).all():
        raise TableError(
            source, must="give finite positions", got="NaN or infinity", remedy="Mend the table"
        )
    rows, n_below = _above_fom(rows, parameters.minimum_fom, source)
    rows, index, n_unlisted = _matched(rows, micrographs, source)
    if not len(rows):
        left = f"0, with {n_below} not above --minimum-fom" if n_below else "0"
        raise DataError(
            source,
            must="hold at least one position",
            got=left,
            remedy="Lower --minimum-fom" if n_below else "Pick again with a lower threshold",
        )
    sizes = micrographs.optics.set_index("optics_group")["pixel_size"]
    angpix = micrographs.rows["optics_group"].map(sizes).to_numpy(float)
    table = _with_ctf(rows, micrographs.rows.iloc[index], coordinates, parameters)
    table = table.assign(micrograph=micrographs.rows["micrograph"].to_numpy()[index])
    if isinstance(coordinates, Picks):
        table["optics_group"] = micrographs.rows["optics_group"].to_numpy()[index]
        optics = micrographs.optics
    else:
        optics = _optics_of_particles(coordinates, table, angpix[index])
    table, centers = _placed(table, angpix[index], coordinates, parameters)
    return ExtractionPlan(
        table=table,
        optics=_image_optics(optics, table, parameters),
        centers_yx=centers,
        fields=_fields(index, micrographs, angpix),
        n_micrographs=len(micrographs),
        n_below_fom=n_below,
        n_unlisted=n_unlisted,
    )


def _above_fom(rows: pd.DataFrame, minimum: float | None, source: str) -> tuple[pd.DataFrame, int]:
    if minimum is None:
        return rows, 0
    require_columns(rows, ("fom",), table=source)
    is_above = rows["fom"].to_numpy(float) > minimum
    return rows[is_above], int((~is_above).sum())


def _matched(
    rows: pd.DataFrame, micrographs: Micrographs, source: str
) -> tuple[pd.DataFrame, NDArray[np.int64], int]:
    """Keep the rows whose micrograph is known, in the order of the micrographs."""
    names = [str(n) for n in micrographs.rows["micrograph"]]
    place = {name: number for number, name in enumerate(names)}
    bare = {bare_name(name) for name in names}
    finder = MicrographNames(names)
    codes, parts = pd.factorize(rows["micrograph"])
    found = np.full(len(parts) + 1, -1, np.int64)
    first: TableError | None = None
    for number, part in enumerate(map(str, parts)):
        try:
            found[number] = place[finder.find(part, source=source)]
        except TableError as error:
            if bare_name(part) in bare:  # it fits several
                raise
            first = first or error
    n_unlisted = int((found[:-1] < 0).sum())
    if first is not None and n_unlisted == len(parts):
        raise TableError(
            source,
            must="name micrographs that MICROGRAPHS lists",
            got=f"{parts[0]}, while that lists {names[0] if names else 'none'}",
            remedy="Give the micrographs that were picked",
        )
    index = found[codes]
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    return rows.iloc[order].reset_index(drop=True), index[order], n_unlisted


def _with_ctf(
    rows: pd.DataFrame,
    fields: pd.DataFrame,
    coordinates: Picks | Particles,
    parameters: ExtractionParameters,
) -> pd.DataFrame:
    """Take CTF columns from the micrographs, or leave those that particles have."""
    has_own = isinstance(coordinates, Particles) and "defocus_u" in rows.columns
    columns: dict[str, Any] = {}
    if not has_own or parameters.micrograph_ctf:
        columns = {c: fields[c].to_numpy() for c in CTF_COLUMNS if c in fields.columns}
    if "defocus_u" in columns:
        columns |= {c: v for c, v in _CTF_DEFAULTS.items() if c not in columns}
    table = rows.drop(columns=[c for c in ("image", "image_index") if c in rows.columns])
    table = table.assign(**columns)
    if (parameters.phase_flip or parameters.premultiply) and "defocus_u" not in table:
        raise TableError(
            "the table of micrographs",
            must="hold the defocus for --phase-flip and --premultiply",
            got="no CTF columns",
            remedy="Give the table that CTF estimation wrote",
        )
    return table


def _optics_of_particles(
    particles: Particles, table: pd.DataFrame, angpix: NDArray[np.float64]
) -> pd.DataFrame:
    """Give the particles' groups the pixel size of the micrographs they are cut from."""
    sizes = pd.Series(angpix).groupby(table["optics_group"].to_numpy())
    low, high = sizes.min(), sizes.max()
    mixed = low.index[(high - low) > 1e-4 * low]
    if len(mixed):
        raise TableError(
            str(particles.source or "particles"),
            must="hold micrographs of one pixel size in each optics group",
            got=f"{low[mixed[0]]:g} and {high[mixed[0]]:g} A in group {mixed[0]}",
            remedy="Extract each pixel size on its own",
        )
    used = particles.optics[particles.optics["optics_group"].isin(low.index)]
    return used.assign(pixel_size=used["optics_group"].map(low))


def _placed(
    table: pd.DataFrame,
    angpix: NDArray[np.float64],
    coordinates: Picks | Particles,
    parameters: ExtractionParameters,
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    has_shifts = "shift_x" in table.columns and "shift_y" in table.columns
    shifts = table[["shift_y", "shift_x"]].to_numpy(float) if has_shifts else None
    positions = place_particles(
        table[["y", "x"]].to_numpy(float),
        np.zeros((len(table), 2)) if shifts is None else shifts,
        pixel_size=angpix,
        parameters=parameters,
        point_yx=_point(table, coordinates, parameters),
    )
    y, x = positions.coordinates_yx.T
    table = table.assign(x=x, y=y)
    if has_shifts or parameters.residuals or parameters.recenter:
        shift_y, shift_x = positions.shifts_yx.T
        table = table.assign(shift_x=shift_x, shift_y=shift_y)
    return table, positions.centers_yx


def _point(
    table: pd.DataFrame, coordinates: Picks | Particles, parameters: ExtractionParameters
) -> NDArray[np.float64] | None:
    """Where the point to centre on lies in each particle, A."""
    if not parameters.has_recenter_point:
        return None
    source = str(coordinates.source or "coordinates")
    require_columns(table, ("rot", "tilt", "psi"), table=source)
    point = (parameters.recenter_x, parameters.recenter_y, parameters.recenter_z)
    projected = project_point(point, table[["rot", "tilt", "psi"]].to_numpy(float))
    size: float | NDArray[np.float64] = parameters.reference_pixel_size
    if not size and isinstance(coordinates, Picks):
        raise TableError(
            source,
            must="be particles, whose pixel size is that of the reference",
            got="picks",
            remedy="Add --reference-pixel-size",
        )
    if not size and isinstance(coordinates, Particles):
        sizes = coordinates.optics.set_index("optics_group")["pixel_size"]
        size = table["optics_group"].map(sizes).to_numpy(float)[:, None]
    scaled: NDArray[np.float64] = projected * size
    return scaled


def _image_optics(
    optics: pd.DataFrame, table: pd.DataFrame, parameters: ExtractionParameters
) -> pd.DataFrame:
    """Describe the images to be made; groups without particles are dropped."""
    used = optics[optics["optics_group"].isin(table["optics_group"].unique())]
    micrograph_pixel_size = used["pixel_size"].to_numpy(float)
    if "micrograph_pixel_size" in used.columns or not parameters.relion_parity:
        used = used.assign(micrograph_pixel_size=micrograph_pixel_size)
    return used.assign(
        pixel_size=(micrograph_pixel_size * parameters.scale).round(9),  # not 1.2000000000000002
        box_size=parameters.image_size,
        image_dimensions=2,
        is_premultiplied=int(parameters.premultiply),
        **({"is_phase_flipped": 1} if parameters.phase_flip else {}),
    ).reset_index(drop=True)


def _fields(
    index: NDArray[np.int64], micrographs: Micrographs, angpix: NDArray[np.float64]
) -> list[Field]:
    present, starts = np.unique(index, return_index=True)
    names = micrographs.rows["micrograph"].to_numpy()
    ends = [*starts[1:], len(index)]
    return [
        Field(
            micrograph=str(names[number]),
            key=micrograph_key(str(names[number])),
            path=micrograph_path(str(names[number]), micrographs.source),
            pixel_size=float(angpix[number]),
            rows=slice(int(start), int(end)),
        )
        for number, start, end in zip(present, starts, ends, strict=True)
    ]
