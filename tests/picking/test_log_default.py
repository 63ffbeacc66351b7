"""The default blob picker: positions, scores, thresholds and masks, against known truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.errors import DataError, ShapeError
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.field import prepare_field
from cryopick.picking.field_masks import contamination, damaged_borders
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters

PIXEL_SIZE = 4.0
PARAMETERS = LogParameters(min_diameter=140, max_diameter=180)


def field_of_discs(
    centers, *, shape=(600, 700), diameter=160.0, contrast=1.0, seed=0, pixel_size=PIXEL_SIZE
):
    """White noise with dark discs; centres are (x, y) in px and may lie between pixels."""
    noise = np.random.default_rng(seed).normal(size=shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cx, cy in centers:
        edge = diameter / 2 / pixel_size - np.hypot(x - cx, y - cy)
        noise -= contrast * np.clip(edge + 0.5, 0, 1)
    return torch.from_numpy(noise.astype(np.float32))


def grid_of_centers(n_x, n_y, *, step=90.0, start=75.3):
    return [(start + step * i, start + step * j) for i in range(n_x) for j in range(n_y)]


def match(picks, centers):
    """Distance from each centre to the nearest pick, px, and the number of picks."""
    chosen = np.c_[picks.x, picks.y][picks.is_pick]
    return [np.hypot(*(chosen - c).T).min() for c in centers if len(chosen)], len(chosen)


@pytest.mark.parametrize(("contrast", "error_px"), [(0.5, 8.0), (2.0, 1.5), (20.0, 0.6)])
def test_every_disc_is_found_and_nothing_else(contrast, error_px):
    centers = grid_of_centers(6, 5)

    picks = pick_log(
        field_of_discs(centers, contrast=contrast), pixel_size=PIXEL_SIZE, parameters=PARAMETERS
    )

    distances, count = match(picks, centers)
    assert max(distances) < error_px
    assert count <= len(centers) / 0.8  # a tenth of a crowded field may be noise


def test_detected_diameters_are_those_of_the_discs():
    centers = grid_of_centers(6, 4, step=95.0, start=90.0)
    sizes = [120.0, 160.0, 200.0] * 8
    field = sum(
        field_of_discs([c], diameter=d, contrast=3.0, seed=i) / 5
        for i, (c, d) in enumerate(zip(centers, sizes, strict=True))
    )

    picks = pick_log(
        field, pixel_size=PIXEL_SIZE, parameters=LogParameters(min_diameter=110, max_diameter=210)
    )

    nearest = [np.hypot(picks.x - x, picks.y - y).argmin() for x, y in centers]
    np.testing.assert_allclose(picks.diameter[nearest], sizes, rtol=0.12)


def test_positions_are_below_the_working_pixel():
    centers = grid_of_centers(6, 5, start=75.37)

    picks = pick_log(
        field_of_discs(centers, contrast=10.0), pixel_size=PIXEL_SIZE, parameters=PARAMETERS
    )

    chosen = np.c_[picks.x, picks.y][picks.is_pick]
    errors = np.array([chosen[np.hypot(*(chosen - c).T).argmin()] - c for c in centers])
    assert np.abs(errors.mean(0)).max() < 0.15  # no half-pixel bias; a working pixel is 3 px
    assert np.hypot(*errors.T).max() < 0.6


def test_binning_moves_no_position():
    centers = grid_of_centers(3, 3, step=180.0, start=151.0)
    fine = field_of_discs(centers, shape=(1200, 1400), contrast=10.0, pixel_size=2.0)

    picks = pick_log(fine, pixel_size=2.0, parameters=PARAMETERS)

    distances, _ = match(picks, centers)
    assert max(distances) < 1.5


@pytest.mark.parametrize("diameters", [(150, 180), (150, 150), (100, 200)])
def test_pure_noise_gives_at_most_one_pick_a_field(diameters):
    parameters = LogParameters(min_diameter=diameters[0], max_diameter=diameters[1])
    counts = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1024, 1024, generator=generator)
        picks = pick_log(noise, pixel_size=3.54, parameters=parameters)
        counts.append(int(picks.is_pick.sum()))

    assert np.mean(counts) <= 1.0


def test_white_particles_are_found_when_told_so():
    centers = grid_of_centers(4, 4)
    white = -field_of_discs(centers, contrast=2.0)

    told = LogParameters(min_diameter=140, max_diameter=180, white_particles=True)
    right = pick_log(white, pixel_size=PIXEL_SIZE, parameters=told)
    wrong = pick_log(white, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    assert max(match(right, centers)[0]) < 4.0
    assert np.median(match(wrong, centers)[0] or [99]) > 5.0


def test_scores_do_not_depend_on_grey_scale():
    field = field_of_discs(grid_of_centers(4, 4))

    plain = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)
    scaled = pick_log(300 * field + 2e4, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    count = int(plain.is_pick.sum())
    np.testing.assert_allclose(scaled.fom[:count], plain.fom[:count], rtol=1e-2)
    np.testing.assert_allclose(scaled.x[:count], plain.x[:count], atol=0.5)


def test_turning_the_field_turns_the_picks():
    centers = grid_of_centers(5, 5)
    field = field_of_discs(centers, shape=(600, 600), contrast=2.0)

    straight = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)
    turned = pick_log(torch.rot90(field), pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    there = np.c_[straight.x, straight.y][:25]
    back = np.c_[599 - turned.y, turned.x][:25]  # rot90 takes (x, y) to (y, 599 - x)
    nearest = np.hypot(*(back[:, None] - there[None]).transpose(2, 0, 1)).min(1)
    assert nearest.max() < 1.5


def test_mixed_noise_levels_give_no_picks_on_the_noisy_side():
    field = field_of_discs([], seed=3)
    field[:, 350:] *= 4

    picks = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    assert int(picks.is_pick.sum()) <= 1


def test_smeared_borders_are_measured():
    image = torch.randn(400, 500, generator=torch.Generator().manual_seed(0))
    image[:20] = image[20]
    image[:, -33:] = image[:, -34, None]

    top, bottom, left, right = damaged_borders(image)

    assert abs(top - 20) <= 2
    assert abs(right - 33) <= 2
    assert (bottom, left) == (0, 0)


def test_a_blob_larger_than_a_particle_is_masked_and_particles_are_not():
    centers = grid_of_centers(5, 5)
    field = field_of_discs(centers, contrast=1.0)
    ice = field_of_discs([(600.0, 500.0)], diameter=480.0, contrast=3.0, seed=1)
    working = prepare_field(
        field + ice, pixel_size=PIXEL_SIZE, working_pixel_size=12.0, white_particles=False
    )

    mask = contamination(working, min_diameter=140, max_diameter=180)

    def at(x, y):
        row = round((y - working.offset[0]) / working.scale[0])
        return bool(mask[row, round((x - working.offset[1]) / working.scale[1])])

    assert at(600, 500)
    assert not any(at(x, y) for x, y in centers)


def test_particles_beside_carbon_are_found_and_carbon_is_masked():
    centers = [c for c in grid_of_centers(6, 5) if c[0] < 320]
    field = field_of_discs(centers, contrast=1.0)
    field[:, 400:] -= 4.0  # a film covers four tenths of the field
    field[:, 400:] *= 1.5

    picks = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    distances, count = match(picks, centers)
    assert max(distances) < 3.0
    assert count <= len(centers) + 2
    assert picks.valid_fraction == pytest.approx(0.55, abs=0.05)


def test_a_gradient_across_the_field_makes_no_picks_at_its_edges():
    field = field_of_discs([], seed=5)
    field += torch.linspace(0, 3, field.shape[1])[None]

    picks = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    assert int(picks.is_pick.sum()) <= 1


def test_uneven_ice_is_not_masked():
    field = field_of_discs(grid_of_centers(6, 5), contrast=1.0)
    field += 3 * torch.linspace(-1, 1, field.shape[1])[None] ** 2

    picks = pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    assert picks.valid_fraction > 0.99
    assert int(picks.is_pick.sum()) >= 30


def test_masked_ice_is_not_picked():
    ice = field_of_discs([(350.0, 300.0)], diameter=480.0, contrast=3.0)

    with_mask = pick_log(ice, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    inside = np.hypot(with_mask.x - 350, with_mask.y - 300) < 60
    assert not (inside & with_mask.is_pick).any()
    assert with_mask.valid_fraction < 0.97


@pytest.mark.parametrize(("value", "rule"), [(float("nan"), "finite"), (float("inf"), "finite")])
def test_a_field_with_broken_pixels_is_refused(value, rule):
    field = field_of_discs([])
    field[3, 4] = value

    with pytest.raises(DataError, match=rule):
        pick_log(field, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)


def test_a_constant_field_is_refused():
    with pytest.raises(DataError, match="contrast"):
        pick_log(torch.full((300, 300), 7.0), pixel_size=PIXEL_SIZE, parameters=PARAMETERS)


def test_a_stack_is_refused():
    with pytest.raises(ShapeError):
        pick_log(torch.zeros(2, 300, 300), pixel_size=PIXEL_SIZE, parameters=PARAMETERS)


def test_a_field_smaller_than_a_particle_gives_nothing():
    tiny = torch.randn(30, 30, generator=torch.Generator().manual_seed(0))

    picks = pick_log(tiny, pixel_size=PIXEL_SIZE, parameters=PARAMETERS)

    assert len(picks.x) == 0


@pytest.mark.data
def test_apoferritin_shells_are_found(test_data):
    import starfile

    name = "May08_03.05.02"
    field = read_micrograph(test_data / f"apoferritin/micrographs/{name}.mrc")
    truth = starfile.read(test_data / f"apoferritin/coordinates/{name}.star")
    centers = truth[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()

    picks = pick_log(
        torch.from_numpy(field),
        pixel_size=1.5,
        parameters=LogParameters(min_diameter=110, max_diameter=140),
    )

    chosen = np.c_[picks.x, picks.y][picks.is_pick]
    distance = np.hypot(*(chosen[:, None] - centers[None]).transpose(2, 0, 1))
    found = (distance.min(0) < 25).sum()
    assert found / len(centers) > 0.85
    assert (distance.min(1) < 25).mean() > 0.9


@pytest.mark.data
def test_contamination_is_masked_as_a_trained_network_masks_it(test_data):
    micrograph = read_micrograph(test_data / "contamination/micrograph.mrc")
    marked = read_micrograph(test_data / "contamination/mask.mrc") > 0.5
    working = prepare_field(
        torch.from_numpy(micrograph),
        pixel_size=4.0,
        working_pixel_size=13.0,
        white_particles=False,
    )

    mask = contamination(working, min_diameter=160, max_diameter=160).numpy()

    inside = working.is_inside.numpy()
    mask = mask[inside.any(1)][:, inside.any(0)]
    rows = (np.arange(inside.shape[0]) * working.scale[0] + working.offset[0])[inside.any(1)]
    columns = (np.arange(inside.shape[1]) * working.scale[1] + working.offset[1])[inside.any(0)]
    truth = marked[np.ix_(rows.round().astype(int), columns.round().astype(int))]
    assert (mask & truth).sum() / truth.sum() > 0.85
    assert (mask & ~truth).mean() < 0.2


def test_strong_isolated_particles_are_centred():
    centers = [(150.3, 140.7), (480.2, 160.4), (300.6, 450.1)]

    picks = pick_log(
        field_of_discs(centers, contrast=5.0), pixel_size=PIXEL_SIZE, parameters=PARAMETERS
    )

    assert max(match(picks, centers)[0]) < 0.6


def test_discs_larger_than_the_gaps_do_not_make_every_peak_a_pick():
    centers = grid_of_centers(30, 26, step=22.0, start=20.0)
    field = field_of_discs(centers, diameter=24.0, contrast=2.0)

    picks = pick_log(
        field, pixel_size=PIXEL_SIZE, parameters=LogParameters(min_diameter=20, max_diameter=200)
    )

    assert picks.fom.max() < 1e3
    assert picks.is_pick.sum() < len(picks.fom)


def test_pixels_coarser_than_the_particle_are_refused():
    with pytest.raises(DataError, match="over 4 px"):
        pick_log(field_of_discs([]), pixel_size=50.0, parameters=PARAMETERS)


def test_contrast_in_a_few_rows_only_is_refused():
    field = torch.zeros(1003, 1203)
    field[-2:] = torch.randn(2, 1203, generator=torch.Generator().manual_seed(0))

    with pytest.raises(DataError, match="contrast"):
        pick_log(field, pixel_size=1.0, parameters=PARAMETERS)
