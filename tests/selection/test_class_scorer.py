from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from class_world import SIZE, particle, smooth_noise, stack

from cryopick.errors import FormatError
from cryopick.io.weights import read_weights, write_weights
from cryopick.selection.class_features import GROUPS, class_inputs
from cryopick.selection.class_network import SCORE_FLOOR, ClassNetwork
from cryopick.selection.class_scorer import (
    KIND,
    ClassScorer,
    certain_logit,
    read_scorer,
    score_classes,
    to_weights,
)
from cryopick.selection.class_scores import ClassInputs
from cryopick.selection.class_training import LabelledClasses, train_network
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project


def made_up_scorer() -> ClassScorer:
    networks = tuple(ClassNetwork(GROUPS, seed=s).eval() for s in (1, 2))
    for network in networks:  # new ones hardly have an opinion
        network.output.weight.data *= 30
    return ClassScorer(networks=networks, calibration=np.array([[1.2, 0.9], [0.1, -0.2]]))


def some_inputs() -> ClassInputs:
    return class_inputs(stack(*[particle(s) for s in range(3)], smooth_noise(1), smooth_noise(2)))


def test_the_shipped_score_tells_particles_from_noise() -> None:
    views = project(
        make_phantom("tetramer", diameter=150.0),
        euler_matrices(draw_angles(4, generator=np.random.default_rng(1))),
        box_size=SIZE,
        pixel_size=4.5,
    ).numpy()
    rng = np.random.default_rng(2)
    noisy = [v / v.std() + 0.3 * rng.standard_normal(v.shape) for v in views]
    averages = stack(*noisy, *[smooth_noise(s) for s in range(4)])
    scores = score_classes(class_inputs(averages), read_scorer())
    assert scores.score[:4].min() > 0.5 > scores.score[4:].max()


def test_a_score_does_not_depend_on_how_the_picture_is_turned() -> None:
    inputs = some_inputs()
    scorer = made_up_scorer()
    first = score_classes(inputs, scorer).score
    for turned in (np.rot90(inputs.images, k, (1, 2)) for k in (1, 2, 3)):
        second = score_classes(replace(inputs, images=np.ascontiguousarray(turned)), scorer)
        np.testing.assert_allclose(first, second.score, atol=1e-5)


def test_a_score_is_made_of_purity_and_quality() -> None:
    scores = score_classes(some_inputs(), made_up_scorer())
    expected = scores.purity * (SCORE_FLOOR + (1 - SCORE_FLOOR) * scores.quality)
    np.testing.assert_allclose(scores.score, expected, rtol=1e-6)


def test_an_effect_is_the_score_less_that_without_the_measures() -> None:
    inputs, scorer = some_inputs(), made_up_scorer()
    found = score_classes(inputs, scorer)
    reasons = {r.group: r.effect for r in found.reasons[0]}
    assert len(reasons) > 2  # what a bare stack tells, and the look
    for group in reasons:
        if group == "look":
            continue
        less = inputs.features.assign(**dict.fromkeys(GROUPS[group], np.nan))
        without = score_classes(replace(inputs, features=less), scorer).score[0]
        assert reasons[group] == pytest.approx(found.score[0] - without, abs=1e-6)
    odds = [
        abs(certain_logit(found.score[0]) - certain_logit(found.score[0] - r.effect))
        for r in found.reasons[0]
    ]
    assert odds == sorted(odds, reverse=True)
    assert not set(reasons) & {"resolution", "halves", "accuracy", "members"}  # not known


def test_few_members_draw_a_score_down() -> None:
    inputs, scorer = some_inputs(), made_up_scorer()
    found = []
    for count in (1.0, 20.0, 10_000.0, np.nan):
        counted = replace(inputs, features=inputs.features.assign(particle_count=count))
        found.append(score_classes(counted, scorer).purity)
    np.testing.assert_allclose(found[2], found[3], atol=1e-3)
    assert (np.abs(found[0] - 0.2) < 0.3 * np.abs(found[3] - 0.2)).all()
    np.testing.assert_allclose(found[1] - 0.2, 20 / 23 * (found[3] - 0.2), rtol=1e-6)


