"""The exhaustive search for defocus and astigmatism.

In every direction the spectrum is correlated with the rings of every defocus: one matrix
product. An astigmatic defocus is a curve through that table, z + d cos 2 (phi - angle), and its
score is a sum along the curve; so no combination is skipped, and none costs another CTF.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.ctf.polar import (
    WINDOW_CORRELATION,
    Lens,
    PolarSpectrum,
    ctf_phase,
    ring_contrast,
    ring_period,
)
from cryopick.ctf.smooth import smooth_basis, without_smooth
from cryopick.physics import electron_wavelength

__all__ = ["N_SPLINES", "Candidate", "search_defocus", "whiten"]

_STEP_PHASE = 0.5  # rad at the finest visible ring, from one defocus to the next
_N_DIRECTIONS = 18  # of astigmatism
_COARSER = 2  # steps of defocus to one of astigmatism
_NEARBY = 12  # rings on either side that say how much a bin may differ from the smooth curve
_CLIPPED = 4.0  # standard deviations of these beyond which it is cut off
_LEAST_SIGNAL = 0.1  # of the noise of a ring: what may be hidden in it
N_SPLINES = 6  # of the background
_RUNNING = 9  # rings over which the strength of the oscillation is measured


class Candidate(NamedTuple):
    """One place to refine from."""

    defocus: float  # A, mean
    half_difference: float  # A, (u - v) / 2
    angle: float  # rad, of defocus_u
    phase_shift: float  # rad
    score: float  # correlation in standard deviations of noise


def search_defocus(
    spectrum: PolarSpectrum,
    lens: Lens,
    *,
    defocus_range: tuple[float, float],
    max_astigmatism: float,
    phase_shifts: Sequence[float],
    n_candidates: int = 3,
) -> list[Candidate]:
    """Find the best defoci on a grid.

    Parameters
    ----------
    spectrum
        In polar bins.
    lens
        Of the microscope.
    defocus_range
        A, of the mean defocus.
    max_astigmatism
        A, largest u - v.
    phase_shifts
        rad, those to try.
    n_candidates
        How many maxima to return for each phase shift.

    Returns
    -------
    list of Candidate
        Best score first.
    """
    basis = smooth_basis(spectrum.frequency, N_SPLINES)
    data, weight = whiten(spectrum, basis)
    finest = float(spectrum.frequency[-1])
    step = _STEP_PHASE / (math.pi * electron_wavelength(lens.voltage) * finest**2)
    grid = _Grid(
        low=defocus_range[0],
        step=step,
        n_inside=max(2, math.ceil((defocus_range[1] - defocus_range[0]) / step) + 1),
        n_margin=math.ceil(max_astigmatism / 2 / step),
    )
    # many phase shifts make up for a coarser grid of astigmatism
    coarser = 1 if len(phase_shifts) == 1 else 2
    curves = _curves(grid, spectrum.angle, coarser=coarser)
    found: list[Candidate] = []
    for phase_shift in phase_shifts:
        model = _models(spectrum, lens, grid.places, phase_shift)
        model = without_smooth(model, basis)
        product = (data * weight) @ model.T
        norm = weight.square() @ model.square().T
        found += _score_curves(product, norm, grid, curves, phase_shift, n_candidates)
    return sorted(found, key=lambda c: -c.score)


class _Grid(NamedTuple):
    low: float  # A
    step: float  # A
    n_inside: int  # mean defoci
    n_margin: int  # more on either side, which astigmatism reaches

    @property
    def places(self) -> Tensor:
        """Every defocus that some direction may have, A."""
        steps = torch.arange(-self.n_margin, self.n_inside + self.n_margin, dtype=torch.float64)
        return self.low + self.step * steps


def whiten(spectrum: PolarSpectrum, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Bring all rings to variance one: (H, R) data, and the share of it that can be signal.

    Parameters
    ----------
    spectrum
        In polar bins.
    basis
        (R, J) smooth functions, which are taken away.

    Returns
    -------
    tuple of Tensor
        Logarithm of the power less background, in standard deviations of noise and signal; and
        the signal's part of that standard deviation, from 0 to 1.
    """
    data = without_smooth(spectrum.log_power, basis)
    noise = spectrum.variance
    finite = noise.isfinite()
    data = _clip(torch.where(finite, data, 0.0))
    excess = torch.where(finite, data.square() - noise, 0.0).sum(0) / finite.sum(0).clamp(min=1)
    kernel = torch.ones(1, 1, _RUNNING, dtype=torch.float64) / _RUNNING
    padded = torch.nn.functional.pad(excess[None, None], 2 * [_RUNNING // 2], mode="replicate")
    signal = torch.nn.functional.conv1d(padded, kernel)[0, 0]
    ring_noise = 1 / (1 / noise).sum(0)
    signal = signal.clamp(min=0) + _LEAST_SIGNAL * ring_noise
    total = noise + signal
    return data / total.sqrt(), (signal / total).sqrt()


def _clip(data: Tensor) -> Tensor:
    """Bring spots of crystals and rings of ice to what bins nearby may have."""
    per_ring = data.abs().median(0).values
    padded = torch.nn.functional.pad(per_ring[None, None], 2 * [_NEARBY], mode="replicate")[0, 0]
    limit = _CLIPPED * 1.4826 * padded.unfold(0, 2 * _NEARBY + 1, 1).median(-1).values
    return torch.maximum(torch.minimum(data, limit), -limit)


def _models(spectrum: PolarSpectrum, lens: Lens, defocus: Tensor, phase_shift: float) -> Tensor:
    """Rings of each defocus, (Z, R), as the tiles show them."""
    k2 = spectrum.frequency.square()
    gamma = ctf_phase(lens, k2=k2, defocus_k2=defocus[:, None] * k2, phase_shift=phase_shift)
    period = ring_period(lens, frequency=spectrum.frequency, defocus=defocus[:, None])
    return -0.5 * ring_contrast(period, spectrum.tile_length) * torch.cos(2 * gamma)


def _curves(grid: _Grid, angles: Tensor, *, coarser: int) -> list[tuple[float, float, Tensor]]:
    """Every astigmatism to try: half difference, direction, and its steps in each sector."""
    curves = [(0.0, 0.0, torch.zeros(len(angles), dtype=torch.long))]
    n_directions = _N_DIRECTIONS // coarser
    directions = torch.arange(n_directions, dtype=torch.float64) * (math.pi / n_directions)
    stride = _COARSER * coarser
    for half in range(stride, grid.n_margin + 1, stride):
        for direction in directions:
            steps = torch.round(half * torch.cos(2 * (angles - direction))).long()
            curves.append((half * grid.step, float(direction), steps))
    return curves


def _score_curves(
    product: Tensor,
    norm: Tensor,
    grid: _Grid,
    curves: list[tuple[float, float, Tensor]],
    phase_shift: float,
    n_candidates: int,
) -> list[Candidate]:
    """Sum both tables, (H, Z), along every curve and find the best mean defoci."""
    both = torch.stack([product, norm], dim=-1).to(torch.float32).contiguous()
    n_sectors, n_places = product.shape
    rows = torch.arange(n_sectors) * n_places
    inside = torch.arange(grid.n_inside) + grid.n_margin
    best = torch.full((grid.n_inside,), -math.inf)
    which = torch.zeros(grid.n_inside, dtype=torch.long)
    flat = both.reshape(-1, 2)
    for number, (_, _, steps) in enumerate(curves):
        picked = flat[((rows + steps)[:, None] + inside).reshape(-1)]
        sums = picked.reshape(n_sectors, grid.n_inside, 2).sum(0)
        score = sums[:, 0] / (sums[:, 1] * WINDOW_CORRELATION).clamp(min=1e-6).sqrt()
        which = torch.where(score > best, number, which)
        best = torch.maximum(best, score)
    defocus = grid.places[inside]
    return [
        Candidate(
            defocus=float(defocus[place]),
            half_difference=curves[which[place]][0],
            angle=curves[which[place]][1],
            phase_shift=phase_shift,
            score=float(best[place]),
        )
        for place in _maxima(best, n_candidates)
    ]


def _maxima(values: Tensor, count: int) -> list[int]:
    """Places of the highest values that are no neighbours of a higher one."""
    left = torch.cat([values[:1] - 1, values[:-1]])
    right = torch.cat([values[1:], values[-1:] - 1])
    peaks = torch.where((values >= left) & (values >= right), values, -math.inf)
    order = torch.argsort(peaks, descending=True)[:count]
    return [int(i) for i in order if bool(peaks[i].isfinite())]
