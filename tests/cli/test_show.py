from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import CryopickError
from cryopick.io.mrc import write_mrc
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles, write_picks_file


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    write_mrc(tmp_path / "field.mrc", rng.normal(size=(150, 200)), pixel_size=4.0)
    write_mrc(tmp_path / "stack.mrcs", rng.normal(size=(7, 16, 16)), pixel_size=4.0)
    write_mrc(tmp_path / "volume.mrc", rng.normal(size=(12, 12, 12)), pixel_size=4.0)
    picks = pd.DataFrame({"x": [50.0, 150.0], "y": [40.0, 100.0], "fom": [9.0, 5.0]})
    write_picks_file(tmp_path / "picks" / "field_autopick.star", picks.assign(diameter=80.0))
    rows = pd.DataFrame(
        {"image": "stack.mrcs", "image_index": range(7), "optics_group": 1, "defocus_u": range(7)}
    )
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [4.0], "box_size": [16]})
    write_particles(tmp_path / "particles.star", Particles(rows=rows, optics=optics))
    return tmp_path


def show(*words):
    result = CliRunner().invoke(app, ["show", *map(str, words)])
    if isinstance(result.exception, CryopickError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), float)


def n_coloured(path):
    picture = pixels(path)
    return int((np.ptp(picture, axis=2) > 60).sum())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("field.mrc", "field.mrc, 200 x 150."),
        ("stack.mrcs", "7 of 7 images of stack.mrcs."),
        ("volume.mrc", "Central slices of volume.mrc, 12 x 12 x 12."),
        ("particles.star", "7 of 7 images of particles.star."),
        ("picks/field_autopick.star", "Histograms of rlnCoordinateX"),
    ],
)
def test_any_file_gives_a_picture_and_a_sentence(files, name, sentence):
    out = show(name, "--out", "picture.png")

    assert out.startswith(sentence)
    assert min(pixels("picture.png").shape[:2]) > 200


def test_picks_are_drawn_in_colour_over_a_grey_micrograph(files):
    show("field.mrc", "--out", "bare.png")
    out = show("field.mrc", "--picks", "picks", "--out", "picked.png")

    assert "2 picks" in out
    assert n_coloured("bare.png") == 0
    assert n_coloured("picked.png") > 500


def test_scores_are_coloured_between_the_two_given(files):
    yellow, blue_green = (253, 231, 37), (45, 112, 142)

    def share_of(colour, name):
        away = np.abs(pixels(name)[..., :3].astype(int) - colour).max(axis=2)
        return int((away < 12).sum())

    circles = ("field.mrc", "--picks", "picks")  # scores 5 and 9
    show(*circles, "--lowest-score", 20, "--highest-score", 30, "--out", "low.png")
    show(*circles, "--lowest-score", 1, "--highest-score", 2, "--out", "high.png")

    assert share_of(blue_green, "low.png") > share_of(blue_green, "high.png") + 300
    assert share_of(yellow, "high.png") > share_of(yellow, "low.png") + 300


def test_a_stack_is_shown_up_to_max_images(files):
    assert "3 of 7 images" in show("stack.mrcs", "--max-images", 3, "--out", "p.png")


def test_columns_are_named_with_or_without_their_prefix(files):
    for name in ("DefocusU", "rlnDefocusU"):
        assert "Histograms of rlnDefocusU over 7 rows" in show(
            "particles.star", "--column", name, "--out", "p.png"
        )


def test_json_names_the_picture(files):
    assert json.loads(show("field.mrc", "--out", "p.png", "--json")) == {"picture": "p.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["field.mrc", "--out", "p.jpg"], "out must end in .png"),
        (["missing.mrc", "--out", "p.png"], "no such file"),
        (["field.mrc", "--column", "x", "--out", "p.png"], "column must come with a table"),
        (["stack.mrcs", "--picks", "picks", "--out", "p.png"], "picks must come with a micrograph"),
        (["particles.star", "--picks", "picks", "--out", "p.png"], "picks must come with a micro"),
        (["field.mrc", "--lowest-score", "1", "--out", "p.png"], "must come with picks that have"),
        (
            ["field.mrc", "--lowest-score", "2", "--highest-score", "1", "--out", "p.png"],
            "highest_score must be above --lowest-score",
        ),
        (["particles.star", "--column", "Nothing", "--out", "p.png"], "must have a column of num"),
        (["notes.txt", "--out", "p.png"], "must be an MRC, TIFF, PNG or JPEG file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(files, words, message):
    (files / "notes.txt").write_text("hello")

    with pytest.raises(CryopickError, match=message):
        show(*words)
    assert not (files / "p.png").exists()


def test_picks_of_another_micrograph_are_refused_by_name(files):
    write_picks_file(files / "other" / "a_autopick.star", pd.DataFrame({"x": [1.0], "y": [1.0]}))
    write_picks_file(files / "other" / "b_autopick.star", pd.DataFrame({"x": [1.0], "y": [1.0]}))

    with pytest.raises(CryopickError, match=r"must hold picks of field.mrc; got a.mrc, b.mrc"):
        show("field.mrc", "--picks", "other", "--out", "p.png")


def test_a_micrograph_without_numbers_is_still_shown(files):
    broken = np.full((64, 64), np.nan, np.float32)
    write_mrc(files / "nan.mrc", broken, pixel_size=1.0)

    assert "nan.mrc" in show("nan.mrc", "--out", "p.png")
