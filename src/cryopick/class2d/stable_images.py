"""Images as the stable classification works on them: small, normalised, the lens dealt with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import ImageSource
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import ParameterError
from cryopick.image.fourier import crop_rfft, frequency_grid

__all__ = [
    "Pixels",
    "Shrink",
    "StableImages",
    "phase_randomised",
    "plan_shrink",
    "prepare_images",
]

_BATCH = 256  # images read at once
_WHITENING_SAMPLE = 1000  # images that the whitening curve is measured on
_FILAMENT_ROOM = 1.1  # the mask of a filament is this much wider than the filament


@dataclass(frozen=True, kw_only=True)
class Shrink:
    """How images are resized: the particle to the target radius, then the box to its size."""

    box_size: int  # px of the input
    resized: int  # px that the whole box is resampled to
    size: int  # px after cutting or padding
    radius: float  # px, of the particle after resampling
    pixel_size: float  # A/px after resampling

    @property
    def ratio(self) -> float:
        """New pixels per old pixel, the shrink ratio."""
        return self.resized / self.box_size


def plan_shrink(parameters: StableParameters, *, box_size: int, pixel_size: float) -> Shrink:
    """Follow ISAC's rule: ratio = target radius / radius; new box = ratio x box, rounded.

    The new pixel size is the old one divided by the ratio; SPHIRE's manual says multiplied, its
    program divides.

    Raises
    ------
    ParameterError
        If the particle does not fit in its box.
    """
    if 2 * parameters.radius > box_size:
        raise ParameterError(
            "radius",
            must=f"be at most half the box, {box_size // 2} px",
            got=f"{parameters.radius:g} px",
            remedy="Lower --radius",
        )
    resized = int(box_size * parameters.target_radius / parameters.radius + 0.5)
    return Shrink(
        box_size=box_size,
        resized=resized,
        size=parameters.working_size,
        radius=parameters.radius * resized / box_size,
        pixel_size=pixel_size * box_size / resized,
    )


class Pixels(Protocol):
    """Images (n, size, size) float16: a tensor, or what reads them."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class StableImages:
    """All images of a source, 2 bytes a pixel."""

    pixels: Pixels  # (n, size, size) float16
    ctf_power: Tensor | None  # (n, bins) CTF^2 by radial frequency; None where it is not known
    shrink: Shrink
    whitening: Tensor  # (bins,) factor by radial frequency; ones without whitening
    is_multiplied: NDArray[np.bool_] | None = None  # (n,) by the CTF, noise and all; None: none is
    lens: NDArray[np.float64] | None = None  # (n, 9) as `ImageSource.ctf_parameters`, if known
    has_lens: bool = True  # images are weighed by their CTF, where it is known

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def n_bins(self) -> int:
        """Radial bins, up to 0.5 cycles/px."""
        return len(self.whitening)


