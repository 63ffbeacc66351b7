"""Open the micrographs a user names: a STAR file, or images by path, folder or glob."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.io.mrc import read_mrc_header
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import require_unique_keys, resolve_path
from cryopick.tables.relion import read_micrographs

__all__ = ["is_image_name", "micrograph_path", "open_micrographs", "pixel_sizes"]

_MRC = (".mrc", ".mrcs", ".map", ".rec", ".ccp4")
_IMAGES = (*_MRC, ".tif", ".tiff", ".png", ".jpg", ".jpeg")
_PACKED = (".gz", ".bz2")


def open_micrographs(
    inputs: Sequence[str],
    *,
    pixel_size: float | None = None,
    voltage: float | None = None,
    spherical_aberration: float | None = None,
    amplitude_contrast: float | None = None,
) -> Micrographs:
    """Make the table of the micrographs that a command was given.

    Parameters
    ----------
    inputs
        One STAR file of RELION; or paths, folders and globs of MRC, TIFF, PNG and JPEG images.
    pixel_size
        A/px of all of them. Without it, a STAR file says it in its optics groups and an MRC
        file in its header; images of different pixel sizes become different optics groups.
    voltage, spherical_aberration, amplitude_contrast
        kV, mm and fraction, instead of what the optics groups say.

    Returns
    -------
    Micrographs
        In the order of the STAR file, or of the inputs with folders and globs sorted.

    Raises
    ------
    ParameterError
        If nothing fits the inputs, or no pixel size is known.
    TableError
        If there is no micrograph, one is named twice, or the STAR file says no pixel size.
    FormatError
        If the STAR file is broken.
    """
    _require_pixel_size(pixel_size)
    stars = [i for i in inputs if i.endswith(".star")]
    if stars and len(inputs) > 1:
        raise ParameterError(
            "MICROGRAPHS",
            must="be one STAR file or images, not both",
            got=f"{len(inputs)} inputs with {len(stars)} STAR files",
            remedy="Give one STAR file",
        )
    if stars:
        micrographs = read_micrographs(Path(stars[0]), pixel_size=pixel_size)
    else:
        micrographs = _of_images(_expand(inputs), pixel_size)
    lens = {
        "voltage": voltage,
        "spherical_aberration": spherical_aberration,
        "amplitude_contrast": amplitude_contrast,
    }
    given = {name: value for name, value in lens.items() if value is not None}
    table = stars[0] if stars else "MICROGRAPHS"
    if not len(micrographs):
        raise TableError(
            table, must="list at least one micrograph", got="none", remedy="Check the table"
        )
    require_unique_keys(micrographs.rows["micrograph"], table=table)
    return Micrographs(
        rows=micrographs.rows,
        optics=micrographs.optics.assign(**given),
        source=micrographs.source,
    )


def micrograph_path(name: str, source: Path | None) -> Path:
    """Where the micrograph of this name lies, given the table that names it."""
    return resolve_path(name, source)


def pixel_sizes(micrographs: Micrographs) -> pd.Series:
    """A/px of each row of a table of micrographs."""
    sizes = micrographs.optics.set_index("optics_group")["pixel_size"]
    return micrographs.rows["optics_group"].map(sizes).rename("pixel_size")


def _require_pixel_size(pixel_size: float | None) -> None:
    if pixel_size is not None and not 0 < pixel_size < np.inf:
        raise ParameterError(
            "pixel_size", must="be above 0 A", got=f"{pixel_size:g} A", remedy="Change --pixel-size"
        )


def _expand(inputs: Sequence[str]) -> list[str]:
    paths: list[str] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = sorted(str(p) for p in path.iterdir() if _is_image(p))
            if not found and _suffix(path) in _IMAGES:
                found = [given]  # a shell has found it among images: it is refused alone
        elif path.exists() or not glob.has_magic(given):
            found = [given]
        else:
            found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (absolute globs)
        if not found:
            rule = "hold images" if path.is_dir() else "fit at least one file"
            raise ParameterError(given, must=rule, got="none", remedy="Check the path")
        paths += found
    if not paths:
        raise ParameterError(
            "MICROGRAPHS", must="name at least one file", got="none", remedy="Give a STAR file"
        )
    return paths


def _suffix(path: Path) -> str:
    packed = path.suffix.lower() in _PACKED
    return (path.with_suffix("") if packed else path).suffix.lower()


def is_image_name(name: str) -> bool:
    """Tell by the name of a file in a folder whether it is one of the images there.

    Examples
    --------
    >>> is_image_name("a.mrc"), is_image_name(".a.mrc"), is_image_name("a.xml")
    (True, False, False)
    """
    return not name.startswith(".") and _suffix(Path(name)) in _IMAGES


def _is_image(path: Path) -> bool:
    return path.is_file() and is_image_name(path.name)


def _of_images(paths: list[str], pixel_size: float | None) -> Micrographs:
    sizes = _header_pixel_sizes(paths) if pixel_size is None else [pixel_size] * len(paths)
    values, firsts, groups = np.unique(np.round(sizes, 4), return_index=True, return_inverse=True)
    order = np.argsort(firsts)  # groups are numbered as they appear
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(1, len(values) + 1)
    rows = pd.DataFrame({"micrograph": pd.Series(paths, dtype="str"), "optics_group": rank[groups]})
    optics = pd.DataFrame(
        {
            "optics_group_name": [f"opticsGroup{n + 1}" for n in range(len(values))],
            "optics_group": np.arange(1, len(values) + 1),
            "pixel_size": np.asarray(sizes, float)[firsts[order]],
        }
    )
    return Micrographs(rows=rows, optics=optics)


def _no_image(path: Path) -> FormatError:
    return FormatError(
        str(path),
        must="be a STAR file or an image",
        got=f"suffix {_suffix(path) or 'none'}",
        remedy="Known are .star, .mrc, .tif, .png and .jpg",
    )


def _header_pixel_sizes(paths: list[str]) -> list[float]:
    """Read them; a broken file gets the size of the others, for opening it refuses it alone."""
    sizes: list[float | None] = []
    broken: FormatError | None = None
    for name in paths:
        path = Path(name)
        size = 0.0
        if _suffix(path) not in _IMAGES:
            broken = _no_image(path)
            sizes.append(None)
            continue
        if _suffix(path) in _MRC:
            try:
                size = read_mrc_header(path).pixel_size
            except FormatError as error:
                broken = error
                sizes.append(None)
                continue
        if not size > 0:
            raise ParameterError(
                "pixel_size",
                must="be known",
                got=f"none in the header of {name}",
                remedy="Give it with --pixel-size",
            )
        sizes.append(size)
    known = [s for s in sizes if s is not None]
    if not known and broken is not None:
        raise broken
    return [known[0] if s is None else s for s in sizes]
