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

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.references import prepare_references
from cryopick.alignment.rings import RingBasis, change_basis
from cryopick.alignment.search import Workspace, make_rotations, no_rotation
from cryopick.alignment.sums import RingSums
from cryopick.class2d.em_course import (
    SETTLED,
    STILL,
    Progress,
    data_rings,
    pose_changes,
    seen_by,
    within,
)
from cryopick.class2d.em_expect import Expectation, sum_fixed
from cryopick.class2d.em_images import WorkingImages
from cryopick.class2d.em_junk import NoiseImages, junk_probability
from cryopick.class2d.em_layout import Layout, shift_grid
from cryopick.class2d.em_maximise import (
    centre_classes,
    find_scales,
    find_sigma_offset,
    update_noise,
)
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_schedule import (
    Stage,
    class_count,
    fine_iterations,
    sample_of,
    stage_of,
    subset_of,
)
from cryopick.class2d.em_shards import CPU_TILES, FEWEST_TILE, Shard, cut_shards, tile_sizes
from cryopick.class2d.em_start import rings_of_averages, split_classes
from cryopick.class2d.em_state import EmState, ImageSource, Poses
from cryopick.class2d.em_sums import IterationSums
from cryopick.class2d.em_workers import SHARDS_AHEAD, ShardWorkers, Workers, one_core
from cryopick.class2d.ring_prior import RegularisedAverages, regularise
from cryopick.errors import ParameterError

__all__ = ["EmClassifier"]

