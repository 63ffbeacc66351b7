"""Join the picks of tomograms: one table, kinds over the whole data set, a file in each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.pipeline.tomo_pick_parameters import TomogramPickOutput
from cryopick.pipeline.tomo_pick_task import read_found
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_formats import write_tomogram_picks
from cryopick.tables.tomograms import TomogramPicks, tomogram_table
from cryopick.tomogram.kinds import Kinds, group_picks
from cryopick.tomogram.locate_parameters import TomogramPickParameters

__all__ = ["WrittenPicks", "write_picks_of_all"]

_STAR = ("relion5", "relion4", "relion3", "warp")  # all write a file of one name


@dataclass(frozen=True, kw_only=True)
class WrittenPicks:
    """The picks of all tomograms, and where they are."""

    picks: TomogramPicks
    kinds: Kinds
    features: NDArray[np.float64]  # (n, m)
    files: tuple[Path, ...]


def write_picks_of_all(
    folder: Path,
    tomograms: Sequence[Mapping[str, Any]],
    *,
    parameters: TomogramPickParameters,
    output: TomogramPickOutput,
) -> WrittenPicks:
    """Write the coordinate files of a job.

    Parameters
    ----------
    folder
        Of the job.
    tomograms
        Those that were picked: name, shape (z, y, x) and voxel size.
    parameters, output
        Of the job.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    names = [str(t["tomogram"]) for t in tomograms]
    found = [read_found(folder, name) for name in names]
    features = [f["features"] for f in found if len(f["scores"])]
    joined = np.concatenate(features) if features else np.zeros((0, 1))
    kinds = group_picks(joined, number=parameters.kinds)
    rows = [
        _rows(n, f, float(t["voxel_size"])) for n, f, t in zip(names, found, tomograms, strict=True)
    ]
    table = pd.concat(rows, ignore_index=True) if rows else _rows("", _NOTHING, 1.0)
    table["kind"] = kinds.kind
    sizes = tomogram_table(
        [(n, t["shape"], t["voxel_size"]) for n, t in zip(names, tomograms, strict=True)]
    )
    picks = TomogramPicks(rows=table, tomograms=sizes)
    files: list[Path] = []
    n_star = sum(f in _STAR for f in output.formats)
    for name in output.formats:
        stem = f"particles_{name}" if name in _STAR and n_star > 1 else ""
        format_of = TomogramFormatParameters(format=cast("Any", name))
        files += write_tomogram_picks(folder, picks, parameters=format_of, stem=stem)
    return WrittenPicks(picks=picks, kinds=kinds, features=joined, files=tuple(files))


def _rows(name: str, found: Mapping[str, NDArray[Any]], voxel_size: float) -> pd.DataFrame:
    places = found["places"].reshape(-1, 3) * voxel_size
    semi = found["semi_axes"].reshape(-1, 3) * voxel_size
    axes = found["axes"].reshape(-1, 3, 3)
    columns: dict[str, Any] = {
        "tomogram": pd.Series([name] * len(places), dtype="str"),
        "x": places[:, 2],
        "y": places[:, 1],
        "z": places[:, 0],
        "score": found["scores"],
        "diameter": 2 * np.cbrt(semi.prod(1)),
        "volume": found["filled"] * voxel_size**3,
    }
    for number, word in enumerate(("long", "middle", "short")):
        columns[f"{word}_axis"] = 2 * semi[:, number]
    for number, letter in enumerate("xyz"):
        columns[f"long_axis_{letter}"] = axes[:, 0, number]
    return pd.DataFrame(columns)


_NOTHING: dict[str, NDArray[Any]] = {
    "places": np.zeros((0, 3)),
    "semi_axes": np.zeros((0, 3)),
    "axes": np.zeros((0, 3, 3)),
    "scores": np.zeros(0),
    "filled": np.zeros(0),
}
