"""The maximisation step: from the sums of all shards to the next averages, noise and priors."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sampling import RingSampler
from cryopick.class2d.centring import centre_of_mass_shift, compose_shift
from cryopick.class2d.em_state import Poses
from cryopick.class2d.em_sums import IterationSums

__all__ = [
    "centre_classes",
    "find_scales",
    "find_sigma_offset",
    "update_noise",
]

_LEAST_SIGMA_OFFSET = 2.0  # A
_SCALE_RANGE = 5.0  # a group's contrast stays within this factor of the median
_FEWEST = 10.0  # particles' worth of prior that a group's scale is 1


def update_noise(noise: Tensor, totals: IterationSums, basis: RingBasis, *, share: float) -> Tensor:
    """Power of the noise per optics group and ring from what the averages leave of the images.

    Parameters
    ----------
    noise
        (optics groups, most rings) of the iteration before; rings not in use stay.
    share
        Of white noise power that the mask leaves: the result is of unmasked noise.
    """
    counts = totals.optics_counts[:, None]
    left = (totals.image_power - totals.explained) / share
    per_image = left / totals.ctf_power.clamp_min(1e-6)
    old = noise[:, : basis.n_rings]
    image_power = totals.image_power / totals.ctf_power.clamp_min(1e-6) / share
    updated = noise.clone()
    fresh = torch.maximum(per_image, 0.1 * image_power).to(noise.dtype)
    updated[:, : basis.n_rings] = torch.where(counts > 0, fresh, old)
    return updated


def centre_classes(
    harmonics: Tensor,
    poses: Poses,
    indices: NDArray[np.int64],
    sampler: RingSampler,
    *,
    most: float,
    diameter: float,
) -> Tensor:
    """Bring the centre of mass of each average to the centre, and its members with it.

    Parameters
    ----------
    harmonics
        (K, R, B) complex.
    poses
        Of all particles; shifts are changed in place.
    indices
        The particles that have been aligned to these classes.
    sampler
        Of the working images.
    most
        Longest shift, A.
    diameter
        Of the particle, A: density further out is its neighbours'.

    Returns
    -------
    Tensor
        The averages moved.
    """
    basis, pixel = sampler.basis, sampler.pixel_size
    rings = basis.to_half_rings(harmonics)
    found = centre_of_mass_shift(
        sampler.to_images(rings), max_shift=most / pixel, mask_radius=diameter / 2 / pixel
    )
    shift = torch.stack(found, dim=1) * pixel  # (K, 2) A
    kx, ky = (k.T.contiguous() for k in basis.wave_vectors)  # (R, H)
    phase = -2 * math.pi * (kx * shift[:, 0, None, None] + ky * shift[:, 1, None, None])
    moved = basis.to_harmonics(rings * torch.polar(torch.ones_like(phase), phase))
    own = shift[torch.from_numpy(poses.class_index[indices]).long()]
    x, y = compose_shift(
        torch.from_numpy(poses.psi[indices]),
        torch.from_numpy(poses.shift_x[indices]),
        torch.from_numpy(poses.shift_y[indices]),
        class_shift_x=own[:, 0],
        class_shift_y=own[:, 1],
    )
    poses.shift_x[indices], poses.shift_y[indices] = x.numpy(), y.numpy()
    return moved


def find_sigma_offset(totals: IterationSums) -> float:
    """Spread of the shifts along one axis, A."""
    count = max(float(totals.optics_counts.sum()), 1.0)
    return max(math.sqrt(float(totals.offset_square) / count / 2), _LEAST_SIGMA_OFFSET)


def find_scales(scales: Tensor, totals: IterationSums) -> Tensor:
    """Contrast of each group against the averages: sum <Y, A> / sum <G, |A|^2>, mean 1.

    The sums have been made with images and averages scaled by `scales` already. Small groups are
    drawn towards 1 as if they had some average particles more.
    """
    before = scales.double().clamp_min(1e-6)
    norm, cross = totals.group_norm / before**2, totals.group_cross / before
    typical = float(norm.sum()) / max(float(totals.optics_counts.sum()), 1.0)
    ratio = float(totals.group_cross.sum()) / max(float(totals.group_norm.sum()), 1e-30)
    prior = _FEWEST * typical + 1e-30
    fresh = (cross / max(ratio, 1e-30) + prior) / (norm + prior)
    median = fresh.median().clamp_min(1e-6)
    fresh = fresh.clamp(median / _SCALE_RANGE, median * _SCALE_RANGE)
    return (fresh / fresh.mean()).to(scales.dtype)
