"""Xmipp's files: layout, rejected rows, and the geometry of its alignments."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cryopick.errors import FormatError, TableError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles
from cryopick.tables.xmipp import (
    read_xmd_micrographs,
    read_xmd_particles,
    write_xmd_micrographs,
    write_xmd_particles,
)
from cryopick.tables.xmipp_pos import read_pos, read_xmd_picks, write_pos, write_pos_config

PARTICLES = """# XMIPP_STAR_1 *
#
data_Particles
loop_
 _itemId
 _enabled
 _image
 _micrograph
 _xcoor
 _ycoor
 _shiftX
 _shiftY
 _anglePsi
 _flip
 _ref
 _zScore
 _ctfDefocusU
 _ctfDefocusV
 _ctfDefocusAngle
 _ctfVoltage
 _ctfSphericalAberration
 _ctfQ0
 _ctfSamplingRate
 1  1 000007@a.mrc:mrcs "with space/a.mrc" 100 50  4 -2  30 0 2 0.7 9000 8000 45 300 2.7 .1 1.5
 2 -1 000008@b.mrcs     "with space/a.mrc" 110 60  0  0   0 0 1 0.9 9000 8000 45 300 2.7 .1 1.5
 3  1 000001@b.mrcs     c.mrc              120 70  1  2 -75 1 1 0.2 9000 8000 45 200 2.7 .1 1.5
"""
POS = """# XMIPP_STAR_1 *
#
data_header
loop_
 _pickingMicrographState
Supervised
data_particles
loop_
 _itemId
 _enabled
 _xcoor
 _ycoor
 _cost
 _micrographId
 000001   1   100  50  1   000003
 000002  -1   110  60  1   000003
data_particles_auto
loop_
 _enabled
 _ycoor
 _xcoor
 _cost
 1 7 8 0.5
 0 9 10 0.25
"""


def moved_by_xmipp(
    psi: float, shift: tuple[float, float], *, flip: bool, x: np.ndarray
) -> np.ndarray:
    """Where Xmipp's transformation matrix takes x: rotate by minus psi, mirror, then shift."""
    cosine, sine = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    matrix[0] *= -1 if flip else 1
    return matrix @ x + np.array(shift)


def moved_by_relion(row: pd.Series, pixel_size: float, x: np.ndarray) -> np.ndarray:
    """Where RELION takes x: shift, then rotate x towards y by psi."""
    cosine, sine = np.cos(np.deg2rad(row["psi"])), np.sin(np.deg2rad(row["psi"]))
    origin = np.array([row["shift_x"], row["shift_y"]]) / pixel_size
    return np.array([[cosine, -sine], [sine, cosine]]) @ (x + origin)


@pytest.fixture
def xmd(tmp_path: Path) -> Path:
    path = tmp_path / "particles.xmd"
    path.write_text(PARTICLES)
    return path


def test_names_counting_and_units_are_ours(xmd: Path) -> None:
    particles = read_xmd_particles(xmd)

    assert particles.rows["image"].tolist() == ["a.mrc", "b.mrcs"]
    assert particles.rows["image_index"].tolist() == [6, 0]
    assert particles.rows["micrograph"].tolist() == ["with space/a.mrc", "c.mrc"]
    assert particles.rows["class_number"].tolist() == [2, 1]
    assert particles.rows["zScore"].tolist() == [0.7, 0.2]
    assert particles.rows["optics_group"].tolist() == [1, 2]
    assert particles.optics["voltage"].tolist() == [300, 200]
    assert particles.optics["pixel_size"].tolist() == [1.5, 1.5]


def test_rejected_particles_are_left_out_and_counted(xmd: Path) -> None:
    rows = read_xmd_particles(xmd).rows

    assert len(rows) == 2
    assert rows.attrs["n_disabled"] == 1


