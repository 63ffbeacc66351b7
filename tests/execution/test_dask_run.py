"""An unattended run whose work is done by a cluster ends like one on one machine."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_world
import pytest
from distributed import LocalCluster

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from run_faults import CommandLine
from run_world import DIAMETER, leftovers, results_of, write_table

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters

pytest_plugins = ("run_world",)

WHOLE = RunParameters(
    diameter=DIAMETER,
    training_steps=4,
    first_classes=2,
    classes=2,
    rescale=16,
    coarse_pixel_size=10.0,
)
WORDS = (
    *("--diameter", "180", "--training-steps", "4", "--first-classes", "2", "--classes", "2"),
    *("--rescale", "16", "--coarse-pixel-size", "10"),
)

SHORT = ("--diameter", "180", "--picker", "general", "--classes", "4", "--rescale", "32")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with dask_world.cluster_of(2) as running:
        yield running


@pytest.fixture
def table(run_folder: Path) -> str:
    """The table of three of the fields, without their CTF."""
    del run_folder
    return write_table("three.star", [0, 1, 2], without=("defocus_u", "defocus_v"))


def test_a_run_on_a_cluster_ends_like_one_on_this_machine_and_asks_for_workers_once(
    table: str, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        "cryopick.execution.cluster.NamedCluster.close", lambda self: opened.append(self.address)
    )

    here = ComputeParameters(workers=1, threads=1)
    there = ComputeParameters(threads=1, execution=f"dask:{cluster.scheduler_address}")
    made = []
    for compute in (here, there):
        result = run_project([table], Path("project"), parameters=WHOLE, compute=compute)
        assert (result.halted, result.refused) == (None, {})
        made.append(results_of("project"))
        assert verify_project(Path("project")) == []
        shutil.rmtree("project")

    assert made[0] == made[1]
    assert opened == [cluster.scheduler_address]


def made_in(project: str) -> dict[str, Any]:
    """Results less the size of a file that tells the time."""
    found = results_of(project)
    for name, content in found.items():
        if name.endswith("step.json"):
            content.get("files", {}).pop("result.json", None)
    return found


def check_kills(
    table: str, cluster: LocalCluster, words: tuple[str, ...], count: int, *, seconds: float
) -> None:
    """Kill the manager at random moments; its workers live on."""
    chance = random.Random(count)
    where = ["--execution", f"dask:{cluster.scheduler_address}", "--out", "project"]
    with CommandLine("run", table, "--threads", "1", *words, *where) as cryopick:
        assert cryopick.run() == 0, cryopick.said
        made = made_in("project")
        shutil.rmtree("project")
        killed = 0
        while killed < count:
            code = cryopick.run(kill_after=chance.uniform(0, seconds))
            assert code in (0, -signal.SIGKILL), cryopick.said
            killed += code != 0
            if code == 0:
                assert made_in("project") == made
                shutil.rmtree("project")
        assert cryopick.run() == 0, cryopick.said
    assert made_in("project") == made
    assert not leftovers("project")
    assert verify_project(Path("project")) == []


def test_the_manager_killed_five_times_changes_nothing(table: str, cluster: LocalCluster) -> None:
    check_kills(table, cluster, SHORT, 5, seconds=5)


@pytest.mark.long
def test_the_manager_killed_fifty_times_changes_nothing(table: str, cluster: LocalCluster) -> None:
    check_kills(table, cluster, WORDS, 50, seconds=10)
