"""Blob picking in RELION's mode: closed forms, a slow obvious search, and RELION itself."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.errors import DataError, ParameterError
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.log_relion import _take_highest, pick_log_relion
from cryopick.picking.log_relion_response import (
    ctf_until_first_peak,
    scale_diameters,
    working_size,
)

_FLAGS = {
    "adjust_threshold": "--LoG_adjust_threshold",
    "upper_threshold": "--LoG_upper_threshold",
    "neighbour_distance": "--LoG_neighbour",
    "max_search": "--Log_max_search",
    "outlier_zscore": "--outlier_removal_zscore",
    "skip_side": "--skip_side",
}
_CTF = FieldCtf(21000.0, 18000.0, 35.0, 300.0, 2.7, 0.1)


def parameters(**given: Any) -> LogParameters:
    values = {"min_diameter": 100, "max_diameter": 150, "mode": "relion"} | given
    return LogParameters(**values)


def simulated_field(
    height: int, width: int, *, seed: int = 0, contrast: float = -0.7
) -> np.ndarray:
    """White noise with discs of 120 A at 1.5 A/px, dark unless said otherwise."""
    random = np.random.default_rng(seed)
    field = random.standard_normal((height, width), np.float32)
    steps = np.arange(-40, 41) ** 2
    disc = contrast * (steps[:, None] + steps[None, :] < 40**2)
    for y, x in random.integers(0, (height - 81, width - 81), (height * width // 40000, 2)):
        field[y : y + 81, x : x + 81] += disc
    return field


def pick(field: np.ndarray, **given: Any) -> FieldPicks:
    ctf = given.pop("ctf", None)
    return pick_log_relion(
        torch.from_numpy(field), pixel_size=1.5, parameters=parameters(**given), ctf=ctf
    )


def table(found: FieldPicks) -> np.ndarray:
    keep = found.is_pick
    return np.stack([found.x[keep], found.y[keep], found.fom[keep]], axis=1)


def relion_picks(field: np.ndarray, folder: Path, **given: Any) -> np.ndarray:
    """Pick with relion_autopick: (n, 3) x, y, fom."""
    if shutil.which("relion_autopick") is None:
        pytest.skip("relion_autopick is not installed")
    ctf = given.pop("ctf", None)
    values = parameters(**given)
    with mrcfile.new(folder / "a.mrc") as mrc:
        mrc.set_data(field)
    command = ["relion_autopick", "--odir", "out/", "--LoG"]
    command += ["--LoG_diam_min", f"{values.min_diameter:g}"]
    command += ["--LoG_diam_max", f"{values.max_diameter:g}"]
    if ctf is None:
        command += ["--i", "a.mrc", "--angpix", "1.5"]
    else:
        _write_table(folder / "a.star", ctf)
        command += ["--i", "a.star", "--LoG_use_ctf"]
    if values.value("max_resolution"):
        command += ["--shrink", "0", "--lowpass", f"{values.value('max_resolution'):g}"]
    if values.white_particles:
        command.append("--Log_invert")
    if not values.value("optimise_scale"):
        command.append("--skip_optimise_scale")
    for name, flag in _FLAGS.items():
        if name in given:
            command += [flag, str(given[name])]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return read_coordinates(folder / "out" / "a_autopick.star")


def read_coordinates(path: Path) -> np.ndarray:
    rows = [line.split() for line in path.read_text().splitlines() if re.match(r"\s*-?\d", line)]
    return np.array(rows, float).reshape(len(rows), -1)[:, :3]


def _write_table(path: Path, ctf: FieldCtf) -> None:
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n"
        f"_rlnAmplitudeContrast #6\nog 1 1.5 {ctf.voltage} {ctf.spherical_aberration} "
        f"{ctf.amplitude_contrast}\n\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
        "_rlnOpticsGroup #2\n_rlnDefocusU #3\n_rlnDefocusV #4\n_rlnDefocusAngle #5\n"
        f"a.mrc 1 {ctf.defocus_u} {ctf.defocus_v} {ctf.defocus_angle}\n\n"
    )


def matches(
    theirs: np.ndarray, ours: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each of their picks: whether we have it within `tolerance` px, and our nearest."""
    if not len(ours):
        return np.zeros(len(theirs), bool), np.zeros(len(theirs), int)
    apart = np.hypot(*(theirs[:, None, :2] - ours[None, :, :2]).transpose(2, 0, 1))
    return apart.min(axis=1) < tolerance, apart.argmin(axis=1)


