"""Estimate the CTF of many micrographs: one task each, and the table that joins their results.

The folder of the job holds, for a micrograph with the key ``a``:

    a.ctf                 spectrum and fit in two halves, an MRC image, as RELION displays it
    a_ctf.png             the same for people, with averages along the rings
    micrographs_ctf.star  the table of the micrographs with their CTF, as RELION writes it
    failed.star           micrographs that were refused, and why
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cryopick.ctf.estimate import CtfEstimate, estimate_ctf, require_rings
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.ctf.half_picture import half_picture
from cryopick.ctf.polar import Lens
from cryopick.errors import CryopickError, DataError, TableError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import writing
from cryopick.io.micrograph import read_micrograph, read_micrograph_size
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.growing import lists_folder
from cryopick.pipeline.job import Job, ProgressCallback, Record, Task, identity_of
from cryopick.tables.micrographs import micrograph_path, open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key, rename_for
from cryopick.tables.relion import write_micrographs

__all__ = ["CtfEstimationResult", "EstimatedMicrograph", "estimate_ctfs", "with_lens"]

_RESULTS = ("micrographs_ctf.star", "failed.star")
_SIZED = 20  # micrographs whose size is looked up to estimate memory
_BYTES_PER_PIXEL, _BYTES_OF_TILES = 12, 150 << 20  # as measured
_SHIPPED_CONTRAST = 0.1
_OF_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")
_LIMITS = ((10.0, 5000.0), (0.0, 100.0), (0.0, 1.0))  # of these
_SAID = (" in kV, from 10 to 5000", " in mm, from 0 to 100", " as a fraction from 0 to 1")
_ICE_RING = "cryopickIceRing"
_REPLACED = (  # columns of an earlier estimation
    "ctf_image",
    "defocus_u",
    "defocus_v",
    "astigmatism",
    "defocus_angle",
    "phase_shift",
    "ctf_fom",
    "ctf_max_resolution",
    "ctf_bfactor",
    "ctf_scale",
    "is_ctf_trusted",
    "rlnCtfIceRingDensity",
    _ICE_RING,
    "rlnCtfValidationScore",
    "rlnCtfPowerSpectrum",
)


@dataclass(frozen=True, kw_only=True)
class EstimatedMicrograph:
    """What became of one micrograph."""

    micrograph: str
    defocus_u: float = 0.0  # A
    defocus_v: float = 0.0  # A
    defocus_angle: float = 0.0  # deg
    phase_shift: float = 0.0  # deg
    figure_of_merit: float = 0.0
    max_resolution: float = 0.0  # A
    is_trusted: bool = False
    ice_ring: float | None = None  # power of the ring of ice over that beside it, where it is seen
    error: str = ""  # why it was refused


@dataclass(frozen=True, kw_only=True)
class CtfEstimationResult:
    """What a CTF estimation found."""

    folder: Path
    micrographs: tuple[EstimatedMicrograph, ...]

    @property
    def table(self) -> Path:
        """The table of the micrographs with their CTF."""
        return self.folder / "micrographs_ctf.star"

    @property
    def estimated(self) -> tuple[EstimatedMicrograph, ...]:
        """Those that were not refused."""
        return tuple(m for m in self.micrographs if not m.error)

    @property
    def untrusted(self) -> tuple[EstimatedMicrograph, ...]:
        """Those in whose spectrum no rings were found."""
        return tuple(m for m in self.estimated if not m.is_trusted)

    @property
    def failed(self) -> tuple[EstimatedMicrograph, ...]:
        """Those that were refused."""
        return tuple(m for m in self.micrographs if m.error)

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        trusted = [m for m in self.estimated if m.is_trusted]
        defocus = pd.Series([(m.defocus_u + m.defocus_v) / 2 for m in trusted], dtype=float)
        resolution = pd.Series([m.max_resolution for m in trusted], dtype=float)
        return {
            "folder": str(self.folder),
            "table": str(self.table),
            "n_micrographs": len(self.micrographs),
            "n_failed": len(self.failed),
            "n_trusted": len(trusted),
            "median_defocus": round(float(defocus.median()), 1) if trusted else None,
            "median_max_resolution": round(float(resolution.median()), 2) if trusted else None,
            "not_trusted": [m.micrograph for m in self.untrusted],
            "failed": {m.micrograph: m.error for m in self.failed},
        }


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One task, as the worker gets it."""

    path: Path
    key: str
    pixel_size: float
    lens: Lens
    parameters: CtfParameters
    device: str
    folder: Path


