"""How alike averages are at the best rotation, shift and mirror image of each pair.

Averages are sampled on Fourier rings (`cryopick.alignment.rings`), where a rotation is a phase
and the mirror image x -> -x is the complex conjugate. The similarity of two is the correlation
coefficient of their rings, weighted by the area each ring stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.references import References, prepare_references
from cryopick.alignment.refine import refine_poses
from cryopick.alignment.rings import RingBasis, make_ring_basis
from cryopick.alignment.sampling import make_ring_sampler
from cryopick.alignment.search import Rotations, Workspace, make_rotations, shift_tile
from cryopick.image.masks import circle_mask
from cryopick.image.resample import shrink_images

__all__ = ["Alignment", "Rings", "align_pairs", "distances", "sample_rings"]

_EDGE = 0.1  # of the diameter: width of the mask's soft edge
_RIM = 0.9  # of the diameter, from where on density is background
_STEP = 0.4  # of the resolution, between shifts
_FINER = 3  # rotations for each angular order
_IMAGES, _REFERENCES = 16, 64  # in one product: the sums over orders stay in the cache
_PAIRS = 256  # aligned together
_FLAT = 1e6  # diameters: spread of a prior that says nothing
_TINY = 1e-20


@dataclass(frozen=True, kw_only=True)
class Rings:
    """n averages on rings."""

    basis: RingBasis
    real: Tensor  # (H, R, n)
    imaginary: Tensor  # (H, R, n)
    harmonics: Tensor  # (n, R, B) complex
    norm: Tensor  # (n,) square root of the weighted power


class Alignment(NamedTuple):
    """How images are brought onto others: shift, then turn, then mirror."""

    psi: NDArray[np.float64]  # (n,) rad
    shift: NDArray[np.float64]  # (n, 2) px: x, y
    is_mirrored: NDArray[np.bool_]  # (n,)
    similarity: NDArray[np.float64]  # (n,)


def sample_rings(images: Tensor, *, diameter: float, n_rings: int) -> Rings:
    """Sample averages inside a circle, the mean of its rim taken off.

    Parameters
    ----------
    images
        (n, y, y) float32, centred.
    diameter
        Of the circle, px.
    n_rings
        At most; fewer where the last would be beyond the Nyquist frequency. Rings are
        1 / (1.12 diameter) apart.
    """
    size = images.shape[-1]
    rim = circle_mask(size, radius=diameter / 2, device=images.device)
    rim &= ~circle_mask(size, radius=_RIM * diameter / 2, device=images.device)
    images = images - images[:, rim].mean(1)[:, None, None]
    outer = (1 + _EDGE) * diameter
    resolution = max(1.12 * outer / n_rings, 2.0)
    pixel = 1.0
    if size % 2 == 0:  # as few pixels as the last ring needs
        small = min(size, 2 * math.ceil(1.1 * size / resolution))
        images, pixel = shrink_images(images, size=small), size / small
    basis = make_ring_basis(
        resolution=max(resolution, 2 * pixel), diameter=outer, box=size, device=images.device
    )
    if basis.resolution < 2 * pixel:  # the number of rings was rounded up
        basis = make_ring_basis(
            resolution=1 / (basis.spacing * (basis.n_rings - 1)),
            diameter=outer, box=size, device=images.device,
        )  # fmt: skip
    sampler = make_ring_sampler(
        basis,
        size=images.shape[-1],
        pixel_size=pixel,
        mask_diameter=diameter,
        mask_edge=_EDGE * diameter / 2,
    )
    parts = [sampler.sample(part) for part in torch.split(images.float(), _PAIRS)]
    real, imaginary = (torch.cat(p, dim=2) for p in zip(*parts, strict=True))
    harmonics = basis.to_harmonics(torch.complex(real, imaginary).permute(2, 1, 0))
    factor = torch.where(basis.orders == 0, 1.0, 2.0)
    power = torch.einsum("r,nrm,m->n", basis.weights, harmonics.abs().square(), factor)
    return Rings(
        basis=basis, real=real, imaginary=imaginary, harmonics=harmonics,
        norm=power.clamp_min(_TINY).sqrt(),
    )  # fmt: skip


def distances(
    rings: Rings,
    *,
    shift_range: float,
    mirrors: bool,
    threads: int,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Find 1 less the similarity of every pair, at its best rotation, shift and mirror image.

    Parameters
    ----------
    rings
        Of n averages.
    shift_range
        Largest shift along x and y, px.
    mirrors
        Compare with mirror images, too.
    threads
        On a CPU. The result does not depend on them.
    progress
        Called with the share that is done.

    Returns
    -------
    numpy.ndarray
        (n, n) float32, symmetric, 0 on the diagonal.
    """
    n = len(rings.norm)
    chunks = _chunks(rings, mirrors=mirrors)
    shifts = _shift_grid(rings.basis, shift_range)
    rotations = make_rotations(rings.basis, step=360 / (_FINER * rings.basis.n_orders))
    found = np.zeros((n, n), np.float32)
    starts = range(0, n, _IMAGES)

    def compare(start: int) -> None:
        # one core for each product: a library's sums depend on how many cores it has
        torch.set_num_threads(1)
        with torch.inference_mode():
            workspace = Workspace(rings.real.device)
            block = _compare_block(rings, start, chunks, shifts, rotations, workspace)
            found[start : start + _IMAGES, start:] = 1 - block.cpu().numpy().clip(0, 1)

    with _pool(rings, threads) as pool:
        for done, _ in enumerate(pool.map(compare, starts), 1):
            if progress:  # late blocks have fewer images to be compared with
                progress(1 - (1 - done / len(starts)) ** 2)
    upper = np.triu(found, 1)
    return upper + upper.T


