"""A small stack of four shapes at known poses, under a CTF, in noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from particle_world import optics_table, particles_of, write_stack

from cryopick.alignment.transform import transform_images
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.pipeline.class2d import ClassificationResult, classify_particles
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

N, SIZE, PIXEL = 200, 32, 6.0
DIAMETER = 110.0  # A
LENS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
ONE = ClassificationRunParameters(threads=1)


def shapes() -> torch.Tensor:
    """Four arrangements of blobs, (4, SIZE, SIZE), centred and not alike at any angle."""
    spots = [
        [(0, 0, 4.0)],
        [(-5, 0, 2.2), (5, 0, 2.2)],
        [(-5, -3, 2.0), (5, -3, 2.0), (0, 6, 2.0)],
        [(-6, 0, 1.8), (0, 0, 1.8), (6, 0, 1.8), (0, 6, 1.8)],
    ]
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    images = [
        sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) for a, b, s in spot)
        for spot in spots
    ]
    return torch.from_numpy(np.stack(images)).float()


def make_particles(folder: Path, *, n: int = N, noise: float = 0.15, seed: int = 2) -> Particles:
    """Write ``particles.star`` and its stack; column rlnShape is the truth."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(0, 4, n)
    psi = torch.from_numpy(rng.uniform(-180, 180, n)).float()
    shift = torch.from_numpy(rng.normal(0, 0.7, (n, 2))).float()
    still = torch.zeros(n)
    posed = transform_images(shapes()[shape], psi=-psi, shift_x=still, shift_y=still)
    posed = transform_images(posed, psi=still, shift_x=-shift[:, 0], shift_y=-shift[:, 1])
    ctf = ctf_columns(n, rng)
    seen = torch.fft.irfft2(torch.fft.rfft2(posed) * ctf_of(ctf), s=(SIZE, SIZE)).numpy()
    seen = (seen + noise * rng.standard_normal(seen.shape)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write_stack(folder / "stack.mrcs", seen)
    particles = particles_of(
        folder,
        {"stack.mrcs": n},
        optics=optics_table().assign(pixel_size=PIXEL, box_size=SIZE),
        micrograph=[f"m{k // 50}.mrc" for k in range(n)],
        rlnShape=shape,
        rlnTruePsi=psi.numpy(),
        **ctf,
    )
    write_particles(folder / "particles.star", particles)
    return read_particles(folder / "particles.star")


def ctf_columns(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    defocus = np.repeat(rng.uniform(1.2e4, 2e4, n // 50 + 1), 50)[:n]
    return {
        "defocus_u": defocus + 300,
        "defocus_v": defocus,
        "defocus_angle": np.full(n, 40.0),
    }


def ctf_of(columns: dict[str, np.ndarray]) -> torch.Tensor:
    values = {k: torch.from_numpy(v.copy()) for k, v in columns.items()}
    return evaluate_ctf((SIZE, SIZE), pixel_size=PIXEL, **values, **LENS)


def parameters(**changes: Any) -> ClassificationParameters:
    values = {"classes": 4, "diameter": DIAMETER, "iterations": 6, "junk": False}
    return ClassificationParameters(**(values | changes))


def classify(
    particles: Particles, out: Path, *, threads: int = 1, write_every: int = 0, **changes: Any
) -> ClassificationResult:
    """Run with the shipped options but those named; `changes` go to where they belong."""
    own = ("references", "scratch", "continues", "overwrite", "tell", "progress")
    others = {k: changes.pop(k) for k in own if k in changes}
    memory = changes.pop("memory", 0.0)
    compute = ClassificationRunParameters(threads=threads, write_every=write_every, memory=memory)
    return classify_particles(
        particles, out, parameters=parameters(**changes), compute=compute, **others
    )


def purity(found: pd.DataFrame) -> float:
    """Share of particles that are of the most frequent shape of their class."""
    table = pd.crosstab(found["class_number"], found["rlnShape"])
    return float(table.max(axis=1).sum() / len(found))
