"""Final averages: what was done to images before makes no difference to their averages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from classification_world import DIAMETER, PIXEL, SIZE, N, ctf_of, make_particles, parameters

from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_state import EmState, Poses
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.class2d_averages import FinalAverages, make_averages
from cryopick.pipeline.class2d_source import open_source
from cryopick.tables.model import Particles


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Particles:
    return make_particles(tmp_path_factory.mktemp("plain"))


def state_of(particles: Particles, *, scale: list[float] | None = None, **changes) -> EmState:
    """The true classes and rotations, in a state that is else that of a start."""
    poses = Poses.empty(len(particles))
    poses.class_index[:] = particles.rows["rlnShape"]
    poses.psi[:] = particles.rows["rlnTruePsi"]
    poses.seen[:] = True
    for name, values in changes.items():
        getattr(poses, name)[:] = values
    classifier = EmClassifier(open_source(particles, corrects_ctf=True), parameters())
    state = classifier.start()
    classifier.close()
    return replace(state, poses=poses, group_scale=torch.tensor(scale or [1.0] * 4))


def averages_of(
    particles: Particles, *, state: EmState | None = None, threads: int = 1, **changes: object
) -> FinalAverages:
    values = parameters(**changes)
    return make_averages(
        open_source(particles, corrects_ctf=values.ctf != "none"),
        state or state_of(particles),
        parameters=values,
        mask_diameter=1.2 * DIAMETER,
        n_classes=4,
        threads=threads,
        batch_size=32,
    )


def rewritten(particles: Particles, folder: Path, images: np.ndarray, **optics: int) -> Particles:
    write_mrc(folder / "stack.mrcs", images.astype(np.float32), pixel_size=PIXEL)
    return Particles(
        rows=particles.rows.assign(image=str(folder / "stack.mrcs")),
        optics=particles.optics.assign(**optics),
        source=particles.source,
    )


def filtered(particles: Particles, factor: torch.Tensor) -> np.ndarray:
    assert particles.source is not None
    images = torch.from_numpy(read_mrc(particles.source.parent / "stack.mrcs"))
    return torch.fft.irfft2(torch.fft.rfft2(images) * factor, s=(SIZE, SIZE)).numpy()


def true_ctf(particles: Particles) -> torch.Tensor:
    names = ("defocus_u", "defocus_v", "defocus_angle")
    return ctf_of({name: particles.rows[name].to_numpy() for name in names})


def alike(one: FinalAverages, other: FinalAverages, *, tolerance: float = 2e-3) -> bool:
    """Equal inside the mask, but for a constant, which depends on how the background was found."""
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    inside = np.hypot(x, y) < 0.6 * DIAMETER / PIXEL
    first, second = (f.averages.unmasked[:, inside] for f in (one, other))
    difference = first - second - (first - second).mean(1, keepdim=True)
    return bool(difference.abs().max() <= tolerance * first.std())


def test_images_multiplied_by_their_ctf_give_the_same_averages(plain, tmp_path):
    images = filtered(plain, true_ctf(plain))
    premultiplied = rewritten(plain, tmp_path, images, is_premultiplied=1)

    assert alike(averages_of(plain), averages_of(premultiplied), tolerance=0.05)


def test_images_with_flipped_phases_give_the_same_averages(plain, tmp_path):
    images = filtered(plain, true_ctf(plain).sign())
    flipped = rewritten(plain, tmp_path, images, is_phase_flipped=1)

    assert alike(averages_of(plain), averages_of(flipped), tolerance=0.05)


def test_without_correction_averages_are_plain_means(plain):
    state = state_of(plain, psi=np.zeros(N))

    found = averages_of(plain, state=state, ctf="none", regularisation=1e9).averages.unmasked

    assert plain.source is not None
    images = read_mrc(plain.source.parent / "stack.mrcs").astype(np.float64)
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    outside = np.hypot(x, y) > 0.6 * DIAMETER / PIXEL + 5
    images -= images[:, outside].mean(axis=1)[:, None, None]
    for index in range(4):
        mean = images[(plain.rows["rlnShape"] == index).to_numpy()].mean(axis=0)
        ring = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) * SIZE
        wanted = np.fft.rfft2(mean)[(ring > 0) & (ring < 6.5)]  # there is signal
        theirs = torch.fft.rfft2(found[index]).numpy()[(ring > 0) & (ring < 6.5)]
        np.testing.assert_allclose(theirs, wanted, atol=0.01 * np.abs(wanted).max())


def test_the_contrast_of_groups_is_taken_out(plain, tmp_path):
    """Images twice as bright with a group scale of two average to the same."""
    scale = [2.0, 1.0, 0.5, 1.0]
    contrast = np.array(scale)[np.arange(N) // 50]
    brighter = rewritten(plain, tmp_path, filtered(plain, torch.ones(())) * contrast[:, None, None])
    state = state_of(plain, scale=scale)
    weighted = state_of(plain, norm=1 / contrast)  # as if dimmer images were noisier

    found = averages_of(brighter, state=state, norm_correction=False)
    expected = averages_of(plain, state=weighted)

    assert alike(found, expected)


def test_junk_does_not_blur_averages(plain, tmp_path):
    images = filtered(plain, torch.ones(()))
    is_junk = np.arange(N) % 5 == 0
    images[is_junk] += (
        images.std() * 8 * np.random.default_rng(0).standard_normal(images[is_junk].shape)
    )
    spoiled = rewritten(plain, tmp_path, images)
    left_out = state_of(plain, junk_probability=is_junk)

    assert alike(averages_of(plain, state=left_out), averages_of(spoiled, state=left_out))
    assert not alike(averages_of(plain), averages_of(spoiled))


def test_threads_add_up_to_the_same(plain):
    assert alike(averages_of(plain), averages_of(plain, threads=3), tolerance=1e-6)
