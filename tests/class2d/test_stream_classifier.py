"""Classification of streams whose truth is known."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor
from views_world import (
    PIXEL,
    SIZE,
    World,
    against_views,
    in_rounds,
    parameters,
    purity,
    turn_errors,
    world,
)

from cryopick.class2d.average_sums import AverageSums, ClassPoses
from cryopick.class2d.stream import StreamClassifier
from cryopick.class2d.stream_state import StreamState
from cryopick.errors import ParameterError


def averages(given: World, state: StreamState, order: np.ndarray | None = None) -> Tensor:
    """Exact sums of the particles of each class, at their poses."""
    rows = np.arange(state.n_seen) if order is None else order
    sums = AverageSums.empty(n_classes=len(state.em.shares), size=SIZE)
    p = state.em.poses
    poses = ClassPoses(
        particle_index=torch.from_numpy(rows),
        class_index=torch.from_numpy(p.class_index.astype(np.int64)),
        psi=torch.from_numpy(p.psi),
        shift_x=torch.from_numpy(p.shift_x / PIXEL),
        shift_y=torch.from_numpy(p.shift_y / PIXEL),
    )
    sums.add(given.source.images[rows], poses)
    return sums.images.sum(0)


def test_rounds_find_the_views_and_their_rotations() -> None:
    given = world(900)
    states = in_rounds(given, (300, 600, 900), parameters())
    last = states[-1]
    assert [s.n_seen for s in states] == [300, 600, 900]
    assert [s.version for s in states] == [1, 2, 3]
    assert purity(last.em.poses, given.label) > 0.95
    assert np.median(np.abs(turn_errors(last.em.poses, given))) < 4.0
    assert (last.arrived == np.repeat([1, 2, 3], 300)).all()


def test_class_numbers_are_kept_from_round_to_round() -> None:
    given = world(900)
    first, _, last = in_rounds(given, (300, 600, 900), parameters(classes=4))
    same = first.em.poses.class_index == last.em.poses.class_index[:300]
    assert same.mean() > 0.9
    assert (last.drift < 0.1).all()


@pytest.mark.parametrize("kind", ["plain", "flipped", "multiplied"])
@pytest.mark.parametrize("ctf", ["full", "wiener"])
def test_the_lens_is_honoured_whatever_has_been_done_to_the_images(kind: str, ctf: str) -> None:
    given = world(400, noise=1.0, kind=kind)
    options = parameters(classes=4, ctf=ctf)
    state = against_views(given, (400,), options)
    assert (state.em.poses.class_index == given.label).mean() > 0.97
    turn = (state.em.poses.psi - given.psi + 180) % 360 - 180
    assert np.median(np.abs(turn)) < 3.0


@pytest.mark.parametrize(
    "changes", [{"mask": "gauss"}, {"mask": "none"}, {"mask": "gauss", "sigma": 8.0}]
)
def test_views_are_found_under_other_masks(changes: dict[str, object]) -> None:
    given = world(400)
    (state,) = in_rounds(given, (400,), parameters(**changes))
    assert purity(state.em.poses, given.label) > 0.9


def test_against_references_a_particle_is_found_alike_however_the_stream_is_cut() -> None:
    given = world(700)
    options = parameters(classes=4)
    whole = against_views(given, (700,), options)
    for cuts in ((510, 620, 700), range(510, 701, 10)):
        parts = against_views(given, list(cuts), options)
        for column in ("class_index", "psi", "shift_x", "shift_y", "junk_probability", "margin"):
            one, other = (getattr(s.em.poses, column) for s in (whole, parts))
            assert np.array_equal(one, other), column
    assert (whole.em.poses.class_index == given.label).mean() > 0.97


def test_against_references_the_order_within_a_batch_does_not_matter() -> None:
    given = world(700)
    options = parameters(classes=4)
    order = np.concatenate([np.arange(500), 500 + np.random.default_rng(1).permutation(200)])
    moved = World(
        given.source.take(order), given.label[order], given.psi[order], given.shift, given.views
    )
    whole, other = (against_views(g, (500, 700), options) for g in (given, moved))
    assert np.array_equal(whole.em.poses.class_index[order], other.em.poses.class_index)
    one, two = averages(given, whole), averages(given, other, order)
    assert float((one - two).abs().max()) < 1e-5 * float(one.abs().max())


def test_references_of_other_pixels_are_fitted_to_the_stream() -> None:
    given = world(300, noise=1.0)
    fine = torch.nn.functional.interpolate(
        given.views[:, None], scale_factor=2, mode="bicubic", align_corners=False
    )[:, 0]
    fine = torch.roll(fine, (1, 1), (1, 2))  # a pixel's corner is no longer its centre
    classifier = StreamClassifier(given.source, parameters(classes=4))
    state = classifier.extend(classifier.begin(5 * fine, PIXEL / 2))
    classifier.close()
    assert (state.em.poses.class_index == given.label).mean() > 0.95


def test_against_references_noise_is_called_junk() -> None:
    given = world(800, n_noise=100, noise=1.0)
    moved = given.source.take(np.random.default_rng(2).permutation(800))
    order = np.random.default_rng(2).permutation(800)
    shuffled = World(moved, given.label[order], given.psi[order], given.shift, given.views)
    state = against_views(shuffled, (600, 800), parameters(classes=4))
    is_called = state.em.poses.junk_probability > 0.5
    assert is_called[order >= 700].mean() > 0.7
    assert is_called[order < 700].mean() < 0.05


def test_results_do_not_depend_on_threads() -> None:
    given = world(500)
    one, two = (in_rounds(given, (300, 500), parameters(), threads=t)[-1] for t in (1, 2))
    assert np.array_equal(one.em.poses.psi, two.em.poses.psi)
    assert torch.equal(one.em.harmonics, two.em.harmonics)


@pytest.mark.parametrize("is_anchored", [False, True])
def test_a_state_written_and_read_goes_on_to_the_same_result(is_anchored: bool) -> None:
    given, options = world(600), parameters(classes=4)
    first = (
        against_views(given, (400,), options)
        if is_anchored
        else in_rounds(given, (400,), options)[0]
    )
    file = io.BytesIO()
    np.savez(file, **first.to_arrays())
    file.seek(0)
    with np.load(file) as arrays:
        restored = StreamState.from_arrays(arrays)
    ends = []
    for state in (first, restored):
        classifier = StreamClassifier(given.source, options)
        ends.append(classifier.extend(state).to_arrays())
        classifier.close()
    assert ends[0].keys() == ends[1].keys()
    for name, values in ends[0].items():
        assert np.array_equal(values, ends[1][name], equal_nan=values.dtype.kind == "f"), name


def test_a_class_of_two_views_is_subdivided_into_them() -> None:
    given = world(500, n_views=2, noise=1.0)
    classifier = StreamClassifier(given.source, parameters(classes=1))
    mixed = classifier.create()
    parted = classifier.subdivide(mixed, 0, 2)
    classifier.close()
    assert purity(mixed.em.poses, given.label) < 0.6
    assert purity(parted.em.poses, given.label) > 0.9
    assert parted.version == mixed.version + 1
    assert [(c.kind, c.class_index, c.other) for c in parted.changes] == [("split", 1, 0)]


def test_subdividing_leaves_other_classes_alone() -> None:
    given = world(400)
    classifier = StreamClassifier(given.source, parameters(classes=4))
    before = classifier.create()
    after = classifier.subdivide(before, 1, 3)
    later = classifier.extend(after)
    classifier.close()
    others = before.em.poses.class_index != 1
    for column in ("class_index", "psi", "shift_x"):
        one, other = (getattr(s.em.poses, column)[others] for s in (before, after))
        assert np.array_equal(one, other)
    assert set(after.em.poses.class_index[~others]) <= {1, 4, 5}
    assert len(after.em.shares) == len(after.drift) == 6
    assert later is after


def test_the_closing_pass_keeps_numbers_and_finds_the_views() -> None:
    given = world(600)
    last = in_rounds(given, (200, 400, 600), parameters(classes=4))[-1]
    classifier = StreamClassifier(given.source, parameters(classes=4))
    closed = classifier.finish(last)
    classifier.close()
    assert purity(closed.em.poses, given.label) > 0.95
    assert (closed.em.poses.class_index == last.em.poses.class_index).mean() > 0.9


def test_particles_of_new_micrographs_and_optics_groups_join() -> None:
    given = world(500)
    given.source.optics_numbers[300:] = 1
    given.source = given.source.take(np.arange(500))
    given.source.images[300:] *= 2
    first, last = in_rounds(given, (300, 500), parameters(classes=4))
    assert (len(first.em.noise), len(last.em.noise)) == (1, 2)
    assert len(last.em.group_scale) == 5
    ratio = float((last.em.noise[1] / last.em.noise[0])[4:10].mean())
    assert 2.5 < ratio < 5.5
    assert purity(last.em.poses, given.label) > 0.9


def test_what_is_forgotten_weighs_less() -> None:
    given = world(300, noise=0.5)
    options = parameters(classes=4, forgetting=0.75)
    last = in_rounds(given, (150, 300), options)[-1]
    assert np.allclose(last.weights(0.75), np.repeat([0.25, 1.0], 150))
    assert np.allclose(last.weights(0.0), 1.0)
    of_old = np.bincount(last.em.poses.class_index[:150], minlength=4)
    of_new = np.bincount(last.em.poses.class_index[150:], minlength=4)
    expected = (0.25 * of_old + of_new) / (0.25 * 150 + 150)
    assert np.allclose(last.em.shares.numpy(), expected, atol=0.03)


def test_fixed_references_need_no_more_particles_than_classes() -> None:
    given = world(3, noise=0.3)
    state = against_views(given, (3,), parameters(classes=None))
    assert (state.em.poses.class_index == given.label).all()


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        ("create", r"classes must be at most the number of particles, 5; got 6\."),
        ("shrink", r"particles must begin with the 60 of the round before; got 5\."),
        ("unassigned", r"particles must be the 60 that have been assigned; got 80\."),
        ("class", r"class must be from 1 to 4; got 9\."),
        ("parts", r"parts must be from 2 to the members of the class, \d+; got 1\."),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(act: str, sentence: str) -> None:
    given = world(80)
    few = StreamClassifier(given.upto(5), parameters())
    whole, more = (StreamClassifier(given.upto(n), parameters()) for n in (60, 80))
    state = against_views(given, (60,), parameters(classes=4))
    acts = {
        "create": few.create,
        "unassigned": lambda: more.subdivide(state, 0, 2),
        "shrink": lambda: few.extend(state),
        "class": lambda: whole.subdivide(state, 8, 2),
        "parts": lambda: whole.subdivide(state, int(state.em.poses.class_index[0]), 1),
    }
    with pytest.raises(ParameterError, match=sentence):
        acts[act]()
    for classifier in (few, whole, more):
        classifier.close()


def test_a_source_without_new_particles_changes_nothing() -> None:
    given = world(60)
    state = against_views(given, (60,), parameters(classes=4))
    classifier = StreamClassifier(given.source, parameters(classes=4))
    assert classifier.extend(state) is state
    classifier.close()
