"""A dask cluster of processes on this machine, and work for it; imported by its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import psutil
import torch
from distributed import LocalCluster, get_worker
from distributed.comm import get_address_host
from distributed.core import Status

from cryopick.errors import DataError
from cryopick.execution.cluster import ClusterExecutor, NamedCluster
from cryopick.execution.local import Outcome
from cryopick.execution.parameters import ComputeParameters

SETTINGS = {
    "distributed.admin.low-level-log-length": 1000,
    "distributed.deploy.lost-worker-timeout": "10 minutes",  # else a slow restart ends the worker
    "distributed.worker.profile.enabled": False,
}


@contextlib.contextmanager
def cluster_of(
    workers: int, *, ttl: str = "5 minutes", threads: int = 1, **options: Any
) -> Iterator[LocalCluster]:
    """Start it; a worker that says nothing for `ttl` is taken for dead."""
    with (
        dask.config.set(SETTINGS | {"distributed.scheduler.worker-ttl": ttl}),
        LocalCluster(
            n_workers=workers, threads_per_worker=threads, dashboard_address=":0", **options
        ) as cluster,
    ):
        yield cluster


def executor_of(
    cluster: LocalCluster, *, patience: float = 300.0, **options: Any
) -> ClusterExecutor:
    open_fleet = partial(NamedCluster, cluster.scheduler_address, patience=patience)
    return ClusterExecutor(open_fleet=open_fleet, **options)


def outcomes(executor: ClusterExecutor, function: Any, items: Any) -> list[Outcome[Any]]:
    return sorted(executor.map_unordered(function, items), key=lambda outcome: outcome.index)


def kill_a_worker(cluster: LocalCluster) -> None:
    """Kill the first worker process; its nanny starts another."""
    os.kill(living_pids(cluster)[0], signal.SIGKILL)


def freeze_a_worker(cluster: LocalCluster) -> int:
    """Stop the first worker process as a hanging disk would; gives its number."""
    pid = living_pids(cluster)[0]
    os.kill(pid, signal.SIGSTOP)
    return pid


def living_pids(cluster: LocalCluster) -> list[int]:
    """Processes of all workers, once those that were killed before have been followed."""
    end = time.monotonic() + 240
    while True:
        processes = [worker.process for worker in cluster.workers.values()]
        if all(p is not None and p.status == Status.running for p in processes):
            pids = [p.pid for p in processes]
            if None not in pids:
                return pids
        assert time.monotonic() < end, "a worker was not started again"
        time.sleep(0.01)


def worker_pids(cluster: LocalCluster) -> set[int]:
    return set(living_pids(cluster))


def square(number: float) -> float:
    return number * number


def nothing(item: int) -> None:
    del item


def refuse_odd(number: int) -> int:
    if number % 2:
        raise DataError("number", must="be even", got=number, remedy="Add 1")
    return number


def open_missing(number: int) -> bytes:
    return Path(f"/no/such/folder/{number}").read_bytes()


def raise_bug(number: int) -> int:
    raise ZeroDivisionError(number)


def threads_and_folder(_: int) -> tuple[int, int, str]:
    return os.getpid(), torch.get_num_threads(), str(Path.cwd())


def write_relative(name: str) -> str:
    Path(name).write_text(name)
    return name


def end_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def end_at_three_before_the_news_of_two(number: int) -> int:
    """From item 1 on a worker is slow to tell that an item has ended."""
    if number == 1:
        get_worker().batched_stream.interval = 2
        time.sleep(0.05)
    if number == 2:
        time.sleep(0.05)
    return end_at_three(number)


def end_once(item: tuple[int, str, int]) -> int:
    """End or stop the process that gets item 5 first; the file says that it was done."""
    number, flag, how = item
    if number == 5 and not Path(flag).exists():
        Path(flag).write_text(str(os.getpid()))
        os.kill(os.getpid(), how)
    return number


def wait_a_little(number: int, seconds: float = 0.05) -> tuple[int, int, float, float]:
    begun = time.time()
    time.sleep(seconds)
    return number, os.getpid(), begun, time.time()


def wait_for_all(item: tuple[int, str], count: int = 2) -> tuple[int, int]:
    """Wait until so many processes are at work, but for item 0; each says so in the folder."""
    number, folder = item
    Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + 240
    while number and len(list(Path(folder).iterdir())) < count and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    return number, os.getpid()


def place_and_device(compute: ComputeParameters) -> tuple[int, str, str]:
    return os.getpid(), compute.device, compute.execution


def refuse(compute: ComputeParameters, number: int) -> int:
    del compute
    return refuse_odd(number)


def visible_gpu(item: tuple[int, str]) -> tuple[int, str]:
    _, process = wait_for_all(item)
    return process, os.environ.get("CUDA_VISIBLE_DEVICES", "")


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def end_on_second_host(number: int) -> tuple[int, str]:
    """End the worker on 127.0.0.2, and any worker with item 3."""
    host = str(get_address_host(get_worker().address))
    if number == 3 or host == "127.0.0.2":
        time.sleep(0.05)
        os._exit(1)
    time.sleep(0.3)
    return number, host


class Load:
    """Says how often it was read in this process."""

    count = 0

    def __call__(self, _: int) -> tuple[int, int]:
        return os.getpid(), Load.count

    def __setstate__(self, _: object) -> None:
        Load.count += 1

    def __getstate__(self) -> dict[str, bytes]:
        return {"data": b"0" * 1000}


def wait_long(number: int) -> tuple[int, int]:
    time.sleep(4)
    return number, os.getpid()
