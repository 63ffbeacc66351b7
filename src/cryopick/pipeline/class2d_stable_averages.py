"""Averages of stable classes at the full box, with the full CTF; mirrored members are mirrored.

An image is shifted, turned, then mirrored (x to -x). That is the same as to mirror it first, then
to shift it by (-shift_x, shift_y), then to turn it by -psi; the axis of its astigmatism is mirrored
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.average_sums import AverageSums, ClassPoses, CtfOfTurn
from cryopick.class2d.averages import ClassAverages, finish_averages, soft_circle
from cryopick.class2d.em_workers import one_core
from cryopick.class2d.half_sets import ring_means
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.pipeline.class2d_averages import MASK_EDGE
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.job import ProgressCallback

__all__ = ["StableMembers", "average_members", "image_spectra", "mirrored_images"]

_BATCH_PIXELS = 1 << 20
_SPECTRUM_IMAGES = 500  # of each optics group
_LEAST_BACKGROUND = 0.05  # of the pixels outside the mask, to take the background from


@dataclass(frozen=True, kw_only=True)
class StableMembers:
    """Members of accepted classes, at the pixels of the input."""

    label: NDArray[np.int64]  # (n,) class from 0; -1: none
    psi: NDArray[np.float32]  # (n,) deg
    shift_x: NDArray[np.float32]  # (n,) px
    shift_y: NDArray[np.float32]  # (n,) px
    mirror: NDArray[np.bool_]  # (n,)
    n_classes: int


def average_members(
    source: ParticleSource,
    members: StableMembers,
    *,
    mask_diameter: float,
    threads: int = 1,
    progress: ProgressCallback | None = None,
) -> ClassAverages:
    """Average the members of each class with the full CTF.

    Each class is worked on by one thread, in the order of its images, so that the number of
    threads does not change the result; the sums of a few classes are in memory at a time.

    Parameters
    ----------
    source
        The images.
    members
        Of these; at least one class.
    mask_diameter
        A.
    threads
        To use.
    progress
        Called with the classes that are done and in all.
    """
    adder = _Adder(source, members, mask_diameter)
    done: list[ClassAverages] = []
    with one_core(), ThreadPoolExecutor(threads) as pool:
        for one in pool.map(adder.average, range(members.n_classes)):
            done.append(one)
            if progress is not None:
                progress(len(done), members.n_classes)
    return ClassAverages(
        **{f.name: torch.cat([getattr(one, f.name) for one in done]) for f in fields(ClassAverages)}
    )


def mirrored_images(images: Tensor) -> Tensor:
    """Mirror images (..., y, x), x to -x about pixel x // 2; of even sides the first column stays.

    Examples
    --------
    >>> mirrored_images(torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    tensor([[0., 3., 2., 1.]])
    """
    flipped = images.flip(-1)
    return flipped.roll(1, -1) if images.shape[-1] % 2 == 0 else flipped


class _Adder:
    """Makes the average of a class."""

    def __init__(
        self, source: ParticleSource, members: StableMembers, mask_diameter: float
    ) -> None:
        self._source, self._members, self._mask_diameter = source, members, mask_diameter
        self._outside = _background(source, mask_diameter)
        self._batch = max(8, _BATCH_PIXELS // source.box_size**2)

    def average(self, number: int) -> ClassAverages:
        """Read the members of a class batch by batch and add them up."""
        sums = AverageSums.empty(n_classes=1, size=self._source.box_size)
        mine = np.flatnonzero(self._members.label == number)
        for optics in np.unique(self._source.optics_numbers[mine]):
            rows = mine[self._source.optics_numbers[mine] == optics]
            for start in range(0, len(rows), self._batch):
                self._add(sums, int(optics), rows[start : start + self._batch])
        return finish_averages(
            sums, pixel_size=self._source.pixel_size, mask_diameter=self._mask_diameter,
            mask_edge=MASK_EDGE,
        )  # fmt: skip

    def _add(self, sums: AverageSums, optics: int, rows: NDArray[np.int64]) -> None:
        source, members = self._source, self._members
        is_mirrored = members.mirror[rows]
        sign = torch.from_numpy(np.where(is_mirrored, -1.0, 1.0).astype(np.float32))
        images = source.read(rows)
        images = images - images[:, self._outside].mean(1)[:, None, None]
        chosen = torch.from_numpy(is_mirrored)
        images[chosen] = mirrored_images(images[chosen])
        sums.add(
            images,
            ClassPoses(
                particle_index=torch.from_numpy(source.half_numbers[rows]),
                class_index=torch.zeros(len(rows), dtype=torch.int64),
                psi=sign * torch.from_numpy(members.psi[rows]),
                shift_x=sign * torch.from_numpy(members.shift_x[rows]),
                shift_y=torch.from_numpy(members.shift_y[rows]),
            ),
            ctf=_ctf_of(source, optics, rows, sign) if source.corrects_ctf else None,
            premultiplied=bool(source.is_premultiplied[optics]),
        )


def _ctf_of(
    source: ParticleSource, optics: int, rows: NDArray[np.int64], sign: Tensor
) -> CtfOfTurn:
    """CTF of images that have been mirrored where the sign is -1, after a turn."""
    lens = source.images.optics.lens_of(optics, source.rows[rows])
    angle = sign * lens.pop("defocus_angle")
    evaluate: Callable[..., Tensor] = evaluate_ctf
    size = source.box_size
    is_flipped = bool(source.is_phase_flipped[optics])

    def after(turn: Tensor) -> Tensor:
        ctf = evaluate(
            (size, size), pixel_size=source.pixel_size, defocus_angle=angle + turn, **lens
        )
        return ctf.abs() if is_flipped else ctf

    return after


def _background(source: ParticleSource, mask_diameter: float) -> Tensor:
    """Pixels outside of the mask; all where these are too few."""
    radius = mask_diameter / (2 * source.pixel_size)
    outside = soft_circle(source.box_size, radius=radius, edge=MASK_EDGE) == 0
    is_enough = float(outside.float().mean()) >= _LEAST_BACKGROUND
    return outside if is_enough else torch.ones_like(outside)


def image_spectra(source: ParticleSource, *, mask_diameter: float) -> NDArray[np.float64]:
    """Mean power of masked images, (optics groups, n // 2 + 1), scale of a classification."""
    size = source.box_size
    radius = mask_diameter / (2 * source.pixel_size)
    mask = soft_circle(size, radius=radius, edge=MASK_EDGE).float()
    outside = _background(source, mask_diameter)
    spectra = np.zeros((len(source.is_premultiplied), size // 2 + 1))
    for optics in range(len(spectra)):
        members = np.flatnonzero(source.optics_numbers == optics)
        chosen = members[:: max(1, len(members) // _SPECTRUM_IMAGES)]
        for part in np.array_split(chosen, max(1, len(chosen) // 128)):
            images = source.read(part)
            images = images - images[:, outside].mean(1)[:, None, None]
            power = torch.fft.rfft2(images * mask).abs().square().sum(0).double()
            spectra[optics] += ring_means(power, size=size).numpy()
        spectra[optics] /= max(len(chosen), 1) * 2 * size**4
    return spectra
