"""Classes on the GPUs of a cluster are those of this machine; the GPU is pretended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from gpu_world import STABLE, assert_same_classes, run
from pretend_gpu import OnGpu, pretended_gpu


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    run(f"simulate particles --number 90 --box-size 32 --pixel-size 8 --snr 0.5 --out {folder}/p")
    return folder / "p" / "particles.star"


@pytest.fixture
def gpu_cluster() -> Iterator[LocalCluster]:
    """A cluster in this process, whose worker has the pretended GPU."""
    with (
        pretended_gpu(),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp",
            resources={"GPU": 1}, dashboard_address=None,
        ) as cluster,
    ):  # fmt: skip
        yield cluster


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        ("class2d em STACK --diameter 180 --classes 3 --iterations 3", "run_it003_data.star"),
        pytest.param(
            f"class2d stable STACK --diameter 180 {STABLE}", "run_data.star", marks=pytest.mark.long
        ),
        pytest.param(
            "class2d stream STACK --diameter 180 --classes 2 --first-batch 60 --batch 30 --close",
            "current/run_it*_data.star",
            marks=pytest.mark.long,
        ),
    ],
    ids=["em", "stable", "stream"],
)
def test_gpus_of_a_cluster_find_the_classes_of_this_machine(
    words: str, pattern: str, stack: Path, gpu_cluster: LocalCluster, tmp_path: Path
) -> None:
    words = words.replace("STACK", str(stack))
    run(f"{words} --threads 1 --out {tmp_path}/here")
    before = OnGpu.made
    where = f"--execution dask:{gpu_cluster.scheduler_address} --device cuda"
    run(f"{words} --threads 1 {where} --out {tmp_path}/there")
    assert OnGpu.made > before + 100, "nothing was done on the GPU"

    one, other = (next((tmp_path / name).glob(pattern)) for name in ("here", "there"))
    assert_same_classes(one, other)