def align_pairs(
    coarse: Rings,
    fine: Rings,
    *,
    moving: NDArray[np.int64],
    still: NDArray[np.int64],
    shift_range: float,
    mirrors: bool,
    threads: int,
) -> Alignment:
    """Bring averages onto others: a search of all rotations, then Newton's method below the grid.

    Parameters
    ----------
    coarse, fine
        The averages on few rings, to search with, and on more, to refine with.
    moving, still
        (k,) which averages are brought onto which.
    shift_range, mirrors, threads
        As for `distances`.
    """
    kinds = (False, True) if mirrors else (False,)
    works = [(slice(s, s + _PAIRS), m) for s in range(0, len(moving), _PAIRS) for m in kinds]

    def align(work: tuple[slice, bool]) -> Alignment:
        part, is_mirrored = work
        torch.set_num_threads(1)
        with torch.inference_mode():
            return _align_part(
                coarse, fine, moving[part], still[part], shift_range, is_mirrored=is_mirrored
            )

    with _pool(coarse, threads) as pool:
        parts = list(pool.map(align, works))
    step = 2 if mirrors else 1
    best = [_better(*parts[s : s + step]) for s in range(0, len(parts), step)]
    return Alignment(*(np.concatenate(values) for values in zip(*best, strict=True)))


def _pool(rings: Rings, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(threads, 1) if rings.real.device.type == "cpu" else 1)


def _better(plain: Alignment, mirrored: Alignment | None = None) -> Alignment:
    if mirrored is None:
        return plain
    chosen = mirrored.similarity > plain.similarity
    return Alignment(
        *(
            np.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), b, a)
            for a, b in zip(plain, mirrored, strict=True)
        )
    )


def _align_part(
    coarse: Rings,
    fine: Rings,
    moving: NDArray[np.int64],
    still: NDArray[np.int64],
    shift_range: float,
    *,
    is_mirrored: bool,
) -> Alignment:
    basis = coarse.basis
    shifts = _shift_grid(basis, shift_range)
    rotations = make_rotations(basis, step=360 / (_FINER * basis.n_orders))
    weight = basis.weights[:, None]
    tile = shift_tile(
        coarse.real[..., moving] * weight,
        coarse.imaginary[..., moving] * weight,
        coarse.real.new_zeros(1),
        shifts=shifts,
        basis=basis,
        workspace=Workspace(coarse.real.device),
    )
    n = len(moving)
    weighted = tile.weighted.view(basis.n_orders, 2, basis.n_rings, n, len(shifts))
    image = torch.complex(weighted[:, 0], weighted[:, 1])  # (B, R, n, S)
    target = coarse.harmonics[still] if not is_mirrored else coarse.harmonics[still].conj()
    product = torch.einsum("mrns,nrm->mns", image, target.conj())
    rows = torch.view_as_real(product).permute(0, 3, 1, 2).reshape(2 * basis.n_orders, -1)
    even = rotations.even @ rows[: 2 * basis.n_even]
    odd = rotations.odd @ rows[2 * basis.n_even :]
    scores = torch.cat([even + odd, even - odd]).view(-1, n, len(shifts))
    best = scores.permute(1, 0, 2).flatten(1).argmax(1)
    psi, shift = rotations.angles[best // len(shifts)], shifts[best % len(shifts)]
    goal = fine.harmonics[still] if not is_mirrored else fine.harmonics[still].conj()
    fine_weight = fine.basis.weights[:, None]
    refined = refine_poses(
        fine.real[..., moving] * fine_weight,
        fine.imaginary[..., moving] * fine_weight,
        torch.zeros(fine.basis.n_rings, n, 3, dtype=torch.complex64, device=psi.device),
        prepare_references(goal, fine.basis),
        class_index=torch.arange(n, device=psi.device),
        psi=psi,
        shift=shift,
        before=torch.zeros_like(shift),
        sigma_offset=_FLAT * basis.diameter,
        largest_turn=float(rotations.angles[1]),
        largest_shift=_STEP * basis.resolution,
        n_steps=4,
    )
    scale = 2 * fine.norm[moving] * fine.norm[still]
    return Alignment(
        psi=refined.psi.cpu().double().numpy(),
        shift=refined.shift.cpu().double().numpy(),
        is_mirrored=np.full(n, is_mirrored),
        similarity=(refined.log_likelihood / scale).cpu().double().numpy(),
    )


def _chunks(rings: Rings, *, mirrors: bool) -> list[list[References]]:
    """Lay out references in portions, with their mirror images."""
    parts = [part / rings.norm[k : k + len(part), None, None] for k, part in _portions(rings)]
    kinds = [parts, [part.conj() for part in parts]] if mirrors else [parts]
    return [[prepare_references(p, rings.basis) for p in same] for same in zip(*kinds, strict=True)]


def _portions(rings: Rings) -> list[tuple[int, Tensor]]:
    return [
        (k, rings.harmonics[k : k + _REFERENCES])
        for k in range(0, len(rings.harmonics), _REFERENCES)
    ]


def _shift_grid(basis: RingBasis, shift_range: float) -> Tensor:
    """Shifts (S, 2) in a square, row by row."""
    step = _STEP * basis.resolution
    count = max(math.ceil(shift_range / step - 1e-6), 0)
    axis = torch.arange(-count, count + 1) * (shift_range / max(count, 1))
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1).to(basis.angles)


