"""Simulate a micrograph: particles in ice, seen through a lens, counted electron by electron.

Every atom or residue of every particle is put into one field as projected potential, to which
ice and carbon add their own; the CTF turns that into contrast, thickness takes its share of the
electrons, and what is left is counted. The field is wider than the micrograph, so that the
fringes of particles beyond its edge are there as well.

    image = N T (1 - 2 C + shot noise),  C = CTF * phase,  phase = sigma_e V_projected

with N electrons a pixel, transmission T, and particles dark (weak phase object approximation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.fourier import good_size
from cryopick.simulation.microscope import (
    Defocus,
    draw_defocus,
    expose,
    field_ctf,
    interaction_constant,
)
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.simulation.placement import place_particles
from cryopick.simulation.projection import Model, merge_points, move_model, point_filter, splat
from cryopick.simulation.surroundings import (
    Surroundings,
    draw_surroundings,
    solvent_phase,
    transmission,
)

__all__ = ["SimulatedMicrograph", "render_particles", "simulate_micrograph"]

_CARBON_LIMIT = 0.05  # share of the film's thickness that counts as on carbon
_BLOB_LIMIT = 60.0  # A of ice lump that hides a particle
_KEPT_ON_CARBON = 0.4


@dataclass(frozen=True, kw_only=True)
class SimulatedMicrograph:
    """One micrograph and its truth."""

    image: Tensor  # (y, x) float32, electrons per pixel, particles dark
    particles: pd.DataFrame  # x, y px; rot, tilt, psi deg; species; state; is_junk
    defocus: Defocus
    surroundings: Surroundings  # maps of the micrograph's size


def simulate_micrograph(
    models: Sequence[Model],
    *,
    index: int,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: MicrographSimulationParameters,
    device: torch.device | str = "cpu",
) -> SimulatedMicrograph:
    """Simulate one micrograph of a series.

    Parameters
    ----------
    models
        The species, equally frequent.
    index
        Place in the series, from 0. Seed and index make the micrograph; how many others there
        are and how many threads work does not matter.
    specimen, microscope, parameters
        What there is, how it is imaged, and how much of it.
    device
        Where to compute. Random numbers are the same on every device.

    Returns
    -------
    SimulatedMicrograph
        With every particle whose centre is in the micrograph. Its ``state`` is ``particle``
        for those a picker should find, else ``aggregate`` (junk), or ``edge``, ``carbon`` or
        ``ice`` where it is cut, on the film, or under a lump.
    """
    draw = np.random.default_rng([parameters.seed, index])
    noise = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
    defocus = draw_defocus(microscope, draw)
    margin = _margin(models, microscope, parameters.pixel_size)
    shape = (
        good_size(parameters.height + 2 * margin),
        good_size(parameters.width + 2 * margin),
    )
    surroundings = draw_surroundings(shape, parameters, draw, device=device)
    particles = _draw_particles(models, shape, surroundings, specimen, parameters, draw)
    interaction = interaction_constant(microscope.voltage)
    phase = solvent_phase(
        surroundings,
        pixel_size=parameters.pixel_size,
        interaction=interaction,
        strength=parameters.structural_noise,
        generator=noise,
    )
    phase_rfft = torch.fft.rfft2(phase) + _particles_rfft(
        models, particles, shape, pixel_size=parameters.pixel_size, device=device
    ) * (interaction * parameters.contrast)
    ctf = field_ctf(shape, defocus, microscope, pixel_size=parameters.pixel_size, device=device)
    contrast = torch.fft.irfft2(phase_rfft * ctf, s=shape)
    window = (slice(margin, margin + parameters.height), slice(margin, margin + parameters.width))
    visible = Surroundings(
        ice=surroundings.ice[window],
        carbon=surroundings.carbon[window],
        blobs=surroundings.blobs[window],
    )
    image = expose(
        transmission(visible) * (1 - 2 * contrast[window]),
        electrons=parameters.dose * parameters.pixel_size**2,
        efficiency=parameters.detector_efficiency,
        generator=noise,
    )
    _add_hot_pixels(image, parameters.hot_pixels, draw)
    particles["x"] -= margin
    particles["y"] -= margin
    truth = _with_states(particles, visible, parameters)
    return SimulatedMicrograph(image=image, particles=truth, defocus=defocus, surroundings=visible)


def render_particles(
    models: Sequence[Model],
    particles: pd.DataFrame,
    *,
    shape: tuple[int, int],
    pixel_size: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw particles as they are, without lens or noise.

    Parameters
    ----------
    models
        The species.
    particles
        x, y (px), rot, tilt, psi (deg) and species (a model's name).
    shape
        (y, x) of the field, px.
    pixel_size
        A/px.
    device
        Where to compute.

    Returns
    -------
    Tensor
        (y, x) float32, V A: projected potential above that of the solvent.
    """
    transform = _particles_rfft(models, particles, shape, pixel_size=pixel_size, device=device)
    result: Tensor = torch.fft.irfft2(transform, s=shape)
    return result


