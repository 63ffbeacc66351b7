"""Conversion between programs: one contract for every coordinate dialect, then the details."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.errors import CryopickError, OutputError, ParameterError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.convert import convert
from cryopick.pipeline.convert_formats import FORMATS
from cryopick.pipeline.convert_parameters import ConvertParameters
from cryopick.tables.cryosparc import read_cs_particles
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.pick_scores import PROBABILITY
from cryopick.tables.relion import read_particles, write_micrographs, write_particles
from cryopick.tables.relion_picks import read_picks, write_picks_file

HEIGHT, WIDTH = 300, 400
NAMES = ["Movies/Foil.Hole_1.2_µ.mrc", "Movies/b.mrc", "Movies/none.mrc"]
# whether the format rounds to pixels, whether one file holds all micrographs
DIALECTS = {
    "xmipp": (True, False),
    "eman-box": (True, False),
    "eman-json": (True, False),
    "topaz": (True, True),
    "cryolo-cbox": (False, False),
    "cryolo-box": (False, False),
    "gautomatch": (False, False),
    "cryosparc": (False, True),
    "scipion": (True, True),
    "relion": (False, False),
}
PARAMETERS = ConvertParameters(box_size=63)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three micrographs in a folder of their own, the last without picks; picks by RELION."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).parent.mkdir(exist_ok=True)
        write_mrc(Path(name), np.zeros((HEIGHT, WIDTH), np.int8), pixel_size=1.5)
    rows = pd.DataFrame({"micrograph": NAMES, "optics_group": 1})
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [1.5], "voltage": [300.0]})
    optics = optics.assign(spherical_aberration=2.7, amplitude_contrast=0.1)
    write_micrographs(Path("micrographs.star"), Micrographs(rows=rows, optics=optics))
    return tmp_path


def write_relion_picks(folder: Path, rows: pd.DataFrame) -> Path:
    """RELION's list and files, typed from the layout."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["data_coordinate_files", "", "loop_"]
    lines += ["_rlnMicrographName #1", "_rlnMicrographCoordinates #2"]
    for number, name in enumerate(NAMES):
        file = folder / f"{number}_autopick.star"
        own = rows[rows["micrograph"] == name]
        values = [
            f"{x!r} {y!r} {f!r}" for x, y, f in zip(own["x"], own["y"], own["fom"], strict=True)
        ]
        labels = ["_rlnCoordinateX #1", "_rlnCoordinateY #2", "_rlnAutopickFigureOfMerit #3"]
        file.write_text("\n".join(["data_", "", "loop_", *labels, *values, ""]))
        lines.append(f"{name} {file}")
    (folder / "autopick.star").write_text("\n".join([*lines, ""]))
    return folder / "autopick.star"


PICKS = pd.DataFrame(
    {
        "micrograph": [NAMES[0], NAMES[0], NAMES[1]],
        "x": [100.0, 40.25, 7.0],
        "y": [50.0, 60.5, 299.0],
        "fom": [0.75, -0.25, 0.5],
    }
)


def there_and_back(dialect: str, source: Path) -> pd.DataFrame:
    is_one_file = DIALECTS[dialect][1]
    target = Path(f"out/picks{FORMATS[dialect].suffix}" if is_one_file else f"out/{dialect}")
    options = {"parameters": PARAMETERS, "micrographs": "micrographs.star"}
    convert(source, target, to_format=dialect, **options)
    result = convert(target, Path("back/autopick.star"), from_format=dialect, **options)
    assert result.n_read == result.n_written == len(read_picks(source))
    return read_picks(Path("back/autopick.star")).rows


