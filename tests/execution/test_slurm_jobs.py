"""A run through a real Slurm, on localhost: the same results, whatever becomes of its jobs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_world
import pytest
import slurm_world as world
from picks_world import make_fields, picks

from cryopick.errors import ProjectError
from cryopick.execution.cluster import ClusterExecutor
from cryopick.execution.kept import keeping_fleets
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    world.require_slurm()
    with world.slurm(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopick.execution.slurm._LOOK", 0.5)
    monkeypatch.setattr("cryopick.execution.slurm._FRESH", 2.0)


def executor_of(folder: Path, **values: Any) -> ClusterExecutor:
    """An executor of one job."""
    compute = ComputeParameters(execution=f"slurm:{write_file(folder, **values)}")
    return make_executor(compute, n_items=9, bytes_per_item=1)


def write_file(folder: Path, **values: Any) -> Path:
    """Ask for one job unless told otherwise, in a file as a user writes it."""
    path = ":".join([str(Path(__file__).parent), *filter(None, sys.path)])
    values = {
        "jobs": 1,
        "memory": 1,
        "interface": "lo",
        "logs": str(folder / "logs"),
        "prologue": [f"export PYTHONPATH={path}"],
    } | values
    file = folder / "slurm.toml"
    file.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    return file


@pytest.mark.usefixtures("slurm")
def test_picks_through_slurm_are_those_of_a_serial_run(tmp_path: Path) -> None:
    fields = make_fields(tmp_path / "raw")
    file = write_file(tmp_path)

    serial = picks(fields, tmp_path / "serial", execution="serial")
    through_slurm = picks(fields, tmp_path / "slurm", execution=f"slurm:{file}", workers=2)

    assert through_slurm == serial
    assert len(list((tmp_path / "logs").glob("*.err"))) == 2


@pytest.mark.usefixtures("slurm")
def test_a_job_that_is_cancelled_is_submitted_again_and_costs_nothing(tmp_path: Path) -> None:
    running = executor_of(tmp_path).map_unordered(dask_world.wait_a_little, range(200))
    values = [next(running).value]
    (first,) = world.jobs()
    world.ask("scancel", first)
    for outcome in running:
        values.append(outcome.value)
        last = world.jobs() if len(values) == 199 else {}
        assert first not in last

    assert sorted(v[0] for v in values) == list(range(200))
    assert len({v[1] for v in values}) == 2  # two processes did the work
    assert world.jobs() == {}


@pytest.mark.usefixtures("slurm")
def test_steps_of_a_run_share_their_jobs(tmp_path: Path) -> None:
    executor = executor_of(tmp_path)
    with keeping_fleets():
        first = dask_world.outcomes(executor, dask_world.wait_a_little, [1])
        jobs = world.jobs()
        second = dask_world.outcomes(executor_of(tmp_path), dask_world.wait_a_little, [2])
        assert world.jobs() == jobs

    assert len(jobs) == 1
    assert first[0].value[1] == second[0].value[1]  # one process
    assert world.jobs() == {}


@pytest.mark.usefixtures("slurm")
def test_a_drained_node_is_told_as_slurms_reason_and_work_goes_on_when_it_resumes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.ask("scontrol", "update", f"nodename={world.node()}", "state=drain", "reason=test")
    resumed = []

    def resume_when_told(record: logging.LogRecord) -> bool:
        if "Jobs that wait" in record.getMessage() and not resumed:
            resumed.append(record.getMessage())
            world.ask("scontrol", "update", f"nodename={world.node()}", "state=resume")
        return True

    logger = logging.getLogger("cryopick.execution")
    logger.addFilter(resume_when_told)
    try:
        found = dask_world.outcomes(executor_of(tmp_path), dask_world.square, [2, 3])
    finally:
        logger.removeFilter(resume_when_told)
        if not resumed:
            world.ask("scontrol", "update", f"nodename={world.node()}", "state=resume")

    assert [o.value for o in found] == [4, 9]
    assert "1 for " in resumed[0]
    assert "drained" in resumed[0].lower() or "ReqNodeNotAvail" in resumed[0]


@pytest.mark.usefixtures("slurm")
def test_a_job_that_waits_for_ever_is_told_and_cancelled_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    executor = executor_of(tmp_path, directives=["--hold"])
    with executor.session() as session:
        end = time.monotonic() + 240
        while not caplog.messages and time.monotonic() < end:
            session.fleet.look([])
            time.sleep(0.1)
        waiting = world.jobs()

    assert "Jobs that wait in Slurm, and its reasons: 1 for JobHeldUser." in caplog.messages
    assert list(waiting.values()) == ["PENDING"]
    assert world.jobs() == {}


@pytest.mark.usefixtures("slurm")
def test_jobs_that_end_at_once_are_submitted_so_often_and_no_more(tmp_path: Path) -> None:
    executor = executor_of(tmp_path, prologue=["exit 1"], submissions_per_hour=2)

    with pytest.raises(ProjectError, match="the jobs of Slurm must stay alive; got 3 that ended"):
        dask_world.outcomes(executor, dask_world.square, [2])

    assert len(list((tmp_path / "logs").glob("*.err"))) == 3


@pytest.mark.usefixtures("slurm")
def test_a_job_that_has_run_for_long_is_followed_by_another_whatever_may_be_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopick.execution.slurm._SOUND", 0.0)
    executor = executor_of(tmp_path, submissions_per_hour=0)

    running = executor.map_unordered(dask_world.wait_a_little, range(200))
    values = [next(running).value]
    world.ask("scancel", *world.jobs())
    values += [outcome.value for outcome in running]

    assert sorted(v[0] for v in values) == list(range(200))
    assert len({v[1] for v in values}) == 2


@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    executor = executor_of(tmp_path, queue="nowhere")

    with pytest.raises(ProjectError, match=r"Slurm must take the jobs; got .*Invalid partition"):
        dask_world.outcomes(executor, dask_world.square, [2])


@pytest.mark.long
@pytest.mark.usefixtures("slurm")
def test_a_job_that_hits_its_wall_time_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopick.execution.slurm._LAST", (-1.0, 1e9))  # no end before Slurm's
    executor = executor_of(tmp_path, walltime="00:01:00")

    running = executor.map_unordered(dask_world.wait_long, range(24))
    found = sorted((o.value for o in running), key=lambda value: value[0])

    assert [v[0] for v in found] == list(range(24))
    assert len({v[1] for v in found}) > 1
