"""The pixel error and its gauges against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.class2d.stable_error import (
    Frames,
    Gauges,
    apply_gauges,
    find_gauges,
    mean_pose,
    mirror_consistency,
    pixel_errors,
)

DIAMETER = 58.0  # px, twice the target radius of ISAC


def frames(n_runs: int, n: int, *, seed: int = 0) -> Frames:
    """Poses alike in all runs."""
    draw = np.random.default_rng(seed)
    angle = np.tile(draw.uniform(-np.pi, np.pi, n), (n_runs, 1))
    shift = np.tile(draw.normal(0, 2, n) + 1j * draw.normal(0, 2, n), (n_runs, 1))
    return Frames(angle=angle, shift=shift, mirror=np.tile(draw.random(n) < 0.5, (n_runs, 1)))


def test_an_angle_that_scatters_by_two_degrees_is_an_error_of_seven_tenths() -> None:
    scatter = np.deg2rad(1.96)
    still = np.zeros((2, 1))
    turned = Frames(
        angle=np.array([[scatter], [-scatter]]), shift=still + 0j, mirror=still.astype(bool)
    )
    assert pixel_errors(turned, diameter=DIAMETER)[0] == pytest.approx(0.70, abs=0.003)


def test_shifts_that_scatter_by_half_a_pixel_are_an_error_of_seven_tenths() -> None:
    still = np.zeros((2, 1))
    moved = Frames(
        angle=still,
        shift=np.array([[0.495 + 0.495j], [-0.495 - 0.495j]]),
        mirror=still.astype(bool),
    )
    assert pixel_errors(moved, diameter=DIAMETER)[0] == pytest.approx(0.70, abs=0.001)


def test_three_runs_by_hand() -> None:
    # angles 0, 90, 180 deg: |1 + i - 1| / 3 = 1 / 3; x 0, 3, 6: variance 6
    one = Frames(
        angle=np.deg2rad([[0.0], [90.0], [180.0]]),
        shift=np.array([[0.0], [3.0], [6.0]]) + 0j,
        mirror=np.zeros((3, 1), bool),
    )
    assert pixel_errors(one, diameter=2.0)[0] ** 2 == pytest.approx(2 / 3 + 6)


def test_frames_of_runs_do_not_count() -> None:
    draw = np.random.default_rng(3)
    given = frames(5, 40)
    gauges = Gauges(
        angle=draw.uniform(-np.pi, np.pi, 5),
        shift=draw.normal(0, 5, 5) + 1j * draw.normal(0, 5, 5),
        mirror=np.array([False, True, True, False, True]),
    )
    moved = apply_gauges(given, gauges)
    assert pixel_errors(moved, diameter=DIAMETER).min() > 3
    found, consistent = find_gauges(moved, diameter=DIAMETER, limit=0.7)
    assert consistent.all()
    assert pixel_errors(apply_gauges(moved, found), diameter=DIAMETER).max() < 1e-5


def test_gauges_are_found_among_outliers_and_errors_are_those_put_in() -> None:
    draw = np.random.default_rng(4)
    given = frames(5, 100)
    noisy = Frames(
        angle=given.angle + draw.normal(0, np.deg2rad(1.0), (5, 100)),
        shift=given.shift,
        mirror=given.mirror,
    )
    noisy.angle[:, :20] = draw.uniform(-np.pi, np.pi, (5, 20))
    turned = apply_gauges(
        noisy, Gauges(angle=np.arange(5.0), shift=np.zeros(5) + 0j, mirror=np.zeros(5, bool))
    )
    found, _ = find_gauges(turned, diameter=DIAMETER, limit=0.7)
    errors = pixel_errors(apply_gauges(turned, found), diameter=DIAMETER)
    # d / 2 times the scatter, sqrt((1 - 1 / 5) / 2) of it left about the mean of 5 runs
    expected = DIAMETER / 2 * np.deg2rad(1.0) * np.sqrt(0.8 / 2)
    assert np.sqrt((errors[20:] ** 2).mean()) == pytest.approx(expected, rel=0.1)
    assert (errors[:20] > 3).all()


def test_images_whose_mirror_changes_from_run_to_run_are_found() -> None:
    mirror = np.zeros((5, 30), bool)
    mirror[2] = True  # the whole run
    mirror[3, :4] = True
    flips, consistent = mirror_consistency(mirror)
    assert flips.tolist() == [False, False, True, False, False]
    assert np.flatnonzero(~consistent).tolist() == [0, 1, 2, 3]


def test_poses_go_to_frames_and_back() -> None:
    draw = np.random.default_rng(5)
    psi, x, y = draw.normal(0, 1, (3, 2, 9))
    mirror = draw.random((2, 9)) < 0.5
    back = Frames.from_poses(psi, x, y, mirror).to_poses()
    for one, other in zip(back, (psi, x, y), strict=True):
        assert np.allclose(one, other)


def test_the_mean_pose_lies_between() -> None:
    still = np.zeros((2, 1), bool)
    two = Frames(angle=np.deg2rad([[170.0], [-170.0]]), shift=np.array([[0j], [2j]]), mirror=still)
    mean = mean_pose(two)
    assert abs(np.rad2deg(mean.angle[0, 0])) == pytest.approx(180)
    assert mean.shift[0, 0] == pytest.approx(1j)
