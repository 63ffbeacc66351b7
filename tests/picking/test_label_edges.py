"""The band along the edges of micrographs in which nobody labelled."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.picking.label_edges import unlabelled_band

SIZE = (1500.0, 2000.0)  # A


def scattered(count: int, *, keep: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    points = draw.uniform(0, 1, (count, 2)) * SIZE
    away = np.minimum(points, np.array(SIZE) - points).min(axis=1)
    return points[away >= keep]


@pytest.mark.parametrize("keep", [60.0, 110.0, 160.0])
def test_the_band_is_as_wide_as_labels_keep_away(keep: float) -> None:
    labels = [scattered(200, keep=keep, seed=n) for n in range(6)]
    band = unlabelled_band(labels, [SIZE] * 6, widest=200.0)
    assert keep - 5 <= band <= keep + 0.25 * keep


def test_labels_up_to_the_edge_leave_no_band() -> None:
    labels = [scattered(200, keep=0.0, seed=n) for n in range(6)]
    assert unlabelled_band(labels, [SIZE] * 6, widest=200.0) == 0.0


def test_stray_labels_do_not_hide_the_band() -> None:
    labels = [scattered(200, keep=110.0, seed=n) for n in range(6)]
    labels[0] = np.concatenate([labels[0], [[20.0, 300.0]]])
    assert unlabelled_band(labels, [SIZE] * 6, widest=200.0) > 90


def test_few_labels_tell_nothing() -> None:
    assert unlabelled_band([scattered(8, keep=110.0)], [SIZE], widest=200.0) == 0.0
    assert unlabelled_band([], [], widest=200.0) == 0.0
    assert unlabelled_band([np.empty((0, 2))], [SIZE], widest=200.0) == 0.0


def test_fields_smaller_than_the_bands_tell_nothing() -> None:
    assert unlabelled_band([scattered(200, keep=110.0)], [(300.0, 300.0)], widest=200.0) == 0.0
