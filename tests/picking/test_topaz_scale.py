"""What is worked out for Topaz before it runs: sizes, prior, split, best epoch, fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.errors import DataError, ParameterError
from cryopick.image.fourier import fourier_resize
from cryopick.picking.label_split import split_micrographs
from cryopick.picking.topaz_field import (
    SearchArea,
    find_search_area,
    picks_of_peaks,
    shrink_for_topaz,
    shrunk_shape,
)
from cryopick.picking.topaz_parameters import TopazPickParameters, TopazTrainParameters
from cryopick.picking.topaz_scale import (
    choose_scale,
    disc_pixels,
    effective_particles,
    prior_inflation,
)
from cryopick.picking.topaz_training import best_epoch, epoch_scores


def test_the_scale_is_that_of_the_relion_tutorial():
    scale = choose_scale(diameter=180, pixel_size=0.885)

    assert (scale.downscale, scale.training_radius, scale.picking_radius) == (6, 4, 17)


@pytest.mark.parametrize(
    ("diameter", "pixel_size", "downscale"),
    [(125, 1.5, 4), (160, 7.08, 1), (60, 1.0, 3), (125, 4.0, 1), (1000, 1.0, 28)],
)
def test_binned_micrographs_and_small_particles_are_shrunk_less_than_relion_does(
    diameter, pixel_size, downscale
):
    scale = choose_scale(diameter=diameter, pixel_size=pixel_size)

    assert scale.downscale == downscale
    assert scale.picking_radius == pytest.approx(diameter / 2 / scale.pixel_size, abs=0.5)


def test_a_radius_below_a_pixel_is_refused():
    with pytest.raises(ParameterError, match=r"diameter must be at least 4 px of 12 A"):
        choose_scale(diameter=40, pixel_size=3, downscale=4)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
@pytest.mark.parametrize("inflation", [1, 7])
def test_topaz_expects_the_true_share_among_the_unlabelled(radius, inflation):
    expected, labelled, pixels = 90.0, 40.0, 512.0 * 512
    told = effective_particles(
        expected=expected, labelled=labelled, radius=radius, inflation=inflation, pixels=pixels
    )

    area = disc_pixels(radius) * inflation  # as this Topaz counts
    share = told * area / pixels - labelled * area / pixels  # as Topaz works it out

    assert share == pytest.approx((expected - labelled) * disc_pixels(radius) / pixels)


def test_a_loss_that_takes_no_labels_off_gets_the_true_share_of_all():
    given = {"expected": 70.0, "labelled": 30.0, "radius": 2, "inflation": 5, "pixels": 1e5}

    assert effective_particles(**given, is_whole=True) * 5 == pytest.approx(70.0)


def test_the_error_of_topaz_is_that_of_a_cube_of_layers():
    counted = {1: 15, 2: 65, 3: 203, 4: 441}  # pixels of a particle as Topaz 0.3.20 counts them

    for radius, pixels in counted.items():
        assert disc_pixels(radius) * prior_inflation("0.3.20", radius=radius) == pixels
        assert prior_inflation("0.2.5", radius=radius) == 1
        assert prior_inflation("0.30.1", radius=radius) == 1


def test_no_more_particles_than_labels_or_pixels_are_refused():
    given = {"radius": 3, "inflation": 7, "pixels": 1e5}

    with pytest.raises(ParameterError, match="particles_per_micrograph must be above the 50 "):
        effective_particles(expected=50, labelled=50, **given)
    with pytest.raises(DataError, match="leave background between discs of 3 px"):
        effective_particles(expected=3000, labelled=2000, **given)


@pytest.mark.parametrize("seed", range(6))
def test_no_micrograph_is_in_training_and_test(seed):
    counts = np.random.default_rng(seed).integers(1, 200, size=2 + 5 * seed).tolist()

    train, test = split_micrographs(counts, test_share=0.2, seed=seed)

    assert sorted(train + test) == list(range(len(counts)))
    assert train
    assert sum(counts[i] for i in test) >= 0.2 * sum(counts) or len(test) == len(counts) // 2


def test_one_micrograph_cannot_be_split():
    with pytest.raises(DataError, match="at least 2 micrographs"):
        split_micrographs([500], test_share=0.2, seed=1)


def test_the_best_epoch_is_that_of_the_largest_area_of_the_test():
    curve = [
        "epoch\titer\tsplit\tloss\tge_penalty\tprecision\tadjusted_precision\ttpr\tfpr\tauprc",
        "1\t1\ttrain\t0.3\t2.0\t0.1\t0.2\t0.9\t0.1\t-",
        "1\t2\ttest\t0.3\t-\t0.1\t0.2\t0.9\t0.1\t0.40",
        "2\t4\ttest\t0.1\t-\t0.1\t0.2\t0.9\t0.1\t0.70",
        "3\t6\ttest\t0.0\t-\t0.1\t0.2\t0.9\t0.1\tnan",
        "4\t8\ttest\t0.0\t-\t0.1\t0.2\t0.9\t0.1\t0.65",
    ]

    assert epoch_scores(curve) == {1: 0.4, 2: 0.7, 4: 0.65}
    assert best_epoch(epoch_scores(curve)) == 2


def test_a_shrunk_field_keeps_its_places_and_loses_its_hot_pixels():
    y, x = torch.meshgrid(torch.arange(331.0), torch.arange(410.0), indexing="ij")
    field = torch.randn(331, 410, generator=torch.Generator().manual_seed(1)) * 0.1
    spot = 0.6 * torch.exp(-((y - 120) ** 2 + (x - 201) ** 2) / (2 * 8.0**2))
    field[40, 40] = -1e6
    shape = shrunk_shape((331, 410), pixel_size=1.5, working_pixel_size=6.0)

    image = shrink_for_topaz(field - spot, shape=shape)
    hottest = int(image.argmin())

    assert shape == (82, 102)
    assert abs(hottest // 102 * 331 / 82 - 120) <= 2.1
    assert abs(hottest % 102 * 410 / 102 - 201) <= 2.1
    assert image.mean().abs() < 1e-5
    assert image.std() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(
        shrink_for_topaz(spot - field, shape=shape, white_particles=True), image
    )


def test_without_outliers_nothing_but_shrinking_and_scaling_is_done():
    field = torch.randn(96, 128, generator=torch.Generator().manual_seed(2)) * 7 + 1000

    image = shrink_for_topaz(field, shape=(32, 40))
    plain = fourier_resize(field, shape=(32, 40))

    torch.testing.assert_close(image, (plain - plain.mean()) / plain.std(), atol=1e-3, rtol=0)


def test_a_field_far_coarser_than_the_others_is_refused():
    with pytest.raises(DataError, match="pixels of at most 6 A"):
        shrunk_shape((512, 512), pixel_size=8.0, working_pixel_size=6.0)


def test_peaks_come_back_at_their_place_best_first_and_only_where_particles_may_lie():
    is_searched = np.zeros((10, 10), bool)
    is_searched[2:8, 2:8] = True
    area = SearchArea(is_searched, (40.0, 40.0), (10.0, 10.0), 0.9)

    found = picks_of_peaks(
        np.array([50.0, 60.0, 1.0, 30.0]),
        np.array([40.0, 55.0, 40.0, 30.0]),
        np.array([-4.0, 2.0, 9.0, -3.0]),
        scale=(4.0, 4.1),
        area=area,
        diameter=125.0,
        threshold=-3.0,
    )

    assert found.x.round(6).tolist() == [246.0, 123.0, 205.0]
    assert found.y.tolist() == [220.0, 120.0, 160.0]
    assert found.fom.tolist() == [2.0, -3.0, -4.0]
    assert found.is_pick.tolist() == [True, True, False]


def test_the_edge_is_left_out():
    field = torch.randn(300, 400, generator=torch.Generator().manual_seed(3))

    area = find_search_area(field, pixel_size=4.0, diameter=160.0, edge_distance=80.0, mask=True)
    x = np.array([5.0, 15.0, 30.0, 200.0, 370.0, 385.0, 395.0])

    assert area.contains(x, np.full(7, 150.0)).tolist() == [False] * 2 + [True] * 3 + [False] * 2
    assert area.contains(x / 2, np.full(7, 5.0)).any() == np.False_


@pytest.mark.parametrize(
    "words", ["--output=x", "-o x", "--up-scale 4", "-s 2", "-t0", "--thresh 0"]
)
def test_arguments_that_cryopick_gives_itself_are_refused(words):
    with pytest.raises(ParameterError, match="leave to cryopick what it gives itself"):
        TopazPickParameters(diameter=100, topaz_args=words)


def test_other_arguments_are_split_as_a_shell_does():
    given = TopazTrainParameters(diameter=100, topaz_args="--method PU --slack '2.5'")

    assert given.arguments == ["--method", "PU", "--slack", "2.5"]
    with pytest.raises(ParameterError, match="have its quotes closed"):
        TopazTrainParameters(diameter=100, topaz_args="--method 'PU")
    with pytest.raises(ParameterError, match=r"epoch must be at most --epochs \(3\)"):
        TopazTrainParameters(diameter=100, epochs=3, epoch=4)
