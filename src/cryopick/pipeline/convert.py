"""Convert tables of picks, particles and micrographs between programs.

What a file leaves out (names and sizes of micrographs, the pixel size, the box) is taken from the
options; what the target has no word for is named in the result, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cryopick.errors import FormatError, OutputError, ParameterError, TableError
from cryopick.io.mrc import read_mrc_header
from cryopick.pipeline.convert_formats import Format, Kind, detect_source, detect_target, find_kind
from cryopick.pipeline.convert_micrographs import KnownMicrographs, read_micrographs
from cryopick.pipeline.convert_parameters import ConvertParameters
from cryopick.pipeline.convert_picks import PickTarget, WritePlan, plan_picks, read_picks
from cryopick.tables import cryosparc, relion, scipion, xmipp
from cryopick.tables.model import COLUMNS, Particles, Picks
from cryopick.tables.paths import resolve_path

__all__ = ["ConvertResult", "convert"]


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What was done."""

    kind: Kind
    source_format: str
    target_format: str
    n_read: int  # rows in the input, disabled ones included
    n_disabled: int  # rows that the other program had rejected
    n_below_fom: int
    n_written: int
    n_micrographs: int
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Job:
    source: Path
    target: Path
    reader: Format
    writer: Format
    parameters: ConvertParameters
    known: KnownMicrographs
    passthrough: tuple[Path, ...]
    overwrite: bool


def convert(
    source: Path,
    target: Path,
    *,
    parameters: ConvertParameters,
    from_format: str | None = None,
    to_format: str | None = None,
    micrographs: str | None = None,
    passthrough: Sequence[Path] = (),
    overwrite: bool = False,
) -> ConvertResult:
    """Convert a file or a folder of files.

    Parameters
    ----------
    source
        A file, or a folder with one coordinate file per micrograph.
    target
        A file or, for many coordinate files, a folder.
    parameters
        Pixel size, box, scale, threshold and flip.
    from_format, to_format
        Names of formats where the suffix does not tell.
    micrographs
        A table of micrographs, a folder of them or a pattern such as ``Micrographs/*.mrc``.
    passthrough
        Further ``.cs`` files of the same cryoSPARC job.
    overwrite
        Replace files that are there.

    Raises
    ------
    CryopickError
        If the input is broken, an information is missing, or a file would be overwritten.
    """
    source, target = Path(source), Path(target)
    reader = detect_source(source, from_format)
    kind = find_kind(source, reader)
    job = _Job(
        source=source,
        target=target,
        reader=reader,
        writer=detect_target(target, to_format, kind),
        parameters=parameters,
        known=KnownMicrographs.from_option(micrographs, near=source),
        passthrough=tuple(passthrough),
        overwrite=overwrite,
    )
    if kind == "picks":
        picks = read_picks(
            source,
            reader,
            job.known,
            pixel_size=parameters.pixel_size,
            passthrough=job.passthrough,
        )
        return _convert_picks(job, picks)
    if kind == "micrographs":
        return _convert_micrographs(job)
    particles = _read_particles(job)
    if "particles" in job.writer.writes:
        return _convert_particles(job, particles)
    return _convert_picks(job, _positions(particles, job))


def _convert_picks(job: _Job, picks: Picks) -> ConvertResult:
    n_disabled = int(picks.rows.attrs.get("n_disabled", 0))
    listed = picks.attributes.get("micrographs")
    names = [str(n) for n in listed] if isinstance(listed, list) else []
    names = list(dict.fromkeys([*names, *map(str, picks.rows["micrograph"])]))
    rows = _adjusted(picks.rows.reset_index(drop=True), job)
    rows, notes = _for_dialect(rows, _words(job, "picks", rows), job.writer.name)
    told = ("micrographs", "box_size", "score")  # in words of the target's own, if it has any
    others = {n: v for n, v in picks.attributes.items() if n not in told}
    target = PickTarget(
        path=job.target,
        format=job.writer,
        known=job.known,
        box_size=_box_size(job.parameters, picks),
        pixel_size=job.parameters.pixel_size,
        others=others,
    )
    files = _write(plan_picks(rows, names, target), overwrite=job.overwrite)
    if not job.known.names and job.reader.is_per_micrograph:
        notes.append("Names of micrographs were made from those of the files, as .mrc")
    return ConvertResult(
        kind="picks",
        source_format=job.reader.name,
        target_format=job.writer.name,
        n_read=len(picks) + n_disabled,
        n_disabled=n_disabled,
        n_below_fom=len(picks) - len(rows),
        n_written=len(rows),
        n_micrographs=len(names),
        files=files,
        notes=tuple(notes),
    )


