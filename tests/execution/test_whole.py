"""Work of one piece is done here, or on a worker that has the GPU it is to use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import dask_world as world
import pytest
from distributed import LocalCluster

from cryopick.errors import DataError
from cryopick.execution.parameters import ComputeParameters
from cryopick.execution.whole import run_whole


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with world.cluster_of(1, resources={"GPU": 1}) as running:
        yield running


def test_without_a_gpu_it_is_done_in_this_process(cluster: LocalCluster) -> None:
    address = f"dask:{cluster.scheduler_address}"

    for execution in ("serial", "local", address):
        compute = ComputeParameters(execution=execution)
        assert run_whole(compute, world.place_and_device) == (os.getpid(), "cpu", execution)


def test_for_a_gpu_of_a_cluster_it_is_done_on_a_worker_which_is_told_its_device(
    cluster: LocalCluster,
) -> None:
    compute = ComputeParameters(execution=f"dask:{cluster.scheduler_address}", device="cuda")

    process, device, execution = run_whole(compute, world.place_and_device)

    assert process in world.worker_pids(cluster)
    assert (device, execution) == ("cuda", "local")


def test_an_error_there_is_an_error_here(cluster: LocalCluster) -> None:
    compute = ComputeParameters(execution=f"dask:{cluster.scheduler_address}", device="cuda")

    with pytest.raises(DataError, match="number must be even; got 3"):
        run_whole(compute, partial(world.refuse, number=3))
