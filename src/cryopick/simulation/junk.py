"""What a picker brings along by mistake: empty ice, lumps, carbon, clumps, and the gap between two.

Amounts are in units of the particles' own signal, so that junk stands out as much as it does
in practice whatever the noise. What is made of matter, blobs and gold, is made in `bodies`;
edges of the field, which are no part of the specimen, in `field_edges`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.simulation.copies import Copies
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.parameters import ParticleSimulationParameters
from cryopick.simulation.projection import Model

__all__ = ["Contamination", "copies_of_junk", "draw_contamination", "uneven_outline"]

_CLUMP_MEMBERS = (4, 9)
_CLUMP_STEP = (0.45, 0.75)  # diameters
_GAP = (0.55, 0.9)  # diameters from the centre to each neighbour
_ICE_HEIGHT = (3.0, 9.0)  # deviations of the signal
_CARBON_STRENGTH = (3.0, 6.0)  # deviations of the signal, before the CTF


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What is in junk images beside particles, in deviations of the signal."""

    phase: Tensor  # (n, y, x), still to go through the CTF
    mass: Tensor  # (n, y, x), thick ice: does not


def copies_of_junk(
    states: NDArray[np.object_],
    centred: Copies,
    models: Sequence[Model],
    parameters: ParticleSimulationParameters,
    generator: np.random.Generator,
) -> Copies:
    """Draw the particles of clumps and of neighbours.

    Parameters
    ----------
    states
        (n,) a kind of junk or ``particle``.
    centred
        The particle that would have been in each image, one for each.
    models
        The species.
    parameters
        Pixel size.
    generator
        Source of randomness.
    """
    images: list[int] = []
    offsets: list[NDArray[np.float64]] = [np.empty((0, 2))]
    for image in np.flatnonzero((states == "aggregate") | (states == "neighbours")).tolist():
        diameter = models[int(centred.species[image])].diameter / parameters.pixel_size
        draw = _clump if states[image] == "aggregate" else _neighbours
        places = draw(diameter, generator) + centred.shifts_yx[image]
        images.extend([image] * len(places))
        offsets.append(places)
    index = np.array(images, np.int64)
    turned = euler_matrices(draw_angles(len(index), generator=generator))
    is_first = np.diff(index, prepend=-1) != 0
    turned[is_first] = centred.rotations[index[is_first]]
    return Copies(
        image_index=index,
        species=centred.species[index],
        rotations=turned,
        shifts_yx=np.concatenate(offsets),
    )


def draw_contamination(
    states: NDArray[np.object_],
    parameters: ParticleSimulationParameters,
    *,
    size: int,
    generator: np.random.Generator,
    noise: torch.Generator,
) -> Contamination:
    """Draw the lumps of ice and the carbon edges of a batch.

    Parameters
    ----------
    states
        (n,) a kind of junk or ``particle``.
    parameters
        Box size: lumps and edges are laid out for the box.
    size
        Side of the images to make, px: the box and what is around it.
    generator, noise
        Sources of randomness: of places, and of the carbon's texture.
    """
    phase = torch.zeros(len(states), size, size)
    mass = torch.zeros(len(states), size, size)
    steps = (torch.arange(size, dtype=torch.float32) - size // 2) / parameters.box_size
    for image in np.flatnonzero(states == "carbon").tolist():
        phase[image] = _carbon(steps, generator, noise)
    for image in np.flatnonzero(states == "ice").tolist():
        mass[image] = _lump(steps, generator)
    return Contamination(phase=phase, mass=mass)


def uneven_outline(angle: Tensor, radius: float, generator: np.random.Generator) -> Tensor:
    """Radius of a random outline in the direction of each angle (radians), about `radius`."""
    outline = torch.full_like(angle, radius)
    for wave, (even, odd) in enumerate(generator.normal(0, 0.12 * radius, (4, 2)), start=1):
        lobe = float(even) * torch.cos(wave * angle) + float(odd) * torch.sin(wave * angle)
        outline += lobe / wave
    return outline.clamp(min=0.3 * radius)


def _clump(diameter: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Members stuck to members, (n, 2) px."""
    members = [np.zeros(2)]
    for _ in range(int(generator.integers(*_CLUMP_MEMBERS)) - 1):
        angle = generator.uniform(0, 2 * math.pi)
        step = diameter * generator.uniform(*_CLUMP_STEP)
        other = members[int(generator.integers(len(members)))]
        members.append(other + step * np.array([math.sin(angle), math.cos(angle)]))
    return np.array(members)


def _neighbours(diameter: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Two particles on opposite sides of the centre, (2, 2) px."""
    angle = generator.uniform(0, 2 * math.pi) + np.array([0, math.pi + generator.normal(0, 0.4)])
    away = diameter * generator.uniform(*_GAP, 2)
    return np.stack([away * np.sin(angle), away * np.cos(angle)], axis=1)


def _carbon(steps: Tensor, generator: np.random.Generator, noise: torch.Generator) -> Tensor:
    """Grain on one side of an edge."""
    angle, place = generator.uniform(0, 2 * math.pi), generator.uniform(-0.3, 0.3)
    across = math.sin(angle) * steps[:, None] + math.cos(angle) * steps[None, :]
    film = torch.sigmoid((across - place) * 60)
    grain = torch.randn(len(steps), len(steps), generator=noise)
    return film * (grain + 1) * float(generator.uniform(*_CARBON_STRENGTH))


def _lump(steps: Tensor, generator: np.random.Generator) -> Tensor:
    """Smooth lump with an uneven outline."""
    centre = generator.normal(0, 0.12, 2)
    dy, dx = steps[:, None] - float(centre[0]), steps[None, :] - float(centre[1])
    angle = torch.atan2(dy, dx)
    radius = float(generator.uniform(0.12, 0.35))
    inside = 1 - (dy**2 + dx**2) / uneven_outline(angle, radius, generator) ** 2
    return float(generator.uniform(*_ICE_HEIGHT)) * torch.sqrt(inside.clamp(min=0))
