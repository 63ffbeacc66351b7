"""``class2d em`` and ``pick log`` on a cluster give what they give on one machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_world
import numpy as np
import pytest
from distributed import LocalCluster
from numpy.typing import NDArray
from picks_world import files_of, make_fields, picks

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from classification_world import make_particles, parameters

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.errors import ParameterError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.class2d import classify_particles
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.pipeline.evaluate_classes import evaluate_class_files
from cryopick.pipeline.simulate_particles import simulate_stack
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with dask_world.cluster_of(2) as running:
        yield running


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return make_particles(tmp_path_factory.mktemp("particles"), n=1200)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make some tens of shards of a small stack."""
    monkeypatch.setattr("cryopick.class2d.em_shards._SHARD_TILES", 1)


def averages(
    particles: Particles, out: Path, *, iterations: int = 1, progress: Any = None, **compute: Any
) -> NDArray[np.float32]:
    classify_particles(
        particles,
        out,
        parameters=parameters(iterations=iterations, classes=6),
        compute=ClassificationRunParameters(**compute),
        **({"progress": progress} if progress else {}),
    )
    return read_mrc(out / f"run_it{iterations:03d}_classes.mrcs")


def test_averages_are_the_same_serial_with_threads_and_on_a_cluster(
    particles: Particles, cluster: LocalCluster, tmp_path: Path
) -> None:
    serial = averages(particles, tmp_path / "serial", execution="serial")
    local = averages(particles, tmp_path / "local", threads=3)
    address = f"dask:{cluster.scheduler_address}"
    remote = averages(particles, tmp_path / "dask", threads=1, execution=address)

    assert np.ptp(serial) > 0
    np.testing.assert_array_equal(local, serial)
    np.testing.assert_array_equal(remote, serial)
    assert not (tmp_path / "dask/shards").exists()


