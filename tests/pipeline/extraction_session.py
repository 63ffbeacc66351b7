"""A small session on disk, and how tests extract from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.execution.parameters import ComputeParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.extraction import extract
from cryopick.pipeline.extraction_plan import open_coordinates
from cryopick.tables.model import Micrographs, Particles
from cryopick.tables.relion import (
    read_micrographs,
    read_particles,
    write_coordinate_files,
    write_micrographs,
    write_particles,
    write_picks_file,
)

SERIAL = ComputeParameters(workers=1, threads=1)
CTF = {
    "defocus_u": 15800.25,
    "defocus_v": 15000.0,
    "defocus_angle": 31.0,
    "ctf_max_resolution": 4.5,
    "ctf_fom": 0.125,
}


def particle_field(height, width, positions, *, seed, sign=-1):
    """A noisy field with a bright (or dark) Gaussian of sigma 3 px at each position (x, y)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = 1000 + 20 * generator.standard_normal((height, width)) + 0.05 * x
    for centre_x, centre_y in positions:
        image += sign * 300 * np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / 18)
    return image.astype(np.float32)


def make_session(folder, sizes=((256, 300), (256, 300)), *, angpix=(1.5,), with_ctf=True, n=9):
    """Micrographs in micrographs/, their table, and picks with fractions of a pixel."""
    folder.mkdir(exist_ok=True)
    names, groups, pairs = [], [], []
    for number, (height, width) in enumerate(sizes):
        generator = np.random.default_rng(number)
        xy = generator.uniform(6, (width - 6, height - 6), (n, 2)).round(2)
        name = f"micrographs/field{number}.mrc"
        names.append(name)
        groups.append(1 + number % len(angpix))
        size = angpix[number % len(angpix)]
        write_mrc(folder / name, particle_field(height, width, xy, seed=number), pixel_size=size)
        rows = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1], "fom": generator.uniform(0, 1, n)})
        picks = f"picks/micrographs/field{number}_autopick.star"
        write_picks_file(folder / picks, rows)
        pairs.append((name, picks))
    rows = pd.DataFrame({"micrograph": names, "optics_group": groups})
    optics = pd.DataFrame(
        {
            "optics_group_name": [f"group{i + 1}" for i in range(len(angpix))],
            "optics_group": range(1, len(angpix) + 1),
            "pixel_size": angpix,
            "original_pixel_size": angpix,
            "voltage": 300.0,
            "spherical_aberration": 2.7,
            "amplitude_contrast": 0.1,
        }
    )
    rows = rows.assign(**CTF) if with_ctf else rows
    write_micrographs(folder / "micrographs.star", Micrographs(rows=rows, optics=optics))
    write_coordinate_files(folder / "autopick.star", pairs)


def run(out="out", *, micrographs="micrographs.star", coordinates="autopick.star", **values):
    overwrite = values.pop("overwrite", False)
    compute = values.pop("compute", SERIAL)
    return extract(
        read_micrographs(Path(micrographs)),
        open_coordinates(Path(coordinates)),
        Path(out),
        parameters=ExtractionParameters(**{"box_size": 48, **values}),
        compute=compute,
        overwrite=overwrite,
    )


def images_of(particles):
    stacks = {name: np.atleast_3d(read_mrc(Path(name))) for name in set(particles.rows["image"])}
    stacks = {k: v.reshape(-1, *v.shape[-2:]) for k, v in stacks.items()}
    pairs = zip(particles.rows["image"], particles.rows["image_index"], strict=True)
    return np.stack([stacks[name][index] for name, index in pairs])


def centre_of_mass(image):
    """Centroid of the bright spot in the middle of an image, from its centre, (y, x) px."""
    half = image.shape[-1] // 2
    y, x = np.mgrid[-half:half, -half:half]
    weight = np.where((x**2 + y**2 < 100) & (image > 0), image, 0)
    return np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()


def shifted_particles(session):
    """Particles extracted 3 px off, whose origins say so."""
    particles = run("first", positions="nearest", edges="replicate") and read_particles(
        Path("first/particles.star")
    )
    generator = np.random.default_rng(8)
    moved = generator.integers(-4, 5, (len(particles), 2)).astype(float)
    rows = particles.rows.assign(
        x=particles.rows["x"] + moved[:, 0],
        y=particles.rows["y"] + moved[:, 1],
        shift_x=particles.rows["shift_x"] + 1.5 * moved[:, 0],
        shift_y=particles.rows["shift_y"] + 1.5 * moved[:, 1],
        rot=generator.uniform(-180, 180, len(particles)),
        tilt=generator.uniform(0, 180, len(particles)),
        psi=generator.uniform(-180, 180, len(particles)),
        defocus_u=20000.0,
    )
    path = Path("data.star")
    write_particles(path, Particles(rows=rows, optics=particles.optics))
    return particles, read_particles(path)


def break_field(kind, path):
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "missing":
        path.unlink()
    else:
        pixels = read_mrc(path)
        pixels[5:9, 5:9] = np.nan
        write_mrc(path, pixels if kind == "nan" else np.full_like(pixels, 7.0), pixel_size=1.5)
