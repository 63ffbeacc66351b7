"""Passes of a stream over its particles: the EM engine with stages chosen by the round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.rings import change_basis
from cryopick.alignment.search import Workspace
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_course import data_rings
from cryopick.class2d.em_expect import Expectation
from cryopick.class2d.em_junk import NoiseImages, junk_probability
from cryopick.class2d.em_layout import Layout
from cryopick.class2d.em_maximise import centre_classes, find_sigma_offset, update_noise
from cryopick.class2d.em_schedule import Stage
from cryopick.class2d.em_shards import Shard
from cryopick.class2d.em_start import rings_of_averages
from cryopick.class2d.em_state import EmState, ImageSource, Poses
from cryopick.class2d.em_sums import IterationSums
from cryopick.class2d.em_workers import ShardWorkers
from cryopick.class2d.stream_basis import (
    CovarianceSums,
    ReducedBasis,
    make_reduced_basis,
    sum_covariance,
)
from cryopick.class2d.stream_parameters import StreamParameters

__all__ = ["Part", "StreamEngine", "grown"]

SAMPLE = 500  # first particles, by which given references are fitted to the stream
_BLOCK_TILES = 8  # tiles made ready at once by the expectation step
_NOISE_IMAGES = 128
_FITS = 3  # of references to the first particles: by correlation, then by likelihood
_FIRST_RINGS = 14
_ENOUGH = 0.99  # of the power of references, in units of the noise
_LEAST_SCALE = 1e-6

Seen = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Particles that are aligned in one way."""

    indices: NDArray[np.int64]
    stage: Stage
    weight: float = 1.0  # in the averages


