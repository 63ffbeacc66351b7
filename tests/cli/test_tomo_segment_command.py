"""``cryopick tomo segment`` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import CryopickError
from cryopick.io.mrc import write_mrc

QUICK = ("--max-num-neighborhoods-for-fitting", "3000", "--workers", "1", "--threads", "1")
FILE = """
dataset_name: set
inputs: [{tomogram: a.mrc, lower_z-slice_limit: 4, upper_z-slice_limit: 40}]
neighborhood_size: 5
feature_extraction_params: [{mode: gabor, num_neighborhoods_subsets: 3}, {mode: intensities}]
clustering_methods: [kmeans]
output_dir: results
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    volume = draw.normal(size=(48, 50, 52)).astype(np.float32)
    volume[20:30, 20:30, 20:30] -= 2
    write_mrc(tmp_path / "a.mrc", volume, pixel_size=8.0)
    write_mrc(tmp_path / "flat.mrc", np.ones((48, 50, 52), np.float32), pixel_size=8.0)
    (tmp_path / "parameters.yaml").write_text(FILE)
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, ["tomo", "segment", *words])


def test_a_yaml_file_is_all_that_is_needed(folder):
    result = call("parameters.yaml", *QUICK)

    assert result.exit_code == 0, result.output
    assert "Neighbourhood 5 voxels (40 A), smoothed by 2 voxels (16 A)." in result.stderr
    assert "num_neighborhoods_subsets 3" in result.stderr
    assert ", 63), " in result.stdout
    assert "intensities_kmeans: features of shape" in result.stdout
    assert ", 125), " in result.stdout
    assert "darker than the largest cluster" in result.stdout
    names = {p.name for p in (folder / "results" / "set").glob("*.mrc")}
    assert len(names) == 4


def test_a_dry_run_says_memory_and_time_and_writes_nothing(folder):
    result = call("parameters.yaml", "--dry-run")
    numbers = json.loads(call("parameters.yaml", "--dry-run", "--json").stdout)

    assert result.exit_code == 0, result.output
    assert "GiB of memory" in result.stdout
    assert "s of CPU time" in result.stdout
    assert numbers["n_voxels_for_fitting"] == 36 * 46 * 48
    assert numbers["block_bound_by"].startswith("num_neighborhoods_subsets 3")
    assert not (folder / "results").exists()


def test_tomograms_and_options_do_without_a_file(folder):
    words = (
        "a.mrc",
        "--out",
        "out",
        "--feature",
        "intensities",
        "--clustering",
        "kmeans",
        "--json",
    )
    record = json.loads(call(*words, *QUICK, "--blur", "12", "--neighborhood", "40").stdout)

    assert record["plan"]["blur_voxels"] == 1.5
    assert record["plan"]["neighborhood_voxels"] == 5
    assert [w["name"] for w in record["workflows"]] == ["intensities_kmeans"]


def test_a_refused_tomogram_is_a_sentence_and_exit_code_3(folder):
    result = call("a.mrc", "flat.mrc", "--out", "out", *QUICK)

    assert result.exit_code == EXIT_SOME_FAILED
    assert "Refused flat.mrc: flat.mrc must have contrast" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("none.mrc", "--out", "out"), "none.mrc must be a readable file; got no such file"),
        (("a.mrc",), "out must be given with tomograms"),
        (("a.mrc", "--out", "out", "--neighborhood-size", "4"), "must be odd"),
        (("a.mrc", "--out", "out", "--lower-z", "30", "--upper-z", "20"), "lower < upper"),
        (("a.mrc", "--out", "out", "--feature", "wavelets"), "one of ffts, gabor, intensities"),
        (("parameters.yaml", "a.mrc"), "inputs must be one YAML file alone"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(folder, words, sentence):
    result = call(*words)

    assert isinstance(result.exception, CryopickError)
    assert sentence in str(result.exception)
    assert not (folder / "out").exists()
