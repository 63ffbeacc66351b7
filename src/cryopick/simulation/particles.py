"""Simulate particle images with known poses, classes and junk, at a chosen signal-to-noise ratio.

Each image is cut from a larger one, so that fringes leave the box and come in as they do in a
micrograph. Images are made in batches of a fixed size, each from its own seed: a batch does not
depend on how many there are. Signal and noise are brought to scale once for a whole stack
(`calibrate`): the signal-to-noise ratio is the variance of the clean signal after the CTF inside
the mask over the variance of the noise, so an image of low defocus has less of it than others.
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

from cryopick.ctf.apply import apply_ctf
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import ParameterError
from cryopick.image.fourier import good_size
from cryopick.image.masks import circle_mask
from cryopick.image.normalize import make_background, normalize_images
from cryopick.simulation.bodies import draw_bodies
from cryopick.simulation.copies import (
    Copies,
    copies_in_pairs,
    copies_in_the_crowd,
    copies_of_some,
    join_copies,
)
from cryopick.simulation.field_edges import cut_at_edges
from cryopick.simulation.junk import copies_of_junk, draw_contamination
from cryopick.simulation.microscope import draw_defocus
from cryopick.simulation.orientations import draw_angles, euler_matrices, view_numbers
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.simulation.projection import Model, move_model, project

__all__ = ["BATCH_SIZE", "Scale", "SimulatedParticles", "calibrate", "simulate_particles"]

BATCH_SIZE = 250
_REFERENCES = 200  # projections that set the scale of a stack
_REFERENCE_STREAM, _MICROGRAPH_STREAM, _BATCH_STREAM = 0, 1, 2  # of random numbers
_JUNK_STREAM, _CROWD_STREAM = 3, 4  # apart from the others, so that those give what they gave


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What brings projections to the units of the stack."""

    signal: float  # factor on projections before the CTF, for noise of variance 1
    clean: float  # factor on projections that are stored as the truth: variance 1 in the box
    mask_radius: float  # px


@dataclass(frozen=True, kw_only=True)
class SimulatedParticles:
    """One batch."""

    images: Tensor  # (n, y, x) float32: particles white, background mean 0 and deviation 1
    clean: Tensor  # (n, y, x) float32: projections without CTF and noise; 0 for junk
    signal: Tensor  # (n, y, x) float32: what the noise, of variance 1, was added to
    rotations: NDArray[np.float64]  # (n, 3, 3)
    rows: pd.DataFrame  # micrograph, CTF, rot, tilt, psi, shift_x, shift_y, species, view, state


def calibrate(
    models: Sequence[Model],
    *,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    device: torch.device | str = "cpu",
) -> Scale:
    """Measure projections like those of the stack and find the factors for the chosen SNR.

    Parameters
    ----------
    models
        The species.
    specimen, microscope, parameters
        As for `simulate_particles`.
    device
        Where to compute.

    Raises
    ------
    ParameterError
        If the mask does not fit in the box.
    """
    radius = _mask_radius(models, parameters)
    draw = np.random.default_rng([parameters.seed, _REFERENCE_STREAM])
    angles = draw_angles(
        _REFERENCES, generator=draw, preferred_fraction=specimen.preferred_fraction
    )
    shifts = _draw_shifts(_REFERENCES, parameters, draw)
    species = draw.integers(len(models), size=_REFERENCES)
    projections = _project_all(
        models, species, euler_matrices(angles), shifts, None, _REFERENCES, parameters, device
    )
    defoci = [draw_defocus(microscope, draw) for _ in range(_REFERENCES)]
    table = pd.DataFrame([vars(d) for d in defoci])
    filtered = apply_ctf(projections, _ctf(table, microscope, parameters, device))
    mask = circle_mask(parameters.box_size, radius=radius, device=device)
    projections, filtered = _crop(projections, parameters), _crop(filtered, parameters)
    inside = filtered[:, mask].cpu().numpy().astype(np.float64)
    whole = projections.cpu().numpy().astype(np.float64)
    return Scale(
        signal=math.sqrt(parameters.snr / inside.var(axis=1).mean()),
        clean=1 / math.sqrt(whole.var(axis=(1, 2)).mean()),
        mask_radius=radius,
    )


