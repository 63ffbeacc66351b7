"""The alignment engine under a stable classification: images against classes, with mirrors.

A mirror at the y axis, x to -x, takes the harmonics of an image to their complex conjugates. An
image that is turned, then mirrored, fits a class as well as the turned image fits the conjugate
class. So mirrors are K further classes.

Lengths are in pixels of the resized images. The power of the CTF is taken as the same in all
directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.references import POWER_ORDERS, References, prepare_references
from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sampling import RingSampler
from cryopick.alignment.search import Rotations, Tile, Workspace, shift_tile
from cryopick.alignment.sums import PosedImages, RingSums, add_posed, turn_phases
from cryopick.class2d.em_images import recentre
from cryopick.class2d.stable_images import StableImages
from cryopick.class2d.stable_matrices import RingMatrices
from cryopick.class2d.stable_workers import Run

__all__ = [
    "Poses2d",
    "ReadyImages",
    "StableEngine",
    "class_scores",
    "fold_mirrors",
    "mirrored_references",
    "parts_of",
    "tanh_filter",
]

_RINGS_PER_MASK = 1.12
_BLOCK = 128  # images sampled at once


@dataclass
class Poses2d:
    """Poses of n images: shifted, then turned by psi from x towards y, then mirrored."""

    psi: NDArray[np.float32]  # rad
    shift_x: NDArray[np.float32]  # px
    shift_y: NDArray[np.float32]  # px
    mirror: NDArray[np.bool_]

    @classmethod
    def empty(cls, n: int) -> Poses2d:
        """Poses that leave n images as they are."""
        zero = np.zeros(n, np.float32)
        return cls(zero, zero.copy(), zero.copy(), np.zeros(n, bool))

    def __len__(self) -> int:
        return len(self.psi)

    def take(self, rows: NDArray[np.int64]) -> Poses2d:
        """Poses of some images."""
        return Poses2d(self.psi[rows], self.shift_x[rows], self.shift_y[rows], self.mirror[rows])

    def beside(self, other: Poses2d) -> Poses2d:
        """Poses of these images, then of others."""
        return Poses2d(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )

    def put(self, rows: NDArray[np.int64], other: Poses2d) -> None:
        """Replace the poses of some images."""
        self.psi[rows], self.mirror[rows] = other.psi, other.mirror
        self.shift_x[rows], self.shift_y[rows] = other.shift_x, other.shift_y

    @property
    def shifts(self) -> Tensor:
        """(n, 2) px: x and y."""
        return torch.from_numpy(np.stack([self.shift_x, self.shift_y], axis=1))


@dataclass(frozen=True, kw_only=True)
class ReadyImages:
    """Images at known shifts, weighted for the search."""

    real: Tensor  # (H, R, n): w X / sigma^2, X the image, times its CTF where that counts
    imaginary: Tensor
    weight: Tensor  # (R, n): w CTF^2 / sigma^2
    power: Tensor  # (R, n): mean |X|^2 of each ring

    def part(self, images: slice) -> ReadyImages:
        """Take some of the images."""
        return ReadyImages(
            real=self.real[..., images].contiguous(),
            imaginary=self.imaginary[..., images].contiguous(),
            weight=self.weight[:, images],
            power=self.power[:, images],
        )


def tanh_filter(frequency: Tensor, *, cut_off: float, fall_off: float) -> Tensor:
    """Evaluate the tangent low-pass of SPARX: about half at the cut-off; frequencies in 1/px."""
    c = math.pi / (2 * fall_off * cut_off)
    return 0.5 * (torch.tanh(c * (frequency + cut_off)) - torch.tanh(c * (frequency - cut_off)))


def mirrored_references(harmonics: Tensor, basis: RingBasis) -> References:
    """Lay out K classes (K, R, B) for the search, and their mirror images behind them."""
    return prepare_references(torch.cat([harmonics, harmonics.conj()]), basis)


@dataclass
class StableEngine:
    """Images of one size, sampled on as many rings as are asked for."""

    images: StableImages
    ring_step: int = 1
    device: str = "cpu"
    _matrices: RingMatrices = field(init=False)
    _power: Tensor = field(default_factory=lambda: torch.zeros(0, 0), init=False)

    def __post_init__(self) -> None:
        shrink = self.images.shrink
        self._matrices = RingMatrices(shrink.size, shrink.radius, self.spacing, self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the power of the images: who works on a part needs it not."""
        return vars(self) | {"_power": torch.zeros(0, 0)}

    def on(self, device: str) -> StableEngine:
        """Make an engine of the same images on another device; it has no power of them."""
        other = StableEngine(self.images, ring_step=self.ring_step, device=device)
        other._matrices = self._matrices.on(device)
        return other

    @property
    def spacing(self) -> float:
        """Of the rings, 1/px."""
        return self.ring_step / (_RINGS_PER_MASK * 2 * self.images.shrink.radius)

    @property
    def most_rings(self) -> int:
        """Rings up to 0.5 cycles/px."""
        return int(0.5 / self.spacing)

    def rings_to(self, frequency: float) -> int:
        """Rings up to a frequency, 1/px."""
        return min(max(3, round(frequency / self.spacing)), self.most_rings)

    def with_images(self, images: StableImages) -> StableEngine:
        """Make an engine for other images of the same size, which shares the matrices."""
        other = StableEngine(images, ring_step=self.ring_step, device=self.device)
        other._matrices = self._matrices
        return other

    def sampler(self, n_rings: int) -> RingSampler:
        """Matrices from images to rings; the last few are kept."""
        return self._matrices.sampler(n_rings)

    def basis(self, n_rings: int) -> RingBasis:
        """Rings and orders."""
        return self.sampler(n_rings).basis

    def noise_covariance(self, n_rings: int) -> Tensor:
        """Covariance of white noise in the mask from ring to ring; made once."""
        return self._matrices.noise_covariance(n_rings)

    def ready(
        self, rows: NDArray[np.int64], shifts: Tensor, *, n_rings: int, noise: Tensor
    ) -> ReadyImages:
        """Sample some images at their shifts.

        Parameters
        ----------
        rows
            (n,) which images.
        shifts
            (n, 2) px, x and y.
        n_rings
            How many rings.
        noise
            (most rings,) power of the noise, unmasked.
        """
        sampler, basis = self.sampler(n_rings), self.basis(n_rings)
        shifts = shifts.to(self.device)
        whole = torch.round(shifts)
        pixels = self.images.pixels[rows].to(self.device).float()
        real, imaginary = sampler.sample(recentre(pixels, whole.long()))
        kx, ky = basis.wave_vectors
        rest = shifts - whole
        phase = 2 * math.pi * (kx[..., None] * rest[:, 0] + ky[..., None] * rest[:, 1])
        cosine, sine = torch.cos(phase), torch.sin(phase)
        factor = (basis.weights / noise[:n_rings].to(self.device))[:, None]  # (R, 1)
        lens = self.ctf_power(rows, n_rings)
        left = torch.where(self._is_multiplied(rows), 1.0, lens)  # to be multiplied, squared
        scale = factor * left.sqrt()
        return ReadyImages(
            real=(real * cosine + imaginary * sine) * scale,
            imaginary=(imaginary * cosine - real * sine) * scale,
            weight=factor * lens,
            power=(real**2 + imaginary**2).mean(0) * left,
        )

    def _is_multiplied(self, rows: NDArray[np.int64]) -> Tensor:
        known = self.images.is_multiplied
        if known is None:
            return torch.zeros(len(rows), dtype=torch.bool, device=self.device)
        return torch.from_numpy(known[rows]).to(self.device)

    def ctf_power(self, rows: NDArray[np.int64], n_rings: int) -> Tensor:
        """CTF^2 on the rings, (R, n); 1 where the CTF does not count."""
        known = self.images.ctf_power
        if known is None or not self.images.has_lens:
            return torch.ones(n_rings, len(rows), device=self.device)
        place = self.basis(n_rings).frequencies.cpu() * 2 * (known.shape[1] - 1)
        low = place.floor().long().clamp_max(known.shape[1] - 2)
        rest = place - low
        table = known[rows].float()
        values = table[:, low] * (1 - rest) + table[:, low + 1] * rest
        return values.T.to(self.device)

    def measure_power(self, run: Run) -> None:
        """Measure the power of each image on each ring; everything else needs it."""
        self._power = torch.empty(len(self.images), self.most_rings)
        blocks = list(self.blocks(len(self.images)))
        for block, power in zip(blocks, run(_Power(engine=self), blocks), strict=True):
            self._power[block] = power

    def total_power(self, rows: NDArray[np.int64], n_rings: int) -> tuple[Tensor, Tensor]:
        """Sum the power of some images, and of white noise in them, ring by ring, (R,) each.

        Noise has been multiplied by the CTF where the image has.
        """
        lens = torch.where(self._is_multiplied(rows), self.ctf_power(rows, n_rings), 1.0)
        return self._power[rows, :n_rings].sum(0), lens.cpu().sum(1)

    def to_images(self, harmonics: Tensor) -> Tensor:
        """Averages (k, R, B) as images (k, size, size), inside the mask."""
        sampler = self.sampler(harmonics.shape[1])
        return sampler.to_images(sampler.basis.to_half_rings(harmonics)).cpu()

    def tile(self, ready: ReadyImages, grid: Tensor, n_rings: int, workspace: Workspace) -> Tile:
        """Images at all shifts of a grid (S, 2), in harmonics."""
        n = ready.real.shape[2]
        power = torch.zeros(n_rings, n, len(POWER_ORDERS), dtype=torch.complex64)
        power = power.to(self.device)
        power[..., 0] = ready.weight
        return shift_tile(
            ready.real,
            ready.imaginary,
            power,
            shifts=grid.to(self.device),
            basis=self.basis(n_rings),
            workspace=workspace,
        )

    def blocks(self, count: int) -> Iterator[slice]:
        """Cut so many images into blocks that are sampled together."""
        return parts_of(slice(0, count), _BLOCK)

    def sum_tile(
        self,
        tile: Tile,
        label: NDArray[np.int64],
        poses: Poses2d,
        n_classes: int,
        workspace: Workspace,
        *,
        image: Tensor | None = None,
        shift_index: Tensor | None = None,
    ) -> RingSums:
        """Sum the images of a tile, mirrored ones apart: (2 K) classes."""
        sums = RingSums.empty(2 * n_classes, self.basis(tile.weighted.shape[1] // 2))
        self.add_tile(sums, tile, label, poses, workspace, image=image, shift_index=shift_index)
        return sums

    def add_tile(
        self,
        sums: RingSums,
        tile: Tile,
        label: NDArray[np.int64],
        poses: Poses2d,
        workspace: Workspace,
        *,
        share: NDArray[np.float32] | None = None,
        image: Tensor | None = None,
        shift_index: Tensor | None = None,
    ) -> None:
        """Add the images of a tile to sums of (2 K) classes, mirrored ones to the second half."""
        basis = self.basis(tile.weighted.shape[1] // 2)
        place = torch.from_numpy(label + len(sums.counts) // 2 * poses.mirror).to(self.device)
        psi = torch.from_numpy(poses.psi).to(self.device)
        turns = turn_phases(psi, basis).T
        if share is not None:
            turns = turns * torch.from_numpy(share).to(self.device)
        posed = PosedImages(
            image=torch.arange(len(label), device=self.device) if image is None else image,
            class_index=place,
            shift_index=torch.zeros_like(place) if shift_index is None else shift_index,
            turns=turns,
        )
        add_posed(sums, tile, posed, basis, workspace)


@dataclass(frozen=True, kw_only=True)
class _Power:
    """Measures the power of the images of a block, (n, R)."""

    engine: StableEngine

    def prepare(self) -> None:
        self.engine.sampler(self.engine.most_rings)

    def __call__(self, block: slice, workspace: Workspace) -> Tensor:
        del workspace
        engine = self.engine
        rows = np.arange(block.start, block.stop)
        pixels = engine.images.pixels[rows].to(engine.device).float()
        real, imaginary = engine.sampler(engine.most_rings).sample(pixels)
        return real.square_().add_(imaginary.square_()).mean(0).T.cpu()


def parts_of(whole: slice, size: int) -> Iterator[slice]:
    """Cut a range into parts of `size`; the last may be smaller."""
    for start in range(whole.start, whole.stop, size):
        yield slice(start, min(start + size, whole.stop))


def fold_mirrors(sums: RingSums) -> RingSums:
    """Bring mirrored images to their classes."""
    k = len(sums.counts) // 2
    return RingSums(
        numerator=sums.numerator[:k] + sums.numerator[k:].conj(),
        denominator=sums.denominator[:k] + sums.denominator[k:].conj(),
        counts=sums.counts[:k] + sums.counts[k:],
    )


def class_scores(
    tile: Tile, references: References, rotations: Rotations, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """Twice the cross term of every image, reference and shift at all rotations.

    Returns
    -------
    tuple of Tensor
        Sums over even and over odd orders, (n_psi / 2, K, n, S) each, in the workspace: the value
        at a rotation is their sum, half a turn on their difference.
    """
    n_orders, _, n, n_shifts = tile.weighted.shape
    k, n_even = len(references), 2 * references.basis.n_even
    product = workspace.get("product", n_orders, 2 * k, n * n_shifts)
    torch.bmm(references.matrix, tile.weighted.view(n_orders, -1, n * n_shifts), out=product)
    flat = product.view(-1, k * n * n_shifts)
    even = workspace.get("even", len(rotations.even), k * n * n_shifts)
    odd = workspace.get("odd", len(rotations.odd), k * n * n_shifts)
    torch.mm(rotations.even, flat[:n_even], out=even).mul_(2)
    torch.mm(rotations.odd, flat[n_even:], out=odd).mul_(2)
    size = (len(rotations.even), k, n, n_shifts)
    return even.view(size), odd.view(size)
