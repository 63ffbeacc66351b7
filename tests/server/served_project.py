"""One project for all tests of the server and of its page: simulated fields and a whole run.

Imported before pytest could rewrite it, by the plugins `server_world` and `browser_world`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)

ALONE = ComputeParameters(workers=1, threads=1)
N_FIELDS = 5
_OF_PEOPLE = (
    *("selections", "picks_by_hand", "edits", "tasks", "exports", "session"),
    *("decisions.jsonl", "micrographs_selected.star"),
)


def find_made_project(factory: pytest.TempPathFactory) -> Path:
    """A folder with fields in data/ and the project of a whole run; not to be changed.

    Processes that test side by side make it once, and share it.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = shared / "served_project", shared / "served_project" / "done"
    with (shared / "served_project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _make(folder)
            done.touch()
    return folder


def copy_project(made: Path, folder: Path) -> Path:
    """Copy the project, beside the same fields."""
    (folder / "data").symlink_to(made / "data")
    shutil.copytree(made / "project", folder / "project", symlinks=True)
    return folder


def put_back(project: Path) -> None:
    """Take away all that people did to a copy; what jobs of the run made is never changed."""
    for name in _OF_PEOPLE:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


@contextmanager
def port_of_ours() -> Iterator[int]:
    """A port that nobody else is given meanwhile, and on which servers of a test can listen."""
    with socket.socket() as kept:  # bound, but not listening
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


def _make(folder: Path) -> None:
    simulate_micrographs(
        folder / "data",
        specimen=SpecimenParameters(phantoms="barrel"),
        microscope=MicroscopeParameters(min_defocus=12000.0),
        parameters=MicrographSimulationParameters(
            number=N_FIELDS,
            width=640,
            height=640,
            pixel_size=4.0,
            particles=40,
            ice_blobs=0,
            aggregates=0,
            carbon_fraction=0,
            seed=5,
        ),
        compute=ALONE,
    )
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = run_project(
            ["data/micrographs_ctf.star"],
            Path("project"),
            parameters=RunParameters(
                diameter=180.0, picker="general", classes=4, rescale=48, minimum_score=0.1
            ),
            compute=ALONE,
        )
    finally:
        os.chdir(before)
    assert result.halted is None, result.halted
