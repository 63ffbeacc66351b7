"""Claims about how the networks of a consensus are trained: choices, files, what is kept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import CryopickError, FormatError, ParameterError
from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.star import read_star, write_star
from cryopick.picking.consensus_learning import StartModel
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline import consensus_models
from cryopick.pipeline.consensus import join_sets
from cryopick.pipeline.consensus_models import ModelKeeper, read_models, read_start
from cryopick.pipeline.consensus_negatives import simulate_negatives
from cryopick.pipeline.consensus_plan import TrainingFiles
from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.pipeline.extraction import extract
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.relion import read_picks, write_picks_file

pytest_plugins = ("topaz_world",)

DIAMETER = 125.0
TABLE = "micrographs_ctf.star"
PAIR = ("sure", "eager")


@pytest.fixture
def project(topaz_project):
    """Sets of two pickers on four fields, all particles, and places where there is none."""
    truth = read_truth(Path("truth.json")).rows
    random = np.random.default_rng(4)
    for micrograph, rows in truth.groupby("micrograph"):
        true = rows[["x", "y"]].to_numpy(float)
        empty = random.uniform(20, 490, (80, 2))
        away = np.hypot(*(empty[:, None] - true).transpose(2, 0, 1)).min(1)
        empty = empty[away > 0.8 * DIAMETER / 4.0]
        few = true[random.random(len(true)) < 0.6]
        many = true[random.random(len(true)) < 0.95]
        for name, places in (
            ("true", true),
            ("empty", empty),
            ("sure", np.concatenate([few + random.normal(0, 2, few.shape), empty[:2]])),
            ("eager", np.concatenate([many + random.normal(0, 2, many.shape), empty[2:]])),
        ):
            path = Path(name) / f"{Path(str(micrograph)).stem}_autopick.star"
            path.parent.mkdir(exist_ok=True)
            write_picks_file(path, pd.DataFrame(places, columns=["x", "y"]))
    return topaz_project


def join(out, *, sets=PAIR, table=TABLE, files=None, overwrite=False, choices=None, **training):
    return join_sets(
        [Path(s) for s in sets],
        [table],
        Path(out),
        parameters=ConsensusParameters(diameter=DIAMETER, **(choices or {})),
        training=ConsensusTraining(**training),
        files=TrainingFiles(**{n: Path(p) for n, p in (files or {}).items()}),
        compute=ComputeParameters(workers=1, threads=1),
        overwrite=overwrite,
    )


def rows(out):
    return read_picks(Path(out)).rows


def f1(out):
    return evaluate_pick_files(Path(out), Path("truth.json")).picks.total.f1


def stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).glob("*.npz")}


def test_networks_are_kept_and_a_killed_job_trains_only_what_is_missing(project):
    result = join("one", steps=1, ensemble=2)
    names = ["fold_1_1.npz", "fold_1_2.npz", "fold_2_1.npz", "fold_2_2.npz"]
    assert sorted(stamps("one/models")) == names
    assert [n.file for n in result.networks] == names
    assert result.untrained_folds == 0
    first, before = rows("one"), stamps("one/models")

    for path in ("candidates.npz", "ledger.jsonl", "models/models.json", "models/fold_2_1.npz"):
        Path("one", path).unlink()
    Path("one/models/fold_2_2.npz").write_bytes(b"cut off")
    again = join("one", steps=1, ensemble=2)
    after = stamps("one/models")
    assert [n for n in names if after[n] == before[n]] == names[:2]
    assert again.networks == result.networks
    assert rows("one").equals(first)


def test_a_training_that_was_killed_goes_on_to_the_same_network(project, monkeypatch):
    written = ModelKeeper.keep_begun

    def killed(keeper, place, state):
        written(keeper, place, state)
        raise KeyboardInterrupt

    whole = join("one", model="new", steps=2)
    assert [n.first_average_precision for n in whole.networks] == [None, None]
    with monkeypatch.context() as patch:
        patch.setattr(ModelKeeper, "keep_begun", killed)
        with pytest.raises(KeyboardInterrupt):  # at the first of two looks
            join("two", model="new", steps=2)
    with np.load("two/models/training.npz") as stored:
        assert json.loads(stored["header"].tobytes())["notes"]["step"] == 1
    join("two", model="new", steps=2)

    assert rows("two").equals(rows("one"))
    assert not Path("two/models/training.npz").exists()


def test_models_of_a_consensus_score_others_and_are_gone_on_with(project):
    join("one", steps=1)
    models, made_for = read_models(Path("one/models"))
    names = set(rows("one")["micrograph"].map(lambda n: Path(n).name))
    assert models[0].seen | models[1].seen == names
    assert not models[0].seen & models[1].seen
    assert made_for == {"diameter": DIAMETER, "phase_flip": False}

    scored = join("scored", sets=["eager"], model="one", skip_training=True)
    assert scored.networks == ()
    assert f1("scored") > f1("eager") + 0.1
    assert scored.picks.to_dict()["n_peaks"] <= len(rows("eager"))  # nothing that is not in the set
    every = join("every", sets=["eager"], model="one", skip_training=True,
                 choices={"candidates": "all"})  # fmt: skip
    assert every.picks.to_dict()["n_peaks"] > scored.picks.to_dict()["n_peaks"]
    kept, _ = read_models(Path("scored/models"))  # a stream can freeze what scored
    assert [m.seen for m in kept] == [m.seen for m in models]

    further = join("further", model="one", steps=1)
    others, _ = read_models(Path("further/models"))
    assert {m.fold: m.seen for m in others} == {m.fold: m.seen for m in models}
    assert all(n.first_average_precision is not None for n in further.networks)


def boxed(name, coordinates, box_size=60, **options):
    """Extract particles, and say that they come from somewhere else."""
    extract(
        open_micrographs([TABLE]),
        open_coordinates(Path(coordinates)),
        Path(name),
        parameters=ExtractionParameters(box_size=box_size, **options),
        compute=ComputeParameters(workers=1, threads=1),
    )
    path = Path(name) / "particles.star"
    tables = read_star(path)
    particles = tables["particles"]
    particles["rlnMicrographName"] = "elsewhere/other.mrc"
    write_star(path, {**tables, "particles": particles})
    return path


def test_networks_are_tested_on_positions_and_on_boxes(project):
    positions = join(
        "one", skip_training=True, files={"test_positives": "true", "test_negatives": "empty"}
    )
    boxes = {
        "test_positives": boxed("boxed_true", "true"),
        "test_negatives": boxed("boxed_empty", "empty"),
    }
    others = join("two", skip_training=True, files=boxes)
    swapped = join(
        "three",
        skip_training=True,
        files={"test_positives": "empty", "test_negatives": "true"},
    )

    assert positions.testing["n_positives"] == len(rows("true"))
    assert positions.testing["roc_auc"] > 0.98
    assert others.testing["n_positives"] > 0.8 * len(rows("true"))
    assert others.testing["roc_auc"] > 0.9
    assert swapped.testing["roc_auc"] == pytest.approx(1 - positions.testing["roc_auc"])
    told = json.loads(Path("one/testing.json").read_text())
    assert told["roc_auc"] == positions.testing["roc_auc"]
    assert Path("one/roc.png").read_bytes().startswith(b"\x89PNG")
    again = join(
        "one", skip_training=True, files={"test_positives": "true", "test_negatives": "empty"}
    )
    assert again.testing == positions.testing


def test_examples_of_a_user_change_what_is_learned(project):
    usual = join("usual", steps=1).networks
    swapped = join("swapped", steps=1, files={"positives": "empty", "negatives": "true"}).networks
    new = join("new", model="new", steps=1).networks
    boxes = {"positives": boxed("boxed", "true")}
    from_boxes = join("boxes", model="new", steps=1, files=boxes).networks

    # on micrographs held out, what the general model finds is right, or wrong if the user says so
    assert min(n.first_average_precision for n in usual) > 0.7
    assert max(n.first_average_precision for n in swapped) < 0.3
    learned = {n.average_precision for n in new}
    assert learned.isdisjoint(n.average_precision for n in from_boxes)


def test_phases_are_flipped_by_the_table_of_the_micrographs_or_another(project):
    own = join("own", skip_training=True, choices={"phase_flip": True})
    table = read_star(Path(TABLE))
    bare = table["micrographs"].drop(
        columns=[c for c in table["micrographs"] if "Defocus" in c or "Ctf" in c]
    )
    write_star(Path("bare.star"), {**table, "micrographs": bare})
    other = join("other", table="bare.star", skip_training=True, choices={"phase_flip": True},
                 files={"ctf": TABLE})  # fmt: skip
    join("plain", skip_training=True)

    assert own.picks.to_dict()["n_picks"] == other.picks.to_dict()["n_picks"]
    pd.testing.assert_series_equal(rows("own")["fom"], rows("other")["fom"])
    assert not rows("own")["fom"].equals(rows("plain")["fom"])
    assert f1("own") > f1("plain") - 0.03
    with pytest.raises(CryopickError, match=r"give the CTF of every micrograph .* Run ctf"):
        join("none", table="bare.star", choices={"phase_flip": True})
    assert not Path("none").exists()


def test_shipped_negatives_are_like_the_micrographs_and_hold_nothing_marked():
    like = {
        "pixel_size": 4.0,
        "diameter": DIAMETER,
        "phase_flip": False,
        "mask": True,
        "number": 2,
        "seed": 1,
    }
    ctf = FieldCtf(15000.0, 14000.0, 20.0, 200.0, 1.4, 0.07)
    fields = simulate_negatives(**like, ctfs=[ctf])
    again = simulate_negatives(**like, ctfs=[ctf])
    flipped = simulate_negatives(**{**like, "phase_flip": True}, ctfs=[ctf])

    assert len(fields) == 2
    for one, same, other in zip(fields, again, flipped, strict=True):
        assert not len(one.particles)
        assert one.is_known.float().mean() > 0.05
        assert one.image[one.is_valid].std() == pytest.approx(1, abs=0.5)
        assert one.image.equal(same.image)
        assert not one.image.equal(other.image)


WRONG = [
    ({"sets": ("sure",)}, {}, "SETS must be at least two; got 1.*--skip-training"),
    ({"sets": ("sure",)}, {"model": "new", "steps": 3}, "SETS must be at least two"),
    ({"table": "two.star"}, {"model": "new"}, "at least 60 candidates on 4 micrographs"),
    ({}, {"positive_weight": 2.0}, "positive_weight must be given with --positives only"),
    ({}, {"negative_weight": -1}, "negative_weight must be given with --negatives only"),
    ({"files": {"test_positives": "true"}}, {}, "test_positives must be given with --test-neg"),
    ({"files": {"negatives": "empty"}}, {"skip_training": True}, "negatives must be left out"),
    ({"files": {"ctf": TABLE}}, {}, "ctf must be given with --phase-flip"),
    ({"choices": {"method": "votes"}}, {"ensemble": 2}, "ensemble must be given with --method"),
    (
        {"choices": {"method": "votes"}, "files": {"positives": "true"}},
        {},
        "positives must be given with --method network only",
    ),
    ({}, {"model": "nowhere"}, "nowhere must be a file that can be read"),
    ({}, {"model": TABLE}, "must be weights that cryopick has written"),
    ({}, {"model": "sure"}, "hold the models of a finished consensus; got a folder without"),
    ({"files": {"positives": "small/particles.star"}}, {}, "have boxes of at least 1.2 diameters"),
    (
        {"files": {"test_positives": "true", "test_negatives": "small/particles.star"}},
        {},
        "have boxes of at least 1.2 diameters, 150 A; got 144 A",
    ),
]


def test_what_is_wrong_is_said_before_any_work(project):
    table = read_star(Path(TABLE))
    write_star(Path("two.star"), {**table, "micrographs": table["micrographs"].iloc[:2]})
    boxed("small", "true", box_size=36)
    for given, training, sentence in WRONG:
        with pytest.raises(CryopickError, match=sentence) as caught:
            join("out", **given, **training)
        assert str(caught.value).count("\n") == 0
        assert not Path("out").exists()


def test_foreign_and_damaged_models_of_a_consensus_are_refused(project, tmp_path):
    model, _ = consensus_models.read_model(None)
    folder = tmp_path / "kept" / "models"
    keeper = consensus_models.ModelKeeper(
        folder=folder, identity="x", diameter=DIAMETER, phase_flip=False
    )
    keeper.finish([], [StartModel(model)])
    fits = {"diameter": DIAMETER, "phase_flip": False}
    assert len(read_start(str(folder.parent), **fits)) == 1

    with pytest.raises(ParameterError, match=r"of particles of about 200 A; got .* of 125 A"):
        read_start(str(folder.parent), diameter=200.0, phase_flip=False)
    with pytest.raises(ParameterError, match=r"trained with --phase-flip.*trained without it"):
        read_start(str(folder.parent), diameter=DIAMETER, phase_flip=True)
    listed = json.loads((folder / "models.json").read_text())
    listed["models"][0]["identity"] = "0" * 16
    (folder / "models.json").write_text(json.dumps(listed))
    with pytest.raises(FormatError, match=r"be the model that models.json beside it names"):
        read_start(str(folder.parent), **fits)
    (folder / "models.json").write_text("{}")
    with pytest.raises(FormatError, match="models of a finished consensus; got a damaged"):
        read_start(str(folder.parent), **fits)
    (folder / "models.json").unlink()
    with pytest.raises(FormatError, match=r"got a folder without models.json"):
        read_start(str(folder.parent), **fits)
