"""Response of a micrograph to blobs of several diameters, by RELION's rules.

The micrograph is z-scored, made square, and its transform cropped to the resolution limit. The
response to a blob of diameter d is the product with (2 d f)^2 exp(-2 (d f)^2), the negative
Laplacian of a Gaussian of width d / pi.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError, ParameterError
from cryopick.image.fourier import crop_rfft, frequency_grid
from cryopick.picking.log_parameters import LogParameters

__all__ = [
    "blob_responses",
    "ctf_until_first_peak",
    "scale_diameters",
    "small_transform",
    "working_size",
]

_ROWS_AT_ONCE = 64  # rows transformed together stay in the cache
_LARGEST_PRIME = 43  # a factor of this size makes a transform slow
_SMALLEST = 16  # working pixels along a side
_NEGLIGIBLE = 20.0  # exponent beyond which a filter's tail is below single precision


def scale_diameters(parameters: LogParameters) -> list[float]:
    """Diameters of the blobs that are tried, A: below the range, in it, and above it.

    Examples
    --------
    >>> scale_diameters(LogParameters(min_diameter=150, max_diameter=180, mode="relion"))
    [30.0, 38.0, 50.0, 75.0, 150.0, 165.0, 180.0, 360.0, 540.0, 720.0, 900.0]
    """
    low, high = parameters.min_diameter, parameters.max_diameter
    factors = range(2, parameters.value("max_search") + 1)
    below = [_round(low / factor) for factor in reversed(factors)]
    above = [_round(high * factor) for factor in factors]
    return [float(d) for d in (*below, low, (low + high) / 2, high, *above)]


def working_size(side: int, *, pixel_size: float, parameters: LogParameters) -> int:
    """Side of the shrunk square that is searched, px.

    Parameters
    ----------
    side
        Long side of the micrograph, px.
    pixel_size
        A/px.
    parameters
        Of mode relion: maximum resolution, and whether a fast size is sought near it.

    Raises
    ------
    ParameterError
        If the micrograph has no more than a few pixels at this resolution.
    """
    resolution = parameters.value("max_resolution")
    wanted = side - side % 2
    if resolution:
        wanted = min(wanted, 2 * _round(side * pixel_size / resolution))
    if wanted < _SMALLEST:
        raise ParameterError(
            "max_resolution",
            must=f"leave {_SMALLEST} px of a micrograph",
            got=f"{resolution:g} A for {side} px of {pixel_size:g} A",
            remedy="Lower --max-resolution",
        )
    if not parameters.value("optimise_scale") or _largest_prime(wanted) <= _LARGEST_PRIME:
        return wanted
    up, down = wanted, wanted
    while up <= side and _largest_prime(up) >= _LARGEST_PRIME:
        up += 2
    while _largest_prime(down) >= _LARGEST_PRIME:
        down -= 2
    return up if up <= side and up - wanted <= wanted - down else down


def small_transform(
    micrograph: Tensor, *, side: int, work: int, parameters: LogParameters
) -> Tensor:
    """Transform the z-scored square and keep its low frequencies.

    Parameters
    ----------
    micrograph
        (y, x), real.
    side
        Its long side: the side of the square, px.
    work
        Side of the shrunk square, px.
    parameters
        Of mode relion.

    Returns
    -------
    Tensor
        (work, work // 2 + 1) complex64, scaled so that pixel values stay values. Particles are
        positive.

    Raises
    ------
    DataError
        If the micrograph holds NaN or infinity, or is constant.
    """
    pixels, mean, deviation = _without_outliers(micrograph, parameters.value("outlier_zscore"))
    if not parameters.white_particles:
        deviation = -deviation
    if pixels.shape != (side, side):
        pixels = _padded(pixels, side, mean, deviation, parameters.value("random_seed"))
    columns = work // 2 + 1
    rows = torch.empty((side, columns), dtype=torch.complex64, device=pixels.device)
    for start in range(0, side, _ROWS_AT_ONCE):
        part = pixels[start : start + _ROWS_AT_ONCE] - mean
        rows[start : start + _ROWS_AT_ONCE] = torch.fft.rfft(part)[:, :columns]
    transform = crop_rfft(torch.fft.fft(rows, dim=0), shape=(work, work))
    return transform * ((work / side) ** 2 / deviation)


def _without_outliers(micrograph: Tensor, zscore: float) -> tuple[Tensor, float, float]:
    """Give the pixels as float32 with far ones set to the mean, and mean and deviation before."""
    pixels = micrograph.to(torch.float32)
    low, high = (v.item() for v in torch.aminmax(pixels))
    if not math.isfinite(low) or not math.isfinite(high):
        raise DataError(
            "the micrograph", must="be finite", got="NaN or infinity", remedy="Leave it out"
        )
    if low == high:
        raise DataError(
            "the micrograph", must="vary", got=f"{low:g} everywhere", remedy="Leave it out"
        )
    mean, deviation = _mean_and_deviation(pixels)
    if max(high - mean, mean - low) > zscore * deviation:
        far = (pixels - mean).abs_() > zscore * deviation
        pixels = torch.where(far, mean, pixels)
    return pixels, mean, deviation


def _mean_and_deviation(pixels: Tensor) -> tuple[float, float]:
    """Sum rows in single and over rows in double precision: good to 1e-7 and fast."""
    mean = float(pixels.mean(dim=1).double().mean())
    squares = 0.0
    for start in range(0, len(pixels), _ROWS_AT_ONCE):
        part = pixels[start : start + _ROWS_AT_ONCE] - mean
        squares += float(torch.linalg.vector_norm(part, dim=1).double().square().sum())
    return mean, math.sqrt(squares / pixels.numel())


def _padded(pixels: Tensor, side: int, mean: float, deviation: float, seed: int) -> Tensor:
    """Put the micrograph in the middle of a square of noise of its own mean and deviation."""
    height, width = pixels.shape
    top, left = side // 2 - height // 2, side // 2 - width // 2
    generator = torch.Generator(pixels.device).manual_seed(seed)
    square = torch.empty((side, side), device=pixels.device)
    square[top : top + height, left : left + width] = pixels
    for margin in (
        square[:top],
        square[top + height :],
        square[:, :left],
        square[:, left + width :],
    ):
        margin.normal_(mean, abs(deviation), generator=generator)
    return square


def ctf_until_first_peak(ctf: FieldCtf, *, work: int, pixel_size: float) -> Tensor:
    """CTF up to its first peak in every direction and 1 beyond; never 0, for it is divided by.

    Parameters
    ----------
    ctf
        Of the micrograph.
    work
        Side of the shrunk square, px.
    pixel_size
        A per working pixel.

    Returns
    -------
    Tensor
        (work, work // 2 + 1) float32.
    """
    values = ctf.evaluate((work, work), pixel_size=pixel_size, until_first_peak=True)
    return torch.where(values.abs() < 1e-8, 1e-8, values)


def blob_responses(
    transform: Tensor, diameters: list[float], *, work: int, pixel_size: float
) -> Tensor:
    """Respond to a blob of each diameter at each working pixel.

    Parameters
    ----------
    transform
        (work, work // 2 + 1) of `small_transform`.
    diameters
        A.
    work
        Side of the shrunk square, px.
    pixel_size
        A per working pixel.

    Returns
    -------
    Tensor
        (d, work, work) float32.
    """
    fy, fx = frequency_grid((work, work), pixel_size=pixel_size, device=transform.device)
    k2 = fy * fy + fx * fx
    responses = torch.empty((len(diameters), work, work), device=transform.device)
    for response, diameter in zip(responses, diameters, strict=True):
        reach = math.sqrt(_NEGLIGIBLE / 2) / max(diameter, 1e-3) * work * pixel_size
        columns = min(work // 2 + 1, math.ceil(reach) + 1)
        exponent = 2 * diameter**2 * k2[:, :columns]
        filtered = transform[:, :columns] * (2 * exponent * torch.exp(-exponent))
        torch.fft.irfft(torch.fft.ifft(filtered, dim=0), n=work, dim=1, out=response)
    return responses


def _largest_prime(size: int) -> int:
    """Largest prime factor that a transform of this side meets, in full or half length."""
    largest = 1
    for rest in (size, size // 2 + 1):
        factor = 2
        while factor * factor <= rest:
            if rest % factor:
                factor += 1
            else:
                rest //= factor
        largest = max(largest, rest)
    return largest


def _round(value: float) -> int:
    """Round halves away from zero."""
    return math.floor(value + 0.5)
