"""The fit of the CTF to a spectrum in polar bins: damped least squares on the logarithm of power.

    log P = log(exp b(k) + exp a(k) (1 - c(k) cos 2 gamma) / 2)

with smooth b (all that the lens does not ring: noise) and a (all that it does), c the contrast
that tiles leave to rings, and gamma of `cryopick.ctf.evaluate`. Defocus, astigmatism, its direction
and the phase shift, if asked for, are found together with b and a, so that neither background nor
envelope moves the rings.

Strong rings of particles do not have a smooth envelope: the particle's own transform oscillates,
the same in all directions. The mean of a ring is therefore trusted only to a share of its signal,
while the differences between its directions are as good as counting.
"""

from __future__ import annotations

import math
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
from cryopick.ctf.smooth import smooth_basis
from cryopick.physics import electron_wavelength

__all__ = ["Fit", "refine_fit"]

_N_BACKGROUND, _N_ENVELOPE = 6, 6  # splines
_ENVELOPE_ERROR = 0.25  # of the signal of a ring: oscillations that a spline cannot follow
_ROUNDS = 30
_SMALL = 0.02  # a step, in standard errors, at which the fit has settled
_FAINT = 1e-3  # of the background: envelopes below this are not told apart
# 1 / variance of the curvature of a spline's coefficients: noise is smooth, so that where the
# rings leave it open, it is the signal that rises
_BACKGROUND_PRIOR, _ENVELOPE_PRIOR = 25.0, 0.05
_STARTS = (25.0, 1e5)  # the same prior for the background to start from: soft, and nearly a line
_OUTLIER = 4.0  # standard deviations beyond which a bin counts less


class Fit(NamedTuple):
    """Parameters of the CTF and the two smooth curves, with what they leave over."""

    defocus: float  # A, mean
    difference_cos: float  # A, (u - v) / 2 cos 2 angle
    difference_sin: float  # A, (u - v) / 2 sin 2 angle
    phase_shift: float  # rad
    background: Tensor  # (R,) log power
    envelope: Tensor  # (R,) log power
    cost: float  # half the sum of squares, in variances
    error: Tensor  # (4,) standard errors of the first four; 0 where held


def refine_fit(
    spectrum: PolarSpectrum,
    lens: Lens,
    *,
    defocus: float,
    half_difference: float,
    angle: float,
    phase_shift: float,
    has_astigmatism: bool = True,
    has_phase_shift: bool,
) -> Fit:
    """Refine a place found by the search.

    Parameters
    ----------
    spectrum
        In polar bins.
    lens
        Of the microscope.
    defocus, half_difference
        A, where to start.
    angle, phase_shift
        rad.
    has_astigmatism, has_phase_shift
        Whether to fit these too, or to hold them.

    Returns
    -------
    Fit
        Where the sum of squares is least, near the start.

    Notes
    -----
    Levenberg (Quart. Appl. Math. 2 (1944) 164) and Marquardt (SIAM J. Appl. Math. 11 (1963) 431).
    """
    period = ring_period(lens, frequency=spectrum.frequency, defocus=defocus)
    contrast = ring_contrast(period, spectrum.tile_length)
    is_free = (True, has_astigmatism, has_astigmatism, has_phase_shift)
    problem = _Problem(spectrum, lens, contrast, is_free)
    start = torch.tensor(
        [
            defocus,
            half_difference * math.cos(2 * angle),
            half_difference * math.sin(2 * angle),
            phase_shift,
        ],
        dtype=torch.float64,
    )
    # where rings leave background and envelope open, the sum of squares has two minima
    fits = [_descend(problem, problem.start(start, stiffness)) for stiffness in _STARTS]
    return min(fits, key=lambda fit: fit.cost)


def _descend(problem: _Problem, values: Tensor) -> Fit:
    damping = 1e-2
    model = problem.evaluate(values)
    weights = problem.weights(model)
    cost, normal, gradient = problem.normal(model, values, weights)
    for _ in range(_ROUNDS):
        scaled = normal + damping * torch.diag(normal.diagonal())
        step = -torch.linalg.solve(scaled, gradient)
        tried = problem.clamp(values + step)
        new_model = problem.evaluate(tried)
        if problem.cost(new_model, tried, weights) > cost:
            damping *= 8
            if damping > 1e6:
                break
            continue
        is_settled = damping < 1 and problem.size_of(step, normal) < _SMALL
        values, model, damping = tried, new_model, max(damping / 5, 1e-6)
        weights = problem.weights(model)
        cost, normal, gradient = problem.normal(model, values, weights)
        if is_settled:
            break
    return problem.result(values, float(cost), normal)


