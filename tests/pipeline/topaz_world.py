"""Simulated fields to train on, and small shell scripts that stand where Topaz would.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.star import write_star
from cryopick.picking.topaz_parameters import TopazComputeParameters
from cryopick.pipeline.evaluate import read_truth
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)

ONE_THREAD = TopazComputeParameters(threads=1)
DIAMETER = 125.0  # A

# what a stand-in says to --version, and how it reads its input and finds one particle in each
VERSION = 'if [ "$1" = --version ]; then echo 0.3.20; exit; fi\n'
FIND_ONE = (
    "while read name; do\n"
    "  stem=${name%.mrc}\n"
    "  echo $stem >> ../../seen\n"
    '  echo "# Extracted 1 particles from $stem" >&2\n'
    '  printf "$stem\\t60\\t64\\t1.5\\n"\n'
    "done\n"
)


@pytest.fixture(scope="session")
def topaz_files(tmp_path_factory):
    """Four fields of 512 px and 4 A/px with 45 hollow shells of 125 A each."""
    folder = tmp_path_factory.mktemp("topaz")
    simulate_micrographs(
        folder,
        specimen=SpecimenParameters(phantoms="shell"),
        microscope=MicroscopeParameters(min_defocus=15000.0),
        parameters=MicrographSimulationParameters(
            number=4,
            width=512,
            height=512,
            pixel_size=4.0,
            particles=45,
            ice_blobs=0,
            aggregates=0,
            carbon_fraction=0,
        ),
        compute=ComputeParameters(workers=1, threads=1),
    )
    truth = read_truth(folder / "truth.json").rows.sort_values("micrograph", kind="stable")
    write_labels(folder / "labels.star", truth.iloc[::2])
    first_three = sorted(truth["micrograph"].unique())[:3]
    write_labels(folder / "three.star", truth[truth["micrograph"].isin(first_three)].iloc[::2])
    return folder


def write_labels(path: Path, rows: pd.DataFrame) -> Path:
    """Write positions as a STAR file of particles would name them."""
    table = pd.DataFrame(
        {
            "rlnMicrographName": rows["micrograph"].to_numpy(str),
            "rlnCoordinateX": rows["x"].to_numpy(float),
            "rlnCoordinateY": rows["y"].to_numpy(float),
        }
    )
    write_star(path, {"particles": table})
    return path


@pytest.fixture
def topaz_project(topaz_files, tmp_path, monkeypatch):
    """Work in a new folder beside the simulated files."""
    for path in topaz_files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRYOPICK_TOPAZ_EXECUTABLE", raising=False)
    return tmp_path


def stand_in(text: str, *, name: str = "stand_in", version: str = VERSION) -> str:
    """Write a program of a few lines of shell and return its path."""
    path = Path(name).absolute()
    path.write_text(f"#!/bin/sh\n{version}{text}")
    path.chmod(0o755)
    return str(path)


def noise(side: int = 200) -> np.ndarray:
    """A field without particles."""
    return np.random.default_rng(5).normal(size=(side, side)).astype(np.float32)
