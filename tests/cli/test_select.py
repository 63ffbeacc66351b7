"""``cryopick select subset`` from the command line, on tables of every kind."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryopick.cli.select import select_app
from cryopick.errors import CryopickError, OutputError, ParameterError, ProjectError
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.model import Micrographs, Particles, Picks
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    read_picks,
    write_coordinate_files,
    write_micrographs,
    write_particles,
    write_picks_file,
)


@pytest.fixture
def select(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> dict:
        result = CliRunner().invoke(select_app, ["subset", *arguments, "--json"])
        if isinstance(result.exception, CryopickError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


@pytest.fixture
def micrographs(tmp_path):
    names = [f"MotionCorr/job002/m{n}.mrc" for n in range(5)]
    rows = pd.DataFrame({"micrograph": names, "optics_group": [1, 1, 2, 1, 1]})
    rows["ctf_max_resolution"] = [3.0, 4.0, 5.0, 6.0, 7.0]
    optics = pd.DataFrame({"optics_group": [1, 2], "pixel_size": [1.0, 2.0]})
    table = Micrographs(rows=rows, optics=optics)
    write_micrographs(tmp_path / "m.star", table)
    return table


@pytest.fixture
def particles(tmp_path):
    rows = pd.DataFrame(
        {
            "image": "s.mrcs",
            "image_index": np.arange(6),
            "micrograph": ["a.mrc"] * 3 + ["b.mrc"] * 3,
            "optics_group": 1,
            "x": [0.0, 5.0, 100.0, 0.0, 5.0, 100.0],
            "y": 0.0,
            "fom": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [4.0], "box_size": [64]})
    table = Particles(rows=rows, optics=optics.assign(image_dimensions=2))
    write_particles(tmp_path / "p.star", table)
    return table


def test_micrographs_are_selected_by_value_with_their_optics(select, micrographs):
    told = select("m.star", "--out", "o", "--by", "ctf_max_resolution", "--max-value", "4.5")

    kept = read_micrographs("o/micrographs.star")
    assert kept.rows["micrograph"].tolist() == micrographs.rows["micrograph"][:2].tolist()
    assert kept.optics["optics_group"].tolist() == [1]  # a group without rows is dropped
    assert told == {
        "kind": "micrographs",
        "n_before": 5,
        "n_kept": 2,
        "files": {"o/micrographs.star": 2},
    }


def test_columns_go_by_the_names_of_relion_too(select, particles):
    select("p.star", "--out", "o", "--by", "rlnAutopickFigureOfMerit", "--min-value", "4")

    assert read_particles("o/particles.star").rows["fom"].tolist() == [4, 5, 6]


def test_splits_have_the_names_of_relion_and_join_to_the_whole(select, particles):
    told = select("p.star", "--out", "o", "--n-subsets", "4", "--random-order", "--seed", "3")

    assert list(told["files"]) == [f"o/particles_split{n}.star" for n in range(1, 5)]
    joined = pd.concat([read_particles(path).rows for path in told["files"]])
    pd.testing.assert_frame_equal(
        joined.sort_values("image_index", ignore_index=True), particles.rows, check_like=True
    )


def test_near_particles_of_one_micrograph_are_removed(select, particles):
    with pytest.raises(ParameterError, match="--micrograph-pixel-size"):
        select("p.star", "--out", "o", "--min-distance", "10")

    select("p.star", "--out", "o", "--min-distance", "10", "--micrograph-pixel-size", "1.5")

    assert read_particles("o/particles.star").rows["image_index"].tolist() == [0, 2, 3, 5]


def test_the_refused_duplicates_can_be_removed(select, micrographs, tmp_path):
    rows = pd.concat([micrographs.rows, micrographs.rows.iloc[1:3]])
    rows.iloc[-1, 0] = "MotionCorr/job009/m2.mrc"  # its results would bear the same name
    write_micrographs(tmp_path / "twice.star", Micrographs(rows=rows, optics=micrographs.optics))
    with pytest.raises(CryopickError, match="select subset --remove-duplicates"):
        open_micrographs(["twice.star"])

    select("twice.star", "--out", "o", "--remove-duplicates")

    kept = open_micrographs(["o/micrographs.star"])
    assert kept.rows["micrograph"].tolist() == micrographs.rows["micrograph"].tolist()


def test_picks_are_selected_and_split_by_micrograph(select, tmp_path):
    rows = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0], "fom": [0.5, 1.5]})
    pairs = []
    for name in ("a.mrc", "b.mrc", "c.mrc"):
        path = tmp_path / "Picks" / name.replace(".mrc", "_autopick.star")
        write_picks_file(path, rows.iloc[: 0 if name == "b.mrc" else 2])
        pairs.append((name, str(path)))
    write_coordinate_files(tmp_path / "Picks" / "autopick.star", pairs)

    select("Picks", "--out", "o", "--by", "fom", "--min-value", "1", "--n-subsets", "2")

    first, second = (read_picks(f"o/split{n}/autopick.star") for n in (1, 2))
    assert isinstance(first, Picks)
    assert first.attributes["micrographs"] == ["a.mrc", "b.mrc"]  # b has no pick and is kept
    assert second.attributes["micrographs"] == ["c.mrc"]
    assert first.rows["x"].tolist() == [2.0]


def test_nothing_is_overwritten_without_being_told(select, micrographs):
    select("m.star", "--out", "o", "--n-subsets", "3")
    select("m.star", "--out", "o", "--n-subsets", "3")  # the same again is no harm
    with pytest.raises(ProjectError, match="--overwrite"):
        select("m.star", "--out", "o", "--n-subsets", "2")

    told = select("m.star", "--out", "o", "--n-subsets", "2", "--overwrite")

    assert list(told["files"]) == ["o/micrographs_split1.star", "o/micrographs_split2.star"]
    with pytest.raises(CryopickError, match="no such file"):  # the third of the first split
        read_micrographs("o/micrographs_split3.star")


def test_files_of_others_are_not_overwritten(select, micrographs, tmp_path):
    (tmp_path / "micrographs.star").write_bytes((tmp_path / "m.star").read_bytes())
    before = (tmp_path / "micrographs.star").read_bytes()

    with pytest.raises(OutputError, match="must not exist yet"):
        select("m.star", "--out", ".", "--remove-duplicates")
    with pytest.raises(OutputError, match="another folder than that of the input"):
        select("micrographs.star", "--out", ".", "--remove-duplicates", "--overwrite")

    assert (tmp_path / "micrographs.star").read_bytes() == before
    assert not (tmp_path / "job.json").exists()


def test_an_empty_selection_is_refused(select, micrographs, tmp_path):
    with pytest.raises(CryopickError, match="must keep at least one row; got none of 5"):
        select("m.star", "--out", "o", "--by", "ctf_max_resolution", "--min-value", "99")

    assert not (tmp_path / "o").exists()


def test_people_get_sentences(micrographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["subset", "m.star", "--out", "o", "--subset-size", "3"]

    result = CliRunner().invoke(select_app, arguments)

    assert result.stdout.splitlines() == [
        "Kept 5 of 5 micrographs.",
        "o/micrographs_split1.star: 3 micrographs",
        "o/micrographs_split2.star: 2 micrographs",
    ]
