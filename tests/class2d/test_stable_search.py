"""The search of a stable classification: cut into tiles it finds what it finds in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from views_world import world

from cryopick.class2d.stable_candidates import Candidates2d, shift_grid2d
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_images import prepare_images
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered
from cryopick.class2d.stable_search import find_candidates
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_workers import BlockWorkers

N, CLASSES, RINGS = 150, 11, 8


@pytest.fixture(scope="module")
def engine() -> StableEngine:
    given = world(N, n_views=4, noise=0.5, kind="none")
    options = StableParameters(radius=11.0, target_radius=11, target_nx=32, ctf="none")
    return StableEngine(prepare_images(given.source, options))


def find(engine: StableEngine, most: int = CLASSES) -> Candidates2d:
    """Compare all images with averages of every eleventh."""
    rows, noise = np.arange(N), torch.ones(engine.most_rings)
    run = BlockWorkers(2)
    engine.measure_power(run)
    sums = sum_classes(
        engine, rows, rows % CLASSES, Poses2d.empty(N),
        n_classes=CLASSES, n_rings=RINGS, noise=noise, run=run,
    )  # fmt: skip
    _, averages = filtered(engine, sums, cut_off=0.3, fall_off=0.2, n_rings=RINGS)
    found = find_candidates(
        engine, rows, torch.zeros(N, 2), averages,
        grid=shift_grid2d(1, 1, 1), noise=noise, run=run, most=most,
    )  # fmt: skip
    run.close()
    return found


def test_tiles_of_few_classes_and_images_find_the_same(
    engine: StableEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopick.class2d.stable_search._TILE_VALUES", 1 << 27)
    monkeypatch.setattr("cryopick.class2d.stable_search._TILE_CLASSES", CLASSES)
    whole = find(engine)
    orders = engine.basis(RINGS).n_orders
    monkeypatch.setattr("cryopick.class2d.stable_search._TILE_VALUES", 15 * 4 * orders * 9)
    monkeypatch.setattr("cryopick.class2d.stable_search._TILE_CLASSES", 3)
    tiled = find(engine)  # 5 images and 3 classes in a tile
    assert np.array_equal(tiled.class_index, whole.class_index)
    assert np.array_equal(tiled.shift_index, whole.shift_index)
    assert np.array_equal(tiled.mirror, whole.mirror)
    np.testing.assert_allclose(tiled.score, whole.score, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(tiled.significance, whole.significance, rtol=1e-4, atol=1e-4)


def test_the_best_classes_come_first(engine: StableEngine) -> None:
    every, few = find(engine), find(engine, most=3)
    assert (np.diff(every.score, axis=1) <= 0).all()
    assert np.array_equal(few.class_index, every.class_index[:, :3])
    assert all(len(set(row)) == CLASSES for row in every.class_index.tolist())
