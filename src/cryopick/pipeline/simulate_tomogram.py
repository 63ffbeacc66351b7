"""Simulate tomograms into a folder, one task each.

tomograms/sim_00001.mrc         particles dark, noise of variance 1
labels/sim_00001_labels.mrc     0 ice, 1 ... K species, K + 1 gold, K + 2 membrane
truth/sim_00001_truth.star      every particle as RELION 5 counts: position, pose, species
truth.star                      the same of all tomograms
tomograms.star                  RELION's table of them
truth.json                      positions in A from the centre of the first voxel; gold; vesicles
phantoms/NAME.mrc               density of each species
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cryopick.errors import DataError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.io.volumes import VolumeWriter
from cryopick.pipeline.job import Job, ProgressCallback, Task
from cryopick.pipeline.simulate import write_phantoms
from cryopick.pipeline.simulate_species import load_models, species_identity
from cryopick.simulation.parameters import SpecimenParameters
from cryopick.simulation.projection import Model
from cryopick.simulation.tomograms import SimulatedTomogram, plan_tomogram, simulate_tomogram
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_star import write_relion_tomograms, write_tomogram_star
from cryopick.tables.tomograms import TomogramPicks, tomogram_table

__all__ = ["SimulatedTomograms", "simulate_tomograms"]

_BYTES_PER_VOXEL = 26  # at the peak of one task, measured with gold and vesicles
_RESULTS = ("truth.json", "truth.star", "tomograms.star")
_SLAB = 16  # sections written at a time


@dataclass(frozen=True, kw_only=True)
class SimulatedTomograms:
    """What was simulated."""

    folder: Path
    n_tomograms: int
    n_particles: int
    diameters: dict[str, float]  # of each species, A

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        return {
            "folder": str(self.folder),
            "n_tomograms": self.n_tomograms,
            "n_particles": self.n_particles,
            "diameters": self.diameters,
            "tomograms": str(self.folder / "tomograms"),
            "truth": str(self.folder / "truth.json"),
        }


@dataclass(frozen=True, kw_only=True)
class _Tomogram:
    """One task, as the worker gets it."""

    folder: Path
    index: int
    device: str
    specimen: SpecimenParameters
    parameters: TomogramSimulationParameters

    @property
    def key(self) -> str:
        return f"sim_{self.index + 1:05d}"

    @property
    def volume(self) -> str:
        return f"tomograms/{self.key}.mrc"

    @property
    def labels(self) -> str:
        return f"labels/{self.key}_labels.mrc"

    @property
    def truth(self) -> str:
        return f"truth/{self.key}_truth.star"

    @property
    def record(self) -> str:
        return f"truth/{self.key}_truth.json"


def simulate_tomograms(
    folder: Path,
    *,
    specimen: SpecimenParameters,
    parameters: TomogramSimulationParameters,
    compute: ComputeParameters | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> SimulatedTomograms:
    """Simulate tomograms with truth.

    Parameters
    ----------
    folder
        Where the results go. Started again with the same parameters, only what is missing is
        made; with a larger number, only the additional tomograms.
    specimen, parameters
        What there is, how it is imaged, and how much of it.
    compute
        How much of the machine to use.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of tomograms done and in all.

    Raises
    ------
    FormatError
        If a model file is broken.
    ParameterError
        If there is no such phantom, the particles find no room, or the memory allowed is too
        small.
    DataError
        If one of the tomograms could not be made; the others are kept.
    ProjectError
        If `folder` holds another job or is in use.
    OutputError
        If `folder` cannot be written.
    """
    folder = Path(folder)
    compute = compute or ComputeParameters()
    models = load_models(specimen)
    plan_tomogram(models, index=0, specimen=specimen, parameters=parameters)
    tomograms = [
        _Tomogram(
            folder=folder,
            index=index,
            device=compute.devices[index % len(compute.devices)],
            specimen=specimen,
            parameters=parameters,
        )
        for index in range(parameters.number)
    ]
    values = asdict(specimen) | asdict(parameters)
    del values["number"]  # a tomogram does not depend on how many there are
    job = Job(
        folder,
        name="simulate tomogram",
        parameters=values,
        inputs=specimen.model_files,
        results=_RESULTS,
        overwrite=overwrite,
    )
    with job:
        _make(job, tomograms, compute, progress)
        write_phantoms(folder / "phantoms", models)
        n_particles = _join(folder, tomograms, models)
    return SimulatedTomograms(
        folder=folder,
        n_tomograms=len(tomograms),
        n_particles=n_particles,
        diameters={m.name: round(m.diameter, 1) for m in models},
    )


def _make(
    job: Job,
    tomograms: Sequence[_Tomogram],
    compute: ComputeParameters,
    progress: ProgressCallback | None,
) -> None:
    """Make the tomograms that are missing; refuse to go on without one."""
    identity = species_identity(tomograms[0].specimen)
    tasks = [Task(key=t.key, identity=identity, payload=t) for t in tomograms]
    size = math.prod(tomograms[0].parameters.shape) * _BYTES_PER_VOXEL
    executor = make_executor(compute, n_items=len(tasks), bytes_per_item=size)
    records = job.run(executor, _simulate_one, tasks, progress=progress)
    failed = [r for r in records if not r.is_done]
    if failed:
        raise DataError(
            failed[0].key,
            must="be simulated",
            got=f"an error ({failed[0].error.rstrip('.')})",
            remedy="Mend its cause; the same command then goes on",
        )


def _simulate_one(task: _Tomogram) -> dict[str, Any]:
    """Make one tomogram in a worker."""
    parameters = task.parameters
    made = simulate_tomogram(
        load_models(task.specimen),
        index=task.index,
        specimen=task.specimen,
        parameters=parameters,
        device=task.device,
    )
    _write_volume(task.folder / task.volume, made.volume, parameters.data_type, parameters)
    _write_volume(task.folder / task.labels, made.labels, "uint8", parameters)
    write_json(task.folder / task.record, _record(task, made))
    rows = made.particles.copy()
    rows.insert(0, "tomogram", task.key)
    table = tomogram_table([(task.key, parameters.shape, parameters.voxel_size)])
    _write_star(task.folder / task.truth, TomogramPicks(rows=rows, tomograms=table))
    return {
        "files": [task.volume, task.labels, task.truth, task.record],
        "n_particles": len(rows),
    }


def _write_volume(
    path: Path, volume: torch.Tensor, dtype: str, parameters: TomogramSimulationParameters
) -> None:
    with VolumeWriter(path, parameters.shape, dtype, parameters.voxel_size) as writer:
        for first in range(0, len(volume), _SLAB):
            writer.write((first, 0, 0), volume[first : first + _SLAB].cpu().numpy().astype(dtype))


def _record(task: _Tomogram, made: SimulatedTomogram) -> dict[str, Any]:
    scene, parameters = made.scene, task.parameters
    return {
        "file": task.volume,
        "labels": task.labels,
        "shape": list(parameters.shape),
        "voxel_size": parameters.voxel_size,
        "signal_deviation": round(made.signal_deviation, 6),
        "particles": json.loads(made.particles.round(4).to_json(orient="records")),
        "gold": [
            {"x": x, "y": y, "z": z, "diameter": parameters.gold_diameter}
            for x, y, z in scene.gold.round(4).tolist()
        ],
        "vesicles": [
            {
                "centre": v.centre.round(4).tolist(),
                "semi_axes": v.semi_axes.round(4).tolist(),
                "axes": v.rotation.round(6).tolist(),
            }
            for v in scene.vesicles
        ],
    }


def _write_star(path: Path, picks: TomogramPicks) -> None:
    write_tomogram_star(path, picks, parameters=TomogramFormatParameters(format="relion5"))


def _join(folder: Path, tomograms: Sequence[_Tomogram], models: Sequence[Model]) -> int:
    """Join the truth of all tomograms."""
    records = {t.key: json.loads((folder / t.record).read_text()) for t in tomograms}
    table = tomogram_table((key, r["shape"], r["voxel_size"]) for key, r in records.items())
    columns = ["tomogram", "x", "y", "z", "species", "kind", "diameter", "rot", "tilt", "psi"]
    rows = pd.DataFrame(
        [{"tomogram": key, **p} for key, r in records.items() for p in r["particles"]],
        columns=columns,
    )
    _write_star(folder / "truth.star", TomogramPicks(rows=rows, tomograms=table))
    files = {t.key: t.volume for t in tomograms}
    write_relion_tomograms(folder / "tomograms.star", table, files=files)
    species = [
        {"kind": i, "name": m.name, "diameter": round(m.diameter, 2)}
        for i, m in enumerate(models, 1)
    ]
    labels = {m.name: i for i, m in enumerate(models, 1)}
    labels |= {"gold": len(models) + 1, "membrane": len(models) + 2}
    truth = {"species": species, "labels": labels, "tomograms": records}
    write_json(folder / "truth.json", truth)
    return len(rows)