def prepare_images(
    source: ImageSource,
    parameters: StableParameters,
    *,
    filament_angle: NDArray[np.float64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StableImages:
    """Read, resample, correct and normalise all images.

    Parameters
    ----------
    source
        White particles.
    parameters
        What the user chose.
    filament_angle
        (n,) deg from x towards y, of the filament in each image.
    progress
        Called with the images done and in all.

    Raises
    ------
    ParameterError
        If filaments have no angle, or the CTF is wanted and not known.
    """
    shrink = plan_shrink(parameters, box_size=source.box_size, pixel_size=source.pixel_size)
    _require_angles(parameters, filament_angle)
    n, bins = len(source), shrink.size // 2 + 1
    pixels = torch.empty(n, shrink.size, shrink.size, dtype=torch.float16)
    ctf_power = torch.empty(n, bins, dtype=torch.float16) if parameters.ctf != "none" else None
    whitening = _whitening(source, shrink, bins) if parameters.vpp else torch.ones(bins)
    lenses: list[NDArray[np.float64]] = []
    for start in range(0, n, _BATCH):
        rows = np.arange(start, min(start + _BATCH, n))
        rffts = _resampled(source.read(rows), shrink)
        if parameters.vpp:
            rffts = rffts * whitening[_bin_of(shrink, bins)]
        if parameters.ctf != "none":
            rffts, power, known = _corrected(source, rows, rffts, shrink, parameters.ctf)
            if ctf_power is not None:
                ctf_power[rows] = _radial_mean(power, shrink, bins).half()
                lenses.append(known)
        images = torch.fft.irfft2(rffts, s=(shrink.resized, shrink.resized))
        angles = None if filament_angle is None else torch.from_numpy(filament_angle[rows])
        pixels[rows] = _normalised(images, shrink, parameters, angles).half()
        if progress is not None:
            progress(int(rows[-1]) + 1, n)
    is_multiplied = None
    if parameters.ctf != "none":
        is_multiplied = source.is_premultiplied[source.optics_numbers]
    return StableImages(
        pixels=pixels, ctf_power=ctf_power, shrink=shrink, whitening=whitening,
        is_multiplied=is_multiplied, lens=np.concatenate(lenses) if lenses else None,
        has_lens=parameters.ctf == "full",
    )  # fmt: skip


def _require_angles(
    parameters: StableParameters, filament_angle: NDArray[np.float64] | None
) -> None:
    if parameters.filament_width > 0 and filament_angle is None:
        raise ParameterError(
            "filament_width",
            must="come with an angle for each filament",
            got="none",
            remedy="Give particles with the angles of their filaments",
        )


def _resampled(images: Tensor, shrink: Shrink) -> Tensor:
    """Transform images and resample them, the mean taken away."""
    rffts = torch.fft.rfft2(images - images.mean((1, 2), keepdim=True))
    box, new = shrink.box_size, shrink.resized
    if new <= box:
        rffts = crop_rfft(rffts, shape=(new, new))
    else:
        wide = rffts.new_zeros(len(rffts), new, new // 2 + 1)
        high, wide_x = (box - 1) // 2, (box - 1) // 2
        wide[:, : high + 1, : wide_x + 1] = rffts[:, : high + 1, : wide_x + 1]
        wide[:, new - high :, : wide_x + 1] = rffts[:, box - high :, : wide_x + 1]
        rffts = wide
    scaled: Tensor = rffts * (new / box) ** 2
    moved = _half_pixel(box, new)
    return scaled if moved is None else scaled * moved


def _half_pixel(box: int, new: int) -> Tensor | None:
    """Phases that bring the centre box // 2 to new // 2; None where it is there already."""
    shift = new // 2 - (box // 2) * new / box
    if shift == 0:
        return None
    fy, fx = frequency_grid((new, new))
    phases: Tensor = torch.exp(-2j * math.pi * shift * (fy + fx))
    return phases


def _bin_of(shrink: Shrink, bins: int) -> Tensor:
    """Radial bin of each frequency of a resampled image, (y, x // 2 + 1)."""
    fy, fx = frequency_grid((shrink.resized, shrink.resized))
    radius = torch.hypot(fy, fx) * (2 * (bins - 1))
    return radius.round().long().clamp_max(bins - 1)


def _radial_mean(values: Tensor, shrink: Shrink, bins: int) -> Tensor:
    """Mean over each radial bin of (n, y, x // 2 + 1) values, (n, bins)."""
    place = _bin_of(shrink, bins).flatten()
    total = values.new_zeros(len(values), bins).index_add_(1, place, values.flatten(1))
    return total / torch.bincount(place, minlength=bins).clamp_min(1)


def _whitening(source: ImageSource, shrink: Shrink, bins: int) -> Tensor:
    """Measure the whitening curve: n over the sum of the images' root power at each radius."""
    n = len(source)
    sample = np.unique(np.linspace(0, n - 1, min(n, _WHITENING_SAMPLE)).astype(np.int64))
    total = torch.zeros(bins, dtype=torch.float64)
    for start in range(0, len(sample), _BATCH):
        images = source.read(sample[start : start + _BATCH])
        images = (images - images.mean((1, 2), keepdim=True)) / images.std(
            (1, 2), keepdim=True
        ).clamp_min(1e-12)
        power = _resampled(images, shrink).abs().square()
        total += _radial_mean(power, shrink, bins).sqrt().double().sum(0)
    curve = len(sample) / total.clamp_min(1e-12)
    curve = curve / curve[1:].median()
    curve[0] = 1
    return curve.float()


def _corrected(
    source: ImageSource, rows: NDArray[np.int64], rffts: Tensor, shrink: Shrink, mode: str
) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Phases flipped, if that has not been done, CTF^2, (n, y, x // 2 + 1), and the parameters."""
    known = source.ctf_parameters(rows)
    if known is None:
        raise ParameterError(
            "ctf",
            must="be none for particles without CTF",
            got=mode,
            remedy="Give --ctf none, or particles with defocus",
        )
    ctf = torch.empty(rffts.shape)
    lenses, place = np.unique(known[:, 6:], axis=0, return_inverse=True)
    for one, (voltage, aberration, contrast) in enumerate(lenses.tolist()):
        mine = np.flatnonzero(place.ravel() == one)
        u, v, angle, phase, bfactor, scale = (
            torch.from_numpy(known[mine, j]).float() for j in range(6)
        )
        ctf[mine] = evaluate_ctf(
            (shrink.resized, shrink.resized),
            pixel_size=shrink.pixel_size,
            defocus_u=u,
            defocus_v=v,
            defocus_angle=angle,
            voltage=voltage,
            spherical_aberration=aberration,
            amplitude_contrast=contrast,
            phase_shift=phase,
            bfactor=bfactor,
            scale=scale,
        )
    optics = source.optics_numbers[rows]
    is_multiplied = torch.from_numpy(source.is_premultiplied[optics])[:, None, None]
    is_flipped = torch.from_numpy(source.is_phase_flipped[optics])[:, None, None]
    factor = torch.where(ctf < 0, -1.0, 1.0)
    return rffts * torch.where(is_multiplied | is_flipped, 1.0, factor), ctf**2, known


def _normalised(
    images: Tensor, shrink: Shrink, parameters: StableParameters, angles: Tensor | None
) -> Tensor:
    """Mean 0 outside of the mask, deviation 1 inside; then cut or padded to the working size."""
    new = shrink.resized
    axis = torch.arange(new) - float(new // 2)
    y, x = axis[:, None], axis[None, :]
    if parameters.filament_width > 0 and angles is not None:
        turn = torch.deg2rad(angles.float())[:, None, None]
        across = (y * torch.cos(turn) - x * torch.sin(turn)).abs()
        width = parameters.filament_width * shrink.ratio * _FILAMENT_ROOM
        inside = across <= width / 2
    else:
        inside = (torch.hypot(y, x) <= shrink.radius).expand(len(images), -1, -1)
    count_in = inside.sum((1, 2), keepdim=True)
    count_out = (~inside).sum((1, 2), keepdim=True)
    outside_mean = (images * ~inside).sum((1, 2), keepdim=True) / count_out.clamp_min(1)
    flat = images - torch.where(count_out > 0, outside_mean, images.mean((1, 2), keepdim=True))
    mean = (flat * inside).sum((1, 2), keepdim=True) / count_in.clamp_min(1)
    variance = ((flat - mean).square() * inside).sum((1, 2), keepdim=True) / count_in.clamp_min(1)
    flat = flat / variance.sqrt().clamp_min(1e-12)
    if angles is not None and parameters.filament_width > 0 and not parameters.filament_mask_ignore:
        flat = flat * inside
    flat = flat * (torch.hypot(y, x) >= parameters.ir)
    return _fitted(flat, shrink.size)


def _fitted(images: Tensor, size: int) -> Tensor:
    """Cut images (n, y, y) around their centre, or pad them with 0."""
    old = images.shape[-1]
    fitted = images.new_zeros(len(images), size, size)
    below = min(old // 2, size // 2)
    above = min(old - old // 2, size - size // 2)
    here, there = (
        slice(old // 2 - below, old // 2 + above),
        slice(size // 2 - below, size // 2 + above),
    )
    fitted[:, there, there] = images[:, here, here]
    return fitted


def phase_randomised(
    images: StableImages, rows: NDArray[np.int64], *, radius: float, seed: int
) -> StableImages:
    """Decoys: images of the same power as some images, but with random phases.

    Parameters
    ----------
    images
        To draw the power from.
    rows
        Which of them.
    radius
        Only what lies inside this circle, px, is compared later, so it is made noise.
    seed
        Of the phases.
    """
    size = images.shrink.size
    axis = torch.arange(size) - float(size // 2)
    inside = torch.hypot(axis[:, None], axis) <= radius
    rffts = torch.fft.rfft2(images.pixels[rows].float() * inside)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.fft.rfft2(torch.randn(len(rows), size, size, generator=generator))
    randomised = torch.fft.irfft2(
        rffts.abs() * noise / noise.abs().clamp_min(1e-12), s=(size, size)
    )
    kept = float(inside.float().mean())  # the power is spread over the whole box
    return StableImages(
        pixels=(randomised / math.sqrt(kept)).half(),
        ctf_power=None if images.ctf_power is None else images.ctf_power[rows],
        shrink=images.shrink,
        whitening=images.whitening,
        is_multiplied=None if images.is_multiplied is None else images.is_multiplied[rows],
        has_lens=images.has_lens,
    )
