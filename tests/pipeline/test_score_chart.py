"""The scores of a picking job: said in its files, drawn in its chart, read by other commands."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import pick_network
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.network_picker import make_network_picker
from cryopick.pipeline.pick_models import read_model
from cryopick.pipeline.pickers import BlobPicker, LogPicker, make_template_picker
from cryopick.pipeline.picking import pick_micrographs
from cryopick.report.figures import figure_to_png
from cryopick.report.score_histogram import FieldScores, count_scores, draw_scores
from cryopick.tables.pick_scores import PROBABILITY, RELION_FIGURE, Z_SCORE, read_pick_score

SIZES = {"min_diameter": 100.0, "max_diameter": 140.0}


def discs(seed, *, count=6, side=400):
    """Noise with dark discs of 120 A at 2 A/px."""
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((side, side), np.float32)
    y, x = np.mgrid[:side, :side]
    for place in rng.uniform(60, side - 60, (count, 2)):
        field[(y - place[0]) ** 2 + (x - place[1]) ** 2 < 30**2] -= 0.5
    return field


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_mrc(tmp_path / f"raw/m{seed}.mrc", discs(seed), pixel_size=2.0)
    return tmp_path


def template_picker(folder):
    y, x = np.mgrid[:40, :40] - 20
    disc = (np.hypot(y, x) < 15).astype(np.float32)
    write_mrc(folder / "template.mrcs", disc[None], pixel_size=4.0)
    parameters = TemplateParameters(diameter=120)
    return make_template_picker(folder / "template.mrcs", parameters=parameters)


PICKERS = {
    "log": (lambda _: LogPicker(parameters=LogParameters(**SIZES)), Z_SCORE),
    "relion": (
        lambda _: LogPicker(parameters=LogParameters(**SIZES, mode="relion")),
        RELION_FIGURE,
    ),
    "blob": (lambda _: BlobPicker(parameters=BlobParameters(**SIZES)), Z_SCORE),
    "template": (template_picker, Z_SCORE),
    "network": (
        lambda _: make_network_picker(None, parameters=NetworkParameters(diameter=120)),
        PROBABILITY,
    ),
}


def pick(picker, out, inputs=("raw",)):
    compute = ComputeParameters(workers=1, threads=1)
    return pick_micrographs(list(inputs), out, picker=picker, compute=compute)


def pixels(content):
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("name", PICKERS)
def test_every_picker_says_what_its_scores_are_and_draws_all_of_them(raw, name):
    make, score = PICKERS[name]

    result = pick(make(raw), raw / "pick")

    files = sorted(raw.glob("pick/**/m*_autopick.star")) + sorted(raw.glob("pick/peaks/**/*.star"))
    assert len(files) == 4
    assert {read_pick_score(f) for f in [*files, raw / "pick/summary.star"]} == {score}
    fields = []
    for file, one in zip(files[2:], result.picked, strict=True):
        (rows,) = read_star(file).values()
        fom = rows["rlnAutopickFigureOfMerit"].to_numpy(float)
        assert (fom >= one.threshold).sum() == one.n_picks
        fields.append(FieldScores(fom, (fom >= one.threshold).astype(int), one.threshold))
    expected = figure_to_png(draw_scores(count_scores(fields, n_kinds=2), score=score))
    chart = (raw / "pick/scores.png").read_bytes()
    np.testing.assert_array_equal(pixels(chart), pixels(expected))


def test_the_chart_is_made_again_only_if_it_is_missing_or_shows_other_peaks(raw):
    picker = LogPicker(parameters=LogParameters(**SIZES))
    chart = raw / "pick/scores.png"
    pick(picker, raw / "pick")
    first, made = chart.read_bytes(), chart.stat().st_mtime_ns

    pick(picker, raw / "pick")
    assert chart.stat().st_mtime_ns == made

    chart.unlink()
    pick(picker, raw / "pick")
    assert chart.read_bytes() == first

    chart.write_bytes(first[: len(first) // 2])
    pick(picker, raw / "pick")
    assert chart.read_bytes() == first

    write_mrc(raw / "raw/m2.mrc", discs(2, count=3), pixel_size=2.0)
    pick(picker, raw / "pick")
    pick(picker, raw / "fresh")
    assert first != chart.read_bytes() == (raw / "fresh/scores.png").read_bytes()

    pick(picker, raw / "pick", ["raw/m0.mrc", "raw/m1.mrc"])
    assert chart.read_bytes() == first


def test_a_job_without_a_peak_has_no_chart(raw):
    picker = LogPicker(parameters=LogParameters(**SIZES))
    pick(picker, raw / "pick")
    assert (raw / "pick/scores.png").exists()
    for path in raw.glob("raw/*.mrc"):
        write_mrc(path, np.zeros((400, 400), np.float32), pixel_size=2.0)

    assert len(pick(picker, raw / "pick").failed) == 2
    assert not (raw / "pick/scores.png").exists()


def test_a_foreign_chart_is_not_written_over(raw):
    (raw / "pick").mkdir()
    (raw / "pick/scores.png").write_bytes(b"mine")

    result = CliRunner().invoke(app, ["pick", "log", "raw", "--out", "pick", *_SIZE_WORDS])

    assert result.exit_code == 1
    assert "scores.png of unknown origin" in str(result.exception)
    assert (raw / "pick/scores.png").read_bytes() == b"mine"


_SIZE_WORDS = ["--min-diameter", "100", "--max-diameter", "140", "--workers", "1"]


def test_a_selection_of_picks_keeps_the_meaning(raw):
    pick(LogPicker(parameters=LogParameters(**SIZES)), raw / "pick")

    words = ["select", "subset", "pick/autopick.star", "--by", "fom", "--min-value", "5"]
    result = CliRunner().invoke(app, [*words, "--out", "better"])

    assert result.exit_code == 0, result.output
    (file, *_) = sorted(raw.glob("better/**/m*_autopick.star"))
    assert read_pick_score(file) == Z_SCORE


def test_the_plot_of_an_evaluation_shows_right_and_wrong_peaks(raw):
    picker = LogPicker(parameters=LogParameters(**SIZES))
    pick(picker, raw / "pick")
    rows = [r for f in sorted(raw.glob("pick/**/m*_autopick.star")) for r in read_star(f).values()]
    for number, picks in enumerate(rows):
        truth = picks[["rlnCoordinateX", "rlnCoordinateY"]].iloc[::2]
        write_truth(raw / f"truth/m{number}.star", truth)

    words = ["evaluate", "picks", "pick", "--truth", "truth", "--diameter", "120"]
    words += ["--pixel-size", "2", "--plot-scores", "judged.png"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    assert "judged.png" in result.output
    seen = {tuple(c) for c in pixels((raw / "judged.png").read_bytes()).reshape(-1, 3)}
    assert {(0x21, 0x72, 0x8C), (0xC8, 0x55, 0x3D), (0xED, 0xC2, 0xB8)} <= seen  # and left out


def test_picks_without_scores_have_no_histogram(raw):
    for folder in ("truth", "bare"):
        write_truth(raw / folder / "m0.star", pd.DataFrame({"rlnCoordinateX": [9.0], "y": [8.0]}))

    words = ["evaluate", "picks", "bare", "--truth", "truth", "--diameter", "120"]
    result = CliRunner().invoke(app, [*words, "--pixel-size", "2", "--plot-scores", "judged.png"])

    assert result.exit_code == 1
    assert "plot_scores must come with picks that have scores" in str(result.exception)


def write_truth(path, rows):
    table = rows.set_axis(["rlnCoordinateX", "rlnCoordinateY"], axis=1)
    lines = ["data_", "", "loop_", *(f"_{c}" for c in table)]
    lines += [f"{x} {y}" for x, y in table.to_numpy()]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([*lines, "", ""]))


@pytest.mark.parametrize("prior", [0.02, 0.336, 0.95])
def test_a_map_of_probabilities_holds_the_score_of_each_peak(prior):
    model, _ = read_model(None)
    field = torch.from_numpy(discs(1, count=4))
    parameters = NetworkParameters(diameter=120, write_fom_maps=True)

    found = pick_network(
        field, pixel_size=2.0, parameters=parameters, model=replace(model, prior=prior)
    )

    assert len(found.fom) > 3
    chance = found.maps["fom"]
    scale = chance.shape[0] / field.shape[0]
    for x, y, fom in zip(found.x, found.y, found.fom, strict=True):
        row, column = (round(scale * (v + 0.5) - 0.5) for v in (y, x))
        around = chance[max(0, row - 5) : row + 6, max(0, column - 5) : column + 6]
        assert np.abs(around - fom).min() < 1e-6
    assert chance.min() >= 0
    assert chance.max() <= 1
