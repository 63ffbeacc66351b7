"""Final class averages: the images are read once more, whole, and each is added to its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.average_sums import AverageSums, ClassPoses, CtfOfTurn, merge_sums
from cryopick.class2d.averages import ClassAverages, finish_averages, soft_circle
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState
from cryopick.class2d.half_sets import ring_means
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.job import ProgressCallback

__all__ = ["MASK_EDGE", "RELION_T", "FinalAverages", "average_bytes", "make_averages", "sums_bytes"]

MASK_EDGE = 5.0  # px
RELION_T = 2.0  # RELION's T where ours is 1
_SPECTRUM_IMAGES = 1000  # of each optics group, as many as RELION takes
_LEAST_BACKGROUND = 0.05  # of the pixels outside the mask, to take the background from
_COPIES = 40  # of an image, while it is added: transforms, its CTF and the knots of its spline


@dataclass(frozen=True, kw_only=True)
class FinalAverages:
    """Averages at the full box, and what the model table needs beside them."""

    averages: ClassAverages
    sums: AverageSums
    ctf_power: Tensor  # (n, n // 2 + 1): CTF^2 in the frame of the classes, mean over particles
    image_power: NDArray[np.float64]  # (optics groups, n // 2 + 1): of masked images, scale of
    # `tables.classification`


class _Batch(NamedTuple):
    optics: int
    indices: NDArray[np.int64]


def average_bytes(box_size: int) -> int:
    """Memory that one image takes while it is added, bytes."""
    return 4 * box_size**2 * _COPIES


def sums_bytes(box_size: int, n_classes: int) -> int:
    """Memory of the sums of one thread, bytes."""
    return 24 * n_classes * box_size**2


def make_averages(
    source: ParticleSource,
    state: EmState,
    *,
    parameters: ClassificationParameters,
    mask_diameter: float,
    n_classes: int,
    devices: Sequence[str] = ("cpu",),
    threads: int = 1,
    batch_size: int = 128,
    progress: ProgressCallback | None = None,
    first: int = 0,
    before: AverageSums | None = None,
    weights: NDArray[np.float32] | None = None,
) -> FinalAverages:
    """Average the images of each class at their best pose, with the full CTF.

    Parameters
    ----------
    source
        The images.
    state
        Poses, brightness of images and groups, probabilities of being junk.
    parameters
        Of the run.
    mask_diameter
        A.
    n_classes
        Those that the state has not are empty.
    devices, threads
        The sums are kept on the first device if it is a CUDA one. On the CPU each thread has sums
        of its own, added up in order: the number of threads changes results by rounding in double
        precision.
    batch_size
        Images added at once.
    progress
        Called with images done and in all.
    first, before
        Images from `first` on are added to the sums of those before it.
    weights
        (n,) of the images; None is 1.
    """
    device = torch.device(devices[0] if devices[0].startswith("cuda") else "cpu")
    adder = _Adder(source, state, parameters, mask_diameter, device, weights)
    batches = list(_batches(source, batch_size, first=first))
    count = 1 if adder.device.type != "cpu" else max(1, min(threads, len(batches)))
    shards = [s for s in np.array_split(np.arange(len(batches)), count) if len(s)]
    done = [0]

    def add(shard: NDArray[np.int64]) -> AverageSums:
        sums = AverageSums.empty(
            n_classes=n_classes, size=source.box_size, device=str(adder.device)
        )
        for number in shard:
            adder.add(sums, batches[number])
            done[0] += len(batches[number].indices)
            if progress is not None:
                progress(done[0], len(source) - first)
        return sums

    empty = AverageSums.empty(n_classes=n_classes, size=source.box_size, device=str(adder.device))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1 if count > 1 else max(threads, 1))
    try:
        with ThreadPoolExecutor(count) as pool:
            sums = reduce(merge_sums, pool.map(add, shards), before or empty)
    finally:
        torch.set_num_threads(n_threads)
    averages = finish_averages(
        sums,
        pixel_size=source.pixel_size,
        mask_diameter=mask_diameter,
        mask_edge=MASK_EDGE,
        tau2_fudge=RELION_T * parameters.regularisation,
    )
    return FinalAverages(
        averages=averages,
        sums=sums,
        ctf_power=sums.ctf_power.sum((0, 1)) / sums.soft_counts.sum().clamp_min(1e-12),
        image_power=adder.image_power(),
    )


def _batches(source: ParticleSource, size: int, *, first: int) -> Iterator[_Batch]:
    """Cut the images into batches, each of one optics group and in the order of the table."""
    for optics in np.unique(source.optics_numbers):
        members = np.flatnonzero(source.optics_numbers == optics)
        members = members[members >= first]
        for start in range(0, len(members), size):
            yield _Batch(int(optics), members[start : start + size])


class _Adder:
    """Adds batches to sums, from several threads."""

    def __init__(
        self,
        source: ParticleSource,
        state: EmState,
        parameters: ClassificationParameters,
        mask_diameter: float,
        device: torch.device,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self.device = device
        self._weights = np.ones(len(source), np.float32) if weights is None else weights
        self._source, self._state, self._parameters = source, state, parameters
        size = source.box_size
        radius = mask_diameter / (2 * source.pixel_size)
        self._mask = soft_circle(size, radius=radius, edge=MASK_EDGE, device=device).float()
        outside = self._mask == 0
        is_enough = float(outside.float().mean()) >= _LEAST_BACKGROUND
        self._outside = outside if is_enough else torch.ones_like(outside)
        self._noise = _relative_noise(state, size, source.pixel_size)

    def add(self, sums: AverageSums, batch: _Batch) -> None:
        """Read a batch and add it."""
        source, poses, i = self._source, self._state.poses, batch.indices
        images = source.read(i).to(self.device)
        images = images - images[:, self._outside].mean(1)[:, None, None]
        weight = self._weights[i] * (1 - poses.junk_probability[i])
        if self._parameters.norm_correction:
            weight = weight / poses.norm[i] ** 2
        scale = self._put(self._state.group_scale.cpu().numpy()[source.group_numbers[i]])
        ctf = self._ctf_of(batch, scale)
        member = np.where(poses.is_member[i], poses.class_index[i], -1).astype(np.int64)
        sums.add(
            images if ctf is None or not source.is_premultiplied[batch.optics]
            else images * scale[:, None, None],
            ClassPoses(
                particle_index=torch.from_numpy(source.half_numbers[i]).to(self.device),
                class_index=torch.from_numpy(member).to(self.device),
                psi=self._put(poses.psi[i]),
                shift_x=self._put(poses.shift_x[i] / source.pixel_size),
                shift_y=self._put(poses.shift_y[i] / source.pixel_size),
                weight=self._put(weight),
            ),
            ctf=ctf,
            premultiplied=bool(source.is_premultiplied[batch.optics]),
            noise=None if self._noise is None else self._noise[batch.optics].to(self.device),
        )  # fmt: skip

    def _put(self, values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.device)

    def _ctf_of(self, batch: _Batch, scale: Tensor) -> CtfOfTurn | None:
        """CTF times the contrast of the group; None if both are 1."""
        source, size = self._source, self._source.box_size
        factor = scale[:, None, None]
        if not source.corrects_ctf:
            if bool((scale == 1).all()):
                return None
            return lambda _: factor.expand(-1, size, size // 2 + 1)
        lens = source.images.optics.lens_of(batch.optics, source.rows[batch.indices])
        lens = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in lens.items()}
        angle = lens.pop("defocus_angle")
        is_flipped = bool(source.is_phase_flipped[batch.optics])

        def evaluate(turn: Tensor) -> Tensor:
            ctf = evaluate_ctf(
                (size, size),
                pixel_size=source.pixel_size,
                defocus_angle=angle + turn,
                ignore_until_first_peak=self._parameters.ctf == "first-peak",
                device=self.device,
                **lens,  # type: ignore[arg-type]
            )
            return (ctf.abs() if is_flipped else ctf) * factor

        return evaluate

    def image_power(self) -> NDArray[np.float64]:
        """Mean power of masked images (optics groups, n // 2 + 1)."""
        source, size = self._source, self._source.box_size
        spectra = np.zeros((len(source.is_premultiplied), size // 2 + 1))
        for optics in range(len(spectra)):
            members = np.flatnonzero(source.optics_numbers == optics)
            step = max(1, len(members) // _SPECTRUM_IMAGES)
            chosen = members[::step]
            for part in np.array_split(chosen, max(1, len(chosen) // 128)):
                images = source.read(part).to(self.device)
                images = images - images[:, self._outside].mean(1)[:, None, None]
                power = torch.fft.rfft2(images * self._mask).abs().square().sum(0).double()
                spectra[optics] += ring_means(power, size=size).cpu().numpy()
            spectra[optics] /= max(len(chosen), 1) * 2 * size**4
        return spectra


def _relative_noise(state: EmState, size: int, pixel_size: float) -> Tensor | None:
    """Noise of each optics group against the mean of all, (groups, rings); None for one group."""
    if len(state.noise) < 2:
        return None
    noise = state.noise.cpu().double().numpy()
    relative = noise / noise.mean(0).clip(1e-300)
    rings = np.arange(size // 2 + 1) / (size * pixel_size)
    known = state.ring_frequencies.cpu().numpy()
    return torch.from_numpy(np.stack([np.interp(rings, known, r) for r in relative]))