@pytest.mark.parametrize("row", [0, 1])
def test_alignment_moves_every_point_where_xmipp_moves_it(xmd: Path, row: int) -> None:
    psi, shift, flip = [(30.0, (4.0, -2.0), False), (-75.0, (1.0, 2.0), True)][row]
    point = np.array([11.0, 5.0])

    rows = read_xmd_particles(xmd).rows

    ours = moved_by_relion(rows.iloc[row], 1.5, point) * ([-1, 1] if flip else [1, 1])
    np.testing.assert_allclose(ours, moved_by_xmipp(psi, shift, flip=flip, x=point), atol=1e-9)


def test_particles_come_back_as_they_were(xmd: Path, tmp_path: Path) -> None:
    particles = read_xmd_particles(xmd)

    write_xmd_particles(tmp_path / "again.xmd", particles)
    again = read_xmd_particles(tmp_path / "again.xmd")

    pd.testing.assert_frame_equal(
        again.rows[particles.rows.columns], particles.rows, check_dtype=False, atol=1e-5
    )
    pd.testing.assert_frame_equal(again.optics, particles.optics)
    assert "000007@a.mrc:mrcs" in (tmp_path / "again.xmd").read_text()


def test_projections_keep_the_signs_of_relion(tmp_path: Path) -> None:
    path = tmp_path / "p.xmd"
    labels = " _image\n _angleRot\n _angleTilt\n _anglePsi\n _shiftX\n _shiftY\n"
    path.write_text(f"# XMIPP_STAR_1 *\n#\ndata_noname\nloop_\n{labels} 1@s.mrcs 10 20 30 1 2\n")

    row = read_xmd_particles(path, pixel_size=2).rows.iloc[0]

    assert [row[n] for n in ("rot", "tilt", "psi", "shift_x", "shift_y")] == [10, 20, 30, 2, 4]


def test_unknown_pixel_size_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.xmd"
    path.write_text("data_noname\nloop_\n _image\n 000001@s.mrcs\n")

    with pytest.raises(TableError, match=r"Add --pixel-size\."):
        read_xmd_particles(path)


@pytest.mark.relion
@pytest.mark.skipif(not shutil.which("relion_stack_create"), reason="RELION is not installed")
def test_relion_centres_what_xmipp_centres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    psi, shift, point = 30.0, (4.0, -2.0), np.array([11.0, 5.0])
    image = np.zeros((1, 64, 64), np.float32)
    image[0, 32 + 5, 32 + 11] = 1
    monkeypatch.chdir(tmp_path)
    write_mrc(Path("s.mrcs"), ndimage.gaussian_filter(image, (0, 2, 2)), pixel_size=1.5)
    labels = " _image\n _shiftX\n _shiftY\n _anglePsi\n _ctfSamplingRate\n"
    Path("p.xmd").write_text(f"data_noname\nloop_\n{labels} 000001@s.mrcs 4 -2 30 1.5\n")

    particles = read_xmd_particles(Path("p.xmd"))
    lens = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
    optics = particles.optics.assign(box_size=64, image_dimensions=2, **lens)
    write_particles(Path("p.star"), type(particles)(rows=particles.rows, optics=optics))
    command = ["relion_stack_create", "--i", "p.star", "--o", "out", "--apply_transformation"]
    subprocess.run(command, check=True, capture_output=True)

    y, x = ndimage.center_of_mass(np.maximum(np.squeeze(read_mrc(Path("out.mrcs"))), 0))
    expected = moved_by_xmipp(psi, shift, flip=False, x=point) + 32
    np.testing.assert_allclose([x, y], expected, atol=0.02)


