from __future__ import annotations

import numpy as np
import pytest
import torch
from density_world import (
    add_ball,
    distance_grid,
    f1,
    field_of_balls_and_dumbbells,
    locate,
    matched_distances,
)
from scipy import ndimage

from cryopick.errors import DataError, ParameterError
from cryopick.tomogram.locate_parameters import TomogramPickParameters


@pytest.fixture(scope="module")
def field():
    return field_of_balls_and_dumbbells()


@pytest.fixture(scope="module")
def picked(field):
    return locate(field[0])


def test_all_particles_and_nothing_else_are_found_at_their_centres(field, picked):
    assert f1(picked.places, field[1]) == 1.0
    assert matched_distances(picked.places, field[1]).mean() < 0.6


def test_a_dumbbell_is_one_pick_in_its_middle_where_the_baseline_takes_one_end(field, picked):
    dumbbells = field[1][1::2]
    plain = locate(field[0], method="dog")

    assert matched_distances(picked.places, dumbbells).max() < 2
    assert matched_distances(plain.places, dumbbells).mean() > 4


def test_blocks_and_threads_change_no_pick(field, picked):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = locate(field[0], block=80)
    finally:
        torch.set_num_threads(threads)

    np.testing.assert_allclose(other.places, picked.places, atol=0.01)
    np.testing.assert_allclose(other.scores, picked.scores, rtol=1e-3)


@pytest.mark.gpu
def test_the_device_changes_no_pick(field, picked):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    there = locate(field[0], device="cuda")

    np.testing.assert_allclose(there.places, picked.places, atol=0.01)
    np.testing.assert_allclose(there.scores, picked.scores, rtol=1e-3)


def test_white_particles_are_picked_as_dark_ones_are(field, picked):
    white = locate(-field[0], white_particles=True)

    np.testing.assert_allclose(white.places, picked.places, atol=1e-6)


def test_gain_and_offset_change_no_pick(field, picked):
    other = locate(field[0] * 37 + 1000)

    np.testing.assert_allclose(other.places, picked.places, atol=0.02)


def test_a_volume_turned_by_90_degrees_has_its_picks_turned(field, picked):
    turned = locate(np.ascontiguousarray(np.rot90(field[0], axes=(1, 2))))

    z, y, x = picked.places.T
    moved = np.stack([z, field[0].shape[2] - 1 - x, y], 1)
    assert matched_distances(turned.places, moved, within=1.5).size == len(picked)


@pytest.mark.parametrize("method", ["matched", "dog", "threshold"])
@pytest.mark.parametrize("is_coloured", [False, True])
def test_nothing_is_picked_in_noise(method, is_coloured):
    generator = np.random.default_rng(4)
    volume = generator.standard_normal((48, 96, 96)).astype(np.float32)
    if is_coloured:
        volume = ndimage.gaussian_filter(volume, 1.2, mode="wrap")

    assert len(locate(volume, method=method)) == 0


def test_a_membrane_is_left_out_and_the_particles_beside_it_are_kept():
    volume, centres = field_of_balls_and_dumbbells((64, 128, 128), 8, seed=3, noise=1.0)
    sheet = np.abs(distance_grid(volume.shape, (32, 64, 64)) - 40) < 2
    near = np.abs(np.linalg.norm(centres - (32, 64, 64), axis=1) - 40) < 18
    volume[sheet] -= 1.0

    found = locate(volume)
    kept = locate(volume, extended=True)

    on_sheet = np.abs(np.linalg.norm(found.places - (32, 64, 64), axis=1) - 40) < 6
    away = np.linalg.norm(found.places[:, None] - centres[None], axis=-1).min(1) > 10
    assert found.n_extended > 10
    assert (on_sheet & away).sum() <= 2 < len(kept) - len(found)
    assert len(matched_distances(found.places, centres[~near])) == (~near).sum()


