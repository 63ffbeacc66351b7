"""``class2d stream`` on a cluster writes what it writes on one machine, to the last byte."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_world
import pytest
from distributed import LocalCluster

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from classification_world import PIXEL, shapes
from stream_world import results_of, stream, whole

from cryopick.io.mrc import write_mrc


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with dask_world.cluster_of(2) as running:
        yield running


@pytest.fixture(autouse=True)
def _two_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a new folder with 170 particles, in shards of some tens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cryopick.class2d.em_shards._SHARD_TILES", 1)
    whole(170)


def made_by(**options: Any) -> dict[str, bytes]:
    stream("particles.star", iterations=3, **options)
    found = results_of()
    shutil.rmtree("out")
    return found


def different(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    return [n for n in sorted({*found, *wanted}) if found.get(n) != wanted.get(n)]


@pytest.mark.parametrize(
    "options",
    [
        {"full_pass": True, "junk": True},
        {"references": Path("given.mrcs"), "junk": True},
        {"forgetting": 0.5, "ctf": "wiener", "junk": True},
    ],
    ids=["made", "given", "forgetting"],
)
def test_a_stream_on_a_cluster_is_that_of_one_machine(
    cluster: LocalCluster, options: dict[str, Any]
) -> None:
    write_mrc(Path("given.mrcs"), shapes().numpy(), pixel_size=PIXEL)
    address = f"dask:{cluster.scheduler_address}"

    serial = made_by(**options, threads=0, execution="serial")
    remote = made_by(**options, execution=address)

    assert len(serial) > 8
    assert different(remote, serial) == []


def test_a_worker_killed_in_a_round_changes_nothing(cluster: LocalCluster) -> None:
    killed: list[str] = []

    def kill_once(sentence: str) -> None:
        if not killed:
            killed.append(sentence)
            dask_world.kill_a_worker(cluster)

    here = made_by()
    there = made_by(tell=kill_once, execution=f"dask:{cluster.scheduler_address}")

    assert killed
    assert different(there, here) == []
