"""How good a fit of the CTF is: its correlation, how far the rings follow it, and its curves."""

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
from cryopick.ctf.refine import Fit
from cryopick.ctf.search import N_SPLINES, whiten
from cryopick.ctf.smooth import smooth_basis, without_smooth
from cryopick.physics import electron_wavelength

__all__ = ["CtfCurves", "FitQuality", "equiphase_curves", "judge_fit"]

_GOOD = 0.5  # correlation of rings with the CTF that counts as seeing them
_SIGNIFICANT = 2.0  # standard errors that it must be above 0 as well
_LEAST_RINGS = 5  # on either side, in which the correlation of a ring is measured


class CtfCurves(NamedTuple):
    """Averages along lines of equal CTF phase, at the frequency where the mean defocus has it."""

    frequency: Tensor  # (R,) 1/A
    measured: Tensor  # (R,) power over background less 1
    model: Tensor  # (R,) the same of the fit
    ctf2: Tensor  # (R,) square of the CTF
    correlation: Tensor  # (R,) of measured and ctf2 over the rings about this one


class FitQuality(NamedTuple):
    """What a fit is worth."""

    figure_of_merit: float  # correlation with the CTF over all bins, from -1 to 1
    score: float  # the same in standard deviations of noise
    agreement: float  # correlation where rings stand out of the noise, over what noise allows
    max_resolution: float  # A; inf where no ring follows the CTF
    n_zeros: int  # zeros of the CTF over the rings that follow it
    curves: CtfCurves


def judge_fit(spectrum: PolarSpectrum, lens: Lens, fit: Fit) -> FitQuality:
    """Compare a fit with the spectrum it was made from.

    Parameters
    ----------
    spectrum
        In polar bins.
    lens
        Of the microscope.
    fit
        To be judged.

    Returns
    -------
    FitQuality
        The correlation is of the logarithm of power less a smooth curve with sin^2 gamma less a
        smooth curve, each ring weighted by the share of its variance that oscillates.
    """
    basis = smooth_basis(spectrum.frequency, N_SPLINES)
    data, weight = whiten(spectrum, basis)
    period = ring_period(lens, frequency=spectrum.frequency, defocus=fit.defocus)
    contrast = ring_contrast(period, spectrum.tile_length)
    rings = -0.5 * contrast * torch.cos(2 * _phase_in_bins(spectrum, lens, fit))
    is_there = spectrum.variance.isfinite()
    rings = torch.where(is_there, without_smooth(rings, basis), 0.0)
    model = rings * weight
    product, norm = float((data * model).sum()), float(model.square().sum())
    size = float(torch.where(is_there, data, 0.0).square().sum())
    curves = equiphase_curves(spectrum, lens, fit)
    run = _good_run(curves, lens, fit)
    resolution = math.inf if run is None else 1 / float(curves.frequency[run[1]])
    return FitQuality(
        figure_of_merit=product / math.sqrt(max(norm * size, 1e-12)),
        score=product / math.sqrt(max(norm * WINDOW_CORRELATION, 1e-12)),
        agreement=_agreement(data, rings, torch.where(is_there, weight, 0.0)),
        max_resolution=resolution,
        n_zeros=0 if run is None else _zeros(curves.frequency[list(run)], lens, fit),
        curves=curves,
    )


def _agreement(data: Tensor, rings: Tensor, weight: Tensor) -> float:
    """Correlation of bins weighted by their share of signal, over its value for a perfect fit."""
    rings = rings / rings.square().mean(0).sqrt().clamp(min=1e-3)
    w2 = weight.square()
    size = float((w2 * data.square()).sum() * (w2 * rings.square()).sum())
    best = float((w2 * weight).sum() / w2.sum().clamp(min=1e-12))
    return float((w2 * data * rings).sum()) / max(math.sqrt(size) * best, 1e-12)


def _phase_in_bins(spectrum: PolarSpectrum, lens: Lens, fit: Fit) -> Tensor:
    """Phase of the CTF of a fit, (H, R) rad."""
    defocus_k2 = (
        fit.defocus * spectrum.k2
        + fit.difference_cos * spectrum.k2_cos
        + fit.difference_sin * spectrum.k2_sin
    )
    return ctf_phase(lens, k2=spectrum.k2, defocus_k2=defocus_k2, phase_shift=fit.phase_shift)