@pytest.mark.relion
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"white_particles": True},
        {"adjust_threshold": 0.7},
        {"adjust_threshold": -2.0},
        {"upper_threshold": 2.5},
        {"neighbour_distance": 60, "max_search": 3},
        {"max_search": 1},
        {"outlier_zscore": 2.0},
        {"skip_side": 150},
        {"max_resolution": 0},
        {"max_resolution": 21, "optimise_scale": False},
        {"max_resolution": 9},
        {"min_diameter": 121, "max_diameter": 121},
        {"use_ctf": True, "ctf": _CTF},
    ],
    ids=lambda given: " ".join(given) or "shipped",
)
@pytest.mark.parametrize("side", [700, 701])
def test_square_field_gives_relions_picks(tmp_path: Path, side: int, given: dict[str, Any]) -> None:
    field = simulated_field(side, side, contrast=0.7 if "white_particles" in given else -0.7)
    theirs = relion_picks(field, tmp_path, **given)

    ours = table(pick(field, **given))

    is_found, nearest = matches(theirs, ours, 0.01)
    assert len(theirs) == len(ours) > 0
    assert is_found.all()
    np.testing.assert_allclose(ours[nearest, 2], theirs[:, 2], atol=1e-5, rtol=2e-5)


@pytest.mark.data
@pytest.mark.relion
@pytest.mark.parametrize("white", [False, True], ids=["dark", "white"])
def test_apoferritin_gives_relions_picks(test_data: Path, tmp_path: Path, white: bool) -> None:
    working_pixel = 1240 / 184 + 0.01
    near, total, equal = 0, 0, []
    for path in sorted((test_data / "apoferritin" / "micrographs").glob("*.mrc")):
        (tmp_path / path.stem).mkdir()
        field = mrcfile.read(path).astype(np.float32)
        given = {"min_diameter": 110, "max_diameter": 140, "white_particles": white}
        theirs = relion_picks(field, tmp_path / path.stem, **given)
        ours = table(pick(field, **given))
        is_found, nearest = matches(theirs, ours, working_pixel)
        is_away = (theirs[:, 1] > 200) & (theirs[:, 1] < 1000)  # rows are padded by 20 px
        near += is_found.sum()
        total += len(theirs)
        equal += list(np.abs(ours[nearest, 2] - theirs[:, 2])[is_found & is_away])
    assert near / total >= 0.99
    assert np.mean(np.array(equal) < 1e-4) > 0.99


@pytest.mark.data
@pytest.mark.parametrize("stem", ["May08_03.05.02", "May08_03.13.02"])
def test_picks_are_those_of_relion_5(test_data: Path, stem: str) -> None:
    job = test_data / "relion5" / "AutoPick" / "job001" / "micrographs"
    theirs = read_coordinates(job / f"{stem}_autopick.star")
    field = mrcfile.read(test_data / "apoferritin" / "micrographs" / f"{stem}.mrc")

    found = pick(field.astype(np.float32), min_diameter=110, max_diameter=140, white_particles=True)

    ours = table(found)
    is_found, nearest = matches(theirs, ours, 1240 / 184 + 0.01)
    assert abs(len(ours) - len(theirs)) <= 2
    assert is_found.mean() > 0.97  # they padded with other noise
    is_away = is_found & (theirs[:, 1] > 200) & (theirs[:, 1] < 1000)
    apart = np.abs(ours[nearest, 2] - theirs[:, 2])[is_away]
    assert np.median(apart) < 1e-5


def test_response_to_a_wave_is_the_filter_at_its_frequency() -> None:
    diameter, side, cycles = 120.0, 600, 6
    wave = np.cos(2 * np.pi * cycles * np.arange(side) / side, dtype=np.float32)
    field = -np.broadcast_to(wave, (side, side)).copy()

    maps = pick(field, min_diameter=diameter, max_diameter=diameter, write_fom_maps=True).maps

    df = diameter * cycles / (side * 1.5)
    expected = math.sqrt(2) * (2 * df) ** 2 * math.exp(-2 * df**2)  # z-score of a wave: sqrt 2
    assert maps["LoG120"].max() == pytest.approx(expected, rel=1e-4)


def test_a_gaussian_bump_is_found_at_its_place() -> None:
    y, x = np.mgrid[:512, :768].astype(np.float32)
    bump = np.exp(-((y - 300) ** 2 + (x - 410) ** 2) / (2 * 28.0**2))
    field = 0.01 * np.random.default_rng(1).standard_normal((512, 768)).astype(np.float32) - bump

    found = pick(field, outlier_zscore=100)

    assert math.hypot(found.x[0] - 410, found.y[0] - 300) < 20 / 1.5
    assert 100 <= found.diameter[0] <= 150


def test_white_particles_are_dark_ones_of_the_negative() -> None:
    field = simulated_field(500, 500)

    dark, white = pick(field), pick(-field, white_particles=True)

    np.testing.assert_allclose(table(dark), table(white), rtol=1e-4)