_SIGMA_OFFSET = 10.0  # A, at the start
_CANDIDATES = 8  # pairs of class and shift that share an image's posterior
_COUPLING = 0.5  # see `ring_prior`
_POWER_SAMPLE = 500  # images the first noise spectrum is measured on
_FEWEST_IMAGES = 20  # an optics group with fewer takes the noise of all
_PER_SEED = 100  # images in an average a run begins with
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
    workers
        Who aligns the shards, in the place of `threads`.

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
        workers: ShardWorkers | None = None,
    ) -> None:
        self.source, self.parameters = source, parameters
        _require_enough(source, parameters)
        if any(d.startswith("mps") for d in devices):
            raise ParameterError(
                "device",
                must="be cpu or cuda, as mps lacks numbers of double precision",
                got=", ".join(devices),
                remedy="Change --device",
            )
        self._first_poses = poses or Poses.empty(len(source))
        first = self._first_poses
        farthest = float(np.hypot(first.shift_x, first.shift_y).max(initial=0.0))
        self.layout = Layout(source, parameters, farthest=farthest)
        self.geometry = self.layout.geometry(self.layout.most_rings)
        self._keep_bytes = keep_bytes
        self._images: tuple[int, WorkingImages] | None = None
        own = tuple(d for d in devices if d != "cpu")
        self.devices = own or ("cpu",) * max(threads, 1)
        self._workers = Workers(self.devices)
        self._aligners: ShardWorkers = workers or self._workers

    @property
    def mask_diameter(self) -> float:
        """Of the flat part of the mask, A."""
        return self.layout.mask_diameter

    def close(self) -> None:
        """Stop the threads."""
        self._aligners.close()
        self._workers.close()

    @property
    def bytes_per_image(self) -> int:
        """What one particle takes while it is kept ready."""
        return 4 * self.geometry.working_size**2

    @property
    def fixed_bytes(self) -> int:
        """What averages, sums, buffers and matrices take, whatever the number of particles."""
        basis = self.layout.bare_basis(self.layout.most_rings)
        k, values, p = self.parameters.n_classes, basis.n_rings * basis.n_orders, self.parameters
        n_shifts = len(shift_grid(p.offset_range, 0.5 * p.offset_step)) if p.align else 1
        columns = max(CPU_TILES.columns, FEWEST_TILE * n_shifts)
        largest = tile_sizes(self._aligners.device).largest
        sums = 16 * k * values
        buffers = 4 * columns * 5 * basis.n_orders + 8 * k * basis.n_orders * 512
        images = 32 * largest * basis.n_rings * basis.n_angles * 12
        matrices = 2 * 4 * self.geometry.working_size**2 * basis.n_rings * basis.n_angles
        workers = len(self.devices)
        waiting = (SHARDS_AHEAD + 1) * workers
        return int(sums * (waiting + 8) + (buffers + images) * workers + matrices)

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
        with one_core(), torch.no_grad():
            noise = self._first_noise()
            if references is None:
                n_rings = self._stage(self._blank_state(noise, n_rings=0)).n_rings
                harmonics = self._random_averages(n_rings, noise)
                return self._first_state(harmonics, n_rings, noise)
            n_rings = self.layout.most_rings
            harmonics = rings_of_averages(
                references,
                self.layout.sampler(n_rings),
                self.layout.geometry(n_rings),
                pixel_size=reference_pixel_size or self.source.pixel_size,
            )
            state = replace(self._first_state(harmonics, n_rings, noise), has_references=True)
            return replace(state, harmonics=harmonics * self._grey_scale(state))

    def _first_state(self, harmonics: Tensor, n_rings: int, noise: Tensor) -> EmState:
        return replace(
            self._blank_state(noise, n_rings=n_rings),
            harmonics=harmonics,
            shares=torch.full((len(harmonics),), 1 / len(harmonics)),
            own_gain=torch.zeros(len(harmonics)),
        )

    def _grey_scale(self, state: EmState) -> float:
        """Factor that brings references to the grey scale of the images."""
        stage = replace(self._stage(state), is_hard=True, is_fine=False, finds_junk=False)
        works = self._works(state, stage, state.harmonics)
        shards = self._shards(self._first_sample(), stage, len(state.harmonics))
        totals = self._aligners.expect(works, shards, lambda *_: None)
        return max(float(totals.group_cross.sum() / totals.group_norm.sum().clamp_min(1e-30)), 1e-6)

    def advance(self, state: EmState, progress: Progress | None = None) -> EmState:
        """Do one iteration.

        Parameters
        ----------
        state
            From `start`, `advance` or a checkpoint.
        progress
            Called with the particles done and in all.
        """
        with one_core(), torch.no_grad():
            return self._advance(state, progress)

    def _advance(self, state: EmState, progress: Progress | None) -> EmState:
        p, n, stage = self.parameters, len(self.source), self._stage(state)
        harmonics = change_basis(
            state.harmonics, self.layout.basis(state.n_rings), self.layout.basis(stage.n_rings)
        )
        if p.update and not state.has_references and not stage.is_fine:
            wanted = max(class_count(state.iteration, p), len(harmonics))
            harmonics = split_classes(
                harmonics, state.shares, wanted, seed=p.seed + state.iteration
            )
        indices = subset_of(state.visited, stage.subset, n, seed=p.seed)
        works = self._works(state, stage, harmonics)
        poses, shards = state.poses.copy(), self._shards(indices, stage, len(harmonics))
        totals = self._aligners.expect(works, shards, seen_by(poses, len(indices), progress))
        fresh = self._maximise(state, stage, totals, harmonics)
        if stage.finds_junk:
            self._find_junk(poses, state, stage, works, len(harmonics))
        changes = pose_changes(state.poses, poses, indices)
        if p.center_classes and p.update and p.align and not stage.is_fine and p.offset_range > 0:
            sampler = self.layout.sampler(stage.n_rings)
            moved = centre_classes(
                fresh.harmonics, poses, indices, sampler, most=p.offset_range, diameter=p.diameter
            )
            fresh = replace(fresh, harmonics=moved)
        return replace(
            fresh,
            poses=poses,
            visited=(state.visited + len(indices)) % n,
            n_rings=stage.n_rings,
            resolution=self.layout.resolution(stage.n_rings),
            changes=changes,
            **self._progress_of(state, stage, fresh, changes),
        )

    def _progress_of(
        self, state: EmState, stage: Stage, fresh: EmState, changes: tuple[float, float, float]
    ) -> dict[str, Any]:
        """Tell whether the classes have settled, and whether the run is over."""
        p, iteration, fine_from = self.parameters, state.iteration + 1, state.fine_from
        has_all = len(fresh.harmonics) == len(state.shares) == self._final_count(state)
        has_rings = min(data_rings(fresh), self.layout.most_rings) <= stage.n_rings
        if fine_from is None and not stage.is_hard and has_all and has_rings:
            fine_from = iteration if within(changes, SETTLED) else None
        is_over = iteration >= p.iterations
        if stage.is_fine and has_rings and fine_from is not None:
            is_long = iteration >= fine_from + fine_iterations(p)
            is_over = is_over or is_long or within(changes, STILL)
        return {"iteration": iteration, "fine_from": fine_from, "is_finished": is_over}

    def _final_count(self, state: EmState) -> int:
        return len(state.shares) if state.has_references else self.parameters.n_classes

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
        places = sample_of(len(self.source), _NOISE_IMAGES, seed=state.iteration)
        noise = NoiseImages(
            self.source,
            self.layout.geometry(stage.n_rings),
            noise=state.noise,
            frequencies=state.ring_frequencies,
            norm=state.poses.norm if self.parameters.norm_correction else None,
            seed=self.parameters.seed + state.iteration,
        )
        works = {d: replace(w, images=noise) for d, w in works.items()}
        found: list[NDArray[np.float32]] = []
        shards = self._shards(places, stage, n_classes)
        self._aligners.expect(works, shards, lambda _, fresh: found.append(fresh.log_likelihood))
        of_noise = np.concatenate(found)
        seen = poses.seen
        is_same = poses.class_index[seen] == state.poses.class_index[seen]
        own = state.own_gain.numpy()[poses.class_index[seen] % len(state.own_gain)] * is_same
        alone = (poses.log_likelihood[seen] - own * state.poses.membership[seen]).astype(np.float32)
        poses.junk_probability[seen] = junk_probability(alone, of_noise)

    def _maximise(
        self, state: EmState, stage: Stage, totals: IterationSums, harmonics: Tensor
    ) -> EmState:
        p, basis = self.parameters, self.layout.basis(stage.n_rings)
        counts = totals.sums.counts
        shares = (counts / counts.sum().clamp_min(1e-9)).float()
        if stage.is_hard:
            noise, scales = state.noise, state.group_scale
        else:
            share = self.layout.sampler(stage.n_rings).share
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
        sampler = self.layout.sampler(stage.n_rings, device)
        shifts = torch.zeros(1, 2)
        if p.align:
            shifts = shift_grid(stage.offset_range, stage.offset_step)
        return Expectation(
            images=self._working_images(stage.n_rings),
            sampler=sampler,
            references=prepare_references(harmonics.to(device), sampler.basis),
            rotations=make_rotations(sampler.basis, step=None if stage.is_fine else p.psi_step)
            if p.align
            else no_rotation(sampler.basis),
            shifts=shifts.to(device),
            noise=state.noise[:, : stage.n_rings],
            poses=state.poses,
            sigma_offset=state.sigma_offset,
            largest_shift=min(p.offset_range, 0.25 * p.offset_step),
            group_scale=state.group_scale,
            is_hard=stage.is_hard,
            refines=stage.is_fine and p.align,
            aligns=p.align,
            n_candidates=_CANDIDATES,
            ctf=p.ctf,
            fills_noise=p.fill == "noise",
            corrects_norm=p.norm_correction,
            seed=p.seed,
        )

    def _works(self, state: EmState, stage: Stage, harmonics: Tensor) -> dict[str, Expectation]:
        return {d: self._expectation(state, stage, harmonics, d) for d in set(self.devices)}

    def _shards(self, indices: NDArray[np.int64], stage: Stage, n_classes: int) -> Iterator[Shard]:
        """Shards of the particles with the size of their tiles."""
        n_shifts = len(shift_grid(stage.offset_range, stage.offset_step))
        sizes = tile_sizes(self._aligners.device)
        return cut_shards(indices, sizes, n_classes=n_classes, n_shifts=n_shifts)

    def _stage(self, state: EmState) -> Stage:
        return stage_of(
            state.iteration,
            self.parameters,
            most_rings=self.layout.most_rings,
            data_rings=data_rings(state),
            n_particles=len(self.source),
            has_references=state.has_references,
            fine_from=state.fine_from,
            has_seen_all=bool(state.poses.seen.all()),
        )

    def _first_sample(self) -> NDArray[np.int64]:
        """Draw the particles that noise and grey scale are first measured on."""
        return sample_of(len(self.source), _POWER_SAMPLE, seed=self.parameters.seed)

    def _first_noise(self) -> Tensor:
        """Power of the images, unmasked and without their CTF: the noise, and some signal."""
        indices = self._first_sample()
        basis = self.layout.basis(self.layout.most_rings)
        flat = torch.ones(len(self.source.is_premultiplied), basis.n_rings)
        state = self._blank_state(flat, n_rings=basis.n_rings)
        found = self._sum_fixed(state, indices, self.layout.most_rings, n_classes=1)
        image, ctf, counts = found.image_power, found.ctf_power, found.optics_counts
        total = image.sum(0) / ctf.sum(0).clamp_min(1e-6)
        own = image / ctf.clamp_min(1e-6)
        mean = torch.where(counts[:, None] >= _FEWEST_IMAGES, own, total)
        return (mean / self.layout.sampler(self.layout.most_rings).share).clamp_min(1e-12).float()

    def _random_averages(self, n_rings: int, noise: Tensor) -> Tensor:
        """Averages of random particles at random rotations: what a cold run begins with."""
        n_classes = class_count(0, self.parameters)
        most = max(_PER_SEED * n_classes, 2 * _POWER_SAMPLE)
        indices = sample_of(len(self.source), most, seed=self.parameters.seed + 1)
        state = self._blank_state(noise, n_rings=n_rings)
        sums = self._sum_fixed(state, indices, n_rings, n_classes=n_classes).sums
        return self._regularised(sums, self.layout.basis(n_rings)).harmonics

    def _sum_fixed(
        self, state: EmState, indices: NDArray[np.int64], n_rings: int, *, n_classes: int
    ) -> IterationSums:
        """Sum images in turn into classes, each at a random rotation."""
        generator = np.random.default_rng(self.parameters.seed)
        device = self.devices[0]
        empty = torch.zeros(n_classes, n_rings, self.layout.basis(n_rings).n_orders)
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
        return sum_fixed(
            work,
            indices,
            class_index=generator.permutation(len(indices)) % n_classes,
            psi=generator.uniform(0, 2 * np.pi, len(indices)).astype(np.float32)
            if self.parameters.align
            else np.deg2rad(self._first_poses.psi[indices]),
            tile_size=64,
            workspace=Workspace(device=device),
        ).cpu()

    def _blank_state(self, noise: Tensor, *, n_rings: int) -> EmState:
        return EmState(
            iteration=0,
            is_finished=False,
            poses=self._first_poses,
            harmonics=torch.zeros(0),
            n_rings=n_rings,
            noise=noise,
            ring_frequencies=self.layout.basis(self.layout.most_rings).frequencies,
            shares=torch.zeros(0),
            ssnr=torch.ones(max(n_rings, 1)),
            own_gain=torch.zeros(0),
            sigma_offset=_SIGMA_OFFSET,
            group_scale=torch.ones(int(self.source.group_numbers.max()) + 1),
            resolution=self.layout.resolution(max(n_rings, 1)),
            changes=(1.0, 180.0, 0.0),
        )

    def _regularised(self, sums: RingSums, basis: RingBasis) -> RegularisedAverages:
        return regularise(
            sums,
            basis,
            self.layout.mask_noise(basis.n_rings),
            share=self.layout.sampler(basis.n_rings).share,
            regularisation=self.parameters.regularisation,
            coupling=_COUPLING,
        )

    def _working_images(self, n_rings: int) -> WorkingImages:
        if self._images is None or self._images[0] != n_rings:
            geometry = self.layout.geometry(n_rings)
            images = WorkingImages(self.source, geometry, keep_bytes=self._keep_bytes)
            self._images = (n_rings, images)
        return self._images[1]


def _require_enough(source: ImageSource, parameters: ClassificationParameters) -> None:
    if len(source) < parameters.n_classes:
        raise ParameterError(
            "classes",
            must=f"be at most the number of particles, {len(source)}",
            got=parameters.n_classes,
            remedy="Lower --classes",
        )
