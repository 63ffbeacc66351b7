"""cryoSPARC's tables against real files and against the STAR file of the same particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from cryopick.errors import FormatError, TableError
from cryopick.io.cryosparc import read_cs, write_cs
from cryopick.tables.cryosparc import (
    read_cs_micrographs,
    read_cs_particles,
    read_cs_picks,
    write_cs_particles,
    write_cs_picks,
)
from cryopick.tables.relion import read_particles


@pytest.mark.data
def test_star_file_of_the_same_particles_says_the_same(test_data: Path) -> None:
    ours = read_cs_particles(test_data / "formats" / "empiar_10076_7.cs")
    theirs = read_particles(test_data / "formats" / "empiar_10076_7.star")

    assert ours.rows["image"].tolist() == theirs.rows["image"].tolist()
    assert ours.rows["image_index"].tolist() == theirs.rows["image_index"].tolist()
    for name in ("defocus_u", "defocus_v", "defocus_angle"):
        np.testing.assert_allclose(ours.rows[name], theirs.rows[name], rtol=1e-6)
    for name in ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast"):
        np.testing.assert_allclose(ours.optics[name], theirs.optics[name], rtol=2e-6)
    assert ours.optics["box_size"].tolist() == [320]


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["cryosparc_J2_particles_exported.cs", "cryosparc_P12_J24_001_particles.cs"]
)
def test_real_particles_come_back_as_they_were(test_data: Path, tmp_path: Path, name: str) -> None:
    particles = read_cs_particles(test_data / "formats" / name)

    write_cs_particles(tmp_path / "again.cs", particles)
    again = read_cs_particles(tmp_path / "again.cs")

    shared = [c for c in particles.rows.columns if c not in ("rot", "tilt", "psi")]
    pd.testing.assert_frame_equal(again.rows[shared], particles.rows[shared], atol=1e-4)
    for angle in {"rot", "tilt", "psi"} & set(particles.rows.columns):
        turned = (again.rows[angle] - particles.rows[angle] + 180) % 360 - 180
        assert np.abs(turned).max() < 1e-3
    pd.testing.assert_frame_equal(again.optics, particles.optics)


@pytest.mark.data
def test_pose_in_space_is_the_euler_matrix_of_relion(test_data: Path) -> None:
    path = test_data / "formats" / "cryosparc_P12_J24_001_particles.cs"
    pose = Rotation.from_rotvec(read_cs(path)["alignments3D/pose"]).as_matrix()

    rows = read_cs_particles(path).rows

    a, b, g = (np.deg2rad(rows[n].to_numpy()) for n in ("rot", "tilt", "psi"))
    # first row and last column of RELION's Euler matrix, written out
    first = np.cos(g) * np.cos(b) * np.cos(a) - np.sin(g) * np.sin(a)
    np.testing.assert_allclose(pose[:, 0, 0], first, atol=1e-5)
    np.testing.assert_allclose(pose[:, 2, 0], np.sin(b) * np.cos(a), atol=1e-5)
    np.testing.assert_allclose(pose[:, 2, 1], np.sin(b) * np.sin(a), atol=1e-5)
    np.testing.assert_allclose(pose[:, 0, 2], -np.sin(b) * np.cos(g), atol=1e-5)
    np.testing.assert_allclose(pose[:, 1, 2], np.sin(b) * np.sin(g), atol=1e-5)


def particle_fields() -> dict[str, np.ndarray]:
    return {
        "uid": np.array([7, 9], np.uint64),
        "blob/path": np.array([b">J2/extract/a_particles.mrc", b"J2/extract/b_particles.mrc"]),
        "blob/idx": np.array([0, 4], np.uint32),
        "blob/shape": np.array([[64, 64], [64, 64]], np.uint32),
        "blob/psize_A": np.array([2.4, 2.4], np.float32),
        "alignments2D/shift": np.array([[3.0, -2.0], [0, 0]], np.float32),
        "alignments2D/pose": np.array([np.pi / 2, 0], np.float32),
        "alignments2D/psize_A": np.array([2.0, 2.0], np.float32),
        "alignments2D/class": np.array([4, 0], np.uint32),
        "location/micrograph_path": np.array([b">J1/a.mrc", b">J1/b.mrc"]),
        "location/micrograph_shape": np.array([[400, 600], [400, 600]], np.uint32),
        "location/center_x_frac": np.array([0.5, 0.25], np.float32),
        "location/center_y_frac": np.array([0.125, 0.75], np.float32),
    }


def test_in_plane_alignment_is_angstrom_and_degrees_with_relions_sign(tmp_path: Path) -> None:
    write_cs(tmp_path / "p.cs", particle_fields())

    rows = read_cs_particles(tmp_path / "p.cs").rows

    assert rows["shift_x"].tolist() == [6, 0]
    assert rows["shift_y"].tolist() == [-4, 0]
    np.testing.assert_allclose(rows["psi"], [90, 0], atol=1e-5)
    assert rows["class_number"].tolist() == [5, 1]


def test_fractions_become_pixels_of_columns_and_rows(tmp_path: Path) -> None:
    write_cs(tmp_path / "p.cs", particle_fields())

    rows = read_cs_particles(tmp_path / "p.cs").rows

    assert rows["micrograph"].tolist() == ["J1/a.mrc", "J1/b.mrc"]
    assert rows["x"].tolist() == [300, 150]
    assert rows["y"].tolist() == [50, 300]


def test_passthrough_is_joined_by_uid_in_any_order(tmp_path: Path) -> None:
    fields = particle_fields()
    write_cs(tmp_path / "p.cs", {n: v for n, v in fields.items() if "location" not in n})
    moved = {n: v[::-1] for n, v in fields.items() if "location" in n or n == "uid"}
    write_cs(tmp_path / "passthrough.cs", moved)

    rows = read_cs_particles(tmp_path / "p.cs", passthrough=[tmp_path / "passthrough.cs"]).rows

    assert rows["micrograph"].tolist() == ["J1/a.mrc", "J1/b.mrc"]
    assert rows["x"].tolist() == [300, 150]


def test_passthrough_of_another_job_is_refused(tmp_path: Path) -> None:
    fields = particle_fields()
    write_cs(tmp_path / "p.cs", fields)
    write_cs(tmp_path / "q.cs", {**fields, "uid": np.array([1, 2], np.uint64)})

    with pytest.raises(TableError, match=r"must have every uid of p\.cs"):
        read_cs_particles(tmp_path / "p.cs", passthrough=[tmp_path / "q.cs"])


def test_picks_load_with_numpy_alone_and_come_back(tmp_path: Path) -> None:
    rows = pd.DataFrame({"micrograph": ["µ/a.mrc"], "x": [123.5], "y": [50.0], "fom": [0.5]})

    write_cs_picks(tmp_path / "p.cs", rows, sizes={"µ/a.mrc": (400, 600)}, pixel_size=1.5)

    table = np.load(tmp_path / "p.cs", allow_pickle=False)
    assert table["location/micrograph_shape"].tolist() == [[400, 600]]
    assert table["location/center_y_frac"][0] == 0.125
    back = read_cs_picks(tmp_path / "p.cs").rows
    pd.testing.assert_frame_equal(back[rows.columns], rows, atol=1e-4)


def test_picks_without_the_size_of_their_micrograph_are_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"micrograph": ["a.mrc"], "x": [1.0], "y": [2.0]})

    with pytest.raises(TableError, match=r"a\.mrc must be of known size"):
        write_cs_picks(tmp_path / "p.cs", rows, sizes={})


def test_exposures_are_read_as_micrographs(tmp_path: Path) -> None:
    fields = {
        "uid": np.array([7], np.uint64),
        "micrograph_blob/path": np.array([b">J1/a.mrc"]),
        "micrograph_blob/psize_A": np.array([1.1], np.float32),
        "mscope_params/accel_kv": np.array([300], np.float32),
        "ctf/df1_A": np.array([12000], np.float32),
        "ctf/df_angle_rad": np.array([np.pi / 4], np.float32),
    }
    write_cs(tmp_path / "e.cs", fields)

    micrographs = read_cs_micrographs(tmp_path / "e.cs")

    assert micrographs.rows["micrograph"].tolist() == ["J1/a.mrc"]
    np.testing.assert_allclose(micrographs.rows["defocus_angle"], [45], rtol=1e-6)
    assert micrographs.optics["pixel_size"].tolist() == [1.1]
    assert micrographs.optics["voltage"].tolist() == [300]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x94CSDAT" + b"x" * 40, "compressed format"),
        (b"not numpy", "must be a readable .cs file"),
        (b"", "must be a readable .cs file"),
    ],
)
def test_other_bytes_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "p.cs").write_bytes(content)

    with pytest.raises(FormatError, match=sentence):
        read_cs(tmp_path / "p.cs")


def test_plain_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "p.cs").open("wb") as handle:
        np.save(handle, np.zeros((3, 3)))

    with pytest.raises(FormatError, match="must hold a table with named fields"):
        read_cs(tmp_path / "p.cs")
