"""Simulated 2D classifications with truth, drawn from a number: what class scores learn from.

One *set* is a stack of particles, of shapes, noise, junk and lens drawn at random, classified twice
with options drawn at random, as users do: classes too many or too few, masks too wide, runs cut
short, the CTF left out. For each class there is what the truth says of its members.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.evaluate import evaluate_classes
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.class2d import classify_particles
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.pipeline.evaluate_classes import read_class_truth
from cryopick.pipeline.simulate_particles import simulate_stack
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.tables.relion import read_particles
from cryopick.tables.relion_class2d import find_classification

__all__ = ["HELD_OUT_PHANTOMS", "SimulatedSet", "draw_set", "label_run", "make_set"]

TRAINING_PHANTOMS = ("barrel", "shell", "rod", "small", "asymmetric", "ring")
HELD_OUT_PHANTOMS = ("tetramer", "cage")  # with seeds of random shapes that training never draws
JUNK = ("noise", "ice", "carbon", "aggregate", "neighbours", "blob", "gold", "edge", "overlap")
RANDOM_SHAPES = 100_000  # seeds of random shapes for training; held-out ones come after
_FEWEST = 5  # particles that a class needs to show a view
_ONTO_NEIGHBOUR = 0.45  # diameters: the gap's middle is 0.55 to 0.9 from its neighbours
_ONTO_ONE = 0.2  # diameters: overlapping pairs lie 0.25 to 0.55 from their middle
_UNCLEAR = 0.4  # of a particle


@dataclass(frozen=True, kw_only=True)
class SimulatedSet:
    """One stack and the ways it is classified."""

    number: int
    specimen: SpecimenParameters
    microscope: MicroscopeParameters
    particles: ParticleSimulationParameters
    runs: tuple[ClassificationParameters, ...]


def draw_set(number: int, *, held_out: bool = False, seed: int = 1) -> SimulatedSet:
    """Draw the parameters of one set; held-out sets have shapes, boxes and noise of their own."""
    draw = np.random.default_rng([seed, int(held_out), number])
    diameter = float(np.exp(draw.uniform(np.log(80), np.log(260))))
    box_size = int(draw.choice([40, 60, 76] if held_out else [48, 56, 64]))
    pixel_size = round(diameter / (draw.uniform(0.45, 0.68) * box_size), 3)
    n_classes = int(draw.integers(8, 26))
    count = int(np.clip(n_classes * np.exp(draw.uniform(np.log(15), np.log(90))), 250, 800))
    kind = draw.random()
    junk = (
        0.0 if kind < 0.08 else draw.uniform(0.7, 0.95) if kind > 0.92 else draw.uniform(0.05, 0.6)
    )
    kinds = draw.permutation(JUNK)[: draw.integers(1, 6)]
    crowding = 0.0 if draw.random() < 0.5 else draw.uniform(0.3, 2.0)
    least = draw.uniform(5000, 15000)
    specimen = SpecimenParameters(
        phantoms=",".join(_draw_species(draw, held_out=held_out)),
        phantom_diameter=diameter,
        phantom_seed=int(draw.integers(1000)),
        orientation="preferred" if draw.random() < 0.25 else "random",
    )
    microscope = MicroscopeParameters(
        voltage=float(draw.choice([200.0, 300.0])),
        min_defocus=least,
        max_defocus=least + draw.uniform(3000, 15000),
        bfactor=draw.uniform(10, 150),
    )
    particles = ParticleSimulationParameters(
        number=count,
        box_size=box_size,
        pixel_size=pixel_size,
        snr=float(np.exp(draw.uniform(np.log(0.06 if held_out else 0.03), np.log(2.0)))),
        mask_diameter=min(1.2 * diameter, 0.95 * box_size * pixel_size),
        shift=draw.uniform(0.02, 0.2) * diameter,
        junk_fraction=junk,
        junk_kinds=",".join(kinds),
        crowding=crowding,
        coloured_noise=draw.uniform(0.6, 0.8) if held_out else draw.uniform(0.0, 0.6),
        seed=int(draw.integers(1 << 30)),
    )
    largest = 0.97 * box_size * pixel_size
    runs = tuple(_draw_run(draw, n_classes, diameter, largest, junk=on) for on in (True, False))
    return SimulatedSet(
        number=number, specimen=specimen, microscope=microscope, particles=particles, runs=runs
    )


def _draw_species(draw: np.random.Generator, *, held_out: bool) -> Sequence[str]:
    named = HELD_OUT_PHANTOMS if held_out else TRAINING_PHANTOMS
    first = RANDOM_SHAPES if held_out else 0
    count = int(draw.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    return [
        f"random{first + draw.integers(RANDOM_SHAPES)}"
        if draw.random() < 0.7
        else draw.choice(named)
        for _ in range(count)
    ]


def _draw_run(
    draw: np.random.Generator, n_classes: int, diameter: float, largest: float, *, junk: bool
) -> ClassificationParameters:
    guessed = diameter * draw.uniform(0.85, 1.15)
    return ClassificationParameters(
        classes=int(np.clip(n_classes * draw.uniform(0.5, 1.5), 4, 32)),
        diameter=min(guessed, 0.9 * largest),
        mask_diameter=min(guessed * draw.uniform(1.0, 1.6), largest),
        iterations=int(draw.choice([5, 10, 15, 25], p=[0.15, 0.3, 0.35, 0.2])),
        regularisation=float(np.exp(draw.uniform(np.log(0.6), np.log(2.5)))),
        ctf=str(draw.choice(["full", "first-peak", "none"], p=[0.75, 0.1, 0.15])),  # type: ignore[arg-type]
        fill=str(draw.choice(["zero", "noise"], p=[0.7, 0.3])),  # type: ignore[arg-type]
        center_classes=bool(draw.random() < 0.75),
        junk=junk,
        seed=int(draw.integers(1000)),
    )


def make_set(one: SimulatedSet, folder: Path) -> list[Path]:
    """Simulate and classify a set; runs that are there are left as they are.

    Returns
    -------
    list of Path
        Folders of the runs, each with RELION's files of the last iteration and ``labels.csv``.
    """
    digest = hashlib.sha256(repr(one).encode()).hexdigest()[:8]  # another draw is another set
    outs = [folder / f"set_{one.number:05d}_{digest}_{n}" for n in range(len(one.runs))]
    if all((out / "labels.csv").exists() for out in outs):
        return outs
    with tempfile.TemporaryDirectory() as temporary:
        stack = Path(temporary)
        simulate_stack(
            stack,
            specimen=one.specimen,
            microscope=one.microscope,
            parameters=one.particles,
            compute=ComputeParameters(workers=1),
        )
        for out, parameters in zip(outs, one.runs, strict=True):
            shutil.rmtree(out, ignore_errors=True)
            classify_particles(
                read_particles(stack / "particles.star"),
                out,
                parameters=parameters,
                compute=ClassificationRunParameters(threads=1),
            )
            (out / "checkpoint.npz").unlink(missing_ok=True)
            label_run(out, stack, diameter=one.specimen.phantom_diameter).to_csv(
                out / "labels.csv", index=False
            )
    return outs


def label_run(run: Path, truth: Path, *, diameter: float | None = None) -> pd.DataFrame:
    """Say of each occupied class what its members are.

    Junk images that are made of particles are a matter of how they were aligned. One that lay
    between two neighbours and was moved onto one of them shows a particle, and counts as such. A
    clump, or a pair that overlaps and was moved onto one of the two, shows a particle that touches
    others: *unclear*, worth `_UNCLEAR` of a particle to learn from, and neither particle nor junk
    where scores are judged.

    Parameters
    ----------
    run, truth
        Folder of the classification, and of the stack with its truth.
    diameter
        Of the particle, A; None takes all junk for junk.

    Returns
    -------
    pandas.DataFrame
        class_number, n_members, n_true, n_unclear, n_junk, coherence, is_view ..., and purity and
        quality, 0 to 1; in a last row what is in no class, with number 0.
    """
    rows = read_particles(find_classification(run).data).rows
    known = read_class_truth(truth)
    states = np.where(known.is_junk, "noise", "particle").astype(object)
    if diameter is not None:
        states = read_particles(truth / "truth.star").rows["cryopickState"].to_numpy(object)
    kinds = kinds_of_members(rows, states, diameter)
    counts = pd.crosstab(rows["class_number"], kinds).reindex(
        columns=["true", "unclear", "junk"], fill_value=0
    )
    counts = counts.add_prefix("n_").assign(n_members=counts.sum(axis=1))
    counts = counts.reindex(counts.index.union([0]), fill_value=0)
    found = evaluate_classes(rows, known, min_size=_FEWEST).classes.set_index("class_number")
    labels = counts.join(found[["coherence", "chance", "is_view"]]).reset_index(
        names="class_number"
    )
    credit = (labels["n_true"] + _UNCLEAR * labels["n_unclear"]) / labels["n_members"]
    labels["purity"] = ((credit - 0.2) / 0.6).clip(0, 1)
    shared = labels["coherence"].fillna(0.0).clip(lower=0) ** 2  # of the variance
    labels["quality"] = ((shared - 0.2) / 0.6).clip(0, 1) * (labels["n_true"] >= 2)
    labels.loc[labels["class_number"] == 0, ["purity", "quality"]] = np.nan
    return labels


def kinds_of_members(
    rows: pd.DataFrame, states: np.ndarray, diameter: float | None
) -> NDArray[np.str_]:
    """Say of each row whether it shows a particle as it was aligned: true, unclear or junk."""
    state = states[rows["image_index"].to_numpy()].astype(str)
    moved = np.hypot(rows["shift_x"], rows["shift_y"]).to_numpy() / (diameter or np.inf)
    is_true = (state == "particle") | ((state == "neighbours") & (moved > _ONTO_NEIGHBOUR))
    is_unclear = (state == "aggregate") | ((state == "overlap") & (moved > _ONTO_ONE))
    return np.where(is_true, "true", np.where(is_unclear, "unclear", "junk"))
