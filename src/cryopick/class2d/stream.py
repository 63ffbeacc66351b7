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
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_course import Progress
from cryopick.class2d.em_junk import junk_probability
from cryopick.class2d.em_state import EmState, ImageSource, Poses
from cryopick.class2d.em_workers import ShardWorkers, one_core
from cryopick.class2d.stream_basis import CovarianceSums, ReducedBasis
from cryopick.class2d.stream_classes import ClassChange
from cryopick.class2d.stream_engine import SAMPLE, Part, StreamEngine, grown
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_round import (
    Count,
    iterate,
    maintain,
    part_class,
    reference_drift,
    renumbered,
    settle,
    shares_of,
)
from cryopick.class2d.stream_state import JunkCurve, StreamState, reservoir
from cryopick.errors import ParameterError

__all__ = ["StreamClassifier"]

_ITERATIONS = 3  # that make the classes of a later round


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
    workers
        Who aligns the shards, in the place of `threads`.

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
        workers: ShardWorkers | None = None,
    ) -> None:
        self.source, self.parameters = source, parameters
        self._engine = StreamEngine(
            source,
            parameters,
            n_classes=min(parameters.n_classes, len(source)),
            devices=devices,
            threads=threads,
            keep_bytes=keep_bytes,
            workers=workers,
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
            em = self._repaired(em, progress)
            sums, basis = self._statistics(em, np.arange(n), None, version=1)
            em = engine.use_basis(em, basis, em.n_rings)
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
            sample = np.flatnonzero(em.poses.seen)
            sums, basis = self._statistics(em, sample, None, version=1)
            em = replace(em, poses=Poses.empty(len(self.source)))
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
            covariance=sums,
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
            If there is no such class, it has too few members, or particles are not assigned yet.
        """
        self._require_all(state)
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
        new = tuple(ClassChange("split", k + i, class_index) for i in range(parts - 1))
        with one_core(), torch.no_grad():
            em = part_class(
                self._engine,
                self._resumed(state),
                class_index,
                members,
                parts,
                seed=self.parameters.seed + state.version,
                progress=progress,
            )
        return replace(
            state,
            version=state.version + 1,
            em=em,
            drift=np.concatenate([state.drift, np.full(parts - 1, np.nan, np.float32)]),
            changes=new,
        )

    def finish(self, state: StreamState, progress: Progress | None = None) -> StreamState:
        """Do the closing pass: EM from a cold start over all particles, in all orders.

        What rounds have settled on early does not bind it. Classes get the numbers of those that
        they resemble most; `StreamState.drift` tells how much.

        Parameters
        ----------
        state
            Of the last round. References that are fixed stay so, and nothing is done.
        progress
            Called with the particles done and in all, of each iteration.

        Raises
        ------
        ParameterError
            If particles of the source are not assigned yet.
        """
        self._require_all(state)
        if state.is_anchored:
            return state
        engine, k = self._engine, len(state.em.shares)
        with one_core(), torch.no_grad():
            before = engine.use_basis(self._resumed(state), None, state.em.n_rings)
        engine.parameters = replace(engine.parameters, classes=k)
        em = engine.start()
        while not em.is_finished:
            em = engine.advance(em, progress)
        with one_core(), torch.no_grad():
            em = renumbered(engine, before, em)
            drift = reference_drift(engine, before, em)
            em = engine.use_basis(em, state.basis, em.n_rings)
        return replace(state, version=state.version + 1, em=em, drift=drift, changes=())

    def _require_all(self, state: StreamState) -> None:
        if state.n_seen != len(self.source):
            raise ParameterError(
                "particles",
                must=f"be the {state.n_seen} that have been assigned",
                got=len(self.source),
                remedy="Extend the state first",
            )

    def _renew(self, state: StreamState, progress: Progress | None) -> StreamState:
        """Make the classes anew from a sample of all, and assign every particle to them."""
        n, p, engine = len(self.source), self.parameters, self._engine
        before = self._resumed(state)
        number, new = state.round + 1, np.arange(state.n_seen, n)
        arrived = np.concatenate([state.arrived, np.full(len(new), number, np.int32)])
        weights = replace(state, round=number, arrived=arrived).weights(p.forgetting)
        subset = reservoir(n, p.training, seed=p.seed)
        new_in_subset = np.intersect1d(new, subset)
        n_outside = len(new) - len(new_in_subset)
        count = Count(_ITERATIONS * len(subset) + n_outside + n, progress)
        found = maintain(engine, before, seed=p.seed + state.round)
        em = found.em
        for _ in range(_ITERATIONS):
            em = iterate(engine, em, subset, weights, count)
        em = settle(engine, em, weights, count)
        drift = reference_drift(engine, before, em)
        version = state.version + 1
        sums, basis = self._statistics(em, new_in_subset, state.covariance, version=version)
        return StreamState(
            round=number,
            version=version,
            n_seen=n,
            is_anchored=False,
            em=engine.use_basis(em, basis, em.n_rings),
            arrived=arrived,
            basis=basis,
            covariance=sums,
            junk_curve=None,
            drift=drift,
            changes=found.changes,
        )

    def _repaired(self, em: EmState, progress: Progress | None) -> EmState:
        """Give the place of a class that is another's double to a part of a mixed one."""
        found = maintain(self._engine, em, seed=self.parameters.seed)
        if not found.changes:
            return em
        n, em = len(self.source), found.em
        weights = np.ones(n, np.float32)
        count = Count((_ITERATIONS + 1) * n, progress)
        for _ in range(_ITERATIONS):
            em = iterate(self._engine, em, np.arange(n), weights, count)
        return settle(self._engine, em, weights, count)

    def _assign(self, state: StreamState, progress: Progress | None) -> StreamState:
        """Assign new particles to fixed references."""
        n, engine, first = len(self.source), self._engine, state.n_seen
        em = self._resumed(state)
        count = Count(2 * (n - first), progress)
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
            em=replace(em, poses=poses, shares=shares_of(counts)),
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

    def _resumed(self, state: StreamState) -> EmState:
        """Go on in the basis of a state, with room for the particles that have come since."""
        source = self.source
        self._engine.adopt(state.basis)
        return grown(
            state.em,
            len(source),
            n_optics=len(source.is_premultiplied),
            n_groups=int(source.group_numbers.max()) + 1,
        )
