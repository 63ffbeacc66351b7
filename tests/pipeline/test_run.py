from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import ParameterError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline import pickers, report_sections
from cryopick.pipeline.evaluate import evaluate_pick_files
from cryopick.pipeline.report_sample import choose_over_range
from cryopick.pipeline.run import box_size_for, run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_particles, write_micrographs

PIXEL_SIZE, DIAMETER = 5.0, 150.0
PARAMETERS = RunParameters(min_diameter=130, max_diameter=170)


def field(rng, centres):
    rows, columns = np.mgrid[:320, :400]
    pixels = rng.normal(size=(320, 400))
    for x, y in centres:
        pixels -= 0.8 * (np.hypot(rows - y, columns - x) < DIAMETER / PIXEL_SIZE / 2)
    return pixels.astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three fields of dark discs and one of noise, with their truth."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(8)
    grid = np.array([(x, y) for x in (60, 140, 220, 300) for y in (70, 160, 250)], float)
    truth = {}
    for name, count in (("a.mrc", 12), ("b.mrc", 9), ("c.mrc", 5), ("noise.mrc", 0)):
        centres = (grid + rng.uniform(-8, 8, grid.shape))[:count]
        write_mrc(folder / name, field(rng, centres), pixel_size=PIXEL_SIZE)
        truth[name] = {"particles": centres.tolist()}
    content = {"diameter": DIAMETER, "apix": PIXEL_SIZE, "micrographs": truth}
    (folder / "truth.json").write_text(json.dumps(content))
    rows = pd.DataFrame({"micrograph": list(truth), "optics_group": 1})
    rows = rows.assign(defocus_u=[1e4, 1.5e4, 2e4, 2.5e4], defocus_v=1e4, defocus_angle=0.0)
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [PIXEL_SIZE], "voltage": [300.0]})
    optics = optics.assign(spherical_aberration=2.7, amplitude_contrast=0.1)
    write_micrographs(folder / "micrographs.star", Micrographs(rows=rows, optics=optics))
    return folder


def run(data, out, *, inputs=None, parameters=PARAMETERS, **options):
    return run_project(
        inputs or [str(data / "micrographs.star")],
        out,
        parameters=parameters,
        compute=ComputeParameters(workers=1, threads=1),
        **options,
    )


@pytest.fixture(scope="module")
def project(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("project"))


def test_a_run_finds_the_particles_and_extracts_them_white(project, data):
    scores = evaluate_pick_files(project.folder / "pick", data / "truth.json").picks.total

    assert scores.recall > 0.8
    assert scores.precision > 0.8
    particles = read_particles(project.folder / "extract" / "particles.star")
    images = read_mrc(project.folder / "extract" / particles.rows["image"].iloc[0].split("/")[-1])
    middle = images.shape[-1] // 2
    disc, rim = images[:, middle - 5 : middle + 6, middle - 5 : middle + 6], images[:, :3]
    assert disc.mean() > rim.mean() + 0.6
    assert images.shape[-1] == box_size_for(170, pixel_size=PIXEL_SIZE)


def test_the_report_shows_every_part(project):
    page = project.report.read_text()

    for title in ("Micrographs", "Scores", "Data set", "Particles", "How it was made"):
        assert f"<h2>{title}</h2>" in page
    assert project.report_problems == []
    assert f"<title>Particles of {project.folder.name}</title>" in page
    assert "min diameter</dt><dd>130 Å" in page
    assert page.count('<figure class="field">') == 4
    drawn = page.count("<circle")
    assert drawn == project.picking.to_dict()["n_picks"]


def test_the_same_run_again_keeps_its_results_and_writes_the_report_anew(data, tmp_path):
    first = run(data, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mrcs")}
    first.report.unlink()

    second = run(data, tmp_path)

    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mrcs")}
    assert second.report.exists()
    assert second.to_dict() == first.to_dict()


def test_other_parameters_are_refused_unless_overwritten(data, tmp_path):
    run(data, tmp_path)
    other = RunParameters(min_diameter=100, max_diameter=170)

    with pytest.raises(ProjectError, match="min_diameter 130"):
        run(data, tmp_path, parameters=other)
    assert run(data, tmp_path, parameters=other, overwrite=True).picking.picked


def test_a_broken_micrograph_is_listed_and_the_rest_goes_on(data, tmp_path):
    whole = (data / "a.mrc").read_bytes()
    for name in ("a.mrc", "cut.mrc"):
        (tmp_path / name).write_bytes(whole if name == "a.mrc" else whole[: len(whole) // 2])
    (tmp_path / "constant.mrc").write_bytes(b"")
    write_mrc(tmp_path / "constant.mrc", np.zeros((320, 400), np.float32), pixel_size=PIXEL_SIZE)

    words = ["run", str(tmp_path / "*.mrc"), "--out", str(tmp_path / "project")]
    words += ["--min-diameter", "130", "--max-diameter", "170", "--workers", "1", "--json"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == EXIT_SOME_FAILED
    found = json.loads(result.stdout)
    refused = [name.split("/")[-1] for name in found["pick"]["failed"]]
    assert refused == ["constant.mrc", "cut.mrc"]
    assert found["extract"]["n_particles"] > 5
    page = (tmp_path / "project" / "report.html").read_text()
    assert "<h2>Refused</h2>" in page
    assert re.search(r"cut\.mrc must hold [\d,]+ data bytes", page)


def test_no_pick_at_all_gives_a_report_that_says_so(data, tmp_path, monkeypatch):
    def find_nothing(*_, **__):
        nothing = np.zeros(0)
        return FieldPicks(nothing, nothing, nothing, nothing, 4.0, 1.0, {})

    monkeypatch.setattr(pickers, "pick_log", find_nothing)
    result = run(data, tmp_path)

    assert result.extraction is None
    assert result.report_problems == []
    assert "No micrograph gave a pick" in result.report.read_text()


def test_a_fault_of_drawing_is_told_and_the_picks_stay(data, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(report_sections, "scores_section", fail)
    result = run(data, tmp_path)

    assert result.report_problems == ["A part of the report could not be drawn: no font"]
    assert "<h2>Micrographs</h2>" in result.report.read_text()
    assert result.extraction.n_particles > 0


def test_particles_may_be_shrunk_and_the_box_chosen(data, tmp_path):
    parameters = RunParameters(min_diameter=130, max_diameter=170, box_size=64, rescale=32)

    result = run(data, tmp_path, parameters=parameters)

    assert result.extraction.image_size == 32
    assert result.extraction.pixel_sizes == [10.0]


def test_contradicting_parameters_are_refused():
    with pytest.raises(ParameterError, match="min_diameter must be at most max_diameter"):
        RunParameters(min_diameter=200, max_diameter=100)
    with pytest.raises(ParameterError, match="rescale must be at most the box size"):
        RunParameters(min_diameter=100, max_diameter=200, box_size=64, rescale=128)


@pytest.mark.parametrize(("count", "most"), [(1, 12), (5, 12), (12, 12), (1000, 12), (3, 2)])
def test_fields_are_chosen_from_the_fullest_to_the_emptiest(count, most):
    counts = np.random.default_rng(count).permutation(count)

    chosen = counts[choose_over_range(counts.tolist(), most=most)]

    assert len(chosen) == min(count, most)
    assert chosen[0] == count - 1
    assert chosen[-1] == 0
    assert (np.diff(chosen) < 0).all()