def _compare_block(
    rings: Rings,
    start: int,
    chunks: list[list[References]],
    shifts: Tensor,
    rotations: Rotations,
    workspace: Workspace,
) -> Tensor:
    """Similarities of some images with all from the first of them on, (images, n - start)."""
    part = slice(start, start + _IMAGES)
    weight = rings.basis.weights[:, None] / rings.norm[part]
    tile = shift_tile(
        rings.real[..., part] * weight,
        rings.imaginary[..., part] * weight,
        rings.real.new_zeros(1),
        shifts=shifts,
        basis=rings.basis,
        workspace=workspace,
    )
    first = start // _REFERENCES
    columns = [
        torch.stack([_peaks(tile.weighted, r, rotations, workspace) for r in kinds]).amax(0)
        for kinds in chunks[first:]
    ]
    return torch.cat(columns)[start - first * _REFERENCES :].T


def _peaks(
    weighted: Tensor, references: References, rotations: Rotations, workspace: Workspace
) -> Tensor:
    """Best of all rotations and shifts, shifts between those of the grid included, (k, n)."""
    n_orders, _, n, n_shifts = weighted.shape
    k, n_even = len(references), 2 * references.basis.n_even
    columns = k * n * n_shifts
    product = workspace.get("product", n_orders, 2 * k, n * n_shifts)
    torch.bmm(references.matrix, weighted.view(n_orders, -1, n * n_shifts), out=product)
    flat = product.view(-1, columns)
    even = workspace.get("even", len(rotations.even), columns)
    odd = workspace.get("odd", len(rotations.odd), columns)
    torch.mm(rotations.even, flat[:n_even], out=even)
    torch.mm(rotations.odd, flat[n_even:], out=odd)
    best = even.add_(odd.abs_()).amax(0)
    side = math.isqrt(n_shifts)
    return _top_between(best.view(k, n, side, side))


def _top_between(scores: Tensor) -> Tensor:
    """Top of parabolas along x and y through the best of (k, n, side, side) scores."""
    side = scores.shape[-1]
    top, place = scores.flatten(2).max(2)
    gain = torch.zeros_like(top)
    for axis, at in ((2, place // side), (3, place % side)):
        line = scores.gather(
            5 - axis, (place % side if axis == 2 else place // side)[..., None, None]
            .expand(*top.shape, *((side, 1) if axis == 2 else (1, side)))
        ).flatten(2)  # fmt: skip
        is_inside = (at > 0) & (at < side - 1)
        low = line.gather(2, (at - 1).clamp_min(0)[..., None])[..., 0]
        high = line.gather(2, (at + 1).clamp_max(side - 1)[..., None])[..., 0]
        bend = 2 * top - low - high
        rise = (high - low).square() / (8 * bend.clamp_min(_TINY))
        gain += torch.where(is_inside & (bend > 0), rise, 0.0)
    return top + gain
