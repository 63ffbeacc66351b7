"""Projections of maps against those of the model itself, and views against their symmetry."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from cryopick.alignment.point_groups import relion_point_group
from cryopick.errors import ParameterError, ShapeError
from cryopick.picking.projections import project_map, view_directions
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project, render_volume

ORDERS = {"C1": 1, "C5": 5, "D3": 6, "T": 12, "O": 24, "I": 60}


def directions(views):
    angles = np.column_stack([views, np.zeros(len(views))])
    return euler_matrices(angles)[:, 2]


def test_projections_of_a_map_are_those_of_its_model():
    model = make_phantom("asymmetric", diameter=120)
    views = np.array([[0.0, 0.0], [30.0, 55.0], [-140.0, 110.0]])
    volume = render_volume(model, box_size=96, pixel_size=2.0)

    images, pixel_size = project_map(volume, views, pixel_size=2.0, low_pass=16.0)

    angles = np.column_stack([views, np.zeros(3)])
    side = images.shape[-1]
    expected = project(model, euler_matrices(angles), box_size=side, pixel_size=pixel_size)
    frequency = torch.hypot(
        torch.fft.fftfreq(side, pixel_size)[:, None], torch.fft.rfftfreq(side, pixel_size)
    )
    for made, true in zip(images, expected, strict=True):
        smooth = torch.fft.irfft2(torch.fft.rfft2(true) * (frequency < 1 / 16), s=true.shape)
        alike = torch.fft.irfft2(torch.fft.rfft2(made) * (frequency < 1 / 16), s=true.shape)
        alike = alike * pixel_size  # a sum over voxels times their side is an integral
        assert (alike - smooth).norm() < 0.02 * smooth.norm()


def test_a_projection_along_z_is_the_sum_over_z():
    volume = torch.zeros(48, 48, 48)
    volume[15:30, 20:31, 18:35] = 1.0

    images, pixel_size = project_map(volume, np.zeros((1, 2)), pixel_size=4.0, low_pass=8.0)

    assert pixel_size == 4.0
    kept = torch.fft.rfft2(volume.sum(0))
    radius = torch.hypot(torch.fft.fftfreq(48)[:, None], torch.fft.rfftfreq(48))
    expected = torch.fft.irfft2(kept * (radius < 0.4), s=(48, 48))
    made = torch.fft.irfft2(torch.fft.rfft2(images[0]) * (radius < 0.4), s=(48, 48))
    assert (made - expected).abs().max() < 0.01 * expected.max()


@pytest.mark.parametrize("symmetry", ORDERS)
def test_every_direction_is_near_a_view_or_its_equivalent(symmetry):
    views = directions(view_directions(step=20.0, symmetry=symmetry))

    random = np.random.default_rng(0).normal(size=(3000, 3))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    group = relion_point_group(symmetry)
    equivalents = np.einsum("gij,nj->gni", group, views).reshape(-1, 3)
    away = np.rad2deg(np.arccos((random @ equivalents.T).max(1).clip(-1, 1)))
    assert away.max() < 0.8 * 20.0


def test_symmetry_saves_views():
    all_views = len(view_directions(step=20.0))
    for symmetry, order in ORDERS.items():
        count = len(view_directions(step=20.0, symmetry=symmetry))
        assert count < 2.5 * all_views / order + 3


@pytest.mark.parametrize(("symmetry", "order"), ORDERS.items())
def test_a_point_group_is_a_group_of_its_order(symmetry, order):
    group = relion_point_group(symmetry)

    assert len(group) == order
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 3, 3)
    assert np.abs(products[:, None] - group).max((2, 3)).min(1).max() < 1e-9


@pytest.mark.relion
@pytest.mark.parametrize("symmetry", ORDERS)
def test_point_groups_are_oriented_as_relion_does(symmetry):
    if shutil.which("relion_refine") is None:
        pytest.skip("relion_refine is not installed")
    command = ["relion_refine", "--sym", symmetry, "--print_symmetry_ops", "--o", "none"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout

    number = r"\s*(-?[\d.e-]+)" * 3 + r"\s*\n"
    rows = re.findall(r"R\(\d+\)=\s*\n" + number * 3, printed)
    theirs = np.array(rows, float).reshape(-1, 3, 3)

    ours = relion_point_group(symmetry)
    assert len(theirs) == len(ours)
    assert np.abs(theirs[:, None] - ours).max((2, 3)).min(1).max() < 1e-3


def test_what_is_no_group_or_map_is_refused():
    with pytest.raises(ParameterError, match="symmetry must be Cn, Dn, T, O or I; got Q3"):
        view_directions(step=30.0, symmetry="Q3")
    with pytest.raises(ShapeError):
        project_map(torch.zeros(8, 8, 6), np.zeros((1, 2)), pixel_size=1.0, low_pass=10.0)
