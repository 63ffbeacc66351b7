"""The mean power spectrum of a micrograph: tiles that overlap by half, under a window.

A tile that is unlike the rest, such as one on a damaged border, a lump of ice or a hole, is left
out. Only frequencies that will be fitted are kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cryopick.checks import require_above, require_shape
from cryopick.errors import DataError
from cryopick.image.fourier import crop_rfft
from cryopick.image.robust import middle_and_spread

__all__ = ["MeanSpectrum", "average_spectrum", "crop_spectrum", "hann_autocorrelation"]

_OUTLIER = 5.0  # robust standard deviations of the logarithm of a tile's variance
_LEAST_SPREAD = 0.05  # of that logarithm: tiles that differ by less than this are alike
_EMPTY = 1e-6  # of the largest variance of a tile: one that nothing was recorded in
_HOT = 12.0  # robust standard deviations beyond which a pixel is a fault of the detector
_SAMPLE = 1 << 16  # pixels from which that is judged
_PIXELS_AT_ONCE = 1 << 22  # of tiles transformed together: 16 MB of float32


class MeanSpectrum(NamedTuple):
    """Power of a micrograph by frequency."""

    power: Tensor  # (side, side // 2 + 1) float64, mean over tiles, DC first
    pixel_size: float  # A/px that an image of this spectrum's size would have
    n_tiles: int  # that were averaged
    n_independent: float  # tiles without overlap that would average as well
    n_left_out: int  # because they are unlike the others


def average_spectrum(
    micrograph: Tensor, *, tile_size: int, pixel_size: float, max_resolution: float
) -> MeanSpectrum:
    """Average the power spectra of tiles.

    Parameters
    ----------
    micrograph
        (y, x), real floating point, finite.
    tile_size
        Side of a tile, px, even; the frequency step is 1 / (tile_size pixel_size).
    pixel_size
        A/px.
    max_resolution
        A; finer frequencies are cut away, as shrinking would.

    Returns
    -------
    MeanSpectrum
        Computed on the device of `micrograph`, kept on the CPU.

    Raises
    ------
    DataError
        If the micrograph is smaller than a tile, holds NaN or infinity, or is constant.

    Notes
    -----
    Welch's method (IEEE Trans. Audio Electroacoust. 15 (1967) 70) with a Hann window: tiles that
    overlap by half are nearly independent under it.
    """
    require_shape(micrograph, "y x", name="micrograph")
    require_above(pixel_size, 0, name="pixel_size", unit="A/px")
    _require_content(micrograph, tile_size)
    micrograph, scale = _normalized(micrograph)
    side = _kept_side(tile_size, pixel_size, max_resolution)
    hann = torch.hann_window(
        tile_size, periodic=False, dtype=micrograph.dtype, device=micrograph.device
    )
    window = hann[:, None] * hann[None, :]
    rows, columns = (_starts(n, tile_size) for n in micrograph.shape)
    corners = [(y, x) for y in rows for x in columns]
    is_kept = _alike(micrograph, corners, tile_size)
    corners = [c for c, keep in zip(corners, is_kept, strict=True) if keep]
    total = torch.zeros(side, side // 2 + 1, dtype=torch.float64)
    batch = max(1, _PIXELS_AT_ONCE // tile_size**2)
    for first in range(0, len(corners), batch):
        tiles = _cut(micrograph, corners[first : first + batch], tile_size)
        tiles = (tiles - tiles.mean((1, 2), keepdim=True)) * window
        kept = crop_rfft(torch.fft.rfft2(tiles), shape=(side, side))
        total += (kept.real.square() + kept.imag.square()).sum(0).cpu().to(torch.float64)
    return MeanSpectrum(
        power=total * (scale * scale / len(corners)),
        pixel_size=pixel_size * tile_size / side,
        n_tiles=len(corners),
        n_independent=_independent(corners, tile_size),
        n_left_out=len(is_kept) - len(corners),
    )


def crop_spectrum(
    spectrum: MeanSpectrum, *, tile_size: int, pixel_size: float, max_resolution: float
) -> MeanSpectrum:
    """Cut the finest frequencies away; what is left is as if they had never been looked at.

    Parameters
    ----------
    spectrum
        That `average_spectrum` has made with the same tiles.
    tile_size, pixel_size, max_resolution
        As for that.
    """
    side = _kept_side(tile_size, pixel_size, max_resolution)
    if side >= spectrum.power.shape[0]:
        return spectrum
    power = crop_rfft(spectrum.power, shape=(side, side))
    return spectrum._replace(power=power, pixel_size=pixel_size * tile_size / side)


def hann_autocorrelation(lag: Tensor) -> Tensor:
    """Autocorrelation of a Hann window at a lag in units of its length, 1 at lag 0.

    Notes
    -----
    ((1 - x) (2 + cos 2 pi x) + 3 / (2 pi) sin 2 pi x) / 3 for 0 <= x <= 1, 0 beyond.
    """
    lag = lag.abs().clamp(max=1)
    turn = 2 * math.pi * lag
    return ((1 - lag) * (2 + torch.cos(turn)) + 1.5 / math.pi * torch.sin(turn)) / 3


def _independent(corners: list[tuple[int, int]], size: int) -> float:
    """Count tiles without overlap that average as well: powers correlate as windows squared.

    Tiles stand on a grid, so the sum over all pairs is made axis by axis.
    """
    numbers, alike = [], []
    for starts in torch.tensor(corners, dtype=torch.float64).T / size:
        places, number = starts.unique(return_inverse=True)
        numbers.append(number)
        alike.append(hann_autocorrelation(places[:, None] - places).square())
    grid = torch.zeros(len(alike[0]), len(alike[1]), dtype=torch.float64)
    grid[numbers[0], numbers[1]] = 1
    return len(corners) ** 2 / float((grid * (alike[0] @ grid @ alike[1])).sum())


def _require_content(micrograph: Tensor, tile_size: int) -> None:
    if min(micrograph.shape) < tile_size:
        raise DataError(
            "micrograph",
            must=f"be at least as large as a tile, {tile_size} px",
            got=f"{micrograph.shape[1]} x {micrograph.shape[0]} px",
            remedy="Lower --tile-size or leave the micrograph out",
        )
    if not bool(torch.isfinite(micrograph).all()):
        n_bad = int((~torch.isfinite(micrograph)).sum())
        raise DataError(
            "micrograph",
            must="hold finite numbers only",
            got=f"NaN or infinity in {n_bad} pixels",
            remedy="Write the micrograph again or leave it out",
        )
    low, high = float(micrograph.min()), float(micrograph.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        raise DataError(
            "micrograph",
            must="have contrast",
            got=f"{low:g} in every pixel",
            remedy="Leave the micrograph out",
        )


def _normalized(micrograph: Tensor) -> tuple[Tensor, float]:
    """Bring the middle to 0, the spread to 1 and absurd pixels back; and what 1 stands for.

    One absurd pixel alone is seen in every frequency. Squares of very large and very small
    numbers are beyond float32, so nothing may be squared before this.
    """
    sample = micrograph.flatten()[:: max(1, micrograph.numel() // _SAMPLE)].double()
    middle, spread = (float(value) for value in middle_and_spread(sample))
    is_varied = spread > 0  # or most pixels are alike: nothing says what is absurd
    scale = spread if is_varied else float(micrograph.max()) - float(micrograph.min())
    normalized = (micrograph - middle).div_(scale)
    return normalized.clamp_(-_HOT, _HOT) if is_varied else normalized, scale


def _kept_side(tile_size: int, pixel_size: float, max_resolution: float) -> int:
    """Even side of a spectrum whose Nyquist frequency is just beyond `max_resolution`."""
    wanted = 2 * math.ceil(1.02 * tile_size * pixel_size / max_resolution) + 2
    return min(tile_size, wanted)


def _starts(length: int, tile_size: int) -> list[int]:
    """Where tiles begin: from edge to edge, half a tile apart or a little less."""
    count = math.ceil((length - tile_size) / (tile_size / 2)) + 1
    return [round(i * (length - tile_size) / max(1, count - 1)) for i in range(count)]


def _cut(micrograph: Tensor, corners: list[tuple[int, int]], size: int) -> Tensor:
    return torch.stack([micrograph[y : y + size, x : x + size] for y, x in corners])


def _alike(micrograph: Tensor, corners: list[tuple[int, int]], size: int) -> list[bool]:
    """Find tiles whose variance, as a whole and from pixel to pixel, is that of the others.

    Where no tile is like the others in both, nothing says which are the odd ones: all are kept
    that something was recorded in.
    """
    spreads = []
    for y, x in corners:
        tile = micrograph[y : y + size : 2, x : x + size]  # half of the rows are enough
        spreads.append(torch.stack([tile.var(), (tile[:, 1:] - tile[:, :-1]).var()]))
    table = torch.stack(spreads).cpu().to(torch.float64)
    is_empty = table[:, 0] <= _EMPTY * float(table[:, 0].max())
    logs = torch.log(table.clamp(min=_EMPTY * float(table.max())))
    middle, spread = middle_and_spread(logs[~is_empty], dim=0)
    deviation = (logs - middle).abs() / spread.clamp(min=_LEAST_SPREAD)
    is_alike = (deviation < _OUTLIER).all(1) & ~is_empty
    return [bool(ok) for ok in (is_alike if bool(is_alike.any()) else ~is_empty)]
