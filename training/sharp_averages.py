"""Stacks of sharp averages without a run, simulated directly, one image for each.

Small simulated classifications have few members in a class, and so no average as sharp as those
of large data sets. Here each average is one image of high signal-to-noise ratio seen through a
phase plate near focus, which is what a perfect class of a CTF-corrected run tends to; junk is as
sharp. Some are means over many views, the blur of a class that was never aligned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.alignment.transform import transform_images
from cryopick.class2d.averages import soft_circle
from cryopick.image.filters import high_pass
from cryopick.image.fourier import frequency_grid
from cryopick.pipeline.simulate_species import load_models
from cryopick.selection.class_features import FEATURES, class_inputs
from cryopick.selection.class_training import LabelledClasses
from cryopick.simulation.parameters import MicroscopeParameters, ParticleSimulationParameters
from cryopick.simulation.particles import calibrate, simulate_particles
from simulated_classifications import JUNK, draw_set

__all__ = ["sharp_averages"]

NUMBER = 50  # images of a stack, some of which go into blurs
_BLURS = 8
_BLUR_QUALITY = 0.15
_CLUMP = 0.33  # purity of a clump about one particle, as in `label_run`
_MEMBERS = 8.0  # that each counts for: they are many, and easy
_FIRST = 50_000  # numbers of sets that no classification uses


def sharp_averages(number: int, *, seed: int = 1) -> LabelledClasses:
    """Simulate one stack, masked as a program would, and say what each average is."""
    draw = np.random.default_rng([seed, 23, number])
    drawn = draw_set(_FIRST + number, seed=seed)
    diameter = drawn.specimen.phantom_diameter or 150.0
    particles = replace(
        drawn.particles,
        number=NUMBER,
        per_micrograph=NUMBER,
        snr=float(np.exp(draw.uniform(np.log(3), np.log(300)))),
        shift=draw.uniform(0.0, 0.15) * diameter,
        junk_fraction=0.4,
        junk_kinds=",".join(JUNK),
        coloured_noise=0.0,
    )
    microscope = MicroscopeParameters(
        phase_shift=90.0,
        min_defocus=200.0,
        max_defocus=200.0 + draw.uniform(0, 800),
        astigmatism=0.0,
        bfactor=float(np.exp(draw.uniform(np.log(10), np.log(800)))),
    )
    models = load_models(drawn.specimen)
    common = {"specimen": drawn.specimen, "microscope": microscope, "parameters": particles}
    scale = calibrate(models, **common)  # type: ignore[arg-type]
    made = simulate_particles(models, batch=0, scale=scale, **common)  # type: ignore[arg-type]
    states = made.rows["state"].to_numpy(str)
    purity = np.select([states == "particle", states == "aggregate"], [1.0, _CLUMP], 0.0)
    blurs = _blurs(made.images, made.rows, states, particles.pixel_size, draw)
    images = _filtered(torch.cat([made.images, blurs]).double(), particles, diameter, draw)
    width = particles.box_size * particles.pixel_size
    mask = min(draw.uniform(1.0, 1.7) * diameter, 0.97 * width)
    radius = mask / 2 / particles.pixel_size
    images = images * soft_circle(particles.box_size, radius=radius, edge=5.0)
    inputs = class_inputs(images.numpy(), pixel_size=particles.pixel_size, mask_diameter=mask)
    quality = np.where(states == "particle", 1.0, 0.0)
    return LabelledClasses(
        images=torch.from_numpy(inputs.images),
        features=torch.from_numpy(inputs.features[list(FEATURES)].to_numpy(np.float32).copy()),
        purity=_column(purity, 1.0, len(blurs)),
        quality=_column(quality, _BLUR_QUALITY, len(blurs)),
        counts=torch.full((len(images),), _MEMBERS),
        runs=np.full(len(images), _FIRST + number),
    )


def _filtered(
    images: torch.Tensor,
    particles: ParticleSimulationParameters,
    diameter: float,
    draw: np.random.Generator,
) -> torch.Tensor:
    """Smooth averages, and leave out their longest waves, as much as other programs do."""
    shape = (particles.box_size, particles.box_size)
    y, x = frequency_grid(shape, pixel_size=particles.pixel_size, device=images.device)
    frequency = torch.hypot(y, x).double()
    blur = draw.uniform(0, 1.2) * particles.pixel_size
    gain = torch.exp(-2 * (np.pi * blur * frequency) ** 2)
    if draw.random() < 0.5:
        gain = gain * high_pass(frequency, length=draw.uniform(0.8, 4.0) * diameter)
    filtered: torch.Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=shape)
    return filtered


def _column(values: NDArray[np.float64], of_blurs: float, n_blurs: int) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([values, np.full(n_blurs, of_blurs)])).float()


def _blurs(
    images: torch.Tensor,
    rows: object,
    states: NDArray[np.str_],
    pixel_size: float,
    draw: np.random.Generator,
) -> torch.Tensor:
    """Means over particles of all views, centred and turned at random."""
    members = np.flatnonzero(states == "particle")
    if len(members) < 6:
        return images[:0]
    shift_x, shift_y = (
        torch.from_numpy(rows[name].to_numpy(np.float32)[members] / pixel_size)  # type: ignore[index]
        for name in ("shift_x", "shift_y")
    )
    blurs = []
    for _ in range(_BLURS):
        psi = torch.from_numpy(draw.uniform(-180, 180, len(members)).astype(np.float32))
        moved = transform_images(images[members], psi=psi, shift_x=shift_x, shift_y=shift_y)
        chosen = draw.permutation(len(members))[: draw.integers(6, len(members) + 1)]
        blurs.append(moved[chosen].mean(0))
    return torch.stack(blurs)
