"""Pick many micrographs: one task each, and the lists that join their results.

The folder of a picking job holds, for a micrograph with the key ``a``:

    a_autopick.star             picks: the peaks above the threshold
    peaks/a_peaks.star          all peaks above a low floor, so that a threshold is a filter
    fom_maps/a_<map>.mrc        if asked for
    autopick.star               list of coordinate files, as RELION 4 and 5 read it
    coords_suffix_autopick.star one line, as RELION 3 reads it
    summary.star                picks, mean figure of merit and threshold of each micrograph
    scores.png                  the scores of all peaks with the threshold
    failed.star                 micrographs that were refused, and why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import CryopickError, DataError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.micrograph import read_micrograph, read_micrograph_size
from cryopick.io.mrc import write_mrc
from cryopick.io.star import write_star
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.growing import lists_folder
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.pipeline.pickers import Picker
from cryopick.pipeline.picking_ctf import CtfOfField, FoundCtf, ctfs_of_fields, find_ctf
from cryopick.pipeline.picking_ctf_parameters import PickingCtfParameters
from cryopick.pipeline.score_chart import SCORE_CHART, write_score_chart
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import PickScore, score_comment
from cryopick.tables.relion import (
    write_coordinate_files,
    write_coords_suffix,
    write_micrographs,
    write_picks_file,
)

__all__ = [
    "PICKING_FILES",
    "PickedMicrograph",
    "PickingResult",
    "gather_picks",
    "pick_micrographs",
    "picking_job",
    "store_picks",
]

PICKING_FILES = (
    "autopick.star",
    "coords_suffix_autopick.star",
    "summary.star",
    "failed.star",
    SCORE_CHART,
)
_SIZED = 20  # micrographs whose size is looked up to estimate memory


@dataclass(frozen=True, kw_only=True)
class PickedMicrograph:
    """What became of one micrograph."""

    micrograph: str
    n_picks: int = 0
    n_peaks: int = 0
    mean_fom: float = 0.0  # of the picks
    threshold: float = 0.0
    valid_fraction: float = 0.0  # of the field that was searched
    ctf: str = ""  # table, estimated, none or ignored; empty where nothing asked for it
    error: str = ""  # why it was refused


@dataclass(frozen=True, kw_only=True)
class PickingResult:
    """What a picking job found."""

    folder: Path
    micrographs: tuple[PickedMicrograph, ...]

    @property
    def picked(self) -> tuple[PickedMicrograph, ...]:
        """Those that were not refused."""
        return tuple(m for m in self.micrographs if not m.error)

    @property
    def failed(self) -> tuple[PickedMicrograph, ...]:
        """Those that were refused."""
        return tuple(m for m in self.micrographs if m.error)

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        return {
            "folder": str(self.folder),
            "n_micrographs": len(self.micrographs),
            "n_failed": len(self.failed),
            "n_picks": sum(m.n_picks for m in self.picked),
            "n_peaks": sum(m.n_peaks for m in self.picked),
            "n_without_picks": sum(not m.n_picks for m in self.picked),
            "n_without_ctf": sum(m.ctf == "none" for m in self.picked),
            "n_ctf_estimated": sum(m.ctf == "estimated" for m in self.picked),
            "coordinates": str(self.folder / "autopick.star"),
            "failed": {m.micrograph: m.error for m in self.failed},
        }


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One task, as the worker gets it."""

    path: Path
    key: str
    pixel_size: float
    ctf: CtfOfField | None  # None where the picker does not ask for it
    device: str
    folder: Path


