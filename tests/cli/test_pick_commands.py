"""``cryopick pick blob`` and ``pick template`` from the command line: words, JSON, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import CryopickError
from cryopick.io.mrc import read_mrc_header, write_mrc

_ALONE = ("--workers", "1", "--threads", "1")
_SIZES = ("--min-diameter", "130", "--max-diameter", "170")
_SENTENCE = re.compile(r".+ must .+; got .+\. .+\.")


@pytest.fixture
def fields(tmp_path, monkeypatch):
    """Two fields of 6 A/px with nine dark discs of 150 A each, and a disc as a template."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(3)
    y, x = np.mgrid[:400, :400]
    for name in ("one", "two"):
        field = draw.normal(size=(400, 400))
        for row in (70, 200, 330):
            for column in (70, 200, 330):
                field -= 1.5 * (np.hypot(y - row, x - column) < 12.5)
        write_mrc(Path(f"{name}.mrc"), field.astype(np.float32), pixel_size=6.0)
    y, x = np.mgrid[:48, :48] - 24
    disc = np.clip(12.5 - np.hypot(y, x) + 0.5, 0, 1).astype(np.float32)
    write_mrc(Path("disc.mrcs"), disc[None], pixel_size=6.0)
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, ["pick", *words, *_ALONE])


def blob(*words, micrographs="*.mrc"):
    return call("blob", micrographs, "--out", "blob", *words)


def template(*words, micrographs="*.mrc", templates="disc.mrcs"):
    given = ("--templates", templates, "--diameter", "150", "--out", "template")
    return call("template", micrographs, *given, *words)


def refusal(result):
    assert isinstance(result.exception, CryopickError), result.output
    sentence = str(result.exception)
    assert _SENTENCE.fullmatch(sentence), sentence
    return sentence


def test_blobs_are_found_and_counted(fields):
    result = blob(*_SIZES, "--ctf", "ignore")

    assert result.exit_code == 0, result.output
    assert "18 picks in 2 micrographs, 9 each on average: blob/autopick.star" in result.stdout
    assert "no lens" not in result.stderr


def test_json_is_one_object_with_the_numbers(fields):
    found = json.loads(blob(*_SIZES, "--ctf", "ignore", "--json").stdout)

    assert found["n_picks"] == 18
    assert found["n_without_ctf"] == 0


def test_a_field_without_rings_is_said_to_be_searched_without_a_lens(fields):
    result = blob(*_SIZES, "--voltage", "300", "--spherical-aberration", "2.7")

    assert result.exit_code == 0
    assert "2 micrographs have no CTF that can be trusted" in result.stderr


def test_templates_are_found_and_kept(fields):
    found = json.loads(template("--ctf", "ignore", "--low-pass", "25", "--json").stdout)

    assert found["n_picks"] == 18
    assert read_mrc_header(Path("template/templates.mrcs")).shape[0] == 1


def test_a_field_that_is_broken_does_not_stop_the_others(fields):
    Path("two.mrc").write_bytes(Path("two.mrc").read_bytes()[:5000])

    result = blob(*_SIZES, "--ctf", "ignore")

    assert result.exit_code == EXIT_SOME_FAILED
    assert "9 picks in 1 micrographs" in result.stdout
    assert "Refused two.mrc" in result.stderr


@pytest.mark.parametrize("words", [(), ("--ctf", "estimate"), ("--voltage", "300")])
def test_an_unknown_lens_is_asked_for(fields, words):
    sentence = refusal(blob(*_SIZES, *words))

    assert "must say the" in sentence
    assert "--spherical-aberration" in sentence or "--voltage" in sentence


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--min-diameter", "130"), "be given with max_diameter"),
        (("--min-diameter", "200", "--max-diameter", "100"), "be at most max_diameter"),
        ((*_SIZES, "--shapes", "cube"), "be among ball, shell, disc, ring, ellipse"),
        ((*_SIZES, "--ctf", "table"), "have a column for defocus_u"),
    ],
)
def test_choices_of_blobs_that_cannot_be_are_refused(fields, words, part):
    lens = () if "table" in words else ("--ctf", "ignore")

    assert part in refusal(blob(*words, *lens))


def test_templates_that_cannot_be_are_refused(fields):
    write_mrc(Path("bare.mrcs"), np.eye(32, dtype=np.float32)[None], pixel_size=0.0)
    Path("words.star").write_text("no table here")

    assert "template_pixel_size must be known" in refusal(template(templates="bare.mrcs"))
    assert "missing.mrcs must" in refusal(template(templates="missing.mrcs"))
    assert "words.star, line 1, must" in refusal(template(templates="words.star"))
    scale = ("--template-pixel-size", "2")
    assert "from one to 6 diameters wide (150 A); got 96 A" in refusal(template(*scale))
    assert "got 2400 A" in refusal(template(templates="one.mrc"))
    assert "be at most half the diameter" in refusal(template("--low-pass", "100"))


def test_a_stopped_run_goes_on_and_another_choice_is_refused(fields):
    first = json.loads(blob(*_SIZES, "--ctf", "ignore", "--json", micrographs="one.mrc").stdout)
    both = json.loads(blob(*_SIZES, "--ctf", "ignore", "--json").stdout)

    assert (first["n_micrographs"], both["n_micrographs"]) == (1, 2)
    sentence = refusal(blob(*_SIZES, "--ctf", "ignore", "--threshold", "6"))
    assert "threshold None instead of 6.0" in sentence
    again = blob(*_SIZES, "--ctf", "ignore", "--threshold", "6", "--overwrite")
    assert again.exit_code == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("network", "*.mrc", "--threshold", "1.5"), "threshold must be at most 1"),
        (("network", "*.mrc", "--model", "disc.mrcs"), "disc.mrcs must"),
        (("network", "*.mrc", "--model", "none.npz"), "none.npz must"),
        (("train", "none.star", "--from-scratch"), "none.star must"),
        (("train", "one.mrc", "--from-scratch", "--validation-share", "0.9"), "validation_share"),
        (("train", "none.star", "--model", "disc.mrcs"), "disc.mrcs must"),
    ],
)
def test_a_network_is_refused_what_it_cannot_use(fields, words, part):
    assert part in refusal(call(*words, "--diameter", "150", "--out", "out"))
    assert not Path("out").exists()
