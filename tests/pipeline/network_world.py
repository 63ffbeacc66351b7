"""A picking network trained once on simulated fields, for the tests that need one.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from topaz_world import DIAMETER
from typer.testing import CliRunner, Result

from cryopick.cli.app import app
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.network_parameters import NetworkTrainingParameters
from cryopick.pipeline.pick_train import train_picker
from cryopick.pipeline.pick_train_result import PickTraining

__all__ = ["DIAMETER", "TABLE", "network_project", "run", "train"]

TABLE = "micrographs_ctf.star"
_ALONE = ComputeParameters(workers=1, threads=1)


def run(*words: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(w) for w in words])


def train(labels: str | Path, out: str | Path, **given: Any) -> PickTraining:
    """Train from random weights, on one thread."""
    own = {
        k: given.pop(k)
        for k in ("micrographs", "rejected", "model", "compute", "pixel_size", "progress")
        if k in given
    }
    own = {"micrographs": (TABLE,), "compute": _ALONE, **own}
    values = {"diameter": DIAMETER, "from_scratch": True, "steps": 6, **given}
    parameters = NetworkTrainingParameters(**values)
    return train_picker(Path(labels), Path(out), parameters=parameters, **own)


@pytest.fixture(scope="session")
def network_training(topaz_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training on half the particles of three of the four fields."""
    folder: Path = tmp_path_factory.mktemp("network") / "training"
    table = str(topaz_files / TABLE)
    train(topaz_files / "three.star", folder, micrographs=(table,), steps=60)
    return folder


@pytest.fixture
def network_project(topaz_project: Path, network_training: Path) -> Path:
    """Work in a new folder beside the simulated files, with the training and its model."""
    (topaz_project / "training").symlink_to(network_training)
    (topaz_project / "model.npz").symlink_to(network_training / "model.npz")
    return topaz_project
