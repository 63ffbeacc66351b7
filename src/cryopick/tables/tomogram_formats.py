"""Read and write positions in tomograms in any dialect."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cryopick.errors import ParameterError
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_imod import read_imod, read_points, write_imod, write_points
from cryopick.tables.tomogram_json import read_copick, read_ndjson, write_copick, write_ndjson
from cryopick.tables.tomogram_star import read_tomogram_star, write_tomogram_star
from cryopick.tables.tomogram_text import (
    read_csv_positions,
    read_dynamo,
    write_csv_positions,
    write_dynamo,
)
from cryopick.tables.tomograms import TomogramPicks, tomogram_name

__all__ = ["read_tomogram_picks", "write_tomogram_picks"]

_NAMES = {
    "relion5": "particles.star",
    "relion4": "particles.star",
    "relion3": "particles.star",
    "warp": "particles.star",
    "dynamo": "particles.tbl",
    "csv": "particles.csv",
}
_OF_ONE = {"imod": ".mod", "points": ".txt"}


def write_tomogram_picks(
    folder: Path,
    picks: TomogramPicks,
    *,
    parameters: TomogramFormatParameters | None = None,
    stem: str = "",
) -> list[Path]:
    """Write picks into a folder, named as users of the format expect.

    Parameters
    ----------
    folder
        Where to. STAR, CSV and Dynamo's tables hold all tomograms in one file; IMOD, the portal
        and copick have a file for each.
    picks
        To write.
    parameters
        Format and what it needs; RELION 5 without.
    stem
        Name of a single file without its suffix, instead of ``particles``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    parameters = parameters or TomogramFormatParameters()
    folder = Path(folder)
    name = parameters.format
    if name == "copick":
        return write_copick(folder, picks, parameters=parameters)
    if name == "ndjson":
        return write_ndjson(folder, picks, parameters=parameters)
    if name in _OF_ONE:
        paths = []
        for tomogram in picks.tomograms["tomogram"]:
            paths.append(folder / f"{tomogram}{_OF_ONE[name]}")
            write = write_imod if name == "imod" else write_points
            write(paths[-1], picks.of(tomogram))
        return paths
    path = folder / _NAMES[name]
    path = path.with_name(stem + path.suffix) if stem else path
    if name == "csv":
        write_csv_positions(path, picks)
    elif name == "dynamo":
        write_dynamo(path, picks, base=parameters.dynamo_base)
        return [path, path.with_suffix(".doc")]
    else:
        write_tomogram_star(path, picks, parameters=parameters)
    return [path]


def read_tomogram_picks(
    path: Path,
    *,
    tomograms: pd.DataFrame,
    parameters: TomogramFormatParameters | None = None,
    tomogram: str = "",
) -> TomogramPicks:
    """Read picks of any dialect, told by the suffix.

    Parameters
    ----------
    path
        A file, or the folder of a copick project.
    tomograms
        Names, sizes and voxel sizes of the tomograms (`tomogram_table`).
    parameters
        What unit STAR coordinates have and how Dynamo counts; the format named in it is not
        looked at.
    tomogram
        That a file of IMOD or the portal is of; without it, the one whose name the file's name
        begins with, or the only one there is.

    Raises
    ------
    FormatError
        If the file is broken.
    TableError
        If it holds no positions, or names a tomogram that is not known.
    ParameterError
        If the suffix is not known, or it cannot be told which tomogram a file is of.
    """
    path = Path(path)
    parameters = parameters or TomogramFormatParameters()
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".json":
        return read_copick(path, tomograms=tomograms)
    if suffix == ".star":
        return read_tomogram_star(path, tomograms=tomograms, parameters=parameters)
    if suffix == ".csv":
        return read_csv_positions(path, tomograms=tomograms)
    if suffix == ".tbl":
        return read_dynamo(path, tomograms=tomograms, base=parameters.dynamo_base)
    readers = {".mod": read_imod, ".ndjson": read_ndjson}
    readers |= dict.fromkeys((".txt", ".coords", ".xyz"), read_points)
    if suffix not in readers:
        raise ParameterError(
            str(path),
            must="be .star, .csv, .tbl, .json, .ndjson, .mod, .txt or .coords",
            got=suffix or "no suffix",
            remedy="Rename the file or convert it",
        )
    name = tomogram or _tomogram_of_file(path, tomograms)
    return readers[suffix](path, tomogram=name, tomograms=tomograms)


def _tomogram_of_file(path: Path, tomograms: pd.DataFrame) -> str:
    stem = tomogram_name(path.with_suffix(""))
    names = [str(n) for n in tomograms["tomogram"]]
    if stem in names:
        return stem
    found = [n for n in names if stem.startswith(n)]
    if found:
        return max(found, key=len)
    if len(names) == 1:
        return names[0]
    raise ParameterError(
        path.name,
        must="begin with the name of its tomogram",
        got=f"{len(names)} tomograms of other names",
        remedy="Rename the file",
    )
