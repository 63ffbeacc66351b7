"""The ring of ice in the table of a CTF job, and as a limit on fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star

PIXEL_SIZE = 1.2  # A


def write_field(path, *, ring, seed):
    """White noise whose power between 3.95 and 3.5 A is so many times that beside it."""
    side = 768
    transform = np.fft.rfft2(np.random.default_rng(seed).normal(size=(side, side)))
    fy, fx = np.fft.fftfreq(side, PIXEL_SIZE)[:, None], np.fft.rfftfreq(side, PIXEL_SIZE)
    frequency = np.hypot(fy, fx)
    is_ring = (frequency > 1 / 3.95) & (frequency < 1 / 3.5)
    pixels = np.fft.irfft2(transform * np.where(is_ring, np.sqrt(ring), 1), s=(side, side))
    write_mrc(Path(path), pixels.astype(np.float32), pixel_size=PIXEL_SIZE)


def call(*words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def test_fields_of_thick_ice_are_seen_in_the_table_and_rejected_by_a_limit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    for number, ring in enumerate((1.0, 3.0, 1.4)):
        write_field(f"raw/{number}.mrc", ring=ring, seed=number)
    lens = ("--voltage", "300", "--spherical-aberration", "2.7")
    call("run", "raw", "--out", "project", "--until", "ctf", *lens, "--diameter", "180")

    table = read_star(Path("project/ctf/micrographs_ctf.star"))["micrographs"]
    assert list(table["cryopickIceRing"]) == pytest.approx([1.0, 3.0, 1.4], rel=0.05)
    said = call("session", "reject", "project", "ice_ring", "--above", "1.2")
    assert said == "1 of 3 micrographs are accepted.\n"
