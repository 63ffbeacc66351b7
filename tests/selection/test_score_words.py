"""Scores as they are shown: on their side of the threshold."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.selection.score_words import show_score, show_threshold


@pytest.mark.parametrize("threshold", [0.0, 0.29, 0.5, 0.45002, 0.658077, 0.99995, 1.0])
def test_what_is_shown_is_on_the_same_side_as_the_score(threshold):
    rng = np.random.default_rng(0)
    near = threshold + np.concatenate([rng.normal(0, s, 300) for s in (1e-9, 1e-4, 1e-2, 0.3)])
    scores = np.unique(np.clip([*near, threshold, 0, 1], 0, 1))

    shown = np.array([float(show_score(s, threshold)) for s in scores])

    np.testing.assert_array_equal(shown < float(show_threshold(threshold)), scores < threshold)
    assert (np.diff(shown) >= 0).all()
    assert np.abs(shown - scores).max() < 0.01
    assert ((shown >= 0) & (shown <= 1)).all()


def test_without_a_threshold_scores_are_rounded():
    assert [show_score(s, None) for s in (0.4999, 0.004, 0.996, 1.0)] == [
        "0.50", "0.00", "1.00", "1.00"
    ]  # fmt: skip


def test_the_largest_score_below_the_threshold_is_not_shown_as_the_threshold():
    assert show_score(float(np.nextafter(0.5, 0)), 0.5) == "0.49"
    assert show_score(0.5, 0.5) == show_threshold(0.5) == "0.50"
