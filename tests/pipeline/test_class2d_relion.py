"""RELION goes on from what a 2D classification writes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from classification_world import DIAMETER, classify, make_particles, purity

from cryopick.tables.relion_class2d import read_classification

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_refine") is None, reason="no relion on PATH"),
]


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """A project with a run in ``em``, every name relative to it."""
    folder = tmp_path_factory.mktemp("project")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = classify(make_particles(Path()), Path("em"))
        assert Path(result.values["particles"]).parent == Path("em")
    return folder


def test_relion_keeps_our_classes_from_our_averages(classes, monkeypatch):
    monkeypatch.chdir(classes)
    ours = read_classification(Path("em"))
    prefix = str(ours.source).removesuffix("_model.star")
    Path("next").mkdir()

    command = (
        f"relion_refine --i {prefix}_data.star --ref {prefix}_model.star --o next/run --K 4"
        f" --iter 1 --particle_diameter {1.2 * DIAMETER} --ctf --norm --scale --zero_mask"
        " --flatten_solvent --psi_step 12 --offset_range 2 --offset_step 2 --oversampling 1"
        " --tau2_fudge 2 --pool 30 --j 1 --random_seed 1 --dont_combine_weights_via_disc"
        " --ctf_corrected_ref"
    )
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    theirs = read_classification(Path("next"))
    rows = ours.particles.rows.set_index("image_index").sort_index()
    after = theirs.particles.rows.set_index("image_index").sort_index()
    assert (after["class_number"] == rows["class_number"]).mean() > 0.8
    assert purity(after.assign(rlnShape=rows["rlnShape"])) > 0.8
    ratio = theirs.noise["sigma2"].to_numpy()[3:10] / ours.noise["sigma2"].to_numpy()[3:10]
    assert 0.8 < np.median(ratio) < 1.25