def simulate_particles(
    models: Sequence[Model],
    *,
    batch: int,
    scale: Scale,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    device: torch.device | str = "cpu",
) -> SimulatedParticles:
    """Simulate one batch of a stack.

    Parameters
    ----------
    models
        The species, equally frequent.
    batch
        Which batch, from 0; it holds the images from ``batch * BATCH_SIZE`` on.
    scale
        Made by `calibrate` with the same parameters.
    specimen, microscope, parameters
        What there is and how it is imaged.
    device
        Where to compute. Random numbers are the same on every device.

    Returns
    -------
    SimulatedParticles
        `BATCH_SIZE` images, fewer at the end of the stack. Each row has a ``state``:
        ``particle``, or the kind of junk (`JUNK_KINDS`). Particles of the
        crowd are in the images, not in the clean projections.
    """
    draw = np.random.default_rng([parameters.seed, _BATCH_STREAM, batch])
    more = np.random.default_rng([parameters.seed, _JUNK_STREAM, batch])
    noise = torch.Generator().manual_seed(int(draw.integers(1 << 62)))
    rows, centred = _draw_rows(models, batch, specimen, microscope, parameters, draw)
    states = rows["state"].to_numpy()
    others = _draw_others(states, centred, models, batch, specimen, parameters, draw, more)
    clean, content = _clean_and_content(states, centred, others, models, parameters, device)
    ctf = _ctf(rows, microscope, parameters, device)
    field = _pass_lens(content, states, centred, models, scale, parameters, ctf, draw, more, noise)
    signal = _crop(field, parameters)
    images = signal + _crop(_noise(ctf, parameters, noise), parameters)
    images = cut_at_edges(images, np.flatnonzero(states == "edge"), generator=more)
    background = make_background(
        parameters.box_size, radius=scale.mask_radius, has_ramp=False, device=device
    )
    images, _ = normalize_images(images, background)
    last = min(BATCH_SIZE, parameters.number - batch * BATCH_SIZE)
    rows["view"] = _views(models, centred.species, centred.rotations)
    rows["species"] = np.array([m.name for m in models], dtype=object)[centred.species]
    return SimulatedParticles(
        images=images[:last],
        clean=(_crop(clean, parameters) * scale.clean)[:last],
        signal=signal[:last],
        rotations=centred.rotations[:last],
        rows=rows[:last].reset_index(drop=True),
    )


def _mask_radius(models: Sequence[Model], parameters: ParticleSimulationParameters) -> float:
    largest = max(m.diameter for m in models)
    diameter = parameters.mask_diameter or 1.2 * largest
    width = parameters.box_size * parameters.pixel_size
    if diameter > 0.98 * width:
        needed = math.ceil(diameter / 0.98 / parameters.pixel_size / 2) * 2
        raise ParameterError(
            "box_size",
            must=f"hold the mask of {diameter:.0f} A",
            got=f"{parameters.box_size} px of {parameters.pixel_size:g} A",
            remedy=f"Try --box-size {needed}",
        )
    return diameter / 2 / parameters.pixel_size


def _field_size(parameters: ParticleSimulationParameters) -> int:
    return good_size(math.ceil(1.4 * parameters.box_size))


def _crop(images: Tensor, parameters: ParticleSimulationParameters) -> Tensor:
    """Cut the box from the middle of the field."""
    size = parameters.box_size
    first = images.shape[-1] // 2 - size // 2
    return images[:, first : first + size, first : first + size]


def _draw_shifts(
    count: int, parameters: ParticleSimulationParameters, draw: np.random.Generator
) -> NDArray[np.float64]:
    """Offsets from the centre, (n, 2) y and x in px, of the rms distance asked for."""
    deviation = parameters.shift / math.sqrt(2) / parameters.pixel_size
    return np.asarray(deviation * draw.standard_normal((count, 2)))


def _draw_rows(
    models: Sequence[Model],
    batch: int,
    specimen: SpecimenParameters,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    draw: np.random.Generator,
) -> tuple[pd.DataFrame, Copies]:
    numbers = np.arange(BATCH_SIZE) + batch * BATCH_SIZE
    micrographs = numbers // parameters.per_micrograph
    defoci = {
        m: draw_defocus(microscope, np.random.default_rng([parameters.seed, _MICROGRAPH_STREAM, m]))
        for m in np.unique(micrographs).tolist()
    }
    angles = draw_angles(BATCH_SIZE, generator=draw, preferred_fraction=specimen.preferred_fraction)
    shifts = _draw_shifts(BATCH_SIZE, parameters, draw)
    species = draw.integers(len(models), size=BATCH_SIZE)
    is_junk = draw.random(BATCH_SIZE) < parameters.junk_fraction
    allowed = np.array(parameters.kinds_of_junk, dtype=object)
    kinds = allowed[draw.integers(len(allowed), size=BATCH_SIZE)]
    rows = pd.DataFrame([vars(defoci[m]) for m in micrographs.tolist()])
    rows["phase_shift"] = microscope.phase_shift
    rows.insert(0, "micrograph", [f"micrographs/sim_{m + 1:05d}.mrc" for m in micrographs])
    rows["rot"], rows["tilt"], rows["psi"] = angles.T
    rows["shift_x"] = -shifts[:, 1] * parameters.pixel_size
    rows["shift_y"] = -shifts[:, 0] * parameters.pixel_size
    rows["class_number"] = np.where(is_junk, 0, species + 1)
    rows["is_junk"] = is_junk.astype(np.int64)
    rows["state"] = np.where(is_junk, kinds, "particle")
    return rows, Copies(
        image_index=np.arange(BATCH_SIZE),
        species=species,
        rotations=euler_matrices(angles),
        shifts_yx=shifts,
    )


