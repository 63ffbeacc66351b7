"""The tables all methods share: one vocabulary, fixed units, whatever file they came from.

Columns are the field's words with one unit each (see `COLUMNS`); a column that cryopick has no
word for keeps the name its file gave it and is written back unchanged. Foreign names, units,
origins and signs are converted in the dialect modules of this package and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cryopick.errors import TableError

__all__ = ["COLUMNS", "Micrographs", "Particles", "Picks", "require_columns"]

COLUMNS: dict[str, str] = {
    # one row per optics group
    "optics_group": "integer id of the optics group, from 1",
    "optics_group_name": "name of the optics group",
    "pixel_size": "A/px of the images in this table (micrographs or particle boxes)",
    "micrograph_pixel_size": "A/px of the micrographs, where the table is of particles",
    "original_pixel_size": "A/px of the movie before any binning",
    "voltage": "kV",
    "spherical_aberration": "mm",
    "amplitude_contrast": "fraction, 0.1 not 10",
    "box_size": "side of a particle image, px",
    "image_dimensions": "2 for images, 3 for subtomograms",
    "is_premultiplied": "1 where the images were multiplied by their CTF",
    "is_phase_flipped": "1 where the phases were flipped",
    # one row per micrograph, pick or particle
    "micrograph": "name of the micrograph, as in its file",
    "image": "stack of the particle image, as in its file",
    "image_index": "place of the image in its stack, from 0",
    "x": "px of the micrograph, 0 is the middle of the first column",
    "y": "px of the micrograph, 0 is the middle of the first row",
    "fom": "picking figure of merit, higher is better",
    "diameter": "detected diameter of the pick, A",
    "class_number": "class, from 1; 0 is none",
    "rot": "deg",
    "tilt": "deg",
    "psi": "deg",
    "shift_x": "A, moves the image so that the particle is centred",
    "shift_y": "A, moves the image so that the particle is centred",
    "defocus_u": "A, underfocus positive",
    "defocus_v": "A, underfocus positive",
    "astigmatism": "A, defocus_u less defocus_v",
    "defocus_angle": "deg, from x to the direction of defocus_u",
    "phase_shift": "deg",
    "ctf_bfactor": "A^2",
    "ctf_scale": "factor on the CTF",
    "ctf_max_resolution": "A",
    "ctf_fom": "figure of merit of the CTF fit",
    "ctf_image": "picture of the spectrum and the CTF fit, as RELION names it",
    "is_ctf_trusted": "1 where the rings of the CTF are there without doubt",
    "is_junk": "1 where the truth says that this is no particle",
    "group_number": "group of particles that share a scale, from 1",
    "norm_correction": "factor by which the image is brighter than the average image",
    "log_likelihood": "contribution of the particle to the log-likelihood",
    "max_probability": "largest posterior probability of any class and pose",
    "n_significant": "number of classes and poses that hold the posterior",
    "margin": "posterior of the best class less that of the second best",
    "junk_probability": "posterior probability that the image shows no particle of any class",
}


def require_columns(
    rows: pd.DataFrame,
    columns: Iterable[str],
    *,
    table: str,
    labels: Mapping[str, str] | None = None,
    remedy: str = "Add the column, or convert the file with: cryopick convert",
) -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    rows
        The table.
    columns
        Names of the columns it must have.
    table
        What the message calls it.
    labels
        What the file calls the columns, by our names, if that is known.
    remedy
        What to do.

    Raises
    ------
    TableError
        Naming the first missing column and the columns there are.
    """
    for column in columns:
        if column not in rows.columns:
            theirs = labels or {}
            in_file = [c for c in rows.columns if not theirs or c in theirs or c not in COLUMNS]
            there = ", ".join(str(theirs.get(c, c)) for c in in_file) or "no columns"
            label = f"{theirs[column]} " if column in theirs else ""
            raise TableError(
                table,
                must=f"have a column {label}for {column}"
                + (f" ({COLUMNS[column]})" if column in COLUMNS else ""),
                got=there,
                remedy=remedy,
            )


@dataclass(frozen=True, kw_only=True)
class Micrographs:
    """Fields of view: one row each in `rows`, lens and pixel size per group in `optics`."""

    rows: pd.DataFrame  # micrograph, optics_group, and any CTF column
    optics: pd.DataFrame  # optics_group, pixel_size, and any lens column
    source: Path | None = None  # the file it was read from; relative names start near it

    def __post_init__(self) -> None:
        name = str(self.source or "micrographs")
        require_columns(self.rows, ("micrograph", "optics_group"), table=name)
        require_columns(self.optics, ("optics_group", "pixel_size"), table=name)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Picks:
    """Positions in micrographs: at least micrograph, x and y in `rows`."""

    rows: pd.DataFrame
    source: Path | None = None
    attributes: dict[str, object] = field(default_factory=dict)  # e.g. box_size of an EMAN file

    def __post_init__(self) -> None:
        require_columns(self.rows, ("micrograph", "x", "y"), table=str(self.source or "picks"))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Particles:
    """Particle images with their metadata: one row each, lens and pixel size per optics group."""

    rows: pd.DataFrame  # image, image_index, optics_group, and any other column
    optics: pd.DataFrame  # optics_group, pixel_size, box_size, and any lens column
    source: Path | None = None

    def __post_init__(self) -> None:
        name = str(self.source or "particles")
        require_columns(self.rows, ("image", "image_index", "optics_group"), table=name)
        require_columns(self.optics, ("optics_group", "pixel_size"), table=name)

    def __len__(self) -> int:
        return len(self.rows)
