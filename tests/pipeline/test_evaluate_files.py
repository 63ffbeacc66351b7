from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.io.atomic import write_json
from cryopick.pipeline.evaluate import evaluate_pick_files, pair_names, read_truth
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import write_coordinate_files, write_micrographs, write_picks_file

NAMES = ["fields/a.mrc", "fields/b.mrc", "fields/empty.mrc"]


def positions(xy, fom=None):
    rows = pd.DataFrame(np.reshape(xy, (-1, 2)), columns=["x", "y"], dtype=float)
    return rows if fom is None else rows.assign(fom=np.asarray(fom, float))


@pytest.fixture
def job(tmp_path):
    """A picking job: one right and one false pick in a, nothing in b, one false pick in empty."""
    folder = tmp_path / "pick"
    picks = {
        NAMES[0]: positions([[100, 100], [300, 300]], [9, 6]),
        NAMES[1]: positions([], []),
        NAMES[2]: positions([[50, 50]], [5]),
    }
    extra = {NAMES[1]: positions([[200, 204]], [3])}
    files = []
    for name, rows in picks.items():
        stem = name.removesuffix(".mrc")
        files.append((name, str(folder / f"{stem}_autopick.star")))
        write_picks_file(folder / f"{stem}_autopick.star", rows)
        peaks = pd.concat([rows, extra[name]]) if name in extra else rows
        write_picks_file(folder / "peaks" / f"{stem}_peaks.star", peaks)
    write_coordinate_files(folder / "autopick.star", files)
    return folder


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.json"
    particles = {"a.mrc": [[100, 102]], "b.mrc": [[200, 200]], "empty.mrc": []}
    content = {
        "diameter": 100.0,
        "apix": 2.0,
        "micrographs": {n: {"particles": p} for n, p in particles.items()},
    }
    write_json(path, content)
    return path


def test_a_job_is_scored_by_its_picks_and_over_all_its_peaks(job, truth):
    result = evaluate_pick_files(job, truth).to_dict()

    assert (result["n_picks"], result["n_truth"], result["n_matched"]) == (3, 2, 1)
    assert result["n_peaks"] == 4
    assert result["average_precision"] == pytest.approx((1 + 2 / 4) / 2)
    assert (result["best_f1"], result["best_threshold"]) == (pytest.approx(2 / 3), 9)
    assert result["centring_error"] == pytest.approx(2 * 2.0)  # px of 2 A
    assert result["micrographs"]["empty.mrc"]["n_picks"] == 1
    json.dumps(result, allow_nan=False)


def test_a_file_of_picks_alone_is_scored_over_its_picks(job, truth):
    one = evaluate_pick_files(job / "fields" / "a_autopick.star", truth)

    assert one.peaks is one.picks
    assert one.picks.total.n_picks == 2
    assert one.picks.total.n_truth == 2  # b was not picked: its particle is missed


def test_truth_may_be_a_folder_of_coordinates(job, truth, tmp_path):
    folder = tmp_path / "coordinates"
    for name, entry in json.loads(truth.read_text())["micrographs"].items():
        write_picks_file(folder / name.replace(".mrc", ".star"), positions(entry["particles"]))

    result = evaluate_pick_files(job, folder, diameter=100.0, pixel_size=2.0)

    assert result.to_dict() == evaluate_pick_files(job, truth).to_dict()


def with_ignored(truth):
    """The truth of `truth`, and particles that need not be found under the two false picks."""
    content = json.loads(truth.read_text())
    content["micrographs"]["a.mrc"]["ignored"] = [[310, 300]]
    content["micrographs"]["empty.mrc"]["ignored"] = [[50, 60]]
    write_json(truth, content)
    return truth


def test_picks_of_particles_that_truth_lists_as_ignored_do_not_count(job, truth):
    result = evaluate_pick_files(job, with_ignored(truth)).to_dict()

    assert (result["n_picks"], result["n_ignored"], result["n_ignored_peaks"]) == (3, 2, 2)
    assert (result["precision"], result["recall"]) == (1, 1 / 2)
    assert result["average_precision"] == 1
    assert result["micrographs"]["empty.mrc"]["n_ignored"] == 1


