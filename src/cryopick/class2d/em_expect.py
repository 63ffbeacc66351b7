"""The expectation step: tiles of particles against all classes, on one device per thread.

The particles of an iteration are cut into tiles and tiles into shards. Sizes of both depend only
on the run and the kind of device, never on the number of threads or on what memory there is, and
the sums of shards are added in their order: results do not depend on who did the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.moving import moved
from cryopick.alignment.references import POWER_ORDERS, References, power_harmonics
from cryopick.alignment.refine import refine_poses
from cryopick.alignment.rings import RingBasis
from cryopick.alignment.sampling import RingSampler
from cryopick.alignment.search import (
    Candidates,
    Rotations,
    Tile,
    Workspace,
    search,
    shift_tile,
)
from cryopick.alignment.sums import PosedImages, add_posed, turn_phases
from cryopick.class2d.em_images import WorkingImages, fill_with_noise, recentre
from cryopick.class2d.em_state import Poses
from cryopick.class2d.em_sums import IterationSums
from cryopick.ctf.rings import evaluate_ctf_rings

__all__ = [
    "Expectation",
    "ShardResult",
    "WeightedImages",
    "expect_shard",
    "sum_fixed",
    "weigh_images",
]

_LEAST_PROBABILITY = 1e-3  # of the best pose, to count as significant
_BLOCK_TILES = 8  # made ready at once
_HOT = 16.0  # times the noise expected: an image beyond says nothing about the noise
_WIENER = 0.1  # of the mean CTF^2
_NORM_RANGE = 2.0  # the correction of an image's brightness stays within this factor


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What one iteration does to every particle; the same for all shards."""

    images: WorkingImages
    sampler: RingSampler
    references: References
    rotations: Rotations
    shifts: Tensor  # (S, 2) A
    noise: Tensor  # (optics groups, R)
    poses: Poses  # of the iteration before
    sigma_offset: float
    largest_shift: float  # A, how far refinement may go
    group_scale: Tensor  # (groups,)
    is_hard: bool  # assign by best correlation, all the weight to one pose
    refines: bool
    aligns: bool
    n_candidates: int
    ctf: str
    fills_noise: bool
    corrects_norm: bool
    seed: int

    @property
    def basis(self) -> RingBasis:
        """Rings in use."""
        return self.sampler.basis

    def on(self, device: str) -> Expectation:
        """Copy it to a device; images and what belongs to each of them stay on the CPU."""
        return replace(
            self,
            sampler=moved(self.sampler, device),
            references=moved(self.references, device),
            rotations=moved(self.rotations, device),
            shifts=self.shifts.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Sums of a shard and the new poses of its particles."""

    indices: NDArray[np.int64]
    poses: Poses
    totals: IterationSums


def expect_shard(
    work: Expectation, indices: NDArray[np.int64], *, tile_size: int, workspace: Workspace
) -> ShardResult:
    """Align the particles of a shard, tile by tile."""
    totals = _empty_totals(work)
    parts = []
    block_size = tile_size * _BLOCK_TILES
    for block_start in range(0, len(indices), block_size):
        block = indices[block_start : block_start + block_size]
        weighted = weigh_images(work, block)
        for start in range(0, len(block), tile_size):
            part = slice(start, start + tile_size)
            parts.append(_expect_tile(work, block[part], weighted.part(part), totals, workspace))
    columns = {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in Poses.__annotations__
    }
    return ShardResult(indices=indices, poses=Poses(**columns), totals=totals)


def _empty_totals(work: Expectation) -> IterationSums:
    return IterationSums.empty(
        work.basis,
        n_classes=len(work.references),
        n_optics=len(work.noise),
        n_groups=len(work.group_scale),
    )


def sum_fixed(
    work: Expectation,
    indices: NDArray[np.int64],
    *,
    class_index: NDArray[np.int64],
    psi: NDArray[np.float32],
    tile_size: int,
    workspace: Workspace,
) -> IterationSums:
    """Sum images at given classes and rotations (rad), and their power."""
    basis, totals = work.basis, _empty_totals(work)
    for start in range(0, len(indices), tile_size):
        part = slice(start, start + tile_size)
        weighted = weigh_images(work, indices[part])
        tile = shift_tile(
            weighted.real,
            weighted.imaginary,
            weighted.power,
            shifts=work.shifts[:1],  # none
            basis=basis,
            workspace=workspace,
        )
        device = weighted.real.device
        count = weighted.real.shape[2]
        posed = PosedImages(
            image=torch.arange(count, device=device),
            class_index=torch.from_numpy(class_index[part]).to(device),
            shift_index=torch.zeros(count, dtype=torch.int64, device=device),
            turns=turn_phases(torch.from_numpy(psi[part]).to(device), basis).T,
        )
        add_posed(totals.sums, tile, posed, basis, workspace)
        optics = weighted.optics
        strength = weighted.image_power.sum(0)
        is_sound = strength < _HOT * strength.median()
        totals.image_power.index_add_(0, optics, (weighted.image_power * is_sound).T.double())
        totals.ctf_power.index_add_(0, optics, (weighted.ctf_power * is_sound).T.double())
        totals.optics_counts.index_add_(0, optics, torch.ones_like(optics, dtype=torch.float64))
    return totals


@dataclass(frozen=True, kw_only=True)
class WeightedImages:
    """A tile's images at their last known shift, weighted for the search."""

    real: Tensor  # (H, R, n): w CTF X / sigma^2
    imaginary: Tensor
    power: Tensor  # (R, n, 3): harmonics of w CTF^2 / sigma^2
    image_power: Tensor  # (R, n): mean |X|^2 of each ring
    ctf_power: Tensor  # (R, n): mean CTF^2 where images are premultiplied, 1 elsewhere
    before: Tensor  # (n, 2) A: the shift they were given
    optics: Tensor  # (n,) optics group
    plain: Tensor  # (R, n): w / sigma^2
    inverse: Tensor  # (R, n): the same over the square of the image's norm
    lens: Tensor  # (H, R, n): what noise has been multiplied by since it passed the mask

    def part(self, images: slice) -> WeightedImages:
        """Take some of the images."""
        return WeightedImages(
            real=self.real[..., images].contiguous(),
            imaginary=self.imaginary[..., images].contiguous(),
            power=self.power[:, images].contiguous(),
            image_power=self.image_power[:, images],
            ctf_power=self.ctf_power[:, images],
            before=self.before[images],
            optics=self.optics[images],
            plain=self.plain[:, images],
            inverse=self.inverse[:, images],
            lens=self.lens[..., images],
        )


def _expect_tile(
    work: Expectation,
    indices: NDArray[np.int64],
    weighted: WeightedImages,
    totals: IterationSums,
    workspace: Workspace,
) -> Poses:
    basis = work.basis
    tile = shift_tile(
        weighted.real,
        weighted.imaginary,
        weighted.power,
        shifts=work.shifts,
        basis=basis,
        workspace=workspace,
    )
    offset_square = (weighted.before[:, None] + work.shifts).square().sum(2)  # (n, S)
    if not work.aligns:
        _turn_tile(tile, torch.from_numpy(work.poses.psi[indices]).to(tile.weighted), basis)
    found = search(
        tile,
        work.references,
        work.rotations,
        prior=-offset_square / (2 * work.sigma_offset**2),
        n_candidates=work.n_candidates,
        workspace=workspace,
        score="correlation" if work.is_hard else "likelihood",
    )
    posterior = _posterior(found, is_hard=work.is_hard)
    real = 1 - torch.from_numpy(work.poses.junk_probability[indices]).to(posterior)
    turns = turn_phases(work.rotations.angles, basis)
    posed = PosedImages.from_posterior(
        posterior * real[:, None, None], found.class_index, found.shift_index, turns
    )
    add_posed(totals.sums, tile, posed, basis, workspace)
    image = torch.arange(len(indices), device=posterior.device)[:, None]
    spread = (posterior.sum(2) * offset_square[image, found.shift_index]).sum()
    totals.offset_square.add_(spread)
    residual = _add_residual(work, indices, totals, weighted, tile, found, posterior, turns)
    return _best_poses(work, indices, weighted, found, posterior, residual)


def weigh_images(work: Expectation, indices: NDArray[np.int64]) -> WeightedImages:
    """Read, centre, transform and weigh the images of a tile."""
    basis, sampler = work.basis, work.sampler
    device = basis.angles.device
    source, geometry = work.images.source, work.images.geometry
    poses = work.poses
    known = np.stack([poses.shift_x[indices], poses.shift_y[indices]], axis=1)
    before = torch.from_numpy(known).to(device)
    whole = torch.round(before / geometry.working_pixel)
    images = recentre(work.images.read(indices).to(device), whole.long())
    if work.fills_noise:
        seed = work.seed * 1_000_003 + int(indices[0])
        images = fill_with_noise(images, geometry, torch.Generator().manual_seed(seed))
    real, imaginary = sampler.sample(images)
    optics = torch.from_numpy(source.optics_numbers[indices]).to(device)
    is_multiplied = torch.from_numpy(source.is_premultiplied).to(device)[optics]
    ctf = _ctf_of(work, indices, optics)
    lens = torch.where(is_multiplied, 1.0, ctf)
    if work.ctf == "wiener":
        restored = _wiener_filter(ctf, is_multiplied, basis)
        real, imaginary = real * restored, imaginary * restored
        lens = torch.where(is_multiplied, (ctf**2).mean(0).sqrt(), 1.0) * restored
        ctf, is_multiplied = torch.ones_like(ctf), torch.zeros_like(is_multiplied)
    rest = before - whole * geometry.working_pixel
    kx, ky = basis.wave_vectors
    phase = 2 * math.pi * (kx[..., None] * rest[:, 0] + ky[..., None] * rest[:, 1])
    cosine, sine = torch.cos(phase), torch.sin(phase)
    moved_real, moved_imaginary = real * cosine + imaginary * sine, imaginary * cosine - real * sine
    plain = inverse = (basis.weights / work.noise.to(device)[optics]).T
    if work.corrects_norm:
        inverse = plain / torch.from_numpy(poses.norm[indices]).to(device) ** 2
    scale = work.group_scale.to(device).float()[
        torch.from_numpy(source.group_numbers[indices]).to(device)
    ]
    power = ctf**2 * (inverse * scale**2)
    factor = torch.where(is_multiplied, 1.0, ctf) * (inverse * scale)
    return WeightedImages(
        real=moved_real * factor,
        imaginary=moved_imaginary * factor,
        power=power_harmonics(power.permute(1, 2, 0), basis),
        image_power=(real**2 + imaginary**2).mean(0),
        ctf_power=torch.where(is_multiplied, (ctf**2).mean(0), 1.0).expand(basis.n_rings, -1),
        before=before,
        optics=optics,
        plain=plain,
        inverse=inverse,
        lens=lens,
    )


def _ctf_of(work: Expectation, indices: NDArray[np.int64], optics: Tensor) -> Tensor:
    basis, source = work.basis, work.images.source
    parameters = None if work.ctf == "none" else source.ctf_parameters(indices)
    if parameters is None:
        return torch.ones(basis.n_angles, basis.n_rings, len(indices), device=optics.device)
    ctf = evaluate_ctf_rings(
        torch.from_numpy(parameters),
        frequencies=basis.frequencies,
        angles=basis.angles,
        ignore_until_first_peak=work.ctf == "first-peak",
    )
    if source.is_phase_flipped.any():
        is_flipped = torch.from_numpy(source.is_phase_flipped).to(optics.device)[optics]
        ctf = torch.where(is_flipped, ctf.abs(), ctf)
    return ctf


def _wiener_filter(ctf: Tensor, is_multiplied: Tensor, basis: RingBasis) -> Tensor:
    """CTF / (CTF^2 + w), w a tenth of the mean CTF^2 as in Xmipp, (H, R, n).

    Images that have been multiplied by their CTF already are only divided.
    """
    power = ctf**2
    mean = torch.einsum("r,hrn->n", basis.weights, power) / (basis.weights.sum() * len(power))
    return torch.where(is_multiplied, 1.0, ctf) / (power + _WIENER * mean)


def _turn_tile(tile: Tile, psi: Tensor, basis: RingBasis) -> None:
    """Turn each image onto its class, (n,) deg, in place."""
    phase = torch.deg2rad(psi) * basis.orders[:, None]  # (B, n)
    cosine, sine = torch.cos(phase)[:, None, :, None], torch.sin(phase)[:, None, :, None]
    half = tile.weighted.shape[1] // 2
    real, imaginary = tile.weighted[:, :half].clone(), tile.weighted[:, half:].clone()
    tile.weighted[:, :half] = real * cosine + imaginary * sine
    tile.weighted[:, half:] = imaginary * cosine - real * sine
    orders = torch.tensor(POWER_ORDERS, device=psi.device)
    tile.power.mul_(torch.exp(-1j * torch.deg2rad(psi)[:, None] * orders))


def _posterior(found: Candidates, *, is_hard: bool) -> Tensor:
    flat = found.log_likelihood.flatten(1)
    if is_hard:
        posterior = torch.zeros_like(flat)
        posterior.scatter_(1, flat.argmax(1, keepdim=True), 1.0)
    else:
        posterior = torch.softmax(flat, dim=1)
    return posterior.view_as(found.log_likelihood)


def _add_residual(
    work: Expectation,
    indices: NDArray[np.int64],
    totals: IterationSums,
    weighted: WeightedImages,
    tile: Tile,
    found: Candidates,
    posterior: Tensor,
    turns: Tensor,
) -> Tensor:
    """Add what the best class of each image explains of its power, ring by ring.

    Returns
    -------
    Tensor
        (n,) what is left of each image, over what the noise makes expect.
    """
    source, device = work.images.source, posterior.device
    basis, references = work.basis, work.references
    share = posterior.sum(2)
    best = share.argmax(1)
    image = torch.arange(len(best), device=device)
    k, s = found.class_index[image, best], found.shift_index[image, best]
    own = posterior[image, best] / share[image, best].clamp_min(1e-30)[:, None]
    turn = torch.complex(own @ turns.real, own @ turns.imag)  # (n, B)
    n_orders, rows, _, n_shifts = tile.weighted.shape
    rings = tile.weighted.view(n_orders, rows, -1).index_select(2, image * n_shifts + s)
    half = rows // 2
    factor = torch.where(basis.orders == 0, 1.0, 2.0)
    turned = (turn * factor).T[:, None] * references.harmonics[k].permute(2, 1, 0).conj()
    cross = (rings[:, :half] * turned.real - rings[:, half:] * turned.imag).sum(0)  # (R, n)
    even = torch.tensor([1.0, 2.0, 2.0], device=device)
    turned_power = (turn[:, :3] * even) * references.power[k].permute(1, 0, 2).conj()
    norm = (weighted.power * turned_power).real.sum(2)  # (R, n)
    explained = (2 * cross - norm) / weighted.inverse * weighted.ctf_power
    expected = (basis.weights[:, None] * weighted.ctf_power).sum(0) * work.sampler.share
    residual = ((weighted.image_power - explained) * weighted.plain).sum(0) / expected.clamp_min(
        1e-12
    )
    is_sound = residual < _HOT
    for total, values in (
        (totals.image_power, weighted.image_power),
        (totals.explained, explained),
        (totals.ctf_power, weighted.ctf_power),
    ):
        total.index_add_(0, weighted.optics, (values * is_sound).T.double())
    ones = torch.ones(len(image), dtype=torch.float64, device=device)
    totals.optics_counts.index_add_(0, weighted.optics, ones)
    groups = torch.from_numpy(source.group_numbers[indices]).to(device)
    totals.group_cross.index_add_(0, groups, cross.sum(0).double())
    totals.group_norm.index_add_(0, groups, norm.sum(0).double())
    return residual


def _best_poses(
    work: Expectation,
    indices: NDArray[np.int64],
    weighted: WeightedImages,
    found: Candidates,
    posterior: Tensor,
    residual: Tensor,
) -> Poses:
    n, _, n_psi = posterior.shape
    flat = posterior.view(n, -1)
    top, place = flat.max(1)
    pair, angle = place // n_psi, place % n_psi
    image = torch.arange(n, device=flat.device)
    class_index = found.class_index[image, pair]
    shift = work.shifts[found.shift_index[image, pair]]
    likelihood = found.log_likelihood[image, pair, angle]
    psi = work.rotations.angles[angle] + _parabola(found.log_likelihood[image, pair], angle)
    if not work.aligns:
        psi = torch.deg2rad(torch.from_numpy(work.poses.psi[indices]).to(psi))
    elif work.refines:
        refined = refine_poses(
            weighted.real,
            weighted.imaginary,
            weighted.power,
            work.references,
            class_index=class_index,
            psi=psi,
            shift=shift,
            before=weighted.before,
            sigma_offset=work.sigma_offset,
            largest_turn=4 * math.pi / n_psi,
            largest_shift=work.largest_shift,
        )
        psi, shift = refined.psi, refined.shift
    shift = weighted.before + shift
    degrees = torch.rad2deg(psi)
    entropy = -(flat * flat.clamp_min(1e-30).log()).sum(1)
    norm = residual.clamp_min(0).sqrt().nan_to_num(1.0).clamp(1 / _NORM_RANGE, _NORM_RANGE)
    return Poses(
        class_index=class_index.to(torch.int32).cpu().numpy(),
        psi=((degrees + 180) % 360 - 180).cpu().numpy(),
        shift_x=shift[:, 0].cpu().numpy(),
        shift_y=shift[:, 1].cpu().numpy(),
        max_probability=top.cpu().numpy(),
        log_likelihood=likelihood.cpu().numpy(),
        n_significant=(flat > _LEAST_PROBABILITY * top[:, None])
        .sum(1)
        .to(torch.int32)
        .cpu()
        .numpy(),
        entropy=entropy.cpu().numpy(),
        norm=norm.cpu().numpy(),
        junk_probability=work.poses.junk_probability[indices],
        membership=1 - work.poses.junk_probability[indices],
        margin=_margin(found.class_best).cpu().numpy(),
        seen=np.ones(n, bool),
    )


def _margin(class_best: Tensor) -> Tensor:
    """Posterior of the best class less that of the second, (n, K) to (n,)."""
    chance = torch.softmax(class_best, dim=1).topk(min(2, class_best.shape[1]), dim=1).values
    return 2 * chance[:, 0] - chance.sum(1) if chance.shape[1] > 1 else chance[:, 0]


def _parabola(columns: Tensor, angle: Tensor) -> Tensor:
    """Peak between the rotations of a grid, rad, from the three values around the best."""
    n, n_psi = columns.shape
    image = torch.arange(n, device=columns.device)
    below, at, above = (columns[image, (angle + d) % n_psi] for d in (-1, 0, 1))
    bend = (below - 2 * at + above).clamp_max(-1e-12)
    return ((below - above) / (2 * bend)).clamp(-0.5, 0.5) * (2 * math.pi / n_psi)
