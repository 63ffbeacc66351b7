"""Simulated tomograms on which pickers are compared, and a plain DoG picker to compare with.

Both sets are 128 x 256 x 256 voxels of 10 A with 60 particles of three kinds, centres at least 28
voxels apart, tilts of -60 to 60 degrees: t02 at SNR 0.2; h005 at SNR 0.05 with four gold beads and
a vesicle besides.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cryopick.io.volumes import open_volume
from cryopick.pipeline.evaluate_tomograms import TomogramTruth, read_tomogram_truth
from cryopick.tables.tomograms import TomogramPicks

__all__ = ["CRYOPICK", "SETS", "Cost", "make_set", "plain_dog", "run_command"]

CRYOPICK = str(Path(sys.executable).parent / "cryopick")
SETS = {
    "t02": {"--snr": 0.2},
    "h005": {"--snr": 0.05, "--gold": 4, "--vesicles": 1},
}
_COMMON = {
    "--phantoms": "hollow,globule,dumbbell",
    "--particles": 60,
    "--min-distance": 280,
    "--number": 1,
    "--workers": 1,
}
_SCALES = (3.0, 4.5, 6.0, 8.0)  # voxels, of the inner Gaussian
_RATIO = 1.6
_THRESHOLD = 5.5  # robust z
_APART = 15  # voxels


@dataclass(frozen=True)
class Cost:
    """What a command cost."""

    wall: float  # s
    cpu: float  # s, user and system, of all its processes
    peak: float  # GiB, of its largest process


def run_command(words: Sequence[object]) -> Cost:
    """Run a command on one core and measure it; a failure shows what it said and ends here."""
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [str(w) for w in words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{said.decode(errors='replace')[-2000:]}")
    wall = time.perf_counter() - start
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / (1 << 20))


def make_set(name: str, seed: int, work: Path) -> tuple[TomogramTruth, Path]:
    """Simulate one set with one seed: its truth and its folder."""
    folder = work / "sets" / f"{name}_{seed}"
    options = {**_COMMON, **SETS[name], "--seed": seed, "--out": folder}
    run_command([CRYOPICK, "simulate", "tomogram", *(w for pair in options.items() for w in pair)])
    return read_tomogram_truth(folder), folder


def plain_dog(truth: TomogramTruth) -> TomogramPicks:
    """Peaks of the largest of four differences of Gaussians, at 5.5 robust deviations or more."""
    tables = []
    for name, path in truth.volumes.items():
        volume = open_volume(path)
        voxels = -volume.read((0, 0, 0), volume.shape)
        score = _largest_response(voxels)
        peaks = np.argwhere((ndimage.maximum_filter(score, 5) == score) & (score >= _THRESHOLD))
        values = score[tuple(peaks.T)]
        order = np.argsort(-values, kind="stable")
        kept = _keep_apart(peaks[order].astype(np.float64))
        rows = pd.DataFrame(peaks[order][kept][:, ::-1] * volume.voxel_size, columns=list("xyz"))
        rows.insert(0, "tomogram", name)
        tables.append(rows.assign(score=values[order][kept]))
    return TomogramPicks(rows=pd.concat(tables), tomograms=truth.picks.tomograms)


def _largest_response(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    best = np.full(voxels.shape, -np.inf, np.float32)
    for scale in _SCALES:
        response = ndimage.gaussian_filter(voxels, scale)
        response -= ndimage.gaussian_filter(voxels, _RATIO * scale)
        response -= np.median(response)
        response /= 1.4826 * np.median(np.abs(response))
        np.maximum(best, response, out=best)
    return best


def _keep_apart(places: NDArray[np.float64]) -> list[int]:
    kept: list[int] = []
    for index, place in enumerate(places):
        if all(np.linalg.norm(place - places[other]) >= _APART for other in kept):
            kept.append(index)
    return kept
