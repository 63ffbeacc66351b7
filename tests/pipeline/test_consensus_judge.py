"""Claims about networks that judge candidates, on simulated fields with truth."""

from pathlib import Path

import numpy as np
import pytest

from cryopick.picking.consensus_network import cross_fit, make_folds, score_candidates
from cryopick.picking.evaluate import average_precision
from cryopick.pipeline.consensus_judge import judge_by_network, keep_apart, prepare_candidates
from cryopick.pipeline.consensus_sets import CoordinateSet, find_candidates
from cryopick.pipeline.evaluate import read_truth
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.micrographs import open_micrographs

pytest_plugins = ("topaz_world",)

DIAMETER, PIXEL_SIZE, RADIUS = 125.0, 4.0, 0.25
SENSITIVITY, FALSE = (0.9, 0.7), (8, 30)


@pytest.fixture(scope="module")
def world(topaz_files):
    """Candidates of two pickers on four fields, as the network sees them, and their truth."""
    table = open_micrographs([str(topaz_files / "micrographs_ctf.star")])
    truth = read_truth(topaz_files / "truth.json").rows
    true_of = {
        name: truth.loc[truth["micrograph"] == Path(name).name, ["x", "y"]].to_numpy(float)
        for name in table.rows["micrograph"]
    }
    random = np.random.default_rng(1)
    sets = []
    for share, n_false in zip(SENSITIVITY, FALSE, strict=True):
        places = {}
        for name, true in true_of.items():
            found = true[random.random(len(true)) < share]
            found = found + random.normal(0, 2.5, found.shape)
            places[name] = np.concatenate([found, random.uniform(20, 490, (n_false, 2))])
        none = dict.fromkeys(places)
        sets.append(CoordinateSet(path=Path("set"), positions=places, scores=none, box=None,
                                  n_unlisted=0))  # fmt: skip
    fields = find_candidates(table, sets, radius=RADIUS * DIAMETER)
    prepared = [
        prepare_candidates(f, diameter=DIAMETER, white_particles=False, mask=True) for f in fields
    ]
    away = [distance(f.found.positions, true_of[f.micrograph]) for f in fields]
    return fields, prepared, [d < 0.3 * DIAMETER / PIXEL_SIZE for d in away], true_of


def distance(places, others):
    return np.hypot(*(places[:, None] - others).transpose(2, 0, 1)).min(1)


def test_a_model_tells_particles_from_places_and_moves_candidates_to_their_centres(world):
    fields, prepared, is_true, true_of = world
    model, _ = read_model(None)
    before, after = [], []
    for field, one, right in zip(fields, prepared, is_true, strict=True):
        found = score_candidates(model, one.seen, radius=RADIUS)
        assert np.median(found.logits[right]) > np.median(found.logits[~right]) + 2
        moved = one.in_micrograph(found.centres)
        sure = right & (found.logits > 0)
        before.append(distance(field.found.positions[sure], true_of[field.micrograph]))
        after.append(distance(moved[sure], true_of[field.micrograph]))
        unlikely = found.logits <= 0
        np.testing.assert_allclose(moved[unlikely], field.found.positions[unlikely], atol=1e-6)

    assert np.concatenate(after).mean() < 0.7 * np.concatenate(before).mean()


def test_no_candidate_is_scored_by_a_network_that_has_seen_its_micrograph(world):
    _, prepared, is_true, _ = world
    model, _ = read_model(None)
    seen = [p.seen for p in prepared]
    chances = [np.where(right, 0.95, 0.02) for right in is_true]
    fold = make_folds(len(seen), seed=0)
    other = [np.where(fold[i] == 0, 1 - c, c) for i, c in enumerate(chances)]  # lies on one part

    one = cross_fit(seen, chances, model=model, steps=2, radius=RADIUS)
    two = cross_fit(seen, other, model=model, steps=2, radius=RADIUS)

    np.testing.assert_array_equal(one.fold, fold)
    assert all(m is not None for m in one.models)
    same = [np.array_equal(a.logits, b.logits) for a, b in zip(one.fields, two.fields, strict=True)]
    assert same == (fold == 0).tolist()  # they were scored by the network of the other part


def test_where_too_little_is_to_be_learned_the_model_scores_as_it_is(world):
    _, prepared, is_true, _ = world
    model, _ = read_model(None)
    seen = [p.seen for p in prepared[:2]]  # one micrograph to learn from

    found = cross_fit(
        seen, [r.astype(float) for r in is_true[:2]], model=model, steps=2, radius=RADIUS
    )
    assert found.models == [None, None]
    for one, judged in zip(seen, found.fields, strict=True):
        plain = score_candidates(model, one, radius=RADIUS)
        np.testing.assert_array_equal(judged.logits, plain.logits)


def test_networks_and_votes_together_sort_candidates_better_than_votes(world):
    fields, prepared, is_true, _ = world
    model, _ = read_model(None)
    found = judge_by_network(fields, prepared, model=model, steps=2, radius=RADIUS)
    right = np.concatenate(is_true)

    def precision(chance):
        order = np.lexsort((np.random.default_rng(0).random(len(chance)), -chance))
        return average_precision(right[order], n_truth=int(right.sum()))

    assert precision(found.final.probability) > precision(found.votes.probability) + 0.05
    assert np.mean((found.final.probability - right) ** 2) < np.mean(
        (found.votes.probability - right) ** 2
    )


def test_candidates_are_kept_apart_the_best_first():
    places = np.array([[0.0, 0], [3, 0], [50, 0]])
    assert keep_apart(places, np.array([0.2, 0.9, 0.5]), distance=10.0).tolist() == [1, 2]
