"""Compare every place of a field with every template at every angle.

The filtered field is correlated with the functions of a `SteerableBasis`: one complex correlation
c_mj, that is two real inverse transforms, for each. Then, at every pixel,

    r(k, t) = z_k0 + sum_m (Re z_km cos m t + Im z_km sin m t),   z_km = 2 sum_j w_kmj (c_mj)*

with t the angle by which the template is turned, which is minus psi. After half a turn odd orders
change sign, so the best of all angles is the maximum over half of them of even + |odd|.

Operations per pixel: N functions, K templates, B orders and A angles take 2.5 N log2(pixels) for
the transforms, 4 N K for the mixtures and 2 A B K for the angles. With N = 100, K = 20, B = 20,
A = 72 and a field of 400 px these are 4, 8 and 58 thousand; one transform for each template and
angle takes 2.5 K A log2(pixels), 62 thousand, and as many passes over the field. The gain is not in
the count: products of small matrices stay in the cache and run some ten times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.image.fourier import frequency_grid, good_size
from cryopick.picking.template_basis import SteerableBasis

__all__ = ["BestResponse", "Matches", "match_points", "search_bytes", "search_field"]

_MAP_BYTES = 2**28  # of the correlations that are held at once; larger fields are cut in strips
_BLOCK = {"cpu": 2**18, "cuda": 2**26}  # numbers worked on at once: a fast cache holds
_POINT_BYTES = {"cpu": 2**25, "cuda": 2**29}  # of the points that are matched at once
_MIX_BYTES = 2**25  # of the rest, as measured
_FINE = 8  # angles tried per angular step when a match is refined


class BestResponse(NamedTuple):
    """The best of all templates and angles at each pixel."""

    best: Tensor  # (y, x): in noise of unit variance of each response
    energy: Tensor  # (y, x): mean square over templates and angles; 1 on average in noise
    total: Tensor  # (y, x): sum over all functions, of unit variance each, of their squares


class Matches(NamedTuple):
    """How templates fit at some points."""

    template: Tensor  # (n,) int64, from 0
    psi: Tensor  # (n,) deg, turns the image onto the template
    offset_yx: Tensor  # (n, 2) px, from the point to the best fit
    score: Tensor  # (n,) height there


def search_field(
    filtered: Tensor, basis: SteerableBasis, *, pixel_size: float, reach: float, n_angles: int
) -> BestResponse:
    """Find the best response at every pixel.

    Parameters
    ----------
    filtered
        (y, x), real: the field times all filters.
    basis
        From `make_basis`, for these filters.
    pixel_size
        A/px.
    reach
        How far the templates reach from their centres, A.
    n_angles
        In a full turn, even.
    """
    height, width = filtered.shape
    margin = math.ceil(reach / pixel_size)
    rows = _strip_rows(height, width, margin, basis.n_functions)
    mixer = _Mixer(basis, n_angles, filtered)
    best, energy, total = (torch.empty_like(filtered) for _ in range(3))
    for first in range(0, height, rows):
        count = min(rows, height - first)
        strip, start = _strip(filtered, first, count, margin)
        functions = _Functions(basis, strip.shape, pixel_size, filtered.device)
        maps = filtered.new_empty(basis.n_functions, count * width)
        row = 0
        for correlations in functions.correlate(strip):
            inside = correlations[:, start : start + count].reshape(len(correlations), -1)
            maps[row : row + len(inside)] = inside
            row += len(inside)
        part = slice(first, first + count)
        mixer.search(maps, best[part].view(-1), energy[part].view(-1), total[part].view(-1))
    return BestResponse(best, energy, total)


def match_points(
    filtered: Tensor,
    points_yx: Tensor,
    basis: SteerableBasis,
    *,
    pixel_size: float,
    reach: float,
    n_angles: int,
) -> Matches:
    """Find the template, the angle and the place below the grid that fit best at some pixels.

    Parameters
    ----------
    filtered, basis, pixel_size, reach, n_angles
        As for `search_field`.
    points_yx
        (n, 2) int64: local maxima of its best response.

    Returns
    -------
    Matches
        The angle is found to an eighth of a step and then by a parabola; the place by a parabola
        along each axis, through the responses of that template at that angle.
    """
    side = 2 * math.ceil(reach / pixel_size) + 1
    mixer = _Mixer(basis, _FINE * n_angles, filtered)
    kernels = _kernels(basis, side, pixel_size, filtered)
    if not len(points_yx):
        none = filtered.new_empty(0)
        return Matches(none.long(), none, filtered.new_empty(0, 2), none)
    count = _POINT_BYTES.get(filtered.device.type, 2**25) // mixer.bytes_of_match(side)
    parts = [
        mixer.match(_around(filtered, some, side), kernels)
        for some in torch.split(points_yx, max(1, count))
    ]
    return Matches(*(torch.cat(values) for values in zip(*parts, strict=True)))


def search_bytes(side: int, *, n_functions: int, pixel_size: float, reach: float) -> int:
    """Estimate the peak memory of `search_field` and `match_points` on the CPU.

    Parameters
    ----------
    side
        Of the field, px.
    n_functions
        Of the basis.
    pixel_size, reach
        As for `search_field`.
    """
    margin = math.ceil(reach / pixel_size)
    rows = min(side, _strip_rows(side, side, margin, n_functions))
    maps = 4 * n_functions * rows * side
    kernels = 2 * 4 * n_functions * good_size(4 * margin + 2) ** 2
    return max(maps, kernels + _POINT_BYTES["cpu"]) + _MIX_BYTES


class _Functions:
    """The functions of a basis on the grid of one transform."""

    def __init__(
        self,
        basis: SteerableBasis,
        shape: tuple[int, ...],
        pixel_size: float,
        device: torch.device,
    ) -> None:
        self.shape = (shape[0], shape[1])
        fy, fx = frequency_grid(self.shape, pixel_size=pixel_size, device=device)
        frequency = torch.hypot(fy, fx)
        place = frequency / basis.spacing
        rings = basis.radial[0].shape[1]
        is_below = (frequency < 0.5 / pixel_size) & (place < rings - 1)
        self.lower = place.floor().long().clamp_max(rings - 2)
        self.share = place - self.lower
        self.is_below = is_below
        nonzero = frequency.clamp_min(1e-20)
        self.turn = torch.complex(fx / nonzero, fy / nonzero)  # exp(i phi)
        self.turn[0, 0] = 1
        self.radial = [torch.from_numpy(r).to(device, torch.float32) for r in basis.radial]

    def correlate(self, image: Tensor) -> Iterator[Tensor]:
        """Correlations of each order in turn: (functions, y, x) with the cosine, then the sine."""
        spectrum = torch.fft.rfft2(image) * self.is_below
        angular = torch.ones_like(self.turn)
        for order, table in enumerate(self.radial):
            lower, upper = table[:, self.lower], table[:, self.lower + 1]
            filtered = torch.lerp(lower, upper, self.share) * (spectrum * 1j**order)
            if order:
                filtered = torch.cat([filtered * angular.real, filtered * angular.imag])
            if len(filtered):
                yield torch.fft.irfft2(filtered, s=self.shape)
            angular = angular * self.turn


class _Mixer:
    """Mixes correlations to the responses of all templates at all angles."""

    def __init__(self, basis: SteerableBasis, n_angles: int, like: Tensor) -> None:
        orders = range(len(basis.radial))
        self.order = [m for m in orders if m % 2 == 0] + [m for m in orders if m % 2]
        self.n_templates = basis.n_templates
        self.n_half = n_angles // 2
        counts = [len(r) * (1 if m == 0 else 2) for m, r in enumerate(basis.radial)]
        firsts = np.concatenate([[0], np.cumsum(counts)])
        self.rows = [slice(int(firsts[m]), int(firsts[m + 1])) for m in orders]
        self.mixtures = [
            torch.from_numpy(_real_mixture(mix, m)).to(like) for m, mix in enumerate(basis.mixtures)
        ]
        angle = 2 * np.pi * np.arange(self.n_half) / n_angles
        waves = [_waves(m, angle) for m in self.order]
        n_even = sum(m % 2 == 0 for m in self.order)
        self.even = torch.from_numpy(np.concatenate(waves[:n_even])).to(like).T.contiguous()
        odd = waves[n_even:] or [np.zeros((0, self.n_half))]
        self.odd = torch.from_numpy(np.concatenate(odd)).to(like).T.contiguous()

    def search(self, maps: Tensor, best: Tensor, energy: Tensor, total: Tensor) -> None:
        """Fill best, energy and total (pixels,) from maps (functions, pixels)."""
        round_ones = self.rows[0].stop  # waves have half of the variance
        n_even = self.even.shape[1]
        n_coefficients = n_even + self.odd.shape[1]
        numbers = self.n_templates * (n_coefficients + 2 * self.n_half)
        step = max(16, _BLOCK.get(maps.device.type, 2**20) // numbers)
        for first in range(0, maps.shape[1], step):
            part = slice(first, first + step)
            coefficients = self._coefficients(maps[:, part])
            even, odd = coefficients[:n_even], coefficients[n_even:]
            best[part] = self._scores(even, odd).amax(0).view(self.n_templates, -1).amax(0)
            energy[part] = self._energy(even, odd)
            square = maps[:, part].square()
            total[part] = square[:round_ones].sum(0) + 2 * square[round_ones:].sum(0)

    def match(self, patches: Tensor, kernels: Tensor) -> Matches:
        """Refine the best match in the middle of patches (n, side + 2, side + 2)."""
        count, side = len(patches), patches.shape[-1] - 2
        near = patches.unfold(1, side, 1).unfold(2, side, 1).reshape(count * 9, side * side)
        maps = (near @ kernels.T).T.contiguous()  # (functions, n * 9)
        coefficients = self._coefficients(maps).view(-1, self.n_templates, count, 9)
        waves = torch.cat([self.even, self.odd], 1)
        back = torch.cat([self.even, -self.odd], 1)  # half a turn on
        waves = torch.cat([waves, back])  # (angles, coefficients)
        middle = coefficients[..., 4].flatten(1)
        scores = (waves @ middle).view(len(waves), self.n_templates, count)
        flat = scores.permute(2, 1, 0).reshape(count, -1)
        template, angle = flat.argmax(1) // len(waves), flat.argmax(1) % len(waves)
        one = torch.arange(count, device=patches.device)
        nearby = torch.stack([scores[(angle + d) % len(waves), template, one] for d in (-1, 0, 1)])
        step, _ = _parabola(*nearby)
        turn = (angle + step) * 360 / len(waves)
        chosen = coefficients[:, template, one]  # (coefficients, n, 9)
        grid = (waves[angle].T[:, :, None] * chosen).sum(0).view(count, 3, 3)
        y, gain_y = _parabola(grid[:, 0, 1], grid[:, 1, 1], grid[:, 2, 1])
        x, gain_x = _parabola(grid[:, 1, 0], grid[:, 1, 1], grid[:, 1, 2])
        psi = torch.remainder(-turn + 180, 360) - 180
        return Matches(template, psi, torch.stack([y, x], 1), grid[:, 1, 1] + gain_y + gain_x)

    def bytes_of_match(self, side: int) -> int:
        """Of one point in `match`: its surroundings, its responses and their angles."""
        n_coefficients = self.even.shape[1] + self.odd.shape[1]
        responses = self.n_templates * (2 * 9 * n_coefficients + 5 * self.n_half)
        return 4 * (2 * 9 * side**2 + responses)

    def _coefficients(self, maps: Tensor) -> Tensor:
        """Even and then odd orders of the responses, (coefficients, templates * pixels)."""
        parts = [(self.mixtures[m] @ maps[self.rows[m]]).view(1 if m == 0 else 2, -1)
                 for m in self.order]  # fmt: skip
        return torch.cat(parts)

    def _scores(self, even: Tensor, odd: Tensor) -> Tensor:
        return (self.even @ even).add_((self.odd @ odd).abs_())

    def _energy(self, even: Tensor, odd: Tensor) -> Tensor:
        square = even[0].square().mul_(2)
        square += even[1:].square().sum(0)
        square += odd.square().sum(0)
        return square.view(self.n_templates, -1).mean(0).div_(2)


def _real_mixture(mixture: NDArray[np.complex128], order: int) -> NDArray[np.float64]:
    """Matrix from correlations with cosines and sines to Re z and Im z of every template."""
    if order == 0:
        return mixture.real.copy()
    real, imaginary = 2 * mixture.real, 2 * mixture.imag
    return np.block([[real, -imaginary], [imaginary, real]])


def _waves(order: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    if order == 0:
        return np.ones((1, len(angle)))
    return np.stack([np.cos(order * angle), np.sin(order * angle)])


def _strip_rows(height: int, width: int, margin: int, n_functions: int) -> int:
    """Rows of a strip whose correlations fit into memory; not much less than its margins."""
    fits = _MAP_BYTES // (4 * n_functions * width)
    return height if fits >= height else max(fits, 2 * margin, 16)


def _strip(filtered: Tensor, first: int, count: int, margin: int) -> tuple[Tensor, int]:
    """Rows with margins, going on periodically, and where the first row lies in them."""
    height = filtered.shape[0]
    if count == height:
        return filtered, 0
    size = good_size(count + 2 * margin)
    rows = torch.arange(first - margin, first - margin + size, device=filtered.device) % height
    return filtered[rows], margin


def _kernels(basis: SteerableBasis, side: int, pixel_size: float, like: Tensor) -> Tensor:
    """Draw the functions as images: (functions, side * side), their centre in the middle."""
    size = good_size(2 * side)
    point = like.new_zeros(size, size)
    point[0, 0] = 1
    functions = _Functions(basis, (size, size), pixel_size, like.device)
    half = side // 2
    maps = torch.cat(list(functions.correlate(point)))
    # a correlation with a point is the function seen from the other side
    maps = torch.roll(maps, (half, half), (1, 2))[:, :side, :side].flip(1, 2)
    return maps.reshape(len(maps), -1)


def _around(image: Tensor, points_yx: Tensor, side: int) -> Tensor:
    """Surroundings of points, one pixel wider than `side`, going on periodically."""
    reach = side // 2 + 1
    steps = torch.arange(-reach, reach + 1, device=image.device)
    rows = (points_yx[:, 0, None] + steps) % image.shape[0]
    columns = (points_yx[:, 1, None] + steps) % image.shape[1]
    return image[rows[:, :, None], columns[:, None, :]]


def _parabola(low: Tensor, middle: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where the parabola through three values has its top, and by how much it is higher."""
    curvature = low - 2 * middle + high
    slope = (high - low) / 2
    step = torch.where(curvature < 0, -slope / torch.where(curvature < 0, curvature, -1.0), 0.0)
    step = step.clamp(-0.5, 0.5)
    return step, slope * step + curvature * step.square() / 2
