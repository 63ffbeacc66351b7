"""Equal-size assignment, consensus and merging, on small cases that can be counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cryopick.class2d.stable_assign import assign_greedily, assign_within_bounds
from cryopick.class2d.stable_candidates import Candidates2d
from cryopick.class2d.stable_consensus import find_consensus, jaccard_matrix
from cryopick.class2d.stable_merge import class_distances, merge_classes


def everything(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every class is a candidate of every image."""
    return score.astype(np.float32), np.tile(np.arange(score.shape[1]), (len(score), 1))


def walked(score: np.ndarray, capacity: int) -> np.ndarray:
    """Walk through all pairs one by one, the rule as ISAC states it."""
    label, room = np.full(len(score), -1), np.full(score.shape[1], capacity)
    for flat in np.argsort(-score, axis=None):
        i, k = divmod(int(flat), score.shape[1])
        if label[i] < 0 and room[k]:
            label[i], room[k] = k, room[k] - 1
    return label


def test_greedy_assignment_is_the_walk_from_best_to_worst() -> None:
    score = np.random.default_rng(0).normal(0, 1, (60, 5))
    found = assign_greedily(*everything(score), n_classes=5)
    assert found.tolist() == walked(score.astype(np.float32), 12).tolist()


def test_greedy_assignment_places_the_remainder() -> None:
    score = np.random.default_rng(1).normal(0, 1, (47, 5))
    sizes = np.bincount(assign_greedily(*everything(score), n_classes=5))
    assert sizes.sum() == 47
    assert sizes.min() >= 9


def test_transport_keeps_sizes_within_bounds_against_a_class_that_draws_all() -> None:
    score = np.random.default_rng(2).normal(0, 1, (400, 4))
    score[:, 0] += 3
    label = assign_within_bounds(*everything(score), n_classes=4, tolerance=0.2)
    sizes = np.bincount(label)
    assert sizes.sum() == 400
    assert sizes.max() <= 120
    assert sizes.min() >= 70


def test_transport_loses_little_against_the_best_of_all_equal_assignments() -> None:
    score = np.random.default_rng(3).normal(0, 4, (120, 4))
    score[:, 0] += 4
    rows, columns = linear_sum_assignment(-np.repeat(score, 30, axis=1))
    best = score[rows, columns // 30].sum()
    pair = np.arange(120)
    transport = assign_within_bounds(*everything(score), n_classes=4, tolerance=0.0)
    greedy = assign_greedily(*everything(score), n_classes=4)
    assert np.bincount(transport).tolist() == [30, 30, 30, 30]
    assert score[pair, transport].sum() > 0.97 * best
    assert score[pair, transport].sum() > score[pair, greedy].sum()


def test_jaccard_index_by_hand() -> None:
    one, other = np.array([0, 0, 0, 1, 1, -1]), np.array([0, 0, 1, 1, 1, 1])
    assert jaccard_matrix(one, other) == pytest.approx(np.array([[2 / 3, 1 / 6], [0, 1 / 2]]))


def test_consensus_finds_what_all_partitions_share_and_not_what_is_random() -> None:
    draw = np.random.default_rng(4)
    labels = draw.integers(2, 6, (3, 400))
    for run, name in zip(labels, (0, 1, 0), strict=True):
        run[:100] = name
        run[100:200] = 1 - name
    labels[0, :10] = 3
    found = find_consensus(labels, fewest=5)
    assert [one.members.tolist() for one in found[:2]] == [
        list(range(100, 200)),
        list(range(100)),
    ]
    assert found[0].reproducibility == 1
    assert found[1].reproducibility == pytest.approx((0.9 + 0.9 + 1) / 3)
    assert max(one.reproducibility for one in found[2:]) < 0.3
    taken = np.concatenate([one.members for one in found])
    assert len(np.unique(taken)) == len(taken)


def test_classes_that_are_alike_are_merged_whatever_their_size() -> None:
    distances = np.full((4, 4), 100.0)
    distances[0, 1] = distances[1, 0] = 1.0
    distances[2, 3] = distances[3, 2] = 30.0
    sizes = np.full(4, 50)
    alike = merge_classes(distances, sizes, wanted=4, most=10, alike=8.0)
    assert alike.tolist() == [0, 0, 1, 2]
    fewer = merge_classes(distances, sizes, wanted=2, most=100, alike=8.0)
    assert fewer.tolist() == [0, 0, 1, 1]


def test_the_distance_of_classes_is_what_members_lose() -> None:
    score = np.array([[10.0, 4.0], [8.0, 4.0], [9.0, 6.0]], np.float32)
    index = np.array([[0, 1], [0, 1], [1, 0]])
    none = np.zeros((3, 2), np.float32)
    candidates = Candidates2d(
        score=score, class_index=index, psi=none, shift_index=none.astype(np.int16),
        mirror=none.astype(bool), significance=none,
    )  # fmt: skip
    found = class_distances(candidates, np.array([0, 0, 1]), n_classes=2)
    assert found[0, 1] == pytest.approx(5 + 3)
