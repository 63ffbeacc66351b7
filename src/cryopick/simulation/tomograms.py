"""Simulate a tomogram: particles, gold and membranes in ice, seen through a lens from some tilts.

    volume = -(a signal) + noise,   signal = F^-1 [ W CTF F(potential) ]

W is 1 where a tilt between the first and the last passes and 0 in the wedge that none does; the
noise lies in the same part of Fourier space, for a reconstruction has nothing outside it. The
factor a makes the variance of the signal inside the particles `snr` times that of the noise,
which is 1. The tilt axis is y and the beam runs along z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.parameters import SpecimenParameters
from cryopick.simulation.phantoms import PROTEIN_CONTRAST
from cryopick.simulation.projection import Model, merge_points, render_volume
from cryopick.simulation.tomograms_image import draw_noise, image_volume
from cryopick.simulation.tomograms_parameters import TomogramSimulationParameters
from cryopick.simulation.tomograms_placement import (
    MEMBRANE_HALF_WIDTH,
    Scene,
    Vesicle,
    draw_scene,
)

__all__ = [
    "SimulatedTomogram",
    "plan_tomogram",
    "render_particle",
    "simulate_tomogram",
]

_MASK_LEVEL = 0.3  # of protein's contrast: voxels above belong to the particle
_GOLD_CONTRAST = 22.0  # V, mean inner potential of gold, about 27 V, above that of ice
_HEAD_CONTRAST = 1.8  # V, of the head groups of lipids above ice
_TAIL_CONTRAST = -0.5  # V, of their tails
_HEAD_DISTANCE = 19.0  # A from the middle of the bilayer
_HEAD_WIDTH = 5.0  # A rms
_TAIL_WIDTH = 8.0  # A rms
_SOFT_LIMIT = 0.8  # of Nyquist frequency, where the low-pass begins
_MARGIN = 4  # voxels around a particle in the box it is rendered in


@dataclass(frozen=True, kw_only=True)
class SimulatedTomogram:
    """One tomogram and its truth."""

    volume: Tensor  # (z, y, x) float32, noise has variance 1
    labels: Tensor  # (z, y, x) uint8: 0 ice, 1 ... K species, K + 1 gold, K + 2 membrane
    particles: pd.DataFrame  # x, y, z (A); species, kind (from 1), diameter (A); rot, tilt, psi
    scene: Scene
    signal_deviation: float  # rms deviation of the signal inside the particles


def simulate_tomogram(
    models: Sequence[Model],
    *,
    index: int,
    specimen: SpecimenParameters,
    parameters: TomogramSimulationParameters,
    device: torch.device | str = "cpu",
) -> SimulatedTomogram:
    """Simulate one tomogram of a series.

    Parameters
    ----------
    models
        The species, equally frequent.
    index
        Place in the series, from 0. Seed and index make the tomogram; how many others there are
        does not matter.
    specimen
        Whether views are even.
    parameters
        What there is and how it is imaged.
    device
        Where to compute. Random numbers are the same on every device.

    Returns
    -------
    SimulatedTomogram
        At most six volumes of its size in float32 are in memory at once.

    Raises
    ------
    ParameterError
        If not all particles find room.
    """
    scene, noise_source = plan_tomogram(
        models, index=index, specimen=specimen, parameters=parameters
    )
    volume = torch.zeros(parameters.shape, device=device)
    labels = torch.zeros(parameters.shape, dtype=torch.uint8, device=device)
    _add_particles(volume, labels, models, scene, parameters.voxel_size)
    inside = labels > 0
    signal = image_volume(volume, parameters)
    deviation = float(signal[inside].double().std()) if bool(inside.any()) else 0.0
    if len(scene.gold) or scene.vesicles:
        _add_gold(volume, labels, scene, parameters, label=len(models) + 1)
        _add_membranes(volume, labels, scene.vesicles, parameters.voxel_size, len(models) + 2)
        signal = image_volume(volume, parameters)
    del volume, inside
    sign = -1.0 if parameters.contrast == "dark" else 1.0
    signal *= sign * math.sqrt(parameters.snr) / (deviation or PROTEIN_CONTRAST)
    signal += draw_noise(parameters, noise_source, device)
    return SimulatedTomogram(
        volume=signal,
        labels=labels,
        particles=_table(scene, models),
        scene=scene,
        signal_deviation=math.sqrt(parameters.snr) if deviation else 0.0,
    )


def plan_tomogram(
    models: Sequence[Model],
    *,
    index: int,
    specimen: SpecimenParameters,
    parameters: TomogramSimulationParameters,
) -> tuple[Scene, torch.Generator]:
    """Place everything, which needs no volume, so that what does not fit is known at once.

    Returns
    -------
    tuple
        The scene and the source of the noise of `simulate_tomogram` for the same arguments.

    Raises
    ------
    ParameterError
        If not all particles find room.
    """
    draw = np.random.default_rng([parameters.seed, index, 3])
    noise_source = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
    scene = draw_scene(
        np.array([m.diameter for m in models]),
        parameters,
        preferred_fraction=specimen.preferred_fraction,
        generator=draw,
    )
    return scene, noise_source


def render_particle(
    model: Model, rotation: Tensor, offset_xyz: Tensor, *, voxel_size: float
) -> Tensor:
    """Render one particle in the smallest box that holds it.

    Parameters
    ----------
    model
        What to render.
    rotation
        (3, 3) as `euler_matrices` gives it.
    offset_xyz
        (3,) A from the middle of the central voxel to the centre of the particle.
    voxel_size
        A.

    Returns
    -------
    Tensor
        (n, n, n) float32, V above the solvent, without frequencies beyond Nyquist's. Voxel
        ``n // 2`` on each axis is the central one.

    Notes
    -----
    It is rendered at half the voxel size and cropped in Fourier space, so that sub-voxel places
    are exact.
    """
    size = 2 * (math.ceil(model.diameter / voxel_size / 2) + _MARGIN)
    positions = model.positions @ rotation.to(model.positions).T + offset_xyz.to(model.positions)
    moved = replace(model, positions=positions)
    fine = render_volume(moved, box_size=2 * size, pixel_size=voxel_size / 2)
    spectrum = torch.fft.rfftn(fine)
    kept = torch.cat([torch.arange(size // 2), torch.arange(2 * size - size // 2, 2 * size)])
    spectrum = spectrum[kept][:, kept][:, :, : size // 2 + 1]
    axis = torch.fft.fftfreq(size) * 2  # of Nyquist frequency
    half = axis[: size // 2 + 1].abs()
    radius = torch.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2)
    ramp = ((radius - _SOFT_LIMIT) / (1 - _SOFT_LIMIT)).clamp(0, 1)
    spectrum = spectrum * (0.5 + 0.5 * torch.cos(math.pi * ramp)) / 8
    result: Tensor = torch.fft.irfftn(spectrum, s=(size, size, size))
    return result


def _add_particles(
    volume: Tensor, labels: Tensor, models: Sequence[Model], scene: Scene, voxel_size: float
) -> None:
    """Add the potential of all particles, and mark their voxels."""
    merged = [merge_points(m, spacing=voxel_size / 4) for m in models]
    rotations = torch.from_numpy(euler_matrices(scene.angles))
    for place, species, rotation in zip(scene.places, scene.species, rotations, strict=True):
        voxel = np.rint(place / voxel_size).astype(int)
        offset = torch.from_numpy(place - voxel * voxel_size)
        box = render_particle(merged[species], rotation, offset, voxel_size=voxel_size)
        inner, outer = _overlap(volume.shape, voxel[::-1] - box.shape[0] // 2, box.shape)
        part = box[inner].to(volume)
        volume[outer] += part
        # the mean of 27 voxels, so that clefts between domains belong to the particle
        mean = torch.nn.functional.avg_pool3d(box[None, None], 3, stride=1, padding=1)[0, 0]
        is_particle = mean[inner] > _MASK_LEVEL * PROTEIN_CONTRAST
        labels[outer][is_particle.to(labels.device)] = int(species) + 1


def _overlap(
    shape: Sequence[int], lower: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of a box, and of the volume, where the two overlap."""
    inner, outer = [], []
    for length, low, side in zip(shape, lower, size, strict=True):
        first, last = max(0, int(low)), min(length, int(low) + side)
        outer.append(slice(first, last))
        inner.append(slice(first - int(low), last - int(low)))
    return tuple(inner), tuple(outer)


