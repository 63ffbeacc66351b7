"""``cryopick class2d stable`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.class2d_stable import _lines as lines_of

QUICK = (
    "--img-per-grp 60 --target-radius 11 --target-nx 32 --init-iter 1 --maxit 4 --stab-ali 2 "
    "--indep-run 2 --main-iter-limit 1 --threads 1"
)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    words = "simulate particles --number 130 --box-size 32 --pixel-size 8 --snr 0.5 --out stack"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    return tmp_path / "stack" / "particles.star"


def test_what_is_printed_is_what_is_in_the_folder(stack: Path, tmp_path: Path) -> None:
    words = f"class2d stable {stack} --diameter 180 --out out {QUICK}".split()

    spoken = CliRunner().invoke(app, words)
    told = CliRunner().invoke(app, [*words, "--json"])

    assert spoken.exit_code == told.exit_code == 0, spoken.output
    values = json.loads(told.stdout)
    kept = json.loads((tmp_path / "out" / "result.json").read_text())
    assert values == kept
    assert f"{kept['n_classes']} classes hold {kept['n_accounted']:,} of 130" in spoken.output
    for name in values["files"]:
        assert (tmp_path / "out" / name).exists(), name
    assert "out/report.html" in spoken.output


def test_what_is_not_known_of_a_class_is_a_dash() -> None:
    known = {"number": 1, "n_particles": 68, "reproducibility": 0.57, "pixel_error": None}
    values = {
        "classes": [known | {"resolution": None}], "n_left_out": 0, "n_classes": 1,
        "n_accounted": 68, "n_particles": 120, "accounted": 68 / 120, "averages": "averages.mrcs",
        "accounted_by_generation": [0.5], "particles": "particles.star", "report": "report.html",
    }  # fmt: skip
    row = lines_of(values)[1].split()
    assert row == ["1", "68", "0.57", "-", "-"]


def test_gpu_info_needs_nothing_else() -> None:
    result = CliRunner().invoke(app, ["class2d", "stable", "--gpu-info"])

    assert result.exit_code == 0
    assert "--device" in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--device cuda:0,cuda:1", "device must be one device for this command"),
        (
            "--gpu-memory-use 0.5",
            "gpu_memory_use must come with a GPU of this machine; got --device cpu.",
        ),
        ("--vpp", "vpp must be off unless --ctf is none; got on."),
        ("--fl 0.5 --fh 0.2", "fl must be at most fh (0.2 1/px); got 0.5 1/px."),
        ("--minimum-grp-size 70", "minimum_grp_size must be at most img_per_grp (60); got 70."),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    words: str, sentence: str, tmp_path: Path
) -> None:
    given = f"class2d stable none.star --diameter 140 --out {tmp_path}/out {QUICK} {words}"

    result = CliRunner().invoke(app, given.split())

    assert result.exit_code != 0
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()
