"""A function over items on a dask cluster: the same outcomes whatever becomes of the workers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask_world as world
import psutil
import pytest
from distributed import LocalCluster

from cryopick.errors import DataError, ParameterError, ProjectError
from cryopick.execution.cluster import ClusterExecutor, NamedCluster
from cryopick.execution.local import Outcome, SerialExecutor, make_executor
from cryopick.execution.parameters import ComputeParameters


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with world.cluster_of(2) as running:
        yield running


@pytest.fixture
def executor(cluster: LocalCluster) -> ClusterExecutor:
    return world.executor_of(cluster)


def test_each_item_has_one_outcome_with_its_index(executor: ClusterExecutor) -> None:
    found = world.outcomes(executor, world.square, [3, 1, 2] * 5)

    assert [(o.index, o.value, o.error) for o in found] == [
        (index, value, None) for index, value in enumerate([9, 1, 4] * 5)
    ]


def test_no_items_need_no_cluster() -> None:
    assert list(ClusterExecutor(open_fleet=lambda: 1 / 0).map_unordered(world.square, [])) == []


def test_errors_of_items_belong_to_them_and_are_not_tried_again(executor: ClusterExecutor) -> None:
    found = world.outcomes(executor, world.refuse_odd, list(range(9)))
    (missing,) = world.outcomes(executor, world.open_missing, [7])

    assert [o.value for o in found] == [0, None, 2, None, 4, None, 6, None, 8]
    assert str(found[3].error) == "number must be even; got 3. Add 1."
    assert "/no/such/folder/7 must be readable" in str(missing.error)
    assert not any(o.attempts for o in [*found, missing])


def test_a_bug_stops_the_run(executor: ClusterExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        world.outcomes(executor, world.raise_bug, [1, 2, 3])

    assert [o.value for o in world.outcomes(executor, world.square, [2])] == [4]


def test_workers_are_other_processes_in_the_folder_of_the_run_with_its_threads(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    executor = world.executor_of(cluster, threads=3)

    found = [o.value for o in world.outcomes(executor, world.threads_and_folder, range(6))]
    world.outcomes(executor, world.write_relative, ["a", "b"])

    assert os.getpid() not in {process for process, _, _ in found}
    assert {(threads, folder) for _, threads, folder in found} == {(3, str(tmp_path))}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_the_function_goes_to_each_worker_once(cluster: LocalCluster) -> None:
    with world.executor_of(cluster).session() as session:
        found = [o.value for o in session.map_unordered(world.Load(), range(40))]

    counts = dict(found)
    assert {count for _, count in found} == {1}
    assert set(counts) <= world.worker_pids(cluster)


def test_results_come_as_they_finish_and_an_abandoned_run_leaves_the_cluster_usable(
    executor: ClusterExecutor,
) -> None:
    running = executor.map_unordered(world.wait_a_little, range(100_000))
    first = [next(running) for _ in range(3)]
    running.close()

    begun = time.monotonic()
    again = world.outcomes(executor, world.square, [5])

    assert len({o.index for o in first}) == 3
    assert again[0].value == 25
    assert time.monotonic() - begun < 240  # all items would take 40 min: they were cancelled


def test_an_item_whose_worker_is_killed_is_done_by_another(
    executor: ClusterExecutor, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"

    found = world.outcomes(
        executor, world.end_once, [(n, str(flag), signal.SIGKILL) for n in range(30)]
    )

    assert [o.value for o in found] == list(range(30))
    assert [len(o.attempts) for o in found] == [1 if n == 5 else 0 for n in range(30)]


def test_an_item_whose_worker_is_frozen_is_done_by_another(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    items = [(n, str(flag), signal.SIGSTOP) for n in range(30)]

    with world.cluster_of(2, ttl="1s") as cluster:
        found = world.outcomes(world.executor_of(cluster), world.end_once, items)

    assert [o.value for o in found] == list(range(30))
    assert not world.is_alive(int(flag.read_text()))


def test_an_item_that_kills_its_workers_is_quarantined_and_no_other_is_blamed(
    executor: ClusterExecutor,
) -> None:
    found = world.outcomes(executor, world.end_at_three, list(range(24)))

    assert [o.value for o in found] == [None if n == 3 else n for n in range(24)]
    assert [o.index for o in found if o.attempts] == [3]
    assert isinstance(found[3].error, DataError)
    assert re.search("3 attempts that failed: its worker died on ", str(found[3].error))


def test_an_item_that_ended_before_the_fatal_one_is_not_blamed_when_no_news_of_it_came() -> None:
    with world.cluster_of(1) as cluster:
        executor = world.executor_of(cluster)
        found = world.outcomes(executor, world.end_at_three_before_the_news_of_two, range(1, 7))

    assert [len(o.attempts) for o in found] == [0, 0, 3, 0, 0, 0]
    assert [o.value for o in found] == [1, 2, None, 4, 5, 6]


def test_a_host_without_the_folder_of_the_run_is_to_blame_not_the_item(
    executor: ClusterExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/no/such/folder"))

    (found,) = world.outcomes(executor, world.square, [2])

    assert "/no/such/folder: No such file or directory on " in str(found.error)
    assert len(found.attempts) == 3


def test_workers_come_and_go(tmp_path: Path) -> None:
    with world.cluster_of(1) as cluster:
        items = [(number, str(tmp_path)) for number in range(100)]
        running = world.executor_of(cluster).map_unordered(world.wait_for_all, items)
        first = next(running).value
        cluster.scale(2)
        rest = []  # of which none ends before the second worker has come
        for outcome in running:
            rest.append(outcome.value)
            if len({v[1] for v in rest}) == 2 and len(cluster.worker_spec) == 2:
                cluster.scale(1)

    values = [first, *rest]
    assert sorted(v[0] for v in values) == list(range(100))
    assert len({v[1] for v in values}) == 2


def test_gpu_items_go_to_workers_with_a_gpu_one_at_a_time() -> None:
    with world.cluster_of(1, threads=2, resources={"GPU": 1}) as cluster:
        wait = partial(world.wait_a_little, seconds=0.3)
        everywhere = world.outcomes(world.executor_of(cluster), wait, range(6))
        on_gpu = world.outcomes(world.executor_of(cluster, needs_gpu=True), wait, range(6))

    assert is_one_after_the_other(on_gpu)
    assert not is_one_after_the_other(everywhere)


def test_each_worker_of_a_gpu_sees_its_own_and_a_worker_without_gets_none_of_the_work(
    tmp_path: Path,
) -> None:
    met = tmp_path / "met"
    met.mkdir()
    with separate_cluster(tmp_path, gpus=("0", "1")) as (_, address):
        executor = make_executor(
            ComputeParameters(execution=f"dask:{address}", device="cuda"),
            n_items=40,
            bytes_per_item=1,
        )
        items = [(number, str(met)) for number in range(40)]
        found = [o.value for o in world.outcomes(executor, world.visible_gpu, items)]

    assert {gpu for _, gpu in found} == {"0", "1"}
    assert len({process for process, _ in found}) == 2


def is_one_after_the_other(found: list[Outcome[Any]]) -> bool:
    """Whether no item was begun before another had ended."""
    spans = sorted(o.value[2:] for o in found)
    return all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_a_cluster_without_fitting_workers_is_one_sentence(cluster: LocalCluster) -> None:
    executor = world.executor_of(cluster, patience=0.5, needs_gpu=True)

    with pytest.raises(
        ProjectError, match=r"must have workers .* got none for 0 s\. Start workers"
    ):
        world.outcomes(executor, world.square, [1])


def test_a_scheduler_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopick.execution.cluster._CONNECT", 0.5)
    executor = ClusterExecutor(open_fleet=lambda: NamedCluster("tcp://127.0.0.1:9"))

    with pytest.raises(ProjectError, match=r"the scheduler at .*:9 must answer; got no answer"):
        world.outcomes(executor, world.square, [1])


@contextlib.contextmanager
def separate_cluster(
    folder: Path,
    *,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    gpus: tuple[str, ...] = (),
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a scheduler and workers as a user does, with a command for each."""
    python = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    file = folder / "scheduler.json"
    where = ["--scheduler-file", str(file)]
    more = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", ":0"]
    scheduler = subprocess.Popen(
        [*python, "distributed.cli.dask_scheduler", *where, *more],
        env={**os.environ, "PYTHONPATH": path},
        **quiet,
    )
    more = ["--nthreads", "1", "--no-dashboard", "--death-timeout", "300", "--host"]
    starts: list[tuple[list[str], dict[str, str]]] = [([host], {}) for host in hosts]
    on_gpu = ["127.0.0.1", "--resources", "GPU=1"]
    starts += [(on_gpu, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus]
    workers = [
        subprocess.Popen(
            [*python, "distributed.cli.dask_worker", *where, *more, *words],
            env={**os.environ, "PYTHONPATH": path, **values},
            cwd=folder,
            **quiet,
        )
        for words, values in starts
    ]
    try:
        end = time.monotonic() + 300
        while not file.exists() or b"address" not in file.read_bytes():
            assert scheduler.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        found = re.search(rb'"address": "(.*?)"', file.read_bytes())
        assert found is not None
        yield scheduler, found.group(1).decode()
    finally:
        for process in (scheduler, *workers):
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def test_a_scheduler_that_dies_is_one_sentence_and_keeps_what_came(tmp_path: Path) -> None:
    with separate_cluster(tmp_path) as (scheduler, address):
        executor = make_executor(
            ComputeParameters(execution=f"dask:{address}"), n_items=100, bytes_per_item=1
        )
        running = executor.map_unordered(world.wait_a_little, range(100))
        came = [next(running).value[0] for _ in range(5)]
        scheduler.kill()

        with pytest.raises(ProjectError, match=r"must answer; .* finished work is kept"):
            came.extend(outcome.value[0] for outcome in running)

    assert 5 <= len(set(came)) == len(came) < 100


@pytest.mark.long
def test_a_host_on_which_workers_die_is_drained_and_an_item_is_quarantined_after_two(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with separate_cluster(tmp_path, hosts=("127.0.0.1", "127.0.0.2")) as (_, address):
        executor = ClusterExecutor(open_fleet=lambda: NamedCluster(address))
        found = world.outcomes(executor, world.end_on_second_host, range(100))

    blamed = [o for o in found if o.attempts and o.index != 3]
    assert [o.value for o in found if o.index != 3] == [
        (n, "127.0.0.1") for n in range(100) if n != 3
    ]
    assert re.search(r"its worker died on .*127\.0\.0\.1", str(found[3].error))
    assert {a.host.partition(" (")[2] for o in blamed for a in o.attempts} == {"127.0.0.2)"}
    assert sum("gets no more work" in m for m in caplog.messages) == 1
    assert len(blamed) < 12


@pytest.mark.long
def test_ten_thousand_items_cost_little_and_no_memory(executor: ClusterExecutor) -> None:
    process = psutil.Process()
    resident = []
    begun = time.process_time()

    for count, _ in enumerate(executor.map_unordered(world.nothing, range(10_000))):
        if count % 1000 == 0:
            resident.append(process.memory_info().rss)

    assert (time.process_time() - begun) / 10_000 < 5e-3  # of this process, s, scheduler included
    assert max(resident[5:]) - resident[4] < 20 << 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"execution": "cloud"}, "execution must be serial, local, dask:ADDRESS or slurm"),
        ({"execution": "dask:"}, "execution must be serial, local"),
        ({"execution": "serial", "workers": 2}, "workers must be left out with --execution serial"),
        ({"execution": "dask:x:1", "workers": 2}, "workers must be left out with --execution dask"),
        ({"execution": "dask:x:1", "memory": 2}, "memory must be left out with --execution dask"),
        ({"execution": "slurm", "device": "cuda:1"}, "device must be cpu or cuda with --execution"),
    ],
)
def test_what_would_have_no_effect_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ComputeParameters(**values)


def test_serial_runs_in_this_process() -> None:
    compute = ComputeParameters(execution="serial")

    assert isinstance(make_executor(compute, n_items=9, bytes_per_item=1), SerialExecutor)


def test_a_cluster_without_its_packages_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "cryopick.execution.cluster")

    with pytest.raises(ProjectError, match=r"pip install 'cryopick\[cluster\]'"):
        make_executor(ComputeParameters(execution="dask:x:1"), n_items=1, bytes_per_item=1)
