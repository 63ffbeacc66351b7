"""Accuracies of alignment against brute force, and against RELION's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from average_world import PIXEL_SIZE, SIZE, phantom

from cryopick.alignment.transform import transform_images
from cryopick.class2d.accuracy import estimate_accuracy
from cryopick.class2d.half_sets import ring_numbers
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import ShapeError

RINGS = SIZE // 2 + 1


def estimate(averages, *, sigma2=1e-5, shares=None, resolution=None):
    return estimate_accuracy(
        averages,
        ctf_power=torch.full((RINGS,), 0.5),
        sigma2=torch.full((RINGS,), sigma2),
        shares=torch.ones(len(averages)) if shares is None else shares,
        pixel_size=PIXEL_SIZE,
        resolution=resolution,
    )


def log_likelihood_ratio(image, moved, *, sigma2, last_ring=SIZE // 2):
    """Half the sum over Fourier space of CTF^2 |D|^2 / (2 sigma2), D the difference / n^2."""
    ring = ring_numbers(SIZE)
    both = torch.full_like(ring, 2, dtype=torch.float64)
    both[:, [0, -1]] = 1
    difference = torch.fft.rfft2((image - moved).double()).abs().square() / SIZE**4
    used = (ring > 0) & (ring <= last_ring)
    return float((difference * both * used).sum() / 2 * 0.5 / (2 * sigma2))


@pytest.mark.parametrize(("sigma2", "resolution"), [(1e-5, None), (2e-4, 16.0)])
def test_the_turn_found_is_just_told(sigma2, resolution):
    image = phantom()[None]

    angle = estimate(image, sigma2=sigma2, resolution=resolution).rotation

    none = torch.zeros(1)
    moved = transform_images(image, psi=angle, shift_x=none, shift_y=none)
    ratio = log_likelihood_ratio(
        image[0], moved[0], sigma2=sigma2, last_ring=16 if resolution else SIZE // 2
    )
    assert ratio == pytest.approx(4.605, rel=0.03)


def test_the_shift_found_is_just_told_along_x_and_y():
    image = phantom()[None]

    shift = estimate(image).translation / PIXEL_SIZE

    none = torch.zeros(1)
    ratios = [
        log_likelihood_ratio(
            image[0], transform_images(image, psi=none, shift_x=x, shift_y=y)[0], sigma2=1e-5
        )
        for x, y in ((shift, none), (none, shift))
    ]
    assert np.mean(ratios) == pytest.approx(4.605, rel=0.1)


def test_accuracy_falls_with_the_noise_and_small_turns_scale_with_it():
    quiet, loud = (estimate(phantom()[None], sigma2=s) for s in (1e-6, 4e-6))

    assert float(loud.rotation / quiet.rotation) == pytest.approx(2.0, rel=0.05)
    assert float(loud.translation / quiet.translation) == pytest.approx(2.0, rel=0.05)


def test_small_classes_are_not_asked_and_round_ones_cannot_be_turned():
    steps = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    ball = torch.exp(-(steps[:, None] ** 2 + steps**2) / (2 * 5.0**2))
    averages = torch.stack([phantom(), ball, phantom()])

    found = estimate(averages, shares=torch.tensor([0.5, 0.4, 0.009]))

    assert found.rotation[1:].tolist() == [30.0, 999.0]
    assert found.translation[2] == 999.0
    assert found.translation[1] < 30


def test_an_empty_average_tells_nothing():
    found = estimate(torch.zeros(1, SIZE, SIZE))

    assert found.rotation.tolist() == [30.0]
    assert found.translation.tolist() == [10 * PIXEL_SIZE]


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="shares must have shape"):
        estimate(phantom()[None], shares=torch.ones(3))
    with pytest.raises(ShapeError, match="averages must have shape"):
        estimate(phantom())


@pytest.mark.data
def test_accuracies_are_those_that_relion_states(test_data):
    starfile = pytest.importorskip("starfile")
    mrcfile = pytest.importorskip("mrcfile")
    job = test_data / "relion5" / "Class2D" / "job003"
    model = starfile.read(job / "run_it025_model.star")
    table = starfile.read(job / "run_it025_data.star")["particles"]
    defocus = [torch.tensor(table[f"rlnDefocus{c}"].to_numpy()) for c in ("U", "V", "Angle")]
    ctf = evaluate_ctf(
        (64, 64),
        pixel_size=4.0,
        defocus_u=defocus[0],
        defocus_v=defocus[1],
        defocus_angle=defocus[2],
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )
    theirs = model["model_classes"]

    found = estimate_accuracy(
        torch.from_numpy(mrcfile.read(job / "run_it025_classes.mrcs").copy()),
        ctf_power=ctf.square().mean(0),
        sigma2=torch.tensor(model["model_optics_group_1"]["rlnSigma2Noise"].to_numpy()),
        shares=torch.tensor(theirs["rlnClassDistribution"].to_numpy()),
        pixel_size=4.0,
        resolution=64 * 4.0 / 22,  # its current image size is 44 px
    )

    # its steps, 0.2 to 0.5 deg here, only ever round up
    for ours, name in zip(found, ("Rotations", "TranslationsAngst"), strict=True):
        expected = theirs[f"rlnAccuracy{name}"].to_numpy()
        np.testing.assert_array_equal(ours.numpy() == 999, expected == 999)
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0.16)
