"""Features of the neighbourhood of a voxel: banks of linear filters, and magnitudes of pairs.

Every feature is made of correlations of the neighbourhood with fixed kernels, so no matrix of
neighbourhoods is ever needed for a volume. A bank holds for each feature an even kernel and, where
the feature is a magnitude, an odd one.

- ``intensities``: the voxels themselves.
- ``ffts``: the discrete Fourier transform of the neighbourhood. A real one of n^3 voxels has
  (n^3 + 1) / 2 distinct magnitudes, 63 of 125. The zero frequency keeps its sign, as the volume is
  centred on its median.
- ``gabor``: Gaussian envelope times plane wave (Gabor 1946; Daugman 1985), as pairs of an even
  and an odd kernel, each without mean and of norm 1; the frequencies cover the half space, so all
  orientations. Both responses of a pair are features: they are linear, so those of noise are
  Gaussian, as a mixture model assumes, and its quadratic forms see the energy of a pair. Frequency
  zero is the envelope itself: the density, which no filter without mean sees.

Magnitudes of ``ffts`` enter as their square roots: those of noise are then nearly Gaussian (a
Rayleigh variable to the power 0.55 is closest to one).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cryopick.tomogram.segment_parameters import FeatureParameters

__all__ = ["FilterBank", "feature_values", "keep_strongest", "make_bank"]

_ENVELOPE = 0.2  # standard deviation of the Gabor envelope in sides of the neighbourhood


@dataclass(frozen=True, kw_only=True)
class FilterBank:
    """Kernels of features, flattened over the neighbourhood in the order z, y, x."""

    even: Tensor  # (features, n^3) float64
    odd: Tensor  # (features, n^3) float64; zero where a feature is linear
    is_magnitude: Tensor  # (features,) bool

    def __len__(self) -> int:
        return len(self.even)

    def take(self, index: Tensor) -> FilterBank:
        """Keep the features of an index."""
        return FilterBank(
            even=self.even[index], odd=self.odd[index], is_magnitude=self.is_magnitude[index]
        )


def make_bank(parameters: FeatureParameters, *, neighborhood_size: int) -> FilterBank:
    """Make the kernels of a feature mode.

    Parameters
    ----------
    parameters
        Mode and number of sinusoids.
    neighborhood_size
        Side of the neighbourhood, voxels, odd.

    Returns
    -------
    FilterBank
        n^3 features for intensities, (n^3 + 1) / 2 for ffts, and for gabor two for each pair of the
        cube of the number of sinusoids less the frequencies that mirror another one.
    """
    if parameters.mode == "intensities":
        eye = torch.eye(neighborhood_size**3, dtype=torch.float64)
        return _bank(eye, torch.zeros_like(eye))
    if parameters.mode == "ffts":
        return _fourier_bank(neighborhood_size)
    return _gabor_bank(neighborhood_size, parameters.num_sinusoids)


def feature_values(is_magnitude: Tensor, even: Tensor, odd: Tensor) -> Tensor:
    """Turn responses to the kernels into features.

    Parameters
    ----------
    is_magnitude
        (features,) bool. Linear features come before magnitudes.
    even, odd
        (features, n), changed in place; the odd ones of linear features are not looked at.

    Returns
    -------
    Tensor
        (features, n): a linear feature as it is, else the square root of the magnitude. It shares
        the memory of `even`.
    """
    first = int((~is_magnitude).sum())
    torch.hypot(even[first:], odd[first:], out=odd[first:])
    torch.sqrt(odd[first:], out=even[first:])
    return even


def keep_strongest(bank: FilterBank, covariance: Tensor, number: int) -> FilterBank:
    """Keep the pairs of Gabor filters whose responses vary most, and the density.

    The standard deviation of a response follows from the covariance of the neighbourhood; for a
    pair it is that of the complex response.

    Parameters
    ----------
    bank
        The density, then pairs.
    covariance
        (n^3, n^3) float64 of the voxels of a neighbourhood.
    number
        How many filters to keep at most; a pair counts as two.

    Returns
    -------
    FilterBank
        In the order of the bank.
    """
    variance = ((bank.even @ covariance) * bank.even).sum(1)[1:].view(-1, 2).sum(1)
    strongest = torch.argsort(variance, descending=True, stable=True)[: (number - 1) // 2]
    first = strongest.sort().values * 2 + 1
    pairs = torch.stack((first, first + 1), 1).flatten()
    return bank.take(torch.cat((torch.zeros(1, dtype=torch.int64), pairs)))


def _bank(even: Tensor, odd: Tensor) -> FilterBank:
    return FilterBank(even=even, odd=odd, is_magnitude=odd.abs().amax(1) > 0)


def _places(n: int) -> Tensor:
    """Offsets from the centre of a neighbourhood, (n^3, 3) in the order z, y, x."""
    axis = torch.arange(n, dtype=torch.float64) - n // 2
    return torch.cartesian_prod(axis, axis, axis)


def _half_space(frequencies: Tensor) -> Tensor:
    """Keep one of each frequency and its negative; the zero frequency comes first."""
    z, y, x = frequencies.unbind(1)
    is_upper = (z > 0) | ((z == 0) & (y > 0)) | ((z == 0) & (y == 0) & (x > 0))
    zero = torch.zeros(1, 3, dtype=torch.float64)
    return torch.cat((zero, frequencies[is_upper]))


def _fourier_bank(n: int) -> FilterBank:
    axis = torch.fft.fftfreq(n, dtype=torch.float64)
    frequencies = _half_space(torch.cartesian_prod(axis, axis, axis))
    phase = 2 * torch.pi * frequencies @ _places(n).T
    odd = torch.sin(phase)
    odd[0] = 0
    return _bank(torch.cos(phase), odd)


def _gabor_bank(n: int, number: int) -> FilterBank:
    upper = torch.arange(number, dtype=torch.float64) / (2 * number)
    both = (torch.arange(number, dtype=torch.float64) - number // 2) / number
    frequencies = _half_space(torch.cartesian_prod(upper, both, both))
    places = _places(n)
    envelope = torch.exp(-0.5 * (places / (_ENVELOPE * n)).square().sum(1))
    phase = 2 * torch.pi * frequencies @ places.T
    even, odd = torch.cos(phase) * envelope, torch.sin(phase) * envelope
    even[1:] -= even[1:].sum(1, keepdim=True) * envelope / envelope.sum()
    pairs = torch.stack((even[1:], odd[1:]), 1).flatten(0, 1)
    kernels = torch.cat((even[:1], pairs))
    kernels /= kernels.norm(dim=1, keepdim=True)
    return _bank(kernels, torch.zeros_like(kernels))