def test_gold_is_found_and_its_streaks_are_no_particles():
    volume, centres = field_of_balls_and_dumbbells((64, 128, 128), 8, seed=5)
    beads = [(32, 20, 64), (20, 100, 30), (44, 64, 110)]
    gold = np.zeros_like(volume)
    for bead in beads:
        add_ball(gold, bead, 5.0, density=40.0)
    transform = np.fft.rfftn(gold)
    z = np.abs(np.fft.fftfreq(64))[:, None, None]
    is_seen = z <= np.sqrt(3) * np.fft.rfftfreq(128)[None, None]
    volume -= np.fft.irfftn(transform * is_seen, s=gold.shape, axes=(0, 1, 2)).astype(np.float32)
    clear = np.linalg.norm(centres[:, None] - np.array(beads)[None], axis=-1).min(1) > 16

    found = locate(volume)
    blind = locate(volume, gold=False)

    measured = np.array(sorted(b.centre for b in found.beads))
    np.testing.assert_allclose(measured, np.array(sorted(beads), float), atol=0.3)
    assert len(matched_distances(found.places, centres[clear])) == clear.sum()
    assert len(found) <= len(centres) + 1
    assert len(blind) > len(found) + 2


def test_limits_of_z_are_half_open_and_leave_the_rest_as_it_is(field, picked):
    some = locate(field[0], lower_z_slice=20, upper_z_slice=40)

    inside = (picked.places[:, 0] >= 21) & (picked.places[:, 0] < 38)
    assert matched_distances(some.places, picked.places[inside], within=1).size == inside.sum()
    assert ((some.places[:, 0] >= 19.5) & (some.places[:, 0] < 39.5)).all()


def test_picks_keep_their_distance_and_come_best_first(field):
    found = locate(field[0], min_distance=600.0)

    apart = np.linalg.norm(found.places[:, None] - found.places[None], axis=-1)
    assert apart[np.triu_indices(len(found), 1)].min() > 60
    assert (np.diff(found.scores) <= 0).all()


def test_sizes_and_axes_follow_the_particle():
    volume = np.zeros((64, 96, 96), np.float32)
    add_ball(volume, (32, 30, 30), 8.0)
    for step in np.linspace(-7, 7, 15):
        add_ball(volume, (32, 66, 66 + step), 4.5)
    volume = volume.clip(0, 1)
    volume += 0.7 * np.random.default_rng(2).standard_normal(volume.shape).astype(np.float32)

    found = locate(-volume)

    ball, rod = (
        int(np.abs(found.places - c).sum(1).argmin()) for c in ([32, 30, 30], [32, 66, 66])
    )
    ratio = found.extent.semi_axes[:, 0] / found.extent.semi_axes[:, 2]
    assert 1.2 * ratio[ball] < ratio[rod]
    assert abs(found.extent.axes[rod, 0] @ np.array([1.0, 0, 0])) > 0.95  # x first


def test_a_constant_volume_and_one_with_nan_are_refused():
    with pytest.raises(DataError, match="constant"):
        locate(np.full((48, 48, 48), 3.0, np.float32))
    broken = np.random.default_rng(0).standard_normal((48, 48, 48)).astype(np.float32)
    broken[20, 20, 20] = np.nan
    with pytest.raises(DataError, match="NaN"):
        locate(broken)


def test_wrong_limits_are_refused(field):
    with pytest.raises(ParameterError, match="lower_z_slice must be below"):
        TomogramPickParameters(lower_z_slice=30, upper_z_slice=30)
    with pytest.raises(ParameterError, match="64 sections"):
        locate(field[0], upper_z_slice=65)
    with pytest.raises(ParameterError, match="thickness"):
        locate(field[0], max_diameter=700.0)
    with pytest.raises(ParameterError, match="four voxels"):
        locate(field[0], min_diameter=30.0)
    with pytest.raises(ParameterError, match="tomo segment"):
        locate(field[0], method="segment")
