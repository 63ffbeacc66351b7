"""Score a file of picks in tomograms against the truth of a simulation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cryopick.errors import FormatError
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_formats import read_tomogram_picks
from cryopick.tables.tomograms import TomogramPicks, tomogram_table
from cryopick.tomogram.evaluate import TomogramScores, evaluate_tomogram_picks

__all__ = ["TomogramTruth", "evaluate_tomogram_files", "read_tomogram_truth"]

_COLUMNS = ["tomogram", "x", "y", "z", "species", "kind", "diameter", "rot", "tilt", "psi"]


@dataclass(frozen=True, kw_only=True)
class TomogramTruth:
    """What a simulation of tomograms put where."""

    picks: TomogramPicks  # the particles
    gold: pd.DataFrame  # tomogram, x, y, z, diameter (A)
    labels: dict[str, int]  # value of each species, of gold and of membrane in the volume of labels
    volumes: dict[str, Path]  # file of each tomogram
    label_volumes: dict[str, Path]


def read_tomogram_truth(path: Path) -> TomogramTruth:
    """Read the ``truth.json`` of ``cryopick simulate tomogram``.

    Parameters
    ----------
    path
        The file, or the folder it is in.

    Raises
    ------
    FormatError
        If the file is missing or holds something else.
    """
    path = Path(path) / "truth.json" if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(path.read_text())
        records: dict[str, Any] = content["tomograms"]
        table = tomogram_table((n, r["shape"], r["voxel_size"]) for n, r in records.items())
        rows = [{"tomogram": n, **p} for n, r in records.items() for p in r["particles"]]
        gold = [{"tomogram": n, **p} for n, r in records.items() for p in r["gold"]]
        volumes = {n: path.parent / r["file"] for n, r in records.items()}
        label_volumes = {n: path.parent / r["labels"] for n, r in records.items()}
        labels = dict(content["labels"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            str(path),
            must="be the truth.json of a simulation of tomograms",
            got="no such file" if isinstance(error, FileNotFoundError) else "something else",
            remedy="Make one with: cryopick simulate tomogram",
        ) from error
    particles = pd.DataFrame(rows, columns=_COLUMNS)
    return TomogramTruth(
        picks=TomogramPicks(rows=particles, tomograms=table, source=path),
        gold=pd.DataFrame(gold, columns=["tomogram", "x", "y", "z", "diameter"]),
        labels=labels,
        volumes=volumes,
        label_volumes=label_volumes,
    )


def evaluate_tomogram_files(
    picks: Path,
    truth: Path,
    *,
    distance: float = 100.0,
    parameters: TomogramFormatParameters | None = None,
) -> TomogramScores:
    """Score picks against truth.

    Parameters
    ----------
    picks
        In any form that `read_tomogram_picks` knows.
    truth
        A simulation's ``truth.json`` or its folder.
    distance
        Largest distance of a match, A.
    parameters
        What unit the coordinates of `picks` have.

    Raises
    ------
    FormatError
        If a file is broken.
    TableError
        If picks name a tomogram that the truth does not know.
    ParameterError
        If `distance` is not above 0.
    """
    known = read_tomogram_truth(truth)
    found = read_tomogram_picks(picks, tomograms=known.picks.tomograms, parameters=parameters)
    return evaluate_tomogram_picks(found, known.picks, distance=distance)
