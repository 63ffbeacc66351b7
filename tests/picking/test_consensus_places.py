"""Claims about joining the candidates of pickers with the peaks of a network's answer."""

import numpy as np
import pytest
import torch

from cryopick.picking.consensus_network import ConsensusField
from cryopick.picking.consensus_places import find_places, share_shift
from cryopick.picking.network import PARTICLE, STRIDE

SIDE = 240


def answer(peaks, logits):
    """Log-odds that fall off about each peak, and ways to it."""
    steps = np.arange(0, SIDE, STRIDE, dtype=float)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    down = np.array([p[0] for p in peaks])[:, None, None] - y
    across = np.array([p[1] for p in peaks])[:, None, None] - x
    away = np.hypot(down, across)
    height = np.array(logits)[:, None, None] - 0.1 * away**2
    best = height.argmax(0)[None]
    layers = [np.take_along_axis(a, best, 0)[0] for a in (height, down, across)]
    return torch.from_numpy(np.stack([layers[0].clip(-12), *layers[1:]])).float()


def field(candidates):
    image = torch.zeros(SIDE, SIDE)
    return ConsensusField(image, image == 0, np.array(candidates, float).reshape(-1, 2))


def test_a_peak_near_a_candidate_is_the_same_place_and_others_are_added():
    peaks = [(60.0, 60.0), (120.0, 121.0), (180.0, 60.0)]
    found = find_places(
        answer(peaks, [3.0, 1.0, -1.0]), field([(63.0, 62.0), (60.0, 180.0)]), radius=0.25
    )

    assert len(found.logits) == 4
    np.testing.assert_allclose(found.centres[0], peaks[0], atol=0.5)  # moved onto its peak
    np.testing.assert_allclose(found.centres[1], (60, 180))  # no peak there
    np.testing.assert_allclose(found.centres[2:], peaks[1:], atol=0.5)
    np.testing.assert_allclose(found.logits[[0, 2, 3]], [3, 1, -1], atol=0.15)
    assert found.logits[1] < -5


def test_two_candidates_do_not_share_a_peak():
    found = find_places(
        answer([(60.0, 60.0)], [3.0]), field([(65.0, 60.0), (58.0, 60.0)]), radius=0.25
    )

    np.testing.assert_allclose(found.centres[1], (60, 60), atol=0.5)  # the nearer one has it
    np.testing.assert_allclose(found.centres[0], (65, 60))
    assert found.logits[0] < found.logits[1] - 0.2


def test_peaks_that_nobody_has_are_left_out_at_the_edge_and_where_they_are_masked():
    near = PARTICLE / 2 - 2
    given = answer([(near, 60.0), (120.0, 120.0), (180.0, 180.0)], [3.0, 3.0, 3.0])
    masked = field([])
    masked.is_valid[110:130, 110:130] = False
    found = find_places(given, masked, radius=0.25)

    np.testing.assert_allclose(found.centres, [(180, 180)], atol=0.5)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_the_shift_goes_half_of_the_way_to_the_share_of_these_fields(share):
    random = np.random.default_rng(1)
    prior, number = 0.2, 36
    answers, fields = [], []
    for _ in range(25):
        grid = np.arange(24, 216, 32.0)
        places = [(y, x) for y in grid for x in grid]
        is_true = random.random(number) < share
        known = np.log(prior / (1 - prior)) + random.normal(np.where(is_true, 2, -2), 2.0)
        answers.append(answer(places, known))  # a ratio of densities of exactly so much
        fields.append(field([]))
    wanted = np.log(share / (1 - share)) - np.log(prior / (1 - prior))

    assert share_shift(answers, fields, prior=prior) == pytest.approx(wanted / 2, abs=0.2)


def test_where_no_network_has_a_say_candidates_stay_as_they_are():
    found = find_places(None, field([(10.0, 20.0)]), radius=0.25)

    assert found.logits.tolist() == [0.0]
    assert found.centres.tolist() == [[10.0, 20.0]]
