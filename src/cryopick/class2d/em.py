"""2D classification by expectation-maximisation on the alignment engine.

    classifier = EmClassifier(source, parameters)
    state = classifier.start()
    while not state.is_finished:
        state = classifier.advance(state)

A run starts cold from few averages of random particles at random rotations, in few rings: two
iterations assign each particle to the average it correlates with best, then the posterior takes
over. Classes are split when the averages have found the particle: what a large class has learned
of its alignment is kept by both halves. Rings are added as far as the averages hold signal
(`em_schedule`). The averages are filtered by what all classes have in common (`ring_prior`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.references import prepare_references
from cryopick.alignment.rings import RingBasis, change_basis, make_ring_basis
from cryopick.alignment.sampling import RingSampler, make_ring_sampler
from cryopick.alignment.search import Workspace, make_rotations, no_rotation
from cryopick.alignment.sums import RingSums
from cryopick.class2d.em_expect import Expectation, ShardResult, sum_fixed
from cryopick.class2d.em_images import Geometry, WorkingImages, plan_geometry
from cryopick.class2d.em_junk import NoiseImages, junk_probability
from cryopick.class2d.em_maximise import (
    IterationSums,
    centre_classes,
    find_scales,
    find_sigma_offset,
    merge_shards,
    update_noise,
)
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_schedule import Stage, class_count, fine_iterations, stage_of, subset_of
from cryopick.class2d.em_start import rings_of_averages, split_classes
from cryopick.class2d.em_state import EmState, ImageSource, Poses
from cryopick.class2d.em_workers import Workers
from cryopick.class2d.ring_prior import RegularisedAverages, mask_noise, regularise
from cryopick.errors import ParameterError

__all__ = ["EmClassifier"]

Progress = Callable[[int, int], None]

_FINEST = 8.0  # A, limit of the alignment if the user gives none
_MOST_RINGS = 64
_EDGE_PX = 5.0
_RINGS_PER_MASK = 1.12  # rings are this much finer than the transform of the mask asks
_SIGMA_OFFSET = 10.0  # A, at the start
_CANDIDATES = 8  # pairs of class and shift that share an image's posterior
_TILE_COLUMNS = 8192  # classes x images x shifts of a tile on a CPU
_DEVICE_COLUMNS = 1 << 20  # and on another device
_SHARD_TILES = 8
_COUPLING = 0.5  # see `ring_prior`
_SIGNAL = 0.2  # least ssnr of a ring that counts as signal
_RINGS_BEYOND = 3  # rings used beyond the last with signal
_LEAST_RINGS = 14
_POWER_SAMPLE = 500  # images the first noise spectrum is measured on
_FEWEST_IMAGES = 20  # an optics group with fewer takes the noise of all
_PER_SEED = 100  # images in an average a run begins with
_SETTLED = (0.05, 2.0, 2.0)  # changes of class (share), rotation (deg), shift (A): refine now
_STILL = (0.01, 0.5, 0.5)  # and stop now
_NOISE_IMAGES = 128  # aligned in an iteration to learn how well noise fits


class EmClassifier:
    """A 2D classification of the images of a source.

    Parameters
    ----------
    source
        The images: white particles.
    parameters
        What the user chose.
    devices
        Where to compute: one thread for each but the CPU.
    threads
        Threads on the CPU; results do not depend on their number.
    poses
        Where to start from: shifts, and rotations and classes if alignment is off.
    keep_bytes
        Memory for images made ready once; without it they are made again in each iteration.

    Raises
    ------
    ParameterError
        If the mask is larger than the box, there are fewer particles than classes, or the
        resolution limit is beyond what the pixels hold.
    """

    def __init__(
        self,
        source: ImageSource,
        parameters: ClassificationParameters,
        *,
        devices: Sequence[str] = ("cpu",),
        threads: int = 1,
        poses: Poses | None = None,
        keep_bytes: int = 0,
    ) -> None:
        self.source, self.parameters = source, parameters
        self.mask_diameter = _mask_diameter(source, parameters)
        self.mask_edge = _EDGE_PX * source.pixel_size
        _require_enough(source, parameters)
        self.spacing = 1 / (_RINGS_PER_MASK * self.mask_diameter)
        self.most_rings = _most_rings(source, parameters, self.spacing)
        self.geometry = self._geometry(self.most_rings)
        self._first_poses = poses or Poses.empty(len(source))
        self._keep_bytes = keep_bytes
        self._images: tuple[int, WorkingImages] | None = None
        own = tuple(d for d in devices if d != "cpu")
        self.devices = own or ("cpu",) * max(threads, 1)
        self._samplers: dict[tuple[int, str], RingSampler] = {}
        self._mask_noise: dict[int, Tensor] = {}
        self._workers = Workers(self.devices)

    def close(self) -> None:
        """Stop the threads."""
        self._workers.close()

    @property
    def bytes_per_image(self) -> int:
        """What one particle takes while it is kept ready."""
        return 4 * self.geometry.working_size**2

    @property
    def fixed_bytes(self) -> int:
        """What averages, sums, buffers and matrices take, whatever the number of particles."""
        basis = self._basis_without_sampler(self.most_rings)
        k, values = self.parameters.classes, basis.n_rings * basis.n_orders
        per_worker = 16 * k * values + 4 * _TILE_COLUMNS * 6 * basis.n_orders
        matrices = 4 * self.geometry.working_size**2 * basis.n_rings * basis.n_angles
        return int(k * values * 120 + per_worker * len(self.devices) + 2 * matrices)

    def start(
        self, references: Tensor | None = None, *, reference_pixel_size: float | None = None
    ) -> EmState:
        """Begin a run: from averages given, or from random particles.

        Parameters
        ----------
        references
            (K, y, x), white particles.
        reference_pixel_size
            A/px; that of the particles if not given.
        """
        source = self.source
        noise = self._first_noise()
        if references is None:
            stage = self._stage(0, self.most_rings, has_references=False)
            n_rings = stage.n_rings
            harmonics = self._random_averages(n_rings, noise)
        else:
            n_rings = self.most_rings
            harmonics = rings_of_averages(
                references,
                self._sampler(n_rings),
                self._geometry(n_rings),
                pixel_size=reference_pixel_size or source.pixel_size,
            )
        return EmState(
            iteration=0,
            is_finished=False,
            poses=self._first_poses,
            harmonics=harmonics,
            n_rings=n_rings,
            noise=noise,
            ring_frequencies=self._basis(self.most_rings).frequencies,
            shares=torch.full((len(harmonics),), 1 / len(harmonics)),
            ssnr=torch.ones(n_rings),
            own_gain=torch.zeros(len(harmonics)),
            sigma_offset=_SIGMA_OFFSET,
            group_scale=torch.ones(int(source.group_numbers.max()) + 1),
            resolution=1 / (n_rings * self.spacing),
            changes=(1.0, 180.0, 0.0),
            has_references=references is not None,
        )

    def advance(self, state: EmState, progress: Progress | None = None) -> EmState:
        """Do one iteration.

        Parameters
        ----------
        state
            From `start`, `advance` or a checkpoint.
        progress
            Called with the particles done and in all.
        """
        stage = self._stage(
            state.iteration,
            _data_rings(state),
            has_references=state.has_references,
            fine_from=state.fine_from,
        )
        basis = self._basis(stage.n_rings)
        harmonics = change_basis(state.harmonics, self._basis(state.n_rings), basis)
        if self.parameters.update and not state.has_references:
            wanted = class_count(state.iteration, self.parameters)
            harmonics = split_classes(
                harmonics, state.shares, wanted, seed=self.parameters.seed + state.iteration
            )
        n = len(self.source)
        indices = subset_of(state.visited, stage.subset, n, seed=self.parameters.seed)
        works = {d: self._expectation(state, stage, harmonics, d) for d in set(self.devices)}
        shards = self._workers.map(works, self._shards(indices, stage, len(harmonics)))
        poses = state.poses.copy()
        totals = merge_shards(_counted(_written(shards, poses), len(indices), progress))
        fresh = self._maximise(state, stage, totals, harmonics)
        if stage.finds_junk:
            self._find_junk(poses, state, stage, works, len(harmonics))
        changes = _changes(state.poses, poses, indices)
        p = self.parameters
        if p.center_classes and p.update and p.align and not stage.is_fine and p.offset_range > 0:
            moved = centre_classes(
                fresh.harmonics, poses, self._sampler(stage.n_rings), most=p.offset_range
            )
            fresh = replace(fresh, harmonics=moved)
        iteration = state.iteration + 1
        has_all = len(harmonics) == len(state.shares) == self._final_count(state)
        fine_from = state.fine_from
        if fine_from is None and has_all and not stage.is_hard and _within(changes, _SETTLED):
            fine_from = iteration
        is_still = stage.is_fine and _within(changes, _STILL)
        is_over = fine_from is not None and iteration >= fine_from + fine_iterations(
            self.parameters
        )
        return replace(
            fresh,
            iteration=iteration,
            poses=poses,
            visited=(state.visited + len(indices)) % n,
            n_rings=stage.n_rings,
            resolution=basis.resolution,
            changes=changes,
            fine_from=fine_from,
            is_finished=is_still or is_over or iteration >= self.parameters.iterations,
        )

    def _final_count(self, state: EmState) -> int:
        return len(state.shares) if state.has_references else self.parameters.classes

    def _find_junk(
        self,
        poses: Poses,
        state: EmState,
        stage: Stage,
        works: dict[str, Expectation],
        n_classes: int,
    ) -> None:
        """Align images of noise like the particles and write who does no better.

        Particles are compared without what they gain by being a part of their average.
        """
        places = _sample(len(self.source), _NOISE_IMAGES, seed=state.iteration)
        noise = NoiseImages(
            self.source,
            self._geometry(stage.n_rings),
            noise=state.noise,
            frequencies=state.ring_frequencies,
            seed=self.parameters.seed + state.iteration,
        )
        works = {d: replace(w, images=noise) for d, w in works.items()}
        found = list(self._workers.map(works, self._shards(places, stage, n_classes)))
        of_noise = np.concatenate([shard.poses.log_likelihood for shard in found])
        seen = poses.seen
        own = state.own_gain.numpy()[poses.class_index[seen] % len(state.own_gain)]
        alone = (poses.log_likelihood[seen] - own * state.poses.membership[seen]).astype(np.float32)
        poses.junk_probability[seen] = junk_probability(alone, of_noise)

    def _maximise(
        self, state: EmState, stage: Stage, totals: IterationSums, harmonics: Tensor
    ) -> EmState:
        p, basis = self.parameters, self._basis(stage.n_rings)
        counts = totals.sums.counts
        shares = (counts / counts.sum().clamp_min(1e-9)).float()
        if stage.is_hard:
            noise, scales = state.noise, state.group_scale
        else:
            share = self._sampler(stage.n_rings).share
            noise = update_noise(state.noise, totals, basis, share=share)
            scales = state.group_scale
            if p.scale_correction:
                scales = find_scales(scales, totals)
        ssnr, own_gain = state.ssnr, state.own_gain
        if p.update:
            averages = self._regularised(totals.sums, basis)
            harmonics, ssnr = averages.harmonics, averages.ssnr
            own_gain = 2 * averages.freedom / counts.clamp_min(1).float()
        return replace(
            state,
            harmonics=harmonics,
            noise=noise,
            shares=shares,
            ssnr=ssnr,
            own_gain=own_gain,
            sigma_offset=find_sigma_offset(totals),
            group_scale=scales,
        )

    def _expectation(
        self, state: EmState, stage: Stage, harmonics: Tensor, device: str
    ) -> Expectation:
        p = self.parameters
        sampler = self._sampler(stage.n_rings, device)
        is_fixed = state.has_references and not p.update
        shifts = (
            _shift_grid(stage.offset_range, stage.offset_step) if p.align else torch.zeros(1, 2)
        )
        return Expectation(
            images=self._working_images(stage.n_rings),
            sampler=sampler,
            references=prepare_references(harmonics.to(device), sampler.basis),
            n_classes=len(harmonics),
            rotations=make_rotations(sampler.basis, step=None if stage.is_fine else p.psi_step)
            if p.align
            else no_rotation(sampler.basis),
            shifts=shifts.to(device),
            noise=state.noise[:, : stage.n_rings],
            poses=state.poses,
            sigma_offset=state.sigma_offset,
            group_scale=state.group_scale,
            score="correlation"
            if stage.is_hard or is_fixed or (state.has_references and state.iteration == 0)
            else "likelihood",
            is_hard=stage.is_hard,
            refines=stage.is_fine and p.align,
            aligns=p.align,
            n_candidates=_CANDIDATES,
            ctf=p.ctf,
            fills_noise=p.fill == "noise",
            corrects_norm=p.norm_correction,
            seed=p.seed,
        )

    def _shards(
        self, indices: NDArray[np.int64], stage: Stage, n_classes: int
    ) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Shards of the particles with the size of their tiles."""
        n_shifts = len(_shift_grid(stage.offset_range, stage.offset_step))
        columns = _TILE_COLUMNS if self.devices[0] == "cpu" else _DEVICE_COLUMNS
        tile = max(
            8, min(64 if columns == _TILE_COLUMNS else 4096, columns // (n_classes * n_shifts))
        )
        edges = [*range(0, len(indices), tile * _SHARD_TILES), len(indices)]
        for start, end in pairwise(edges):
            yield indices[start:end], tile

    def _stage(
        self, iteration: int, data_rings: int, *, has_references: bool, fine_from: int | None = None
    ) -> Stage:
        return stage_of(
            iteration,
            self.parameters,
            most_rings=self.most_rings,
            data_rings=data_rings,
            n_particles=len(self.source),
            has_references=has_references,
            fine_from=fine_from,
        )

    def _first_noise(self) -> Tensor:
        """Power of the images, unmasked and without their CTF: the noise, and some signal."""
        indices = _sample(len(self.source), _POWER_SAMPLE, seed=self.parameters.seed)
        basis = self._basis(self.most_rings)
        flat = torch.ones(len(self.source.is_premultiplied), basis.n_rings)
        state = self._blank_state(flat)
        _, image, ctf, counts = self._sum_fixed(state, indices, self.most_rings, n_classes=1)
        total = image.sum(0) / ctf.sum(0).clamp_min(1e-6)
        own = image / ctf.clamp_min(1e-6)
        mean = torch.where(counts[:, None] >= _FEWEST_IMAGES, own, total)
        return (mean / self._sampler(self.most_rings).share).clamp_min(1e-12).float()

    def _random_averages(self, n_rings: int, noise: Tensor) -> Tensor:
        """Averages of random particles at random rotations: what a cold run begins with."""
        n_classes = class_count(0, self.parameters)
        most = max(_PER_SEED * n_classes, 2 * _POWER_SAMPLE)
        indices = _sample(len(self.source), most, seed=self.parameters.seed + 1)
        state = self._blank_state(noise)
        sums, *_ = self._sum_fixed(state, indices, n_rings, n_classes=n_classes)
        return self._regularised(sums, self._basis(n_rings)).harmonics

    def _sum_fixed(
        self, state: EmState, indices: NDArray[np.int64], n_rings: int, *, n_classes: int
    ) -> tuple[RingSums, Tensor, Tensor, Tensor]:
        """Sum images in turn into classes, each at a random rotation."""
        generator = np.random.default_rng(self.parameters.seed)
        device = self.devices[0]
        empty = torch.zeros(n_classes, n_rings, self._basis(n_rings).n_orders)
        stage = Stage(
            n_rings=n_rings,
            offset_range=0,
            offset_step=1,
            is_hard=False,
            is_fine=False,
            finds_junk=False,
            subset=0,
        )
        work = self._expectation(state, stage, empty.to(torch.complex64), device)
        sums, image, ctf, counts = sum_fixed(
            work,
            indices,
            class_index=generator.permutation(len(indices)) % n_classes,
            psi=generator.uniform(0, 2 * np.pi, len(indices)).astype(np.float32),
            tile_size=64,
            workspace=Workspace(device=device),
        )
        on_cpu = RingSums(
            numerator=sums.numerator.cpu(),
            denominator=sums.denominator.cpu(),
            counts=sums.counts.cpu(),
        )
        return on_cpu, image.cpu(), ctf.cpu(), counts.cpu()

    def _blank_state(self, noise: Tensor) -> EmState:
        return EmState(
            iteration=0,
            is_finished=False,
            poses=self._first_poses,
            harmonics=torch.zeros(0),
            n_rings=0,
            noise=noise,
            ring_frequencies=torch.zeros(0),
            shares=torch.zeros(0),
            ssnr=torch.zeros(0),
            own_gain=torch.zeros(0),
            sigma_offset=_SIGMA_OFFSET,
            group_scale=torch.ones(int(self.source.group_numbers.max()) + 1),
            resolution=0.0,
            changes=(1.0, 180.0, 0.0),
        )

    def _regularised(self, sums: RingSums, basis: RingBasis) -> RegularisedAverages:
        if basis.n_rings not in self._mask_noise:
            self._mask_noise[basis.n_rings] = mask_noise(
                basis, mask_diameter=self.mask_diameter, mask_edge=self.mask_edge
            )
        return regularise(
            sums,
            basis,
            self._mask_noise[basis.n_rings],
            regularisation=self.parameters.regularisation,
            coupling=_COUPLING,
        )

    def _geometry(self, n_rings: int) -> Geometry:
        """Sizes of the images that hold so many rings."""
        return plan_geometry(
            box_size=self.source.box_size,
            pixel_size=self.source.pixel_size,
            mask_diameter=self.mask_diameter,
            mask_edge=self.mask_edge,
            offset_range=self.parameters.offset_range,
            resolution=1 / (n_rings * self.spacing),
        )

    def _working_images(self, n_rings: int) -> WorkingImages:
        if self._images is None or self._images[0] != n_rings:
            geometry = self._geometry(n_rings)
            images = WorkingImages(self.source, geometry, keep_bytes=self._keep_bytes)
            self._images = (n_rings, images)
        return self._images[1]

    def _basis(self, n_rings: int) -> RingBasis:
        return self._sampler(n_rings).basis

    def _basis_without_sampler(self, n_rings: int, device: str = "cpu") -> RingBasis:
        return make_ring_basis(
            resolution=1 / (n_rings * self.spacing),
            diameter=self.mask_diameter + 2 * self.mask_edge,
            box=self.geometry.box,
            spacing=self.spacing,
            device=device,
        )

    def _sampler(self, n_rings: int, device: str = "cpu") -> RingSampler:
        key = (n_rings, device)
        if key not in self._samplers:
            is_filled = self.parameters.fill == "noise"
            geometry = self._geometry(n_rings)
            self._samplers[key] = make_ring_sampler(
                self._basis_without_sampler(n_rings, device),
                size=geometry.working_size,
                pixel_size=geometry.working_pixel,
                mask_diameter=1e9 if is_filled else self.mask_diameter,
                mask_edge=self.mask_edge,
            )
        return self._samplers[key]


def _mask_diameter(source: ImageSource, parameters: ClassificationParameters) -> float:
    """Choose the diameter of the flat part of the mask, A."""
    side = source.box_size * source.pixel_size
    wanted = parameters.mask_diameter or min(1.2 * parameters.diameter, side)
    if wanted > side * (1 + 1e-6) or parameters.diameter > side * (1 + 1e-6):
        is_mask = parameters.mask_diameter is not None and wanted > side
        raise ParameterError(
            "mask_diameter" if is_mask else "diameter",
            must=f"fit in the box of {side:.0f} A",
            got=f"{wanted if is_mask else parameters.diameter:g} A",
            remedy="Lower it, or extract particles in a larger box",
        )
    return wanted


def _require_enough(source: ImageSource, parameters: ClassificationParameters) -> None:
    if len(source) < parameters.classes:
        raise ParameterError(
            "classes",
            must=f"be at most the number of particles, {len(source)}",
            got=parameters.classes,
            remedy="Lower --classes",
        )


def _most_rings(source: ImageSource, parameters: ClassificationParameters, spacing: float) -> int:
    """Rings up to the resolution limit."""
    nyquist = 2 * source.pixel_size
    limit = parameters.resolution_limit or max(_FINEST, 1.05 * nyquist)
    if limit < nyquist * (1 - 1e-6):
        raise ParameterError(
            "resolution_limit",
            must=f"be at least twice the pixel size, {nyquist:g} A",
            got=f"{limit:g} A",
            remedy="Raise --resolution-limit",
        )
    return max(3, min(_MOST_RINGS, int(1 / (limit * spacing))))


def _sample(n: int, most: int, *, seed: int) -> NDArray[np.int64]:
    """At most so many of n particles, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _shift_grid(reach: float, step: float) -> Tensor:
    """Shifts on a square grid inside a circle, (S, 2) A; the first of them is none."""
    n = int(reach / step + 1e-6)
    axis = torch.arange(-n, n + 1) * step
    grid = torch.cartesian_prod(axis, axis).float()
    grid = grid[grid.norm(dim=1) <= reach * (1 + 1e-6)]
    return grid[grid.norm(dim=1).argsort(stable=True)]


def _data_rings(state: EmState) -> int:
    """Rings up to the last with signal, and a few more."""
    has_signal = (state.ssnr > _SIGNAL).nonzero()
    last = int(has_signal.max()) + 1 if len(has_signal) else 0
    return max(last + _RINGS_BEYOND, _LEAST_RINGS)


def _written(shards: Iterator[ShardResult], poses: Poses) -> Iterator[ShardResult]:
    """Write the poses of each shard where they belong."""
    for shard in shards:
        for name in Poses.__annotations__:
            getattr(poses, name)[shard.indices] = getattr(shard.poses, name)
        yield shard


def _counted(
    shards: Iterator[ShardResult], total: int, progress: Progress | None
) -> Iterator[ShardResult]:
    done = 0
    for shard in shards:
        done += len(shard.indices)
        if progress:
            progress(done, total)
        yield shard


def _within(changes: tuple[float, float, float], limits: tuple[float, float, float]) -> bool:
    return all(c <= limit for c, limit in zip(changes, limits, strict=True))


def _changes(before: Poses, after: Poses, indices: NDArray[np.int64]) -> tuple[float, float, float]:
    """Share that changed class, mean turn (deg) and rms shift along an axis (A) of those seen."""
    known = indices[before.seen[indices]]
    if not len(known):
        return (1.0, 180.0, 0.0)
    turn = (after.psi[known] - before.psi[known] + 180) % 360 - 180
    same = after.class_index[known] == before.class_index[known]
    dx = after.shift_x[known] - before.shift_x[known]
    dy = after.shift_y[known] - before.shift_y[known]
    return (
        float(1 - same.mean()),
        float(np.abs(turn[same]).mean()) if same.any() else 180.0,
        float(np.sqrt((dx**2 + dy**2).mean() / 2)),
    )
