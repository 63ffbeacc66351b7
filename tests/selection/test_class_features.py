from __future__ import annotations

import numpy as np
import pytest
import torch
from class_world import SIZE, masked, particle, radius_and_angle, smooth_noise, stack, tensor

from cryopick.errors import ShapeError
from cryopick.image.fourier import fourier_resize
from cryopick.selection.class_features import FEATURES, GROUPS, class_inputs
from cryopick.selection.class_images import MASK_RADIUS, find_mask_radius, make_pictures
from cryopick.selection.class_looks import LOOKS
from cryopick.selection.class_scores import IMAGE_SIZE

PICTURE_FEATURES = [name for names in LOOKS.values() for name in names]


@pytest.mark.parametrize("radius", [14.0, 20.0, 24.0])
def test_the_mask_is_found_from_the_averages(radius: float) -> None:
    averages = np.stack([masked(particle(s), radius=radius) for s in range(3)])
    averages += np.stack([masked(smooth_noise(s) * 0.3, radius=radius) for s in range(3)])
    assert find_mask_radius(tensor(averages)) == pytest.approx(radius, abs=0.7)


def test_averages_without_a_mask_are_taken_whole() -> None:
    averages = np.stack([smooth_noise(s) for s in range(3)]).astype(np.float32)
    assert find_mask_radius(tensor(averages)) == pytest.approx(0.48 * SIZE)


def test_a_picture_does_not_depend_on_the_pixel_size() -> None:
    fine = tensor(np.stack([masked(particle(k, size=128), radius=50.0) for k in (1, 2)]))
    coarse = fourier_resize(fine.double(), shape=(SIZE, SIZE)).float()
    first = make_pictures(coarse, mask_radius=25.0).pixels
    second = make_pictures(fine, mask_radius=50.0).pixels
    error = (first - second).square().mean().sqrt()
    assert float(error) < 0.05  # of the deviation inside the mask


def test_a_picture_shows_the_mask_at_a_fixed_size() -> None:
    distance, _ = radius_and_angle(100)
    disc = np.where(distance < 30, 1.0, 0.0)[None].astype(np.float32)
    picture = make_pictures(tensor(disc), mask_radius=40.0).pixels[0]
    line = picture[IMAGE_SIZE // 2]
    bright = torch.nonzero(line > line.max() / 2)[:, 0] - IMAGE_SIZE // 2
    assert float(bright.max()) == pytest.approx(30 / 40 * MASK_RADIUS, abs=0.8)
    assert float(bright.min()) == pytest.approx(-30 / 40 * MASK_RADIUS, abs=0.8)


def test_the_scale_of_densities_does_not_count() -> None:
    averages = stack(particle(1), particle(2), smooth_noise(3))
    first = class_inputs(averages).features
    second = class_inputs(averages * 37.0).features
    np.testing.assert_allclose(first[PICTURE_FEATURES], second[PICTURE_FEATURES], atol=1e-4)


def test_turning_an_average_by_90_degrees_changes_nothing() -> None:
    averages = stack(particle(1), smooth_noise(2))
    turned = np.ascontiguousarray(averages[:, ::-1].transpose(0, 2, 1))
    turned = np.roll(turned, 1, axis=2)  # the middle is pixel n // 2
    first = class_inputs(averages).features[PICTURE_FEATURES]
    second = class_inputs(turned).features[PICTURE_FEATURES]
    np.testing.assert_allclose(first, second, atol=0.03)


def test_measures_say_what_they_are_named_for() -> None:
    distance, angle = radius_and_angle()
    disc = np.where(distance < 12, 1.0, 0.0)
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    away = np.where(np.hypot(y, x - 9) < 8, 1.0, 0.0)
    long = np.where((np.abs(y) < 4) & (np.abs(x) < 18), 1.0, 0.0)
    waves = np.cos(x * 0.6) + 0.2 * disc
    border = disc + np.where((distance > 21) & (np.abs(angle) < 0.8), 1.5, 0.0)
    averages = stack(disc, away, long, waves, border)
    table = class_inputs(averages, pixel_size=2.0, mask_diameter=100.0).features
    value = table.set_index("class_number").loc
    assert value[1, "off_centre"] < 0.05
    assert value[2, "off_centre"] == pytest.approx(9 / 25, abs=0.03)
    assert value[1, "roundness"] > 0.95
    assert value[3, "elongation"] > 3 > 1.1 > value[1, "elongation"]
    assert value[4, "streaks"] > 0.8 > value[1, "streaks"]
    assert value[5, "edge_share"] > 0.15 > 0.01 > value[1, "edge_share"]
    assert value[5, "scattered_share"] > 0.2 > value[1, "scattered_share"]
    assert value[1, "area"] == pytest.approx(12**2 / 25**2, abs=0.06)
    assert value[1, "contrast"] > value[4, "contrast"]


def test_noise_is_told_from_a_particle_by_its_background() -> None:
    table = class_inputs(stack(*[particle(s) for s in range(6)], smooth_noise(1))).features
    assert table["background"].iloc[:6].max() < table["background"].iloc[6] - 1


def test_an_empty_class_has_no_measures() -> None:
    averages = np.concatenate([stack(particle(1), particle(2)), np.zeros((1, SIZE, SIZE))])
    inputs = class_inputs(averages.astype(np.float32))
    assert inputs.features.loc[2, list(FEATURES)].isna().all()
    assert inputs.features["particle_count"].tolist()[2] == 0
    assert not inputs.images[2].any()
    assert inputs.features.loc[:1, PICTURE_FEATURES].notna().all(axis=None)


def test_a_bare_stack_leaves_what_only_a_run_knows_unknown() -> None:
    table = class_inputs(stack(particle(1), particle(2))).features
    of_run = [name for group, names in GROUPS.items() if group not in LOOKS for name in names]
    assert table[of_run].isna().all(axis=None)


def test_averages_must_be_square() -> None:
    with pytest.raises(ShapeError, match="averages must"):
        class_inputs(np.zeros((3, 64, 48), np.float32))
