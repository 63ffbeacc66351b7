"""The file work of ``pick log``: what a run writes, refuses, skips and repeats."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.cli.console import EXIT_SOME_FAILED
from cryopick.errors import OutputError, ParameterError, ProjectError, TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc_header, write_mrc
from cryopick.io.star import read_star
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.pickers import LogPicker
from cryopick.pipeline.picking import PickingResult, pick_micrographs
from cryopick.tables.relion import picks_of_file, read_picks

_SERIAL = ComputeParameters(workers=1, threads=1)


def parameters(**given: Any) -> LogParameters:
    values = {"min_diameter": 100, "max_diameter": 140, "mode": "relion"} | given
    return LogParameters(**values)


def run(inputs: list[str], out: Path, **given: Any) -> PickingResult:
    own = {k: given.pop(k) for k in ("pixel_size", "overwrite", "compute") if k in given}
    own.setdefault("compute", _SERIAL)
    picker = LogPicker(parameters=parameters(**given))
    return pick_micrographs(inputs, out, picker=picker, ctf=picker.ctf, **own)


def field_with_discs(
    shape: tuple[int, int], pixel_size: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Noise with six dark discs of 120 A on a jittered grid, and their (x, y)."""
    random = np.random.default_rng(seed)
    field = random.standard_normal(shape, np.float32)
    height, width = shape
    grid = np.array([(x, y) for y in (0.3, 0.7) for x in (0.2, 0.5, 0.8)]) * (width, height)
    centres = np.round(grid + random.uniform(-8, 8, grid.shape))
    y, x = np.mgrid[:height, :width]
    for cx, cy in centres:
        field[(x - cx) ** 2 + (y - cy) ** 2 < (60 / pixel_size) ** 2] -= 0.6
    return field, centres


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, NDArray[np.float64]]:
    """Three micrographs of different sizes and pixel sizes in tmp_path/raw, and their truth."""
    truth = {}
    for seed, (shape, size) in enumerate([((480, 480), 2.0), ((400, 560), 2.0), ((300, 360), 3.0)]):
        field, centres = field_with_discs(shape, size, seed)
        name = f"raw/m{seed}.mrc"
        write_mrc(tmp_path / name, field, pixel_size=size)
        truth[str(tmp_path / name)] = centres
    return truth


def write_table(path: Path, names: list[str], *, ctf: bool = False) -> None:
    columns = ["rlnMicrographName", "rlnOpticsGroup"]
    columns += ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"] if ctf else []
    values = " 15000 14000 20" if ctf else ""
    lines = ["data_optics", "", "loop_", "_rlnOpticsGroupName #1", "_rlnOpticsGroup #2"]
    lines += ["_rlnMicrographPixelSize #3", "_rlnVoltage #4", "_rlnSphericalAberration #5"]
    lines += ["_rlnAmplitudeContrast #6", "og1 1 2.0 300 2.7 0.1", "", "data_micrographs", ""]
    lines += ["loop_", *(f"_{c} #{n}" for n, c in enumerate(columns, 1))]
    lines += [f"{name} 1{values}" for name in names]
    path.write_text("\n".join([*lines, "", ""]))


@pytest.mark.parametrize("mode", ["relion", "default"])
def test_discs_are_found_in_fields_of_mixed_sizes(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]], mode: str
) -> None:
    result = run(list(fields), tmp_path / "out", mode=mode)

    assert not result.failed
    picks = read_picks(tmp_path / "out" / "autopick.star").rows
    sizes = {0: 2.0, 1: 2.0, 2: 3.0}
    for number, (name, truth) in enumerate(fields.items()):
        found = picks[picks["micrograph"] == name]
        apart = np.hypot(*(truth[:, None] - found[["x", "y"]].to_numpy()[None]).transpose(2, 0, 1))
        assert (apart.min(axis=1) * sizes[number] < 30).all()


