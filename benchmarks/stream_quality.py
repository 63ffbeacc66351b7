"""Measure classification of streams: quality on known truth, CPU time, throughput.

    python benchmarks/stream_quality.py views [--snr 0.1 0.03] [--classes 8 16] [--rounds 1 3]
    python benchmarks/stream_quality.py stacks FOLDER... [--classes 20]
    python benchmarks/stream_quality.py speed [--number 4000]
    python benchmarks/stream_quality.py references AVERAGES.mrcs [--snr 0.1]
    python benchmarks/stream_quality.py paper [--per-view 3000]

views       2000 images of 64 px of 3 A: 8 views of 14 blobs (blur 8.6 A), any rotation, shifts to
            3 px, white noise, no CTF; SNR is the variance of the clean image in a disc of 0.4 box
            over that of the noise. Asked: purity 0.97 and 2 deg at SNR 0.1, purity 0.80 at 0.03,
            3.3 CPU-s with 8 classes and 6.3 with 16 (a tenth of Xmipp's alignPCA-2D).
stacks      Stacks with truth, beside `class2d em`: coherence within 0.05 before the closing pass,
            within 0.02 after. Asked of 2000 images: first averages in 30 s on 2 cores.
speed       Update mode, 64 px, 50 classes, CTF. Asked: 140 particles per CPU-s.
references  Members made from class averages of any origin: turned, shifted, noised. Asked: 95 % of
            the labels right.
paper       10 views, 128 px, shifts to 15 px, CTF, SNR 0.01.

One thread each. A benchmark states what it ran and what was asked; it asserts nothing.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.alignment.transform import transform_images
from cryopick.class2d.em import EmClassifier
from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.class2d.em_state import ImageSource, Poses
from cryopick.class2d.evaluate import evaluate_classes
from cryopick.class2d.stream import StreamClassifier
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_state import StreamState
from cryopick.class2d.truth import ClassTruth
from cryopick.ctf.evaluate import evaluate_ctf
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.class2d_source import open_source
from cryopick.pipeline.evaluate_classes import read_class_truth
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project
from cryopick.tables.relion import read_particles

_KEPT = 1 << 31  # bytes
_LENS = (300.0, 2.7, 0.1)  # kV, mm, amplitude contrast


@dataclass
class Arrived:
    """The first images of a stream; `defocus` (n,) A or None."""

    images: Tensor
    pixel_size: float
    defocus: NDArray[np.float64] | None = None
    is_premultiplied: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, bool))
    is_phase_flipped: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, bool))

    def __post_init__(self) -> None:
        self.box_size = self.images.shape[-1]
        self.group_numbers = np.zeros(len(self.images), np.int64)
        self.optics_numbers = self.group_numbers

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Images (m, y, x)."""
        return self.images[indices]

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Lens of each image."""
        if self.defocus is None:
            return None
        rows = np.zeros((len(indices), 9))
        rows[:, 0] = rows[:, 1] = self.defocus[indices]
        rows[:, 5:] = [1.0, *_LENS]
        return rows

    def upto(self, n: int) -> Arrived:
        """Take the first n."""
        defocus = None if self.defocus is None else self.defocus[:n]
        return Arrived(self.images[:n], self.pixel_size, defocus)


class First:
    """The first particles of another source."""

    def __init__(self, source: ImageSource, n: int) -> None:
        self._source, self._n = source, n
        self.box_size, self.pixel_size = source.box_size, source.pixel_size
        self.is_premultiplied = source.is_premultiplied
        self.is_phase_flipped = source.is_phase_flipped
        self.group_numbers = source.group_numbers[:n]
        self.optics_numbers = source.optics_numbers[:n]

    def __len__(self) -> int:
        return self._n

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Images (m, y, x)."""
        return self._source.read(indices)

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Lens of each image."""
        return self._source.ctf_parameters(indices)


@dataclass
class Views:
    """Images of some views, with their truth."""

    source: Arrived
    label: NDArray[np.int64]
    psi: NDArray[np.float64]  # deg
    views: Tensor


def simulate(
    n: int,
    *,
    n_views: int,
    size: int,
    shift: float,
    snr: float,
    seed: int,
    has_ctf: bool = False,
    pixel_size: float = 3.0,
) -> Views:
    generator = np.random.default_rng(seed)
    side = size * pixel_size
    model = Model(
        name="blobs",
        positions=torch.from_numpy(_in_ball(generator, 14, 0.32 * side)).float(),
        weights=torch.from_numpy(generator.uniform(0.5, 1.5, 14)).float(),
        blur=0.045 * side,
        symmetry="C1",
        diameter=0.8 * side,
    )
    rot = generator.uniform(-180, 180, n_views)
    tilt = np.rad2deg(np.arccos(generator.uniform(-1, 1, n_views)))
    label = generator.permutation(np.arange(n) % n_views)
    psi = generator.uniform(-180, 180, n)
    offsets = generator.uniform(-shift, shift, (n, 2))
    angles = np.stack([rot[label], tilt[label], psi], axis=1)
    box = {"box_size": size, "pixel_size": pixel_size}
    images = project(model, euler_matrices(angles), shifts_yx=offsets, **box)
    still = np.stack([rot, tilt, np.zeros(n_views)], axis=1)
    views = project(model, euler_matrices(still), **box)
    defocus = generator.uniform(6000, 20000, n) if has_ctf else None
    for start in range(0, n, 500):
        part = slice(start, start + 500)
        if defocus is not None:
            images[part] = _through_lens(images[part], defocus[part], pixel_size)
    axis = torch.arange(size).float() - size // 2
    disc = torch.hypot(axis[:, None], axis) <= 0.4 * size
    spread = float(images[:, disc].var(1).mean()) ** 0.5
    images /= spread
    noise = torch.Generator().manual_seed(seed)
    for image in images:
        image += torch.randn(size, size, generator=noise) / snr**0.5
    return Views(Arrived(images, pixel_size, defocus), label, psi, views / spread)


def _in_ball(generator: np.random.Generator, n: int, radius: float) -> NDArray[np.float64]:
    """Places in a shell from 0.67 of the radius on, around their mean."""
    directions = generator.normal(0, 1, (n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = radius * directions * generator.uniform(0.3, 1, (n, 1)) ** (1 / 3)
    return places - places.mean(0)


def _through_lens(images: Tensor, defocus: NDArray[np.float64], pixel_size: float) -> Tensor:
    size = images.shape[-1]
    values = torch.from_numpy(defocus).float()
    ctf = evaluate_ctf(
        (size, size),
        pixel_size=pixel_size,
        defocus_u=values,
        defocus_v=values,
        defocus_angle=0.0,
        voltage=_LENS[0],
        spherical_aberration=_LENS[1],
        amplitude_contrast=_LENS[2],
    )
    result: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * ctf, s=(size, size))
    return result


def purity(found: NDArray[np.int32], label: NDArray[np.int64]) -> float:
    return sum(np.bincount(label[found == c]).max() for c in np.unique(found)) / len(label)


def turn_error(poses: Poses, truth: Views) -> float:
    """Median error of psi in deg, less each class's own turn, of members of its main view."""
    errors = []
    for c in np.unique(poses.class_index):
        m = poses.class_index == c
        m &= truth.label == np.bincount(truth.label[m]).argmax()
        error = (poses.psi[m] - truth.psi[m]).astype(np.float64)
        bins = np.bincount((error % 360 // 5).astype(int), minlength=72)
        free = 5 * (bins + np.roll(bins, 1) + np.roll(bins, -1)).argmax() + 2.5
        for _ in range(3):
            left = (error - free + 180) % 360 - 180
            free += np.median(left)
        errors.append(np.abs((error - free + 180) % 360 - 180))
    return float(np.median(np.concatenate(errors)))


def in_rounds(
    source: Arrived | ImageSource, cuts: list[int], parameters: StreamParameters
) -> StreamState:
    state: StreamState | None = None
    for n in cuts:
        arrived = source.upto(n) if isinstance(source, Arrived) else First(source, n)
        classifier = StreamClassifier(arrived, parameters, keep_bytes=_KEPT)
        state = classifier.extend(state) if state else classifier.create()
        classifier.close()
    assert state is not None
    return state


def measure_views(given: argparse.Namespace) -> None:
    print("asked: purity 0.97, 2 deg at SNR 0.1; 0.80 at 0.03; CPU-s 3.3 (8 classes), 6.3 (16)")
    for snr in given.snr:
        for k in given.classes:
            for rounds in given.rounds:
                rows = []
                for seed in range(given.seeds):
                    truth = simulate(2000, n_views=8, size=64, shift=3, snr=snr, seed=seed)
                    options = StreamParameters(
                        classes=k, diameter=150.0, ctf="none", offset_range=12.0, junk=False
                    )
                    cuts = [round(2000 * (i + 1) / rounds) for i in range(rounds)]
                    start = time.process_time()
                    state = in_rounds(truth.source, cuts, options)
                    cpu, poses = time.process_time() - start, state.em.poses
                    rows.append((purity(poses.class_index, truth.label), cpu))
                    rows[-1] += (turn_error(poses, truth),)
                told = ", ".join(f"{p:.3f} {e:.2f} deg {c:.1f} s" for p, c, e in rows)
                mean = np.mean(rows, axis=0)
                print(
                    f"SNR {snr:g}, {k} classes, {rounds} round(s): purity {mean[0]:.3f}, "
                    f"{mean[2]:.2f} deg, {mean[1]:.1f} CPU-s   ({told})",
                    flush=True,
                )


def scored(poses: Poses, truth: ClassTruth, k: int) -> str:
    rows = pd.DataFrame(
        {
            "image_index": np.arange(len(poses)),
            "class_number": poses.class_index + 1,
            "psi": poses.psi,
            "shift_x": poses.shift_x,
            "shift_y": poses.shift_y,
        }
    )
    total = evaluate_classes(rows, truth, n_classes=k).total
    return (
        f"coherence {total.coherence:.3f}, junk AUC {total.junk_auc or 0:.3f}, "
        f"purity {total.species_purity:.3f}, occupied {total.n_occupied}"
    )


def measure_stacks(given: argparse.Namespace) -> None:
    k = given.classes[0]
    common = {"classes": k, "diameter": given.diameter, "mask_diameter": given.mask_diameter}
    for folder in given.folders:
        source = open_source(read_particles(folder / "particles.star"), corrects_ctf=True)
        truth, n = read_class_truth(folder), len(source)
        for seed in range(1, given.seeds + 1):
            start = time.process_time()
            classifier = EmClassifier(
                source, ClassificationParameters(**common, seed=seed), keep_bytes=_KEPT
            )
            em = classifier.start()
            while not em.is_finished:
                em = classifier.advance(em)
            classifier.close()
            cpu = time.process_time() - start
            print(f"{folder.name} seed {seed} em: {cpu:.1f} CPU-s, {scored(em.poses, truth, k)}")
            options = StreamParameters(**common, seed=seed)
            for cuts in ([n], [n // 3, 2 * n // 3, n]):
                start = time.process_time()
                state = in_rounds(source, cuts, options)
                cpu = time.process_time() - start
                print(
                    f"  {len(cuts)} round(s): {cpu:.1f} CPU-s, {scored(state.em.poses, truth, k)}"
                )
            closing = StreamClassifier(source, options, keep_bytes=_KEPT)
            start = time.process_time()
            state = closing.finish(state)
            closing.close()
            cpu = time.process_time() - start
            print(f"  closing: {cpu:.1f} CPU-s, {scored(state.em.poses, truth, k)}", flush=True)


def measure_speed(given: argparse.Namespace) -> None:
    truth = simulate(
        given.number, n_views=50, size=64, shift=3, snr=0.1, seed=1, has_ctf=True, pixel_size=4.0
    )
    options = StreamParameters(classes=50, diameter=200.0)
    start = time.process_time()
    in_rounds(truth.source, [2000], options)
    print(f"first averages of 2000: {time.process_time() - start:.1f} CPU-s (asked: 30 s, 2 cores)")
    classifier = StreamClassifier(truth.source, options, keep_bytes=_KEPT)
    start = time.process_time()
    state = classifier.begin(truth.views)
    begun = time.process_time()
    state = classifier.extend(state)
    cpu = time.process_time() - begun
    classifier.close()
    right = (state.em.poses.class_index == truth.label).mean()
    print(
        f"update mode: begin {begun - start:.1f} CPU-s, then {len(truth.label) / cpu:.0f} "
        f"particles per CPU-s (asked: 140), {state.em.n_rings} rings, "
        f"{state.em.harmonics.shape[2]} orders, labels right {right:.3f}"
    )


def measure_references(given: argparse.Namespace) -> None:
    references = torch.from_numpy(read_mrc(given.averages, dtype=np.float32))
    k, size, n = len(references), references.shape[-1], given.number
    axis = torch.arange(size).float() - size // 2
    disc = torch.hypot(axis[:, None], axis) <= 0.4 * size
    references = references / references[:, disc].std(1)[:, None, None]
    for seed in range(given.seeds):
        generator = np.random.default_rng(seed)
        label, psi = generator.integers(0, k, n), generator.uniform(-180, 180, n)
        shift, zero = torch.from_numpy(generator.uniform(-3, 3, (2, n))).float(), torch.zeros(n)
        turn = torch.from_numpy(-psi).float()
        images = transform_images(references[label], psi=turn, shift_x=zero, shift_y=zero)
        images = transform_images(images, psi=zero, shift_x=shift[0], shift_y=shift[1])
        noise = torch.from_numpy(generator.normal(0, 1, images.shape)).float()
        source = Arrived(images + noise / given.snr**0.5, 3.0)
        options = StreamParameters(diameter=0.75 * 3 * size, ctf="none")
        classifier = StreamClassifier(source, options, keep_bytes=_KEPT)
        start = time.process_time()
        state = classifier.begin(references)
        begun = time.process_time()
        state = classifier.extend(state)
        cpu = time.process_time() - begun
        classifier.close()
        right = (state.em.poses.class_index == label).mean()
        error = np.median(np.abs((state.em.poses.psi - psi + 180) % 360 - 180))
        print(
            f"seed {seed}, {k} averages, SNR {given.snr:g}: labels right {right:.3f} (asked: "
            f"0.95), {error:.2f} deg; begin {begun - start:.1f} CPU-s, {n / cpu:.0f} per CPU-s"
        )


def measure_paper(given: argparse.Namespace) -> None:
    n = 10 * given.per_view
    start = time.process_time()
    truth = simulate(
        n, n_views=10, size=128, shift=15, snr=0.01, seed=1, has_ctf=True, pixel_size=1.5
    )
    print(f"{n} images made in {time.process_time() - start:.0f} CPU-s", flush=True)
    options = StreamParameters(classes=20, diameter=150.0, offset_range=32.0, junk=False)
    for cuts in ([n],):
        start = time.process_time()
        state = in_rounds(truth.source, cuts, options)
        cpu, poses = time.process_time() - start, state.em.poses
        print(
            f"{len(cuts)} round(s), 20 classes: purity {purity(poses.class_index, truth.label):.3f}"
            f", {turn_error(poses, truth):.2f} deg, {cpu:.0f} CPU-s (nothing asked)"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=["views", "stacks", "speed", "references", "paper"])
    options.add_argument("folders", nargs="*", type=Path)
    options.add_argument("--snr", nargs="+", type=float, default=[0.1, 0.03])
    options.add_argument("--classes", nargs="+", type=int, default=[])
    options.add_argument("--rounds", nargs="+", type=int, default=[1, 3])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--number", type=int, default=4000)
    options.add_argument("--per-view", type=int, default=3000)
    options.add_argument("--diameter", type=float, default=190.0)
    options.add_argument("--mask-diameter", type=float, default=230.0)
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.what == "references":
        given.averages, given.snr = given.folders[0], given.snr[0]
    given.classes = given.classes or {"stacks": [20]}.get(given.what, [8, 16])
    globals()[f"measure_{given.what}"](given)


if __name__ == "__main__":
    main()
