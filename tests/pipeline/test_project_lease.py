from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from cryopick.errors import OutputError, ProjectError
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_holder import Holder, read_holder, this_place
from cryopick.pipeline.project_lease import Lease, LeaseTimes
from cryopick.pipeline.project_status import read_status

HOLD = """
import sys, time
from pathlib import Path
from cryopick.errors import ProjectError
from cryopick.pipeline.project import Project
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    project = Project.open(Path(sys.argv[1]), create=True, command="cryopick run mics.star")
except ProjectError as error:
    print(f"refused {error}", flush=True)
    sys.exit()
print("holds", flush=True)
sys.stdin.read()
project.close()
"""


class Clock:
    """A clock that moves only when somebody sleeps, and what happens meanwhile."""

    def __init__(self, happens=lambda now: None):
        self.now = 1000.0
        self.happens = happens
        self.times = LeaseTimes(beat=1e6, monotonic=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        self.now += seconds
        self.happens(self.now - 1000.0)


def start(folder, go, script=HOLD):
    command = [sys.executable, "-c", script, str(folder), str(go)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


def end(process):
    out, _ = process.communicate(timeout=240)
    return out


@pytest.fixture
def go(tmp_path):
    (tmp_path / "go").touch()
    return tmp_path / "go"


def write_foreign(folder, *, host="node17", seq=5, uuid="theirs", **values):
    """The lock of a process on another machine."""
    place = replace(this_place(), host=host, boot_id="another boot", **values)
    holder = Holder(**asdict(place), uuid=uuid, seq=seq, since="earlier", command="cryopick run")
    folder.mkdir(exist_ok=True)
    (folder / "project.lock.json").write_text(json.dumps(asdict(holder)))


def test_of_processes_that_race_for_a_project_exactly_one_gets_it(tmp_path):
    racers = [start(tmp_path / "project", tmp_path / "go") for _ in range(4)]
    time.sleep(0.5)  # until all of them wait at the line
    (tmp_path / "go").touch()
    said = [racer.stdout.readline() for racer in racers]
    for racer in racers:
        end(racer)

    assert sum(line == "holds\n" for line in said) == 1
    for line in said:
        if line != "holds\n":
            assert "must be managed by one run at a time; got host" in line
            assert "cryopick run mics.star" in line
    assert not (tmp_path / "project" / "project.lock.json").exists()


def test_a_second_manager_is_told_who_the_first_is_and_readers_are_not_kept_out(tmp_path, go):
    holder = start(tmp_path / "project", go)
    assert holder.stdout.readline() == "holds\n"

    with pytest.raises(ProjectError) as refused:
        Project.open(tmp_path / "project")
    status = read_status(Project.open(tmp_path / "project", writes=False))
    end(holder)

    who = f"host {this_place().host}, process {holder.pid}, since "
    assert f"got {who}" in str(refused.value)
    assert str(refused.value).endswith(
        "cryopick run mics.star. Wait until it has ended, or stop it."
    )
    assert status.holder.startswith(who)
    assert read_status(Project.open(tmp_path / "project", writes=False)).holder == ""


def test_a_holder_that_was_killed_is_followed_at_once(tmp_path, go):
    folder = tmp_path / "project"
    holder = start(folder, go)
    assert holder.stdout.readline() == "holds\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    end(holder)
    left = read_holder(folder / "project.lock.json")

    assert "it has ended" in read_status(Project.open(folder, writes=False)).holder
    clock = Clock()
    with Project.open(folder, times=clock.times) as project:
        mine = read_holder(folder / "project.lock.json")
        project.require_lease()

    assert clock.now - 1000.0 < 1.0
    assert (left.pid, mine.pid) == (holder.pid, os.getpid())
    assert [p.name for p in folder.glob(".*") if "takeover" in p.name] == []


def test_a_later_process_with_the_number_of_a_dead_holder_does_not_pass_for_it(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    place = replace(this_place(), process_start="1")  # of this number, but begun at another time
    holder = Holder(**asdict(place), uuid="old", seq=1, since="", command="")
    (folder / "project.lock.json").write_text(json.dumps(asdict(holder)))

    with Project.open(folder, create=True) as project:
        project.require_lease()


def test_a_silent_holder_on_another_host_is_followed_after_a_minute_and_not_before(tmp_path):
    write_foreign(tmp_path)
    clock, told = Clock(), []

    with Project.open(tmp_path, create=True, times=clock.times, tell=told.append) as project:
        project.require_lease()

    assert 60.0 <= clock.now - 1000.0 <= 61.0
    (sentence,) = told
    assert "host node17" in sentence
    assert "watched for 60 s" in sentence


@pytest.mark.parametrize("place", [{"pid_space": "pid:[1]"}, {"host": "node18"}])
def test_a_container_and_a_machine_of_another_name_count_as_another_host(tmp_path, place):
    write_foreign(tmp_path, **place)
    lock = tmp_path / "project.lock.json"
    lock.write_text(json.dumps(json.loads(lock.read_bytes()) | {"boot_id": this_place().boot_id}))
    clock = Clock()

    Project.open(tmp_path, create=True, times=clock.times).close()

    assert clock.now - 1000.0 >= 60.0


def test_a_holder_on_another_host_that_shows_life_is_not_followed(tmp_path):
    write_foreign(tmp_path)
    clock = Clock(lambda passed: write_foreign(tmp_path, seq=6) if passed >= 30 else None)

    with pytest.raises(ProjectError, match="got host node17"):
        Project.open(tmp_path, create=True, times=clock.times)

    assert 30.0 <= clock.now - 1000.0 < 32.0
    assert read_holder(tmp_path / "project.lock.json").uuid == "theirs"
    assert not (tmp_path / "project.json").exists()


def test_a_project_that_a_holder_elsewhere_gives_back_is_taken_at_once(tmp_path):
    write_foreign(tmp_path)
    lock = tmp_path / "project.lock.json"
    clock = Clock(lambda passed: lock.unlink(missing_ok=True) if passed >= 5 else None)

    Project.open(tmp_path, create=True, times=clock.times).close()

    assert clock.now - 1000.0 < 7.0


def test_a_lock_that_cannot_be_read_is_watched_like_one_elsewhere(tmp_path):
    (tmp_path / "project.lock.json").write_text("")
    clock = Clock()

    Project.open(tmp_path, create=True, times=clock.times).close()

    assert clock.now - 1000.0 >= 60.0


def test_of_two_that_follow_a_silent_holder_the_second_is_refused(tmp_path):
    write_foreign(tmp_path)
    leases = [Lease(tmp_path, times=Clock().times) for _ in range(2)]

    first = leases[0].acquire()
    with pytest.raises(ProjectError, match="managed by one run at a time"):
        leases[1].acquire()
    first.require()
    first.release()


def test_a_claim_that_a_killed_follower_left_does_not_close_the_project(tmp_path):
    write_foreign(tmp_path)
    dead = Holder(
        **asdict(replace(this_place(), process_start="1")), uuid="d", seq=0, since="", command=""
    )
    (tmp_path / ".project.takeover.theirs").write_text(json.dumps(asdict(dead)))

    clock = Clock()

    Project.open(tmp_path, create=True, times=clock.times).close()

    assert not (tmp_path / ".project.takeover.theirs").exists()
    assert clock.now - 1000.0 <= 61.0  # the dead claimant is not waited for


def test_a_claim_of_a_killed_process_on_an_earlier_holder_is_removed(tmp_path):
    dead = Holder(
        **asdict(replace(this_place(), process_start="1")), uuid="d", seq=0, since="", command=""
    )
    alive = replace(dead, process_start=this_place().process_start)
    (tmp_path / ".project.takeover.earlier").write_text(json.dumps(asdict(dead)))
    (tmp_path / ".project.takeover.other").write_text(json.dumps(asdict(alive)))

    Project.open(tmp_path, create=True).close()

    assert [p.name for p in tmp_path.glob(".project.takeover.*")] == [".project.takeover.other"]


def test_one_that_comes_late_to_follow_a_silent_holder_does_not_push_out_the_new_one(
    tmp_path, monkeypatch
):
    write_foreign(tmp_path)
    first, late = (Lease(tmp_path, times=Clock().times) for _ in range(2))
    create = Lease._create

    def create_after_the_first(self, path):
        if self is late and "takeover" in path.name and not (tmp_path / "done").exists():
            (tmp_path / "done").touch()
            first.acquire()
        return create(self, path)

    monkeypatch.setattr(Lease, "_create", create_after_the_first)

    with pytest.raises(ProjectError, match="managed by one run at a time"):
        late.acquire()
    first.require()
    first.release()


def test_a_manager_whose_lease_was_taken_stops_before_it_commits_anything(tmp_path):
    with Project.open(tmp_path, create=True, times=Clock().times) as project:
        number = project.new_job("pick", "a").number
        write_foreign(tmp_path)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

        for change in (
            lambda: project.new_job("pick", "b"),
            lambda: project.finish_job(number),
            lambda: project.resume_job(number),
            lambda: project.set_alias("pick", number),
            lambda: project.add_decision("reject"),
            project.update_index,
        ):
            with pytest.raises(
                ProjectError, match=r"still be managed by this run; got host node17"
            ):
                change()

    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert read_holder(tmp_path / "project.lock.json").uuid == "theirs"  # not given back for them


def test_the_lease_is_renewed_and_its_loss_noticed_while_nothing_is_committed(tmp_path):
    lease = Lease(tmp_path, times=LeaseTimes(beat=0.01)).acquire()
    try:
        deadline = time.monotonic() + 120
        while read_holder(tmp_path / "project.lock.json").seq < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        while not lease.is_lost:
            assert time.monotonic() < deadline
            write_foreign(tmp_path)  # once more where that was amid a renewal, which goes over it
            time.sleep(0.05)
    finally:
        lease.release()

    assert read_holder(tmp_path / "project.lock.json").uuid == "theirs"


def test_a_lock_that_somebody_removed_ends_the_lease(tmp_path):
    with Project.open(tmp_path, create=True, times=Clock().times) as project:
        (tmp_path / "project.lock.json").unlink()

        with pytest.raises(ProjectError, match="somebody has removed"):
            project.new_job("pick", "a")


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match=r"must lie in a folder; got not a directory\. "):
        Lease(tmp_path / "file").acquire()
