"""A set of 2D classes as Scipion reads it: names by `Classes`, members by prefix."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from cryopick.tables.classification import Classification, ModelValues, SamplingValues
from cryopick.tables.model import Particles
from cryopick.tables.scipion_classes import write_scipion_classes


def classification():
    rows = pd.DataFrame(
        {
            "image": "s.mrcs",
            "image_index": range(5),
            "optics_group": 1,
            "group_number": 1,
            "class_number": [3, 1, 0, 3, 1],
            "psi": [0.0, 90.0, 0.0, -30.0, 10.0],
            "shift_x": 2.0,
            "shift_y": 0.0,
        }
    )
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [2.0], "box_size": [64]})
    classes = pd.DataFrame(
        {
            "class_number": [1, 2, 3],
            "image": "run_it002_classes.mrcs",
            "image_index": [0, 1, 2],
            "distribution": 1 / 3,
            "accuracy_rotations": np.nan,
            "accuracy_translations": np.nan,
            "estimated_resolution": 10.0,
            "completeness": 1.0,
            "particle_count": [2, 0, 2],
            "soft_count": [2.0, 0.0, 2.0],
            "entropy": 0.0,
        }
    )
    rings = np.arange(33)
    spectra = pd.DataFrame({"class_number": 1, "spectral_index": rings, "ssnr": 1.0})
    groups = {"group_number": [1], "group_name": ["a"], "particle_count": [5]}
    return Classification(
        particles=Particles(rows=rows, optics=optics),
        model=ModelValues(box_size=64, pixel_size=2.0, current_resolution=8.0, current_size=32),
        classes=classes,
        spectra=spectra.assign(sigma2=1.0, tau2=1.0),
        groups=pd.DataFrame(groups).assign(scale_correction=1.0),
        noise=pd.DataFrame({"optics_group": 1, "spectral_index": rings, "sigma2": 1.0}),
        sampling=SamplingValues(psi_step=6.0, offset_range=10.0, offset_step=2.0),
    )


def objects(connection, prefix):
    """Read a table as Scipion does: columns by the names in `Classes`."""
    names = dict(connection.execute(f"SELECT column_name, label_property FROM {prefix}Classes"))
    cursor = connection.execute(f"SELECT * FROM {prefix}Objects ORDER BY id")
    labels = [names.get(d[0], d[0]) for d in cursor.description]
    return [dict(zip(labels, row, strict=True)) for row in cursor]


def test_classes_have_representatives_and_members(tmp_path):
    path = tmp_path / "classes.sqlite"
    write_scipion_classes(path, classification())

    with closing(sqlite3.connect(path)) as connection:
        classes = objects(connection, "")
        first, third = objects(connection, "Class001_"), objects(connection, "Class003_")
        properties = dict(connection.execute("SELECT key, value FROM Properties"))
        tables = {n for (n,) in connection.execute("SELECT name FROM sqlite_master")}
    assert properties["self"] == "SetOfClasses2D"
    assert [c["id"] for c in classes] == [1, 3]  # the empty class is left out
    assert [c["_size"] for c in classes] == [2, 2]
    assert [c["_representative._index"] for c in classes] == [1, 3]
    assert classes[1]["_mapperPath"] == "classes.sqlite, Class003_"
    assert [r["id"] for r in first] == [2, 5]
    assert [r["_index"] for r in third] == [1, 4]
    assert {r["_classId"] for r in third} == {3}
    assert "Class002_Objects" not in tables
    matrix = np.array(json.loads(first[0]["_transform._matrix"]))  # psi 90: x goes to y
    assert matrix[:2, :2] == pytest.approx(np.array([[0, -1], [1, 0]]), abs=1e-9)