def test_empty_classes_have_no_score() -> None:
    averages = np.concatenate([stack(particle(1)), np.zeros((2, SIZE, SIZE), np.float32)])
    scores = score_classes(class_inputs(averages), made_up_scorer())
    assert np.isfinite(scores.score).tolist() == [True, False, False]
    assert scores.reasons[1] == ()


def test_classes_that_are_all_empty_have_no_score() -> None:
    scores = score_classes(class_inputs(np.zeros((3, SIZE, SIZE), np.float32)), made_up_scorer())
    assert np.isnan(scores.score).all()


def test_threads_do_not_change_scores() -> None:
    inputs, scorer = some_inputs(), made_up_scorer()
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(score_classes(inputs, scorer).score)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    scorer = made_up_scorer()
    write_weights(tmp_path / "w.npz", to_weights(scorer, {"seed": 1}))
    again = read_scorer(tmp_path / "w.npz")
    inputs = some_inputs()
    first, second = (score_classes(inputs, s).score for s in (scorer, again))
    np.testing.assert_allclose(first, second, rtol=1e-6)


def test_weights_for_other_measures_are_refused(tmp_path: Path) -> None:
    weights = to_weights(made_up_scorer(), {})
    other = replace(weights, notes={**weights.notes, "features": ["height"]})
    write_weights(tmp_path / "w.npz", other)
    with pytest.raises(FormatError, match="measures of this version"):
        read_scorer(tmp_path / "w.npz")


def test_weights_with_arrays_missing_are_refused(tmp_path: Path) -> None:
    weights = to_weights(made_up_scorer(), {})
    arrays = {n: a for n, a in weights.arrays.items() if n != "network1.look.bias"}
    write_weights(tmp_path / "w.npz", replace(weights, arrays=arrays))
    with pytest.raises(FormatError, match="whole networks"):
        read_scorer(tmp_path / "w.npz")


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.npz", replace(to_weights(made_up_scorer(), {}), kind="picking"))
    with pytest.raises(FormatError, match=f"{KIND}|picking"):
        read_scorer(tmp_path / "w.npz")


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(ClassNetwork(GROUPS).state_dict(), tmp_path / "w.pt")
    with pytest.raises(FormatError):
        read_scorer(tmp_path / "w.pt")


def test_the_shipped_weights_say_how_they_were_made() -> None:
    from cryopick import selection

    path = Path(selection.__file__).with_name("class_scores.npz")
    notes = read_weights(path, kind=KIND, versions=(1,)).notes
    assert notes["made_by"] == "training/train_class_scores.py"
    assert path.stat().st_size < 1_000_000


def labelled(n: int) -> LabelledClasses:
    """Particles and noise, told by nothing but their averages."""
    averages = stack(*[particle(s) for s in range(n)], *[smooth_noise(s) for s in range(n)])
    inputs = class_inputs(averages)
    truth = torch.cat([torch.ones(n), torch.zeros(n)])
    features = inputs.features.iloc[:, 3:].to_numpy(np.float32)
    return LabelledClasses(
        images=torch.from_numpy(inputs.images),
        features=torch.from_numpy(features),
        purity=truth,
        quality=truth,
        counts=torch.full((2 * n,), 30.0),
        runs=np.arange(2 * n),
    )


def test_training_learns_and_repeats() -> None:
    classes = labelled(16)
    losses: list[float] = []
    first = train_network(classes, epochs=80, seed=3, report=lambda _, loss: losses.append(loss))
    again = train_network(classes, epochs=80, seed=3)
    assert losses[-1] < 0.5 * losses[0]
    for name, values in first.arrays().items():
        np.testing.assert_array_equal(values, again.arrays()[name])
    scorer = ClassScorer(networks=(first,), calibration=np.array([[1.0, 1.0], [0.0, 0.0]]))
    unseen = class_inputs(stack(particle(900), particle(901), smooth_noise(900)))
    score = score_classes(unseen, scorer).score
    assert score[:2].min() > score[2]
