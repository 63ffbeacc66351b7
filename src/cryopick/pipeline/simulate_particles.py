"""Simulate a stack of particle images into a folder, one task for each batch.

particles.mrcs     white particles, background mean 0 and deviation 1
particles.star     RELION's table of them with their CTF, as after extraction
truth.star         the same with poses, classes, views and kinds of junk
truth.npz          label, junk, R, shift (x, y in px), apix
clean.npy          float16 projections without CTF and noise; 0 for junk
phantoms/NAME.mrc  density of each species
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import ProjectError
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import writing
from cryopick.io.mrc import MrcStackWriter
from cryopick.pipeline.job import Job, ProgressCallback, Task
from cryopick.pipeline.simulate import write_phantoms
from cryopick.pipeline.simulate_species import load_models, species_identity
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.particles import (
    BATCH_SIZE,
    Scale,
    SimulatedParticles,
    calibrate,
    simulate_particles,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles

__all__ = ["SimulatedStack", "simulate_stack"]

_BYTES_PER_PIXEL = 100  # of a batch, at the peak of one task, measured
_POSE = ("rot", "tilt", "psi", "shift_x", "shift_y", "class_number", "is_junk")
_OWN = {"species": "cryopickSpecies", "view": "cryopickView", "state": "cryopickState"}
_RESULTS = ("particles.mrcs", "clean.npy", "truth.npz", "truth.star", "particles.star")


@dataclass(frozen=True, kw_only=True)
class SimulatedStack:
    """What was simulated."""

    folder: Path
    n_images: int
    n_junk: int
    diameter: float  # of the largest species, A

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        return {
            "folder": str(self.folder),
            "n_images": self.n_images,
            "n_junk": self.n_junk,
            "diameter": round(self.diameter, 1),
            "particles": str(self.folder / "particles.star"),
            "truth": str(self.folder / "truth.star"),
        }


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """One task, as the worker gets it."""

    folder: Path
    index: int
    device: str
    scale: Scale
    specimen: SpecimenParameters
    microscope: MicroscopeParameters
    parameters: ParticleSimulationParameters

    @property
    def part(self) -> str:
        return f"parts/batch_{self.index + 1:05d}.npz"


def simulate_stack(
    folder: Path,
    *,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    compute: ComputeParameters | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> SimulatedStack:
    """Simulate particle images with truth.

    Parameters
    ----------
    folder
        Where the results go. Started again with the same parameters, only what is missing is
        made.
    specimen, microscope, parameters
        What there is, how it is imaged, and how much of it.
    compute
        How much of the machine to use.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of batches done and in all.

    Raises
    ------
    FormatError
        If a model file is broken.
    ParameterError
        If there is no such phantom, the box is too small, or the memory allowed is.
    ProjectError
        If `folder` holds another job, is in use, or lacks results of a finished job.
    OutputError
        If `folder` cannot be written.
    """
    folder = Path(folder)
    compute = compute or ComputeParameters()
    models = load_models(specimen)
    chosen = {"specimen": specimen, "microscope": microscope, "parameters": parameters}
    scale = calibrate(models, specimen=specimen, microscope=microscope, parameters=parameters)
    batches = [
        _Batch(
            folder=folder,
            index=index,
            device=compute.devices[index % len(compute.devices)],
            scale=scale,
            specimen=specimen,
            microscope=microscope,
            parameters=parameters,
        )
        for index in range(-(-parameters.number // BATCH_SIZE))
    ]
    identity = species_identity(specimen)
    job = Job(
        folder,
        name="simulate particles",
        parameters={k: v for group in chosen.values() for k, v in asdict(group).items()},
        inputs=specimen.model_files,
        results=_RESULTS,
        overwrite=overwrite,
    )
    with job:
        tasks = [Task(key=b.part, identity=identity, payload=b) for b in batches]
        size = BATCH_SIZE * 2 * parameters.box_size**2 * _BYTES_PER_PIXEL
        executor = make_executor(compute, n_items=len(tasks), bytes_per_item=size)
        records = job.run(executor, _simulate_batch, tasks, progress=progress)
        write_phantoms(folder / "phantoms", models)
        if not _is_joined(folder, batches):
            _join(folder, batches, parameters, microscope)
    return SimulatedStack(
        folder=folder,
        n_images=parameters.number,
        n_junk=sum(r.summary["n_junk"] for r in records),
        diameter=max(m.diameter for m in models),
    )


def _simulate_batch(batch: _Batch) -> dict[str, Any]:
    """Make one batch in a worker; it waits in `parts` until all are there."""
    made = simulate_particles(
        load_models(batch.specimen),
        batch=batch.index,
        scale=batch.scale,
        specimen=batch.specimen,
        microscope=batch.microscope,
        parameters=batch.parameters,
        device=batch.device,
    )
    with writing(batch.folder / batch.part) as handle:
        arrays: dict[str, Any] = _to_arrays(made)
        np.savez(handle, **arrays)
    return {"files": [batch.part, *_RESULTS], "n_junk": int(made.rows["is_junk"].sum())}


def _to_arrays(made: SimulatedParticles) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "images": made.images.cpu().numpy(),
        "clean": made.clean.cpu().numpy().astype(np.float16),
        "R": made.rotations,
    }
    for name in made.rows.columns:
        values = made.rows[name].to_numpy()
        arrays[f"row_{name}"] = values.astype(str) if values.dtype == object else values
    return arrays


def _is_joined(folder: Path, batches: Sequence[_Batch]) -> bool:
    """Whether the stack is there; parts that are left over are then of no use."""
    parts = [folder / b.part for b in batches]
    if all((folder / name).exists() for name in _RESULTS) and not all(p.exists() for p in parts):
        _remove(parts)
        return True
    if not all(p.exists() for p in parts):
        raise ProjectError(
            str(folder),
            must=f"hold {', '.join(_RESULTS)} of its finished job",
            got="fewer files",
            remedy="Choose another --out, or remove the folder",
        )
    return False


def _join(
    folder: Path,
    batches: Sequence[_Batch],
    parameters: ParticleSimulationParameters,
    microscope: MicroscopeParameters,
) -> None:
    """Write stack, clean projections and tables from the parts; the table of particles last."""
    size, pixel_size = parameters.box_size, parameters.pixel_size
    tables, rotations = [], []
    stack = MrcStackWriter(folder / "particles.mrcs", box_size=size, pixel_size=pixel_size)
    with stack, writing(folder / "clean.npy") as clean:
        header = {"descr": "<f2", "fortran_order": False, "shape": (parameters.number, size, size)}
        np.lib.format.write_array_header_1_0(clean, header)
        for batch in batches:
            with np.load(folder / batch.part) as part:
                stack.append(part["images"])
                clean.write(part["clean"].astype("<f2").tobytes())
                rotations.append(part["R"])
                columns = [n for n in part.files if n.startswith("row_")]
                tables.append(pd.DataFrame({n.removeprefix("row_"): part[n] for n in columns}))
    rows = pd.concat(tables, ignore_index=True)
    is_junk = rows["is_junk"].to_numpy() == 1
    with writing(folder / "truth.npz") as handle:
        np.savez(
            handle,
            label=np.where(is_junk, 0, rows["class_number"].to_numpy() - 1),
            junk=is_junk,
            R=np.concatenate(rotations),
            shift=-rows[["shift_x", "shift_y"]].to_numpy() / pixel_size,
            apix=np.array(pixel_size),
        )
    _write_tables(folder, rows, parameters, microscope)
    _remove([folder / b.part for b in batches])


def _write_tables(
    folder: Path,
    rows: pd.DataFrame,
    parameters: ParticleSimulationParameters,
    microscope: MicroscopeParameters,
) -> None:
    optics = pd.DataFrame(
        {
            "optics_group_name": ["opticsGroup1"],
            "optics_group": [1],
            "micrograph_pixel_size": [parameters.pixel_size],
            "original_pixel_size": [parameters.pixel_size],
            "voltage": [microscope.voltage],
            "spherical_aberration": [microscope.spherical_aberration],
            "amplitude_contrast": [microscope.amplitude_contrast],
            "pixel_size": [parameters.pixel_size],
            "box_size": [parameters.box_size],
            "image_dimensions": [2],
        }
    )
    table = rows.rename(columns=_OWN)
    table.insert(0, "image", "particles.mrcs")
    table.insert(1, "image_index", np.arange(len(rows)))
    table.insert(2, "optics_group", 1)
    write_particles(folder / "truth.star", Particles(rows=table, optics=optics))
    blind = table.drop(columns=[*_POSE, *_OWN.values()])
    write_particles(folder / "particles.star", Particles(rows=blind, optics=optics))


def _remove(parts: Sequence[Path]) -> None:
    for part in parts:
        part.unlink(missing_ok=True)
    if parts and parts[0].parent.is_dir() and not any(parts[0].parent.iterdir()):
        parts[0].parent.rmdir()
