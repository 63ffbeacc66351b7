"""What an item costs beside its work: items that do nothing, on each executor.

python benchmarks/execution_overhead.py [--items 10000] [--workers 2]
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from functools import partial

from distributed import LocalCluster

from cryopick.execution.cluster import ClusterExecutor, NamedCluster
from cryopick.execution.local import Executor, LocalExecutor, SerialExecutor


def measure(name: str, executor: Executor, items: int) -> None:
    list(executor.map_unordered(abs, range(8)))  # workers start
    wall, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in executor.map_unordered(abs, range(items)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{name:8} {count} items: {1e3 * wall / count:.2f} ms each, of it "
        f"{1e3 * cpu / count:.2f} ms CPU of the manager; its memory grew by {grown:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    measure("serial", SerialExecutor(threads=1), given.items)
    measure("local", LocalExecutor(workers=given.workers, threads=1), given.items)
    options = {"threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(n_workers=given.workers, **options) as cluster:
        open_fleet = partial(NamedCluster, cluster.scheduler_address)
        measure("dask", ClusterExecutor(open_fleet=open_fleet), given.items)


if __name__ == "__main__":
    main()
