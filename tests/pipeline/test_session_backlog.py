"""Many micrographs at once, changed files, what is tried again: the files are those of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_world import GENERAL, changed, leftovers, run
from session_world import (
    FIELDS,
    LENS,
    OPEN,
    TO_PARTICLES,
    bring,
    by_step,
    comparable,
    make_older,
    meanwhile,
    session,
    status_of,
    until,
    wait_for,
)

from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.ledger_tail import LedgerTail
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.session_layout import ask

pytest_plugins = ("run_world",)


def bring_many(count):
    """Bring so many fields at once; the five that there are come again under other names."""
    aside = Path("aside")
    aside.mkdir()
    for number in range(count):
        path = aside / f"f_{number:02d}.mrc"
        shutil.copyfile(Path(FIELDS, f"sim_{number % 5 + 1:05d}.mrc"), path)
        make_older(path)
    aside.rename("incoming")


def lines_of(step):
    [ledger] = Path("project/jobs").glob(f"*_{step}/ledger.jsonl")
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def made_by_run(tmp_path, monkeypatch, parameters=TO_PARTICLES):
    """What a run makes of the files that are there now, in a folder with the same names."""
    place = tmp_path / "beside"
    place.mkdir()
    (place / "incoming").symlink_to(Path("incoming").resolve())
    with monkeypatch.context() as patch:
        patch.chdir(place)
        assert run("incoming", parameters=parameters).halted is None
        return comparable("project")


def test_the_newest_come_first_and_the_files_are_those_of_a_run(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("cryopick.pipeline.session_runner._PORTION", 1e6)  # s, on any machine
    bring_many(10)

    session("incoming", parameters=TO_PARTICLES)

    names = [
        Path(n).stem for n in read_star(Path("project/micrographs.star"))["micrographs"].iloc[:, 0]
    ]
    for step in ("ctf", "picks", "particles"):
        order = [names.index(Path(line["key"]).name) for line in lines_of(step)]
        assert sorted(order) == list(range(10))
        assert order[:6] == [0, 1, 6, 7, 8, 9]
    assert comparable("project") == made_by_run(tmp_path, monkeypatch)
    assert not leftovers("project")
    assert verify_project(Path("project")) == []


def test_a_file_that_changes_is_worked_on_anew(run_folder, tmp_path, monkeypatch):
    bring(1, 2, 3)

    def change():
        shutil.copyfile("data/micrographs/sim_00004.mrc", "incoming/.aside")
        make_older("incoming/.aside")
        Path("incoming/.aside").rename("incoming/sim_00002.mrc")
        bring(5)

    with meanwhile(until(extracted=3), change, until(extracted=4)):
        session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    keys = [line["key"] for line in lines_of("ctf")]
    assert keys.count("incoming/sim_00002") == 2
    assert len(keys) == 5
    assert comparable("project") == made_by_run(tmp_path, monkeypatch)


@pytest.mark.slow
def test_when_more_fields_change_what_a_picker_goes_by_its_new_job_has_all_of_them(
    run_folder, tmp_path, monkeypatch
):
    parameters = changed(
        GENERAL, also_pick="blob", consensus="reliability", until="consensus", **LENS
    )
    bring(1)
    path = Path("incoming/sim_00001.mrc")  # without rings: the CTF is not trusted
    noise = np.random.default_rng(1).normal(size=read_mrc(path).shape[-2:])
    write_mrc(path, noise.astype(np.float32), pixel_size=4.0)
    keys = []

    def look():
        jobs = sorted(Path("project/jobs").glob("*_blob_picks"))
        keys.append([len(LedgerTail(path=job / "ledger.jsonl").read_new()) for job in jobs])

    def bring_both():  # listed together, whenever somebody looks
        ask(Path("project"), "pause")
        wait_for(lambda status: status["state"] == "paused")
        bring(2, 3)
        until(listed=3)()
        ask(Path("project"), "resume")

    with meanwhile(
        until(picked=1), have_picked(1), bring_both, until(picked=3), have_picked(3), look
    ):
        session("incoming", parameters=parameters, watching=OPEN)

    assert keys == [[1, 3]]
    made = by_step(made_by_run(tmp_path, monkeypatch, parameters), "blob_picks")
    assert len(made) >= 6
    assert by_step(comparable("project"), "blob_picks") == made


def have_picked(count):
    """Wait until all pickers have picked so many."""

    def holds(status):
        steps = {step["name"]: step["done"] for step in status["steps"]}
        return steps["picks"] == steps["blob_picks"] == count

    return lambda: wait_for(holds)


def test_all_that_was_refused_is_tried_again_however_many_micrographs_there_are(run_folder):
    bring_many(7)
    last = sorted(Path("incoming").iterdir())[-1]
    good, status = last.read_bytes(), last.stat()
    last.write_bytes(good[:1024] + b"\xff" * (len(good) - 1024))

    def mend():
        import os

        last.write_bytes(good)
        os.utime(last, ns=(status.st_atime_ns, status.st_mtime_ns))
        ask(Path("project"), "retry")

    def is_mended(status):
        return status["counts"]["failed"] == 0

    with meanwhile(until(failed=1, extracted=6), mend, lambda: wait_for(is_mended)):
        session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    assert status_of("project")["counts"]["extracted"] == 7


def test_the_lists_of_a_job_name_each_micrograph_while_more_come(run_folder):
    bring(1, 2)
    good = Path("incoming/sim_00001.mrc").read_bytes()
    Path("incoming/poison.mrc").write_bytes(good[:1024] + b"\xff" * (len(good) - 1024))
    seen, failed = [], []

    def names(step, name, block):
        [path] = Path("project/jobs").glob(f"*_{step}/{name}")
        return [Path(n).stem for n in read_star(path)[block]["rlnMicrographName"]]

    def look():
        wait_for(lambda _: len(names("picks", "autopick.star", "coordinate_files")) == 3)
        seen.append(names("ctf", "micrographs_ctf.star", "micrographs"))
        seen.append(names("picks", "summary.star", ""))
        failed.append(names("ctf", "failed.star", "failed"))

    with meanwhile(until(extracted=2), lambda: bring(3), until(extracted=3), look):
        session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    assert [sorted(one) for one in seen] == [["sim_00001", "sim_00002", "sim_00003"]] * 2
    assert failed == [["poison"]]
