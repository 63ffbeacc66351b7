from __future__ import annotations

import json
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "tomogram"))
from density_world import VOXEL, f1, field_of_balls_and_dumbbells

from cryopick.cli.app import app
from cryopick.errors import CryopickError
from cryopick.pipeline import tomo_pick_task


def write_tomogram(path, volume):
    with mrcfile.new(path) as mrc:
        mrc.set_data(volume.astype(np.float32))
        mrc.voxel_size = VOXEL
    return path


def pick(*words):
    return CliRunner().invoke(
        app, ["tomo", "pick", *map(str, words), "--workers", "1", "--threads", "1"]
    )


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    volume, centres = field_of_balls_and_dumbbells((48, 96, 96), 6, seed=1, noise=1.5)
    return write_tomogram(tmp_path_factory.mktemp("tomo") / "a.mrc", volume), volume, centres


@pytest.fixture(scope="module")
def job(tomogram, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "pick"
    formats = "relion5,relion4,csv,imod,dynamo,copick,ndjson"
    result = pick(
        tomogram[0], "--out", folder, "--format", formats, "--box-size", 24, "--mask", "--json"
    )
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_positions_of_csv_are_those_of_the_particles(job, tomogram):
    table = pd.read_csv(job[0] / "particles.csv")

    assert f1(table[["z", "y", "x"]].to_numpy() / VOXEL, tomogram[2], within=3) == 1.0
    assert table["score"].is_monotonic_decreasing
    assert job[1]["n_picks"] == len(table)


def test_every_format_that_was_asked_for_is_there(job):
    names = {p.name for p in job[0].rglob("*")}

    assert {"particles.csv", "particles.tbl", "a.mod", "particles_relion5.star"} <= names
    assert all(Path(p).exists() for p in job[1]["coordinates"])


def test_boxes_hold_white_particles_in_their_middle(job):
    with mrcfile.open(job[0] / "boxes" / "a_boxes.mrcs") as mrc:
        assert mrc.is_volume_stack()
        boxes = np.array(mrc.data)
        assert float(mrc.voxel_size.x) == VOXEL
    assert mrcfile.validate(job[0] / "boxes" / "a_boxes.mrcs")

    middle = boxes[:, 5:19, 5:19, 5:19].mean((1, 2, 3))
    face = boxes[:, :3].mean((1, 2, 3))
    assert len(boxes) == job[1]["n_picks"]
    assert (middle > face + 0.08).all()


def test_the_mask_holds_the_particles_and_little_else(job, tomogram):
    with mrcfile.open(job[0] / "masks" / "a_mask.mrc") as mrc:
        mask = np.array(mrc.data) > 0

    balls = np.round(tomogram[2][::2]).astype(int)
    assert mask.shape == tomogram[1].shape
    assert mask[tuple(balls.T)].all()
    assert mask.mean() < 0.2


def test_the_report_shows_slices_and_kinds(job):
    page = (job[0] / "report.html").read_text()

    assert "z = " in page
    assert "diameter" in page
    assert str(job[0]) not in page


def test_started_again_nothing_is_done_twice(job, tomogram):
    ledger = (job[0] / "ledger.jsonl").read_bytes()
    formats = "relion5,relion4,csv,imod,dynamo,copick,ndjson"

    again = pick(tomogram[0], "--out", job[0], "--format", formats, "--box-size", 24, "--mask")

    assert again.exit_code == 0
    assert (job[0] / "ledger.jsonl").read_bytes() == ledger


def test_objects_of_a_segmentation_are_picked(tomogram, tmp_path):
    runner = CliRunner()
    words = ["tomo", "segment", str(tomogram[0]), "--out", str(tmp_path / "seg"), "--workers", "1"]
    assert runner.invoke(app, words).exit_code == 0

    found = pick(
        "--out", tmp_path / "pick", "--method", "segment", "--segmentation", tmp_path / "seg",
        "--instances", "mean-shift",
    )  # fmt: skip

    table = pd.read_csv(tmp_path / "pick" / "particles.csv")
    assert found.exit_code == 0, found.output
    assert f1(table[["z", "y", "x"]].to_numpy() / VOXEL, tomogram[2], within=5) > 0.9


def test_nothing_is_picked_in_segmented_noise(tmp_path):
    noise = np.random.default_rng(7).standard_normal((48, 64, 64))
    path = write_tomogram(tmp_path / "noise.mrc", noise)
    words = ["tomo", "segment", str(path), "--out", str(tmp_path / "seg"), "--workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0

    found = pick(
        "--out", tmp_path / "pick", "--method", "segment", "--segmentation", tmp_path / "seg",
        "--json",
    )  # fmt: skip

    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["n_picks"] == 0
    assert len(pd.read_csv(tmp_path / "pick" / "particles.csv")) == 0
    assert (tmp_path / "pick" / "particles.star").exists()


def test_evidence_in_a_file_gives_the_picks_of_that_in_memory(job, tomogram, tmp_path, monkeypatch):
    monkeypatch.setattr(tomo_pick_task, "_IN_MEMORY", 0)

    result = pick(tomogram[0], "--out", tmp_path / "out", "--format", "csv", "--no-report")

    assert result.exit_code == 0, result.output
    here, there = (pd.read_csv(f / "particles.csv") for f in (tmp_path / "out", job[0]))
    pd.testing.assert_frame_equal(here, there)
    assert not list((tmp_path / "out").glob("*evidence*"))


def test_sections_across_any_axis_are_those_of_the_volume(job, tomogram):
    with np.load(job[0] / "picks" / "a.npz") as stored:
        for axis, name in enumerate("zyx"):
            start = int(stored["sections"][axis])
            wanted = tomogram[1].take(np.arange(start, start + 5), axis).mean(axis)
            np.testing.assert_allclose(stored[f"picture_{name}"], wanted, atol=1e-4)


def test_one_bad_tomogram_is_refused_and_the_other_picked(tomogram, tmp_path):
    bad = write_tomogram(tmp_path / "flat.mrc", np.ones((48, 64, 64)))

    result = pick(bad, tomogram[0], "--out", tmp_path / "out", "--json")

    assert result.exit_code == 3
    assert "constant" in json.loads(result.stdout)["failed"][str(bad)]
    assert len(pd.read_csv(tmp_path / "out" / "particles.csv")) == len(tomogram[2])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--upper-z-slice", "60"], "48 sections"),
        (["--lower-z-slice", "9", "--upper-z-slice", "9"], "must be below upper_z_slice"),
        (["--format", "relion6"], "relion6"),
        (["--box-size", "25"], "even"),
        (["--method", "segment"], "tomo segment"),
        (["--segmentation", "nowhere"], "method matched"),
        (["--method", "segment", "--segmentation", "nowhere"], "segmentation.json"),
        (["--device", "cuda:99"], "device must be on this machine"),
    ],
)
def test_what_can_be_known_is_refused_before_any_work(words, sentence, tomogram, tmp_path):
    result = pick(tomogram[0], "--out", tmp_path / "out", *words)

    assert isinstance(result.exception, CryopickError)
    assert sentence in str(result.exception)
    assert not (tmp_path / "out" / "ledger.jsonl").exists()


def test_a_missing_tomogram_is_refused_before_any_work(tmp_path):
    result = pick(tmp_path / "none.mrc", "--out", tmp_path / "out")

    assert "no such file" in str(result.exception)
