"""The EM classifier on small sets whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.transform import transform_images
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import EmState, Poses
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import ParameterError

SIZE, PIXEL = 32, 5.0


@dataclass
class ArraySource:
    """Images in memory with one CTF each."""

    images: Tensor
    defocus: NDArray[np.float64]
    box_size: int = SIZE
    pixel_size: float = PIXEL
    has_ctf: bool = True
    multiplied: bool = False
    flipped: bool = False
    group_numbers: NDArray[np.int64] = field(init=False)
    optics_numbers: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.group_numbers = np.arange(len(self.images)) % 4
        self.optics_numbers = np.arange(len(self.images)) % 2
        self.is_premultiplied = np.array([self.multiplied] * 2)
        self.is_phase_flipped = np.array([self.flipped] * 2)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return self.images[indices]

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        if not self.has_ctf:
            return None
        rows = np.zeros((len(indices), 9))
        rows[:, 0], rows[:, 1] = self.defocus[indices], self.defocus[indices] - 1000
        rows[:, 2], rows[:, 5:] = 30.0, [1.0, 300.0, 2.7, 0.1]
        return rows


def shapes(n: int, *, seed: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(SIZE) - SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.zeros(n, SIZE, SIZE)
    for image in images:
        for cx, cy, a in (2.8 * torch.randn(9, 3, generator=generator)).tolist():
            image += (1 + abs(a)) * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.3**2))
    return images / images.std((1, 2), keepdim=True)


@dataclass
class Simulated:
    source: ArraySource
    label: NDArray[np.int64]
    psi: NDArray[np.float64]  # deg, turns the image onto its shape
    shift: NDArray[np.float64]  # A
    shapes: Tensor


def simulate(
    n: int = 240,
    *,
    n_shapes: int = 3,
    noise: float = 1.0,
    seed: int = 0,
    kind: str = "plain",
    shares: list[float] | None = None,
    n_noise: int = 0,
) -> Simulated:
    generator = np.random.default_rng(seed)
    models = shapes(n_shapes)
    label = generator.choice(n_shapes, n, p=shares)
    psi = generator.uniform(-180, 180, n)
    shift = generator.normal(0, 4.0, (n, 2))
    zero = torch.zeros(n)
    turned = transform_images(
        models[label], psi=torch.from_numpy(-psi).float(), shift_x=zero, shift_y=zero
    )
    moved = transform_images(
        turned,
        psi=zero,
        shift_x=torch.from_numpy(-shift[:, 0] / PIXEL).float(),
        shift_y=torch.from_numpy(-shift[:, 1] / PIXEL).float(),
    )
    defocus = generator.uniform(9000, 20000, n)
    ctf = evaluate_ctf(
        (SIZE, SIZE),
        pixel_size=PIXEL,
        defocus_u=torch.from_numpy(defocus).float(),
        defocus_v=torch.from_numpy(defocus - 1000).float(),
        defocus_angle=30.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )
    if n_noise:
        moved[-n_noise:] = 0
    rffts = torch.fft.rfft2(moved) * (1.0 if kind == "none" else ctf)
    images = torch.fft.irfft2(rffts, s=(SIZE, SIZE))
    images += noise * torch.from_numpy(generator.normal(0, 1, images.shape)).float()
    if kind == "flipped":
        images = torch.fft.irfft2(torch.fft.rfft2(images) * ctf.sign(), s=(SIZE, SIZE))
    if kind == "multiplied":
        images = torch.fft.irfft2(torch.fft.rfft2(images) * ctf, s=(SIZE, SIZE))
    source = ArraySource(
        images=images,
        defocus=defocus,
        has_ctf=kind != "none",
        multiplied=kind == "multiplied",
        flipped=kind == "flipped",
    )
    return Simulated(source, label, psi, shift, models)


def parameters(**changes: object) -> ClassificationParameters:
    values: dict[str, object] = {
        "classes": 6,
        "diameter": 90.0,
        "mask_diameter": 110.0,
        "iterations": 14,
        "seed": 1,
    }
    return ClassificationParameters(**(values | changes))


def classify(
    data: Simulated,
    *,
    references: Tensor | None = None,
    threads: int = 1,
    keep_bytes: int = 0,
    poses: Poses | None = None,
    **changes: object,
) -> EmState:
    classifier = EmClassifier(
        data.source,
        parameters(**changes),
        threads=threads,
        keep_bytes=keep_bytes,
        poses=poses,
    )
    state = classifier.start(references)
    while not state.is_finished:
        state = classifier.advance(state)
    classifier.close()
    return state


def purity(state: EmState, label: NDArray[np.int64]) -> float:
    found = state.poses.class_index
    return sum(np.bincount(label[found == c]).max() for c in np.unique(found)) / len(label)


def turn_errors(state: EmState, data: Simulated) -> NDArray[np.float64]:
    """Errors of psi in deg, after the turn that is free for each class."""
    errors = np.zeros(len(data.label))
    for c in np.unique(state.poses.class_index):
        m = state.poses.class_index == c
        angle = np.deg2rad(state.poses.psi[m] - data.psi[m])
        free = np.angle(np.exp(1j * angle).mean())
        errors[m] = np.rad2deg(np.angle(np.exp(1j * (angle - free))))
    return errors


@pytest.mark.parametrize("kind", ["plain", "flipped", "multiplied", "none"])
def test_a_cold_start_finds_the_shapes_and_their_rotations(kind: str) -> None:
    data = simulate(noise=1.0, kind=kind)
    state = classify(data, ctf="none" if kind == "none" else "full")
    assert purity(state, data.label) > 0.9
    assert np.median(np.abs(turn_errors(state, data))) < 4.0


def test_given_references_and_little_noise_poses_are_found_below_the_grid() -> None:
    data = simulate(120, noise=0.02)
    state = classify(data, references=data.shapes, update=False, iterations=3)
    psi = (state.poses.psi - data.psi + 180) % 360 - 180
    assert (state.poses.class_index == data.label).all()
    assert np.quantile(np.abs(psi), 0.9) < 0.3
    assert np.quantile(np.abs(state.poses.shift_x - data.shift[:, 0]), 0.95) < 0.05 * PIXEL
    assert np.quantile(np.abs(state.poses.shift_y - data.shift[:, 1]), 0.95) < 0.05 * PIXEL


def test_one_iteration_does_not_depend_on_threads_or_on_what_is_kept_in_memory() -> None:
    data = simulate(300)
    states = []
    for threads, keep in ((1, 0), (2, 0), (2, 10**9)):
        classifier = EmClassifier(data.source, parameters(), threads=threads, keep_bytes=keep)
        states.append(classifier.advance(classifier.start(data.shapes)))
        classifier.close()
    for other in states[1:]:
        assert np.array_equal(states[0].poses.psi, other.poses.psi)
        assert np.array_equal(states[0].poses.class_index, other.poses.class_index)
        assert torch.equal(states[0].harmonics, other.harmonics)


def test_a_run_stopped_and_restored_ends_as_one_that_was_not() -> None:
    data = simulate()
    whole = classify(data)
    classifier = EmClassifier(data.source, parameters())
    state = classifier.start()
    for _ in range(4):
        state = classifier.advance(state)
    arrays = state.to_arrays()
    classifier.close()
    classifier = EmClassifier(data.source, parameters())
    state = EmState.from_arrays(arrays)
    while not state.is_finished:
        state = classifier.advance(state)
    classifier.close()
    assert state.iteration == whole.iteration
    assert np.array_equal(state.poses.psi, whole.poses.psi)
    assert torch.equal(state.harmonics, whole.harmonics)


def test_the_seed_makes_a_run_repeatable_and_another_seed_another_run() -> None:
    data = simulate()
    first, again, other = (classify(data, seed=s, iterations=6) for s in (3, 3, 4))
    assert np.array_equal(first.poses.psi, again.poses.psi)
    assert not np.array_equal(first.poses.psi, other.poses.psi)


def test_turning_all_images_turns_psi_and_nothing_else() -> None:
    data = simulate(60, noise=0.1, kind="none")
    turn = 90.0
    zero = torch.zeros(60)
    turned = transform_images(
        data.source.images, psi=torch.full((60,), turn), shift_x=zero, shift_y=zero
    )
    runs = []
    for images in (data.source.images, turned):
        moved = Simulated(
            replace(data.source, images=images), data.label, data.psi, data.shift, data.shapes
        )
        runs.append(classify(moved, references=data.shapes, update=False, iterations=3, ctf="none"))
    before, after = (r.poses for r in runs)
    assert np.array_equal(before.class_index, after.class_index)
    change = (after.psi - before.psi + turn + 180) % 360 - 180
    assert np.quantile(np.abs(change), 0.95) < 0.3


def test_poses_of_the_table_are_kept_when_alignment_is_off() -> None:
    data = simulate(noise=0.3)
    poses = Poses.empty(len(data.label))
    poses.psi[:], poses.shift_x[:] = data.psi, data.shift[:, 0]
    poses.shift_y[:] = data.shift[:, 1]
    state = classify(data, poses=poses, align=False, iterations=8)
    assert np.allclose(state.poses.psi, data.psi, atol=1e-3)
    assert np.allclose(state.poses.shift_x, data.shift[:, 0], atol=1e-3)
    assert purity(state, data.label) > 0.95


def test_images_of_noise_alone_are_called_junk_and_particles_are_not() -> None:
    data = simulate(400, noise=1.5, n_noise=60)
    state = classify(data)
    is_called = state.poses.junk_probability > 0.5
    assert is_called[-60:].mean() > 0.5
    assert is_called[:-60].mean() < 0.05
    assert not classify(data, junk=False).poses.junk_probability.any()


def test_a_rare_shape_gets_a_class_of_its_own() -> None:
    data = simulate(600, noise=1.0, shares=[0.5, 0.46, 0.04], n_shapes=3)
    state = classify(data, classes=8, iterations=20)
    is_rare = data.label == 2
    found = state.poses.class_index
    own = [c for c in range(8) if (found == c).any() and is_rare[found == c].mean() > 0.5]
    assert np.isin(found[is_rare], own).mean() > 0.7


@pytest.mark.parametrize(
    "changes",
    [
        {"fill": "noise"},
        {"ctf": "first-peak"},
        {"norm_correction": False, "scale_correction": False},
        {"psi_step": 12.0, "offset_step": 5.0, "offset_range": 15.0},
        {"resolution_limit": 16.0},
        {"regularisation": 4.0},
        {"center_classes": False},
        {"batches": False},
    ],
    ids=lambda c: next(iter(c)),
)
def test_the_shapes_are_found_with_other_options_too(changes: dict[str, object]) -> None:
    data = simulate(noise=0.8)
    assert purity(classify(data, **changes), data.label) > 0.9


def test_classes_are_centred_and_their_members_with_them() -> None:
    data = simulate(200, noise=0.3)
    off_centre = replace(data.source, images=torch.roll(data.source.images, (1, 2), (1, 2)))
    moved = Simulated(off_centre, data.label, data.psi, data.shift, data.shapes)
    runs = [classify(moved, center_classes=c, iterations=16) for c in (True, False)]
    expected = data.shift - np.array([2.0, 1.0]) * PIXEL
    misses = []
    for state in runs:
        found = np.stack([state.poses.shift_x, state.poses.shift_y], axis=1)
        misses.append(np.abs(np.median(found - expected, axis=0)).max())
    assert misses[0] < 0.3 * PIXEL


def test_a_group_of_twice_the_contrast_is_found() -> None:
    data = simulate(400, noise=0.5)
    data.source.images[data.source.group_numbers == 1] *= 1.0
    clean = simulate(400, noise=0.0).source.images
    is_strong = data.source.group_numbers == 1
    data.source.images[is_strong] += clean[is_strong]
    state = classify(data)
    scale = state.group_scale
    assert 1.5 < float(scale[1] / scale[[0, 2, 3]].mean()) < 2.2


def test_noise_is_measured_for_each_optics_group() -> None:
    data = simulate(400, noise=0.5)
    generator = torch.Generator().manual_seed(5)
    is_noisy = data.source.optics_numbers == 1
    extra = torch.randn(data.source.images[is_noisy].shape, generator=generator)
    data.source.images[is_noisy] += math.sqrt(0.75) * extra
    state = classify(data, norm_correction=False)
    ratio = (state.noise[1] / state.noise[0])[4:10].mean()
    assert 3.2 < float(ratio) < 4.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": 500}, r"classes must be at most the number of particles, 240; got 500\."),
        ({"mask_diameter": 400.0}, r"mask_diameter must fit in the box of 160 A; got 400 A\."),
        ({"diameter": 400.0, "mask_diameter": None}, r"diameter must fit in the box of 160 A"),
        ({"resolution_limit": 5.0}, r"resolution_limit must be at least twice the pixel size"),
    ],
)
def test_bad_parameters_get_one_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        EmClassifier(simulate().source, parameters(**changes))
