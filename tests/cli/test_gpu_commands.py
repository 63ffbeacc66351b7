"""Commands keep their tensors on the GPU that they are given, and find there what a CPU finds.

The GPU is pretended (`pretend_gpu`), so this holds on machines without one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryopick.io.mrc import read_mrc
from cryopick.tables.relion import read_picks
from gpu_world import STABLE, assert_same_classes, run
from pretend_gpu import OnGpu, pretended_gpu


def run_on_both(words: str) -> None:
    """Run a command on the CPU, to cpu/, and on the GPU, to gpu/."""
    run(f"{words} --threads 1 --out cpu")
    before = OnGpu.made
    with pretended_gpu():
        run(f"{words} --threads 1 --device cuda:0 --out gpu")
    assert OnGpu.made > before + 100, "nothing was done on the GPU"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of particles and two small micrographs."""
    folder = tmp_path_factory.mktemp("data")
    run(f"simulate particles --number 90 --box-size 32 --pixel-size 8 --snr 0.5 --out {folder}/p")
    run(
        f"simulate micrographs --number 3 --width 384 --height 384 --pixel-size 5 --particles 16 "
        f"--phantoms barrel --out {folder}/m"
    )
    return folder


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_both(pattern: str) -> None:
    """Claim the same classes of cpu/ and gpu/."""
    (one,), (other,) = (list(Path(where).glob(pattern)) for where in ("cpu", "gpu"))
    assert_same_classes(one, other)


def test_classes_by_likelihood(data: Path) -> None:
    run_on_both(f"class2d em {data}/p/particles.star --diameter 180 --classes 3 --iterations 3")
    assert_both("run_it003_data.star")


def test_stable_classes(data: Path) -> None:
    run_on_both(f"class2d stable {data}/p/particles.star --diameter 180 {STABLE}")
    assert_both("run_data.star")


def test_classes_of_a_stream(data: Path) -> None:
    run_on_both(
        f"class2d stream {data}/p/particles.star --diameter 180 --classes 2 --first-batch 60 "
        "--batch 30 --close"
    )
    assert_both("current/run_it*_data.star")


@pytest.mark.parametrize(
    "words",
    [
        "log --min-diameter 100 --max-diameter 180",
        "blob --min-diameter 100 --max-diameter 180",
        "network --diameter 150",
    ],
)
def test_picks(data: Path, words: str) -> None:
    picker, _, options = words.partition(" ")
    run_on_both(f"pick {picker} {data}/m/micrographs_ctf.star {options} --workers 1")
    one, other = (read_picks(Path(where)).rows for where in ("cpu", "gpu"))
    assert len(one) == len(other) > 0
    for name in ("x", "y", "fom"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-3)


def test_what_meets_on_two_devices_is_refused() -> None:
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        assert (there + 1).cpu().tolist() == [2, 2, 2]
        there[[0]] = 5
        assert there[[2, 0]].cpu().tolist() == [1, 5]
        with pytest.raises(RuntimeError, match="of a GPU and of the CPU"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="no numpy"):
            there.numpy()


def test_tomograms(data: Path) -> None:
    run(
        "simulate tomogram --width 48 --height 48 --depth 32 --voxel-size 20 --particles 5 "
        "--min-distance 160 --out tomograms"
    )
    (volume,) = Path("tomograms/tomograms").glob("*.mrc")
    run_on_both(f"tomo segment {volume} --feature gabor --clustering gmm --neighborhood-size 5")
    one, other = (read_mrc(next(Path(where).glob("*_labels.mrc"))) for where in ("cpu", "gpu"))
    assert np.array_equal(one, other)
    one, other = (read_mrc(next(Path(where).glob("*_posterior.mrc"))) for where in ("cpu", "gpu"))
    np.testing.assert_allclose(one.astype(float), other.astype(float), atol=1e-3)


def test_a_picker_that_learns(data: Path) -> None:
    run_on_both(
        f"pick train {data}/m/truth --micrographs {data}/m/micrographs_ctf.star "
        "--diameter 150 --steps 2 --workers 1"
    )
    one, other = (np.load(Path(where) / "model.npz") for where in ("cpu", "gpu"))
    for name in one.files:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4)
