"""Claims about places that are drawn where there is no candidate."""

import numpy as np
import torch
from scipy.spatial import cKDTree

from cryopick.picking.consensus_noise import sample_noise

BOX = 36.0


def nearest(places, others):
    return cKDTree(others).query(places)[0]


def test_noise_is_drawn_all_over_the_field_and_a_box_from_any_candidate():
    is_valid = torch.ones(900, 400, dtype=torch.bool)
    is_valid[:, :100] = False
    candidates = np.random.default_rng(1).uniform(0, 400, (12, 2))
    found = sample_noise(is_valid, candidates, count=40, box=BOX, seed=3)

    assert len(found.places) == 40
    assert not found.is_crowded
    assert nearest(found.places, candidates).min() >= BOX
    apart = cKDTree(found.places).query(found.places, k=2)[0][:, 1]
    assert apart.min() >= BOX
    assert found.places[:, 1].min() > 99  # masked
    for quarter in range(4):  # from top to bottom, the long side
        inside = (found.places[:, 0] // 225).astype(int) == quarter
        assert inside.sum() >= 4


def test_in_a_crowded_field_noise_is_half_a_box_away_and_this_is_said():
    grid = np.arange(0, 401, 48.0)
    candidates = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)  # no gap of a box
    is_valid = torch.ones(400, 400, dtype=torch.bool)
    found = sample_noise(is_valid, candidates, count=20, box=BOX, seed=3)

    assert found.is_crowded
    assert len(found.places) >= 10
    assert nearest(found.places, candidates).min() >= BOX / 2


def test_a_field_without_candidates_or_without_a_valid_pixel_is_no_error():
    free = sample_noise(torch.ones(200, 200) > 0, np.empty((0, 2)), count=4, box=BOX, seed=1)
    none = sample_noise(torch.zeros(200, 200) > 0, np.empty((0, 2)), count=4, box=BOX, seed=1)

    assert len(free.places) == 4
    assert len(none.places) == 0
