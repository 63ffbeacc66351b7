"""Matter that is no particle: lumps of denatured protein and beads of gold.

Both have a projected potential like particles, in V A, and pass the lens with them: a lump has
the mass of the particle that it once was. Gold absorbs besides, in deviations of the signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.simulation.junk import uneven_outline
from cryopick.simulation.parameters import ParticleSimulationParameters
from cryopick.simulation.projection import Model

__all__ = ["Bodies", "draw_bodies"]

_BLOB_MASS = (0.7, 1.3)  # of the particle's
_BLOB_SIZE = (0.85, 1.15)  # of the ball with the particle's radius of gyration
_BLOB_UNEVENNESS = 0.15  # of the thickness, rms
_BLOB_WAVES = 6
_GOLD_WIDTH = (60.0, 120.0)  # A, of beads that serve as markers
_GOLD_CONTRAST = 22.0  # V, mean inner potential of gold, about 27 V, above that of ice
_GOLD_ABSORPTION = (6.0, 12.0)  # deviations of the signal


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """What to add to some of the images of a batch."""

    image_index: NDArray[np.int64]  # (k,)
    density: Tensor  # (k, y, x) float32, V A, still to go through the CTF
    mass: Tensor  # (k, y, x) float32, deviations of the signal: absorbed, does not


def draw_bodies(
    states: NDArray[np.object_],
    species: NDArray[np.int64],
    models: Sequence[Model],
    parameters: ParticleSimulationParameters,
    *,
    size: int,
    generator: np.random.Generator,
) -> Bodies:
    """Draw the blobs and the gold of a batch.

    Parameters
    ----------
    states
        (n,) a kind of junk or ``particle``.
    species
        (n,) of the particle that would have been in each image: a blob has about its size
        and mass.
    models
        The species.
    parameters
        Pixel size, and the box, anywhere in which there may be gold.
    size
        Side of the images to make, px: the box and what is around it.
    generator
        Source of randomness.
    """
    images = np.flatnonzero((states == "blob") | (states == "gold"))
    density = torch.zeros(len(images), size, size)
    mass = torch.zeros(len(images), size, size)
    steps = (torch.arange(size, dtype=torch.float32) - size // 2) * parameters.pixel_size
    width = parameters.box_size * parameters.pixel_size
    for place, image in enumerate(images.tolist()):
        if states[image] == "blob":
            density[place] = _blob(steps, models[int(species[image])], generator)
        else:
            thickness, radius = _bead(steps, width, generator)
            density[place] = _GOLD_CONTRAST * thickness
            mass[place] = float(generator.uniform(*_GOLD_ABSORPTION)) * thickness / (2 * radius)
    return Bodies(image_index=images, density=density, mass=mass)


def _blob(steps: Tensor, model: Model, generator: np.random.Generator) -> Tensor:
    """Smooth lump of the mass of a particle, V A."""
    gyration = float(model.positions.double().square().sum(1).mean().sqrt())
    radius = math.sqrt(5 / 3) * gyration * float(generator.uniform(*_BLOB_SIZE))
    centre = generator.normal(0, 0.1 * radius, 2)
    dy, dx = steps[:, None] - float(centre[0]), steps[None, :] - float(centre[1])
    outline = uneven_outline(torch.atan2(dy, dx), radius, generator)
    lump = (1 - (dy**2 + dx**2) / outline**2).clamp(min=0)  # thins out, unlike a ball
    for _ in range(_BLOB_WAVES):
        ky, kx = generator.normal(0, 1.5 / radius, 2)
        wave = torch.cos(float(ky) * dy + float(kx) * dx + float(generator.uniform(0, 2 * math.pi)))
        lump = lump * (1 + _BLOB_UNEVENNESS * math.sqrt(2 / _BLOB_WAVES) * wave)
    pixel_area = float(steps[1] - steps[0]) ** 2
    wanted = float(model.weights.sum()) * float(generator.uniform(*_BLOB_MASS))
    return lump * (wanted / (float(lump.sum()) * pixel_area))


def _bead(steps: Tensor, width: float, generator: np.random.Generator) -> tuple[Tensor, float]:
    """Thickness (A) of a ball anywhere in the box of this width (A), and its radius (A)."""
    radius = float(generator.uniform(*_GOLD_WIDTH)) / 2
    centre = generator.uniform(-0.45 * width, 0.45 * width, 2)
    dy, dx = steps[:, None] - float(centre[0]), steps[None, :] - float(centre[1])
    return 2 * torch.sqrt((radius**2 - dy**2 - dx**2).clamp(min=0)), radius
