"""The end of a stable classification, and how it deals with the lens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from views_world import DIAMETER, PIXEL, SIZE, World, world

from cryopick.class2d.stable import StableClassifier
from cryopick.class2d.stable_consensus import find_consensus, join_classes
from cryopick.class2d.stable_engine import Poses2d, StableEngine
from cryopick.class2d.stable_images import StableImages, prepare_images
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_partition import filtered
from cryopick.class2d.stable_refine import Refinement, mirror_images
from cryopick.class2d.stable_sums import sum_classes
from cryopick.class2d.stable_workers import BlockWorkers

RADIUS = DIAMETER / 2 / PIXEL


def parameters(**changes: object) -> StableParameters:
    """Options that leave the size of the images as it is."""
    values: dict[str, object] = {
        "radius": RADIUS, "target_radius": int(RADIUS), "target_nx": SIZE, "img_per_grp": 60,
        "ctf": "full", "init_iter": 3, "maxit": 12, "indep_run": 2, "seed": 3,
        "main_iter_limit": 1,
    }  # fmt: skip
    return StableParameters(**(values | changes))  # type: ignore[arg-type]


def true_poses(given: World) -> Poses2d:
    return Poses2d(
        psi=np.deg2rad(given.psi).astype(np.float32),
        shift_x=(given.shift[:, 0] / PIXEL).astype(np.float32),
        shift_y=(given.shift[:, 1] / PIXEL).astype(np.float32),
        mirror=np.zeros(len(given.psi), bool),
    )


def average(images: StableImages, given: World) -> Tensor:
    """Average all images at their true poses."""
    engine, run = StableEngine(images), BlockWorkers(1, "cpu")
    n, n_rings = len(images), 11
    sums = sum_classes(
        engine, np.arange(n), np.zeros(n, np.int64), true_poses(given),
        n_classes=1, n_rings=n_rings, noise=torch.ones(engine.most_rings), run=run,
    )  # fmt: skip
    run.close()
    _, harmonics = filtered(engine, sums, cut_off=0.45, fall_off=0.2, n_rings=n_rings)
    return engine.to_images(harmonics)[0]


def alike(one: Tensor, other: Tensor) -> float:
    """Correlation inside the particle."""
    axis = torch.arange(SIZE) - float(SIZE // 2)
    inside = torch.hypot(axis[:, None], axis) <= RADIUS
    return float(torch.corrcoef(torch.stack([one[inside], other[inside]]))[0, 1])


@pytest.mark.parametrize("kind", ["plain", "flipped", "multiplied"])
def test_averages_weighed_by_the_ctf_are_the_particle(kind: str) -> None:
    given = world(150, n_views=1, noise=0.3, kind=kind)
    images = prepare_images(given.source, parameters())
    weighed = alike(average(images, given), given.views[0])
    flat = alike(average(replace(images, has_lens=False), given), given.views[0])
    assert weighed > 0.94
    assert weighed > flat + 0.05


def test_a_run_with_the_full_ctf_finds_the_views() -> None:
    given = world(240, n_views=3, noise=0.5)
    classifier = StableClassifier(given.source, parameters())
    last = list(classifier.run())[-1]
    classifier.close()
    accepted = np.flatnonzero(last.classes.is_accepted)
    assert len(accepted) == 2  # views 0 and 2 are opposite: mirror images
    assert (last.class_index >= 0).mean() > 0.8


def test_refinement_brings_images_to_their_poses_and_mirrors() -> None:
    given = world(160, n_views=3, noise=1.0, kind="none")  # views 0 and 2 are opposite
    images = prepare_images(given.source, parameters(ctf="none"))
    blurred = average(images, replace_poses(given))
    start = torch.stack([blurred, given.views[1]])
    with Refinement(
        images, np.arange(160), start, torch.zeros(160, 2),
        resolution=2.5, seed=1, threads=1, device="cpu", run=BlockWorkers(1),
    ) as work:  # fmt: skip
        now = work.start()
        while not now.is_finished:
            now = work.advance(now)
        label, poses = work.found(now)
    for mine in (given.label == 0, given.label == 2):
        assert (label[mine] == np.bincount(label[mine]).argmax()).mean() > 0.9
        mirror = poses.mirror[mine]
        assert max(mirror.mean(), 1 - mirror.mean()) > 0.9
        assert spread(poses.psi[mine] - np.deg2rad(given.psi[mine])) < np.deg2rad(6)
    assert poses.mirror[given.label == 0].mean() != pytest.approx(
        poses.mirror[given.label == 2].mean(), abs=0.5
    )


def replace_poses(given: World) -> World:
    """Rotations that are 15 deg off, one way or the other."""
    off = np.where(np.arange(len(given.psi)) % 2 == 0, 15.0, -15.0)
    return replace(given, psi=given.psi + off)


def spread(angles: NDArray[np.floating]) -> float:
    """Circular median deviation from the circular median, rad."""
    middle = np.angle(np.exp(1j * angles).sum())
    return float(np.median(np.abs(np.angle(np.exp(1j * (angles - middle))))))


def test_mirrored_images_are_mirrored_about_the_centre() -> None:
    image = torch.zeros(1, 32, 32)
    image[0, 10, 16 + 5] = 1
    assert divmod(int(mirror_images(image)[0].argmax()), 32) == (10, 16 - 5)


def test_members_are_chosen_again_among_all_images() -> None:
    given = world(300, n_views=2, noise=0.8, kind="none", n_noise=60)
    twice = given.source.images.clone()
    twice[:20] += torch.roll(twice[20:40], 5, 2)  # aggregates: another particle beside
    given.source.images = twice
    classifier = StableClassifier(given.source, parameters(ctf="none"))
    last = list(classifier.run())[-1]
    # a third of the members are forgotten: they must come back
    forgotten = np.flatnonzero(last.class_index >= 0)[::3]
    label = last.class_index.copy()
    label[forgotten] = -1
    after = classifier.refined(replace(last, class_index=label))
    classifier.close()
    good, noise = np.arange(40, 240), np.arange(240, 300)
    back = np.intersect1d(forgotten, good)
    assert (after.class_index[back] >= 0).mean() > 0.8
    assert (after.class_index[noise] >= 0).mean() <= 0.02
    assert (after.class_index[:20] >= 0).mean() < 0.5 * (after.class_index[good] >= 0).mean()
    members = np.flatnonzero(after.class_index >= 0)
    sizes = np.bincount(after.class_index[members], minlength=len(after.classes))
    assert np.array_equal(sizes[after.classes.is_accepted], after.classes.n_members[
        after.classes.is_accepted])  # fmt: skip
    assert spread_of(after.member_poses, after.class_index, given) < np.deg2rad(1.5)


def spread_of(poses: Poses2d, label: NDArray[np.int64], given: World) -> float:
    """Median error of rotations, over views and mirrors."""
    found = []
    for view in np.unique(given.label):
        for mirror in (False, True):
            mine = (label >= 0) & (given.label == view) & (poses.mirror == mirror)
            mine[:40] = False
            if mine.sum() > 10:
                found.append(spread(poses.psi[mine] - np.deg2rad(given.psi[mine])))
    return float(np.mean(found))


def test_a_run_without_refinement_is_left_as_it_is() -> None:
    given = world(160, n_views=2, noise=0.5, kind="none")
    classifier = StableClassifier(given.source, parameters(ctf="none", refine=False))
    state = classifier.start()
    assert classifier.refined(state) is state
    classifier.close()


def test_a_view_that_is_split_by_chance_comes_out_again_when_joined() -> None:
    draw = np.random.default_rng(0)
    other = np.full(100, 5)  # a class that is no part of it
    labels = np.stack([np.concatenate([draw.integers(0, 5, 500), other]) for _ in range(3)])
    apart = find_consensus(labels, fewest=5)
    assert max(c.reproducibility for c in apart if 599 not in c.members) < 0.2
    groups = np.array([int(599 in c.members) for c in apart])
    joined = find_consensus(join_classes(labels, apart, groups), fewest=5)
    assert [len(c.members) for c in joined] == [500, 100]
    assert [c.reproducibility for c in joined] == [1.0, 1.0]