class _Model(NamedTuple):
    log_power: Tensor  # (H, R)
    share: Tensor  # (H, R) of the power that the lens rings
    slope: Tensor  # (H, R) d log P / d gamma


class _Weights(NamedTuple):
    bins: Tensor  # (H, R) 1 / variance, 0 where empty
    share: Tensor  # (R,) factor on the mean residual of a ring
    total: Tensor  # (R,) sum of bins


class _Problem:
    """The residuals and their derivatives."""

    def __init__(
        self,
        spectrum: PolarSpectrum,
        lens: Lens,
        contrast: Tensor,
        is_free: tuple[bool, bool, bool, bool],
    ) -> None:
        self.spectrum = spectrum
        self.lens = lens
        self.contrast = contrast
        self.basis_b = smooth_basis(spectrum.frequency, _N_BACKGROUND)
        self.basis_a = smooth_basis(spectrum.frequency, _N_ENVELOPE)
        self.quadratic = math.pi * electron_wavelength(lens.voltage)
        # of units in which all four are of order one: A, A, A, rad
        self.scale = torch.tensor([100.0, 100.0, 100.0, 0.1], dtype=torch.float64)
        self.is_free = torch.tensor(is_free)
        self.prior = torch.zeros(2 * [4 + _N_BACKGROUND + _N_ENVELOPE], dtype=torch.float64)
        nb = 4 + _N_BACKGROUND
        self.prior[4:nb, 4:nb] = _BACKGROUND_PRIOR * _curvature(_N_BACKGROUND)
        self.prior[nb:, nb:] = _ENVELOPE_PRIOR * _curvature(_N_ENVELOPE)

    def start(self, lens_values: Tensor, stiffness: float) -> Tensor:
        """First background and envelope: fits to the dark and to the bright parts of rings."""
        sine2 = self._rings(self._gamma(lens_values))
        weight = torch.where(self.spectrum.variance.isfinite(), 1 / self.spectrum.variance, 0.0)
        background = _weighted_fit(
            self.basis_b,
            self.spectrum.log_power,
            weight * (1 - sine2).pow(4),
            stiffness,
        )
        floor = self.basis_b @ background
        rest = torch.exp(self.spectrum.log_power - floor) - 1
        bright = weight * sine2.square()
        envelope = torch.log((rest * bright).sum(0).clamp(min=0) / (bright * sine2).sum(0) + 0.01)
        spline = _weighted_fit(self.basis_a, (envelope + floor)[None], bright.sum(0)[None], 1.0)
        return torch.cat([lens_values / self.scale, background, spline])

    def _gamma(self, lens_values: Tensor) -> Tensor:
        z, dc, ds, phase = lens_values
        s = self.spectrum
        defocus_k2 = z * s.k2 + dc * s.k2_cos + ds * s.k2_sin
        return ctf_phase(self.lens, k2=s.k2, defocus_k2=defocus_k2, phase_shift=phase)

    def _rings(self, gamma: Tensor) -> Tensor:
        return 0.5 * (1 - self.contrast * torch.cos(2 * gamma))

    def clamp(self, values: Tensor) -> Tensor:
        """Keep a vanishing envelope from running away."""
        nb = 4 + _N_BACKGROUND
        values = values.clone()
        floor = float((self.basis_b @ values[4:nb]).min()) + math.log(_FAINT)
        values[nb:] = values[nb:].clamp(min=floor)
        return values

    def evaluate(self, values: Tensor) -> _Model:
        nb = 4 + _N_BACKGROUND
        gamma = self._gamma(values[:4] * self.scale)
        rings = self._rings(gamma)
        background = self.basis_b @ values[4:nb]
        envelope = self.basis_a @ values[nb:]
        ratio = torch.exp((envelope - background).clamp(max=40))
        power = 1 + ratio * rings
        return _Model(
            log_power=background + power.log(),
            share=ratio * rings / power,
            slope=ratio * self.contrast * torch.sin(2 * gamma) / power,
        )

    def weights(self, model: _Model) -> _Weights:
        variance = self.spectrum.variance
        residual = self.spectrum.log_power - model.log_power
        bins = torch.where(variance.isfinite(), 1 / variance, 0.0)
        bins = bins / (1 + residual.square() * bins / _OUTLIER**2)
        total = bins.sum(0).clamp(min=1e-12)
        signal = (model.share * bins).sum(0) / total
        extra = (_ENVELOPE_ERROR * signal).square()
        return _Weights(bins, 1 / torch.sqrt(1 + extra * total), total)

    def _whitened(self, rows: Tensor, weights: _Weights) -> Tensor:
        """(..., H, R) residuals with the part common to a ring made smaller."""
        mean = (rows * weights.bins).sum(-2, keepdim=True) / weights.total
        return (rows - (1 - weights.share) * mean) * weights.bins.sqrt()

    def _prior_cost(self, values: Tensor) -> tuple[Tensor, Tensor]:
        pull = self.prior @ values
        return 0.5 * values @ pull, pull

    def cost(self, model: _Model, values: Tensor, weights: _Weights) -> Tensor:
        residual = self._whitened(model.log_power - self.spectrum.log_power, weights)
        return 0.5 * residual.square().sum() + self._prior_cost(values)[0]

    def normal(
        self, model: _Model, values: Tensor, weights: _Weights
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cost, and the normal equations of one step."""
        s = self.spectrum
        optics = torch.stack([s.k2, s.k2_cos, s.k2_sin]) * self.quadratic
        by_lens = torch.cat([optics, torch.ones_like(s.k2)[None]]) * model.slope
        by_lens *= (self.scale * self.is_free)[:, None, None]
        by_background = self.basis_b.T[:, None, :] * (1 - model.share)
        by_envelope = self.basis_a.T[:, None, :] * model.share
        rows = self._whitened(torch.cat([by_lens, by_background, by_envelope]), weights).flatten(1)
        residual = self._whitened(model.log_power - s.log_power, weights).flatten()
        gradient = rows @ residual
        normal = rows @ rows.T
        prior_cost, pull = self._prior_cost(values)
        gradient += pull
        normal += self.prior
        normal.diagonal().add_(1e-6)  # what nothing depends on stays where it is
        return 0.5 * residual.square().sum() + prior_cost, normal, gradient

    def size_of(self, step: Tensor, normal: Tensor) -> float:
        """Largest step of the lens values, in standard errors."""
        return float((step[:4].abs() * normal.diagonal()[:4].sqrt()).max())

    def result(self, values: Tensor, cost: float, normal: Tensor) -> Fit:
        z, dc, ds, phase = (values[:4] * self.scale).tolist()
        nb = 4 + _N_BACKGROUND
        error = torch.linalg.inv(normal).diagonal()[:4].clamp(min=0).sqrt() * self.scale
        error *= math.sqrt(WINDOW_CORRELATION)  # rings next to one another are not independent
        error = torch.where(self.is_free, error, 0.0)
        return Fit(
            defocus=z,
            difference_cos=dc,
            difference_sin=ds,
            phase_shift=phase,
            background=self.basis_b @ values[4:nb],
            envelope=self.basis_a @ values[nb:],
            cost=cost,
            error=error,
        )


def _curvature(count: int) -> Tensor:
    """Quadratic form of the second differences of so many coefficients."""
    differences = torch.diff(torch.eye(count, dtype=torch.float64), n=2, dim=0)
    return differences.T @ differences


def _weighted_fit(basis: Tensor, rows: Tensor, weight: Tensor, prior: float) -> Tensor:
    """Least-squares coefficients (n_splines,) of rows (H, R) over rings."""
    per_ring = weight.sum(0)
    normal = basis.T @ (per_ring[:, None] * basis) + prior * _curvature(basis.shape[1])
    normal.diagonal().add_(1e-6 * float(normal.diagonal().max()) + 1e-12)
    solution: Tensor = torch.linalg.solve(normal, basis.T @ (weight * rows).sum(0))
    return solution
