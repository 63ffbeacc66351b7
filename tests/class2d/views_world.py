"""Streams of simulated particles whose views and poses are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import Poses
from cryopick.class2d.stream import StreamClassifier
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_state import StreamState
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project

SIZE, PIXEL = 32, 5.0
DIAMETER = 110.0
_LENS = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}


@dataclass
class Arrived:
    """Images in memory, in order of arrival."""

    images: Tensor
    defocus: NDArray[np.float64]
    has_ctf: bool
    is_multiplied: bool
    is_flipped: bool
    group_numbers: NDArray[np.int64]
    optics_numbers: NDArray[np.int64]
    box_size: int = SIZE
    pixel_size: float = PIXEL
    is_premultiplied: NDArray[np.bool_] = field(init=False)
    is_phase_flipped: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        n_optics = int(self.optics_numbers.max()) + 1
        self.is_premultiplied = np.full(n_optics, self.is_multiplied)
        self.is_phase_flipped = np.full(n_optics, self.is_flipped)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return self.images[indices]

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        if not self.has_ctf:
            return None
        rows = np.zeros((len(indices), 9))
        rows[:, 0], rows[:, 1] = self.defocus[indices], self.defocus[indices] - 1000
        rows[:, 2], rows[:, 5:] = 30.0, [1.0, *_LENS.values()]
        return rows

    def take(self, rows: NDArray[np.int64]) -> Self:
        return replace(
            self,
            images=self.images[rows],
            defocus=self.defocus[rows],
            group_numbers=self.group_numbers[rows],
            optics_numbers=self.optics_numbers[rows],
        )


@dataclass
class World:
    """A stream with its truth."""

    source: Arrived
    label: NDArray[np.int64]
    psi: NDArray[np.float64]  # deg, turns the image onto its view
    shift: NDArray[np.float64]  # A, centres the image
    views: Tensor  # (views, y, x) free of noise

    def upto(self, n: int) -> Arrived:
        """The first n particles."""
        return self.source.take(np.arange(n))


def world(
    n: int,
    *,
    n_views: int = 4,
    noise: float = 1.5,
    kind: str = "plain",
    n_noise: int = 0,
    seed: int = 0,
) -> World:
    """Simulate n images of views of a phantom of nine blobs; the last `n_noise` are noise.

    `kind` is plain (with CTF), flipped, multiplied, or none (no CTF).
    """
    generator = np.random.default_rng(seed)
    model = Model(
        name="blobs",
        positions=torch.from_numpy(np.random.default_rng(7).normal(0, 20, (9, 3))).float(),
        weights=torch.linspace(0.6, 1.6, 9),
        blur=7.0,
        symmetry="C1",
        diameter=DIAMETER,
    )
    label = generator.integers(0, n_views, n)
    tilt = np.linspace(20, 160, n_views)
    angles = np.stack([90.0 * label, tilt[label], generator.uniform(-180, 180, n)], axis=1)
    shift = generator.normal(0, 4.0, (n, 2))
    size = {"box_size": SIZE, "pixel_size": PIXEL}
    clean = project(model, euler_matrices(angles), shifts_yx=-shift[:, ::-1] / PIXEL, **size)
    first = np.stack([90.0 * np.arange(n_views), tilt, np.zeros(n_views)], axis=1)
    views = project(model, euler_matrices(first), **size)
    scale = views.std()
    clean[n - n_noise :] = 0
    defocus = generator.uniform(9000, 20000, n)
    ctf = evaluate_ctf(
        (SIZE, SIZE),
        pixel_size=PIXEL,
        defocus_u=torch.from_numpy(defocus).float(),
        defocus_v=torch.from_numpy(defocus - 1000).float(),
        defocus_angle=30.0,
        **_LENS,
    )
    rffts = torch.fft.rfft2(clean / scale) * (1.0 if kind == "none" else ctf)
    images = torch.fft.irfft2(rffts, s=(SIZE, SIZE))
    images += noise * torch.from_numpy(generator.normal(0, 1, images.shape)).float()
    factor = {"flipped": ctf.sign(), "multiplied": ctf}.get(kind)
    if factor is not None:
        images = torch.fft.irfft2(torch.fft.rfft2(images) * factor, s=(SIZE, SIZE))
    source = Arrived(
        images=images,
        defocus=defocus,
        has_ctf=kind != "none",
        is_multiplied=kind == "multiplied",
        is_flipped=kind == "flipped",
        group_numbers=np.arange(n) // 100,
        optics_numbers=np.zeros(n, np.int64),
    )
    return World(source, label, angles[:, 2], shift, views / scale)


def parameters(**changes: object) -> StreamParameters:
    """Options for these streams."""
    values: dict[str, object] = {"classes": 6, "diameter": DIAMETER, "iterations": 14}
    return StreamParameters(**(values | changes))


def in_rounds(
    given: World, cuts: Sequence[int], options: StreamParameters, *, threads: int = 1
) -> list[StreamState]:
    """Make classes from the first particles, then go on at each cut."""
    states: list[StreamState] = []
    for n in cuts:
        classifier = StreamClassifier(given.upto(n), options, threads=threads)
        states.append(classifier.extend(states[-1]) if states else classifier.create())
        classifier.close()
    return states


def against_views(
    given: World, cuts: Sequence[int], options: StreamParameters, *, threads: int = 1
) -> StreamState:
    """Assign particles to the noise-free views, in rounds."""
    state: StreamState | None = None
    for n in cuts:
        classifier = StreamClassifier(given.upto(n), options, threads=threads)
        state = state or classifier.begin(given.views)
        state = classifier.extend(state)
        classifier.close()
    assert state is not None
    return state


def purity(poses: Poses, label: NDArray[np.int64]) -> float:
    """Share of particles that are of the main view of their class."""
    found = poses.class_index
    return sum(np.bincount(label[found == c]).max() for c in np.unique(found)) / len(found)


def turn_errors(poses: Poses, given: World) -> NDArray[np.float64]:
    """Errors of psi in deg, after the turn that is free for each class."""
    psi, errors = given.psi[: len(poses)], np.zeros(len(poses))
    for c in np.unique(poses.class_index):
        m = poses.class_index == c
        angle = np.deg2rad(poses.psi[m] - psi[m])
        free = np.angle(np.exp(1j * angle).mean())
        errors[m] = np.rad2deg(np.angle(np.exp(1j * (angle - free))))
    return errors
