"""Alignment within classes: a class of any size is aligned as one, and finds the true poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from views_world import PIXEL, World, world

from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_error import Frames
from cryopick.class2d.stable_images import prepare_images
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_within import ClassMembers, align_classes
from cryopick.class2d.stable_workers import BlockWorkers

N, RINGS = 120, 8
OPTIONS = StableParameters(radius=11.0, target_radius=11, target_nx=32, ctf="none", stab_ali=4)


@pytest.fixture(scope="module")
def given() -> World:
    """One class of two views, with little noise."""
    return world(N, n_views=2, noise=0.5, kind="none")


@pytest.fixture(scope="module")
def engine(given: World) -> StableEngine:
    found = StableEngine(prepare_images(given.source, OPTIONS))
    run = BlockWorkers(1)
    found.measure_power(run)
    run.close()
    return found


def align(engine: StableEngine, given: World) -> list[Frames]:
    """Align the views from poses that are some degrees off."""
    off = np.random.default_rng(4).normal(0, 8, N)
    psi = np.deg2rad(given.psi + off).astype(np.float32)
    poses = Poses2d(
        psi=psi, shift_x=np.round(given.shift[:, 0] / PIXEL).astype(np.float32),
        shift_y=np.round(given.shift[:, 1] / PIXEL).astype(np.float32), mirror=np.zeros(N, bool),
    )  # fmt: skip
    members = [np.flatnonzero(given.label == v) for v in (0, 1)]
    classes = [ClassMembers(rows=rows, poses=poses.take(rows)) for rows in members]
    return align_classes(
        engine, classes, OPTIONS, n_rings=RINGS, noise=torch.ones(engine.most_rings), seed=1
    )


def test_a_class_that_is_too_large_to_be_kept_is_aligned_as_one_that_is_kept(
    engine: StableEngine, given: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = align(engine, given)
    monkeypatch.setattr("cryopick.class2d.stable_within.BATCH_IMAGES", 30)
    monkeypatch.setattr("cryopick.class2d.stable_within._PART", 7)  # folds have some 20
    parts = align(engine, given)
    for one, other in zip(whole, parts, strict=True):
        assert np.array_equal(one.mirror, other.mirror)
        for a, b in zip(one.to_poses(), other.to_poses(), strict=True):
            off = np.abs(np.angle(np.exp(1j * (a - b))))
            assert (off < 1e-3).mean() > 0.97  # a start at a tie may end elsewhere
            assert off.mean() < 2e-3


def test_members_are_turned_as_in_truth(engine: StableEngine, given: World) -> None:
    for view, frames in enumerate(align(engine, given)):
        true = np.deg2rad(given.psi[given.label == view])
        off = np.exp(1j * (frames.to_poses()[0] - true))
        assert not frames.mirror.any()
        turned = np.angle(off / off.mean(1, keepdims=True))  # each run has a frame of its own
        assert np.rad2deg(np.sqrt((turned**2).mean())) < 4
