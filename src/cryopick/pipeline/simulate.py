"""Simulate micrographs into a folder, one task each.

micrographs/sim_00001.mrc      particles dark, electrons per pixel
micrographs_ctf.star           RELION's table of them, with the CTF they were made with
truth/sim_00001_truth.star     every particle: position, pose, species and state
truth.json                     positions that a picker should find, and those it may
phantoms/NAME.mrc              density of each species
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.job import Job, ProgressCallback, Task
from cryopick.pipeline.simulate_species import load_models, species_identity
from cryopick.simulation.micrographs import simulate_micrograph
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.simulation.projection import Model, render_volume
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import picks_of_file, write_micrographs, write_picks_file

__all__ = ["SimulatedMicrographs", "simulate_micrographs", "write_phantoms"]

_BYTES_PER_PIXEL = 100  # at the peak of one task, measured with three species and carbon
_LABELS = {"species": "cryopickSpecies", "state": "cryopickState"}
_PHANTOM_PIXELS = 96  # across a phantom's map


@dataclass(frozen=True, kw_only=True)
class SimulatedMicrographs:
    """What was simulated."""

    folder: Path
    n_micrographs: int
    n_particles: int  # that a picker should find
    diameter: float  # of the smallest species, A

    @property
    def table(self) -> Path:
        """The table of micrographs."""
        return self.folder / "micrographs_ctf.star"

    def to_dict(self) -> dict[str, Any]:
        """Gather the numbers that count, ready for JSON."""
        return {
            "folder": str(self.folder),
            "n_micrographs": self.n_micrographs,
            "n_particles": self.n_particles,
            "diameter": round(self.diameter, 1),
            "micrographs": str(self.table),
            "truth": str(self.folder / "truth.json"),
        }


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One task, as the worker gets it."""

    folder: Path
    index: int
    device: str
    specimen: SpecimenParameters
    microscope: MicroscopeParameters
    parameters: MicrographSimulationParameters

    @property
    def key(self) -> str:
        return f"sim_{self.index + 1:05d}"

    @property
    def image(self) -> str:
        return f"micrographs/{self.key}.mrc"

    @property
    def truth(self) -> str:
        return f"truth/{self.key}_truth.star"


