"""Simulate the stacks that 2D classification is measured on, always the same ones.

    python benchmarks/class2d_sets.py --out /tmp/class2d_sets [--only rare groel_like]

asymmetric_64   1000 images of a particle without symmetry, 64 px of 4 A, SNR 0.2
asymmetric_128  the same specimen, 1000 images of 128 px of 2 A
asymmetric_256  the same, 400 images of 256 px of 1 A
rare            2000 images of two species, of which 40 (2 %) are of the second
rare_view       2000 images of a barrel from the side, 40 (2 %) from the top
groel_like      3000 images of a barrel, 64 px of 4 A, SNR 0.2; meant for 50 classes

15 % of each set is junk. Smaller pixels get an SNR less by their area, as the same exposure
gives. A set is a folder as ``cryopick simulate particles`` writes it: classify SET/particles.star
and score the result.

    cryopick evaluate classes RESULT.star --truth SET
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.execution.parameters import ComputeParameters
from cryopick.io.mrc import MrcStackWriter, read_mrc_images
from cryopick.pipeline.simulate_particles import simulate_stack
from cryopick.simulation.parameters import (
    MicroscopeParameters,
    ParticleSimulationParameters,
    SpecimenParameters,
)
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles, write_particles

Parts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # common, rare, junk

RARE_COUNTS = (1660, 40, 300)  # common, rare, junk
ASYMMETRIC = SpecimenParameters(phantoms="asymmetric", phantom_diameter=180.0)


def parameters(number: int, box_size: int, seed: int, snr: float) -> ParticleSimulationParameters:
    return ParticleSimulationParameters(
        number=number, box_size=box_size, pixel_size=256 / box_size, snr=snr, seed=seed
    )


def by_species(rows: pd.DataFrame) -> Parts:
    return _parts(rows, rows["class_number"] == 1, rows["class_number"] == 2)


def by_view(rows: pd.DataFrame) -> Parts:
    """Side views, and top views apart from them: none between looks like both."""
    from_side = (rows["tilt"] - 90).abs()
    return _parts(rows, from_side < 30, from_side > 75)


def _parts(rows: pd.DataFrame, is_common: pd.Series, is_rare: pd.Series) -> Parts:
    is_junk = rows["is_junk"] == 1
    masks = (is_common & ~is_junk, is_rare & ~is_junk, is_junk)
    common, rare, junk = (np.flatnonzero(m.to_numpy()) for m in masks)
    return common, rare, junk


@dataclass(frozen=True, kw_only=True)
class Set:
    """One stack; with `choice` it is taken out of a larger one."""

    parameters: ParticleSimulationParameters
    specimen: SpecimenParameters = field(default_factory=lambda: ASYMMETRIC)
    choice: Callable[[pd.DataFrame], Parts] | None = None


SETS = {
    "asymmetric_64": Set(parameters=parameters(1000, 64, 101, 0.2)),
    "asymmetric_128": Set(parameters=parameters(1000, 128, 102, 0.05)),
    "asymmetric_256": Set(parameters=parameters(400, 256, 103, 0.0125)),
    "rare": Set(
        parameters=parameters(4400, 64, 104, 0.2),
        specimen=SpecimenParameters(phantoms="asymmetric,tetramer", phantom_diameter=180.0),
        choice=by_species,
    ),
    "rare_view": Set(
        parameters=parameters(4400, 64, 105, 0.2), specimen=SpecimenParameters(), choice=by_view
    ),
    "groel_like": Set(parameters=parameters(3000, 64, 106, 0.2), specimen=SpecimenParameters()),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="Folder for the sets.")
    options.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    options.add_argument("--workers", type=int, default=1)
    given = options.parse_args()
    compute = ComputeParameters(workers=given.workers)
    for name in given.only:
        start = time.perf_counter()
        make(given.out / name, SETS[name], compute)
        print(describe(given.out / name), f"{time.perf_counter() - start:5.1f} s", flush=True)


def make(folder: Path, one: Set, compute: ComputeParameters) -> None:
    """Simulate a set; what is there from an earlier call is left as it is."""
    if one.choice is None:
        _simulate(folder, one, compute)
    elif not (folder / "particles.star").exists():  # written last
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as larger:
            _simulate(Path(larger), one, compute)
            rows = read_particles(Path(larger) / "truth.star").rows
            kept = [part[:n] for part, n in zip(one.choice(rows), RARE_COUNTS, strict=True)]
            if [len(k) for k in kept] != list(RARE_COUNTS):
                raise SystemExit(f"{folder.name}: too few of a kind, {[len(k) for k in kept]}")
            take(Path(larger), folder, np.sort(np.concatenate(kept)))


def _simulate(folder: Path, one: Set, compute: ComputeParameters) -> None:
    simulate_stack(
        folder,
        specimen=one.specimen,
        microscope=MicroscopeParameters(),
        parameters=one.parameters,
        compute=compute,
    )


def take(source: Path, folder: Path, kept: NDArray[np.int64]) -> None:
    """Write some images of a simulated stack, with their truth, as a stack of their own."""
    clean = np.load(source / "clean.npy", mmap_mode="r")[kept]
    np.save(folder / "clean.npy", clean)
    with np.load(source / "truth.npz") as stored:
        arrays = {n: stored[n] for n in stored.files}
    pixel_size = float(arrays["apix"])
    np.savez(folder / "truth.npz", **{n: a[kept] if a.ndim else a for n, a in arrays.items()})
    size = clean.shape[-1]
    with MrcStackWriter(folder / "particles.mrcs", box_size=size, pixel_size=pixel_size) as stack:
        stack.append(read_mrc_images(source / "particles.mrcs", kept))
    for name in ("truth.star", "particles.star"):
        table = read_particles(source / name)
        rows = table.rows.iloc[kept].reset_index(drop=True)
        rows["image_index"] = np.arange(len(kept))
        write_particles(folder / name, Particles(rows=rows, optics=table.optics))


def describe(folder: Path) -> str:
    """One line on a set."""
    table = read_particles(folder / "truth.star")
    true = table.rows[table.rows["is_junk"] == 0]
    size, pixel_size = (table.optics[n].iloc[0] for n in ("box_size", "pixel_size"))
    species = ", ".join(f"{n} {s}" for s, n in true["cryopickSpecies"].value_counts().items())
    megabytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
    return (
        f"{folder.name:15s} {len(table):5d} images of {size:3d} px of {pixel_size:g} A, "
        f"{len(table) - len(true)} junk; {species}; {true['cryopickView'].nunique()} views; "
        f"{megabytes:.0f} MB;"
    )


if __name__ == "__main__":
    main()
