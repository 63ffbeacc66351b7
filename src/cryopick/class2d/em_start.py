"""Averages to begin with: from the user's, and from splitting those there are."""

from __future__ import annotations

import torch
from torch import Tensor

from cryopick.alignment.sampling import RingSampler
from cryopick.checks import require_shape
from cryopick.class2d.em_images import Geometry
from cryopick.image.fourier import crop_rfft

__all__ = ["rings_of_averages", "split_classes"]

_DEAD = 0.1  # of its fair share of the particles: a class with less is dead
_DIFFERENCE = 0.3  # of the two halves of a split class, in its own standard deviations


def rings_of_averages(
    averages: Tensor, sampler: RingSampler, geometry: Geometry, *, pixel_size: float
) -> Tensor:
    """Take the harmonics of class averages of any box and pixel size.

    Parameters
    ----------
    averages
        (K, y, x), with their centre at n // 2.
    sampler
        Of the working images.
    geometry
        Of the working images.
    pixel_size
        Of the averages, A/px.

    Returns
    -------
    Tensor
        (K, R, B) complex64, on the grey scale of the averages.
    """
    require_shape(averages, "k n n", name="references")
    side = averages.shape[-1]
    target = 2 * max(round(geometry.box / pixel_size / 2), 1)
    placed = averages.new_zeros(len(averages), target, target)
    kept = min(side, target) // 2
    here, there = side // 2, target // 2
    placed[:, there - kept : there + kept, there - kept : there + kept] = averages[
        :, here - kept : here + kept, here - kept : here + kept
    ]
    size = geometry.working_size
    rfft = torch.fft.rfft2(placed.float())
    if target >= size:
        rfft = crop_rfft(rfft, shape=(size, size))
    else:
        wide = rfft.new_zeros(len(averages), size, size // 2 + 1)
        half = target // 2
        wide[:, :half, :half] = rfft[:, :half, :half]
        wide[:, size - half + 1 :, :half] = rfft[:, target - half + 1 :, :half]
        rfft = wide
    images = torch.fft.irfft2(rfft, s=(size, size)) * (size / target) ** 2
    real, imaginary = sampler.sample(images)
    return sampler.basis.to_harmonics(torch.complex(real, imaginary).permute(2, 1, 0))


def split_classes(harmonics: Tensor, shares: Tensor, wanted: int, *, seed: int) -> Tensor:
    """Split the largest classes, until there are `wanted` and none is dead.

    Parameters
    ----------
    harmonics
        (K, R, B) complex.
    shares
        (K,) of the particles. A class with less than a tenth of its fair share is dead: a part of
        another takes its place.
    wanted
        Number of classes, not below K.
    seed
        Of the small random differences between the parts of a class.

    Returns
    -------
    Tensor
        (wanted, R, B); classes that live keep their place.
    """
    k = len(harmonics)
    parts, parent = torch.ones(k), list(range(wanted))
    for place in range(wanted):
        if place >= k or float(shares[place]) < _DEAD / k:
            parent[place] = int((shares / parts).argmax())
            parts[parent[place]] += 1
    if parent == list(range(k)):
        return harmonics
    split = harmonics[torch.tensor(parent)]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.view_as_complex(torch.randn(*split.shape, 2, generator=generator)) / 2**0.5
    spread = split.abs().square().mean(2, keepdim=True).sqrt()
    is_split = (parts > 1)[torch.tensor(parent)][:, None, None]
    return split + is_split * _DIFFERENCE * spread * noise
