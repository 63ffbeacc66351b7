"""Learn what particles look like, turned through all angles, and look for that."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["learn_profile", "learned_response", "profile_response"]

_FEWEST = 15  # particles that make a profile
_CHUNK = 64  # particles gathered at once: memory stays small
_TAPER = 0.75  # share of the radius from which the profile fades to zero


def learned_response(image: Tensor, centers_yx: Tensor, *, radius: float) -> Tensor | None:
    """Seek in each half of a field what the picks of the other half look like.

    As no half is judged by what was learned from itself, noise does not come to look like
    particles; only along the seam, over one profile's width, are the two responses blended.

    Parameters
    ----------
    image
        (y, x), real; 0 where it is not valid.
    centers_yx
        (n, 2) px: what is known of particles.
    radius
        How far the profile reaches, px.

    Returns
    -------
    Tensor or None
        (y, x), each half a correlation with a template of mean 0 and unit norm; None if one half
        has too few particles.
    """
    shape = (image.shape[0], image.shape[1])
    is_left = centers_yx[:, 1] < shape[1] / 2
    left = learn_profile(image, centers_yx[is_left], radius=radius)
    right = learn_profile(image, centers_yx[~is_left], radius=radius)
    if left is None or right is None:
        return None
    image_rfft = torch.fft.rfft2(image)
    columns = torch.arange(shape[1], device=image.device)
    share = ((columns - shape[1] / 2) / radius + 0.5).clamp(0, 1)  # of the left half's profile
    of_left = profile_response(image_rfft, left, shape=shape)
    of_right = profile_response(image_rfft, right, shape=shape)
    return of_left * share + of_right * (1 - share)


def learn_profile(image: Tensor, centers_yx: Tensor, *, radius: float) -> Tensor | None:
    """Average the surroundings of points over all points and all angles.

    Parameters
    ----------
    image
        (y, x), real.
    centers_yx
        (n, 2) px.
    radius
        How far the profile reaches, px.

    Returns
    -------
    Tensor or None
        (ceil(radius) + 1,): mean grey value at 0, 1, 2 ... px from the centre; None if fewer than
        15 points lie far enough from the edges.
    """
    reach = math.ceil(radius)
    height, width = image.shape
    centers = centers_yx.round().long()
    is_inside = ((centers >= reach) & (centers < centers.new_tensor([height, width]) - reach)).all(
        1
    )
    centers = centers[is_inside]
    if len(centers) < _FEWEST:
        return None
    steps = torch.arange(-reach, reach + 1, device=image.device)
    mean = image.new_zeros(2 * reach + 1, 2 * reach + 1)
    for some in torch.split(centers, _CHUNK):
        rows = (some[:, 0, None] + steps)[:, :, None]
        columns = (some[:, 1, None] + steps)[:, None, :]
        mean += image[rows, columns].sum(0) / len(centers)
    distance = torch.hypot(*torch.meshgrid(steps.float(), steps.float(), indexing="ij"))
    distance = distance.round().long()
    count = torch.bincount(distance.reshape(-1))
    total = torch.zeros_like(count, dtype=image.dtype)
    total.index_add_(0, distance.reshape(-1), mean.reshape(-1))
    return (total / count)[: reach + 1]


def profile_response(image_rfft: Tensor, profile: Tensor, *, shape: tuple[int, int]) -> Tensor:
    """Correlate an image with a profile turned through all angles.

    Parameters
    ----------
    image_rfft
        (y, x // 2 + 1), complex: transform of the image.
    profile
        (r + 1,) from `learn_profile`.
    shape
        (y, x) of the image.

    Returns
    -------
    Tensor
        (y, x): correlation with a template of mean 0 and unit norm.
    """
    reach = len(profile) - 1
    steps = torch.arange(-reach, reach + 1, device=profile.device, dtype=profile.dtype)
    distance = torch.hypot(*torch.meshgrid(steps, steps, indexing="ij"))
    low = distance.floor().long().clamp_max(reach - 1)
    share = (distance - low).clamp(0, 1)
    fade = ((distance / reach - _TAPER) / (1 - _TAPER)).clamp(0, 1)
    window = (1 + torch.cos(math.pi * fade)) / 2
    rim = profile[int(0.9 * reach) :].mean()
    template = (profile[low] * (1 - share) + profile[low + 1] * share - rim) * window
    template = template - template.sum() / window.sum() * window
    template = template / template.square().sum().sqrt().clamp_min(1e-20)
    kernel = image_rfft.real.new_zeros(shape)
    kernel[: 2 * reach + 1, : 2 * reach + 1] = template
    kernel = torch.roll(kernel, (-reach, -reach), (0, 1))
    response: Tensor = torch.fft.irfft2(image_rfft * torch.fft.rfft2(kernel).conj(), s=shape)
    return response
