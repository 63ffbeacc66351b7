"""``pick train``: what is learned from, what is refused, and that a killed training goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from network_world import DIAMETER, TABLE, run, train
from topaz_world import noise, write_labels

from cryopick.errors import CryopickError, DataError, FormatError, ParameterError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.pipeline.evaluate import read_truth
from cryopick.pipeline.labelled_fields import labels_identity, read_labels
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.relion import read_micrographs, write_micrographs

pytest_plugins = ("topaz_world", "network_world")

_SENTENCE = re.compile(r".+ must .+; got .+\. .+\.")


def truth():
    return read_truth(Path("truth.json")).rows


def model_of(folder):
    return Path(folder, "model.npz").read_bytes()


@pytest.mark.slow
def test_a_training_says_how_good_it_is_and_leaves_nothing_but_results(network_project):
    values = json.loads(Path("training/result.json").read_text())
    _, notes = read_model(Path("training/model.npz"))

    assert sorted(p.name for p in Path("training").iterdir() if p.name[0] != ".") == [
        "job.json",
        "model.npz",
        "result.json",
        "training.png",
    ]
    n_true = len(truth()) / 4
    assert values["n_expected"] == pytest.approx(n_true, rel=0.35)
    assert values["n_train"] + values["n_held_out"] == 3
    assert values["n_unlabelled"] == 1
    assert 4 <= len(values["history"]) <= 6  # it stops after three reports that are no better
    least = max(h["success"] for h in values["history"]) * (1 - 2 / values["n_held_out_labels"])
    taken = [h for h in values["history"] if h["success"] >= least][-1]
    assert values["steps"] == taken["step"]
    assert values["average_precision"] == taken["average_precision"]
    assert taken["success"] > 0.35  # half of the right peaks count as wrong
    assert notes["diameter"] == DIAMETER
    assert not [v for v in notes.values() if isinstance(v, str) and "/" in v]


def test_the_same_seed_gives_the_same_model_with_any_number_of_threads(topaz_project):
    first = train("labels.star", "first")
    train("labels.star", "second", compute=ComputeParameters(workers=2, threads=2))
    train("labels.star", "other", seed=2)

    assert model_of("first") == model_of("second")
    assert model_of("first") != model_of("other")
    stamp = first.model.stat().st_mtime_ns
    assert train("labels.star", "first") == first
    assert first.model.stat().st_mtime_ns == stamp  # finished: nothing is computed again


def test_a_killed_training_goes_on_to_the_same_model(topaz_project):
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from network_world import train

def die(step, share, note):
    if step == "Training" and "loss" in note:
        os.kill(os.getpid(), signal.SIGKILL)

train("labels.star", "killed", progress=die)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not Path("killed/model.npz").exists()
    prepared = {p: p.stat().st_mtime_ns for p in Path("killed/fields").rglob("*.npz")}
    assert len(prepared) == 4

    seen = []

    def note(step, share, _):
        seen.append((step, share))
        if step == "Training":
            assert prepared == {p: p.stat().st_mtime_ns for p in prepared}

    result = train("labels.star", "killed", progress=note)
    whole = train("labels.star", "whole")

    assert next(share for step, share in seen if step == "Training") == pytest.approx(1 / 6)
    assert model_of("killed") == model_of("whole")
    assert result.history == whole.history
    assert not Path("killed/fields").exists()
    assert not Path("killed/checkpoint.npz").exists()


def test_other_labels_are_learned_anew_and_other_parameters_refused(topaz_project):
    train("labels.star", "out", steps=1)
    before = model_of("out")
    rows = truth()
    Path("labels.star").unlink()
    write_labels(Path("labels.star"), rows.iloc[1::2])

    train("labels.star", "out", steps=1)

    assert model_of("out") != before
    with pytest.raises(CryopickError, match="seed 1 instead of 2"):
        train("labels.star", "out", steps=1, seed=2)


def particle_table(rows, *, moved=10.0, pixel_size=4.0):
    """Particles whose origins undo that their coordinates are moved by some px."""
    particles = pd.DataFrame(
        {
            "rlnMicrographName": "micrographs/" + rows["micrograph"].astype(str),
            "rlnCoordinateX": rows["x"] + moved,
            "rlnCoordinateY": rows["y"] - moved,
            "rlnOriginXAngst": moved * pixel_size,
            "rlnOriginYAngst": -moved * pixel_size,
            "rlnImageName": [f"{n + 1}@particles.mrcs" for n in range(len(rows))],
            "rlnOpticsGroup": 1,
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["one"],
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [8.0],
            "rlnMicrographPixelSize": [pixel_size],
            "rlnImageSize": [32],
            "rlnImageDimensionality": [2],
        }
    )
    write_star(Path("particles.star"), {"optics": optics, "particles": particles})
    return Path("particles.star")


def test_particles_are_moved_by_their_origins_and_name_their_micrographs(topaz_project):
    rows = truth()
    path = particle_table(rows)

    labels = read_labels(open_micrographs([TABLE]), path, diameter=DIAMETER)
    result = train(path, "out", micrographs=(), steps=1)

    found = np.sort(np.concatenate([f.x for f in labels.fields]))
    np.testing.assert_allclose(found, np.sort(rows["x"]), atol=1e-3)
    assert result.n_train + result.n_held_out == 4
    assert result.n_train_labels + result.n_held_out_labels + result.n_masked == len(rows)


def test_rejected_particles_near_a_label_are_the_labelled_ones(topaz_project):
    rows = truth()
    write_labels(Path("all.star"), rows)
    kept = rows.iloc[::2]
    write_labels(Path("kept.star"), kept)

    result = train("kept.star", "out", rejected=Path("all.star"), steps=1)

    assert result.n_masked == 0
    assert result.n_rejected == len(rows) - len(kept)


def test_micrographs_that_cannot_be_read_are_listed_and_the_others_used(topaz_project):
    rows = truth()
    broken = noise(512)
    broken[100, 100] = np.nan
    folder = Path("some")
    for number in range(1, 5):
        name = f"sim_{number:05d}.mrc"
        folder.mkdir(exist_ok=True)
        if number == 2:
            write_mrc(folder / name, broken, pixel_size=4.0)
        elif number != 3:
            (folder / name).symlink_to(Path("micrographs", name).absolute())
    Path("some.star").write_text(Path(TABLE).read_text().replace("micrographs/sim", "some/sim"))
    write_labels(Path("all.star"), rows)

    ended = run(
        *("pick", "train", "all.star", "--micrographs", "some.star", "--diameter", DIAMETER),
        *("--from-scratch", "--steps", 1, "--workers", 1, "--out", "out", "--json"),
    )

    assert ended.exit_code == 3, ended.output
    assert json.loads(ended.stdout)["n_train"] == json.loads(ended.stdout)["n_held_out"] == 1
    (failed,) = read_star(Path("out/failed.star")).values()
    reasons = dict(zip(failed["rlnMicrographName"], failed["cryopickReason"], strict=True))
    assert set(reasons) == {"some/sim_00002.mrc", "some/sim_00003.mrc"}
    assert "2 micrographs were refused; see out/failed.star" in ended.stderr


def _write_bad_labels():
    rows = truth()
    write_labels(Path("few.star"), rows.iloc[:30])
    write_labels(Path("far.star"), rows.assign(x=rows["x"] * 2))
    write_labels(Path("one.star"), rows.assign(micrograph="sim_00001.mrc"))
    write_labels(Path("other.star"), rows.assign(micrograph="else.mrc"))
    for number in range(1, 5):
        write_mrc(f"unsized/sim_{number:05d}.mrc", noise(512), pixel_size=0.0)
    Path("gone.star").write_text(Path(TABLE).read_text().replace("micrographs/sim", "gone/sim"))


@pytest.mark.parametrize(
    ("labels", "given", "kind", "parts"),
    [
        ("few.star", {}, DataError, ("hold at least 50 labelled particles; got 30",)),
        (
            "far.star",
            {},
            DataError,
            ("inside the micrographs", "the first at x ", "sim_0000", "512 x 512 px"),
        ),
        ("one.star", {}, DataError, ("in at least 2 micrographs",)),
        ("other.star", {}, TableError, ("MICROGRAPHS lists; got else.mrc",)),
        ("absent.star", {}, CryopickError, ("absent.star",)),
        ("labels.star", {"micrographs": ()}, TableError, ("--micrographs", "sim_00001.mrc")),
        ("labels.star", {"micrographs": ("gone.star",)}, FormatError, ("gone/sim_00004",)),
        ("labels.star", {"micrographs": ("unsized",)}, ParameterError, ("pixel_size",)),
        ("labels.star", {"diameter": 3000.0}, DataError, ("larger than the particle, 3000 A",)),
        (
            "labels.star",
            {"particles_per_micrograph": 5.0},
            ParameterError,
            ("particles_per_micrograph must be at least the",),
        ),
        ("labels.star", {"model": Path("m.npz")}, ParameterError, ("--from-scratch",)),
        (
            "labels.star",
            {"model": Path("labels.star"), "from_scratch": False},
            FormatError,
            ("labels.star",),
        ),
        ("labels.star", {"rejected": Path("other.star")}, TableError, ("other.star",)),
    ],
)
def test_what_no_training_can_come_of_is_refused_in_one_sentence(
    topaz_project, labels, given, kind, parts
):
    _write_bad_labels()

    with pytest.raises(kind) as raised:
        train(labels, "out", **given)

    sentence = str(raised.value)
    assert _SENTENCE.fullmatch(sentence), sentence
    for part in parts:
        assert part in sentence
    assert not Path("out").exists()


def test_another_pixel_size_in_the_table_is_another_training(network_project):
    table = read_micrographs(Path(TABLE))
    coarser = table.optics.assign(pixel_size=1.5 * table.optics["pixel_size"])
    write_micrographs(Path("micrographs_coarser.star"), replace(table, optics=coarser))
    one, other = (
        read_labels(open_micrographs([name]), Path("labels.star"), diameter=DIAMETER)
        for name in (TABLE, "micrographs_coarser.star")
    )
    assert one.count == other.count
    assert labels_identity(one.fields) != labels_identity(other.fields)


def test_a_particle_labelled_twice_counts_once(network_project):
    rows = truth()
    write_labels(Path("once.star"), rows)
    jittered = rows.assign(x=rows["x"] + 1.0)
    write_labels(Path("twice.star"), pd.concat([rows, jittered, rows]))
    once, twice = (
        read_labels(open_micrographs([TABLE]), Path(name), diameter=DIAMETER)
        for name in ("once.star", "twice.star")
    )
    assert twice.n_repeated == 2 * once.count
    for one, other in zip(once.fields, twice.fields, strict=True):
        np.testing.assert_array_equal(one.x, other.x)


def test_particles_of_a_few_pixels_are_refused(network_project):
    with pytest.raises(DataError, match="be at least 6 px of the micrograph"):
        train("labels.star", "tiny", diameter=9.0)
    assert not Path("tiny").exists()