@pytest.mark.parametrize("dialect", DIALECTS)
def test_picks_come_back_from_every_program(project: Path, dialect: str) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    back = there_and_back(dialect, source)

    tolerance = 0.5 if DIALECTS[dialect][0] else 1e-4
    assert back["micrograph"].tolist() == PICKS["micrograph"].tolist()
    np.testing.assert_allclose(back["x"], PICKS["x"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(back["y"], PICKS["y"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(back["fom"], PICKS["fom"], atol=1e-6)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_picks_come_back_as_no_picks(project: Path, dialect: str) -> None:
    source = write_relion_picks(Path("in"), PICKS[:0])

    assert len(there_and_back(dialect, source)) == 0


@pytest.mark.parametrize("dialect", [d for d, (_, is_one) in DIALECTS.items() if not is_one])
def test_micrographs_without_picks_keep_a_file(project: Path, dialect: str) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    there_and_back(dialect, source)

    listed = read_picks(Path("back/autopick.star")).attributes["micrographs"]
    assert sorted(map(str, listed)) == sorted(NAMES)


@pytest.mark.parametrize("box_size", [64, 63])
@pytest.mark.parametrize("dialect", ["eman-box", "cryolo-cbox", "cryolo-box", "xmipp"])
def test_whole_pixels_survive_even_and_odd_boxes(
    project: Path, dialect: str, box_size: int
) -> None:
    source = write_relion_picks(Path("in"), PICKS.round(0))
    options = {
        "micrographs": "micrographs.star",
        "parameters": ConvertParameters(box_size=box_size),
    }

    convert(source, Path("out"), to_format=dialect, **options)
    convert(Path("out"), Path("eman"), to_format="eman-json", **options)

    boxes = json.loads(Path("eman/Foil.Hole_1.2_µ_info.json").read_text())["boxes"]
    assert [box[:2] for box in boxes] == [[100, 50], [40, 60]]


def test_picks_that_say_what_their_score_means_become_an_info_file(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)
    write_picks_file(Path("in/0_autopick.star"), PICKS[:2], score=PROBABILITY)

    convert(source, Path("eman"), to_format="eman-json", parameters=PARAMETERS)

    content = json.loads(Path("eman/Foil.Hole_1.2_µ_info.json").read_text())
    assert list(content) == ["boxes"]
    assert [box[3] for box in content["boxes"]] == [0.75, -0.25]


@pytest.mark.parametrize("dialect", [d for d, (_, is_one) in DIALECTS.items() if not is_one])
def test_format_of_a_folder_is_recognised(project: Path, dialect: str) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    convert(source, Path("out"), to_format=dialect, parameters=PARAMETERS)
    result = convert(Path("out"), Path("picks.txt"), parameters=PARAMETERS)

    assert result.source_format == dialect
    assert result.n_micrographs == 3


def test_flip_counts_rows_from_the_other_edge(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    convert(source, Path("picks.star"), parameters=ConvertParameters(flip_y=True))

    assert read_picks(Path("picks.star")).rows["y"].tolist() == [249, 238.5, 0]


def test_flip_without_the_micrographs_says_what_is_missing(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)
    Path(NAMES[0]).unlink()

    with pytest.raises(CryopickError, match="because --flip-y needs its size"):
        convert(source, Path("picks.star"), parameters=ConvertParameters(flip_y=True))


def test_positions_and_boxes_of_reduced_images_are_scaled(project: Path) -> None:
    Path("b.box").write_text("10\t20\t16\t16\n")

    convert(Path("b.box"), Path("big.box"), parameters=ConvertParameters(scale=4))

    assert Path("big.box").read_text() == "40\t80\t64\t64\n"


def test_threshold_keeps_what_reaches_it_and_counts_the_rest(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    result = convert(source, Path("p.txt"), parameters=ConvertParameters(minimum_fom=0.5))

    assert (result.n_read, result.n_below_fom, result.n_written) == (3, 1, 2)


def test_threshold_without_figures_of_merit_is_refused(project: Path) -> None:
    Path("b.box").write_text("10\t20\t16\t16\n")

    with pytest.raises(TableError, match="must have figures of merit for --minimum-fom"):
        convert(Path("b.box"), Path("b.star"), parameters=ConvertParameters(minimum_fom=0.5))


def test_existing_files_are_kept_unless_told_otherwise(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)
    Path("out").mkdir()
    Path("out/none.pos").write_text("precious")
    options = {"to_format": "xmipp", "parameters": PARAMETERS}

    with pytest.raises(OutputError, match=r"none\.pos must not exist yet"):
        convert(source, Path("out"), **options)

    assert [p.name for p in Path("out").iterdir()] == ["none.pos"]
    assert Path("out/none.pos").read_text() == "precious"
    assert convert(source, Path("out"), overwrite=True, **options).n_written == 3


def test_box_size_is_asked_for_where_boxes_are_drawn(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    with pytest.raises(ParameterError, match="--box-size must be given for eman-box files"):
        convert(source, Path("out"), to_format="eman-box", parameters=ConvertParameters())


def test_one_file_of_one_micrograph_refuses_several(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    with pytest.raises(ParameterError, match="must be a folder, because a xmipp file is of one"):
        convert(source, Path("a.pos"), parameters=PARAMETERS)


def test_folder_of_several_formats_is_refused(project: Path) -> None:
    Path("in").mkdir()
    Path("in/a.pos").touch()
    Path("in/a.cbox").touch()

    with pytest.raises(ParameterError, match="must hold coordinate files of one format"):
        convert(Path("in"), Path("a.star"), parameters=PARAMETERS)


def test_pick_of_an_unlisted_micrograph_is_refused(project: Path) -> None:
    Path("other.box").write_text("10\t20\t16\t16\n")

    with pytest.raises(TableError, match="other, which is not among 3 names"):
        convert(
            Path("other.box"), Path("o.star"), micrographs="Movies/*.mrc", parameters=PARAMETERS
        )


def test_micrographs_of_one_name_keep_their_folders(project: Path) -> None:
    rows = PICKS.assign(micrograph=["1/a.mrc", "2/a.mrc", "2/a.mrc"])
    table = rows.rename(
        columns={"micrograph": "rlnMicrographName", "x": "rlnCoordinateX", "y": "rlnCoordinateY"}
    )
    head = "".join(f"_{label}\n" for label in table.columns)
    Path("p.star").write_text(
        f"data_\n\nloop_\n{head}{table.to_csv(sep=' ', header=False, index=False)}"
    )

    convert(Path("p.star"), Path("out"), to_format="xmipp", parameters=PARAMETERS)

    assert sorted(p.as_posix() for p in Path("out").rglob("a.pos")) == [
        "out/1/a.pos",
        "out/2/a.pos",
    ]
    with pytest.raises(
        ParameterError, match="topaz must get micrographs with different file names"
    ):
        convert(Path("p.star"), Path("p.txt"), parameters=PARAMETERS)


def make_particles() -> Particles:
    rows = pd.DataFrame(
        {
            "image": ["Extract/a.mrcs", "Extract/b.mrcs"],
            "image_index": [0, 6],
            "optics_group": [1, 1],
            "micrograph": NAMES[:2],
            "x": [100.0, 7.0],
            "y": [50.0, 8.0],
            "psi": [30.0, -75.0],
            "shift_x": [3.0, 0.5],
            "shift_y": [-1.0, 2.0],
            "class_number": [2, 1],
            "defocus_u": [12000.0, 13000.0],
            "defocus_v": [11000.0, 12500.0],
            "defocus_angle": [45.0, -10.0],
            "rlnNormCorrection": [0.9, 1.1],
        }
    )
    optics = pd.DataFrame({"optics_group": [1], "pixel_size": [3.0], "box_size": [64]})
    optics = optics.assign(voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)
    optics = optics.assign(micrograph_pixel_size=1.5)
    return Particles(rows=rows, optics=optics)


@pytest.mark.parametrize("suffix", [".xmd", ".cs", ".sqlite"])
def test_particles_come_back_from_every_program(project: Path, suffix: str) -> None:
    particles = make_particles()
    write_particles(Path("p.star"), particles)
    options = {"micrographs": "micrographs.star"}

    there = convert(Path("p.star"), Path(f"q{suffix}"), parameters=ConvertParameters(), **options)
    given = ConvertParameters(pixel_size=3.0) if suffix == ".xmd" else ConvertParameters()
    convert(Path(f"q{suffix}"), Path("back.star"), parameters=given, **options)
    back = read_particles(Path("back.star"))

    assert there.n_written == 2
    assert any("norm_correction" in note for note in there.notes)
    columns = [c for c in particles.rows.columns if c != "rlnNormCorrection"]
    pd.testing.assert_frame_equal(
        back.rows[columns], particles.rows[columns], check_dtype=False, rtol=1e-5
    )
    assert back.optics["pixel_size"].tolist() == [3.0]
    assert back.optics["voltage"].tolist() == [300.0]


def test_particles_give_the_picks_they_were_cut_at(project: Path) -> None:
    write_particles(Path("p.star"), make_particles())

    convert(Path("p.star"), Path("out"), to_format="eman-box", parameters=ConvertParameters())

    # box of 64 px at 3 A is 128 px of the micrograph at 1.5 A
    assert Path("out/b.box").read_text() == "-57\t-56\t128\t128\n"


def test_particles_give_pos_files_to_xmipp_unless_xmd_is_named(project: Path) -> None:
    write_particles(Path("p.star"), make_particles())
    options = {"to_format": "xmipp", "parameters": ConvertParameters()}

    assert convert(Path("p.star"), Path("out"), **options).kind == "picks"
    assert convert(Path("p.star"), Path("out.xmd"), **options).kind == "particles"
    assert Path("out/b.pos").is_file()


def test_options_for_picks_are_refused_with_particles(project: Path) -> None:
    write_particles(Path("p.star"), make_particles())

    with pytest.raises(ParameterError, match="--scale must be used with picks"):
        convert(Path("p.star"), Path("p.xmd"), parameters=ConvertParameters(scale=2))


def test_picks_are_refused_by_a_format_for_images(project: Path) -> None:
    write_particles(Path("p.star"), make_particles())

    with pytest.raises(ParameterError, match="--to must be a format for micrographs; got topaz"):
        convert(Path("micrographs.star"), Path("m.txt"), parameters=PARAMETERS)


def test_micrographs_travel_to_xmipp_and_back(project: Path) -> None:
    convert(Path("micrographs.star"), Path("m.xmd"), parameters=ConvertParameters())
    result = convert(Path("m.xmd"), Path("n.star"), parameters=ConvertParameters())

    assert result.kind == "micrographs"
    assert result.n_written == 3
    assert NAMES[0] in Path("n.star").read_text()


@pytest.mark.data
def test_real_cryosparc_particles_travel_through_every_program(
    test_data: Path, project: Path
) -> None:
    source = test_data / "formats" / "empiar_10076_7.cs"
    expected = read_cs_particles(source)

    previous = source
    for name in ("a.star", "b.xmd", "c.sqlite"):
        convert(previous, Path(name), parameters=ConvertParameters())
        previous = Path(name)
    convert(previous, Path("d.cs"), parameters=ConvertParameters(box_size=320))
    found = read_cs_particles(Path("d.cs"))

    for column in ("image_index", "defocus_u", "defocus_v", "defocus_angle"):
        np.testing.assert_allclose(found.rows[column], expected.rows[column], rtol=1e-6)
    assert found.rows["image"].tolist() == expected.rows["image"].tolist()


def test_command_says_what_it_did(project: Path) -> None:
    Path("a.pos").write_text(
        "data_particles\nloop_\n _enabled\n _xcoor\n _ycoor\n 1 100 50\n -1 7 8\n"
    )

    told = CliRunner().invoke(app, ["convert", "a.pos", "a.star"])
    machine = CliRunner().invoke(app, ["convert", "a.pos", "b.star", "--json"])

    assert told.exit_code == 0, told.output
    assert "Read 2 picks (xmipp), skipped 1 disabled, wrote 1 (relion) to a.star." in told.stdout
    assert json.loads(machine.stdout)["n_disabled"] == 1


def test_missing_input_is_one_sentence(project: Path) -> None:
    with pytest.raises(CryopickError, match=r"^gone\.box must be a file or folder; got no such"):
        convert(Path("gone.box"), Path("a.star"), parameters=PARAMETERS)


def test_help_names_every_format() -> None:
    told = CliRunner().invoke(app, ["convert", "--help"], env={"COLUMNS": "300"}).stdout

    assert all(name in told for name in FORMATS if name != "xmd")  # xmipp stands for both


def test_names_with_unusual_suffixes_stay_whole(project: Path) -> None:
    Path("p.star").write_text(
        "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\na.dat 1 2\n"
    )

    convert(Path("p.star"), Path("c.sqlite"), parameters=ConvertParameters())
    convert(Path("c.sqlite"), Path("again/autopick.star"), parameters=ConvertParameters())

    assert read_picks(Path("again/autopick.star")).rows["micrograph"].tolist() == ["a.dat"]


def test_subtomograms_are_refused_by_programs_for_images(project: Path) -> None:
    particles = make_particles()
    optics = particles.optics.assign(image_dimensions=3)
    write_particles(Path("p.star"), Particles(rows=particles.rows, optics=optics))

    with pytest.raises(TableError, match="must hold images for xmd; got subtomograms"):
        convert(Path("p.star"), Path("p.xmd"), parameters=ConvertParameters())


def test_particles_without_positions_give_no_picks(project: Path) -> None:
    particles = make_particles()
    rows = particles.rows.drop(columns=["micrograph", "x", "y"])
    write_particles(Path("p.star"), Particles(rows=rows, optics=particles.optics))

    with pytest.raises(TableError, match="must say where its particles lie"):
        convert(Path("p.star"), Path("out"), to_format="xmipp", parameters=PARAMETERS)


def test_missing_micrographs_are_named_as_such(project: Path) -> None:
    source = write_relion_picks(Path("in"), PICKS)

    with pytest.raises(ParameterError, match=r"--micrographs must exist; got gone\.mrc"):
        convert(source, Path("p.txt"), micrographs="gone.mrc", parameters=PARAMETERS)


def test_empty_folder_is_refused(project: Path) -> None:
    Path("in").mkdir()

    with pytest.raises(ParameterError, match="in must hold coordinate files; got none"):
        convert(Path("in"), Path("p.txt"), parameters=PARAMETERS)


def test_premultiplied_images_are_not_passed_on_in_silence(tmp_path):
    rows = pd.DataFrame({"image": ["a.mrcs"], "image_index": [0], "optics_group": [1]})
    optics = pd.DataFrame(
        {"optics_group": [1], "optics_group_name": ["a"], "pixel_size": [2.0], "box_size": [64]}
        | {"voltage": [300.0], "spherical_aberration": [2.7], "amplitude_contrast": [0.1]}
        | {"image_dimensions": [2], "is_premultiplied": [1]}
    )
    source = tmp_path / "particles.star"
    write_particles(source, Particles(rows=rows, optics=optics))

    result = convert(source, tmp_path / "p.xmd", parameters=ConvertParameters())

    assert any("multiplied by their CTF" in note for note in result.notes)
