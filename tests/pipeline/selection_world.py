"""A small run of a 2D classification whose classes, poses and groups are known, and weights.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from classification_world import PIXEL, SIZE, shapes
from particle_world import optics_table, particles_of, write_stack

from cryopick.alignment.transform import transform_images
from cryopick.io.mrc import write_mrc
from cryopick.io.weights import write_weights
from cryopick.pipeline.select_classes import select_classes
from cryopick.selection.class_features import GROUPS
from cryopick.selection.class_network import ClassNetwork
from cryopick.selection.class_scorer import ClassScorer, to_weights
from cryopick.selection.select_classes_parameters import SelectClassesParameters
from cryopick.tables.classification import (
    Classification,
    ModelValues,
    OptimiserValues,
    SamplingValues,
)
from cryopick.tables.relion_class2d import write_classification

COUNTS = (40, 30, 0, 12, 25)  # of classes 1 to 5; 10 more are of class 0
OFF_CENTRE = (3.0, -2.0)  # px, of the average of class 1
MASK = 0.9 * SIZE * PIXEL  # A


@pytest.fixture(scope="module")
def selection_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run(Path("Class2D/job003"))
    make_weights(folder / "weights.npz")
    return folder


@pytest.fixture
def project(selection_files, tmp_path, monkeypatch):
    """A folder with a run in ``Class2D/job003``, all names relative to the folder."""
    shutil.copytree(selection_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def select(out: str = "sel", source: str = "Class2D/job003", **given: Any) -> dict[str, Any]:
    """Run `select classes` with the weights of the project."""
    own = ("selection", "mask_diameter", "pixel_size", "overwrite")
    others = {k: given.pop(k) for k in own if k in given}
    weights = Path(given.pop("weights", "weights.npz"))
    parameters = SelectClassesParameters(**given)
    return select_classes(Path(source), Path(out), parameters, weights=weights, **others).values


def averages() -> torch.Tensor:
    """Four shapes and, as class 3, nothing; class 1 is off centre."""
    drawn = shapes()[[2, 0, 0, 1, 3]]
    drawn[2] = 0
    still = torch.zeros(1)
    drawn[:1] = transform_images(
        drawn[:1], psi=still, shift_x=still + OFF_CENTRE[0], shift_y=still + OFF_CENTRE[1]
    )
    return drawn


def make_run(folder: Path, *, seed: int = 0, empty: bool = False, **optimiser: object) -> Path:
    """Write a run named ``run_it005`` and its particles; returns the folder as it is named."""
    rng = np.random.default_rng(seed)
    number = np.concatenate([np.repeat(np.arange(1, 6), COUNTS), np.zeros(10, int)])
    rng.shuffle(number)
    n = len(number)
    psi, shift = rng.uniform(-180, 180, n), rng.normal(0, 1.5, (n, 2))
    seen = _posed(averages()[np.maximum(number - 1, 0)], psi, shift)
    folder.mkdir(parents=True, exist_ok=True)
    write_stack(folder / "stack.mrcs", seen)
    micrograph = rng.integers(0, 9, n)
    table = particles_of(
        folder,
        {str(folder / "stack.mrcs"): n},
        optics=optics_table(2).assign(pixel_size=PIXEL, box_size=SIZE, image_dimensions=2),
        micrograph=[f"m{m}.mrc" for m in micrograph],
        class_number=0 * number if empty else number,
        psi=psi,
        shift_x=PIXEL * shift[:, 0],
        shift_y=PIXEL * shift[:, 1],
        group_number=micrograph + 1,
        rlnTruth=rng.permutation(n),
    )
    table.rows["optics_group"] = np.where(number == 5, 2, 1)
    write_mrc(folder / "run_it005_classes.mrcs", averages().numpy(), pixel_size=PIXEL)
    write_classification(folder / "run_it005", _tables(folder, table, optimiser))
    return folder


def _posed(images: torch.Tensor, psi: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move averages so that shift, then psi bring them back; noise is added."""
    turn, still = torch.from_numpy(psi).float(), torch.zeros(len(psi))
    x, y = torch.from_numpy(shift.T.copy()).float()
    posed = transform_images(images, psi=-turn, shift_x=still, shift_y=still)
    posed = transform_images(posed, psi=still, shift_x=-x, shift_y=-y).numpy()
    noise = np.random.default_rng(1).standard_normal(posed.shape)
    return (posed + 0.02 * noise).astype(np.float32)


def _tables(folder: Path, particles, optimiser: dict[str, object]) -> Classification:
    rings = np.arange(SIZE // 2 + 1)
    counts = np.bincount(particles.rows["group_number"], minlength=10)[1:]
    classes = pd.DataFrame(
        {
            "image": str(folder / "run_it005_classes.mrcs"),
            "image_index": np.arange(5),
            "distribution": np.array(COUNTS) / sum(COUNTS),
            "accuracy_rotations": [4.0, 3.0, np.nan, np.nan, 6.0],
            "accuracy_translations": [5.0, 4.0, np.nan, np.nan, 7.0],
            "estimated_resolution": [15.0, 14.0, np.inf, 30.0, 18.0],
        }
    )
    ring = {"spectral_index": rings, "sigma2": 1e-4, "tau2": 1e-4, "ssnr": 1.0}
    spectra = [pd.DataFrame({"class_number": k, **ring}) for k in range(1, 6)]
    noise = [pd.DataFrame({"optics_group": g, **ring}) for g in (1, 2)]
    values = {"iteration": 5, "n_iterations": 5, "random_seed": 1, "particle_diameter": MASK}
    return Classification(
        particles=particles,
        model=ModelValues(
            box_size=SIZE, pixel_size=PIXEL, current_resolution=15.0, current_size=SIZE
        ),
        classes=classes,
        spectra=pd.concat(spectra, ignore_index=True),
        groups=pd.DataFrame(
            {
                "group_number": np.arange(1, 10),
                "group_name": [f"m{m}.mrc" for m in range(9)],
                "particle_count": counts,
                "scale_correction": np.random.default_rng(3).permutation(np.linspace(0.8, 1.2, 9)),
            }
        ),
        noise=pd.concat(noise, ignore_index=True)[["optics_group", "spectral_index", "sigma2"]],
        sampling=SamplingValues(psi_step=6.0, offset_range=10.0, offset_step=2.0),
        optimiser=OptimiserValues(**(values | optimiser)),
    )


def make_weights(path: Path, *, offset: float = 0.0) -> Path:
    """Write weights of networks that have learned nothing: their scores are all different."""
    torch.manual_seed(0)
    network = ClassNetwork(GROUPS).eval()
    calibration = np.array([[30.0, 30.0], [offset, offset]])
    scorer = ClassScorer(networks=(network,), calibration=calibration)
    write_weights(path, to_weights(scorer, {}))
    return path
