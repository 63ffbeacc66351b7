"""Read what a picking job found back from its folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cryopick.io.star import read_star
from cryopick.pipeline.picking import PickedMicrograph, PickingResult
from cryopick.tables.model import require_columns

__all__ = ["read_picking"]

_NAME, _REASON = "rlnMicrographName", "cryopickReason"
_COLUMNS = {
    "rlnGroupNrParticles": "n_picks",
    "cryopickPeaks": "n_peaks",
    "rlnAutopickFigureOfMerit": "mean_fom",
    "cryopickThreshold": "threshold",
    "cryopickValidFraction": "valid_fraction",
    "cryopickCtf": "ctf",
}
_REMEDY = "Pick again with the same command"


def read_picking(folder: Path) -> PickingResult:
    """Read ``summary.star`` and ``failed.star`` of any picker.

    Parameters
    ----------
    folder
        Of a picking job that was finished.

    Returns
    -------
    PickingResult
        Micrographs that were picked in the order of the job, then those that were refused.

    Raises
    ------
    FormatError
        If a file is missing or broken.
    TableError
        If a column is missing.
    """
    folder = Path(folder)
    path = folder / "summary.star"
    rows = next(iter(read_star(path, text=("cryopickCtf",)).values()), pd.DataFrame())
    require_columns(rows, [_NAME, *_COLUMNS], table=str(path), remedy=_REMEDY)
    kept = rows[[_NAME, *_COLUMNS]].rename(columns={_NAME: "micrograph", **_COLUMNS})
    found = []
    for values in kept.to_dict("records"):
        numbers = {str(k): v for k, v in values.items()}
        ctf = "" if numbers["ctf"] == "unused" else numbers["ctf"]
        found.append(PickedMicrograph(**numbers | {"ctf": ctf}))
    path = folder / "failed.star"
    if path.exists():
        failed = read_star(path, text=(_REASON,)).get("failed", pd.DataFrame())
        require_columns(failed, [_NAME, _REASON], table=str(path), remedy=_REMEDY)
        found += [
            PickedMicrograph(micrograph=str(name), error=str(reason))
            for name, reason in zip(failed[_NAME], failed[_REASON], strict=True)
        ]
    return PickingResult(folder=folder, micrographs=tuple(found))
