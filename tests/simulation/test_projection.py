"""Projections of points against volumes, rotations, shifts and RELION."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch

from cryopick.errors import ParameterError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import (
    Model,
    merge_points,
    point_filter,
    project,
    render_volume,
    splat,
)

EYE = np.eye(3)[None]


def cloud(count=400, *, blur=4.0, seed=3):
    draw = np.random.default_rng(seed)
    positions = torch.from_numpy(draw.normal(size=(count, 3)) * [12.0, 20.0, 28.0]).float()
    weights = torch.from_numpy(draw.uniform(100, 300, count)).float()
    return Model(
        name="cloud",
        positions=positions,
        weights=weights,
        blur=blur,
        symmetry="C1",
        diameter=170.0,
    )


def point_at(x, y, z=0.0, *, blur=3.0):
    return Model(
        name="point",
        positions=torch.tensor([[x, y, z]]),
        weights=torch.tensor([1000.0]),
        blur=blur,
        symmetry="C1",
        diameter=20.0,
    )


def gaussian(size, pixel_size, *, x, y, blur, weight):
    at = (torch.arange(size).double() - size // 2) * pixel_size
    image = torch.exp(-((at[:, None] - y) ** 2 + (at[None, :] - x) ** 2) / (2 * blur**2))
    return weight * image / (2 * np.pi * blur**2)


@pytest.mark.parametrize("place", [(0.0, 0.0), (3.3, -7.9), (10.05, 4.4)])
def test_a_point_becomes_its_gaussian_wherever_it_lies(place):
    x, y = place

    image = project(point_at(x, y), EYE, box_size=32, pixel_size=2.0)[0]

    expected = gaussian(32, 2.0, x=x, y=y, blur=3.0, weight=1000.0)
    assert (image - expected).abs().max() < 2e-3 * expected.max()


def test_the_sum_of_an_image_is_the_weight_of_the_model():
    model = cloud()

    images = project(model, euler_matrices(np.eye(3) * 50), box_size=96, pixel_size=3.0)

    total = images.sum((1, 2)) * 9.0
    torch.testing.assert_close(total, model.weights.sum().expand(3), rtol=1e-4, atol=0)


def test_the_projection_of_a_volume_is_its_sum_along_z():
    model = cloud()

    volume = render_volume(model, box_size=96, pixel_size=3.0)
    image = project(model, EYE, box_size=96, pixel_size=3.0)[0]

    assert (volume.sum(0) * 3.0 - image).abs().max() < 5e-3 * image.max()


def test_psi_turns_the_image_by_a_quarter_as_rot90_does():
    angles = np.array([[40.0, 65.0, 0.0], [40.0, 65.0, 90.0]])

    first, second = project(cloud(), euler_matrices(angles), box_size=64, pixel_size=3.0)

    # a right-angled turn about pixel 32: rot90 turns about 31.5, so row and column 0 are dropped
    turned = torch.rot90(first[1:, 1:], 1)
    assert (second[1:, 1:] - turned).abs().max() < 5e-3 * first.max()


def test_the_projection_of_a_turned_model_is_the_turned_projection():
    model, rotation = cloud(), euler_matrices(np.array([[33.0, 62.0, -110.0]]))
    turned = Model(
        name="turned",
        positions=model.positions @ torch.from_numpy(rotation[0].T).float(),
        weights=model.weights,
        blur=model.blur,
        symmetry="C1",
        diameter=model.diameter,
    )

    torch.testing.assert_close(
        project(model, rotation, box_size=64, pixel_size=3.0),
        project(turned, EYE, box_size=64, pixel_size=3.0),
        rtol=0,
        atol=0.05,
    )


def test_a_shift_moves_the_image_by_so_many_pixels():
    still = project(cloud(), EYE, box_size=64, pixel_size=3.0)[0]

    moved = project(cloud(), EYE, box_size=64, pixel_size=3.0, shifts_yx=np.array([[5.0, -3.0]]))[0]

    torch.testing.assert_close(moved, still.roll((5, -3), (0, 1)), rtol=0, atol=0.01)


def test_several_projections_add_up_in_one_image():
    rotations = euler_matrices(np.array([[0.0, 0, 0], [10.0, 80, 30]]))
    apart = project(cloud(), rotations, box_size=48, pixel_size=4.0)

    joined = project(
        cloud(),
        rotations,
        box_size=48,
        pixel_size=4.0,
        image_index=np.array([2, 2]),
        count=4,
    )

    torch.testing.assert_close(joined[2], apart.sum(0), rtol=0, atol=1e-3 * float(apart.max()))
    assert joined[[0, 1, 3]].abs().max() < 1e-4 * apart.max()


def test_a_field_of_points_is_the_image_of_each_at_its_place():
    field = torch.zeros(1, 80, 112)
    model = cloud(50)
    centers = torch.tensor([[30.25, 40.5], [50.0, 70.75]])

    splat(field, model, torch.from_numpy(np.repeat(EYE, 2, 0)), centers, pixel_size=3.0)
    transform = torch.fft.rfft2(field[0]) * point_filter((80, 112), model, pixel_size=3.0)
    image = torch.fft.irfft2(transform, s=(80, 112))

    expected = torch.zeros(80, 112, dtype=torch.float64)
    for place, weight in zip(model.positions, model.weights, strict=True):
        for y, x in centers:
            rows = (torch.arange(80) - y) * 3.0 - place[1]
            columns = (torch.arange(112) - x) * 3.0 - place[0]
            spread = torch.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2).double() / 32)
            expected += weight * spread / (32 * np.pi)
    assert (image - expected).abs().max() < 0.01 * expected.max()


def test_points_outside_the_image_are_left_out_and_none_is_nothing():
    image = project(point_at(500.0, 0.0), EYE, box_size=32, pixel_size=2.0)

    assert image.abs().max() == 0
    assert project(cloud(), EYE[:0], box_size=32, pixel_size=2.0).shape == (0, 32, 32)


def test_merged_points_keep_mass_and_image():
    model = cloud(20000)

    merged = merge_points(model, spacing=3.0)

    assert len(merged.positions) < 0.8 * len(model.positions)
    assert merged.weights.sum().item() == pytest.approx(model.weights.sum().item(), rel=1e-5)
    image = project(model, EYE, box_size=64, pixel_size=3.0)
    after = project(merged, EYE, box_size=64, pixel_size=3.0)
    assert (image - after).norm() < 0.02 * image.norm()


def test_an_odd_box_is_refused():
    with pytest.raises(ParameterError, match="box_size must be an even number"):
        project(cloud(), EYE, box_size=31, pixel_size=2.0)


@pytest.mark.relion
@pytest.mark.parametrize("angles", [(33.0, 62.0, -110.0), (-70.0, 120.0, 15.0)])
def test_angles_and_projections_are_those_of_relion(tmp_path, angles):
    if not shutil.which("relion_project"):
        pytest.skip("no relion_project: install the Debian package relion")
    model = cloud()
    volume = render_volume(model, box_size=64, pixel_size=4.0)
    write_mrc(tmp_path / "map.mrc", volume.numpy(), pixel_size=4.0)
    command = ["relion_project", "--i", "map.mrc", "--o", "image.mrc", "--angpix", "4"]
    for name, value in zip(("--rot", "--tilt", "--psi"), angles, strict=True):
        command += [name, str(value)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    image = project(model, euler_matrices(np.array([angles])), box_size=64, pixel_size=4.0)[0]

    theirs = read_mrc(tmp_path / "image.mrc")
    assert np.corrcoef(theirs.ravel(), image.numpy().ravel())[0, 1] > 0.9995