def estimate_ctfs(
    inputs: Sequence[str],
    folder: Path,
    *,
    parameters: CtfParameters | None = None,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    voltage: float | None = None,
    spherical_aberration: float | None = None,
    amplitude_contrast: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> CtfEstimationResult:
    """Estimate the CTF of micrographs and write the table RELION's CTF job writes.

    Parameters
    ----------
    inputs
        One STAR file of RELION; or paths, folders and globs of images.
    folder
        Where the results go. Started again with the same parameters, only micrographs that are
        new, changed or failed are worked on.
    parameters
        Of the estimation.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    voltage, spherical_aberration, amplitude_contrast
        kV, mm and fraction, instead of what the table says. A contrast that nobody says is 0.1.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of micrographs done and in all.

    Returns
    -------
    CtfEstimationResult
        One entry per micrograph, in the order of the inputs. A micrograph that cannot be read or
        worked on is refused with a sentence; the others are estimated.

    Raises
    ------
    ParameterError
        If nothing fits the inputs, no pixel size is known, or pixels or tiles leave too few rings.
    TableError
        If a micrograph is named twice, or voltage or spherical aberration are not known.
    FormatError
        If the STAR file is broken.
    ProjectError
        If `folder` holds another job or is in use.
    OutputError
        If `folder` cannot be written.
    """
    parameters, compute = parameters or CtfParameters(), compute or ComputeParameters()
    folder = Path(folder)
    given = {
        "pixel_size": pixel_size,
        "voltage": voltage,
        "spherical_aberration": spherical_aberration,
        "amplitude_contrast": amplitude_contrast,
    }
    micrographs = with_lens(open_micrographs(inputs, **given))
    fields = _fields(micrographs, parameters, compute.devices, folder)
    job = Job(
        folder,
        name="ctf estimate",
        parameters={**parameters.to_dict(), **given},
        inputs=inputs,
        results=_RESULTS,
        overwrite=overwrite,
    )
    with job:
        tasks = [Task(key=f.key, identity=_identity(f), payload=f) for f in fields]
        executor = make_executor(compute, n_items=len(tasks), bytes_per_item=_bytes(fields))
        records = job.run(executor, _estimate_field, tasks, progress=progress)
        names = [str(n) for n in micrographs.rows["micrograph"]]
        found = tuple(_estimated(n, r) for n, r in zip(names, records, strict=True))
        result = CtfEstimationResult(folder=folder, micrographs=found)
        _write_lists(result, micrographs, has_phase_shift=parameters.phase_shift)
    return result


def with_lens(micrographs: Micrographs) -> Micrographs:
    """Fill in the usual amplitude contrast of optics groups.

    Raises
    ------
    TableError
        If voltage or spherical aberration of a group are not known, or one of the three is not
        what a microscope can have.
    """
    optics = micrographs.optics
    if "amplitude_contrast" not in optics.columns:
        optics = optics.assign(amplitude_contrast=_SHIPPED_CONTRAST)
    for name, (lowest, highest), said in zip(_OF_LENS, _LIMITS, _SAID, strict=True):
        column = optics[name] if name in optics.columns else pd.Series([math.nan])
        is_bad = ~column.between(lowest, highest)
        if is_bad.any():
            value = column[is_bad].iloc[0]
            raise TableError(
                str(micrographs.source or "MICROGRAPHS"),
                must=f"say the {name.replace('_', ' ')} of the microscope"
                f"{'' if math.isnan(value) else said}",
                got="none" if math.isnan(value) else f"{value:g}",
                remedy=f"Give it with --{name.replace('_', '-')}",
            )
    return Micrographs(rows=micrographs.rows, optics=optics, source=micrographs.source)


def _fields(
    micrographs: Micrographs, parameters: CtfParameters, devices: Sequence[str], folder: Path
) -> list[_Field]:
    groups: dict[int, tuple[float, Lens]] = {}
    columns = ["optics_group", "pixel_size", *_OF_LENS]
    for group, size, *lens in micrographs.optics[columns].itertuples(index=False, name=None):
        groups[int(group)] = (float(size), Lens(*map(float, lens)))
    used = set(micrographs.rows["optics_group"])
    for group in used:
        require_rings(groups[group][1], parameters, pixel_size=groups[group][0])
    rows = zip(micrographs.rows["micrograph"], micrographs.rows["optics_group"], strict=True)
    return [
        _Field(
            path=micrograph_path(str(name), micrographs.source),
            key=micrograph_key(str(name)),
            pixel_size=groups[group][0],
            lens=groups[group][1],
            parameters=parameters,
            device=devices[number % len(devices)],
            folder=folder,
        )
        for number, (name, group) in enumerate(rows)
    ]


def _identity(field: _Field) -> str:
    """Name all that makes the micrograph be estimated again when it changes."""
    lens = " ".join(f"{value:g}" for value in field.lens)
    return f"{identity_of(field.path)} {field.pixel_size:g} {lens}"


def _bytes(fields: Sequence[_Field]) -> int:
    """Peak memory of a task: that of the largest of some micrographs."""
    largest = 0
    for field in fields[:: max(1, len(fields) // _SIZED)]:
        with contextlib.suppress(CryopickError):  # its task says so
            height, width = read_micrograph_size(field.path)
            largest = max(largest, height * width)
    return _BYTES_PER_PIXEL * largest + _BYTES_OF_TILES


def _estimate_field(field: _Field) -> dict[str, Any]:
    """Read, fit and write one micrograph; what comes back goes to the ledger."""
    micrograph = torch.from_numpy(read_micrograph(field.path)).to(field.device)
    try:
        estimate = estimate_ctf(
            micrograph,
            pixel_size=field.pixel_size,
            parameters=field.parameters,
            **field.lens._asdict(),
        )
    except DataError as error:
        if error.what == "micrograph":  # pure functions know no file
            error.what = str(field.path)
        raise
    halves = half_picture(estimate).numpy()
    files = [f"{field.key}.ctf"]
    write_mrc(field.folder / files[0], halves, pixel_size=estimate.spectrum.pixel_size)
    picture = _picture(estimate, halves, field.key)
    if picture:
        files.append(f"{field.key}_ctf.png")
        with writing(field.folder / files[1]) as handle:
            handle.write(picture)
    return {
        "defocus_u": round(estimate.ctf.defocus_u, 3),
        "defocus_v": round(estimate.ctf.defocus_v, 3),
        "defocus_angle": round(estimate.ctf.defocus_angle, 4),
        "phase_shift": round(estimate.ctf.phase_shift, 4),
        "figure_of_merit": round(estimate.figure_of_merit, 6),
        "max_resolution": round(estimate.max_resolution, 4),
        "is_trusted": estimate.is_trusted,
        "ice_ring": None if math.isnan(estimate.ice_ring) else round(estimate.ice_ring, 4),
        "files": files,
    }


def _picture(estimate: CtfEstimate, halves: Any, key: str) -> bytes:
    """Draw the fit; nothing that happens to a picture may cost the fit."""
    with contextlib.suppress(Exception):
        from cryopick.report.ctf_picture import draw_ctf
        from cryopick.report.figures import figure_to_png

        curves, ctf = estimate.curves, estimate.ctf
        title = f"{key}: defocus {ctf.defocus_u:.0f} and {ctf.defocus_v:.0f} Å"
        title += f", angle {ctf.defocus_angle:.0f}°"
        title += f", phase shift {ctf.phase_shift:.0f}°" if ctf.phase_shift else ""
        title += f", figure of merit {estimate.figure_of_merit:.2f}"
        good = f", rings to {estimate.max_resolution:.1f} Å"
        figure = draw_ctf(
            halves,
            frequency=curves.frequency.numpy(),
            measured=curves.measured.numpy(),
            model=curves.model.numpy(),
            correlation=curves.correlation.numpy(),
            max_resolution=estimate.max_resolution,
            title=title + (good if estimate.is_trusted else ": not trusted"),
        )
        return figure_to_png(figure, dpi=96)
    return b""


def _estimated(name: str, record: Record) -> EstimatedMicrograph:
    values: Mapping[str, Any] = {k: v for k, v in record.summary.items() if k != "files"}
    return EstimatedMicrograph(micrograph=name, error=record.error, **values)


def _write_lists(
    result: CtfEstimationResult, micrographs: Micrographs, *, has_phase_shift: bool
) -> None:
    """Write what joins the micrographs, and take away what a failed one left from before."""
    for micrograph in result.failed:
        key = micrograph_key(micrograph.micrograph)
        for name in (f"{key}.ctf", f"{key}_ctf.png"):
            (result.folder / name).unlink(missing_ok=True)
    done = result.estimated
    is_done = [not m.error for m in result.micrographs]
    kept = [c for c in micrographs.rows.columns if c not in _REPLACED]
    rows = micrographs.rows.loc[is_done, kept].reset_index(drop=True)
    rows["micrograph"] = pd.Series(
        [
            rename_for(str(n), source=micrographs.source, target=result.table)
            for n in rows["micrograph"]
        ],
        dtype="str",
    )
    names = [f"{result.folder / micrograph_key(m.micrograph)}.ctf:mrc" for m in done]
    found: dict[str, Any] = {
        "ctf_image": pd.Series(names, dtype="str"),
        "defocus_u": [m.defocus_u for m in done],
        "defocus_v": [m.defocus_v for m in done],
        "astigmatism": [round(m.defocus_u - m.defocus_v, 3) for m in done],
        "defocus_angle": [m.defocus_angle for m in done],
        "ctf_fom": [m.figure_of_merit for m in done],
        "ctf_max_resolution": [m.max_resolution for m in done],
        "is_ctf_trusted": [int(m.is_trusted) for m in done],
    }
    if any(m.ice_ring is not None for m in done):
        found[_ICE_RING] = pd.Series([m.ice_ring for m in done], dtype=float)
    if has_phase_shift:
        found["phase_shift"] = [m.phase_shift for m in done]
    table = Micrographs(
        rows=rows.assign(**found), optics=micrographs.optics, source=micrographs.source
    )
    lists = lists_folder(result.folder)
    write_micrographs(lists / result.table.name, table)
    write_failed(lists / "failed.star", {m.micrograph: m.error for m in result.failed})
