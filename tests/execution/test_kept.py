"""A run of many steps keeps its workers, and gives them back once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import dask_world as world
import pytest
from distributed import LocalCluster

from cryopick.errors import ProjectError
from cryopick.execution.kept import keeping_fleets, kept_or_new
from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters


@dataclass
class Fleet:
    """Counts how often it was opened and closed."""

    events: list[str]
    is_alive: bool = True
    name: str = field(default="fleet")

    def __post_init__(self) -> None:
        self.events.append(f"opened {self.name}")

    def close(self) -> None:
        self.events.append(f"closed {self.name}")


def test_work_for_one_place_finds_the_same_fleet_until_the_end() -> None:
    events: list[str] = []

    with keeping_fleets():
        assert events == []
        for _ in range(3):
            with kept_or_new("here", lambda: Fleet(events)):
                pass
        with keeping_fleets(), kept_or_new("there", lambda: Fleet(events, name="other")):
            pass
        assert events == ["opened fleet", "opened other"]

    assert sorted(events[2:]) == ["closed fleet", "closed other"]


def test_without_keeping_each_work_has_a_fleet_of_its_own() -> None:
    events: list[str] = []

    for _ in range(2):
        with kept_or_new("here", lambda: Fleet(events)):
            pass

    assert events == ["opened fleet", "closed fleet"] * 2


def test_a_fleet_that_is_lost_is_opened_anew() -> None:
    events: list[str] = []

    with keeping_fleets():
        with kept_or_new("here", lambda: Fleet(events)) as first:
            first.is_alive = False
        with kept_or_new("here", lambda: Fleet(events)) as second:
            assert second.is_alive

    assert events == ["opened fleet", "closed fleet"] * 2


def test_a_fleet_that_cannot_be_opened_is_tried_again_by_the_next_work() -> None:
    def fail() -> Fleet:
        raise ProjectError("the scheduler", must="answer", got="nothing", remedy="Start it")

    with keeping_fleets():
        with pytest.raises(ProjectError), kept_or_new("here", fail):
            pass
        with kept_or_new("here", lambda: Fleet([])) as found:
            assert found.is_alive


def test_maps_of_several_commands_share_one_connection() -> None:
    with world.cluster_of(1) as cluster:
        compute = ComputeParameters(execution=f"dask:{cluster.scheduler_address}")
        clients = set()
        with keeping_fleets():
            for _ in range(2):
                executor = make_executor(compute, n_items=3, bytes_per_item=1)
                with executor.session() as session:
                    clients.add(session.client.id)
                    found = [o.value for o in session.map_unordered(world.square, [2, 3])]
                assert sorted(found) == [4, 9]
            assert len(n_clients(cluster)) == 1
        end = time.monotonic() + 60  # the scheduler hears of it a moment later
        while n_clients(cluster) and time.monotonic() < end:
            time.sleep(0.01)
        assert n_clients(cluster) == set()

    assert len(clients) == 1


def test_patience_begins_with_each_work() -> None:
    """A run may be busy here for long while no worker is there."""
    with world.cluster_of(0) as cluster:
        executor = world.executor_of(cluster, patience=60, place="here")
        with keeping_fleets():
            with executor.session() as session:
                session.fleet._since -= 600
            cluster.scale(1)
            cluster.wait_for_workers(1)
            with executor.session() as session:
                session.fleet.look([])


def n_clients(cluster: LocalCluster) -> set[str]:
    """Connections of clients to the scheduler, but the cluster's own."""
    return {c for c in cluster.scheduler.clients if c.startswith("Client-")}