def pick_micrographs(
    inputs: Sequence[str],
    folder: Path,
    *,
    picker: Picker,
    ctf: PickingCtfParameters | None = None,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> PickingResult:
    """Find particles in micrographs and write their positions.

    Parameters
    ----------
    inputs
        One STAR file of RELION; or paths, folders and globs of images.
    folder
        Where the results go. Started again with the same parameters, only micrographs that are
        new, changed or failed are picked.
    picker
        How to pick a field.
    ctf
        Where the CTF of each field comes from; without it the picker gets none.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of micrographs done and in all.

    Returns
    -------
    PickingResult
        One entry per micrograph, in the order of the inputs. A micrograph that cannot be read or
        worked on is refused with a sentence; the others are picked.

    Raises
    ------
    ParameterError
        If nothing fits the inputs, or no pixel size is known.
    TableError
        If a micrograph is named twice, or the CTF is asked for and cannot be known.
    FormatError
        If the STAR file is broken.
    ProjectError
        If `folder` holds another job or is in use.
    OutputError
        If `folder` cannot be written.
    """
    compute = compute or ComputeParameters()
    micrographs = open_micrographs(
        inputs, pixel_size=pixel_size, **(ctf.lens if ctf is not None else {})
    )
    fields = _fields(micrographs, ctf, compute.devices, Path(folder))
    job = picking_job(
        folder,
        picker=picker,
        ctf=ctf,
        pixel_size=pixel_size,
        inputs=inputs,
        has_table=micrographs.source is not None,
        overwrite=overwrite,
    )
    with job:
        picker.write_extras(Path(folder))
        tasks = [Task(key=f.key, identity=_identity(f), payload=f) for f in fields]
        executor = make_executor(compute, n_items=len(tasks), bytes_per_item=_bytes(fields, picker))
        pick = partial(_pick_field, picker=picker)  # may be large, and goes to each worker once
        records = job.run(executor, pick, tasks, progress=progress)
        return gather_picks(Path(folder), micrographs, records, score=picker.score)


def gather_picks(
    folder: Path, micrographs: Micrographs, records: Sequence[Record], *, score: PickScore
) -> PickingResult:
    """Write the lists that join the micrographs of a job, and the chart of their scores.

    Parameters
    ----------
    folder
        Of the job.
    micrographs
        That were picked.
    records
        What became of each, in their order.
    score
        What the figure of merit means.

    Raises
    ------
    OutputError
        If a list cannot be written.
    """
    names = [str(n) for n in micrographs.rows["micrograph"]]
    picked = tuple(_picked(n, r) for n, r in zip(names, records, strict=True))
    result = PickingResult(folder=folder, micrographs=picked)
    _write_lists(result, micrographs, score)
    identities = [r.identity for r in records if r.is_done]
    write_score_chart(folder, result.picked, identities, score=score)
    return result


def picking_job(
    folder: Path,
    *,
    picker: Picker,
    ctf: PickingCtfParameters | None,
    pixel_size: float | None,
    inputs: Sequence[str],
    has_table: bool,
    overwrite: bool,
    adjustable: Sequence[str] = (),
) -> Job:
    """Describe the job that `pick_micrographs` opens.

    Parameters
    ----------
    folder, picker, ctf, pixel_size, inputs, overwrite
        As for `pick_micrographs`.
    has_table
        Whether the micrographs are named by a STAR file.
    adjustable
        Names of parameters that may differ from those of a job in the folder.
    """
    lists = PICKING_FILES if has_table else (*PICKING_FILES, "micrographs.star")
    of_lens = ctf.to_dict() if ctf is not None else {}
    return Job(
        folder,
        name=picker.name,
        parameters={**picker.record(), **of_lens, "pixel_size": pixel_size},
        inputs=inputs,
        results=(*lists, *picker.extras),
        overwrite=overwrite,
        adjustable=adjustable,
    )


def _fields(
    micrographs: Micrographs,
    ctf: PickingCtfParameters | None,
    devices: Sequence[str],
    folder: Path,
) -> list[_Field]:
    ctfs = ctfs_of_fields(micrographs, ctf) if ctf is not None else {}
    rows = zip(micrographs.rows["micrograph"], pixel_sizes(micrographs), strict=True)
    return [
        _Field(
            path=micrograph_path(str(name), micrographs.source),
            key=micrograph_key(str(name)),
            pixel_size=float(size),
            ctf=ctfs.get(str(name)),
            device=devices[number % len(devices)],
            folder=folder,
        )
        for number, (name, size) in enumerate(rows)
    ]


def _identity(field: _Field) -> str:
    """Name all that makes the micrograph be picked again when it changes."""
    return f"{identity_of(field.path)} {field.pixel_size:g} {field.ctf or ''}".rstrip()


def _bytes(fields: Sequence[_Field], picker: Picker) -> int:
    """Peak memory of a task: that of the largest of some micrographs."""
    largest = 0
    for field in fields[:: max(1, len(fields) // _SIZED)]:
        try:
            side = max(read_micrograph_size(field.path))
            largest = max(largest, picker.field_bytes(side, field.pixel_size))
        except CryopickError:
            continue  # its task says so
    return largest


def _pick_field(field: _Field, picker: Picker) -> dict[str, Any]:
    """Read, pick and write one micrograph; what comes back goes to the ledger."""
    micrograph = torch.from_numpy(read_micrograph(field.path)).to(field.device)
    _require_room(micrograph, field, picker)
    lens = FoundCtf(None, "")
    if field.ctf is not None:
        lens = find_ctf(micrograph, field.ctf, pixel_size=field.pixel_size)
    found = _pick(micrograph, field, picker, lens.ctf)
    stored = store_picks(
        found, folder=field.folder, key=field.key, score=picker.score, ctf=lens.source
    )
    stored["files"] += _write_maps(found, max(micrograph.shape), field)
    return stored


def store_picks(
    found: FieldPicks, *, folder: Path, key: str, score: PickScore, ctf: str = ""
) -> dict[str, Any]:
    """Write the peaks and the picks of one micrograph.

    Parameters
    ----------
    found
        Peaks.
    folder
        Of the job.
    key
        Names the results of the micrograph.
    score
        What the figure of merit means.
    ctf
        Where its CTF came from; empty where nothing asked for it.

    Returns
    -------
    dict
        What the ledger says of the micrograph.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    peaks = _table_of(found)
    picks = peaks[found.is_pick]
    files = [f"{key}_autopick.star", f"peaks/{key}_peaks.star"]
    write_picks_file(folder / files[1], peaks, score=score)
    write_picks_file(folder / files[0], picks, score=score)
    return {
        "n_picks": len(picks),
        "n_peaks": len(peaks),
        "mean_fom": float(picks["fom"].mean()) if len(picks) else 0.0,
        "threshold": float(found.threshold),
        "valid_fraction": float(found.valid_fraction),
        "ctf": ctf,
        "files": files,
    }


def _table_of(found: FieldPicks) -> pd.DataFrame:
    columns = {
        "x": found.x,
        "y": found.y,
        "fom": found.fom,
        "class_number": 0 if found.class_number is None else found.class_number,
        "psi": 0.0 if found.psi is None else found.psi,
        "diameter": found.diameter,
    }
    return pd.DataFrame(columns)


def _require_room(micrograph: torch.Tensor, field: _Field, picker: Picker) -> None:
    side = min(micrograph.shape) * field.pixel_size
    if picker.largest_diameter > side:
        raise DataError(
            str(field.path),
            must=f"be larger than the largest particle, {picker.largest_diameter:g} A",
            got=f"a side of {side:g} A",
            remedy="Lower the diameter, check the pixel size or leave the micrograph out",
        )


def _pick(
    micrograph: torch.Tensor, field: _Field, picker: Picker, ctf: FieldCtf | None
) -> FieldPicks:
    try:
        return picker.pick(micrograph, pixel_size=field.pixel_size, ctf=ctf)
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(field.path)
        raise


def _write_maps(found: FieldPicks, side: int, field: _Field) -> list[str]:
    names = []
    for name, pixels in found.maps.items():
        names.append(f"fom_maps/{field.key}_{name}.mrc")
        binning = side / max(pixels.shape)
        write_mrc(field.folder / names[-1], pixels, pixel_size=field.pixel_size * binning)
    return names


def _picked(name: str, record: Record) -> PickedMicrograph:
    values: Mapping[str, Any] = {k: v for k, v in record.summary.items() if k != "files"}
    return PickedMicrograph(micrograph=name, error=record.error, **values)


def _write_lists(result: PickingResult, micrographs: Micrographs, score: PickScore) -> None:
    """Write what joins the micrographs, and take away what a failed one left from before."""
    folder, lists = result.folder, lists_folder(result.folder)
    for micrograph in result.failed:
        key = micrograph_key(micrograph.micrograph)
        for name in (f"{key}_autopick.star", f"peaks/{key}_peaks.star"):
            (folder / name).unlink(missing_ok=True)
        for name in ("fom", "mask"):
            (folder / f"fom_maps/{key}_{name}.mrc").unlink(missing_ok=True)
    files = [
        (m.micrograph, str(folder / f"{micrograph_key(m.micrograph)}_autopick.star"))
        for m in result.picked
    ]
    write_coordinate_files(lists / "autopick.star", files)
    write_coords_suffix(lists / "coords_suffix_autopick.star", _table(lists, micrographs))
    _write_summary(lists / "summary.star", result.picked, score)
    write_failed(lists / "failed.star", {m.micrograph: m.error for m in result.failed})


def _table(folder: Path, micrographs: Micrographs) -> str:
    """Path of the STAR file of the micrographs; where there was none it is written."""
    if micrographs.source is not None:
        return str(micrographs.source)
    write_micrographs(folder / "micrographs.star", micrographs)
    return str(folder / "micrographs.star")


def _write_summary(path: Path, picked: Sequence[PickedMicrograph], score: PickScore) -> None:
    table = pd.DataFrame(
        {
            "rlnMicrographName": pd.Series([m.micrograph for m in picked], dtype="str"),
            "rlnAutopickFigureOfMerit": np.array([m.mean_fom for m in picked], float),
            "rlnGroupNrParticles": np.array([m.n_picks for m in picked], int),
            "cryopickThreshold": np.array([m.threshold for m in picked], float),
            "cryopickValidFraction": np.array([m.valid_fraction for m in picked], float),
            "cryopickPeaks": np.array([m.n_peaks for m in picked], int),
            "cryopickCtf": pd.Series([m.ctf or "unused" for m in picked], dtype="str"),
        }
    )
    write_star(path, {"": table}, comment=f"{score_comment(score)}\n# version 50001")
