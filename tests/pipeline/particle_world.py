"""Tiny stacks with a table of their images, for tests of reading particles."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from cryopick.io.mrc import MrcStackWriter, read_mrc_images
from cryopick.tables.model import Particles

PIXEL_SIZE = 3.0


def write_stack(path: Path, images: np.ndarray) -> Path:
    """Write a stack of any type of numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if images.dtype in (np.float32, np.float16) and images.shape[1] == images.shape[2]:
        size = images.shape[1]
        stack = MrcStackWriter(path, box_size=size, pixel_size=PIXEL_SIZE, dtype=images.dtype)
        with stack:
            stack.append(images)
    else:
        with mrcfile.new(path, overwrite=True) as mrc:
            mrc.set_data(images)
            mrc.set_image_stack()
    return path


def overwrite_pixels(path: Path, images: np.ndarray) -> None:
    """Put other pixels, of any value, into a stack of the same size."""
    path.write_bytes(path.read_bytes()[:1024] + images.tobytes())


def noise(count: int, size: int = 8, *, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, size, size))
    return (100 * values if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def optics_table(groups: int = 1, **columns: object) -> pd.DataFrame:
    numbers = np.arange(1, groups + 1)
    table = pd.DataFrame({"optics_group": numbers, "pixel_size": PIXEL_SIZE})
    return table.assign(voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1, **columns)


def particles_of(
    folder: Path, counts: dict[str, int], *, optics: pd.DataFrame | None = None, **columns: object
) -> Particles:
    """List the first images of each stack named, in a table that lies in `folder`."""
    rows = pd.DataFrame(
        {
            "image": np.repeat(list(counts), list(counts.values())),
            "image_index": np.concatenate([np.arange(n) for n in counts.values()]),
            "optics_group": 1,
        }
    )
    return Particles(
        rows=rows.assign(**columns),
        optics=optics_table() if optics is None else optics,
        source=folder / "particles.star",
    )


def expected(particles: Particles) -> np.ndarray:
    """Read image by image, the slow and obvious way."""
    assert particles.source is not None
    folder = particles.source.parent
    places = zip(particles.rows["image"], particles.rows["image_index"], strict=True)
    images = [read_mrc_images(folder / name, np.array([index]))[0] for name, index in places]
    return np.stack(images).astype(np.float32)


def with_ctf(count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a CTF that differs from row to row."""
    rng = np.random.default_rng(seed)
    return {
        "defocus_u": rng.uniform(1.2e4, 2e4, count),
        "defocus_v": rng.uniform(1.1e4, 1.2e4, count),
        "defocus_angle": rng.uniform(0, 180, count),
    }
