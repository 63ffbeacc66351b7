"""Claims about what the networks of a consensus begin from and learn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryopick.errors import ParameterError
from cryopick.picking.consensus_examples import as_training_field, lay_out_boxes
from cryopick.picking.consensus_learning import (
    NO_EXAMPLES,
    GivenExamples,
    Learning,
    StartModel,
    assign_folds,
    train_networks,
    with_examples,
)
from cryopick.picking.consensus_testing import roc_curve, score_tests
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.picking.network import PARTICLE, PickNetwork
from cryopick.picking.network_fit import fit_model
from cryopick.picking.network_pick import PickModel
from cryopick.picking.network_training import TrainingField, draw_window

NAMES = [f"{n}.mrc" for n in range(8)]


def model(seed=0):
    return PickModel(
        network=PickNetwork(seed=seed).eval(), slope=1.0, offset=0.0, threshold=0.5, prior=0.5
    )


def field(seed, *, n_particles=20, n_rejected=10):
    """Bright discs in noise, on a grid, and places between them."""
    random = np.random.default_rng(seed)
    side = 260
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2)
    places = 30.0 + 45.0 * grid[random.permutation(25)][:n_particles]
    y, x = np.mgrid[:side, :side]
    image = random.normal(0, 1, (side, side))
    for one in places:
        image += 2.0 * (np.hypot(y - one[0], x - one[1]) < PARTICLE / 2)
    rejected = 52.0 + 45.0 * grid[random.permutation(25)][:n_rejected]
    valid = torch.ones(side, side, dtype=torch.bool)
    return TrainingField(
        image=torch.from_numpy(image).float(),
        is_valid=valid,
        is_known=valid,
        particles=places,
        rejected=rejected,
        ignored=np.empty((0, 2)),
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_model_of_an_earlier_consensus_judges_what_it_has_learned_from(seed):
    start = [
        StartModel(model(), frozenset(NAMES[:3]), 0),
        StartModel(model(), frozenset(NAMES[3:5]), 1),
    ]
    fold = assign_folds([f"other/{n}" for n in NAMES], start, seed=seed)

    assert (fold[:3] == 1).all()
    assert (fold[3:5] == 0).all()
    assert sorted(np.bincount(fold)) == [4, 4]
    learning = Learning(start=tuple(start))
    assert learning.judges("elsewhere/0.mrc") == [start[1].model]
    assert learning.judges("7.mrc") == [s.model for s in start]
    assert learning.first(1, 4) is start[1]


def test_an_example_takes_the_place_of_the_candidates_near_to_it():
    one = field(0)
    positives = one.rejected[:4] + 3.0
    negatives = one.particles[:5] - 2.0
    (joined,), _ = with_examples(
        [one],
        [GivenExamples(positives, negatives)],
        [],
        ConsensusTraining(positive_weight=3.0, negative_weight=-1),
        seed=1,
    )

    assert {*map(tuple, positives)} <= {*map(tuple, joined.particles)}
    assert not {*map(tuple, one.particles[:5])} & {*map(tuple, joined.particles)}
    assert len(joined.particles) == 20 - 5 + 4
    assert len(joined.rejected) == 10 - 4 + 5
    assert sorted(joined.particle_weights) == [1.0] * 15 + [3.0] * 4
    assert joined.rejected_weights.tolist()[-5:] == [10 / 5] * 5  # as much as the ten of its own


def test_the_weight_of_an_example_is_that_of_its_place_in_the_windows():
    one = field(0)
    weights = np.arange(1.0, 21.0)
    weighed = replace(one, particle_weights=weights, rejected_weights=np.full(10, 2.5))
    for seed in range(4):
        plain = draw_window(one, np.random.default_rng(seed))
        heavy = draw_window(weighed, np.random.default_rng(seed))

        torch.testing.assert_close(plain.weight, plain.positive)
        torch.testing.assert_close(heavy.positive, plain.positive)
        assert set(heavy.weight[heavy.positive > 0].tolist()) <= set(weights)
        torch.testing.assert_close(heavy.rejected, 2.5 * plain.rejected)


def test_so_many_particles_are_learned_from_and_nothing_is_said_of_the_others():
    fields = [field(0), field(1)]
    limited, _ = with_examples(
        fields, [NO_EXAMPLES] * 2, [], ConsensusTraining(training_particles=13), seed=1
    )
    again, _ = with_examples(
        fields, [NO_EXAMPLES] * 2, [], ConsensusTraining(training_particles=13), seed=1
    )

    assert sum(len(f.particles) for f in limited) == 13
    for one, before, same in zip(limited, fields, again, strict=True):
        every = np.concatenate([one.particles, one.ignored])
        assert {*map(tuple, every)} == {*map(tuple, before.particles)}
        np.testing.assert_array_equal(one.particles, same.particles)


def learn(fields, *, kept=None, keep=None, start=(), **values):
    learning = Learning(start=start, training=ConsensusTraining(**values), kept=kept, keep=keep)
    return train_networks(fields, learning=learning, fold=0, names=NAMES[: len(fields)], seed=3)


def test_a_kept_network_is_not_trained_again_unless_it_would_learn_from_other_things():
    fields = [field(n) for n in range(3)]
    store = {}

    def keep(place, found):
        store[place] = found

    first = learn(fields, keep=keep, kept=store.get, steps=2, ensemble=2, model="new")
    assert len(store) == 2
    assert store == dict(zip(store, first, strict=True))
    weights = [n.model.network.arrays()["stem.weight"] for n in first]
    assert not np.array_equal(*weights)  # members begin and go otherwise

    again = learn(fields, kept=store.get, steps=2, ensemble=2, model="new")
    assert all(a is b for a, b in zip(first, again, strict=True))
    moved = [replace(fields[0], rejected=fields[0].rejected + 1.0), *fields[1:]]
    other = learn(moved, kept=store.get, steps=2, ensemble=1, model="new")
    assert other[0] is not first[0]
    assert {p.seen for p in store} == {("0.mrc", "1.mrc", "2.mrc")}


def test_rate_and_decay_are_those_asked_for():
    fields = [field(n) for n in range(3)]
    start = (StartModel(model(seed=5)),)
    before = start[0].model.network.arrays()

    def way(**values):
        store = []
        learn(fields, keep=lambda _, found: store.append(found), start=(), steps=1, model="new",
              **values)  # fmt: skip
        return store[0].model.network.arrays()["stem.weight"]

    slow, fast, shrunk = way(learning_rate=1e-5), way(learning_rate=1e-2), way(l2=1.0)
    first = PickNetwork(seed=3).arrays()["stem.weight"]
    usual = way()
    assert np.abs(slow - first).max() < 0.02 * np.abs(fast - first).max()
    assert np.abs(shrunk).sum() < np.abs(usual).sum()
    assert all(np.array_equal(before[n], a) for n, a in start[0].model.network.arrays().items())


def test_training_ends_when_what_is_held_out_is_picked_well_enough():
    fields = [field(n) for n in range(3)]
    looks = []
    for enough in (None, 1e-6):
        made = fit_model(fields[:2], fields[2:], network=PickNetwork(seed=1), steps=4, every=1,
                         enough=enough, n_expected=20.0)  # fmt: skip
        looks.append(len(made.history))
    assert looks[0] > looks[1] >= 1


def test_too_little_is_not_learned_from():
    assert learn([field(0)], steps=2) == []
    assert learn([field(0, n_particles=3), field(1, n_particles=3)], steps=2) == []
    assert learn([field(n) for n in range(3)], steps=0) == []


def test_boxes_are_seen_as_fields_are():
    """Discs of a diameter on any level and scale: the same sheet, their middles in the middle."""
    diameter, pixel_size, size = 120.0, 2.5, 90
    y, x = np.mgrid[:size, :size] - size // 2
    random = np.random.default_rng(0)
    disc = 3.0 * (np.hypot(y, x) < diameter / pixel_size / 2)
    images = torch.from_numpy(disc + random.normal(0, 1, (50, size, size))).float()
    sheets = lay_out_boxes(images, pixel_size=pixel_size, diameter=diameter)
    scaled = lay_out_boxes(40.0 * images - 1000.0, pixel_size=pixel_size, diameter=diameter)

    assert sum(len(s.centres) for s in sheets) == 50
    for one, other in zip(sheets, scaled, strict=True):
        torch.testing.assert_close(one.image, other.image, atol=1e-3, rtol=1e-3)
        steps = torch.arange(-9, 10)
        for row, column in one.centres.astype(int):
            inner = one.image[row + steps][:, column + steps]
            assert inner.mean() > 2
            edge = one.image[row + steps, column - 18]
            assert abs(edge.mean()) < 1.5
    learned = as_training_field(sheets[0], is_particle=True)
    window = draw_window(learned, np.random.default_rng(2))
    assert window.positive.any()
    assert not window.unlabelled.any()  # nothing is known beside a particle
    wrong = draw_window(as_training_field(sheets[0], is_particle=False), np.random.default_rng(2))
    assert wrong.rejected.any()
    assert not wrong.positive.any()


def test_scores_of_a_test_are_those_of_their_definitions():
    random = np.random.default_rng(0)
    positives, negatives = random.normal(1, 1, 200).round(1), random.normal(-0.5, 1, 300).round(1)
    found = score_tests(positives, negatives)

    pairs = positives[:, None] - negatives
    assert found.roc_auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    truth = np.repeat([1, 0], [200, 300])
    every = np.concatenate([positives, negatives])
    assert found.accuracy == pytest.approx(((every > 0) == truth).mean())
    kept = every > np.log(found.best_threshold / (1 - found.best_threshold))
    assert found.best_mcc == pytest.approx(np.corrcoef(kept, truth)[0, 1])
    for threshold in np.linspace(-2, 2, 81):
        is_kept = every > threshold
        assert np.corrcoef(is_kept, truth)[0, 1] <= found.best_mcc + 1e-9
    _, wrong, right = roc_curve(positives, negatives)
    assert np.trapezoid(right, wrong) == pytest.approx(found.roc_auc)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model": "new", "skip_training": True}, "model must name a trained model with"),
        ({"model": "new", "steps": 0}, "model must name a trained model with"),
        ({"training_particles": 0}, "training_particles must be at least 1, or -1; got 0"),
        ({"positive_weight": -0.5}, "positive_weight must be above 0, or -1; got -0.5"),
        ({"negative_weight": 0.0}, "negative_weight must be above 0, or -1; got 0"),
        ({"skip_training": True, "ensemble": 3}, "ensemble must be left out where nothing"),
        ({"ensemble": 6}, "ensemble must be at most 5"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(values, sentence):
    with pytest.raises(ParameterError, match=sentence):
        ConsensusTraining(**values)


def test_random_weights_learn_for_longer():
    assert ConsensusTraining(model="new").most_steps > ConsensusTraining().most_steps