def _adjusted(rows: pd.DataFrame, job: _Job) -> pd.DataFrame:
    """Scale, flip, then leave out what is below the threshold."""
    given = job.parameters
    x = rows["x"].to_numpy(np.float64) * given.scale
    y = rows["y"].to_numpy(np.float64) * given.scale
    if given.flip_y:
        names = [str(n) for n in rows["micrograph"]]
        sizes = job.known.sizes(list(dict.fromkeys(names)), purpose="--flip-y")
        y = np.array([sizes[n][0] - 1 for n in names], dtype=np.float64) - y
    moved = rows.assign(x=x, y=y)
    if given.minimum_fom is None:
        return moved
    if "fom" not in moved:
        raise TableError(
            str(job.source),
            must="have figures of merit for --minimum-fom",
            got="none",
            remedy="Leave out --minimum-fom",
        )
    return moved.loc[moved["fom"] >= given.minimum_fom].reset_index(drop=True)


def _box_size(parameters: ConvertParameters, picks: Picks) -> int | None:
    if parameters.box_size is not None:
        return parameters.box_size
    found = picks.attributes.get("box_size")
    return round(found * parameters.scale) if isinstance(found, int) else None


def _for_dialect(rows: pd.DataFrame, words: frozenset[str] | None, name: str) -> _Chosen:
    """Leave out columns that the target has no word for, and say so.

    `words` are the target's; None stands for a format that keeps any column of no other program.
    """
    kept = [c for c in rows.columns if (_is_plain(c) if words is None else c in words)]
    lost = [c for c in rows.columns if c not in {*kept, "uid"} and _says_something(rows[c])]
    notes = []
    if lost:
        some = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        noun = "column" if len(lost) == 1 else "columns"
        notes.append(f"{name} has no word for {len(lost)} {noun}, left out: {some}")
    n_flipped = int((rows["flip"] == 1).sum()) if "flip" in rows else 0
    if n_flipped and name in ("relion", "cryosparc"):
        notes.append(f"{n_flipped} particles are mirrored, which {name} does not know")
    return _Chosen(rows[kept], notes)


class _Chosen(NamedTuple):
    rows: pd.DataFrame
    notes: list[str]


def _is_plain(name: str) -> bool:
    """Whether a column has our word or that of a program whose unknown columns may travel."""
    return name in COLUMNS or not ("/" in name or name.startswith("_") or name == "uid")


def _says_something(column: pd.Series) -> bool:
    return column.dtype.kind not in "iuf" or bool((column.fillna(0) != 0).any())


def _words(job: _Job, kind: Kind, rows: pd.DataFrame) -> frozenset[str] | None:
    if job.writer.name == "relion":
        return None
    if kind == "picks":
        return frozenset({"micrograph", "x", "y", "fom"}) | (job.writer.extras or frozenset())
    if job.writer.name == "xmd":
        carried = {c for c in rows.columns if _is_plain(c) and not c.startswith("rln")}
        return xmipp.WORDS | (carried - set(COLUMNS))
    if job.writer.name == "cryosparc":
        return cryosparc.WORDS | {c for c in rows.columns if "/" in c}
    return scipion.WORDS


def _read_particles(job: _Job) -> Particles:
    size = job.parameters.pixel_size
    if job.reader.name == "cryosparc":
        found = cryosparc.read_cs_particles(job.source, passthrough=job.passthrough)
        optics = found.optics if size is None else found.optics.assign(pixel_size=size)
        found = replace(found, optics=optics)
    elif job.reader.name == "scipion":
        found = scipion.read_scipion_particles(job.source, pixel_size=size)
    elif job.reader.name == "relion":
        found = relion.read_particles(job.source, pixel_size=size)
    else:
        found = xmipp.read_xmd_particles(job.source, pixel_size=size)
    if job.parameters.box_size is not None:
        return replace(found, optics=found.optics.assign(box_size=job.parameters.box_size))
    return found if "box_size" in found.optics else _with_box_size(found)


def _with_box_size(particles: Particles) -> Particles:
    """Take the box size from the stacks, where they are found."""
    first = particles.rows.drop_duplicates("optics_group").set_index("optics_group")["image"]
    try:
        paths = [
            resolve_path(str(first[g]), particles.source) for g in particles.optics["optics_group"]
        ]
        sizes = [read_mrc_header(path).shape[2] for path in paths]
    except (KeyError, FormatError):
        return particles
    return replace(particles, optics=particles.optics.assign(box_size=sizes))


def _positions(particles: Particles, job: _Job) -> Picks:
    """Take the boxes of particles as picks, where they were cut: shifts are left alone."""
    missing = [name for name in ("micrograph", "x", "y") if name not in particles.rows]
    if missing:
        raise TableError(
            str(job.source),
            must=f"say where its particles lie in their micrographs for {job.writer.name}",
            got=f"no {missing[0]}",
            remedy="Add its --passthrough .cs file"
            if job.reader.name == "cryosparc"
            else "Convert it to a format for particles",
        )
    wanted = ("micrograph", "x", "y", "fom", "class_number", "psi")
    rows = particles.rows[[name for name in wanted if name in particles.rows]]
    rows.attrs.update(particles.rows.attrs)
    attributes: dict[str, object] = {}
    optics = particles.optics
    if "box_size" in optics and len(optics):
        first = optics.iloc[0]
        pixel = first.get("micrograph_pixel_size", first["pixel_size"])
        attributes["box_size"] = round(float(first["box_size"] * first["pixel_size"] / pixel))
    return Picks(rows=rows, source=particles.source, attributes=attributes)


