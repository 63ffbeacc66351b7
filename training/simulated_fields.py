"""Simulated micrographs with truth, drawn from a number: what the picking network learns from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.network_field import NetworkField, prepare_network_field
from cryopick.picking.network_training import TrainingField
from cryopick.pipeline.evaluate import read_truth
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from simulated_classifications import RANDOM_SHAPES, TRAINING_PHANTOMS

__all__ = ["FieldSet", "draw_fields", "make_fields", "training_field"]

SIDE = 720  # px of a simulated field
FINER = 30.0  # px to a diameter there
EACH = 2  # fields of a set
_NAMED = 0.3  # share of the named phantoms


@dataclass(frozen=True, kw_only=True)
class FieldSet:
    """Some fields of one specimen."""

    number: int
    specimen: SpecimenParameters
    microscope: MicroscopeParameters
    fields: MicrographSimulationParameters
    told_diameter: float  # A, what a user says it is


def draw_fields(number: int, *, seed: int = 1) -> FieldSet:
    """Draw the parameters of one set."""
    draw = np.random.default_rng([seed, 17, number])
    diameter = float(np.exp(draw.uniform(np.log(80), np.log(300))))
    count = int(draw.choice([1, 2], p=[0.8, 0.2]))
    names = [
        draw.choice(TRAINING_PHANTOMS)
        if draw.random() < _NAMED
        else f"random{draw.integers(RANDOM_SHAPES)}"
        for _ in range(count)
    ]
    least = draw.uniform(4000, 18000)
    crowd = np.exp(draw.uniform(np.log(0.03), np.log(0.9)))
    return FieldSet(
        number=number,
        specimen=SpecimenParameters(
            phantoms=",".join(names),
            phantom_diameter=diameter,
            phantom_seed=int(draw.integers(1000)),
            orientation="preferred" if draw.random() < 0.2 else "random",
        ),
        microscope=MicroscopeParameters(
            voltage=float(draw.choice([200.0, 300.0])),
            min_defocus=least,
            max_defocus=least + draw.uniform(2000, 12000),
            bfactor=draw.uniform(50, 250),
        ),
        fields=MicrographSimulationParameters(
            number=EACH,
            width=SIDE,
            height=SIDE,
            pixel_size=round(diameter / FINER, 3),
            particles=0 if draw.random() < 0.06 else max(4, int(crowd * (SIDE / FINER) ** 2)),
            separation=draw.uniform(0.75, 1.3),
            dose=draw.uniform(15, 60),
            contrast=float(np.exp(draw.uniform(np.log(0.3), np.log(1.6)))),
            ice_thickness=draw.uniform(200, 700),
            ice_gradient=draw.uniform(0, 0.8),
            structural_noise=draw.uniform(0.5, 2.0),
            carbon_fraction=0.3,
            ice_blobs=draw.uniform(0, 3),
            aggregates=draw.uniform(0, 2.5),
            seed=int(draw.integers(1 << 30)),
        ),
        told_diameter=diameter * float(np.exp(draw.uniform(np.log(0.85), np.log(1.18)))),
    )


def make_fields(one: FieldSet) -> list[TrainingField]:
    """Simulate a set, and prepare its fields as the network sees them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        simulate_micrographs(
            folder,
            specimen=one.specimen,
            microscope=one.microscope,
            parameters=one.fields,
            compute=ComputeParameters(workers=1),
        )
        truth = read_truth(folder / "truth.json")
        made = []
        for path in sorted((folder / "micrographs").glob("*.mrc")):
            field = prepare_network_field(
                torch.from_numpy(read_micrograph(path)),
                pixel_size=one.fields.pixel_size,
                diameter=one.told_diameter,
                edge_distance=0.0,
                white_particles=False,
                mask=True,
            )
            particles = truth.rows[truth.rows["micrograph"] == path.name]
            ignored = truth.ignored[truth.ignored["micrograph"] == path.name]
            made.append(
                training_field(
                    field,
                    particles=particles[["y", "x"]].to_numpy(float),
                    ignored=ignored[["y", "x"]].to_numpy(float),
                )
            )
    return made


def training_field(
    field: NetworkField, *, particles: np.ndarray, ignored: np.ndarray
) -> TrainingField:
    """Put positions of the micrograph, (n, 2) y and x in px, into a field for training."""
    working = field.search.field
    scale, offset = np.array(working.scale), np.array(working.offset)
    return TrainingField(
        image=field.image,
        is_valid=field.search.is_valid,
        is_known=field.search.is_valid,
        particles=(particles - offset) / scale,
        rejected=np.empty((0, 2)),
        ignored=(ignored - offset) / scale,
    )
