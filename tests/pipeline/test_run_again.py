"""A run is asked for again after something has changed that its parameters do not say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_world import DIAMETER, GENERAL, changed, new_steps, run

from cryopick.io.mrc import read_mrc, write_mrc

pytest_plugins = ("run_world",)


@pytest.fixture
def own(run_folder: Path) -> Path:
    folder = Path("own")
    folder.mkdir()
    for path in sorted(Path("data/micrographs").iterdir())[:3]:
        shutil.copy(path, folder)
    return folder


def test_what_was_forgotten_of_the_microscope_may_be_given_later(own: Path) -> None:
    forgotten = changed(GENERAL, until="ctf")

    halted = run(str(own), parameters=forgotten).halted
    assert halted is not None
    assert "--voltage" in str(halted.error)

    given = changed(forgotten, voltage=300.0, spherical_aberration=2.7)
    assert run(str(own), parameters=given).halted is None


def test_a_micrograph_that_sorts_first_is_added_at_the_end(own: Path) -> None:
    parameters = changed(GENERAL, until="picks", ctf="ignore")
    run(str(own), parameters=parameters)
    before = {p: p.read_bytes() for p in Path("project/picks").rglob("sim_*_autopick.star")}
    assert len(before) == 3
    shutil.copy("data/micrographs/sim_00004.mrc", own / "a_first.mrc")

    result = run(str(own), parameters=parameters)

    assert [s.number for s in result.steps] == [1]
    assert result.steps[0].facts["n_micrographs"] == 4
    assert {p: p.read_bytes() for p in before} == before
    names = Path("project/micrographs.star").read_text()
    assert names.index("sim_00003") < names.index("a_first")


def test_two_names_of_one_micrograph_keep_their_results(own: Path) -> None:
    (own / "same.mrc").symlink_to("sim_00001.mrc")
    parameters = changed(GENERAL, until="picks", ctf="ignore")
    for _ in range(2):
        result = run(str(own), parameters=parameters)
    assert new_steps(result) == []
    assert Path("project/micrographs.star").read_text().count("own/same.mrc") == 1
    shutil.copy("data/micrographs/sim_00004.mrc", own)

    result = run(str(own), parameters=parameters)

    assert result.halted is None
    assert [step.number for step in result.steps] == [1]
    assert result.steps[0].facts["n_micrographs"] == 5


def test_a_field_that_was_refused_is_tried_again(own: Path) -> None:
    parameters = changed(GENERAL, until="picks", ctf="ignore")
    broken = own / "sim_00002.mrc"
    kept = broken.read_bytes()
    stamp = broken.stat()
    write_mrc(broken, 0 * read_mrc(broken), pixel_size=4.0)
    assert list(run(str(own), parameters=parameters).refused)
    broken.write_bytes(kept)
    assert stamp.st_size == broken.stat().st_size

    result = run(str(own), parameters=parameters)

    assert not result.refused
    assert new_steps(result) == ["picks"]


def test_other_weights_of_the_package_are_another_result(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryopick.pipeline import run_graph

    parameters = changed(GENERAL, until="picks", ctf="ignore")
    run(str(own), parameters=parameters)
    monkeypatch.setattr(run_graph, "_digest_of", lambda _: "others")
    assert [s.number for s in run(str(own), parameters=parameters).steps] == [2]


def test_a_picker_cannot_be_trained_on_one_micrograph(own: Path) -> None:
    from cryopick.errors import DataError

    for path in sorted(own.iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="be at least 2 for a picker to be trained"):
        run(str(own), parameters=changed(GENERAL, picker="network", ctf="ignore"))
    assert not Path("project").exists()


def test_the_report_is_drawn_again_only_if_it_would_tell_something_else(own: Path) -> None:
    parameters = changed(GENERAL, until="picks", ctf="ignore")
    report = Path("project/report.html")
    run(str(own), parameters=parameters)
    first = report.stat().st_ino
    run(str(own), parameters=parameters)
    assert report.stat().st_ino == first

    report.write_bytes(report.read_bytes()[:-1])  # written by a faulty disk, or edited
    run(str(own), parameters=parameters)
    second = report.stat().st_ino
    assert second != first
    report.unlink()
    run(str(own), parameters=parameters)
    assert report.exists()

    before = report.read_text()
    shutil.copy("data/micrographs/sim_00004.mrc", own)
    run(str(own), parameters=parameters)
    assert report.read_text() != before
    assert "sim_00004" in report.read_text()


def test_a_run_with_nothing_to_do_does_not_load_what_computes(own: Path) -> None:
    run(str(own), parameters=changed(GENERAL, until="picks", ctf="ignore"))
    words = f"cryopick run {own} --diameter {DIAMETER} --picker general --classes 4 --rescale 32"
    words += " --until picks --ctf ignore --out project --json"
    code = (
        "import sys\nfrom cryopick.cli import app\n"
        f"sys.argv = {words.split()}\n"
        "try:\n    app.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert not any(s["is_new"] for s in json.loads(done.stdout)["steps"].values())
