"""Scipion's sets: read by the names in Classes, geometry as a matrix, disabled items left out."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import FormatError
from cryopick.tables.model import Particles
from cryopick.tables.scipion import (
    read_scipion_particles,
    read_scipion_picks,
    write_scipion_particles,
    write_scipion_picks,
)


def write_set(
    path: Path, item: str, columns: dict[str, str], rows: list[tuple], properties: dict[str, str]
) -> None:
    """A set typed from the layout, with the columns in the order given."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Properties (key TEXT UNIQUE, value TEXT)")
        connection.executemany("INSERT INTO Properties VALUES (?, ?)", properties.items())
        connection.execute(
            "CREATE TABLE Classes (id INTEGER PRIMARY KEY, label_property TEXT, column_name TEXT,"
            " class_name TEXT)"
        )
        names = [("self", "c00", item)]
        names += [(n, f"c{i:02d}", kind) for i, (n, kind) in enumerate(columns.items(), start=1)]
        connection.executemany(
            "INSERT INTO Classes (label_property, column_name, class_name) VALUES (?, ?, ?)", names
        )
        fields = ", ".join(f"c{i:02d}" for i in range(len(columns), 0, -1))  # backwards
        connection.execute(f"CREATE TABLE Objects (id INTEGER, enabled INTEGER, {fields})")
        labels = ", ".join(f"c{i:02d}" for i in range(1, len(columns) + 1))
        places = ", ".join("?" * (len(columns) + 2))
        connection.executemany(
            f"INSERT INTO Objects (id, enabled, {labels}) VALUES ({places})", rows
        )


def test_coordinates_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    columns = {"_micName": "String", "_y": "Integer", "_x": "Integer", "_cryoloScore": "Float"}
    rows = [(1, 1, "a.mrc", 50, 100, 0.5), (2, 0, "a.mrc", 60, 110, 0.9)]
    write_set(tmp_path / "c.sqlite", "Coordinate", columns, rows, {"_boxSize": "64"})

    picks = read_scipion_picks(tmp_path / "c.sqlite")

    assert picks.rows.to_dict("list") == {
        "micrograph": ["a.mrc"],
        "x": [100.0],
        "y": [50.0],
        "fom": [0.5],
    }
    assert picks.rows.attrs["n_disabled"] == 1
    assert picks.attributes == {"box_size": 64}


def test_written_set_has_the_tables_of_scipion(tmp_path: Path) -> None:
    rows = pd.DataFrame({"micrograph": ["b.mrc", "a.mrc"], "x": [1.6, 3.0], "y": [2.0, 4.0]})

    write_scipion_picks(tmp_path / "c.sqlite", rows, box_size=64)

    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as connection:
        properties = dict(connection.execute("SELECT key, value FROM Properties"))
        classes = connection.execute("SELECT label_property, column_name, class_name FROM Classes")
        assert classes.fetchall() == [
            ("self", "c00", "Coordinate"),
            ("_x", "c01", "Integer"),
            ("_y", "c02", "Integer"),
            ("_micId", "c03", "Integer"),
            ("_micName", "c04", "String"),
        ]
        stored = connection.execute("SELECT id, enabled, c01, c02, c03, c04 FROM Objects")
        assert stored.fetchall() == [(1, 1, 2, 2, 1, "b.mrc"), (2, 1, 3, 4, 2, "a.mrc")]
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert properties["self"] == "SetOfCoordinates"
    assert properties["_size"] == "2"
    assert properties["_streamState"] == "2"
    assert properties["_boxSize"] == "64"


def test_set_that_scipion_left_empty_has_no_picks(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "c.sqlite").close()

    assert len(read_scipion_picks(tmp_path / "c.sqlite")) == 0


@pytest.mark.parametrize("mirror", [1, -1])
def test_alignment_moves_every_point_where_the_matrix_moves_it(tmp_path: Path, mirror: int) -> None:
    angle = np.deg2rad(50)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn[0] *= mirror
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3], matrix[2, 2] = turn, (4, -2), mirror
    columns = {
        "_index": "Integer",
        "_filename": "String",
        "_transform": "Transform",
        "_transform._matrix": "Matrix",
    }
    rows = [(1, 1, 3, "s.mrcs", None, json.dumps(matrix.tolist()))]
    properties = {"_samplingRate": "1.5", "_alignment": "2D"}
    write_set(tmp_path / "p.sqlite", "Particle", columns, rows, properties)

    row = read_scipion_particles(tmp_path / "p.sqlite").rows.iloc[0]

    cosine, sine = np.cos(np.deg2rad(row["psi"])), np.sin(np.deg2rad(row["psi"]))
    point = np.array([11.0, 5.0])
    origin = np.array([row["shift_x"], row["shift_y"]]) / 1.5
    ours = np.array([[cosine, -sine], [sine, cosine]]) @ (point + origin)
    ours[0] *= -1 if row.get("flip", 0) else 1
    np.testing.assert_allclose(ours, turn @ point + (4, -2), atol=1e-9)
    assert row["image_index"] == 2


@pytest.mark.parametrize("tilt", [0.0, 40.0])
def test_particles_come_back_as_they_were(tmp_path: Path, tilt: float) -> None:
    rows = pd.DataFrame(
        {
            "image": ["a.mrcs", "b.mrcs"],
            "image_index": [0, 6],
            "optics_group": [1, 1],
            "micrograph": ["a.mrc", "b.mrc"],
            "x": [100.0, 7.0],
            "y": [50.0, 8.0],
            "class_number": [2, 1],
            "psi": [30.0, -75.0],
            "rot": [tilt and 10.0, tilt and 20.0],
            "tilt": [tilt, tilt],
            "shift_x": [3.0, 0.5],
            "shift_y": [-1.0, 2.0],
            "defocus_u": [12000.0, 13000.0],
            "defocus_v": [11000.0, 12500.0],
            "defocus_angle": [45.0, -10.0],
            "phase_shift": [0.0, 90.0],
        }
    )
    optics = pd.DataFrame(
        {"optics_group": [1], "pixel_size": [1.5], "box_size": [64], "voltage": [300.0]}
    )

    write_scipion_particles(tmp_path / "p.sqlite", Particles(rows=rows, optics=optics))
    again = read_scipion_particles(tmp_path / "p.sqlite")

    kept = [c for c in rows.columns if tilt or c not in ("rot", "tilt")]
    pd.testing.assert_frame_equal(again.rows[kept], rows[kept], check_dtype=False)
    assert again.optics[list(optics)].to_dict("list") == optics.to_dict("list")


def test_set_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_scipion_picks(
        tmp_path / "c.sqlite", pd.DataFrame({"micrograph": ["a"], "x": [1.0], "y": [2.0]})
    )

    with pytest.raises(FormatError, match="must be a set of particles; got a set of Coordinate"):
        read_scipion_particles(tmp_path / "c.sqlite")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("no database, but long enough to look like one" * 10)

    with pytest.raises(FormatError, match="must be a Scipion set"):
        read_scipion_picks(tmp_path / "c.sqlite")
    with pytest.raises(FormatError, match="got no such file"):
        read_scipion_picks(tmp_path / "d.sqlite")
