"""Estimate the CTF of a micrograph from the rings in its power spectrum."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from cryopick.checks import require_above, require_shape
from cryopick.ctf.estimate_parameters import CtfParameters
from cryopick.ctf.field_ctf import FieldCtf
from cryopick.ctf.ice_ring import FINEST, measure_ice_ring
from cryopick.ctf.polar import Lens, PolarSpectrum, polar_spectrum, ring_range
from cryopick.ctf.quality import CtfCurves, FitQuality, judge_fit
from cryopick.ctf.refine import Fit, refine_fit
from cryopick.ctf.search import Candidate, search_defocus
from cryopick.ctf.spectrum import MeanSpectrum, average_spectrum, crop_spectrum
from cryopick.errors import DataError, ParameterError
from cryopick.image.fourier import good_size
from cryopick.physics import electron_wavelength

__all__ = ["CtfEstimate", "estimate_ctf", "require_lens", "require_rings"]

_N_ANGLES = 36  # sectors of half a turn
_NYQUIST = 2.05  # px, of the finest ring
_LEAST_LENGTH = 500.0  # A, of a tile
_TILE = 0.78  # of wavelength times largest defocus: 768 A for 50,000 A at 300 kV
_LEAST_TILE = 64  # px
_LEAST_ZEROS = 3  # of the CTF, that must be seen for a fit to be trusted
_LEAST_SCORE = 6.5  # standard deviations of noise; noise alone reaches 5
_LEAST_AGREEMENT = 0.5  # of a perfect fit; strong rings of another phase shift reach 0.3
_RIVAL = 0.85  # of the best correlation, that no other defocus may reach
_SAME = 500.0  # A: fits that differ by less are one
_TOLERANCE = 1.02  # of the limits of the search, for what is refined


class CtfEstimate(NamedTuple):
    """The CTF of one micrograph and what it is worth."""

    ctf: FieldCtf  # defocus_u >= defocus_v; defocus_angle in (-90, 90]
    figure_of_merit: float  # correlation of spectrum and CTF, from -1 to 1
    max_resolution: float  # A, to which rings follow the CTF; min_resolution if not trusted
    is_trusted: bool  # whether rings are there without doubt
    score: float  # the correlation in standard deviations of what noise would give
    agreement: float  # correlation where rings stand out of the noise, 1 for a perfect fit
    defocus_error: float  # A, standard error of the mean defocus by counting
    curves: CtfCurves  # averages along lines of equal phase
    background: Tensor  # (R,) log power, on the frequencies of the curves
    envelope: Tensor  # (R,) log power of the peaks of rings, above the background
    spectrum: MeanSpectrum
    n_zeros: int  # of the CTF, over the rings that follow it
    ice_ring: float  # power of the ring of ice over that beside it; NaN where pixels are too coarse


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
        If the lens is impossible, the pixels are too coarse for three zeros of the CTF at any
        defocus allowed, or a tile is too small for enough rings.
    ShapeError
        If the micrograph has not two axes.

    Notes
    -----
    The spectrum is averaged on the device of `micrograph`; the fit to its polar bins, which are
    few, is made in float64 on the CPU. The fit is trusted if its correlation is at least 6.5
    standard deviations of noise, and half of what is possible where rings stand out of the noise;
    if rings follow it over three zeros of the CTF, no other defocus correlates nearly as well,
    and its values lie inside the limits. Method: docs/design.md; the correlation with a CTF is
    that of Rohou & Grigorieff, J. Struct. Biol. 192 (2015) 216.
    """
    parameters = parameters or CtfParameters()
    require_shape(micrograph, "y x", name="micrograph")
    lens = Lens(voltage, spherical_aberration, amplitude_contrast)
    require_lens(lens, pixel_size=pixel_size)
    finest = require_rings(lens, parameters, pixel_size=pixel_size)
    mean, ice_ring = _mean_spectrum(
        micrograph, _tile_size(micrograph, pixel_size, lens, parameters), pixel_size, finest
    )
    polar = polar_spectrum(
        mean,
        min_resolution=parameters.min_resolution,
        max_resolution=finest,
        n_angles=_N_ANGLES,
    )
    fit, quality, has_rival = _best_fit(polar, lens, parameters)
    is_trusted = (
        not has_rival
        and quality.score >= _LEAST_SCORE
        and quality.agreement >= _LEAST_AGREEMENT
        and quality.n_zeros >= _LEAST_ZEROS
        and _is_inside(fit, parameters)
    )
    return CtfEstimate(
        ctf=_field_ctf(fit, lens),
        figure_of_merit=quality.figure_of_merit,
        max_resolution=quality.max_resolution if is_trusted else parameters.min_resolution,
        is_trusted=is_trusted,
        score=quality.score,
        agreement=quality.agreement,
        defocus_error=float(fit.error[0]),
        curves=quality.curves,
        background=fit.background,
        envelope=fit.envelope,
        spectrum=mean,
        n_zeros=quality.n_zeros,
        ice_ring=ice_ring,
    )