def simulate_micrographs(
    folder: Path,
    *,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: MicrographSimulationParameters,
    compute: ComputeParameters | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> SimulatedMicrographs:
    """Simulate micrographs with truth.

    Parameters
    ----------
    folder
        Where the results go. Started again with the same parameters, only what is missing is
        made; with a larger number, only the additional micrographs.
    specimen, microscope, parameters
        What there is, how it is imaged, and how much of it.
    compute
        How much of the machine to use.
    overwrite
        Throw away what a job with other parameters left in `folder`.
    progress
        Called with the number of micrographs done and in all.

    Raises
    ------
    FormatError
        If a model file is broken.
    ParameterError
        If there is no such phantom, or the memory allowed is too small.
    ProjectError
        If `folder` holds another job or is in use.
    OutputError
        If `folder` cannot be written.
    """
    folder = Path(folder)
    compute = compute or ComputeParameters()
    models = load_models(specimen)
    values = asdict(specimen) | asdict(microscope) | asdict(parameters)
    del values["number"]  # a micrograph does not depend on how many there are
    fields = [
        _Field(
            folder=folder,
            index=index,
            device=compute.devices[index % len(compute.devices)],
            specimen=specimen,
            microscope=microscope,
            parameters=parameters,
        )
        for index in range(parameters.number)
    ]
    identity = species_identity(specimen)
    job = Job(
        folder,
        name="simulate micrographs",
        parameters=values,
        inputs=specimen.model_files,
        results=("micrographs_ctf.star", "truth.json"),
        overwrite=overwrite,
    )
    with job:
        tasks = [Task(key=f.key, identity=identity, payload=f) for f in fields]
        size = parameters.width * parameters.height * _BYTES_PER_PIXEL
        executor = make_executor(compute, n_items=len(tasks), bytes_per_item=size)
        records = job.run(executor, _simulate_field, tasks, progress=progress)
        write_phantoms(folder / "phantoms", models)
        summaries = [r.summary for r in records]
        write_micrographs(folder / "micrographs_ctf.star", _table(fields, summaries, folder))
        n_particles = _write_truth(fields, models)
    return SimulatedMicrographs(
        folder=folder,
        n_micrographs=len(fields),
        n_particles=n_particles,
        diameter=min(m.diameter for m in models),
    )


def write_phantoms(folder: Path, models: Sequence[Model]) -> None:
    """Write the density of each species, in V above the solvent.

    Raises
    ------
    OutputError
        If `folder` cannot be written.
    """
    for model in models:
        path = folder / f"{model.name}.mrc"
        # 0.1 A steps, so that the particle fills about 5/6 of the map
        pixel_size = max(1.0, math.ceil(12 * model.diameter / _PHANTOM_PIXELS) / 10)
        volume = render_volume(model, box_size=_PHANTOM_PIXELS, pixel_size=pixel_size)
        write_mrc(path, volume.numpy(), pixel_size=pixel_size)


def _simulate_field(field: _Field) -> dict[str, Any]:
    """Make one micrograph in a worker."""
    simulated = simulate_micrograph(
        load_models(field.specimen),
        index=field.index,
        specimen=field.specimen,
        microscope=field.microscope,
        parameters=field.parameters,
        device=field.device,
    )
    pixels = simulated.image.cpu().numpy().astype(field.parameters.data_type)
    write_mrc(field.folder / field.image, pixels, pixel_size=field.parameters.pixel_size)
    write_picks_file(field.folder / field.truth, simulated.particles.rename(columns=_LABELS))
    return {
        "files": [field.image, field.truth],
        "n_particles": int((simulated.particles["state"] == "particle").sum()),
        **asdict(simulated.defocus),
    }


def _table(
    fields: Sequence[_Field], summaries: Sequence[dict[str, Any]], source: Path
) -> Micrographs:
    microscope, parameters = fields[0].microscope, fields[0].parameters
    rows = pd.DataFrame(summaries)[["defocus_u", "defocus_v", "defocus_angle"]]
    rows.insert(0, "micrograph", [f.image for f in fields])
    rows.insert(1, "optics_group", 1)
    rows["phase_shift"] = microscope.phase_shift
    # where the envelope has fallen to exp(-2), or Nyquist
    envelope = math.sqrt(microscope.bfactor / 8)
    rows["ctf_max_resolution"] = max(envelope, 2 * parameters.pixel_size)
    optics = pd.DataFrame(
        {
            "optics_group_name": ["opticsGroup1"],
            "optics_group": [1],
            "pixel_size": [parameters.pixel_size],
            "original_pixel_size": [parameters.pixel_size],
            "voltage": [microscope.voltage],
            "spherical_aberration": [microscope.spherical_aberration],
            "amplitude_contrast": [microscope.amplitude_contrast],
        }
    )
    return Micrographs(rows=rows, optics=optics, source=source / "micrographs_ctf.star")


def _write_truth(fields: Sequence[_Field], models: Sequence[Model]) -> int:
    """Join the positions of all micrographs; those not to be scored are listed as ignored."""
    listed: dict[str, dict[str, list[list[float]]]] = {}
    for field in fields:
        rows = picks_of_file(field.folder / field.truth, field.image)
        is_true = (rows[_LABELS["state"]] == "particle").to_numpy()
        places = np.round(rows[["x", "y"]].to_numpy(), 3)
        listed[Path(field.image).name] = {
            "particles": places[is_true].tolist(),
            "ignored": places[~is_true].tolist(),
        }
    truth = {
        "diameter": round(min(m.diameter for m in models), 2),
        "apix": fields[0].parameters.pixel_size,
        "micrographs": listed,
    }
    write_json(fields[0].folder / "truth.json", truth)
    return sum(len(m["particles"]) for m in listed.values())
