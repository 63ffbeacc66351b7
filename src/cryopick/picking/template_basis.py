"""A few steerable functions that make every template at every angle.

For each angular order m the radial profiles u_m of all templates are written as mixtures of a few
real radial functions R_mj, by a singular value decomposition in the metric of the whitened field:

    u_km(f) = sum_j w_kmj R_mj(f).

The number of functions is bounded by what fits in the mask below the low-pass, about
(pi diameter / (2 low_pass))^2 real ones, whatever the number of templates and angles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.picking.template_harmonics import Templates

__all__ = ["SteerableBasis", "make_basis", "ring_mean"]

_KEPT = 0.999  # of the templates' energy, in the metric of the whitened field
_THINNED = 8  # one of so many rings is enough for integrals over them


class SteerableBasis(NamedTuple):
    """Functions R_mj(f) exp(i m phi) and the mixtures of them that are templates."""

    radial: list[NDArray[np.float64]]  # for each order, (functions, rings)
    mixtures: list[NDArray[np.complex128]]  # for each order, (k, functions): responses of unit
    # variance in the noise of the field
    spacing: float  # of the rings, 1/A
    spectra: NDArray[np.complex128]  # (k, orders, thinned rings) of the templates, in the whitened
    # metric: squares, of both signs of the order, sum to 1
    thinning: int  # one of so many rings is in the spectra

    @property
    def n_functions(self) -> int:
        """Number of real functions."""
        return sum(len(r) * (1 if m == 0 else 2) for m, r in enumerate(self.radial))

    @property
    def n_templates(self) -> int:
        """Number of templates."""
        return len(self.mixtures[0])


def make_basis(
    templates: Templates, weight: NDArray[np.float64], *, kept: float = _KEPT
) -> SteerableBasis:
    """Find the functions that matter in one field.

    Parameters
    ----------
    templates
        From `prepare_templates`.
    weight
        (rings,) mean of power times squared filter on each ring: what the noise of the field is
        in the filtered field that will be correlated with the templates, per area.
    kept
        Share of the energy of the templates that the functions hold.

    Notes
    -----
    The mean over a ring takes the place of the weight in each direction. With the astigmatism of
    a fair lens (300 A at 2 um) the norm so errs by less than 1 % at 20 A.
    """
    spacing = float(templates.frequency[1])
    signs = np.where(np.arange(templates.harmonics.shape[1]) == 0, 1.0, 2.0)  # orders m and -m
    metric = np.sqrt(weight * 2 * np.pi * templates.frequency * spacing)
    norms = np.array([_norm(h, metric, signs) for h in templates.harmonics])[:, None]
    least = (1 - kept) * len(norms) / (len(signs) * len(metric))  # less energy is left out surely
    parts = [
        _decompose(h * metric / norms, h / norms, weakest=math.sqrt(least / sign))
        for sign, h in zip(signs, templates.harmonics.transpose(1, 0, 2), strict=True)
    ]
    cut = _cut([sign * strength**2 for sign, (strength, _, _) in zip(signs, parts, strict=True)],
               kept)  # fmt: skip
    radial, mixtures = [], []
    for sign, (strength, functions, mixture) in zip(signs, parts, strict=True):
        is_kept = sign * strength[: len(functions)] ** 2 > cut
        radial.append(functions[is_kept])
        mixtures.append(mixture[:, is_kept])
    while len(radial) > 1 and not len(radial[-1]):
        radial.pop()
        mixtures.pop()
    energy = sum(
        sign * (np.abs(mix) ** 2).sum(1) for sign, mix in zip(signs, mixtures, strict=False)
    )
    scale = 1 / np.sqrt(np.maximum(energy, 1e-30))[:, None]
    few = templates.harmonics[..., ::_THINNED].astype(np.complex128)
    few *= metric[::_THINNED] * math.sqrt(_THINNED) * np.sqrt(signs)[:, None] / norms[:, None]
    return SteerableBasis(radial, [mix * scale for mix in mixtures], spacing, few, _THINNED)


def ring_mean(
    values: Tensor, frequency: Tensor, *, step: float, rings: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average over rings of a transform.

    Parameters
    ----------
    values, frequency
        (y, x // 2 + 1), real, and 1/A.
    step
        Width of the rings averaged over, 1/A.
    rings
        (n,) 1/A: where the mean is wanted, by linear interpolation.
    """
    index = (frequency / step).round().long().reshape(-1)
    count = torch.bincount(index)
    total = values.new_zeros(len(count)).index_add_(0, index, values.reshape(-1))
    mean = (total / count.clamp_min(1)).double().cpu().numpy()
    result: NDArray[np.float64] = np.interp(rings / step, np.arange(len(mean)), mean)
    return result


def _norm(
    harmonics: NDArray[np.complexfloating], metric: NDArray[np.float64], signs: NDArray[np.float64]
) -> float:
    """Of one template in a metric, at least what can be divided by."""
    return max(math.sqrt(float(signs @ (np.abs(harmonics * metric) ** 2).sum(1))), 1e-30)


def _decompose(
    spectrum: NDArray[np.complex128], profile: NDArray[np.complex128], *, weakest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.complex128]]:
    """Strengths, radial functions and mixtures of one order; real functions, complex mixtures.

    All strengths come back, strongest first, but only functions stronger than `weakest`.
    The functions are mixtures of the profiles themselves, so that rings without weight need no
    division by it.
    """
    count = len(spectrum)
    left, strength, _ = np.linalg.svd(
        np.concatenate([spectrum.real, spectrum.imag]), full_matrices=False
    )
    safe = strength > max(1e-7 * strength.max(initial=0.0), weakest, 1e-30)
    left, strong = left[:, safe], strength[safe]
    functions = (left / strong).T @ np.concatenate([profile.real, profile.imag])
    real = left * strong
    return strength, functions, real[:count] + 1j * real[count:]


def _cut(energies: list[NDArray[np.float64]], kept: float) -> float:
    """Energy above which functions hold at least the share `kept` of the whole."""
    ascending = np.sort(np.concatenate(energies))
    lost = np.cumsum(ascending) <= (1 - kept) * ascending.sum()
    return float(ascending[lost].max()) if lost.any() else 0.0
