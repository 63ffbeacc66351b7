"""Whole runs of the stable classification on small images whose truth is known."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from views_world import World, world

from cryopick.class2d.stable import StableClassifier
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_state import StableState
from cryopick.errors import DataError


def parameters(**changes: object) -> StableParameters:
    """Options for 32 px images of a particle of 110 A."""
    values: dict[str, object] = {
        "radius": 11.0, "target_radius": 11, "target_nx": 32, "img_per_grp": 60, "ctf": "none",
        "init_iter": 3, "maxit": 12, "indep_run": 2, "seed": 3, "main_iter_limit": 1,
    }  # fmt: skip
    return StableParameters(**(values | changes))  # type: ignore[arg-type]


def run(given: World, options: StableParameters, *, threads: int = 1) -> list[StableState]:
    classifier = StableClassifier(given.source, options, threads=threads)
    states = list(classifier.run())
    classifier.close()
    return states


def arrays(state: StableState) -> dict[str, NDArray[np.generic]]:
    """Through a file and back."""
    file = io.BytesIO()
    np.savez(file, **state.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as stored:
        return dict(stored)


def same(one: StableState, other: StableState) -> bool:
    first, second = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(first[n], second[n], equal_nan=first[n].dtype.kind == "f")
               for n in first)  # fmt: skip


@pytest.fixture(scope="module")
def views() -> World:
    return world(260, n_views=4, noise=0.7, kind="none")


@pytest.fixture(scope="module")
def course(views: World) -> list[StableState]:
    return run(views, parameters())


def test_four_views_are_four_classes(views: World, course: list[StableState]) -> None:
    last = course[-1]
    accepted = np.flatnonzero(last.classes.is_accepted)
    assert len(accepted) == 4
    found = {int(np.bincount(views.label[last.class_index == c]).argmax()) for c in accepted}
    assert found == {0, 1, 2, 3}
    for c in accepted:
        counts = np.bincount(views.label[last.class_index == c])
        assert counts.max() == counts.sum()
    assert (last.class_index >= 0).mean() > 0.9
    assert last.accounted[-1] == pytest.approx((last.class_index >= 0).mean())
    assert (last.classes.reproducibility[accepted] > 0.8).all()
    assert (last.pixel_error[last.class_index >= 0] < parameters().pixel_error_limit).all()


def test_opposite_views_are_one_class_with_mirrors() -> None:
    given = world(240, n_views=3, noise=0.7, kind="none")  # views 0 and 2 are opposite
    last = run(given, parameters())[-1]
    main = last.class_index[given.label == 0]
    assert (main == np.bincount(main[main >= 0]).argmax()).mean() > 0.95
    assert (last.class_index[given.label == 2] == main[0]).mean() > 0.95
    mirror = last.member_poses.mirror
    assert abs(mirror[given.label == 0].mean() - mirror[given.label == 2].mean()) > 0.95


def test_members_are_turned_and_mirrored_alike(views: World, course: list[StableState]) -> None:
    last = course[-1]
    for c in np.flatnonzero(last.classes.is_accepted):
        mine = last.class_index == c
        mirror = last.member_poses.mirror[mine]
        assert (mirror == mirror[0]).all()
        sign = -1 if mirror[0] else 1
        off = sign * (last.member_poses.psi[mine] - np.deg2rad(views.psi[mine]))
        free = np.angle(np.exp(1j * off).mean())
        assert np.median(np.abs(np.angle(np.exp(1j * (off - free))))) < np.deg2rad(4)


def test_a_run_goes_on_from_any_step_to_the_same_result(
    views: World, course: list[StableState]
) -> None:
    phases = [s.phase for s in course]
    begun = phases.index("partition")
    passes = [s.step for s in course].index(2, begun)
    places = [begun + 3, passes, phases.index("judgement")]
    assert course[begun + 3].first is not None
    classifier = StableClassifier(views.source, parameters(), threads=2)
    for place in places:
        *_, last = classifier.run(StableState.from_arrays(arrays(course[place])))
        assert same(last, course[-1]), phases[place]
    classifier.close()


def test_another_seed_and_rule_of_assignment_find_the_same_classes(
    views: World, course: list[StableState]
) -> None:
    other = run(views, parameters(seed=8, assignment="greedy"))[-1]
    one = course[-1]
    assert other.classes.is_accepted.sum() == 4
    for c in np.flatnonzero(one.classes.is_accepted):
        mine = one.class_index == c
        best = 0.0
        for d in np.flatnonzero(other.classes.is_accepted):
            theirs = other.class_index == d
            best = max(best, (mine & theirs).sum() / (mine | theirs).sum())
        assert best > 0.85


def test_noise_makes_no_class() -> None:
    last = run(world(240, noise=1.0, n_noise=240, kind="none"), parameters())[-1]
    assert not last.classes.is_accepted.any()
    assert (last.class_index < 0).all()


@pytest.fixture(scope="module")
def half_noise() -> list[StableState]:
    """One view in the first 100 of 240 images, noise in the others."""
    return run(world(240, n_views=1, noise=0.7, n_noise=140, kind="none"), parameters())


def test_one_view_is_taken_out_of_more_noise(half_noise: list[StableState]) -> None:
    last = half_noise[-1]
    assert last.classes.is_accepted.sum() == 1
    assert (last.class_index[:100] >= 0).mean() > 0.9
    assert (last.class_index[100:] >= 0).mean() < 0.02


def test_images_rejected_return_in_the_next_generation(
    course: list[StableState], half_noise: list[StableState]
) -> None:
    for state in [*course, *half_noise]:
        if state.generation == 2 and state.phase == "partition":
            assert (state.class_index[state.pool] < 0).all()
            assert len(state.pool) == (state.class_index < 0).sum()
    pools = {s.generation: s.pool for s in half_noise if s.phase == "partition"}
    assert set(range(100, 240)) <= set(pools[2].tolist()) | set(
        np.flatnonzero(half_noise[-1].class_index >= 0).tolist()
    )
    assert len(pools[2]) > 120


def test_too_few_particles_are_refused() -> None:
    with pytest.raises(DataError, match="the particles must be at least 120, two classes"):
        StableClassifier(world(100).source, parameters())