def _margin(models: Sequence[Model], microscope: MicroscopeParameters, pixel_size: float) -> int:
    """Pixels beyond the edge from which particles and their fringes reach into the micrograph."""
    fringes = 0.02 * microscope.max_defocus / 15.0  # lambda z k at 15 A
    largest = max(m.diameter for m in models)
    return math.ceil((0.6 * largest + fringes) / pixel_size)


def _particles_rfft(
    models: Sequence[Model],
    particles: pd.DataFrame,
    shape: tuple[int, int],
    *,
    pixel_size: float,
    device: torch.device | str,
) -> Tensor:
    total = torch.zeros(shape[0], shape[1] // 2 + 1, dtype=torch.complex64, device=device)
    for model in models:
        rows = particles[particles["species"] == model.name]
        if rows.empty:
            continue
        coarse = merge_points(move_model(model, device), spacing=pixel_size)
        field = torch.zeros(1, *shape, device=device)
        splat(
            field,
            coarse,
            torch.from_numpy(euler_matrices(rows[["rot", "tilt", "psi"]].to_numpy())).to(device),
            torch.tensor(rows[["y", "x"]].to_numpy().copy(), device=device),
            pixel_size=pixel_size,
        )
        transfer = point_filter(shape, coarse, pixel_size=pixel_size).to(device)
        total += torch.fft.rfft2(field[0]) * transfer
    return total


def _draw_particles(
    models: Sequence[Model],
    shape: tuple[int, int],
    surroundings: Surroundings,
    specimen: SpecimenParameters,
    parameters: MicrographSimulationParameters,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Particles of the whole field, margins included; few of them sit on carbon."""
    area = shape[0] * shape[1] / (parameters.height * parameters.width)
    places = place_particles(
        shape,
        count=round(parameters.particles * area),
        diameters=np.array([m.diameter for m in models]) / parameters.pixel_size,
        separation=parameters.separation,
        clumps=parameters.aggregates * area if parameters.particles else 0.0,
        generator=generator,
    )
    angles = draw_angles(
        len(places.yx), generator=generator, preferred_fraction=specimen.preferred_fraction
    )
    names = np.array([m.name for m in models], dtype=object)
    particles = pd.DataFrame(
        {
            "x": places.yx[:, 1],
            "y": places.yx[:, 0],
            "rot": angles[:, 0],
            "tilt": angles[:, 1],
            "psi": angles[:, 2],
            "species": names[places.species],
            "diameter": np.array([m.diameter for m in models])[places.species],
            "is_junk": places.is_clumped.astype(np.int64),
        }
    )
    is_kept = generator.random(len(particles)) < _KEPT_ON_CARBON
    is_kept |= _value_at(surroundings.carbon, particles) <= _CARBON_LIMIT
    return particles[is_kept].reset_index(drop=True)


def _with_states(
    particles: pd.DataFrame, visible: Surroundings, parameters: MicrographSimulationParameters
) -> pd.DataFrame:
    """Keep what has its centre in the micrograph, and say which of it a picker should find."""
    x, y = particles["x"], particles["y"]
    inside = (x >= -0.5) & (y >= -0.5)
    inside &= (x < parameters.width - 0.5) & (y < parameters.height - 0.5)
    truth = particles[inside].reset_index(drop=True)
    x, y = truth["x"], truth["y"]
    radius = truth["diameter"] / 2 / parameters.pixel_size
    is_cut = (x < radius) | (y < radius)
    is_cut |= (x > parameters.width - 1 - radius) | (y > parameters.height - 1 - radius)
    state = np.where(is_cut, "edge", "particle")
    state = np.where(_value_at(visible.carbon, truth) > _CARBON_LIMIT, "carbon", state)
    state = np.where(_value_at(visible.blobs, truth) > _BLOB_LIMIT, "ice", state)
    truth["state"] = np.where(truth["is_junk"] == 1, "aggregate", state)
    return truth


def _value_at(field: Tensor, particles: pd.DataFrame) -> NDArray[np.float32]:
    """Value of a map at the pixel nearest to each particle."""
    limits = np.array(field.shape) - 1
    nearest = np.clip(np.rint(particles[["y", "x"]].to_numpy()), 0, limits).astype(np.int64)
    return np.asarray(field.cpu().numpy()[nearest[:, 0], nearest[:, 1]])


def _add_hot_pixels(image: Tensor, count: int, generator: np.random.Generator) -> None:
    height, width = image.shape
    rows = torch.from_numpy(generator.integers(0, height, count))
    columns = torch.from_numpy(generator.integers(0, width, count))
    factors = torch.from_numpy(generator.uniform(5, 50, count)).to(image)
    image[rows, columns] = image[rows, columns] * factors
