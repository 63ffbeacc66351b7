"""Find the files of one iteration of a 2D classification in RELION's manner."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd

from cryopick.errors import TableError
from cryopick.io.star import read_star
from cryopick.tables.paths import resolve_path

__all__ = ["COPY_AGAIN", "ClassificationFiles", "find_classification", "refuse", "require_block"]

COPY_AGAIN = "Copy the files of the run again"
_KINDS = ("optimiser", "model", "data", "sampling")
_ITERATION = re.compile(r"_it(\d+)_")


class ClassificationFiles(NamedTuple):
    """Where the tables of one iteration lie."""

    data: Path
    model: Path
    sampling: Path | None
    optimiser: Path | None


def find_classification(path: Path) -> ClassificationFiles:
    """Find the tables of one iteration from any of them, or from their folder.

    Files that lie beside the one given are taken before those that the optimiser names, so that
    a copied folder is read as it is.

    Raises
    ------
    FormatError
        If the optimiser is missing or broken.
    TableError
        If the name is not one that RELION gives to such a file, or the folder holds none.
    """
    path = _latest(path) if path.is_dir() else path
    match = re.fullmatch(rf"(.+)_({'|'.join(_KINDS)})\.star", path.name)
    if match is None:
        refuse(
            str(path),
            "end in _optimiser.star, _model.star, _data.star or _sampling.star",
            path.name,
            "Give a file of a 2D classification, or its folder",
        )
    beside = {kind: path.with_name(f"{match[1]}_{kind}.star") for kind in _KINDS}
    if match[2] != "optimiser" and not beside["optimiser"].exists():
        sampling = beside["sampling"] if beside["sampling"].exists() else None
        return ClassificationFiles(beside["data"], beside["model"], sampling, None)
    return _files_of_optimiser(beside["optimiser"])


def _files_of_optimiser(path: Path) -> ClassificationFiles:
    general = require_block(read_star(path), "optimiser_general", path).iloc[0]

    def find(label: str) -> Path:
        if label not in general:
            refuse(f"{path}, data_optimiser_general,", f"hold {label}", "no such label", COPY_AGAIN)
        name = str(general[label])
        beside = path.with_name(Path(name).name)
        return beside if beside.exists() else resolve_path(name, path)

    sampling = find("rlnOrientSamplingStarFile")
    is_start = general.get("rlnCurrentIteration", 1) == 0  # RELION names a file it has not
    return ClassificationFiles(
        data=find("rlnExperimentalDataStarFile"),
        model=find("rlnModelStarFile"),
        sampling=None if is_start and not sampling.exists() else sampling,
        optimiser=path,
    )


def _latest(folder: Path) -> Path:
    """Optimiser of the last iteration, or without any the model of it."""
    for kind in ("optimiser", "model"):
        found = list(folder.glob(f"*_{kind}.star"))
        if found:
            return max(found, key=lambda p: (_iteration(p), p.stat().st_mtime_ns, p.name))
    refuse(
        str(folder),
        "hold a 2D classification (*_optimiser.star)",
        "no such file",
        "Give the folder of a Class2D job",
    )


def _iteration(path: Path) -> float:
    found = _ITERATION.findall(path.name)
    return float(found[-1]) if found else np.inf


def refuse(what: str, must: str, got: str, remedy: str) -> NoReturn:
    """Raise a TableError.

    Raises
    ------
    TableError
        Always.
    """
    raise TableError(what, must=must, got=got, remedy=remedy)


def require_block(blocks: dict[str, pd.DataFrame], name: str, path: Path) -> pd.DataFrame:
    """Take the table of that name.

    Raises
    ------
    TableError
        If there is none, or one without rows.
    """
    if name not in blocks or not len(blocks[name]):
        there = ", ".join(f"data_{key}" for key in list(blocks)[:4]) or "no table"
        more = ", ..." if len(blocks) > 4 else ""
        refuse(str(path), f"hold a table data_{name}", there + more, COPY_AGAIN)
    return blocks[name]
