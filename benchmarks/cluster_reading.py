"""What it is worth that workers keep their images: ``class2d em`` on processes of this machine.

python benchmarks/cluster_reading.py [--particles 6000] [--box 100] [--classes 20] [--workers 2]

Prints the images read on all workers and the time, with images kept and with none.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client, LocalCluster

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.io.mrc import write_mrc
from cryopick.pipeline import class2d_shards, shard_images
from cryopick.pipeline.class2d import classify_particles
from cryopick.pipeline.class2d_parameters import ClassificationRunParameters
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

_PIXEL = 3.0  # A


def make_particles(folder: Path, *, n: int, box: int) -> Particles:
    """Noise with a bar in it; what is in the images does not matter to how long they take."""
    random = np.random.default_rng(0)
    images = random.standard_normal((n, box, box), np.float32)
    images[:, box // 2 - 4 : box // 2 + 4, box // 4 : -box // 4] += 0.5
    write_mrc(folder / "stack.mrcs", images.astype(np.float16), pixel_size=_PIXEL)
    optics = pd.DataFrame(
        {
            "optics_group": [1],
            "optics_group_name": ["one"],
            "pixel_size": [_PIXEL],
            "box_size": [box],
            "voltage": [300.0],
            "spherical_aberration": [2.7],
            "amplitude_contrast": [0.1],
        }
    )
    rows = pd.DataFrame(
        {
            "micrograph": [f"m{k // 100}.mrc" for k in range(n)],
            "image": "stack.mrcs",
            "image_index": np.arange(n),
            "optics_group": 1,
            "x": 0.0,
            "y": 0.0,
            "defocus_u": 15000.0,
            "defocus_v": 15000.0,
            "defocus_angle": 0.0,
        }
    )
    write_particles(folder / "particles.star", Particles(rows=rows, optics=optics))
    return read_particles(folder / "particles.star")


def _set_share(share: float) -> None:
    shard_images._SHARE = share
    class2d_shards._kept_images.cache_clear()
    shard_images.KeptImages.read_in_all = 0  # type: ignore[attr-defined]


def _count_reads() -> None:
    """Count images over all that a worker has kept."""
    keep = shard_images.KeptImages._keep

    def counted(self: Any, indices: Any, images: Any) -> None:
        type(self).read_in_all += len(indices)
        keep(self, indices, images)

    shard_images.KeptImages._keep = counted  # type: ignore[method-assign]


def _reads() -> int:
    return int(shard_images.KeptImages.read_in_all)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("particles", 6000), ("box", 100), ("classes", 20), ("iterations", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory() as name,
        LocalCluster(
            n_workers=given.workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        particles = make_particles(Path(name), n=given.particles, box=given.box)
        client.run(_count_reads)
        for share in (0.4, 0.0):
            client.run(_set_share, share)
            begun = time.perf_counter()
            classify_particles(
                particles,
                Path(name, f"share{share}"),
                parameters=ClassificationParameters(
                    classes=given.classes,
                    diameter=0.5 * given.box * _PIXEL,
                    iterations=given.iterations,
                ),
                compute=ClassificationRunParameters(
                    threads=1, execution=f"dask:{cluster.scheduler_address}"
                ),
            )
            seconds = time.perf_counter() - begun
            reads = sum(client.run(_reads).values())
            print(
                f"share {share}: {seconds:.1f} s, {reads} images read, "
                f"{reads / given.particles:.1f} times each"
            )


if __name__ == "__main__":
    main()