def _points_of(box: tuple[slice, ...], voxel_size: float) -> np.ndarray:
    """Positions of the voxels of a box: (n, 3) x, y, z in A."""
    z, y, x = (np.arange(s.start, s.stop) * voxel_size for s in box)
    grid = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid[:, ::-1])


def _add_gold(
    volume: Tensor,
    labels: Tensor,
    scene: Scene,
    parameters: TomogramSimulationParameters,
    *,
    label: int,
) -> None:
    """Add solid balls; a voxel on the surface counts by its share."""
    size, radius = parameters.voxel_size, parameters.gold_diameter / 2
    side = 2 * math.ceil(radius / size + 1) + 1
    for centre in scene.gold:
        lower = np.rint(centre[::-1] / size).astype(int) - side // 2
        _, outer = _overlap(volume.shape, lower, (side,) * 3)
        away = np.linalg.norm(_points_of(outer, size) - centre, axis=1)
        share = np.clip((radius - away) / size + 0.5, 0, 1).reshape(volume[outer].shape)
        volume[outer] += _GOLD_CONTRAST * torch.from_numpy(share).to(volume)
        labels[outer][torch.from_numpy(share > 0.5).to(labels.device)] = label


def _add_membranes(
    volume: Tensor, labels: Tensor, vesicles: Sequence[Vesicle], voxel_size: float, label: int
) -> None:
    """Add bilayers section by section: two sheets of head groups and the tails between."""
    for vesicle in vesicles:
        reach = vesicle.semi_axes.max() + MEMBRANE_HALF_WIDTH + voxel_size
        lower = np.floor((vesicle.centre - reach) / voxel_size).astype(int)[::-1]
        side = math.ceil(2 * reach / voxel_size) + 1
        _, box = _overlap(volume.shape, lower, (side,) * 3)
        for z in range(box[0].start, box[0].stop):
            section = (slice(z, z + 1), *box[1:])
            away = vesicle.distance(_points_of(section, voxel_size))
            heads = np.exp(-0.5 * ((np.abs(away) - _HEAD_DISTANCE) / _HEAD_WIDTH) ** 2)
            tails = np.exp(-0.5 * (away / _TAIL_WIDTH) ** 2)
            density = (_HEAD_CONTRAST * heads + _TAIL_CONTRAST * tails).reshape(
                volume[section].shape
            )
            volume[section] += torch.from_numpy(density).to(volume)
            is_membrane = (np.abs(away) <= MEMBRANE_HALF_WIDTH - 5).reshape(density.shape)
            labels[section][torch.from_numpy(is_membrane).to(labels.device)] = label


def _table(scene: Scene, models: Sequence[Model]) -> pd.DataFrame:
    rows = pd.DataFrame(scene.places, columns=["x", "y", "z"])
    rows["species"] = [models[i].name for i in scene.species]
    rows["kind"] = scene.species + 1
    rows["diameter"] = [round(models[i].diameter, 2) for i in scene.species]
    rows[["rot", "tilt", "psi"]] = scene.angles
    return rows
