"""``cryopick ctf estimate`` from the command line: sentences, exit codes, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.errors import CryopickError
from cryopick.io.mrc import write_mrc

_OPTIONS = ("--voltage", "300", "--spherical-aberration", "2.7", "--out", "ctf")
_OPTIONS += ("--workers", "1", "--threads", "1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``rings.mrc`` of 15,000 A defocus, and ``noise.mrc``."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(4)
    shape = (800, 800)
    ctf = evaluate_ctf(
        shape,
        pixel_size=1.5,
        defocus_u=15200.0,
        defocus_v=14800.0,
        defocus_angle=30.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
    )[0].numpy()
    rings = np.fft.irfft2(np.fft.rfft2(draw.normal(size=shape)) * ctf, s=shape)
    noise = draw.normal(size=shape)
    write_mrc(tmp_path / "noise.mrc", noise.astype(np.float32), pixel_size=1.5)
    write_mrc(tmp_path / "rings.mrc", (rings + noise).astype(np.float32), pixel_size=1.5)
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, ["ctf", "estimate", *words])


def test_it_says_what_it_found_and_how_many_are_not_trusted(folder):
    result = call("*.mrc", *_OPTIONS)

    assert result.exit_code == 0, result.output
    assert "CTF of 2 micrographs: ctf/micrographs_ctf.star" in result.stdout
    assert "Median defocus 150" in result.stdout
    assert "1 of 2 micrographs show no rings that can be trusted" in result.stderr


def test_json_is_one_object_with_the_numbers(folder):
    found = json.loads(call("*.mrc", *_OPTIONS, "--json").stdout)

    assert found["n_micrographs"] == 2
    assert found["n_trusted"] == 1
    assert found["not_trusted"] == ["noise.mrc"]
    assert found["median_defocus"] == pytest.approx(15000, abs=40)


def test_a_refused_micrograph_is_a_sentence_and_exit_code_3(folder):
    write_mrc(folder / "flat.mrc", np.ones((800, 800), np.float32), pixel_size=1.5)

    result = call("*.mrc", *_OPTIONS)

    assert result.exit_code == EXIT_SOME_FAILED
    assert "Refused flat.mrc: flat.mrc must have contrast; got 1 in every pixel" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--out", "ctf"), "MICROGRAPHS must say the voltage of the microscope; got none"),
        (
            (*_OPTIONS, "--voltage", "300000"),
            "say the voltage of the microscope in kV, from 10 to 5000; got 300000. "
            "Give it with --voltage",
        ),
        ((*_OPTIONS, "--min-defocus", "60000"), "min_defocus must be below max_defocus (50000 A)"),
        ((*_OPTIONS, "--pixel-size", "7", "--max-defocus", "9000"), "max_defocus must put 3 rings"),
        ((*_OPTIONS, "--tile-size", "63"), "tile_size must be at least 64 px; got 63 px"),
        ((*_OPTIONS, "--tile-size", "1024"), ""),
    ],
)
def test_bad_input_is_one_sentence(folder, words, sentence):
    result = call("rings.mrc", *words)

    if sentence:
        assert isinstance(result.exception, CryopickError)
        assert sentence in str(result.exception)
    else:
        assert result.exit_code == EXIT_SOME_FAILED
        assert "as large as a tile, 1024 px; got 800 x 800 px" in result.stderr
    assert not (folder / "ctf" / "micrographs_ctf.star").exists() or not sentence


def test_a_phase_shift_is_searched_only_when_asked_for(folder):
    call("rings.mrc", *_OPTIONS)
    plain = (folder / "ctf" / "micrographs_ctf.star").read_text()
    call("rings.mrc", *_OPTIONS, "--phase-shift", "--max-phase-shift", "60", "--overwrite")
    searched = (folder / "ctf" / "micrographs_ctf.star").read_text()

    assert "rlnPhaseShift" not in plain
    assert "rlnPhaseShift" in searched