def test_micrographs_take_their_ctf_from_the_files_beside(tmp_path: Path) -> None:
    (tmp_path / "m.xmd").write_text(
        "data_Micrographs\nloop_\n _enabled\n _micrograph\n _ctfModel\n 1 a.mrc a.ctfParam\n"
    )
    (tmp_path / "a.ctfParam").write_text(
        "# XMIPP_STAR_1 *\n#\ndata_fullMicrograph\n _ctfSamplingRate 1.5\n _ctfVoltage 300\n"
        " _ctfDefocusU 12000\n _ctfDefocusV 11000\n _ctfDefocusAngle 45\n"
        " _ctfSphericalAberration 2.7\n _ctfQ0 0.1\n _ctfCritMaxFreq 3.5\n"
    )

    micrographs = read_xmd_micrographs(tmp_path / "m.xmd")
    write_xmd_micrographs(tmp_path / "n.xmd", micrographs)
    again = read_xmd_micrographs(tmp_path / "n.xmd")

    assert micrographs.rows["defocus_u"].tolist() == [12000]
    assert micrographs.rows["ctf_max_resolution"].tolist() == [3.5]
    assert micrographs.optics["pixel_size"].tolist() == [1.5]
    assert again.rows["defocus_angle"].tolist() == [45]
    assert again.optics["voltage"].tolist() == [300]


def test_pos_joins_both_blocks_by_name_and_drops_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.pos").write_text(POS)
    write_pos_config(tmp_path / "config.xmd", box_size=64)

    picks = read_pos(tmp_path / "a.pos", micrograph="a.mrc")

    assert picks.rows["x"].tolist() == [100, 8, 10]  # enabled 0 was never set: kept
    assert picks.rows["y"].tolist() == [50, 7, 9]
    assert picks.rows["fom"].tolist() == [1, 0.5, 0.25]
    assert picks.rows.attrs["n_disabled"] == 1
    assert picks.attributes == {"box_size": 64}


def test_pos_is_laid_out_as_scipion_writes_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": [99.6, 8.0], "y": [50.0, 7.4]})

    write_pos(tmp_path / "a.pos", rows, micrograph_id=3)

    assert (tmp_path / "a.pos").read_text().split("data_particles\n")[1] == (
        "loop_\n _itemId\n _enabled\n _xcoor\n _ycoor\n _cost\n _micrographId\n"
        " 000001   1   100  50  1   000003\n 000002   1   8  7  1   000003\n"
    )


def test_empty_pos_has_no_picks(tmp_path: Path) -> None:
    write_pos(tmp_path / "a.pos", pd.DataFrame({"x": [], "y": []}))

    assert len(read_pos(tmp_path / "a.pos", micrograph="a.mrc")) == 0


def test_one_table_of_many_micrographs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.xmd"
    path.write_text("data_coords\nloop_\n _micrograph\n _xcoor\n _ycoor\n a.mrc 1 2\n b.mrc 3 4\n")

    assert read_xmd_picks(path).rows.to_dict("list") == {
        "micrograph": ["a.mrc", "b.mrc"],
        "x": [1, 3],
        "y": [2, 4],
    }


def test_other_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xmd").write_text("data_noname\nloop_\n _zScore\n 1.0\n")

    with pytest.raises(FormatError, match="must have a block with a column image"):
        read_xmd_particles(tmp_path / "a.xmd")
    with pytest.raises(FormatError, match="must have a block particles"):
        read_pos(tmp_path / "a.xmd", micrograph="a.mrc")


def test_shrunk_boxes_keep_their_own_pixel_size_and_shifts(tmp_path):
    rows = pd.DataFrame(
        {"image": ["a.mrcs"], "image_index": [0], "optics_group": [1], "psi": [0.0]}
        | {"shift_x": [12.0], "shift_y": [-6.0]}
    )
    optics = pd.DataFrame(
        {"optics_group": [1], "optics_group_name": ["a"], "pixel_size": [6.0], "box_size": [64]}
        | {"micrograph_pixel_size": [1.5]}
    )

    write_xmd_particles(tmp_path / "p.xmd", Particles(rows=rows, optics=optics))
    back = read_xmd_particles(tmp_path / "p.xmd")

    assert back.optics["pixel_size"].tolist() == [6.0]
    assert back.rows["shift_x"].tolist() == pytest.approx([12.0])
    assert back.rows["shift_y"].tolist() == pytest.approx([-6.0])