def require_lens(lens: Lens, *, pixel_size: float) -> None:
    """Refuse a lens that no microscope has.

    Parameters
    ----------
    lens
        Of the microscope.
    pixel_size
        A/px.

    Raises
    ------
    ParameterError
        If voltage or pixel size are not above 0, the spherical aberration is below 0, or the
        amplitude contrast is no fraction.
    """
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


def require_rings(lens: Lens, parameters: CtfParameters, *, pixel_size: float) -> float:
    """Refuse pixels, limits or tiles that leave too few rings.

    Parameters
    ----------
    lens
        Of the microscope.
    parameters
        Limits of defocus and resolution, and the size of tiles if one is given.
    pixel_size
        A/px.

    Returns
    -------
    float
        A, finest ring that pixels and limits leave.

    Raises
    ------
    ParameterError
        If there are fewer than three zeros at the largest defocus, or tiles of the size given
        resolve too few rings for a fit.
    """
    finest = max(parameters.max_resolution, _NYQUIST * pixel_size)
    span = 1 / finest**2 - 1 / parameters.min_resolution**2
    n_zeros = electron_wavelength(lens.voltage) * parameters.max_defocus * max(0.0, span)
    if n_zeros < _LEAST_ZEROS:
        raise ParameterError(
            "max_defocus",
            must=f"put {_LEAST_ZEROS} rings between {parameters.min_resolution:g} A and "
            f"{finest:.3g} A, the finest that pixels and limits leave",
            got=f"{n_zeros:.1f} rings at {parameters.max_defocus:g} A",
            remedy="Use less binned micrographs, or raise --max-defocus",
        )
    if parameters.tile_size is not None:
        ring_range(
            parameters.tile_size,
            pixel_size=pixel_size,
            min_resolution=parameters.min_resolution,
            max_resolution=finest,
        )
    return finest


def _tile_size(micrograph: Tensor, pixel_size: float, lens: Lens, parameters: CtfParameters) -> int:
    """Side of a tile, px: the one given, or one that resolves the rings of the largest defocus."""
    if parameters.tile_size is not None:
        return parameters.tile_size
    length = _TILE * electron_wavelength(lens.voltage) * parameters.max_defocus
    wanted = good_size(max(_LEAST_TILE, round(max(length, _LEAST_LENGTH) / pixel_size)))
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


def _mean_spectrum(
    micrograph: Tensor, tile_size: int, pixel_size: float, finest: float
) -> tuple[MeanSpectrum, float]:
    """Average the spectrum to the finest ring that is fitted, and measure the ring of ice."""
    reach = min(finest, FINEST) if 2 * pixel_size <= FINEST else finest
    mean = average_spectrum(
        micrograph, tile_size=tile_size, pixel_size=pixel_size, max_resolution=reach
    )
    fitted = crop_spectrum(mean, tile_size=tile_size, pixel_size=pixel_size, max_resolution=finest)
    return fitted, measure_ice_ring(mean)


def _best_fit(
    polar: PolarSpectrum, lens: Lens, parameters: CtfParameters
) -> tuple[Fit, FitQuality, bool]:
    """Search, refine what was found, take the best fit and say whether another is as good."""
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
    fit, quality = max(inside or judged, key=lambda one: one[1].figure_of_merit)
    again = _refined(polar, lens, parameters, _place_of(fit))
    if again.cost < fit.cost:
        fit, quality = again, judge_fit(polar, lens, again)
    limit = _RIVAL * quality.figure_of_merit
    has_rival = any(
        abs(other.defocus - fit.defocus) > _SAME and its.figure_of_merit > limit
        for other, its in judged
    )
    return fit, quality, has_rival


def _refined(polar: PolarSpectrum, lens: Lens, parameters: CtfParameters, start: Candidate) -> Fit:
    return refine_fit(
        polar,
        lens,
        defocus=start.defocus,
        half_difference=start.half_difference,
        angle=start.angle,
        phase_shift=start.phase_shift,
        has_astigmatism=parameters.max_astigmatism > 0,
        has_phase_shift=parameters.phase_shift,
    )


def _place_of(fit: Fit) -> Candidate:
    """Start from a fit: background and envelope are found anew, and better, from there."""
    return Candidate(
        defocus=fit.defocus,
        half_difference=math.hypot(fit.difference_cos, fit.difference_sin),
        angle=math.atan2(fit.difference_sin, fit.difference_cos) / 2,
        phase_shift=fit.phase_shift,
        score=0.0,
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
    slack = 3 * float(fit.error[1:3].max())  # noise looks like a little astigmatism
    is_round = difference <= parameters.max_astigmatism * _TOLERANCE + slack
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
