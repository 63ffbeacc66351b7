"""What `select classes` says: sizes nobody gave, averages without a score, rounded scores."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from classification_world import PIXEL
from selection_world import COUNTS, MASK, averages, make_run, select
from typer.testing import CliRunner

from cryopick.cli.select import select_app
from cryopick.errors import DataError, ParameterError, ShapeError
from cryopick.io.mrc import read_mrc_header, write_mrc
from cryopick.report import score_gallery

pytest_plugins = ("selection_world",)


def told(out: str, *words: object) -> list[str]:
    """Lines that the command prints for the run of the project."""
    given = ("classes", "Class2D/job003", "--out", out, "--weights", "weights.npz", *words)
    done = CliRunner().invoke(select_app, [str(w) for w in given])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


@pytest.mark.parametrize("unsaid", [0.0, 1.0])
def test_a_mask_in_angstrom_needs_a_pixel_size(project, unsaid):
    write_mrc(Path("bare.mrcs"), averages().numpy(), pixel_size=unsaid)
    write_mrc(Path("said.mrcs"), averages().numpy(), pixel_size=PIXEL)

    with pytest.raises(
        ParameterError,
        match=r"mask_diameter must come with the pixel size of the averages; got bare\.mrcs, which "
        r"does not say it\. Add --pixel-size\.",
    ):
        select(source="bare.mrcs", mask_diameter=MASK)
    assert not Path("sel").exists()

    given = {"minimum_score": 0, "mask_diameter": MASK}
    expected = select("said", source="said.mrcs", **given)["classes"]
    found = select(source="bare.mrcs", pixel_size=PIXEL, **given)["classes"]
    other = select("other", source="said.mrcs", pixel_size=1.5 * PIXEL, **given)["classes"]
    assert found == expected
    assert other != expected  # the circle is smaller, in pixels
    assert read_mrc_header(Path("sel/class_averages.mrcs")).pixel_size == PIXEL


def test_a_pixel_size_is_not_taken_for_a_run_or_below_0(project):
    write_mrc(Path("bare.mrcs"), averages().numpy(), pixel_size=1.0)

    with pytest.raises(ParameterError, match="a run says its own; got the run Class2D/job003"):
        select(pixel_size=PIXEL)
    for size in (0.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="pixel_size must be above 0 A/px; got"):
            select(source="bare.mrcs", pixel_size=size)


@pytest.mark.parametrize("size", [4, 8, 15])
def test_boxes_of_a_few_pixels_are_refused(project, size):
    rng = np.random.default_rng(0)
    write_mrc(Path("tiny.mrcs"), rng.normal(size=(3, size, size)).astype(np.float32), pixel_size=9)

    with pytest.raises(
        ShapeError,
        match=rf"tiny.mrcs must hold averages of at least 16 x 16 px; got {size} x {size} px\.",
    ):
        select(source="tiny.mrcs", minimum_score=0)
    assert not Path("sel").exists()


@pytest.mark.parametrize("rule", [{}, {"relative_threshold": 0.9}])
def test_averages_without_detail_have_no_score_whatever_the_threshold(project, rule):
    flat = np.ones_like(averages().numpy())
    make_run(Path("flat"))
    write_mrc(Path("flat/run_it005_classes.mrcs"), flat, pixel_size=PIXEL)
    write_mrc(Path("flat.mrcs"), flat[:2], pixel_size=PIXEL)

    with pytest.raises(
        DataError,
        match=r"class averages must vary inside the mask to have a score; got 4 flat averages\. "
        r"Look at run/class_scores\.png, then choose with --classes and --overwrite, or classify",
    ):
        select("run", source="flat", **rule)
    with pytest.raises(DataError, match=r"got 2 flat averages\. Give averages that hold images\."):
        select("stack", source="flat.mrcs", **rule)

    assert Path("run/class_scores.png").exists()
    chosen = select("run", source="flat", classes="2", overwrite=True)  # the remedy works
    assert chosen["n_particles_selected"] == COUNTS[1]


@pytest.fixture
def heads(monkeypatch):
    """Figures of the galleries, as they are drawn."""
    found = []
    draw = score_gallery.draw_score_gallery
    monkeypatch.setattr(
        score_gallery,
        "draw_score_gallery",
        lambda *a, **k: found.append(figure := draw(*a, **k)) or figure,
    )
    return found


def test_particles_in_no_class_are_told_apart(project, heads):
    *_, kept, _ = told("sel", "--classes", "1,2")

    both = "(107 in classes, 10 in none)"
    assert kept == f"Kept 2 of 4 classes with 70 of 117 particles {both}."
    (figure,) = heads
    head = " ".join(t.get_text() for t in figure.texts)
    assert f"2 of 4 classes with 70 of 117 particles {both} selected by hand" in head
    values = json.loads(Path("sel/result.json").read_text())
    assert (values["n_particles"], values["n_particles_in_classes"]) == (117, 107)


def test_a_bare_stack_is_said_to_be_judged_from_its_pictures(project, heads):
    write_mrc(Path("averages.mrcs"), averages().numpy(), pixel_size=PIXEL)

    words = ("averages.mrcs", "--out", "bare", "--weights", "weights.npz", "--minimum-score", "0")
    of_stack = CliRunner().invoke(select_app, ["classes", *words])
    of_run = told("sel", "--minimum-score", 0)

    sentence = "Judged from the pictures alone"
    assert of_stack.exit_code == 0, of_stack.output
    assert sentence in of_stack.stdout
    assert sentence not in " ".join(of_run)
    head, other = (" ".join(t.get_text() for t in figure.texts) for figure in heads)
    assert f"{sentence}. Below each: score" in head
    assert sentence not in other
    assert head.startswith(f"{project.name}/averages.mrcs ")
    assert other.startswith("Class2D/job003 ")
    written = {p.name for p in Path("bare").iterdir()} - {"job.json", ".lock"}
    assert set(json.loads(Path("bare/job.json").read_text())["results"]) == written


def test_a_class_just_below_the_threshold_is_not_shown_at_it(project):
    scores = [c["score"] for c in select("all", minimum_score=0)["classes"] if c["score"]]
    first, second = scores[:2]
    threshold = float(np.nextafter(second, 1))  # just above the score of the second class

    table = told("sel", "--minimum-score", repr(threshold))

    shown = {line.split()[3]: [] for line in table[1:5]}
    for line in table[1:5]:
        shown[line.split()[3]].append(float(line.split()[1]))
    assert (len(shown["yes"]), len(shown["no"])) == (1, len(scores) - 1)
    assert min(shown["yes"]) >= threshold > max(shown["no"])
    record = {c["number"]: c for c in json.loads(Path("sel/result.json").read_text())["classes"]}
    ordered = sorted((c["score"] for c in record.values() if c["score"]), reverse=True)
    assert ordered == [first, second, *scores[2:]]
    for one, other in itertools.pairwise(ordered):
        assert one > other  # all digits are there
    assert sum(s >= threshold for s in ordered) == 1


def test_the_warning_of_a_run_without_ctf_is_true(project):
    make_run(Path("no_ctf"), corrects_ctf=False)

    warnings = select(source="no_ctf", classes="1")["warnings"]

    assert "has learned mostly from averages that were corrected" in warnings[0]