class StreamEngine(EmClassifier):
    """The EM engine under the options of a stream.

    Parameters
    ----------
    source
        The particles that have arrived.
    parameters
        What the user chose.
    n_classes
        Classes there are, or are to be.
    devices, threads, keep_bytes, workers
        As for `EmClassifier`.
    """

    def __init__(
        self,
        source: ImageSource,
        parameters: StreamParameters,
        *,
        n_classes: int,
        devices: Sequence[str],
        threads: int,
        keep_bytes: int,
        workers: ShardWorkers | None = None,
    ) -> None:
        box, pixel = source.box_size, source.pixel_size
        own = parameters.of_engine(n_classes=n_classes, box_size=box, pixel_size=pixel)
        super().__init__(
            source,
            own,
            devices=devices,
            threads=threads,
            keep_bytes=keep_bytes,
            workers=workers,
        )
        self.stream = parameters
        sigma = parameters.mask_sigma(box_size=box, pixel_size=pixel)
        self.layout = Layout(source, own, mask_sigma=sigma)

    def stage(
        self,
        n_rings: int,
        *,
        reach: float,
        step: float,
        is_hard: bool = False,
        is_fine: bool = False,
    ) -> Stage:
        """Plan a pass: rings, shifts (A) around those known, and whether poses are refined."""
        reach = min(reach, self.parameters.offset_range)
        return Stage(
            n_rings=min(n_rings, self.layout.most_rings),
            offset_range=reach,
            offset_step=min(step, reach),
            is_hard=is_hard,
            is_fine=is_fine,
            finds_junk=False,
            subset=0,
        )

    def wide(self, n_rings: int) -> Stage:
        """Search all shifts, for particles nothing is known of."""
        p = self.parameters
        return self.stage(n_rings, reach=p.offset_range, step=p.offset_step)

    def near(self, n_rings: int) -> Stage:
        """Search shifts around the last."""
        p = self.parameters
        return self.stage(n_rings, reach=0.4 * p.offset_range, step=0.5 * p.offset_step)

    def fine(self, n_rings: int) -> Stage:
        """Refine poses below the grid."""
        step = 0.25 * self.parameters.offset_step
        return self.stage(n_rings, reach=step, step=step, is_fine=True)

    def rings_of(self, em: EmState) -> int:
        """Rings that the averages hold signal in, and a few more."""
        return min(data_rings(em), self.layout.most_rings)

    def adopt(self, basis: ReducedBasis | None) -> None:
        """Take the orders of the basis that a state is in."""
        self.layout.limit_orders(None if basis is None else (basis.n_orders, basis.n_rings))

    def use_basis(self, em: EmState, basis: ReducedBasis | None, n_rings: int) -> EmState:
        """Carry the averages to so many rings, in the orders that the reduced basis has."""
        self.layout.limit_orders((em.harmonics.shape[-1], em.n_rings))  # those it was made with
        before = self.layout.basis(em.n_rings)
        self.adopt(basis)
        after = self.layout.basis(n_rings)
        return replace(em, harmonics=change_basis(em.harmonics, before, after), n_rings=n_rings)

    def harmonics_of(self, em: EmState, n_rings: int) -> Tensor:
        """Carry the averages to other rings."""
        basis = self.layout.basis
        return change_basis(em.harmonics, basis(em.n_rings), basis(n_rings))

    def align(
        self, em: EmState, harmonics: Tensor, parts: Iterable[Part], seen: Seen
    ) -> tuple[Poses, IterationSums]:
        """Align particles to averages; gives the poses of all, and sums of those aligned."""
        poses, totals = em.poses.copy(), None

        def see(indices: NDArray[np.int64], fresh: Poses) -> None:
            _write(indices, fresh, poses, slice(None))
            seen(len(indices))

        for part in parts:
            if not len(part.indices):
                continue
            works = self._works(em, part.stage, harmonics)
            shards = self._shards(part.indices, part.stage, len(harmonics))
            own = self._aligners.expect(works, shards, see).weighted(part.weight)
            totals = own if totals is None else totals.merge(own)
        if totals is None:
            raise ValueError("no particles to align")
        return poses, totals

    def assign(
        self, em: EmState, harmonics: Tensor, first: int, stage: Stage, seen: Seen
    ) -> EmState:
        """Align the particles from `first` on, one by one as if alone, to fixed averages.

        Each particle has its place in a block of fixed size, by its number in the stream. So
        nothing depends on how the stream was cut.
        """
        n, poses = len(self.source), em.poses.copy()

        def see(indices: NDArray[np.int64], fresh: Poses) -> None:
            start = int(indices[0])
            kept = slice(max(first - start, 0), min(n - start, len(indices)))
            _write(indices, fresh, poses, kept)
            seen(kept.stop - kept.start)

        works = self._works(em, stage, harmonics)
        self._aligners.expect(works, self._blocks(first, stage, len(harmonics)), see)
        return replace(em, poses=poses)

    def _blocks(self, first: int, stage: Stage, n_classes: int) -> Iterator[Shard]:
        n = len(self.source)
        _, tile = next(self._shards(np.arange(1), stage, n_classes))
        size = tile * _BLOCK_TILES
        for start in range(first // size * size, n, size):
            yield np.minimum(np.arange(start, start + size), n - 1), tile

    def maximise(
        self, em: EmState, harmonics: Tensor, stage: Stage, found: tuple[Poses, IterationSums]
    ) -> EmState:
        """Make the next averages, noise and priors from what an alignment has found."""
        poses, totals = found
        n_rings = stage.n_rings
        fresh = self._maximise(em, stage, totals, harmonics)
        fresh = replace(fresh, poses=poses, n_rings=n_rings, iteration=em.iteration + 1)
        return replace(fresh, resolution=self.layout.resolution(n_rings))

    def centred(self, em: EmState) -> EmState:
        """Bring averages to the centre, and every particle with its own."""
        p, poses = self.parameters, em.poses.copy()
        if not p.center_classes or p.offset_range <= 0:
            return em
        moved = centre_classes(
            em.harmonics,
            poses,
            np.flatnonzero(poses.seen),
            self.layout.sampler(em.n_rings),
            most=p.offset_range,
            diameter=p.diameter,
        )
        return replace(em, harmonics=moved, poses=poses)

    def of_noise(self, em: EmState, harmonics: Tensor, stages: Sequence[Stage]) -> Tensor:
        """Log-likelihoods of images of noise aligned like the first particles, stage by stage."""
        n = len(self.source)
        places = np.sort(np.random.default_rng(self.stream.seed).permutation(n)[:_NOISE_IMAGES])
        if len(stages) > 1:
            places = np.arange(min(n, _NOISE_IMAGES))
            em = replace(em, poses=Poses.empty(n))
        for stage in stages:
            noise = _Noise(
                self.source,
                self.layout.geometry(stage.n_rings),
                noise=em.noise,
                frequencies=em.ring_frequencies,
                norm=em.poses.norm,
                seed=self.stream.seed,
                is_restored=self.stream.ctf == "wiener",
            )
            works = {
                d: replace(w, images=noise, ctf="none" if noise.is_restored else w.ctf)
                for d, w in self._works(em, stage, harmonics).items()
            }
            poses = em.poses.copy()
            see = partial(_write, poses=poses, kept=slice(None))
            self._aligners.expect(works, self._shards(places, stage, len(harmonics)), see)
            em = replace(em, poses=poses)
        return torch.from_numpy(em.poses.log_likelihood[places])

    def junk_of(self, em: EmState, before: EmState, stage: Stage, harmonics: Tensor) -> Poses:
        """Tell which particles do no better than noise; their own part in averages is left out."""
        of_noise = self.of_noise(replace(before, poses=em.poses), harmonics, [stage])
        poses = em.poses.copy()
        seen = np.flatnonzero(poses.seen)
        is_same = poses.class_index[seen] == before.poses.class_index[seen]
        is_same &= before.poses.seen[seen]
        own = before.own_gain.numpy()[before.poses.class_index[seen] % len(before.own_gain)]
        alone = poses.log_likelihood[seen] - own * is_same * before.poses.membership[seen]
        poses.junk_probability[seen] = junk_probability(alone.astype(np.float32), of_noise.numpy())
        return poses

    def covariance(self, em: EmState, indices: NDArray[np.int64], n_rings: int) -> CovarianceSums:
        """Sum the covariance of particles at their poses, in all orders."""
        kept = self.layout.limit_orders(None)
        stage = self.stage(n_rings, reach=0, step=1)
        empty = torch.zeros(1, n_rings, self.layout.basis(n_rings).n_orders, dtype=torch.complex64)
        device = self.devices[0]
        work = replace(self._expectation(em, stage, empty, device), corrects_norm=False)
        sums = sum_covariance(work, indices, workspace=Workspace(device=device))
        self.layout.limit_orders(kept)
        return sums

    def reduced(self, sums: CovarianceSums, *, version: int) -> ReducedBasis:
        """Make the basis of the options from sums of covariance."""
        n_rings, p = sums.products.shape[1], self.stream
        kept = self.layout.limit_orders(None)
        made = make_reduced_basis(
            sums,
            self.layout.basis(n_rings),
            self.layout.mask_noise(n_rings),
            share=self.layout.sampler(n_rings).share,
            rule="variance" if p.basis == "variance" else "noise-edge",
            variance=p.variance,
            version=version,
        )
        self.layout.limit_orders(kept)
        return made

    def anchor(self, references: Tensor, reference_pixel_size: float | None) -> EmState:
        """Fit references to the first particles: grey scale, noise, and rings to compare them in.

        Parameters
        ----------
        references
            (K, y, x), white particles.
        reference_pixel_size
            A/px; that of the particles if not given.
        """
        p, sample = self.parameters, self._first_sample()
        noise, n_rings = self._first_noise(), self.layout.most_rings
        harmonics = rings_of_averages(
            references,
            self.layout.sampler(n_rings),
            self.layout.geometry(n_rings),
            pixel_size=reference_pixel_size or self.source.pixel_size,
        )
        em = replace(self._first_state(harmonics, n_rings, noise), has_references=True)
        for number in range(_FITS):
            rings = min(_FIRST_RINGS, n_rings) if number == 0 else _rings_with_signal(em, self)
            stage = replace(self.wide(rings), is_hard=number == 0)
            part = Part(indices=sample, stage=stage)
            poses, totals = self.align(em, self.harmonics_of(em, rings), [part], lambda _: None)
            factor = float(totals.group_cross.sum() / totals.group_norm.sum().clamp_min(1e-30))
            em = replace(em, harmonics=em.harmonics * max(factor, _LEAST_SCALE))
            if number:
                share = self.layout.sampler(rings).share
                noise = update_noise(em.noise, totals, self.layout.basis(rings), share=share)
                em = replace(em, noise=noise, sigma_offset=find_sigma_offset(totals))
        rings = _rings_with_signal(em, self)
        em = replace(em, harmonics=self.harmonics_of(em, rings), n_rings=rings)
        return replace(
            em,
            poses=poses,
            ssnr=torch.ones(rings),
            sigma_offset=min(em.sigma_offset, p.offset_range or em.sigma_offset),
            resolution=self.layout.resolution(rings),
        )

    def _first_sample(self) -> NDArray[np.int64]:
        return np.arange(min(len(self.source), SAMPLE))

    def _expectation(
        self, state: EmState, stage: Stage, harmonics: Tensor, device: str
    ) -> Expectation:
        work = super()._expectation(state, stage, harmonics, device)
        return replace(work, ctf=self.stream.ctf)


def _rings_with_signal(em: EmState, engine: StreamEngine) -> int:
    """Rings that hold nearly all by which references can be told apart and turned."""
    basis = engine.layout.basis(em.n_rings)
    power = em.harmonics.abs().square() * (basis.orders > 0)
    weight = basis.weights / em.noise.mean(0)[: em.n_rings]
    held = (power.sum(2).mean(0) * weight).cumsum(0)
    enough = int((held < _ENOUGH * held[-1]).sum()) + 1
    return min(max(enough, _FIRST_RINGS), engine.layout.most_rings)


@dataclass
class _Noise(NoiseImages):
    """Noise as it is seen after the images have been restored, if they are."""

    is_restored: bool = False

    def _ctf(self, indices: NDArray[np.int64], size: int) -> Tensor:
        if self.is_restored:
            return torch.ones(len(indices), size, size // 2 + 1)
        return super()._ctf(indices, size)


def grown(em: EmState, n: int, *, n_optics: int, n_groups: int) -> EmState:
    """Make room for particles, optics groups and contrast groups that have come since."""
    more = Poses.empty(n - len(em.poses))
    columns = {
        f.name: np.concatenate([getattr(em.poses, f.name), getattr(more, f.name)])
        for f in fields(Poses)
    }
    new_optics = max(n_optics - len(em.noise), 0)
    noise = torch.cat([em.noise, em.noise.mean(0, keepdim=True).expand(new_optics, -1)])
    new_groups = max(n_groups - len(em.group_scale), 0)
    scale = torch.cat([em.group_scale, torch.ones(new_groups, dtype=em.group_scale.dtype)])
    return replace(em, poses=Poses(**columns), noise=noise, group_scale=scale)


def _write(indices: NDArray[np.int64], fresh: Poses, poses: Poses, kept: slice) -> None:
    for name in Poses.__annotations__:
        getattr(poses, name)[indices[kept]] = getattr(fresh, name)[kept]
