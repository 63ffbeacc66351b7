"""Claims about networks that judge candidates, on simulated fields with truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryopick.picking.consensus_learning import Learning, StartModel, assign_folds
from cryopick.picking.consensus_network import answer_of, cross_fit, score_candidates
from cryopick.picking.consensus_points import Consensus
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.picking.evaluate import average_precision, is_near
from cryopick.pipeline.consensus_judge import judge_by_network, keep_apart
from cryopick.pipeline.consensus_prepare import prepare_candidates
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


def learning(model):
    return Learning(start=(StartModel(model),), training=ConsensusTraining(steps=2))


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
    fold = assign_folds([p.name for p in seen], (), seed=0)
    other = [np.where(fold[i] == 0, 1 - c, c) for i, c in enumerate(chances)]  # lies on one part

    one = cross_fit(seen, chances, learning=learning(model))
    two = cross_fit(seen, other, learning=learning(model))

    np.testing.assert_array_equal(one.fold, fold)
    assert [len(m) for m in one.models] == [1, 1]
    same = [torch.equal(a, b) for a, b in zip(one.answers, two.answers, strict=True)]
    assert same == (fold == 0).tolist()  # they were scored by the network of the other part


def test_where_too_little_is_to_be_learned_the_model_answers_as_it_is(world):
    _, prepared, is_true, _ = world
    model, _ = read_model(None)
    seen = [p.seen for p in prepared[:2]]  # one micrograph to learn from

    found = cross_fit(seen, [r.astype(float) for r in is_true[:2]], learning=learning(model))
    assert found.models == [[], []]
    for one, answer in zip(seen, found.answers, strict=True):
        assert torch.equal(answer, answer_of([model], one))


def right_ones(fields, true_of, chance):
    """Whether each candidate is the likeliest one of those on a particle."""
    ends = np.cumsum([len(f.found.positions) for f in fields])
    return np.concatenate([
        likeliest_on(field.found.positions, true_of[field.micrograph], one)
        for field, one in zip(fields, np.split(chance, ends[:-1]), strict=True)
    ])  # fmt: skip


def likeliest_on(places, true, chance):
    away = np.hypot(*(places[:, None] - true).transpose(2, 0, 1))
    right, taken = np.zeros(len(places), bool), set()
    for n in np.argsort(-chance, kind="stable"):
        nearest = int(away[n].argmin())
        if away[n, nearest] < 0.3 * DIAMETER / PIXEL_SIZE and nearest not in taken:
            taken.add(nearest)
            right[n] = True
    return right


def test_networks_and_votes_together_sort_candidates_better_than_votes(world):
    fields, prepared, _, true_of = world
    model, _ = read_model(None)
    found = judge_by_network(fields, prepared, learning=learning(model), radius=RADIUS)
    number = sum(len(p) for p in true_of.values())

    def precision(chance, right):
        order = np.lexsort((np.random.default_rng(0).random(len(chance)), -chance))
        return average_precision(right[order], n_truth=number)

    chance, by_votes = found.final.probability, found.votes.probability
    right = right_ones(found.fields, true_of, chance)
    before = right_ones(fields, true_of, by_votes)
    assert precision(chance, right) > precision(by_votes, before) + 0.05
    assert np.mean((chance - right) ** 2) < np.mean((by_votes - before) ** 2)


def test_what_no_picker_has_found_is_not_lost(world, topaz_files):
    fields, prepared, _, true_of = world
    model, _ = read_model(None)
    shy = [
        replace(f, found=Consensus(*(values[: len(values) // 2] for values in f.found)))
        for f in fields
    ]
    half = [
        p._replace(seen=p.seen._replace(candidates=p.seen.candidates[: len(f.found.positions)]))
        for p, f in zip(prepared, shy, strict=True)
    ]
    found = judge_by_network(shy, half, learning=learning(model), radius=RADIUS)

    right = right_ones(found.fields, true_of, found.final.probability)
    nobody = ~np.concatenate([f.found.has_vote for f in found.fields]).any(1)
    likely = found.final.probability > 0.5
    assert right[nobody & likely].sum() > 0.25 * sum(len(p) for p in true_of.values())
    cut = read_truth(topaz_files / "truth.json").ignored  # at edges, on carbon
    on_cut = [
        is_near(f.found.positions, cut.loc[cut["micrograph"] == Path(f.micrograph).name,
                ["x", "y"]].to_numpy(float), radius=0.5 * DIAMETER / PIXEL_SIZE)
        for f in found.fields
    ]  # fmt: skip
    assert right[nobody & likely & ~np.concatenate(on_cut)].mean() > 0.8


def test_candidates_are_kept_apart_the_best_first():
    places = np.array([[0.0, 0], [3, 0], [50, 0]])
    assert keep_apart(places, np.array([0.2, 0.9, 0.5]), distance=10.0).tolist() == [1, 2]