def _convert_particles(job: _Job, particles: Particles) -> ConvertResult:
    _refuse_pick_options(job, "particles")
    dimensions = particles.optics.get("image_dimensions", pd.Series(dtype=float))
    if job.writer.name != "relion" and (dimensions == 3).any():
        raise TableError(
            str(job.source),
            must=f"hold images for {job.writer.name}",
            got="subtomograms",
            remedy="Write them as STAR",
        )
    n_disabled = int(particles.rows.attrs.get("n_disabled", 0))
    rows = particles.rows.reset_index(drop=True)
    rows, notes = _for_dialect(rows, _words(job, "particles", rows), job.writer.name)
    notes += _optics_notes(particles, job.writer.name)
    if job.writer.name == "cryosparc" and {"x", "y"} <= set(rows.columns) and not job.known.names:
        notes.append("positions in micrographs are left out; add --micrographs to write them")
    chosen = replace(particles, rows=rows)
    plan: WritePlan = [(job.target, partial(_particle_writer(job, chosen), job.target, chosen))]
    files = _write(plan, overwrite=job.overwrite)
    n_micrographs = rows["micrograph"].nunique() if "micrograph" in rows else 0
    return ConvertResult(
        kind="particles",
        source_format=job.reader.name,
        target_format=job.writer.name,
        n_read=len(rows) + n_disabled,
        n_disabled=n_disabled,
        n_below_fom=0,
        n_written=len(rows),
        n_micrographs=int(n_micrographs),
        files=files,
        notes=tuple(notes),
    )


def _optics_notes(particles: Particles, name: str) -> list[str]:
    """Say what was done to the images where the target has no word for it."""
    told = {"is_premultiplied": "multiplied by their CTF", "is_phase_flipped": "phase-flipped"}
    return [
        f"the images were {done}, which {name} is not told: do not correct them again"
        for flag, done in told.items()
        if name != "relion" and flag in particles.optics and (particles.optics[flag] == 1).any()
    ]


def _particle_writer(job: _Job, particles: Particles) -> Any:
    if job.writer.name == "cryosparc":
        has_places = {"micrograph", "x", "y"} <= set(particles.rows.columns)
        sizes = None
        if has_places and job.known.names:
            names = [str(n) for n in particles.rows["micrograph"].unique()]
            sizes = job.known.sizes(names, purpose="a .cs file")
        return partial(cryosparc.write_cs_particles, sizes=sizes)
    writers = {
        "relion": relion.write_particles,
        "xmd": xmipp.write_xmd_particles,
        "scipion": scipion.write_scipion_particles,
    }
    return writers[job.writer.name]


def _refuse_pick_options(job: _Job, kind: Kind) -> None:
    given = job.parameters
    used = {
        "--scale": given.scale != 1,
        "--minimum-fom": given.minimum_fom is not None,
        "--flip-y": given.flip_y,
    }
    for name in (name for name, is_used in used.items() if is_used):
        raise ParameterError(
            name, must="be used with picks", got=f"a table of {kind}", remedy="Leave it out"
        )


def _convert_micrographs(job: _Job) -> ConvertResult:
    _refuse_pick_options(job, "micrographs")
    found = read_micrographs(
        job.source, pixel_size=job.parameters.pixel_size, passthrough=job.passthrough
    )
    n_disabled = int(found.rows.attrs.get("n_disabled", 0))
    rows = found.rows.reset_index(drop=True)
    rows, notes = _for_dialect(rows, _words(job, "micrographs", rows), job.writer.name)
    write = relion.write_micrographs if job.writer.name == "relion" else xmipp.write_xmd_micrographs
    plan: WritePlan = [(job.target, partial(write, job.target, replace(found, rows=rows)))]
    files = _write(plan, overwrite=job.overwrite)
    return ConvertResult(
        kind="micrographs",
        source_format=job.reader.name,
        target_format=job.writer.name,
        n_read=len(rows) + n_disabled,
        n_disabled=n_disabled,
        n_below_fom=0,
        n_written=len(rows),
        n_micrographs=len(rows),
        files=files,
        notes=tuple(notes),
    )


def _write(plan: WritePlan, *, overwrite: bool) -> tuple[str, ...]:
    for path, _ in plan:
        if path.exists() and not overwrite:
            raise OutputError(
                str(path),
                must="not exist yet",
                got="an existing file",
                remedy="Choose another output, or add --overwrite",
            )
    for _, write in plan:
        write()
    return tuple(str(path) for path, _ in plan)
