"""Pictures of segmentations and picks in tomograms, for the documentation.

``picks``: sections in three directions of a simulated tomogram (SNR 0.05, gold, a vesicle), with
what ``cryopick tomo pick`` finds. ``filaments``: a section of a tomogram of microtubules, its
segmentation and the main axis of each wall.

    python benchmarks/tomogram_pictures.py picks --out docs/images/tomogram_picks.png
    python benchmarks/tomogram_pictures.py filaments TOMOGRAM --voxel-size 10.52 --out walls.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Circle
from numpy.typing import NDArray
from scipy import ndimage

from cryopick.io.volumes import open_volume
from tomogram_sets import CRYOPICK, make_set, run_command

_SHOWN = 9  # sections averaged
_RADIUS = 12.0  # voxels, of a ring
_WALLS = 2  # largest regions whose axes are drawn


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("part", choices=("picks", "filaments"))
    options.add_argument("tomogram", type=Path, nargs="?", help="For filaments.")
    options.add_argument("--voxel-size", type=float, help="Of the tomogram, A.")
    options.add_argument("--work", type=Path, default=Path("build/tomogram"))
    options.add_argument("--out", type=Path, required=True)
    given = options.parse_args()
    if given.part == "picks":
        draw_picks(given.work, given.out)
    else:
        draw_filaments(given.tomogram, given.voxel_size, given.work, given.out)


def draw_picks(work: Path, out: Path) -> None:
    """Draw sections with rings about picks."""
    truth, _ = make_set("h005", 1, work)
    volume = open_volume(next(iter(truth.volumes.values())))
    voxels = volume.read((0, 0, 0), volume.shape)
    folder = work / "pictures" / "picks"
    path = next(iter(truth.volumes.values()))
    run_command([CRYOPICK, "tomo", "pick", path, "--out", folder, "--overwrite"])
    table = pd.read_csv(folder / "particles.csv")
    picks = table[["z", "y", "x"]].to_numpy() / volume.voxel_size
    known = truth.picks.rows[["z", "y", "x"]].to_numpy() / volume.voxel_size
    shape = np.array(voxels.shape)
    figure, panels = plt.subplots(
        1, 3, figsize=(11, 4.3), width_ratios=[shape[2], shape[2], shape[0]]
    )
    for axis, axes in enumerate(panels):
        middle = int(np.median(picks[:, axis]))
        _section(axes, voxels, axis, middle)
        _rings(axes, known, axis, middle, colour="#f2b134", style="--", radius=_RADIUS + 2)
        _rings(axes, picks, axis, middle, colour="#2f9e77", style="-", radius=_RADIUS)
        axes.set_title(f"{'zyx'[axis]} = {middle}", fontsize=9)
    figure.suptitle("solid: picked, dashed: true", fontsize=9)
    _save(figure, out)
    print(f"{len(picks)} picks of {len(known)} particles: {out}")


def draw_filaments(tomogram: Path, voxel_size: float | None, work: Path, out: Path) -> None:
    """Draw a section beside its segmentation, with the axes of the largest regions."""
    folder = work / "pictures" / "filaments"
    words = [tomogram, "--out", folder, "--white", "--overwrite"]
    words += ["--voxel-size", voxel_size] if voxel_size else []
    run_command([CRYOPICK, "tomo", "segment", *words])
    volume = open_volume(tomogram, voxel_size=voxel_size)
    labels = open_volume(next(folder.glob("*_labels.mrc")))
    found = labels.read((0, 0, 0), labels.shape) == 1
    middle = volume.shape[0] // 2
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.8))
    for axes in panels:
        _section(axes, volume.read((0, 0, 0), volume.shape).astype(np.float32), 0, middle)
    panels[1].imshow(
        np.ma.masked_equal(found[middle].astype(float), 0),
        cmap="autumn",
        alpha=0.55,
        aspect="equal",
    )
    regions, _ = ndimage.label(found[middle])
    angles = []
    for number in np.bincount(regions.ravel())[1:].argsort()[::-1][:_WALLS]:
        places = np.argwhere(regions == number + 1)
        angle, ends = _axis(places)
        angles.append(angle)
        panels[1].plot(ends[:, 1], ends[:, 0], color="#1f5fa8", lw=1.5)
    panels[0].set_title(f"section {middle}", fontsize=9)
    panels[1].set_title("segmented, and the axes of the largest regions", fontsize=9)
    _save(figure, out)
    print(f"directions of the largest regions: {', '.join(f'{a:.1f}' for a in angles)} deg: {out}")


def _axis(places: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """Direction of a region (degrees) and the ends of its main axis, (2, 2): y, x."""
    middle = places.mean(0)
    _, vectors = np.linalg.eigh(np.cov(places.T))
    along = vectors[:, 1]
    reach = (places - middle) @ along
    ends = middle + np.outer([reach.min(), reach.max()], along)
    return float(np.degrees(np.arctan2(along[0], along[1])) % 180), ends


def _section(axes: plt.Axes, voxels: NDArray[np.float32], axis: int, middle: int) -> None:
    near = np.arange(middle - _SHOWN // 2, middle + _SHOWN // 2 + 1)
    picture = voxels.take(near.clip(0, voxels.shape[axis] - 1), axis).mean(axis)
    picture = picture.T if axis == 2 else picture
    low, high = np.percentile(picture, (1, 99))
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect="equal")
    axes.set(xticks=[], yticks=[])


def _rings(
    axes: plt.Axes,
    places: NDArray[np.float64],
    axis: int,
    middle: int,
    *,
    colour: str,
    style: str,
    radius: float,
) -> None:
    down, across = [a for a in range(3) if a != axis]
    if axis == 2:
        down, across = across, down
    for place in places:
        away = abs(place[axis] - middle)
        if away < radius:
            size = float(np.sqrt(radius**2 - away**2))
            spot = (place[across], place[down])
            axes.add_patch(Circle(spot, size, fill=False, ec=colour, ls=style, lw=1.2))


def _save(figure: plt.Figure, out: Path) -> None:
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main()
