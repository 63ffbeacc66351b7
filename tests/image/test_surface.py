"""Slow shading is fitted exactly, and past what stands on it."""

from __future__ import annotations

import pytest
import torch

from cryopick.errors import ShapeError
from cryopick.image.surface import fit_surface

SHAPE = (150, 200)


def bowl():
    y = torch.linspace(-1, 1, SHAPE[0], dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, SHAPE[1], dtype=torch.float64)[None]
    return 2 + x - 3 * y + 0.5 * x**2 - x * y + 4 * y**2


def test_a_quadratic_is_returned_as_it_is():
    everywhere = torch.ones(SHAPE, dtype=torch.bool)

    surface = fit_surface(bowl(), everywhere)

    torch.testing.assert_close(surface, bowl(), atol=1e-4, rtol=0)


def test_particles_and_pixels_that_are_not_valid_do_not_pull_the_surface():
    generator = torch.Generator().manual_seed(0)
    field = bowl() + 0.1 * torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    field[40:70, 50:90] += 20
    is_valid = torch.ones(SHAPE, dtype=torch.bool)
    field[:, :30] = -100
    is_valid[:, :30] = False

    surface = fit_surface(field, is_valid)

    assert (surface - bowl())[:, 30:].abs().max() < 0.05


def test_nothing_valid_gives_a_flat_surface():
    surface = fit_surface(bowl(), torch.zeros(SHAPE, dtype=torch.bool))

    assert torch.equal(surface, torch.zeros(SHAPE, dtype=torch.float64))


def test_a_stack_is_refused():
    with pytest.raises(ShapeError):
        fit_surface(torch.zeros(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool))