def _draw_others(
    states: NDArray[np.object_],
    centred: Copies,
    models: Sequence[Model],
    batch: int,
    specimen: SpecimenParameters,
    parameters: ParticleSimulationParameters,
    draw: np.random.Generator,
    more: np.random.Generator,
) -> Copies:
    """All particles beside the true ones: those in junk images, and the crowd."""
    diameters = np.array([m.diameter for m in models]) / parameters.pixel_size
    others = join_copies(
        [
            copies_of_junk(states, centred, models, parameters, draw),
            copies_in_pairs(np.flatnonzero(states == "overlap"), centred, diameters, more),
            copies_of_some(np.flatnonzero(states == "edge"), centred, more),
        ]
    )
    crowd = copies_in_the_crowd(
        parameters.crowding,
        centred,
        others,
        models,
        pixel_size=parameters.pixel_size,
        preferred_fraction=specimen.preferred_fraction,
        generator=np.random.default_rng([parameters.seed, _CROWD_STREAM, batch]),
    )
    return join_copies([others, crowd])


def _clean_and_content(
    states: NDArray[np.object_],
    centred: Copies,
    others: Copies,
    models: Sequence[Model],
    parameters: ParticleSimulationParameters,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Projections of the true particles alone, and of all particles that are in the images."""
    clean, rest = (
        _project_all(
            models,
            c.species[chosen],
            c.rotations[chosen],
            c.shifts_yx[chosen],
            c.image_index[chosen],
            len(states),
            parameters,
            device,
        )
        for c, chosen in (
            (centred, np.flatnonzero(states == "particle")),
            (others, np.arange(len(others.species))),
        )
    )
    return clean, clean + rest


def _pass_lens(
    content: Tensor,
    states: NDArray[np.object_],
    centred: Copies,
    models: Sequence[Model],
    scale: Scale,
    parameters: ParticleSimulationParameters,
    ctf: Tensor,
    draw: np.random.Generator,
    more: np.random.Generator,
    noise: torch.Generator,
) -> Tensor:
    """Add what is no particle, image it all, and add what absorbs."""
    size = _field_size(parameters)
    contamination = draw_contamination(states, parameters, size=size, generator=draw, noise=noise)
    bodies = draw_bodies(states, centred.species, models, parameters, size=size, generator=more)
    content[bodies.image_index] += bodies.density.to(content)
    contamination.mass[bodies.image_index] += bodies.mass
    unit = math.sqrt(parameters.snr)  # deviation of the signal
    phase = content * scale.signal + contamination.phase.to(content) * unit
    return apply_ctf(phase, ctf) + contamination.mass.to(content) * unit


def _project_all(
    models: Sequence[Model],
    species: NDArray[np.int64],
    matrices: NDArray[np.float64],
    shifts: NDArray[np.float64],
    image_index: NDArray[np.int64] | None,
    count: int,
    parameters: ParticleSimulationParameters,
    device: torch.device | str,
) -> Tensor:
    size = _field_size(parameters)
    total = torch.zeros(count, size, size, device=device)
    places = np.arange(len(species)) if image_index is None else image_index
    for number, model in enumerate(models):
        mine = species == number
        if mine.any():
            total += project(
                move_model(model, device),
                matrices[mine],
                box_size=size,
                pixel_size=parameters.pixel_size,
                shifts_yx=shifts[mine],
                image_index=places[mine],
                count=count,
            )
    return total


def _ctf(
    rows: pd.DataFrame,
    microscope: MicroscopeParameters,
    parameters: ParticleSimulationParameters,
    device: torch.device | str,
) -> Tensor:
    def column(name: str) -> Tensor:
        return torch.tensor(rows[name].to_numpy().copy(), device=device)

    size = _field_size(parameters)
    return evaluate_ctf(
        (size, size),
        pixel_size=parameters.pixel_size,
        defocus_u=column("defocus_u"),
        defocus_v=column("defocus_v"),
        defocus_angle=column("defocus_angle"),
        voltage=microscope.voltage,
        spherical_aberration=microscope.spherical_aberration,
        amplitude_contrast=microscope.amplitude_contrast,
        phase_shift=microscope.phase_shift,
        bfactor=microscope.bfactor,
        device=device,
    )


def _noise(
    ctf: Tensor, parameters: ParticleSimulationParameters, generator: torch.Generator
) -> Tensor:
    """Noise of variance 1: white, and a part that went through the lens."""
    size = _field_size(parameters)
    white = torch.randn(2, len(ctf), size, size, generator=generator).to(ctf.device)
    share = parameters.coloured_noise
    if not share:
        return white[0]
    full = torch.full((size // 2 + 1,), 2.0, device=ctf.device)  # each stands for two samples
    full[0] = 1.0
    full[-1] = 1.0
    power = (ctf**2 * full).sum((1, 2)) / size**2
    seen = apply_ctf(white[1], ctf / torch.sqrt(power)[:, None, None])
    return math.sqrt(1 - share) * white[0] + math.sqrt(share) * seen


def _views(
    models: Sequence[Model], species: NDArray[np.int64], matrices: NDArray[np.float64]
) -> NDArray[np.int64]:
    views = np.zeros(len(species), np.int64)
    for number, model in enumerate(models):
        mine = species == number
        views[mine] = view_numbers(matrices[mine], symmetry=model.symmetry)
    return views