def equiphase_curves(spectrum: PolarSpectrum, lens: Lens, fit: Fit) -> CtfCurves:
    """Average a spectrum along lines of equal CTF phase.

    Parameters
    ----------
    spectrum
        In polar bins.
    lens
        Of the microscope.
    fit
        Whose defoci and background are taken.

    Returns
    -------
    CtfCurves
        On the rings of the spectrum. A bin counts for the two rings next to where the mean
        defocus has its phase (Rohou & Grigorieff, J. Struct. Biol. 192 (2015) 216).
    """
    frequency = spectrum.frequency
    n_rings, step = len(frequency), float(frequency[1] - frequency[0])
    measured = torch.exp(spectrum.log_power - fit.background) - 1
    place = (_same_phase(spectrum, lens, fit) - frequency[0]) / step
    weight = torch.where(spectrum.variance.isfinite(), 1 / spectrum.variance, 0.0)
    left = torch.floor(place).long()
    right_share = place - left
    total = torch.zeros(n_rings, dtype=torch.float64)
    count = torch.zeros(n_rings, dtype=torch.float64)
    for ring, share in ((left, 1 - right_share), (left + 1, right_share)):
        inside = (ring >= 0) & (ring < n_rings)
        part = (weight * share)[inside]
        total.index_add_(0, ring[inside], part * measured[inside])
        count.index_add_(0, ring[inside], part)
    measured = total / count.clamp(min=1e-12)
    ctf2 = torch.sin(_mean_phase(frequency, lens, fit)).square()
    return CtfCurves(
        frequency=frequency,
        measured=measured,
        model=torch.exp(fit.envelope - fit.background) * ctf2,
        ctf2=ctf2,
        correlation=_local_correlation(
            measured, ctf2, ring_period(lens, frequency=frequency, defocus=fit.defocus) / step
        ),
    )


def _mean_phase(frequency: Tensor, lens: Lens, fit: Fit) -> Tensor:
    k2 = frequency.square()
    return ctf_phase(lens, k2=k2, defocus_k2=fit.defocus * k2, phase_shift=fit.phase_shift)


def _same_phase(spectrum: PolarSpectrum, lens: Lens, fit: Fit) -> Tensor:
    """Frequency at which the mean defocus has the phase of each bin: Newton's method in k^2."""
    wavelength = electron_wavelength(lens.voltage)
    linear = math.pi * wavelength * fit.defocus
    quartic = math.pi / 2 * lens.spherical_aberration * 1e7 * wavelength**3
    wanted = _phase_in_bins(spectrum, lens, fit)
    k2 = spectrum.k2
    for _ in range(4):
        there = ctf_phase(lens, k2=k2, defocus_k2=fit.defocus * k2, phase_shift=fit.phase_shift)
        slope = linear - 2 * quartic * k2
        step = (wanted - there) / torch.where(slope.abs() < 0.1 * abs(linear), math.inf, slope)
        k2 = (k2 + step).clamp(min=0.25 * spectrum.k2, max=4 * spectrum.k2)
    return k2.sqrt()


def _local_correlation(measured: Tensor, ctf2: Tensor, period: Tensor) -> Tensor:
    """Correlation of two curves, less their slopes, in a window of two periods about each ring."""
    n_rings = len(measured)
    found = torch.zeros(n_rings, dtype=torch.float64)
    halves = period.ceil().clamp(min=_LEAST_RINGS, max=n_rings).long()
    for ring in range(n_rings):
        half = int(halves[ring])
        window = slice(max(0, ring - half), min(n_rings, ring + half + 1))
        a, b = _without_line(measured[window]), _without_line(ctf2[window])
        size = float(a.square().sum() * b.square().sum())
        found[ring] = float(a @ b) / math.sqrt(size) if size > 0 else 0.0
    return found


def _without_line(values: Tensor) -> Tensor:
    place = torch.arange(len(values), dtype=torch.float64) - (len(values) - 1) / 2
    rest = values - values.mean()
    return rest - place * ((rest @ place) / (place @ place))


def _good_run(curves: CtfCurves, lens: Lens, fit: Fit) -> tuple[int, int] | None:
    """First and last ring of the longest stretch that follows the CTF.

    A stretch ends where a whole period of the CTF is not followed; near 1 / 30 A the transform of
    the particle may well hide one.
    """
    step = float(curves.frequency[1] - curves.frequency[0])
    periods = ring_period(lens, frequency=curves.frequency, defocus=fit.defocus) / step
    halves = periods.ceil().clamp(min=_LEAST_RINGS, max=len(periods))
    independent = (2 * halves + 1).clamp(max=len(periods)) / WINDOW_CORRELATION
    limit = (_SIGNIFICANT / independent.sqrt()).clamp(min=_GOOD, max=0.9)
    good = torch.nonzero(curves.correlation >= limit).flatten().tolist()
    if not good:
        return None
    runs = [[good[0], good[0]]]
    for ring in good[1:]:
        if ring - runs[-1][1] > max(_LEAST_RINGS, float(periods[ring])):
            runs.append([ring, ring])
        runs[-1][1] = ring
    first, last = max(runs, key=lambda run: run[1] - run[0])
    return first, last


def _zeros(ends: Tensor, lens: Lens, fit: Fit) -> int:
    """Zeros of the CTF between two frequencies."""
    low, high = (_mean_phase(ends, lens, fit) / math.pi).floor().long().tolist()
    return abs(int(high) - int(low))
