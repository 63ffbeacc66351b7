"""Shapes given by their transforms are the shapes drawn on pixels."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from cryopick.image.fourier import frequency_grid
from cryopick.picking.blob_shapes import blob_filters, ellipse, ring

SIDE, PIXEL_SIZE = 256, 2.0
FY, FX = frequency_grid((SIDE, SIDE), pixel_size=PIXEL_SIZE)
STEPS = (torch.arange(SIDE) - SIDE // 2) * PIXEL_SIZE
Y, X = torch.meshgrid(STEPS, STEPS, indexing="ij")


def drawn(transfer):
    """Mass 1 in real space, centred."""
    image = torch.fft.irfft2(transfer.to(torch.complex64), s=(SIDE, SIDE))
    return torch.fft.fftshift(image)


def test_an_ellipse_is_flat_inside_and_empty_outside():
    transfer = ellipse(FY, FX, long_axis=200, short_axis=100, angle=30.0, softness=0.03)
    image = drawn(transfer) * math.pi * 100 * 50 / PIXEL_SIZE**2
    cosine, sine = math.cos(math.radians(30)), math.sin(math.radians(30))
    reach = torch.hypot((X * cosine + Y * sine) / 100, (Y * cosine - X * sine) / 50)

    assert image[reach < 0.75].mean().item() == pytest.approx(1.0, abs=0.01)
    assert image[reach < 0.75].std() < 0.05
    assert image[reach > 1.25].abs().max() < 0.05


def test_a_quarter_turn_of_an_ellipse_swaps_the_axes():
    one = drawn(ellipse(FY, FX, long_axis=200, short_axis=80, angle=20.0, softness=0.1))
    other = drawn(ellipse(FY, FX, long_axis=200, short_axis=80, angle=110.0, softness=0.1))

    turned = one.transpose(0, 1).flip(1).roll(1, 1)  # (x, y) -> (-y, x), about pixel n // 2

    assert torch.allclose(turned, other, atol=1e-3 * one.max().item())


def test_a_ring_is_hollow():
    image = drawn(ring(FY, FX, diameter=200, hollowness=0.6, softness=0.02))
    distance = torch.hypot(X, Y)

    wall = image[(distance > 70) & (distance < 90)].mean()
    assert image[distance < 40].mean().abs() < 0.03 * wall
    assert image[distance > 120].mean().abs() < 0.01 * wall


@pytest.mark.parametrize("kind", ["ball", "shell", "disc", "ring"])
def test_every_round_shape_has_mass_1_and_spreads_over_its_size(kind):
    bank = blob_filters(FY, FX, shapes=(kind,), min_diameter=100, max_diameter=200)

    radii = []
    for blob in bank:
        image = drawn(blob.transfer)
        assert image.sum().item() == pytest.approx(1.0, abs=1e-3)
        radii.append((image * (X**2 + Y**2)).sum().sqrt().item())
    sizes = [blob.diameter for blob in bank]
    assert sizes[0] == pytest.approx(90)
    assert sizes[-1] == pytest.approx(200)
    assert all(b / a <= 1.2 + 1e-6 for a, b in pairwise(sizes))
    shares = [r / s for r, s in zip(radii, sizes, strict=True)]
    assert shares == pytest.approx([shares[0]] * len(shares), rel=0.02)


def test_ellipses_are_tried_only_where_the_axes_differ():
    def kinds(largest):
        bank = blob_filters(
            FY, FX, shapes=("ball", "ellipse"), min_diameter=100, max_diameter=largest
        )
        return [b.kind for b in bank]

    assert "ellipse" not in kinds(110)
    assert kinds(200).count("ellipse") == 8
