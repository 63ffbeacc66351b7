"""Micrographs that are added, and of another kind, change nothing of what the first have given."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from run_world import DIAMETER, GENERAL, QUICK, TABLE, changed, new_steps, run

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.relion import read_micrographs, read_particles, write_micrographs

pytest_plugins = ("run_world",)

LEARN = RunParameters(diameter=DIAMETER, picker="template", subset=2, **QUICK)


@pytest.fixture
def own(run_folder: Path) -> Path:
    """A folder with two of the fields of 4 A/px."""
    folder = Path("own")
    folder.mkdir()
    for path in sorted(Path("data/micrographs").iterdir())[:2]:
        shutil.copy(path, folder)
    return folder


def add_finer(folder: Path) -> None:
    """Add a field of other pixels than the others have, which sorts before them."""
    pixels = read_mrc(Path("data/micrographs/sim_00003.mrc"))
    write_mrc(folder / "a_finer.mrc", pixels, pixel_size=3.2)


def test_the_box_of_the_first_particles_is_that_of_the_first_micrographs(own):
    parameters = changed(LEARN, until="picks", ctf="ignore")
    before = run(str(own), parameters=parameters)
    add_finer(own)

    result = run(str(own), parameters=parameters)

    assert result.halted is None, result.halted
    assert new_steps(result) == ["picks"]
    (own / "a_finer.mrc").rename(own / "z_finer.mrc")
    at_once = run(str(own), parameters=parameters, out="at_once")
    boxes = [r.steps[1].facts["box_size"] for r in (before, result, at_once)]
    assert boxes == [84, 84, 84]


def test_particles_of_all_have_the_box_of_the_finest(own):
    parameters = changed(GENERAL, until="particles", ctf="ignore")
    run(str(own), parameters=parameters)
    add_finer(own)

    result = run(str(own), parameters=parameters)

    assert new_steps(result) == ["picks", "particles"]
    assert result.steps[1].facts["box_size"] == 108  # 1.5 * 1.2 * 180 A / 3.2 A, and a little
    table = read_particles(Path("project/particles/particles.star"))
    assert {read_mrc(Path(n)).shape[-1] for n in table.rows["image"]} == {GENERAL.rescale}
    sizes = table.optics.set_index("optics_group")["pixel_size"]
    finer = table.rows["micrograph"].str.contains("a_finer")
    assert {round(s, 3) for s in sizes[table.rows["optics_group"][finer]]} == {3.2 * 108 / 32}
    assert {round(s, 3) for s in sizes[table.rows["optics_group"][~finer]]} == {4 * 108 / 32}


def test_picks_of_before_stay_when_an_image_of_other_pixels_sorts_first(own):
    parameters = changed(GENERAL, until="picks", ctf="ignore")
    run(str(own), parameters=parameters)
    before = {p: p.stat().st_mtime_ns for p in Path("project/picks").rglob("sim_*_autopick.star")}
    add_finer(own)

    result = run(str(own), parameters=parameters)

    assert [step.number for step in result.steps] == [1]
    assert result.steps[0].facts["n_micrographs"] == 3
    assert {p: p.stat().st_mtime_ns for p in before} == before


def corrects_ctf(project: str) -> list[bool]:
    """Whether each classification has corrected for the CTF."""
    found = []
    for name in ("first_classes", "classes"):
        text = next(Path(project, name).glob("run_it*_optimiser.star")).read_text()
        line = next(t for t in text.splitlines() if t.startswith("_rlnDoCorrectCtf "))
        found.append(line.split()[1] == "1")
    return found


def test_whether_the_ctf_can_be_trusted_is_asked_of_the_micrographs_of_a_step(run_folder):
    table = read_micrographs(Path(TABLE))
    names = [f"data/{n}" for n in table.rows["micrograph"]]
    rows = table.rows.assign(micrograph=names, is_ctf_trusted=[1, 1, 0, 0, 0])
    for name, count in (("two.star", 2), ("five.star", 5)):
        write_micrographs(Path(name), replace(table, rows=rows.iloc[:count]))
    run("two.star", parameters=LEARN)
    assert corrects_ctf("project") == [True, True]

    added = run("five.star", parameters=LEARN)
    run("five.star", parameters=LEARN, out="at_once")

    assert new_steps(added) == ["picks", "particles", "classes", "selection"]
    assert corrects_ctf("project") == corrects_ctf("at_once") == [True, False]
    assert new_steps(run("five.star", parameters=LEARN)) == []
