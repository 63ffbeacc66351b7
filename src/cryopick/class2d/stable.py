"""Stable, reproducible 2D classes: the idea of ISAC (Yang et al. 2012) on the alignment engine.

    classifier = StableClassifier(source, parameters)
    for state in classifier.run():
        ...                      # save state.to_arrays() here, if it is to be resumed

A run aligns all images to one average, to centre them. A generation then divides the images that
belong to no class yet several times independently into classes of about equal size
(`stable_partition`), matches the partitions (`stable_consensus`) and judges what they agree upon
(`stable_judge`). Images that are rejected return in the next generation. A main iteration ends
with a generation that finds classes for less than a fifth of its images; the run ends with a main
iteration whose first generation does so. Accepted classes are refined then (`stable_final`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryopick.class2d.em_state import ImageSource
from cryopick.class2d.em_workers import one_core
from cryopick.class2d.stable_consensus import Consensus, find_consensus, join_classes
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_final import refine_state
from cryopick.class2d.stable_images import StableImages, phase_randomised, prepare_images
from cryopick.class2d.stable_judge import Judgement, judge
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import (
    Partition,
    Plan,
    Shares,
    next_partition,
    partition_plan,
)
from cryopick.class2d.stable_prealign import (
    Prealignment,
    centred_poses,
    next_prealignment,
    start_prealignment,
)
from cryopick.class2d.stable_start import FirstClasses
from cryopick.class2d.stable_state import StableClasses, StableState
from cryopick.class2d.stable_workers import BlockWorkers, Run
from cryopick.errors import DataError

__all__ = ["StableClassifier"]

_DECOYS = 400
_LEAST_FOUND = 0.2  # of a pool, for the rest to be divided again: beyond that, junk gathers
_AGREED = 0.5  # share of images that stay in their class, for a partition to have settled
_LEAST_GAIN = 0.05  # of that share from pass to pass, for it to go on
_FEWEST_CORE = 10  # images, of a candidate class
_JUDGED_RINGS = 2  # beyond the last ring with signal
_FEWEST_RINGS = 14


class StableClassifier:
    """A stable classification of the images of a source.

    Parameters
    ----------
    source
        White particles.
    parameters
        What the user chose.
    filament_angle
        (n,) deg from x towards y, of the filament in each image.
    threads
        Cores to use; the result does not depend on it.
    device
        Where images are compared.
    images
        Of an earlier `StableClassifier` of the same source and parameters; prepared if not given.
    run
        Workers in the place of `threads`; `close` closes them.
    """

    def __init__(
        self,
        source: ImageSource,
        parameters: StableParameters,
        *,
        filament_angle: NDArray[np.float64] | None = None,
        threads: int = 1,
        device: str = "cpu",
        images: StableImages | None = None,
        run: Run | None = None,
    ) -> None:
        self.parameters = parameters
        self.images_per_class = parameters.images_per_class(len(source))
        self.least_size = parameters.least_size(len(source))
        if len(source) < 2 * self.images_per_class:
            raise DataError(
                "the particles",
                must=f"be at least {2 * self.images_per_class}, two classes",
                got=f"{len(source)}",
                remedy="Lower --img-per-grp",
            )
        with one_core():
            self.images = images or prepare_images(
                source, parameters, filament_angle=filament_angle
            )
        self._threads, self._device = threads, device
        self._run = run or BlockWorkers(threads, device)
        self._first: tuple[tuple[int, int, int], FirstClasses] | None = None
        self.engine = StableEngine(self.images, ring_step=parameters.rs, device=device)
        self.decoys = self._make_decoys()
        with one_core():
            self.engine.measure_power(self._run)
            self.decoys.measure_power(self._run)

    def close(self) -> None:
        """Stop the workers."""
        self._let_go()
        self._run.close()

    def run(self, state: StableState | None = None) -> Iterator[StableState]:
        """Go on to the end from a state, or from the start, and give every state on the way."""
        state = state or self.start()
        yield state
        while not state.is_finished:
            state = self.advance(state)
            yield state

    def start(self) -> StableState:
        """Make the state before anything has been done."""
        n, engine = len(self.images), self.engine
        most = engine.most_rings
        power, lens = engine.total_power(np.arange(n), most)
        noise = power / lens.clamp_min(1e-6) / engine.sampler(most).share
        first = start_prealignment(
            engine, noise, seed=self.parameters.seed, is_skipped=self.parameters.skip_prealignment
        )
        nobody = np.zeros(0, np.int64)
        state = StableState(
            phase="prealignment", main=1, generation=1, partition=0, step=0,
            noise=noise, n_rings=0, centred=first.poses, global_average=first.average,
            alignment=(0, 0, 0), pool=nobody, label=nobody, poses=Poses2d.empty(0),
            share_image=nobody, share_label=nobody, share_weight=np.zeros(0, np.float32),
            share_poses=Poses2d.empty(0), n_classes=0, agreement=0.0,
            partitions=np.zeros((0, 0), np.int64),
            run_poses=Poses2d.empty(0), class_index=np.full(n, -1, np.int64),
            pixel_error=np.full(n, np.nan, np.float32), significance=np.zeros(n, np.float32),
            member_poses=Poses2d.empty(n), classes=StableClasses.empty(self.images.shrink.size),
        )  # fmt: skip
        return self._open_generation(state, main=1, generation=1) if first.is_finished else state

    def advance(self, state: StableState) -> StableState:
        """Do one step: an iteration of the prealignment or of first classes, a pass, or judge."""
        state = replace(state, refinement=None)  # of classes that were the last, and are no more
        with one_core(), torch.no_grad():
            if state.phase == "prealignment":
                return self._prealign(state)
            if state.phase == "partition":
                return self._divide(state)
            return self._judge(state)

    def refined(
        self, state: StableState, keep: Callable[[StableState], None] = lambda state: None
    ) -> StableState:
        """Refine the classes that a run has accepted, and choose their members again.

        This ends a run. It is apart from `run`, whose states can be gone on from: here members
        leave their classes, and others come. `keep` is given states of the refinement on the way;
        called with one of these, this goes on to the same result.
        """
        if not self.parameters.refine:
            return state
        with one_core(), torch.no_grad():
            return refine_state(
                self.images, self.decoys.images, state, self.parameters,
                least=self.least_size, threads=self._threads, device=self._device, run=self._run,
                keep=keep,
            )  # fmt: skip

    def _make_decoys(self) -> StableEngine:
        n, seed = len(self.images), self.parameters.seed
        generator = np.random.default_rng([seed, 99])
        rows = np.sort(generator.permutation(n)[:_DECOYS])
        images = phase_randomised(
            self.images, rows, radius=self.images.shrink.radius + 4, seed=seed
        )
        return self.engine.with_images(images)

    def _prealign(self, state: StableState) -> StableState:
        stage, in_stage, done = state.alignment
        before = Prealignment(
            poses=state.centred, noise=state.noise, average=state.global_average,
            stage=stage, in_stage=in_stage, done=done, is_finished=False,
        )  # fmt: skip
        fresh = next_prealignment(self.engine, before, self.parameters, run=self._run)
        state = replace(
            state, centred=fresh.poses, global_average=fresh.average, step=state.step + 1,
            alignment=(fresh.stage, fresh.in_stage, fresh.done),
        )  # fmt: skip
        return self._open_generation(state, main=1, generation=1) if fresh.is_finished else state

    def _open_generation(self, state: StableState, *, main: int, generation: int) -> StableState:
        """Begin with the images that belong to no class."""
        pool = np.flatnonzero(state.class_index < 0)
        if len(pool) < 2 * self.images_per_class:
            return replace(state, phase="finished")
        state = replace(
            state, phase="partition", main=main, generation=generation, pool=pool,
            partitions=np.zeros((0, len(pool)), np.int64), run_poses=Poses2d.empty(0),
        )  # fmt: skip
        return replace(state, partition=0, step=0)

    def _begin(self, state: StableState) -> StableState:
        """Do an iteration of the first classes of a partition."""
        work = self._first_classes(state)
        if state.first is None:
            return replace(state, first=work.start())
        first = work.advance(state.first)
        if not first.is_finished:
            return replace(state, first=first)
        self._let_go()
        return _with_partition(
            replace(state, step=1, first=None), work.partition(first, state.noise)
        )

    def _first_classes(self, state: StableState) -> FirstClasses:
        """Give what is at work on the first classes of this partition; made once."""
        key = (state.main, state.generation, state.partition)
        if self._first is None or self._first[0] != key:
            self._let_go()
            generator = self._generator(state, state.partition, 0)
            work = FirstClasses(
                self.images, state.pool, centred_poses(state.centred, state.pool),
                n_classes=self._plan(state)[0].n_classes, seed=int(generator.integers(1 << 30)),
                threads=self._threads, device=self._device, run=self._run,
            )  # fmt: skip
            self._first = (key, work)
        return self._first[1]

    def _let_go(self) -> None:
        if self._first is not None:
            self._first[1].close()
            self._first = None

    def _plan(self, state: StableState) -> list[Plan]:
        n = len(state.pool)
        return partition_plan(self.parameters, n // self.images_per_class, n)

    def _generator(self, state: StableState, partition: int, step: int) -> np.random.Generator:
        key = [self.parameters.seed, state.main, state.generation, partition, step]
        return np.random.default_rng(key)

    def _divide(self, state: StableState) -> StableState:
        if state.step == 0:
            return self._begin(state)
        plans = self._plan(state)
        done = next_partition(
            self.engine, state.pool, _partition_of(state), plans[state.step - 1], self.parameters,
            run=self._run, generator=self._generator(state, state.partition, state.step + 1),
        )  # fmt: skip
        is_last = state.step >= len(plans)
        state = _with_partition(replace(state, step=_next_step(state, done, plans)), done)
        if not is_last:
            return state
        partitions = np.concatenate([state.partitions, done.label[None]])
        poses = state.run_poses.beside(done.poses)
        state = replace(state, partitions=partitions, run_poses=poses)
        if state.partition + 1 < self.parameters.indep_run:
            return replace(state, partition=state.partition + 1, step=0)
        return replace(state, phase="judgement", step=0)

    def _judge(self, state: StableState) -> StableState:
        p = self.parameters
        candidates = find_consensus(state.partitions, fewest=_FEWEST_CORE)
        if not candidates:
            return self._close_generation(state)
        seed = int(self._generator(state, p.indep_run, 0).integers(1 << 30))
        n_rings = min(self.engine.rings_to(p.fh), max(state.n_rings, _FEWEST_RINGS) + _JUDGED_RINGS)
        runs = np.arange(len(state.run_poses)).reshape(state.partitions.shape)
        poses = [state.run_poses.take(one) for one in runs]

        def judged(labels: NDArray[np.int64], candidates: list[Consensus]) -> Judgement:
            return judge(
                self.engine, self.decoys, state.pool, labels, poses, candidates, p,
                least=self.least_size, n_rings=n_rings, noise=state.noise, seed=seed,
                run=self._run,
            )  # fmt: skip

        found = judged(state.partitions, candidates)
        if not found.is_accepted.any() and found.alike.max() + 1 < len(candidates):
            labels = join_classes(state.partitions, candidates, found.alike)
            candidates = find_consensus(labels, fewest=_FEWEST_CORE)
            found = judged(labels, candidates)
        counts = np.bincount(found.label[found.label >= 0], minlength=len(candidates))
        classes = StableClasses(
            main=np.full(len(candidates), state.main),
            generation=np.full(len(candidates), state.generation),
            is_accepted=found.is_accepted,
            n_core=np.array([len(c.members) for c in candidates]),
            n_members=counts,
            pixel_error=found.class_error,
            stable_share=found.stable_share,
            reproducibility=np.array([c.reproducibility for c in candidates], np.float32),
            averages=found.averages.numpy(),
        )
        state = _with_members(state, found)
        state = replace(state, classes=state.classes.extended(classes))
        return self._close_generation(state)

    def _close_generation(self, state: StableState) -> StableState:
        """Go on with the next generation, the next main iteration, or not at all."""
        share = np.float32((state.class_index >= 0).mean())
        state = replace(state, accounted=np.append(state.accounted, share))
        if (state.class_index[state.pool] >= 0).mean() >= _LEAST_FOUND:
            return self._open_generation(state, main=state.main, generation=state.generation + 1)
        limit = self.parameters.main_iter_limit
        if state.generation == 1 or state.main == limit:
            return replace(state, phase="finished")
        return self._open_generation(state, main=state.main + 1, generation=1)


def _next_step(state: StableState, done: Partition, plans: list[Plan]) -> int:
    """Go on with the next pass, or, when classes have settled, with the one that merges them."""
    merging = next(i for i, plan in enumerate(plans) if plan.merges_to is not None) + 1
    gain = done.agreement - state.agreement
    if state.step + 1 < merging and done.agreement > _AGREED and gain < _LEAST_GAIN:
        return merging
    return state.step + 1


def _partition_of(state: StableState) -> Partition:
    return Partition(
        label=state.label,
        poses=state.poses,
        shares=Shares(
            image=state.share_image,
            label=state.share_label,
            weight=state.share_weight,
            poses=state.share_poses,
        ),
        noise=state.noise,
        n_rings=state.n_rings,
        n_classes=state.n_classes,
        agreement=state.agreement,
    )


def _with_partition(state: StableState, one: Partition) -> StableState:
    return replace(
        state,
        label=one.label,
        poses=one.poses,
        share_image=one.shares.image,
        share_label=one.shares.label,
        share_weight=one.shares.weight,
        share_poses=one.shares.poses,
        noise=one.noise,
        n_rings=one.n_rings,
        n_classes=one.n_classes,
        agreement=one.agreement,
    )


def _with_members(state: StableState, found: Judgement) -> StableState:
    """Write down the members of the classes that have been accepted."""
    is_member = (found.label >= 0) & found.is_accepted[found.label]
    class_index, poses = (
        state.class_index.copy(),
        state.member_poses.take(np.arange(len(state.class_index))),
    )
    rows = state.pool[is_member]
    class_index[rows] = found.label[is_member] + len(state.classes)
    poses.put(rows, found.poses.take(np.flatnonzero(is_member)))
    error, significance = state.pixel_error.copy(), state.significance.copy()
    error[state.pool], significance[state.pool] = found.pixel_error, found.significance
    return replace(
        state, class_index=class_index, member_poses=poses, pixel_error=error,
        significance=significance,
    )  # fmt: skip
