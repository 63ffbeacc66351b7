"""Simulated fields without a particle: crystalline ice, clouds, contamination and plain noise."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from cryopick.picking.network_field import prepare_network_field
from cryopick.picking.network_training import TrainingField

__all__ = ["KINDS", "make_empty_field"]

_SIDE = 720  # px
_FINER = 30.0  # px to the diameter sought
_DIAMETER = 150.0  # A; only its ratio to the pixel counts

Image = NDArray[np.float32]


def make_empty_field(number: int, *, seed: int = 1) -> TrainingField:
    """Draw a field in which there is nothing to pick, as the network sees it."""
    draw = np.random.default_rng([seed, 23, number])
    texture = KINDS[number % len(KINDS)](draw)
    image = texture + _noise(draw)
    field = prepare_network_field(
        torch.from_numpy(image),
        pixel_size=_DIAMETER / _FINER,
        diameter=_DIAMETER,
        edge_distance=0.0,
        white_particles=False,
        mask=True,
    )
    nothing = np.empty((0, 2))
    return TrainingField(
        image=field.image,
        is_valid=field.search.is_valid,
        is_known=field.search.is_valid,
        particles=nothing,
        rejected=nothing,
        ignored=nothing,
    )


def _noise(draw: np.random.Generator) -> Image:
    """Noise of unit variance with the rings of a random defocus and a random slope."""
    share = draw.uniform(0, 0.8)
    rings = _fringes(draw, amplitude=draw.uniform(0.05, 0.3)) ** 2
    envelope = np.exp(-draw.uniform(0, 8) * _frequency() ** 2)
    return _unit(_filtered(_white(draw), np.sqrt((1 - share) + share * rings * envelope)))


def _crystals(draw: np.random.Generator) -> Image:
    """Grains that diffract: dark and bright spots of all sizes, and a fine granular texture."""
    coarse = np.exp(draw.uniform(math.log(0.12), math.log(0.9))) * _FINER
    spots = _unit(gaussian_filter(_white(draw), coarse))
    power = draw.uniform(1.0, 2.5)
    spots = np.sign(spots) * np.abs(spots) ** power
    spots = np.where(spots > 0, spots * draw.uniform(0.3, 1.2), spots)
    finer = _unit(gaussian_filter(_white(draw), coarse * draw.uniform(0.3, 0.6)))
    mixed = _unit(spots) + draw.uniform(0, 0.8) * finer
    strength = np.exp(draw.uniform(math.log(0.15), math.log(1.5)))
    return np.asarray(strength * mixed + draw.uniform(0, 1.0) * _grains(draw), dtype=np.float32)


def _grains(draw: np.random.Generator) -> Image:
    """Grains of one size, perhaps with dark borders, seen through a CTF."""
    wave = np.exp(draw.uniform(math.log(0.08), math.log(0.6))) * _FINER  # px from grain to grain
    band = np.exp(-0.5 * ((_frequency() * wave - 1) / draw.uniform(0.2, 0.5)) ** 2)
    grains = _unit(_filtered(_white(draw), band))
    borders = _unit(-(np.abs(_unit(gaussian_filter(_white(draw), wave))) ** 0.5))
    mixed = grains + draw.uniform(0, 1.5) * borders
    return _unit(_filtered(mixed, _fringes(draw, amplitude=draw.uniform(0.1, 1.0))))


def _clouds(draw: np.random.Generator) -> Image:
    """Ice of uneven thickness: no size of its own, perhaps drawn out in a direction."""
    down, across = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None, :]
    turn, stretch = draw.uniform(0, math.pi), np.exp(draw.uniform(0, math.log(4)))
    along = down * math.cos(turn) + across * math.sin(turn)
    aside = across * math.cos(turn) - down * math.sin(turn)
    frequency = np.hypot(along * stretch, aside)
    gain = 1 / np.maximum(frequency, 1 / _SIDE) ** draw.uniform(0.8, 2.0)
    strength = np.exp(draw.uniform(math.log(0.2), math.log(2.0)))
    return np.asarray(strength * _unit(_filtered(_white(draw), gain)), dtype=np.float32)


def _contamination(draw: np.random.Generator) -> Image:
    """Flakes and drops of ice, from specks to islands, with the fringes of a random defocus."""
    image = np.zeros((_SIDE, _SIDE), np.float32)
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    strongest = np.exp(draw.uniform(math.log(0.2), math.log(4)))
    is_round = draw.random() < 0.3
    usual = np.exp(draw.uniform(math.log(0.15), math.log(1.5))) * _FINER  # px
    spread = draw.uniform(0.1, 0.7)
    for _ in range(int(np.exp(draw.uniform(math.log(3), math.log(120))))):
        size = min(usual * np.exp(spread * draw.standard_normal()), 3 * _FINER)
        down, across = draw.uniform(0, _SIDE, 2)
        turn, stretch = draw.uniform(0, math.pi), 1 + (0 if is_round else draw.uniform(0, 1.2))
        along = (y - down) * math.sin(turn) + (x - across) * math.cos(turn)
        aside = (y - down) * math.cos(turn) - (x - across) * math.sin(turn)
        angle, radius = np.arctan2(aside, along), np.hypot(aside * stretch, along)
        rough = 0.0 if is_round else 0.5
        edge = 1 + sum(
            draw.uniform(0, rough) / wave * np.cos(wave * angle + draw.uniform(0, 2 * math.pi))
            for wave in range(2, 6)
        )
        inside = expit((size * edge - radius) / draw.uniform(0.5, 3))
        image -= np.float32(strongest * draw.uniform(0.2, 1)) * inside
    fringed = _filtered(image, _fringes(draw, amplitude=draw.uniform(0.05, 0.5)))
    return np.asarray(image + draw.uniform(0, 3) * fringed, dtype=np.float32)


def _nothing(_: np.random.Generator) -> Image:
    return np.zeros((_SIDE, _SIDE), np.float32)


KINDS: tuple[Callable[[np.random.Generator], Image], ...] = (
    _crystals,
    _contamination,
    _clouds,
    _crystals,
    _contamination,
    _nothing,
)


def _white(draw: np.random.Generator) -> Image:
    return draw.standard_normal((_SIDE, _SIDE), dtype=np.float32)


def _frequency() -> NDArray[np.float64]:
    """Cycles per px of the half spectrum of a field."""
    return np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None, :])


def _fringes(draw: np.random.Generator, *, amplitude: float) -> NDArray[np.float64]:
    """Transfer of a random defocus, positive at low frequencies."""
    return np.sin(draw.uniform(20, 400) * _frequency() ** 2 + amplitude)


def _filtered(image: Image, gain: NDArray[np.floating]) -> Image:
    spectrum = np.fft.rfft2(image) * gain
    spectrum[0, 0] = 0
    return np.asarray(np.fft.irfft2(spectrum, s=(_SIDE, _SIDE)), dtype=np.float32)


def _unit(image: Image) -> Image:
    return np.asarray((image - image.mean()) / image.std(), dtype=np.float32)