def test_a_micrographs_files_have_relions_columns_and_ours(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    result = run(list(fields), tmp_path / "out")

    key = str(tmp_path / "raw/m0").lstrip("/")
    table = read_star(tmp_path / "out" / f"{key}_autopick.star")[""]
    assert list(table.columns) == [
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnAutopickFigureOfMerit",
        "rlnClassNumber",
        "rlnAnglePsi",
        "rlnParticleDiameter",
    ]
    assert len(table) == result.micrographs[0].n_picks > 0
    assert (table["rlnClassNumber"] == 0).all()
    assert (table["rlnAnglePsi"] == 0).all()


def test_a_threshold_is_a_filter_of_the_stored_peaks(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    loose = run(list(fields), tmp_path / "loose", adjust_threshold=-1.0)
    strict = run(list(fields), tmp_path / "strict", adjust_threshold=2.0)

    for name, few, many in zip(fields, strict.micrographs, loose.micrographs, strict=True):
        key = name.removesuffix(".mrc").lstrip("/")
        peaks = picks_of_file(tmp_path / "loose" / "peaks" / f"{key}_peaks.star", name)
        picks = picks_of_file(tmp_path / "strict" / f"{key}_autopick.star", name)
        assert few.n_picks < many.n_picks <= many.n_peaks == len(peaks)
        kept = peaks[peaks["fom"] >= few.threshold].reset_index(drop=True)
        assert kept.equals(picks)


def test_summary_holds_counts_means_and_thresholds(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    result = run(list(fields), tmp_path / "out")

    summary = read_star(tmp_path / "out" / "summary.star")[""]
    picks = read_picks(tmp_path / "out" / "autopick.star").rows
    assert list(summary["rlnMicrographName"]) == list(fields)
    for row, one in zip(summary.itertuples(), result.micrographs, strict=True):
        own = picks[picks["micrograph"] == row.rlnMicrographName]
        assert row.rlnGroupNrParticles == len(own) == one.n_picks
        assert row.rlnAutopickFigureOfMerit == pytest.approx(own["fom"].mean())
        assert row.cryopickThreshold <= own["fom"].min()
        assert row.cryopickPeaks == one.n_peaks


def test_workers_do_not_change_the_result(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    alone = run(list(fields), tmp_path / "alone")
    together = run(
        list(fields), tmp_path / "together", compute=ComputeParameters(workers=2, threads=1)
    )

    assert alone.micrographs == together.micrographs
    for path in (tmp_path / "alone").rglob("*_p*.star"):
        other = tmp_path / "together" / path.relative_to(tmp_path / "alone")
        assert path.read_bytes() == other.read_bytes()


def _make_bad(path: Path, kind: str) -> None:
    field = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    if kind == "nan":
        field[10, 10] = np.nan
    if kind == "constant":
        field[:] = 3
    write_mrc(path, field, pixel_size=2.0)
    if kind == "text":
        path.write_text("this is no image")
    if kind == "missing":
        path.unlink()


@pytest.mark.parametrize("mode", ["relion", "default"])
def test_bad_micrographs_are_listed_and_the_rest_is_picked(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]], mode: str
) -> None:
    bad = {str(tmp_path / "raw" / f"{kind}.mrc"): kind for kind in _REASONS}
    for name, kind in bad.items():
        _make_bad(Path(name), kind)

    result = run([*bad, *fields], tmp_path / "out", pixel_size=2.0, mode=mode)

    assert [m.micrograph for m in result.failed] == list(bad)
    assert [m.micrograph for m in result.picked] == list(fields)
    failed = read_star(tmp_path / "out" / "failed.star")["failed"]
    assert list(failed["rlnMicrographName"]) == list(bad)
    for reason, kind in zip(failed["cryopickReason"], bad.values(), strict=True):
        assert _REASONS[kind] in reason
        assert "\n" not in reason
    listed = read_picks(tmp_path / "out" / "autopick.star").attributes["micrographs"]
    assert listed == list(fields)


_REASONS = {
    "nan": "finite",
    "constant": "3",
    "text": "must",
    "missing": "no such file",
}


def test_a_micrograph_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    field, _ = field_with_discs((300, 300), 2.0, 0)
    write_mrc(tmp_path / "whole.mrc", field, pixel_size=2.0)
    content = (tmp_path / "whole.mrc").read_bytes()
    cut = [tmp_path / f"cut{tenth}.mrc" for tenth in range(10)]
    for tenth, path in enumerate(cut):
        path.write_bytes(content[: len(content) * tenth // 10])

    result = run([str(tmp_path / "whole.mrc"), *map(str, cut)], tmp_path / "out", pixel_size=2.0)

    assert [m.micrograph for m in result.failed] == [str(p) for p in cut]
    assert result.micrographs[0].n_picks >= 6


def test_a_second_run_does_only_what_is_new_or_changed(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    first, second, third = fields
    run([first, second], tmp_path / "out")
    out = tmp_path / "out"
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*_autopick.star")}
    _make_bad(Path(second), "nan")

    result = run(list(fields), out)

    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*_autopick.star") if p in stamps}
    assert [p.name for p in stamps if p.exists() and kept[p] == stamps[p] and p.stem[1] == "0"]
    assert [m.micrograph for m in result.failed] == [second]
    assert not list(out.rglob("m1_*.star"))  # what it left before it went bad is gone
    assert [m.micrograph for m in result.picked] == [first, third]


def test_a_mended_micrograph_is_taken_up_and_the_list_of_failures_goes(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    name = next(iter(fields))
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[:5000])
    assert run([name], tmp_path / "out", pixel_size=2.0).failed

    Path(name).write_bytes(content)
    result = run([name], tmp_path / "out", pixel_size=2.0)

    assert not result.failed
    assert not (tmp_path / "out" / "failed.star").exists()


def test_other_parameters_are_refused_unless_overwriting(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    run(list(fields), tmp_path / "out")

    with pytest.raises(ProjectError, match="adjust_threshold"):
        run(list(fields), tmp_path / "out", adjust_threshold=1.0)
    assert run(list(fields), tmp_path / "out", adjust_threshold=1.0, overwrite=True).picked


def test_fom_maps_are_written_with_their_pixel_size(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    name = list(fields)[1]  # 400 x 560 at 2 A

    run([name], tmp_path / "out", write_fom_maps=True)

    key = name.removesuffix(".mrc").lstrip("/")
    path = tmp_path / "out" / "fom_maps" / f"{key}_bestLoGc.mrc"
    header = read_mrc_header(path)
    assert header.pixel_size * header.shape[-1] == pytest.approx(1120, rel=1e-4)
    picks = picks_of_file(tmp_path / "out" / f"{key}_autopick.star", name)
    assert mrcfile.read(path).max() == pytest.approx(picks["fom"].max(), rel=1e-6)


def test_ctf_comes_from_the_table(tmp_path: Path, fields: dict[str, NDArray[np.float64]]) -> None:
    names = list(fields)[:2]
    write_table(tmp_path / "with.star", names, ctf=True)
    write_table(tmp_path / "without.star", names)

    plain = run([str(tmp_path / "with.star")], tmp_path / "plain")
    divided = run([str(tmp_path / "with.star")], tmp_path / "divided", use_ctf=True)

    assert divided.micrographs[0].mean_fom > 2 * plain.micrographs[0].mean_fom
    with pytest.raises(TableError, match="defocus_u"):
        run([str(tmp_path / "without.star")], tmp_path / "none", use_ctf=True)


def test_a_micrograph_named_twice_is_refused(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    name = next(iter(fields))
    with pytest.raises(TableError, match="once"):
        run([name, name], tmp_path / "out")


def test_a_missing_pixel_size_is_refused(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.ones((64, 64), np.float32), pixel_size=0.0)
    with pytest.raises(ParameterError, match="--pixel-size"):
        run([str(tmp_path / "a.mrc")], tmp_path / "out")


def test_an_output_folder_that_is_a_file_is_refused(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises((OutputError, ProjectError), match="out"):
        run(list(fields), tmp_path / "out")


def test_memory_too_small_for_a_field_is_refused(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    with pytest.raises(ParameterError, match="--memory"):
        run(list(fields), tmp_path / "out", compute=ComputeParameters(memory=0.1))


@pytest.mark.relion
def test_relion_extracts_from_our_coordinates_also_where_there_are_none(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("relion_preprocess") is None:
        pytest.skip("relion_preprocess is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copy("raw/m0.mrc", "raw/empty.mrc")
    write_table(tmp_path / "micrographs.star", ["raw/m0.mrc", "raw/m1.mrc"], ctf=True)
    result = run(["micrographs.star"], Path("picks"))
    one = result.micrographs[1]
    empty = run(["raw/empty.mrc"], Path("none"), pixel_size=2.0, adjust_threshold=1e5)
    assert empty.micrographs[0].n_picks == 0
    shutil.copy("none/raw/empty_autopick.star", "picks/raw/m0_autopick.star")

    command = ["relion_preprocess", "--i", "micrographs.star", "--coord_dir", "picks/"]
    command += ["--coord_suffix", "_autopick.star", "--extract", "--extract_size", "32"]
    command += ["--part_dir", "boxes/", "--part_star", "boxes/particles.star"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert "no particles on micrograph: raw/m0.mrc" in done.stdout + done.stderr
    particles = read_star(Path("boxes/particles.star"))["particles"]
    assert len(particles) == one.n_picks > 0
    assert set(particles["rlnMicrographName"]) == {"raw/m1.mrc"}
    assert (particles["rlnParticleDiameter"] >= 100).all()
    assert Path("picks/coords_suffix_autopick.star").read_text() == "micrographs.star\n"


def command_line(*words: object) -> Any:
    return CliRunner().invoke(app, ["pick", "log", *map(str, words)], standalone_mode=False)


def test_command_prints_json_and_tells_of_failures_by_its_exit_code(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    name = next(iter(fields))
    _make_bad(tmp_path / "raw" / "nan.mrc", "nan")
    out = tmp_path / "out"
    words = ["--min-diameter", 100, "--max-diameter", 140, "--mode", "relion", "--workers", 1]

    done = CliRunner().invoke(
        app,
        ["pick", "log", name, str(tmp_path / "raw" / "nan.mrc"), "--out", str(out), "--json"]
        + [str(w) for w in words],
    )

    assert done.exit_code == EXIT_SOME_FAILED
    printed = json.loads(done.stdout)
    assert printed["n_micrographs"] == 2
    assert printed["n_failed"] == 1
    assert printed["n_picks"] == len(read_picks(out / "autopick.star"))
    assert "finite" in printed["failed"][str(tmp_path / "raw" / "nan.mrc")]


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("default", ["--adjust-threshold", "0"]),
        ("default", ["--use-ctf"]),
        ("default", ["--no-optimise-scale"]),
        ("default", ["--skip-side", "0"]),
        ("relion", ["--false-positives", "0.5"]),
        ("relion", ["--min-distance", "1"]),
    ],
)
def test_an_option_that_would_do_nothing_in_a_mode_is_refused(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]], mode: str, option: list[str]
) -> None:
    words = ["--min-diameter", 100, "--max-diameter", 140, "--mode", mode, *option]

    done = command_line(next(iter(fields)), "--out", tmp_path / "out", *words)

    assert isinstance(done.exception, ParameterError)
    assert option[0].replace("--no-", "--") in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_diameters_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ParameterError, match="--min-diameter"):
        parameters(min_diameter=150)


def test_resolved_parameters_come_back_from_the_record_of_a_job(
    tmp_path: Path, fields: dict[str, NDArray[np.float64]]
) -> None:
    run(list(fields), tmp_path / "out", max_search=4)

    stored = json.loads((tmp_path / "out" / "job.json").read_text())["parameters"]
    assert stored.pop("pixel_size") is None
    assert stored["outlier_zscore"] == 8
    again = LogParameters.from_dict(stored)
    assert again.resolved() == parameters(max_search=4).resolved()


def test_a_table_that_was_there_is_not_overwritten(
    fields: dict[str, NDArray[np.float64]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "micrographs.star").write_text("mine")

    with pytest.raises(ProjectError):
        run([next(iter(fields))], out)

    assert (out / "micrographs.star").read_text() == "mine"
