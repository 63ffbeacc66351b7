"""Estimate the CTF of a micrograph from the rings in its power spectrum."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.checks import require_above, require_shape
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.polar import Lens, PolarSpectrum, polar_spectrum
from cryopick.ctf.quality import CtfCurves, FitQuality, judge_fit
from cryopick.ctf.refine import Fit, refine_fit
from cryopick.ctf.search import Candidate, search_defocus
from cryopick.ctf.spectrum import MeanSpectrum, average_spectrum
from cryopick.errors import DataError, ParameterError
from cryopick.image.fourier import good_size
from cryopick.physics import electron_wavelength

__all__ = ["CtfEstimate", "estimate_ctf"]

_N_ANGLES = 36  # sectors of half a turn
_TILE = 0.78  # of wavelength times largest defocus: 768 A for 50,000 A at 300 kV
_LEAST_TILE = 64  # px
_LEAST_ZEROS = 3  # of the CTF, that must be seen for a fit to be trusted
_LEAST_SCORE = 9.0  # standard deviations of noise; fields without rings reach 5 to 8
_TOLERANCE = 1.02  # of the limits of the search, for what is refined


class CtfEstimate(NamedTuple):
    """The CTF of one micrograph and what it is worth."""

    ctf: FieldCtf  # defocus_u >= defocus_v; defocus_angle in (-90, 90]
    figure_of_merit: float  # correlation of spectrum and CTF, from -1 to 1
    max_resolution: float  # A, to which rings follow the CTF; min_resolution if not trusted
    is_trusted: bool  # whether rings are there without doubt
    score: float  # the correlation in standard deviations of what noise would give
    defocus_error: float  # A, standard error of the mean defocus by counting
    curves: CtfCurves  # averages along lines of equal phase
    background: Tensor  # (R,) log power, on the frequencies of the curves
    spectrum: MeanSpectrum  # on the device of the micrograph
    n_zeros: int  # of the CTF, between the coarsest ring and max_resolution


def estimate_ctf(
    micrograph: Tensor,
    *,
    pixel_size: float,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    parameters: CtfParameters | None = None,
) -> CtfEstimate:
    """Estimate defocus, astigmatism and, if asked for, phase shift.

    Parameters
    ----------
    micrograph
        (y, x), real floating point, finite. Contrast and scale do not matter.
    pixel_size
        A/px.
    voltage
        kV.
    spherical_aberration
        mm.
    amplitude_contrast
        Fraction.
    parameters
        Limits of the search; the shipped ones if not given.

    Returns
    -------
    CtfEstimate
        With ``is_trusted`` False where no rings were found; its other numbers are then those of
        the best of many bad fits, and must not be used.

    Raises
    ------
    DataError
        If the micrograph is smaller than a tile, constant, or holds NaN or infinity.
    ParameterError
        If the pixels are too coarse for three zeros of the CTF at any defocus allowed.
    ShapeError
        If the micrograph has not two axes.

    Notes
    -----
    The spectrum is averaged on the device of `micrograph`; the fit to its polar bins, which are
    few, is made in float64 on the CPU. The fit is trusted if its correlation is at least 9
    standard deviations of noise, rings follow it over three zeros of the CTF, and its values lie
    inside the limits. Method: docs/design.md; the correlation with a CTF after Rohou &
    Grigorieff, J. Struct. Biol. 192 (2015) 216.
    """
    parameters = parameters or CtfParameters()
    require_shape(micrograph, "y x", name="micrograph")
    lens = Lens(voltage, spherical_aberration, amplitude_contrast)
    _require_lens(lens, pixel_size)
    finest = max(parameters.max_resolution, 2.05 * pixel_size)
    _require_rings(lens, parameters, finest)
    mean = average_spectrum(
        micrograph,
        tile_size=_tile_size(micrograph, pixel_size, lens, parameters),
        pixel_size=pixel_size,
        max_resolution=finest,
    )
    polar = polar_spectrum(
        mean,
        min_resolution=parameters.min_resolution,
        max_resolution=finest,
        n_angles=_N_ANGLES,
    )
    fit, quality = _best_fit(polar, lens, parameters)
    is_trusted = (
        quality.score >= _LEAST_SCORE
        and quality.n_zeros >= _LEAST_ZEROS
        and _is_inside(fit, parameters)
    )
    return CtfEstimate(
        ctf=_field_ctf(fit, lens),
        figure_of_merit=quality.figure_of_merit,
        max_resolution=quality.max_resolution if is_trusted else parameters.min_resolution,
        is_trusted=is_trusted,
        score=quality.score,
        defocus_error=float(fit.error[0]),
        curves=quality.curves,
        background=fit.background,
        spectrum=mean,
        n_zeros=quality.n_zeros,
    )


def _require_lens(lens: Lens, pixel_size: float) -> None:
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    require_above(lens.voltage, 0, name="voltage", unit="kV")
    if not 0 <= lens.amplitude_contrast <= 1:
        raise ParameterError(
            "amplitude_contrast",
            must="be a fraction from 0 to 1",
            got=f"{lens.amplitude_contrast:g}",
            remedy="Change --amplitude-contrast",
        )
    if not lens.spherical_aberration >= 0:
        raise ParameterError(
            "spherical_aberration",
            must="be at least 0 mm",
            got=f"{lens.spherical_aberration:g} mm",
            remedy="Change --spherical-aberration",
        )


def _require_rings(lens: Lens, parameters: CtfParameters, finest: float) -> None:
    """Refuse pixels, or limits, between which no defocus puts enough zeros of the CTF."""
    ends = torch.tensor([1 / parameters.min_resolution, 1 / finest], dtype=torch.float64)
    most = electron_wavelength(lens.voltage) * parameters.max_defocus
    n_zeros = most * float(ends[1] ** 2 - ends[0] ** 2) if ends[1] > ends[0] else 0.0
    if n_zeros < _LEAST_ZEROS:
        raise ParameterError(
            "max_defocus",
            must=f"put {_LEAST_ZEROS} rings between {parameters.min_resolution:g} A and "
            f"{finest:.3g} A, the finest that pixels and limits leave",
            got=f"{max(0.0, n_zeros):.1f} rings at {parameters.max_defocus:g} A",
            remedy="Use less binned micrographs, or raise --max-defocus",
        )


def _tile_size(micrograph: Tensor, pixel_size: float, lens: Lens, parameters: CtfParameters) -> int:
    """Side of a tile, px: the one given, or one that resolves the rings of the largest defocus."""
    if parameters.tile_size is not None:
        return parameters.tile_size
    length = _TILE * electron_wavelength(lens.voltage) * parameters.max_defocus
    wanted = good_size(max(_LEAST_TILE, round(length / pixel_size)))
    shorter = min(micrograph.shape)
    if shorter >= wanted:
        return wanted
    if shorter < max(_LEAST_TILE, wanted // 2):
        raise DataError(
            "micrograph",
            must=f"be at least {max(_LEAST_TILE, wanted // 2)} px wide and high, which the rings "
            f"of {parameters.max_defocus:g} A defocus need",
            got=f"{micrograph.shape[1]} x {micrograph.shape[0]} px",
            remedy="Lower --max-defocus or leave the micrograph out",
        )
    return shorter - shorter % 2


def _best_fit(
    polar: PolarSpectrum, lens: Lens, parameters: CtfParameters
) -> tuple[Fit, FitQuality]:
    """Search, refine what was found, and take the fit of the best correlation."""
    candidates = search_defocus(
        polar,
        lens,
        defocus_range=(parameters.min_defocus, parameters.max_defocus),
        max_astigmatism=parameters.max_astigmatism,
        phase_shifts=_phase_shifts(parameters),
    )
    fits = [_refined(polar, lens, parameters, one) for one in _distinct(candidates)]
    judged = [(fit, judge_fit(polar, lens, fit)) for fit in fits]
    inside = [one for one in judged if _is_inside(one[0], parameters)]
    return max(inside or judged, key=lambda one: one[1].figure_of_merit)


def _refined(polar: PolarSpectrum, lens: Lens, parameters: CtfParameters, start: Candidate) -> Fit:
    return refine_fit(
        polar,
        lens,
        defocus=start.defocus,
        half_difference=start.half_difference,
        angle=start.angle,
        phase_shift=start.phase_shift,
        has_phase_shift=parameters.phase_shift,
    )


def _phase_shifts(parameters: CtfParameters) -> list[float]:
    if not parameters.phase_shift:
        return [0.0]
    low, high = parameters.min_phase_shift, parameters.max_phase_shift
    count = math.ceil((high - low) / parameters.phase_shift_step - 1e-9) + 1
    return [math.radians(low + (high - low) * i / (count - 1)) for i in range(count)]


def _distinct(candidates: list[Candidate], count: int = 3) -> list[Candidate]:
    """Take the best that do not lead to the same place: one phase shift of each defocus."""
    kept: list[Candidate] = []
    for one in candidates:
        if all(abs(one.defocus - other.defocus) > 1000 for other in kept):
            kept.append(one)
        if len(kept) == count:
            break
    return kept


def _is_inside(fit: Fit, parameters: CtfParameters) -> bool:
    """Whether a refined fit stayed within the limits of the search."""
    difference = 2 * math.hypot(fit.difference_cos, fit.difference_sin)
    is_defocus = (
        parameters.min_defocus / _TOLERANCE <= fit.defocus <= parameters.max_defocus * _TOLERANCE
    )
    step = math.radians(parameters.phase_shift_step)
    low = math.radians(parameters.min_phase_shift) - step
    high = math.radians(parameters.max_phase_shift) + step
    is_phase = not parameters.phase_shift or low <= fit.phase_shift <= high
    is_round = difference <= max(parameters.max_astigmatism * _TOLERANCE, 100.0)
    return is_defocus and is_phase and is_round


def _field_ctf(fit: Fit, lens: Lens) -> FieldCtf:
    half = math.hypot(fit.difference_cos, fit.difference_sin)
    angle = math.degrees(math.atan2(fit.difference_sin, fit.difference_cos)) / 2
    return FieldCtf(
        defocus_u=fit.defocus + half,
        defocus_v=fit.defocus - half,
        defocus_angle=90.0 if angle <= -90 else angle,
        voltage=lens.voltage,
        spherical_aberration=lens.spherical_aberration,
        amplitude_contrast=lens.amplitude_contrast,
        phase_shift=math.degrees(fit.phase_shift),
    )
