"""How trustworthy the stable classes are: seeds, purity, junk, noise.

    python benchmarks/stable_quality.py views            two seeds on 20 fixed views, in-plane free
    python benchmarks/stable_quality.py views --views 0  the same, each image a view of its own
    python benchmarks/stable_quality.py noise            noise alone, and one view among noise
    python benchmarks/stable_quality.py stack FOLDER     a simulated stack, and em beside it

FOLDER is a set of `class2d_sets.py`, or of ``cryopick simulate particles``. Every line says what
was run; times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import ImageSource
from cryopick.class2d.evaluate import evaluate_classes
from cryopick.class2d.stable import StableClassifier
from cryopick.class2d.stable_consensus import jaccard_matrix
from cryopick.class2d.stable_images import plan_shrink
from cryopick.class2d.stable_parameters import StableParameters
from cryopick.class2d.stable_state import StableState
from cryopick.class2d.truth import ClassTruth
from cryopick.pipeline.class2d_source import open_source
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project
from cryopick.tables.relion import read_particles

SIZE, PIXEL, RADIUS = 64, 4.0, 90.0  # px, A/px, A
_PARTNER = 0.6  # Jaccard index


class Simulated:
    """Images in memory, without CTF."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.box_size, self.pixel_size = images.shape[-1], PIXEL
        self.group_numbers = self.optics_numbers = np.zeros(len(images), np.int64)
        self.is_premultiplied = self.is_phase_flipped = np.zeros(1, bool)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images."""
        return self.images[indices]

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """There was no lens."""
        return None


def simulate(
    n: int, *, n_views: int, snr: float, n_noise: int = 0, seed: int = 0
) -> tuple[Simulated, NDArray[np.int64]]:
    """Project blobs along views over half the sphere; the last images are noise, label -1."""
    draw = np.random.default_rng(seed)
    fixed = np.random.default_rng(5)
    places = fixed.normal(0, 42, (400, 3))
    places = places[np.linalg.norm(places, axis=1) < 80][:14]
    model = Model(
        name="blobs", positions=torch.from_numpy(places).float(),
        weights=torch.from_numpy(fixed.uniform(0.5, 1.5, len(places))).float(),
        blur=8.0, symmetry="C1", diameter=2 * RADIUS,
    )  # fmt: skip
    label = draw.integers(0, n_views, n)
    turn = 180 * (3 - 5**0.5) * np.arange(n_views)
    tilt = np.rad2deg(np.arccos((np.arange(n_views) + 0.5) / n_views))
    angles = np.stack([turn[label], tilt[label], draw.uniform(-180, 180, n)], axis=1)
    shifts = draw.normal(0, 1, (n, 2))
    images = project(
        model, euler_matrices(angles), shifts_yx=shifts, box_size=SIZE, pixel_size=PIXEL
    )
    axis = (torch.arange(SIZE) - SIZE // 2) * PIXEL
    inside = torch.hypot(axis[:, None], axis) <= RADIUS
    sigma = float((images[:, inside].var() / snr).sqrt()) if n > n_noise else 1.0
    images[n - n_noise :] = 0
    label[n - n_noise :] = -1
    noise = torch.from_numpy(draw.standard_normal(images.shape, np.float32))
    return Simulated(images + sigma * noise), label


def classify(
    source: ImageSource,
    parameters: StableParameters,
    watch: Callable[[StableState], None] | None = None,
) -> tuple[StableState, float]:
    """Run to the end, or call `watch` after each generation; gives the last state and CPU-s."""
    start = time.process_time()
    classifier = StableClassifier(source, parameters)
    generations = 0
    for state in classifier.run():
        if watch is not None and len(state.accounted) > generations:
            watch(state)
        generations = len(state.accounted)
    refined = classifier.refined(state)
    classifier.close()
    return refined, time.process_time() - start


def compact(state: StableState) -> NDArray[np.int64]:
    """Give each image its accepted class, from 0; -1: none."""
    accepted = np.flatnonzero(state.classes.is_accepted)
    number = np.full(len(state.classes) + 1, -1)
    number[accepted] = np.arange(len(accepted))
    return np.asarray(number[state.class_index])


def describe(label: NDArray[np.int64], truth: NDArray[np.int64]) -> str:
    """Say what the classes hold; truth -1 is junk."""
    taken = label >= 0
    if not taken.any():
        return "0 classes"
    main = [np.bincount(truth[(label == c) & (truth >= 0)], minlength=1).max(initial=0)
            for c in range(label.max() + 1)]  # fmt: skip
    good = taken & (truth >= 0)
    return (
        f"{label.max() + 1} classes, {good.sum() / max((truth >= 0).sum(), 1):.3f} of the particles"
        f", junk {1 - good.sum() / taken.sum():.3f}, purity {sum(main) / max(good.sum(), 1):.3f}"
    )


def views(given: argparse.Namespace) -> None:
    """Two seeds on discrete views, or on views that are all different."""
    source, truth = simulate(given.n, n_views=given.views or given.n, snr=given.snr)
    if not given.views:
        truth[:] = 0
    found = []
    for seed in (1, 2):
        state, cpu = classify(source, options(given, seed))
        found.append(compact(state))
        print(f"{given.views or 'continuous'} views, SNR {given.snr:g}, {given.n} images, "
              f"seed {seed}: {describe(found[-1], truth)}, "
              f"{cpu:.0f} CPU-s", flush=True)  # fmt: skip
    table = jaccard_matrix(*found)
    best = np.concatenate([table.max(1), table.max(0)])
    print(f"classes with a partner in the other seed (Jaccard >= {_PARTNER:g}): "
          f"{(best >= _PARTNER).mean():.3f}, median {np.median(best):.3f}")  # fmt: skip


def noise(given: argparse.Namespace) -> None:
    """Noise alone, and one view with as much noise."""
    for n_noise in (given.n, given.n // 2):
        source, truth = simulate(given.n, n_views=1, snr=given.snr, n_noise=n_noise)
        state, cpu = classify(source, options(given, given.seed))
        print(f"{n_noise} of {given.n} images noise, SNR {given.snr:g}, seed {given.seed}: "
              f"{describe(compact(state), truth)}, {cpu:.0f} CPU-s", flush=True)  # fmt: skip


def options(given: argparse.Namespace, seed: int) -> StableParameters:
    """Options for the simulated views."""
    return StableParameters(
        radius=RADIUS / PIXEL, ctf="none", img_per_grp=given.img_per_grp, seed=seed
    )


def stack(given: argparse.Namespace) -> None:
    """Score a simulated stack, and em with as many classes."""
    particles = read_particles(given.folder / "particles.star")
    source = open_source(particles, corrects_ctf=True)
    truth = read_truth(given.folder)
    radius = given.diameter / 2 / source.pixel_size
    chosen = StableParameters(
        radius=radius, ctf=given.ctf, img_per_grp=given.img_per_grp, seed=given.seed,
        main_iter_limit=given.main_iter_limit,
    )  # fmt: skip
    kind = np.where(truth.is_junk, -1, truth.label)

    def watch(now: StableState) -> None:
        print(f"generation {len(now.accounted)}: {describe(compact(now), kind)}", flush=True)

    state, cpu = classify(source, chosen, watch)
    label = compact(state)
    print(f"{given.folder.name}: {describe(label, kind)}, "
          f"{cpu:.0f} CPU-s", flush=True)  # fmt: skip
    poses = state.member_poses
    turned, flipped = np.rad2deg(poses.psi), poses.mirror
    shrink = plan_shrink(chosen, box_size=source.box_size, pixel_size=source.pixel_size)
    scale = shrink.pixel_size
    report("stable", rows(label + 1, turned, poses.shift_x * scale, poses.shift_y * scale),
           truth, flipped)  # fmt: skip
    start = time.process_time()
    em = ClassificationParameters(classes=max(int(label.max()) + 1, 1), diameter=given.diameter)
    classifier = EmClassifier(source, em, devices=["cpu"], threads=1, keep_bytes=1 << 30)
    other = classifier.start()
    while not other.is_finished:
        other = classifier.advance(other)
    classifier.close()
    p = other.poses
    number = np.where(p.junk_probability > 0.5, 0, p.class_index + 1)
    print(f"em with as many classes: {time.process_time() - start:.0f} CPU-s")
    report("em", rows(number, p.psi, p.shift_x, p.shift_y), truth, None)


def rows(
    number: NDArray[np.int64],
    psi: NDArray[np.floating],
    shift_x: NDArray[np.floating],
    shift_y: NDArray[np.floating],
) -> pd.DataFrame:
    """Lay out assignments as `evaluate_classes` takes them."""
    return pd.DataFrame({
        "image_index": np.arange(len(number)), "class_number": number, "psi": psi,
        "shift_x": shift_x, "shift_y": shift_y,
    })  # fmt: skip


def report(
    name: str, table: pd.DataFrame, truth: ClassTruth, flipped: NDArray[np.bool_] | None
) -> None:
    """Print the scores; mirrored members are compared as mirrored projections."""
    if flipped is not None:
        truth, table = mirrored(truth, table, flipped)
    total = evaluate_classes(table, truth).total
    print(f"{name}: coherence {total.coherence or 0:.3f}, of all {total.coherence_all:.3f}, "
          f"accounted {total.accounted:.3f}, {total.n_occupied} classes", flush=True)  # fmt: skip


def mirrored(
    truth: ClassTruth, table: pd.DataFrame, flipped: NDArray[np.bool_]
) -> tuple[ClassTruth, pd.DataFrame]:
    """Mirror projections first, and change their poses to turn after that.

    Mirror after a turn by psi is the mirror, then a turn by -psi, with x of the shift reversed.
    """
    clean = truth.clean.clone()
    mine = torch.from_numpy(np.flatnonzero(flipped))
    turned = torch.flip(clean[mine], (2,))
    clean[mine] = torch.roll(turned, 1, 2) if clean.shape[-1] % 2 == 0 else turned
    changed = table.copy()
    changed.loc[flipped, "psi"] *= -1
    changed.loc[flipped, "shift_x"] *= -1
    return ClassTruth(
        clean=clean, label=truth.label, is_junk=truth.is_junk, pixel_size=truth.pixel_size
    ), changed


def read_truth(folder: Path) -> ClassTruth:
    """Truth of a simulated stack."""
    with np.load(folder / "truth.npz") as stored:
        label, junk, pixel = stored["label"], stored["junk"], float(stored["apix"])
    clean = torch.from_numpy(np.load(folder / "clean.npy")).float()
    return ClassTruth(
        clean=clean, label=label.astype(np.int64), is_junk=junk.astype(bool), pixel_size=pixel
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["views", "noise", "stack"])
    parser.add_argument("folder", type=Path, nargs="?", help="Of a stack.")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--views", type=int, default=20, help="0: continuous.")
    parser.add_argument("--img-per-grp", type=int, default=-1)
    parser.add_argument("--diameter", type=float, default=180.0, help="Of a stack, A.")
    parser.add_argument("--ctf", default="flip", choices=["flip", "full", "none"])
    parser.add_argument("--main-iter-limit", type=int, default=-1, help="Of a stack.")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    {"views": views, "noise": noise, "stack": stack}[given.what](given)


if __name__ == "__main__":
    main()
