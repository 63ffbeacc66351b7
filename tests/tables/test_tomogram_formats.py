"""Positions in tomograms: each dialect's convention, by hand, and there and back."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile

from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.simulation.orientations import euler_matrices
from cryopick.tables.tomogram_format_parameters import TomogramFormatParameters
from cryopick.tables.tomogram_formats import read_tomogram_picks, write_tomogram_picks
from cryopick.tables.tomogram_star import read_relion_tomograms, write_relion_tomograms
from cryopick.tables.tomograms import TomogramPicks, tomogram_name, tomogram_table

FORMATS = (
    {"format": "relion5"},
    {"format": "relion4"},
    {"format": "relion4", "coordinate_pixel_size": 2.5},
    {"format": "relion3"},
    {"format": "warp"},
    {"format": "warp", "normalised": True},
    {"format": "copick"},
    {"format": "ndjson"},
    {"format": "dynamo"},
    {"format": "dynamo", "dynamo_base": 0},
    {"format": "imod"},
    {"format": "points"},
    {"format": "csv"},
)
TOMOGRAMS = tomogram_table([("TS_01", (100, 201, 300), 10.0), ("TS_02", (64, 80, 90), 7.84)])


def some_picks(count: int = 40) -> TomogramPicks:
    draw = np.random.default_rng(3)
    rows = pd.DataFrame(draw.uniform(0, 600, (count, 3)), columns=["x", "y", "z"])
    rows.insert(0, "tomogram", np.where(np.arange(count) % 3, "TS_01", "TS_02"))
    rows["score"] = draw.uniform(0, 5, count)
    rows["kind"] = draw.integers(1, 4, count)
    return TomogramPicks(rows=rows, tomograms=TOMOGRAMS)


def one_pick(x: float, y: float, z: float) -> TomogramPicks:
    rows = pd.DataFrame({"tomogram": ["TS_01"], "x": [x], "y": [y], "z": [z]})
    return TomogramPicks(rows=rows, tomograms=TOMOGRAMS[:1])


def sorted_places(rows: pd.DataFrame) -> np.ndarray:
    table = rows[["tomogram", "x", "y", "z"]].copy()
    table["key"] = table["x"].round(1)  # formats write by tomogram and kind
    return table.sort_values(["tomogram", "key"])[["x", "y", "z"]].to_numpy()


@pytest.mark.parametrize("choice", FORMATS, ids=lambda c: "-".join(map(str, c.values())))
def test_positions_come_back_from_every_format(tmp_path: Path, choice: dict[str, object]) -> None:
    picks = some_picks()
    parameters = TomogramFormatParameters(**choice)  # type: ignore[arg-type]

    paths = write_tomogram_picks(tmp_path, picks, parameters=parameters)
    files = [p for p in paths if p.suffix != ".doc"]
    read = [read_tomogram_picks(p, tomograms=TOMOGRAMS, parameters=parameters) for p in files]

    rows = pd.concat([r.rows for r in read])
    accuracy = 6e-3 if choice["format"] == "points" else 2e-4  # A; float32 voxels in a model
    np.testing.assert_allclose(sorted_places(rows), sorted_places(picks.rows), atol=accuracy)


@pytest.mark.parametrize("name", ["relion5", "relion4", "warp", "dynamo", "csv"])
def test_scores_and_kinds_come_back(tmp_path: Path, name: str) -> None:
    picks = some_picks()

    path = write_tomogram_picks(
        tmp_path,
        picks,
        parameters=TomogramFormatParameters(format=name),  # type: ignore[arg-type]
    )[0]
    rows = read_tomogram_picks(path, tomograms=TOMOGRAMS).rows

    np.testing.assert_allclose(rows["score"], picks.rows["score"], rtol=1e-6)
    assert rows["kind"].tolist() == picks.rows["kind"].tolist()


@pytest.mark.parametrize("name", [c["format"] for c in FORMATS if len(c) == 1])
def test_no_picks_are_no_error(tmp_path: Path, name: str) -> None:
    parameters = TomogramFormatParameters(format=name)  # type: ignore[arg-type]

    paths = write_tomogram_picks(tmp_path, some_picks(0), parameters=parameters)
    files = [p for p in paths if p.suffix != ".doc"]

    for path in files:
        assert len(read_tomogram_picks(path, tomograms=TOMOGRAMS, parameters=parameters)) == 0


def test_relion5_counts_from_half_the_size(tmp_path: Path) -> None:
    # 300 x 201 x 100 voxels of 10 A: pixel = A / 10 + (150, 100.5, 50)
    path = write_tomogram_picks(tmp_path, one_pick(1500.0, 0.0, 520.0))[0]

    table = starfile.read(path)

    assert table["rlnTomoName"].tolist() == ["TS_01"]
    labels = [f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]
    assert table[labels].to_numpy().tolist() == [[0.0, -1005.0, 20.0]]


def test_centred_columns_win_and_shifts_are_taken_off(tmp_path: Path) -> None:
    names = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
    names += [f"rlnCoordinate{a}" for a in "XYZ"] + [f"rlnOrigin{a}Angst" for a in "XYZ"]
    row = "TS_01 0 -1005 20  7 7 7  3 0 -2"
    labels = "".join(f"_{n} #{i}\n" for i, n in enumerate(names, 1))
    (tmp_path / "p.star").write_text(f"data_particles\n\nloop_\n{labels}{row}\n")

    rows = read_tomogram_picks(tmp_path / "p.star", tomograms=TOMOGRAMS).rows

    assert rows[["x", "y", "z"]].to_numpy().tolist() == [[1497.0, 0.0, 522.0]]


def test_frames_of_subtomograms_turn_shifts_and_orientations(tmp_path: Path) -> None:
    # as ParticleSet::getPosition and getMatrix3x3 of RELION 5 do
    names = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ")]
    names += [f"rlnOrigin{a}Angst" for a in "XYZ"]
    names += [f"rln{k}{a}" for k in ("TomoSubtomogram", "Angle") for a in ("Rot", "Tilt", "Psi")]
    row = "TS_01  0 0 0  3 5 -2  10 70 -40  25 0 0"
    labels = "".join(f"_{n} #{i}\n" for i, n in enumerate(names, 1))
    (tmp_path / "p.star").write_text(f"data_particles\n\nloop_\n{labels}{row}\n")

    rows = read_tomogram_picks(tmp_path / "p.star", tomograms=TOMOGRAMS).rows

    frame, particle = euler_matrices(np.array([[10.0, 70, -40], [25, 0, 0]]))
    place = np.array([1500, 1005, 500]) - frame @ [3, 5, -2]
    np.testing.assert_allclose(rows[["x", "y", "z"]].to_numpy()[0], place)
    whole = euler_matrices(rows[["rot", "tilt", "psi"]].to_numpy())[0]
    np.testing.assert_allclose(whole, frame @ particle, atol=1e-12)


def test_plain_star_counts_voxels_of_the_size_that_is_given(tmp_path: Path) -> None:
    warp = TomogramFormatParameters(format="warp", coordinate_pixel_size=2.5)

    path = write_tomogram_picks(tmp_path, one_pick(100.0, 50.0, 10.0), parameters=warp)[0]
    table = starfile.read(path)

    assert table["rlnMicrographName"].tolist() == ["TS_01.tomostar"]
    assert table[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy().tolist() == [[40.0, 20.0, 4.0]]


def test_fractions_are_of_the_whole_width(tmp_path: Path) -> None:
    warp = TomogramFormatParameters(format="warp", normalised=True)

    path = write_tomogram_picks(tmp_path, one_pick(1500.0, 2010.0, 0.0), parameters=warp)[0]

    assert starfile.read(path)[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy().tolist() == [
        [0.5, 1.0, 0.0]
    ]


def test_imod_points_lie_on_the_voxel_they_name(tmp_path: Path) -> None:
    # an image of one bright voxel, as mrcfile writes it: data[z, y, x]
    volume = np.zeros((100, 201, 300), np.float32)
    volume[7, 20, 33] = 1
    mrcfile.write(tmp_path / "TS_01.mrc", volume, voxel_size=10.0)
    z, y, x = np.argwhere(mrcfile.read(tmp_path / "TS_01.mrc"))[0] * 10.0
    imod = TomogramFormatParameters(format="imod")

    path = write_tomogram_picks(tmp_path, one_pick(x, y, z), parameters=imod)[0]
    raw = path.read_bytes()

    # the layout of binspec.html: 8 + 232 bytes, OBJT and 176, CONT, 16 and the points, big-endian
    assert raw[:8] == b"IMODV1.2"
    assert struct.unpack(">3i", raw[136:148]) == (300, 201, 100)
    assert struct.unpack(">fi", raw[216:224]) == (1.0, -9)  # 1 nm
    assert raw[240:244] == b"OBJT"
    assert raw[420:424] == b"CONT"
    assert struct.unpack(">i", raw[424:428]) == (1,)
    assert struct.unpack(">3f", raw[440:452]) == (33.5, 20.5, 7.0)
    assert raw[452:] == b"IEOF"


def test_a_model_of_a_part_of_the_volume_is_moved(tmp_path: Path) -> None:
    imod = TomogramFormatParameters(format="imod")
    path = write_tomogram_picks(tmp_path, one_pick(330, 200, 70), parameters=imod)[0]
    raw = bytearray(path.read_bytes())
    raw[152:156] = struct.pack(">I", 1 << 14)
    minx = [1.0] * 3 + [50.0, 0.0, 0.0] + [0.0] * 3 + [10.0] * 3 + [20.0, 0.0, -10.0] + [0.0] * 3
    path.write_bytes(raw[:-4] + b"MINX" + struct.pack(">i18f", 72, *minx) + b"IEOF")

    rows = read_tomogram_picks(path, tomograms=TOMOGRAMS).rows

    # (old origin - origin) / voxel size, as IMOD documents it for refoldtrans
    assert rows[["x", "y", "z"]].to_numpy().tolist() == [[360.0, 200.0, 80.0]]


def test_a_model_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    imod = TomogramFormatParameters(format="imod")
    path = write_tomogram_picks(tmp_path, one_pick(330, 200, 70), parameters=imod)[0]
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(FormatError, match="must be a model or point list of IMOD; got a file cut"):
        read_tomogram_picks(path, tomograms=TOMOGRAMS)


@pytest.mark.parametrize(("base", "first"), [(0, "0 0 0"), (1, "1 1 1")])
def test_dynamo_calls_the_first_voxel_what_is_asked(tmp_path: Path, base: int, first: str) -> None:
    dynamo = TomogramFormatParameters(format="dynamo", dynamo_base=base)

    path = write_tomogram_picks(tmp_path, one_pick(0, 0, 0), parameters=dynamo)[0]
    columns = path.read_text().split()

    assert " ".join(columns[23:26]) == first
    assert (columns[0], columns[1], columns[19]) == ("1", "1", "1")
    assert path.with_suffix(".doc").read_text() == "1 TS_01\n"


def test_dynamo_shifts_are_added(tmp_path: Path) -> None:
    columns = ["0"] * 35
    columns[3:6], columns[19], columns[23:26] = ["0.5", "-1", "0"], "7", ["11", "21", "31"]
    (tmp_path / "a.tbl").write_text(" ".join(columns) + "\n")
    (tmp_path / "a.doc").write_text("7 /data/TS_02.rec\n")

    rows = read_tomogram_picks(tmp_path / "a.tbl", tomograms=TOMOGRAMS).rows

    assert rows["tomogram"].tolist() == ["TS_02"]
    np.testing.assert_allclose(
        rows[["x", "y", "z"]], [[10.5 * 7.84, 19 * 7.84, 30 * 7.84]], rtol=1e-12
    )


def test_copick_keeps_angstrom_and_adds_the_translation(tmp_path: Path) -> None:
    copick = TomogramFormatParameters(format="copick", object_name="ribosome")
    path = write_tomogram_picks(tmp_path, one_pick(120, 30, 4.5), parameters=copick)[0]
    content = json.loads(path.read_text())

    assert path.relative_to(tmp_path).as_posix() == (
        "ExperimentRuns/TS_01/Picks/cryopick_1_ribosome.json"
    )
    assert content["points"][0]["location"] == {"x": 120.0, "y": 30.0, "z": 4.5}
    assert content["voxel_spacing"] == 10.0
    assert content["trust_orientation"] is False

    for row, shift in zip(content["points"][0]["transformation_"], (1.0, 2.0, 3.0), strict=False):
        row[3] = shift
    path.write_text(json.dumps(content))
    rows = read_tomogram_picks(path, tomograms=TOMOGRAMS).rows
    assert rows[["x", "y", "z"]].to_numpy().tolist() == [[121.0, 32.0, 7.5]]


def test_portal_points_are_in_voxels_and_turn_the_particle_as_relion_does(tmp_path: Path) -> None:
    picks = one_pick(120.0, 35.0, 0.0)
    picks.rows[["rot", "tilt", "psi"]] = [[20.0, 50.0, -75.0]]

    path = write_tomogram_picks(
        tmp_path, picks, parameters=TomogramFormatParameters(format="ndjson")
    )[0]
    point = json.loads(path.read_text())

    assert point["type"] == "orientedPoint"
    assert point["location"] == {"x": 12.0, "y": 3.5, "z": 0.0}
    turn = euler_matrices(np.array([[20.0, 50.0, -75.0]]))[0]
    np.testing.assert_allclose(point["xyz_rotation_matrix"], turn, atol=1e-12)


def test_portal_file_may_lack_its_last_line_end(tmp_path: Path) -> None:
    line = '{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}'
    (tmp_path / "TS_02-ribosome.ndjson").write_text(f"{line}\n{line}")

    rows = read_tomogram_picks(tmp_path / "TS_02-ribosome.ndjson", tomograms=TOMOGRAMS).rows

    np.testing.assert_allclose(rows[["x", "y", "z"]], [[7.84, 15.68, 23.52]] * 2)


def test_table_of_tomograms_comes_back(tmp_path: Path) -> None:
    files = {n: f"{n}.mrc" for n in TOMOGRAMS["tomogram"]}

    write_relion_tomograms(tmp_path / "tomograms.star", TOMOGRAMS, files=files)

    pd.testing.assert_frame_equal(read_relion_tomograms(tmp_path / "tomograms.star"), TOMOGRAMS)


@pytest.mark.data
def test_tilt_images_of_subtomograms_are_no_positions_in_3d(test_data: Path) -> None:
    path = test_data / "formats" / "sta_testing_bin8.star"

    with pytest.raises(TableError, match="rlnCoordinateX, for x, y and z; got none"):
        read_tomogram_picks(path, tomograms=TOMOGRAMS)


def test_unknown_tomograms_are_refused(tmp_path: Path) -> None:
    path = write_tomogram_picks(tmp_path, some_picks())[0]

    with pytest.raises(TableError, match=r"tomogram TS_01 of .* must be among the tomograms"):
        read_tomogram_picks(path, tomograms=TOMOGRAMS[1:])


def test_positions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TableError, match="must hold finite positions"):
        one_pick(float("nan"), 0, 0)


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"format": "csv", "dynamo_base": 0}, "dynamo_base must be given with dynamo only"),
        ({"format": "copick", "user": "a_b"}, "user must have no underscore"),
    ],
)
def test_choices_of_another_format_are_refused(choice: dict[str, object], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        TomogramFormatParameters(**choice)  # type: ignore[arg-type]


def test_names_lose_folder_and_suffix_only() -> None:
    assert tomogram_name("a/TS_03_10.00Apx.mrc") == "TS_03_10.00Apx"
