from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from command_world import refused

from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star, write_star

pytest_plugins = ("command_world",)

N = 120
SIMULATE = (
    f"--number {N} --box-size 40 --pixel-size 8 --phantoms asymmetric,ring --phantom-diameter 200 "
    "--workers 1 --threads 1 --seed 2"
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A small stack of two species with 15 % junk, made by the simulator's own command."""
    from typer.testing import CliRunner

    from cryopick.cli.app import app

    folder = tmp_path_factory.mktemp("simulated") / "set"
    words = ["simulate", "particles", "--out", str(folder), *SIMULATE.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(simulated, tmp_path, monkeypatch):
    """A copy in ``set``, to be spoiled."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(simulated, tmp_path / "set")
    return tmp_path / "set"


def change(path, to, **columns):
    """Write a table anew with other columns; None takes a column out."""
    blocks = read_star(path)
    table = blocks["particles"].assign(**{k: v for k, v in columns.items() if v is not None})
    blocks["particles"] = table.drop(columns=[k for k, v in columns.items() if v is None])
    write_star(to, blocks)
    return to


def by_view(folder):
    """Each view of each species in a class of its own, junk in another."""
    table = read_star(folder / "truth.star")["particles"]
    names = table["cryopickSpecies"].astype(str) + table["cryopickView"].astype(str)
    number = pd.factorize(names)[0] + 1
    number[table["cryopickIsJunk"].astype(int) == 1] = number.max() + 1
    return number


def test_the_truth_itself_scores_well_and_random_classes_score_as_chance(folder, cryopick):
    right = change(folder / "truth.star", folder / "right.star", rlnClassNumber=by_view(folder))
    draw = np.random.default_rng(0)
    random = change(
        folder / "truth.star",
        folder / "random.star",
        rlnClassNumber=draw.integers(1, 6, N),
        rlnAnglePsi=draw.uniform(-180, 180, N),
    )

    words = ("evaluate", "classes", "--truth", "set", "--min-size", 2, "--json")
    good = json.loads(cryopick(*words, right).out)
    bad = json.loads(cryopick(*words, random).out)

    assert good["coherence"] > bad["coherence"] + 0.2
    assert bad["coherence"] == pytest.approx(bad["chance"], abs=0.05)
    assert (good["junk_auc"], good["species_purity"], good["accounted"]) == (1, 1, 1)
    assert good["n_junk_classes"] == 1
    assert {row["species"] for row in good["classes"]} == {"asymmetric", "ring", ""}
    assert bad["n_view_classes"] == 0
    assert bad["species_purity"] < 0.8


def test_a_table_for_people_has_a_line_for_each_class_and_the_totals(folder, cryopick):
    ended = cryopick("evaluate", "classes", folder / "truth.star", "--truth", "set")

    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[0].split()[:4] == ["class", "members", "true", "junk"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]  # the species; junk is class 0
    assert lines[3].startswith("Coherence 0.")
    assert "accounted 1.000" in lines[3]
    assert lines[4].startswith("Of 2 classes 2 are occupied")


def test_classes_asked_for_count_where_they_are_empty(folder, cryopick):
    words = ("evaluate", "classes", folder / "truth.star", "--truth", "set", "--json")

    all_asked = json.loads(cryopick(*words, "--classes", 10).out)

    assert (all_asked["n_classes"], all_asked["n_occupied"]) == (10, 2)
    assert all_asked["occupied_by_views"] == all_asked["n_view_classes"] / 10


def test_averages_are_held_against_the_truth_of_their_class(folder, cryopick):
    one = int(np.flatnonzero(~np.load(folder / "truth.npz")["junk"])[0])
    change(
        folder / "truth.star",
        folder / "alone.star",
        rlnClassNumber=(np.arange(N) == one).astype(int),
        rlnAnglePsi=0.0,
        rlnOriginXAngst=0.0,
        rlnOriginYAngst=0.0,
    )
    clean = np.load(folder / "clean.npy")[one].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=clean.shape).astype(np.float32)
    write_mrc(folder / "right.mrcs", clean[None], pixel_size=8.0)
    write_mrc(folder / "noise.mrcs", np.stack([noise, clean]), pixel_size=8.0)

    words = ("evaluate", "classes", "set/alone.star", "--truth", "set", "--json", "--averages")
    right = json.loads(cryopick(*words, "set/right.mrcs").out)
    noisy = json.loads(cryopick(*words, "set/noise.mrcs").out)

    assert right["classes"][0]["resolution"] == 16.0  # Nyquist: the average is the member
    assert noisy["classes"][0]["resolution"] > 60


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ("rlnClassNumber", "class_number"),
        ("rlnAnglePsi", "psi"),
        ("rlnOriginXAngst", "shift_x"),
    ],
)
def test_a_missing_column_is_named(folder, cryopick, column, named):
    change(folder / "truth.star", folder / "less.star", **{column: None})

    ended = cryopick("evaluate", "classes", "set/less.star", "--truth", "set")

    refused(ended, f"set/less.star must have a column for {named}")


@pytest.mark.parametrize("name", ["truth.npz", "clean.npy"])
@pytest.mark.parametrize("fault", ["missing", "empty", "broken", "of another stack"])
def test_a_truth_that_cannot_be_used_is_refused(folder, cryopick, name, fault):
    path = folder / name
    shutil.copy(folder / "truth.star", "result.star")
    if fault == "missing":
        path.unlink()
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "broken":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "clean.npy":
        np.save(path, np.load(path)[1:])
    else:
        arrays = dict(np.load(path))
        np.savez(path, **{k: v[1:] if v.ndim else v for k, v in arrays.items()})

    ended = cryopick("evaluate", "classes", "result.star", "--truth", "set")

    refused(ended, "set", "Give the folder of cryopick simulate particles")


@pytest.mark.parametrize(
    ("truth", "got"), [("set/truth.star", "got a file"), ("nowhere", "got no such folder")]
)
def test_a_truth_that_is_no_folder_is_refused(folder, cryopick, truth, got):
    ended = cryopick("evaluate", "classes", "set/truth.star", "--truth", truth)

    refused(ended, f"--truth {truth} must be the folder that holds truth.npz and clean.npy", got)


def test_a_truth_without_names_of_species_and_views_is_enough(folder, cryopick):
    shutil.move(folder / "truth.star", "result.star")

    ended = cryopick("evaluate", "classes", "result.star", "--truth", "set", "--json")

    assert {row["species"] for row in json.loads(ended.out)["classes"]} == {"0", "1"}


def test_images_beyond_the_truth_are_refused(folder, cryopick):
    names = read_star(folder / "truth.star")["particles"]["rlnImageName"]
    change(
        folder / "truth.star",
        folder / "more.star",
        rlnImageName=names.replace(names.iloc[0], "000200@particles.mrcs"),
    )

    ended = cryopick("evaluate", "classes", "set/more.star", "--truth", "set")

    refused(ended, f"be among the {N} of the truth; got image 200")


def test_values_out_of_range_are_refused(folder, cryopick):
    words = ("evaluate", "classes", "set/truth.star", "--truth", "set")

    refused(cryopick(*words, "--classes", 1), "at least the highest class number (2); got 1")
    refused(cryopick(*words, "--min-size", 1), "min_size must be above 1")
    refused(cryopick(*words, "--symmetry", "X9"), "symmetry must be")
    refused(cryopick(*words, "--averages", "none.mrcs"), "none.mrcs must be a readable file")
    refused(cryopick("evaluate", "classes", "none.star", "--truth", "set"), "none.star")
