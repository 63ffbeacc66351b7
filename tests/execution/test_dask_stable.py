"""``class2d stable`` on a cluster writes what it writes on one machine, to the last byte."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask_world
import numpy as np
import pytest
import torch
from distributed import LocalCluster

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from run_faults import Fault
from stable_world import files_of, make_views, stable

from cryopick.class2d.stable_state import StableState
from cryopick.errors import FormatError, ParameterError, ProjectError
from cryopick.execution.reduction import map_in_order
from cryopick.pipeline import class2d_blocks, class2d_shards
from cryopick.pipeline.class2d_blocks import write_pixels
from cryopick.pipeline.class2d_stable_checkpoint import StateKeeper
from cryopick.pipeline.class2d_stable_parameters import StableRunParameters
from cryopick.pipeline.shared_files import SharedFiles, opened_work
from cryopick.tables.model import Particles

SMALL: dict[str, Any] = {"img_per_grp": 40, "init_iter": 1, "maxit": 4, "stab_ali": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with dask_world.cluster_of(2) as running:
        yield running


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return make_views(tmp_path_factory.mktemp("few"), n=160, noise=0.3)


@pytest.fixture(autouse=True)
def _small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a new folder, on several parts and shards of few images."""
    monkeypatch.chdir(tmp_path)
    in_small_parts(monkeypatch)


def in_small_parts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("cryopick.class2d.em_shards._SHARD_TILES", 1)
    patch.setattr("cryopick.class2d.em_sums.FAN_IN", 2)
    patch.setattr("cryopick.pipeline.class2d_shards.FAN_IN", 2)
    patch.setattr("cryopick.class2d.stable_engine._BLOCK", 24)


@pytest.fixture(scope="module")
def made(few: Particles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run on one machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        in_small_parts(patch)
        assert stable(few, "out", **SMALL, threads=0, execution="serial")["n_classes"] > 1
        return files_of(Path("out"))


def check_same(made: dict[str, bytes]) -> None:
    found = files_of(Path("out"))
    assert [n for n in sorted({*found, *made}) if found.get(n) != made.get(n)] == []


def test_a_run_on_two_workers_is_that_of_one_machine(
    few: Particles, made: dict[str, bytes], cluster: LocalCluster
) -> None:
    stable(few, "out", **SMALL, execution=f"dask:{cluster.scheduler_address}")
    check_same(made)


def test_a_run_on_one_worker_with_two_threads_is_that_of_one_machine(
    few: Particles, made: dict[str, bytes]
) -> None:
    with dask_world.cluster_of(1, threads=2) as alone:
        stable(few, "out", **SMALL, execution=f"dask:{alone.scheduler_address}")
    check_same(made)


class Killing:
    """Kills a worker at the first result of one of the maps of each kind."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.maps = {"first classes": 0, "passes": 0}
        self.killed: list[str] = []
        self._merge, self._in_order = class2d_shards.map_and_merge, class2d_blocks.map_in_order

    def _result(self, kind: str, number: int) -> None:
        if self.maps[kind] == number and kind not in self.killed:
            self.killed.append(kind)
            dask_world.kill_a_worker(self._cluster)

    def in_first_classes(self, *given: Any, see: Callable[[Any], None], **options: Any) -> Any:
        self.maps["first classes"] += 1

        def told(value: Any) -> None:
            self._result("first classes", 3)
            see(value)

        return self._merge(*given, see=told, **options)

    def in_passes(self, *given: Any, **options: Any) -> Iterator[Any]:
        self.maps["passes"] += 1
        for value in self._in_order(*given, **options):
            self._result("passes", 40)
            yield value


def test_workers_killed_in_first_classes_and_in_passes_change_nothing(
    few: Particles, made: dict[str, bytes], cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing = Killing(cluster)
    monkeypatch.setattr(class2d_blocks, "map_in_order", killing.in_passes)
    monkeypatch.setattr(class2d_shards, "map_and_merge", killing.in_first_classes)
    stable(few, "out", **SMALL, execution=f"dask:{cluster.scheduler_address}")
    assert killing.killed == ["first classes", "passes"]
    assert killing.maps["passes"] > 50
    check_same(made)


def test_a_run_killed_on_a_cluster_goes_on_elsewhere_to_the_same_files(
    few: Particles, made: dict[str, bytes], cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []
    offer = StateKeeper.offer

    def killing(keeper: StateKeeper, state: StableState) -> None:
        offer(keeper, state)
        if state.phase == "partition" and state.step == 2 and not left:
            keeper.flush()
            left.extend(Path("out/shards").iterdir())
            raise Fault

    monkeypatch.setattr(StateKeeper, "offer", killing)
    with pytest.raises(Fault):
        stable(few, "out", **SMALL, execution=f"dask:{cluster.scheduler_address}")
    assert any(path.suffix == ".pixels" for path in left)
    assert not Path("out/shards").exists()

    Path("out/shards").mkdir()
    Path("out/shards/of_a_run.pickle").write_bytes(b"that was killed")
    stable(few, "out", **SMALL)
    check_same(made)


def test_values_come_in_the_order_of_the_items_and_a_missing_file_is_named(
    cluster: LocalCluster,
) -> None:
    with dask_world.executor_of(cluster).session() as session:
        found = list(map_in_order(session, dask_world.square, range(40)))
        with pytest.raises(
            ProjectError,
            match=r"the workers must see the files of the run .* one without /no/such/folder/7",
        ):
            list(map_in_order(session, dask_world.open_missing, [7]))
    assert found == [n * n for n in range(40)]


def test_images_are_read_from_their_file_as_they_are() -> None:
    pixels = torch.randn(20, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    stored = write_pixels(pixels, Path("images.pixels"))
    rows = np.array([19, 0, 7, 7])
    assert len(stored) == 20
    assert torch.equal(stored[rows], pixels[rows])

    with stored.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(FormatError, match=r"images\.pixels must hold 2560 bytes; got 2561"):
        stored[rows]


def test_what_is_shared_is_written_once_and_parts_of_tensors_without_the_rest(
    tmp_path: Path,
) -> None:
    files, large = SharedFiles(tmp_path / "files"), torch.randn(100_000)
    whole = files.share(large)
    one, other = files.write({"of": large, "part": large[:10]}), files.write([large])
    assert whole.stat().st_size > 400_000
    assert one.stat().st_size < 3000 > other.stat().st_size

    found = opened_work(one)
    assert torch.equal(found["of"], large)
    assert torch.equal(found["part"], large[:10])
    assert opened_work(other)[0] is found["of"]

    one.write_bytes(b"something else")
    opened_work.cache_clear()
    with pytest.raises(FormatError, match="must hold what its name says"):
        opened_work(one)
    files.close()
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"execution": "cloud"}, "execution must be serial, local, dask:ADDRESS or slurm"),
        ({"execution": "serial", "threads": 2}, "threads must be left out with"),
        ({"execution": "slurm", "device": "cuda:1"}, "device must be cpu or cuda with --execution"),
        ({"execution": "slurm", "gpu_memory_use": 0.5}, "gpu_memory_use must come with a GPU"),
    ],
)
def test_what_a_stable_classification_cannot_do_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        StableRunParameters(**values)


def test_a_scheduler_that_is_not_there_is_named_before_any_work(
    few: Particles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopick.execution.cluster._CONNECT", 0.5)
    with pytest.raises(ProjectError, match=r"the scheduler at tcp://127\.0\.0\.1:9 must answer"):
        stable(few, "out", **SMALL, execution="dask:tcp://127.0.0.1:9")
    assert not Path("out/checkpoint.npz").exists()