def test_mean_and_scale_of_the_grey_values_do_not_matter() -> None:
    field = simulated_field(500, 500)

    plain, counts = pick(field), pick(field * 50 + 3e4)

    np.testing.assert_allclose(table(plain)[:, 2], table(counts)[:, 2], atol=1e-4)


def test_another_threshold_is_a_filter_of_the_same_peaks() -> None:
    field = simulated_field(600, 600)

    loose, strict = pick(field, adjust_threshold=-1.0), pick(field, adjust_threshold=1.5)

    assert 0 < strict.is_pick.sum() < loose.is_pick.sum()
    np.testing.assert_array_equal(loose.fom, strict.fom)
    np.testing.assert_array_equal(loose.x[loose.fom >= strict.threshold], table(strict)[:, 0])


def test_peaks_are_in_descending_order_inside_the_margin() -> None:
    found = pick(simulated_field(500, 700), skip_side=60)

    assert (np.diff(found.fom) <= 0).all()
    assert found.x.min() > 50
    assert found.x.max() < 650
    assert found.y.min() > 50
    assert found.y.max() < 450
    assert found.valid_fraction == pytest.approx((380 * 580) / (500 * 700), abs=0.05)


def test_padding_noise_is_the_same_in_every_run_and_follows_the_seed() -> None:
    field = simulated_field(400, 700)

    first, again, other = pick(field), pick(field), pick(field, random_seed=7)

    np.testing.assert_array_equal(first.fom, again.fom)
    assert first.threshold != other.threshold


def test_the_argument_is_left_unchanged() -> None:
    field = simulated_field(400, 500)
    before = field.copy()

    pick(field, outlier_zscore=2.0)

    np.testing.assert_array_equal(field, before)


def test_search_takes_the_highest_and_silences_its_disc() -> None:
    random = np.random.default_rng(3)
    fom = random.standard_normal((60, 60)).astype(np.float32)
    size = random.integers(0, 3, (60, 60))
    radii = [3, 5, 8]

    rows, columns = _take_highest(fom, size, radii)

    left, expected = fom.copy(), []
    y, x = np.mgrid[:60, :60]
    while left.max() > 0:  # slow and obvious
        row, column = np.unravel_index(left.argmax(), left.shape)
        expected.append((row, column))
        left[(y - row) ** 2 + (x - column) ** 2 < radii[size[row, column]] ** 2] = 0
    assert list(zip(rows, columns, strict=True)) == expected


def test_a_field_without_positive_response_has_no_peak() -> None:
    found = pick(simulated_field(300, 300), skip_side=150)

    assert len(found.x) == len(found.fom) == len(found.diameter) == 0
    assert found.valid_fraction == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_is_refused(bad: float) -> None:
    field = simulated_field(300, 300)
    field[17, 200] = bad

    with pytest.raises(DataError, match="must be finite"):
        pick(field)


@pytest.mark.parametrize("value", [0.0, 3e7])
def test_a_constant_field_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="must vary"):
        pick(np.full((300, 300), value, np.float32))


def test_asking_for_a_ctf_that_is_not_there_is_refused() -> None:
    with pytest.raises(ParameterError, match="--use-ctf"):
        pick(simulated_field(300, 300), use_ctf=True)


def test_a_resolution_that_leaves_no_pixels_is_refused() -> None:
    with pytest.raises(ParameterError, match="max_resolution"):
        pick(simulated_field(300, 300), max_resolution=200)


def test_ctf_is_kept_up_to_its_first_peak_and_one_beyond() -> None:
    round_ctf = _CTF._replace(defocus_v=_CTF.defocus_u)

    values = ctf_until_first_peak(round_ctf, work=400, pixel_size=2.0)[0]

    peak = int(values[:30].argmax())
    assert values[0] == pytest.approx(0.1, abs=1e-5)
    assert (values[1 : peak + 1] > values[:peak]).all()
    assert (values[peak:] > 0.99).all()


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [(186, 184), (84, 84), (86, 86), (254, 250), (260, 264), (344, 348), (426, 432)],
)
def test_working_size_is_the_one_relion_reports(wanted: int, taken: int) -> None:
    given = parameters(max_resolution=2 * 1240 / wanted)  # the sizes are from its messages

    assert working_size(1240, pixel_size=1.0, parameters=given) == taken


@pytest.mark.parametrize(
    ("low", "high", "search", "expected"),
    [
        (150, 180, 3, [50, 75, 150, 165, 180, 360, 540]),
        (150.5, 181.3, 2, [75, 150.5, 165.9, 181.3, 363]),
        (150, 180, 1, [150, 165, 180]),
    ],
)
def test_diameters_are_those_relion_reports(
    low: float, high: float, search: int, expected: list[float]
) -> None:
    given = parameters(min_diameter=low, max_diameter=high, max_search=search)

    assert scale_diameters(given) == pytest.approx(expected)