def test_states_and_junk_of_a_truth_in_star_files_say_what_is_ignored(job, truth, tmp_path):
    folder = tmp_path / "truth"
    columns = {
        "a": positions([[100, 102], [310, 300]]).assign(cryopickState=["particle", "carbon"]),
        "b": positions([[200, 200]]),  # no column: all are particles
        "empty": positions([[50, 60]]).assign(is_junk=[1]),
    }
    for stem, rows in columns.items():
        write_picks_file(folder / f"{stem}_truth.star", rows)

    found = evaluate_pick_files(job, folder, diameter=100.0, pixel_size=2.0)

    assert found.to_dict() == evaluate_pick_files(job, with_ignored(truth)).to_dict()


def test_ignored_picks_have_a_column_in_the_printed_table(job, truth):
    ended = CliRunner().invoke(
        app, ["evaluate", "picks", str(job), "--truth", str(with_ignored(truth))]
    )

    lines = [line.split() for line in ended.stdout.splitlines()]
    column = lines[0].index("ignored")
    counts = {line[0]: line[column] for line in lines[1:5]}
    assert counts == {"a.mrc": "1", "b.mrc": "0", "empty.mrc": "1", "all": "2"}


def test_junk_in_the_truth_is_no_particle(tmp_path):
    rows = positions([[1, 1], [2, 2]]).assign(is_junk=[0, 1])
    write_picks_file(tmp_path / "a.star", rows)

    truth = read_truth(tmp_path / "a.star")

    assert (truth.rows["x"].tolist(), truth.ignored["x"].tolist()) == ([1], [2])


def test_pixel_sizes_come_from_the_table_that_was_picked(job, truth, tmp_path):
    table = tmp_path / "micrographs.star"
    rows = pd.DataFrame({"micrograph": NAMES, "optics_group": [1, 1, 1]})
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [4.0]})
    write_micrographs(table, Micrographs(rows=rows, optics=optics))
    write_json(job / "job.json", {"inputs": [str(table)]})
    bare = tmp_path / "bare"
    for name, entry in json.loads(truth.read_text())["micrographs"].items():
        write_picks_file(bare / name.replace(".mrc", ".star"), positions(entry["particles"]))

    from_job = evaluate_pick_files(job, bare, diameter=100.0)
    named = evaluate_pick_files(job / "autopick.star", bare, diameter=100.0, micrographs=table)

    assert from_job.picks.total.centring_error == pytest.approx(8.0)
    assert named.picks.total == from_job.picks.total


def test_picks_elsewhere_are_counted_and_left_out(job, truth):
    content = json.loads(truth.read_text())
    del content["micrographs"]["empty.mrc"]
    truth.write_text(json.dumps(content))

    result = evaluate_pick_files(job, truth)

    assert result.unmatched_micrographs == 1
    assert result.picks.total.n_picks == 2


def test_the_curve_is_drawn(job, truth, tmp_path):
    evaluate_pick_files(job, truth, plot=tmp_path / "curve.png")

    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_named(job, truth, tmp_path):
    write_picks_file(tmp_path / "bare" / "a.star", positions([[1, 1]]))
    write_picks_file(tmp_path / "other" / "z.star", positions([[1, 1]]))

    with pytest.raises(ParameterError, match="diameter must be given"):
        evaluate_pick_files(job, tmp_path / "bare")
    with pytest.raises(ParameterError, match="pixel_size must be known"):
        evaluate_pick_files(job, tmp_path / "bare", diameter=100.0)
    with pytest.raises(TableError, match=r"fields/a.mrc instead of z.mrc"):
        evaluate_pick_files(job, tmp_path / "other", diameter=100.0, pixel_size=1.0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"micrographs": 3}', '{"micrographs": {"a": {"particles": [1]}}}']
)
def test_a_broken_truth_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "truth.json"
    path.write_text(text)

    with pytest.raises(FormatError, match=r"truth.json must hold diameter"):
        read_truth(path)


def test_names_pair_by_path_before_they_pair_by_file_name():
    names = ["MotionCorr/job002/x/a.mrc", "y/a.mrc"]

    assert pair_names(names, ["y/a.mrc", "x/a.mrc"]) == {names[0]: "x/a.mrc", names[1]: "y/a.mrc"}
    assert pair_names(["p/a.mrc"], ["a.mrc"]) == {"p/a.mrc": "a.mrc"}
    assert pair_names(names, ["a.mrc"]) == {}  # which of the two it is cannot be known
