"""Matched-filter picking: positions, sizes, scores and thresholds against known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError, ParameterError
from cryopick.image.fourier import frequency_grid
from cryopick.picking.blob import pick_blob
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.blob_shapes import blob_filters

PIXEL_SIZE = 3.0
SHAPE = (720, 800)
CTF = FieldCtf(18000.0, 17000.0, 35.0, 300.0, 2.7, 0.1)
PARAMETERS = BlobParameters(min_diameter=110, max_diameter=150)
CENTERS = [(70.3 + 82.7 * i, 66.2 + 81.4 * j) for i in range(9) for j in range(8)]  # x, y


def shape_image(kind, diameter, ctf, *, second=None, angle=None):
    """One centred shape of peak 1 as the lens shows it, as a transform about pixel 0."""
    fy, fx = frequency_grid(SHAPE, pixel_size=PIXEL_SIZE)
    bank = blob_filters(
        fy, fx, shapes=(kind,), min_diameter=diameter, max_diameter=second or diameter
    )
    blob = bank[-1] if angle is None else next(b for b in bank if b.psi == angle)
    scale = torch.fft.irfft2(blob.transfer.to(torch.complex64), s=SHAPE).max()
    lens = ctf.evaluate(SHAPE, pixel_size=PIXEL_SIZE) if ctf else 1.0
    return blob.transfer * lens / scale


def field(transfers, *, centers=CENTERS, contrast=1.0, seed=0, noise=1.0, colour=0.0):
    """Dark shapes in noise; `transfers` take turns over the centres."""
    fy, fx = frequency_grid(SHAPE)
    total = torch.zeros(SHAPE[0], SHAPE[1] // 2 + 1, dtype=torch.complex64)
    for number, (x, y) in enumerate(centers):
        shift = torch.exp(-2j * math.pi * (fy * y + fx * x))
        total += transfers[number % len(transfers)] * shift
    white = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    spectrum = 1 + colour * torch.exp(-torch.hypot(fy, fx).square() * 400)
    hiss = torch.fft.irfft2(torch.fft.rfft2(white) * spectrum, s=SHAPE)
    return noise * hiss - contrast * torch.fft.irfft2(total, s=SHAPE)


def pick(image, ctf=CTF, parameters=PARAMETERS, **changes):
    return pick_blob(
        image, pixel_size=PIXEL_SIZE, parameters=replace(parameters, **changes), ctf=ctf
    )


def scores_at_truth(found):
    """Score of the peak within 5 px of each centre; 0 where there is none."""
    gaps = np.hypot(found.x - np.array(CENTERS)[:, :1], found.y - np.array(CENTERS)[:, 1:])
    return np.where(gaps.min(1) < 5, found.fom[gaps.argmin(1)], 0.0)


def distances(found, centers=CENTERS):
    chosen = np.c_[found.x, found.y][found.is_pick]
    return np.array([np.hypot(*(chosen - c).T).min() for c in centers])


@pytest.mark.parametrize(("kind", "contrast"), [("ball", 8.0), ("shell", 2.0)])
def test_shapes_behind_the_lens_are_found_and_little_else(kind, contrast):
    found = pick(field([shape_image(kind, 130, CTF)], contrast=contrast))

    assert np.median(distances(found)) < 1.5
    assert distances(found).max() < 0.1 * 130 / PIXEL_SIZE
    assert found.is_pick.sum() <= len(CENTERS) / 0.9  # a tenth of a crowded field may be noise


def test_scores_are_not_far_below_what_the_best_filter_can_reach():
    """In white noise of variance 1, z^2 is at most the energy of the shape that is kept."""
    transfer = shape_image("shell", 130, CTF)
    fy, fx = frequency_grid(SHAPE, pixel_size=PIXEL_SIZE)
    is_kept = torch.maximum(fy.abs(), fx.abs()) < 6 / 130  # the low-pass of the smallest diameter
    band = (transfer * is_kept).to(torch.complex64)
    energy = torch.fft.irfft2(band, s=SHAPE).square().sum().item()
    only = {"min_diameter": 130.0, "max_diameter": 130.0, "shapes": "shell"}

    found = pick(field([transfer], contrast=2.0), learn_profile=False, **only)

    reached = np.median(scores_at_truth(found)) / (2 * math.sqrt(energy))
    assert 0.75 < reached < 1.05


def test_a_field_taken_over_focus_is_picked_by_who_knows_it():
    """Over focus particles are bright: the CTF says so, the picker is told nothing else."""
    over = CTF._replace(defocus_u=-18000.0, defocus_v=-17000.0)
    image = field([shape_image("shell", 130, over)], contrast=2.0)

    known, unknown = pick(image, ctf=over), pick(image, ctf=CTF)

    assert np.median(distances(known)) < 1.0
    assert np.mean(scores_at_truth(unknown) >= unknown.threshold) < 0.1


def test_the_learned_profile_does_not_depend_on_the_shape_it_began_with():
    image = field([shape_image("shell", 140, CTF)], contrast=2.2)

    of_ball, of_shell = pick(image, shapes="ball,shell"), pick(image, shapes="shell,disc")

    assert scores_at_truth(of_ball).min() > 5
    assert np.allclose(scores_at_truth(of_ball), scores_at_truth(of_shell), rtol=0.06)


def test_detected_diameters_are_those_of_the_shapes():
    sizes = [110.0, 130.0, 150.0]
    image = field([shape_image("shell", d, CTF) for d in sizes], contrast=3.0)

    found = pick(image, min_diameter=100.0, max_diameter=165.0)

    positions = np.c_[found.x, found.y]
    nearest = [np.hypot(*(positions - c).T).argmin() for c in CENTERS]
    for turn, size in enumerate(sizes):
        assert np.median(found.diameter[nearest][turn::3]) == pytest.approx(size, rel=0.05)


def test_psi_turns_the_long_axis_of_an_ellipse_onto_x():
    angles = [0.0, 45.0, 112.5]
    images = [shape_image("ellipse", 90, CTF, second=180, angle=a) for a in angles]
    image = field(images, contrast=6.0, centers=CENTERS[::2])

    found = pick(image, shapes="ball,ellipse", min_diameter=90.0, max_diameter=180.0)

    positions = np.c_[found.x, found.y]
    nearest = [np.hypot(*(positions - c).T).argmin() for c in CENTERS[::2]]
    assert set(found.class_number[nearest]) == {2}
    for turn, angle in enumerate(angles):
        off = (found.psi[nearest][turn::3] + angle + 90) % 180 - 90
        assert np.abs(off).max() < 1e-6


def test_noise_of_any_colour_gives_about_half_a_pick():
    counts = [
        pick(field([torch.tensor(0.0)], centers=[], seed=s, colour=c), ctf=None).is_pick.sum()
        for s in range(4)
        for c in (0.0, 3.0)
    ]

    assert np.mean(counts) <= 1.0


def test_white_particles_are_the_dark_ones_of_the_negative():
    image = field([shape_image("ball", 130, CTF)], contrast=5.0)

    dark, white = pick(image), pick(-image, white_particles=True)

    assert np.allclose(dark.x, white.x)
    assert np.allclose(dark.fom, white.fom)


def test_picks_follow_a_field_that_is_shifted_by_whole_working_pixels():
    image = field([shape_image("shell", 130, CTF)], contrast=2.0)
    one, other = pick(image[:, :-36]), pick(image[:, 36:])

    moved = np.c_[one.x - 36, one.y][one.is_pick]
    inside = moved[(moved[:, 0] > 40) & (moved[:, 0] < SHAPE[1] - 76)]
    chosen = np.c_[other.x, other.y]
    gaps = [np.hypot(*(chosen - c).T).min() for c in inside]
    assert len(inside) > 50
    assert np.median(gaps) < 0.2


def test_a_threshold_of_the_users_own_cuts_there():
    image = field([shape_image("ball", 130, CTF)], contrast=5.0)
    ours, theirs = pick(image), pick(image, threshold=9.0)

    assert theirs.threshold == 9.0
    assert np.array_equal(theirs.fom, ours.fom)
    assert theirs.is_pick.sum() == (ours.fom >= 9.0).sum()


def test_the_edge_distance_keeps_picks_off_the_edge():
    centers = [(12.0 + 82.7 * i, 14.0 + 81.4 * j) for i in range(9) for j in range(9)]
    image = field([shape_image("ball", 130, CTF)], centers=centers, contrast=6.0)

    near, far = pick(image, edge_distance=0.05), pick(image, edge_distance=1.0)

    assert near.x[near.is_pick].min() < 20
    assert far.x.min() > 110 / PIXEL_SIZE - 1


@pytest.mark.parametrize("said", [130.0, 140.0, 150.0])
def test_a_diameter_said_too_large_costs_little(said):
    image = field([shape_image("shell", 130, CTF)], contrast=2.0)

    found = pick(image, min_diameter=said, max_diameter=said)

    assert np.mean(distances(found) < 4.3) > 0.9


def test_every_switch_acts():
    image = field([shape_image("shell", 130, CTF)], colour=3.0, contrast=1.2)
    base = pick(image)

    for change in (
        {"whiten": False},
        {"low_pass": 40.0},
        {"min_distance": 2.0},
        {"shapes": "disc"},
        {"false_positives": 30.0},
    ):
        other = pick(image, **change)
        is_same = len(other.fom) == len(base.fom) and np.allclose(other.fom, base.fom)
        assert not (is_same and other.threshold == base.threshold), change


def test_maps_are_kept_only_if_asked_for():
    image = field([shape_image("ball", 130, CTF)], contrast=5.0)

    assert pick(image).maps == {}
    maps = pick(image, write_fom_maps=True).maps
    assert maps["fom"].shape == maps["mask"].shape
    assert maps["fom"].max() > 5


def test_pixels_too_coarse_for_the_particle_are_refused():
    with pytest.raises(DataError, match=r"show the smallest particle over 4 px; got 3\.3 px"):
        pick(field([torch.tensor(0.0)], centers=[]), min_diameter=10.0, max_diameter=20.0)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"min_diameter": 90.0}, "min_diameter must be given with max_diameter"),
        ({"max_diameter": 90.0}, "max_diameter must be given with min_diameter"),
        ({"min_diameter": 90.0, "max_diameter": 80.0}, "be at most max_diameter"),
        ({"shapes": "ball,cube"}, "shapes must be among ball, shell"),
        ({"shapes": " , "}, "got none"),
        ({"min_diameter": 90.0, "max_diameter": 99.0, "low_pass": 50.0}, "at most half of min"),
        (
            {"min_diameter": 90.0, "max_diameter": 99.0, "shapes": "ellipse"},
            r"at least 1\.25 times min_diameter for ellipses alone; got 1\.10 times",
        ),
    ],
)
def test_choices_that_contradict_each_other_are_refused(given, sentence):
    with pytest.raises(ParameterError, match=sentence):
        BlobParameters(**given)