def test_a_worker_killed_in_an_iteration_changes_nothing(
    particles: Particles, cluster: LocalCluster, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_once(now: Any) -> None:
        if now.step == "Classifying" and now.iteration == 1 and now.done and not killed:
            killed.append(now.done)
            dask_world.kill_a_worker(cluster)

    address = f"dask:{cluster.scheduler_address}"
    undisturbed = averages(particles, tmp_path / "here", iterations=3, threads=1)
    disturbed = averages(
        particles,
        tmp_path / "there",
        iterations=3,
        progress=kill_once,
        threads=1,
        execution=address,
    )

    assert 0 < killed[0] < 1200
    np.testing.assert_allclose(
        disturbed, undisturbed, rtol=0, atol=1e-5 * np.abs(undisturbed).max()
    )


def test_a_worker_frozen_past_its_time_in_an_iteration_changes_nothing(
    particles: Particles, tmp_path: Path
) -> None:
    frozen: list[int] = []

    with dask_world.cluster_of(2, ttl="2s") as cluster:

        def freeze_once(now: Any) -> None:
            if now.step == "Classifying" and now.iteration == 1 and now.done and not frozen:
                frozen.append(dask_world.freeze_a_worker(cluster))

        execution = f"dask:{cluster.scheduler_address}"
        disturbed = averages(
            particles,
            tmp_path / "there",
            iterations=2,
            progress=freeze_once,
            threads=1,
            execution=execution,
        )
    undisturbed = averages(particles, tmp_path / "here", iterations=2, threads=1)

    assert not dask_world.is_alive(frozen[0])
    np.testing.assert_array_equal(disturbed, undisturbed)


@pytest.mark.long
def test_whole_runs_on_one_two_and_three_workers_agree_in_coherence(tmp_path: Path) -> None:
    simulate_stack(
        tmp_path / "stack",
        specimen=SpecimenParameters(phantoms="barrel"),
        microscope=MicroscopeParameters(),
        parameters=ParticleSimulationParameters(number=600, box_size=48, pixel_size=6.0),
        compute=ComputeParameters(workers=1, threads=1),
    )

    def coherence(name: str, **compute: Any) -> float:
        classify_particles(
            read_particles(tmp_path / "stack/particles.star"),
            tmp_path / name,
            parameters=ClassificationParameters(classes=8, diameter=200.0, iterations=25),
            compute=ClassificationRunParameters(threads=1, **compute),
        )
        found = evaluate_class_files(tmp_path / name, tmp_path / "stack").to_dict()
        return float(found["coherence"])

    found = [coherence("serial")]
    for workers in (1, 2, 3):
        with dask_world.cluster_of(workers) as cluster:
            address = f"dask:{cluster.scheduler_address}"
            found.append(coherence(f"dask{workers}", execution=address))

    assert found[0] > 0.5
    assert np.ptp(found) < 0.005


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_fields(tmp_path_factory.mktemp("raw"))


def test_picks_are_the_same_serial_with_workers_and_on_a_cluster(
    fields: list[str], cluster: LocalCluster, tmp_path: Path
) -> None:
    serial = picks(fields, tmp_path / "serial", execution="serial")

    for workers in (1, 2, 3):
        assert picks(fields, tmp_path / f"local{workers}", workers=workers) == serial
    address = f"dask:{cluster.scheduler_address}"
    assert picks(fields, tmp_path / "dask", execution=address) == serial
    assert len(serial) == 14


def test_a_worker_killed_while_picking_changes_nothing(
    fields: list[str], cluster: LocalCluster, tmp_path: Path
) -> None:
    def kill_once(done: int, _: int) -> None:
        if done == 2:
            dask_world.kill_a_worker(cluster)

    serial = picks(fields, tmp_path / "serial", execution="serial")
    address = f"dask:{cluster.scheduler_address}"

    assert picks(fields, tmp_path / "dask", kill_once, execution=address) == serial
    assert not list((tmp_path / "dask").rglob("*.tmp*"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_interrupted_or_killed_goes_on_where_it_was(
    cluster: LocalCluster, tmp_path: Path, how: signal.Signals
) -> None:
    fields = make_fields(tmp_path / "raw", count=24)
    serial = picks(fields, tmp_path / "serial", execution="serial")
    out, execution = tmp_path / "dask", f"dask:{cluster.scheduler_address}"
    script = "from cryopick.cli.app import main; main()"
    options = ["--min-diameter=100", "--max-diameter=140", "--threads=1", f"--out={out}"]
    words = ["pick", "log", *fields, *options, "--execution", execution]
    ledger = out / "ledger.jsonl"
    status = 3  # of one that came to its end, with a refused micrograph
    for _ in range(20):  # on a busy machine the signal may be too late
        shutil.rmtree(out, ignore_errors=True)
        command = subprocess.Popen(
            [sys.executable, "-c", script, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not ledger.exists() or ledger.read_bytes().count(b"\n") < 2:
            assert command.poll() in (None, 3)
            time.sleep(0.01)
        command.send_signal(how)
        begun = time.monotonic()
        status = command.wait(timeout=240)
        if status != 3:
            break
    lines = ledger.read_bytes().count(b"\n")

    succeeded = subprocess.run(
        [sys.executable, "-c", script, *words, "--json"], capture_output=True, check=False
    )

    assert status in (-signal.SIGKILL, 130), (status, lines)
    assert lines >= 2
    assert time.monotonic() - begun < 240
    assert succeeded.returncode == 3, succeeded.stderr.decode()  # one was refused
    assert files_of(out) == serial


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"execution": "cloud"}, "execution must be serial, local, dask:ADDRESS or slurm"),
        ({"execution": "serial", "threads": 2}, "threads must be left out with"),
        ({"execution": "slurm", "device": "cuda:1"}, "device must be cpu or cuda with --execution"),
    ],
)
def test_what_a_classification_cannot_do_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ClassificationRunParameters(**values)
