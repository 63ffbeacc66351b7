"""2D classification of particles that arrive while it runs, in rounds.

    first = StreamClassifier(source, parameters)          # the particles that have arrived
    state = first.create()                                # or begin(references)
    later = StreamClassifier(longer_source, parameters)   # the same particles, and more
    state = later.extend(state)

`create` makes classes from a cold start as `em` does. `extend` makes them anew from a sample of
all particles, beginning with those there are, and then assigns every particle to one version of
them. After `begin` the references stay as they are, and `extend` assigns the new particles alone:
what is found for a particle does not depend on how the stream was cut into rounds.

A round is a new classifier over a source that begins with the same particles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_course import Progress
from cryopick.class2d.em_junk import junk_probability
from cryopick.class2d.em_schedule import Stage
from cryopick.class2d.em_start import split_classes
from cryopick.class2d.em_state import EmState, ImageSource, Poses
from cryopick.class2d.em_workers import one_core
from cryopick.class2d.stream_basis import CovarianceSums, ReducedBasis
from cryopick.class2d.stream_classes import ClassChange, compare_classes, find_changes
from cryopick.class2d.stream_engine import SAMPLE, Part, StreamEngine, grown
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_state import JunkCurve, StreamState, reservoir
from cryopick.errors import ParameterError

__all__ = ["StreamClassifier"]

_ITERATIONS = 3  # that make the classes of a later round
_SUBDIVIDING = 8  # that part a class
_DIFFERENCE = 0.3  # of the two parts of a split class, in its own standard deviations


class StreamClassifier:
    """One round of a stream.

    Parameters
    ----------
    source
        All particles that have arrived, white, in order of arrival.
    parameters
        What the user chose; the same in all rounds.
    devices
        Where to compute: one thread for each but the CPU.
    threads
        Threads on the CPU; results do not depend on their number.
    keep_bytes
        Memory for images made ready once.

    Raises
    ------
    ParameterError
        If the mask is larger than the box, or the resolution limit beyond what pixels hold.
    """

    fewest_to_begin = SAMPLE  # particles `begin` looks at; wait for them while a stream is open

    def __init__(
        self,
        source: ImageSource,
        parameters: StreamParameters,
        *,
        devices: Sequence[str] = ("cpu",),
        threads: int = 1,
        keep_bytes: int = 0,
    ) -> None:
        self.source, self.parameters = source, parameters
        self._engine = StreamEngine(
            source,
            parameters,
            n_classes=min(parameters.n_classes, len(source)),
            devices=devices,
            threads=threads,
            keep_bytes=keep_bytes,
        )

    @property
    def mask_diameter(self) -> float:
        """Of the flat part of the mask, A."""
        return self._engine.layout.mask_diameter

    @property
    def bytes_per_image(self) -> int:
        """What one particle takes while it is kept ready."""
        return self._engine.bytes_per_image

    @property
    def fixed_bytes(self) -> int:
        """What averages, sums, buffers and matrices take, whatever the number of particles."""
        return self._engine.fixed_bytes

    @property
    def noise_unit(self) -> float:
        """Fourier pixels of the images cut, squared: the unit of ``StreamState.em.noise``."""
        return float(self._engine.geometry.cut_size) ** 2

    def close(self) -> None:
        """Stop the threads."""
        self._engine.close()

    def create(self, progress: Progress | None = None) -> StreamState:
        """Make classes of all particles of the source, from a cold start.

        Parameters
        ----------
        progress
            Called with the particles done and in all, of each iteration.

        Raises
        ------
        ParameterError
            If there are fewer particles than classes.
        """
        n, p, engine = len(self.source), self.parameters, self._engine
        if n < p.n_classes:
            raise ParameterError(
                "classes",
                must=f"be at most the number of particles, {n}",
                got=p.n_classes,
                remedy="Lower --classes, or raise --first-batch",
            )
        em = engine.start()
        with one_core(), torch.no_grad():
            _, basis = self._statistics(em, np.arange(n), None, version=0)
            em = engine.use_basis(em, basis, em.n_rings)
        while not em.is_finished:
            em = engine.advance(em, progress)
        with one_core(), torch.no_grad():
            sums, basis = self._statistics(em, np.arange(n), None, version=1)
        return StreamState(
            round=1,
            version=1,
            n_seen=n,
            is_anchored=False,
            em=em,
            arrived=np.ones(n, np.int32),
            basis=basis,
            covariance=sums,
            junk_curve=None,
            drift=np.full(len(em.shares), np.nan, np.float32),
            changes=(),
        )

    def begin(self, references: Tensor, reference_pixel_size: float | None = None) -> StreamState:
        """Take references that stay as they are; `extend` then assigns the particles.

        Noise, grey scale, spread of shifts and what is junk are learned from the first particles,
        `fewest_to_begin` of them, and not changed any more.

        Parameters
        ----------
        references
            (K, y, x), white particles, any box.
        reference_pixel_size
            A/px; that of the particles if not given.
        """
        engine = self._engine
        with one_core(), torch.no_grad():
            em = engine.anchor(references, reference_pixel_size)
            basis = engine.basis_of_references(em)
            em = engine.use_basis(em, basis, em.n_rings)
            curve = self._junk_curve(em) if self.parameters.junk else None
        return StreamState(
            round=0,
            version=1,
            n_seen=0,
            is_anchored=True,
            em=replace(em, poses=Poses.empty(0)),
            arrived=np.zeros(0, np.int32),
            basis=basis,
            covariance=None,
            junk_curve=curve,
            drift=np.zeros(len(em.shares), np.float32),
            changes=(),
        )

    def extend(self, state: StreamState, progress: Progress | None = None) -> StreamState:
        """Do the next round, with the particles that have come since.

        Parameters
        ----------
        state
            Of the round before, over the first `n_seen` particles of the source.
        progress
            Called with the particles done and in all.

        Raises
        ------
        ParameterError
            If the source has fewer particles than the state has seen.
        """
        n = len(self.source)
        if n < state.n_seen:
            raise ParameterError(
                "particles",
                must=f"begin with the {state.n_seen} of the round before",
                got=n,
                remedy="Give all particles of the stream, in order of arrival",
            )
        if n == state.n_seen:
            return state
        with one_core(), torch.no_grad():
            return (self._assign if state.is_anchored else self._renew)(state, progress)

    def subdivide(
        self,
        state: StreamState,
        class_index: int,
        parts: int,
        progress: Progress | None = None,
    ) -> StreamState:
        """Part a class; the largest part keeps its number, the others get new ones at the end.

        Parameters
        ----------
        state
            Over all particles of the source.
        class_index
            From 0.
        parts
            Two or more.
        progress
            Called with the particles done and in all.

        Raises
        ------
        ParameterError
            If there is no such class, or it has too few members.
        """
        k, poses = len(state.em.shares), state.em.poses
        if not 0 <= class_index < k:
            raise ParameterError(
                "class", must=f"be from 1 to {k}", got=class_index + 1, remedy="Name another"
            )
        members = np.flatnonzero(poses.is_member & (poses.class_index == class_index))
        if parts < 2 or len(members) < parts:
            raise ParameterError(
                "parts",
                must=f"be from 2 to the members of the class, {len(members)}",
                got=parts,
                remedy="Give another number of parts",
            )
        with one_core(), torch.no_grad():
            return self._subdivide(state, class_index, members, parts, progress)

    def _renew(self, state: StreamState, progress: Progress | None) -> StreamState:
        """Make the classes anew from a sample of all, and assign every particle to them."""
        n, p, engine = len(self.source), self.parameters, self._engine
        em = engine.use_basis(self._grown(state.em), state.basis, state.em.n_rings)
        arrived = np.concatenate(
            [state.arrived, np.full(n - state.n_seen, state.round + 1, np.int32)]
        )
        weights = replace(state, round=state.round + 1, arrived=arrived).weights(p.forgetting)
        before = em.harmonics
        changes, em = self._maintained(em, state.round)
        subset = reservoir(n, p.training, seed=p.seed)
        n_outside = n - len(np.union1d(subset, np.arange(state.n_seen)))
        count = _Count(_ITERATIONS * len(subset) + n_outside + n, progress)
        for _ in range(_ITERATIONS):
            rings = engine.rings_of(em)
            em = self._iterated(em, subset, weights, rings, count)
        rings = engine.rings_of(em)
        unseen = np.flatnonzero(~em.poses.seen)
        if len(unseen):
            part = Part(indices=unseen, stage=engine.wide(em.n_rings))
            poses, _ = engine.align(em, em.harmonics, [part], count)
            em = replace(em, poses=poses)
        fine = engine.fine(rings)
        harmonics = engine.harmonics_of(em, fine.n_rings)
        parts = _by_weight(np.arange(n), fine, weights)
        fresh = engine.maximise(em, harmonics, fine, engine.align(em, harmonics, parts, count))
        if p.junk:
            fresh = replace(fresh, poses=engine.junk_of(fresh, em, fine, harmonics))
        new = np.arange(state.n_seen, n)
        new = np.intersect1d(new, subset)
        version = state.version + 1
        sums, basis = self._statistics(fresh, new, state.covariance, version=version)
        return StreamState(
            round=state.round + 1,
            version=version,
            n_seen=n,
            is_anchored=False,
            em=fresh,
            arrived=arrived,
            basis=basis,
            covariance=sums,
            junk_curve=None,
            drift=self._drift(before, state.em.n_rings, fresh),
            changes=changes,
        )

    def _iterated(
        self,
        em: EmState,
        subset: NDArray[np.int64],
        weights: NDArray[np.float32],
        rings: int,
        count: _Count,
    ) -> EmState:
        """Do one iteration on a part of the particles; those not seen yet are searched widely."""
        engine = self._engine
        is_known = em.poses.seen[subset]
        near, wide = engine.near(rings), engine.wide(rings)
        harmonics = engine.harmonics_of(em, near.n_rings)
        parts = _by_weight(subset[is_known], near, weights)
        parts += _by_weight(subset[~is_known], wide, weights)
        found = engine.align(em, harmonics, parts, count)
        return engine.centred(engine.maximise(em, harmonics, near, found))

    def _maintained(self, em: EmState, number: int) -> tuple[tuple[ClassChange, ...], EmState]:
        """Merge classes that are alike and split those that explain their members badly."""
        basis = self._engine.layout.basis(em.n_rings)
        noise = em.noise.mean(0)[: em.n_rings]
        found = compare_classes(em.harmonics, em.harmonics, basis, noise=noise)
        changes, parent = find_changes(em.poses, em.shares, found.difference)
        if not changes:
            return (), em
        split = _parted(em.harmonics, parent, seed=self.parameters.seed + number)
        return changes, replace(em, harmonics=split)

    def _assign(self, state: StreamState, progress: Progress | None) -> StreamState:
        """Assign new particles to fixed references."""
        n, engine, first = len(self.source), self._engine, state.n_seen
        em = engine.use_basis(self._grown(state.em), state.basis, state.em.n_rings)
        count = _Count(2 * (n - first), progress)
        for stage in (engine.wide(em.n_rings), engine.fine(em.n_rings)):
            em = engine.assign(em, em.harmonics, first, stage, count)
        poses = em.poses
        if state.junk_curve is not None:
            poses.junk_probability[first:] = state.junk_curve(poses.log_likelihood[first:])
            poses.membership[first:] = 1 - poses.junk_probability[first:]
        arrived = np.full(n - first, state.round + 1, np.int32)
        counts = np.bincount(poses.class_index, poses.membership, minlength=len(em.shares))
        return replace(
            state,
            round=state.round + 1,
            n_seen=n,
            em=replace(em, poses=poses, shares=_shares(counts)),
            arrived=np.concatenate([state.arrived, arrived]),
            changes=(),
        )

    def _junk_curve(self, em: EmState) -> JunkCurve:
        engine = self._engine
        stages = [engine.wide(em.n_rings), engine.fine(em.n_rings)]
        sample, found = np.arange(min(len(self.source), SAMPLE)), em
        for stage in stages:
            part = Part(indices=sample, stage=stage)
            poses, _ = engine.align(found, em.harmonics, [part], lambda _: None)
            found = replace(found, poses=poses)
        likelihood = np.sort(found.poses.log_likelihood[sample])
        of_noise = engine.of_noise(em, em.harmonics, stages)
        probability = junk_probability(likelihood, of_noise.numpy())
        return JunkCurve(log_likelihood=likelihood, probability=probability)

    def _subdivide(
        self,
        state: StreamState,
        class_index: int,
        members: NDArray[np.int64],
        parts: int,
        progress: Progress | None,
    ) -> StreamState:
        engine, p = self._engine, self.parameters
        em = engine.use_basis(self._grown(state.em), state.basis, state.em.n_rings)
        own = em.harmonics[class_index : class_index + 1]
        part = replace(
            em,
            harmonics=split_classes(own, torch.ones(1), parts, seed=p.seed + state.version),
            shares=torch.full((parts,), 1 / parts),
        )
        count = _Count(_SUBDIVIDING * len(members), progress)
        for number in range(_SUBDIVIDING):
            is_last = number == _SUBDIVIDING - 1
            stage = (engine.fine if is_last else engine.near)(em.n_rings)
            at = Part(indices=members, stage=stage)
            found = engine.align(part, part.harmonics, [at], count)
            part = engine.maximise(part, part.harmonics, stage, found)
        sizes = np.bincount(part.poses.class_index[members], minlength=parts)
        order = np.argsort(-sizes, kind="stable")
        k = len(em.shares)
        number_of = np.empty(parts, np.int32)
        number_of[order] = [class_index, *range(k, k + parts - 1)]
        poses = part.poses.copy()
        poses.class_index[members] = number_of[part.poses.class_index[members]]
        harmonics = torch.cat([em.harmonics, part.harmonics[order[1:].tolist()]])
        harmonics[class_index] = part.harmonics[int(order[0])]
        gain = torch.cat([em.own_gain, part.own_gain[order[1:].tolist()]])
        counts = np.bincount(poses.class_index, poses.membership, minlength=len(harmonics))
        new = tuple(ClassChange("split", c, class_index) for c in range(k, k + parts - 1))
        return replace(
            state,
            version=state.version + 1,
            em=replace(
                em,
                poses=poses,
                harmonics=harmonics,
                own_gain=gain,
                shares=_shares(counts),
            ),
            drift=np.concatenate([state.drift, np.full(parts - 1, np.nan, np.float32)]),
            changes=new,
        )

    def _statistics(
        self,
        em: EmState,
        indices: NDArray[np.int64],
        known: CovarianceSums | None,
        *,
        version: int,
    ) -> tuple[CovarianceSums | None, ReducedBasis | None]:
        """Add particles to the covariance, and make the basis from it."""
        if self.parameters.basis == "none":
            return None, None
        engine = self._engine
        drawn = indices[reservoir(len(indices), self.parameters.training, seed=version)]
        n_rings = engine.rings_of(em) if known is None else known.products.shape[1]
        sums = engine.covariance(em, drawn, n_rings)
        if known is not None:
            sums = known.merge(sums)
        return sums, engine.reduced(sums, version=version)

    def _grown(self, em: EmState) -> EmState:
        source = self.source
        return grown(
            em,
            len(source),
            n_optics=len(source.is_premultiplied),
            n_groups=int(source.group_numbers.max()) + 1,
        )

    def _drift(self, before: Tensor, n_rings: int, fresh: EmState) -> NDArray[np.float32]:
        """How far each reference has gone: 1 - correlation with the one of the round before."""
        engine, rings = self._engine, min(n_rings, fresh.n_rings)
        basis = engine.layout.basis(rings)
        old = replace(fresh, harmonics=before, n_rings=n_rings)
        one, other = engine.harmonics_of(fresh, rings), engine.harmonics_of(old, rings)
        noise = fresh.noise.mean(0)[:rings]
        found = compare_classes(one, other, basis, noise=noise).correlation
        return (1 - torch.diagonal(found)).clamp(0, 1).numpy().astype(np.float32)


@dataclass
class _Count:
    """Tells how many particles are done, over the passes of a round."""

    total: int
    progress: Progress | None
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done += more
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def _shares(counts: NDArray[Any]) -> Tensor:
    return torch.from_numpy(counts / max(float(counts.sum()), 1e-9)).float()


def _by_weight(
    indices: NDArray[np.int64], stage: Stage, weights: NDArray[np.float32]
) -> list[Part]:
    """Part particles by their weight in the averages."""
    own = weights[indices]
    return [
        Part(indices=indices[own == w], stage=stage, weight=float(w)) for w in np.unique(own)[::-1]
    ]


def _parted(harmonics: Tensor, parent: list[int], *, seed: int) -> Tensor:
    """Put a part of each class's parent in its place, with small random differences."""
    source = torch.tensor(parent)
    parts = torch.bincount(source, minlength=len(parent))[source]
    generator = torch.Generator().manual_seed(seed)
    split = harmonics[source]
    noise = torch.view_as_complex(torch.randn(*split.shape, 2, generator=generator)) / 2**0.5
    spread = split.abs().square().mean(2, keepdim=True).sqrt()
    return split + (parts > 1)[:, None, None] * _DIFFERENCE * spread * noise
