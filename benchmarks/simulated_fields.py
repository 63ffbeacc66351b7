"""Simulated fields that benchmarks of pickers share: making them, their CTF, and the scores."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.evaluate import PickScores, evaluate_picks
from cryopick.picking.field_picks import FieldPicks
from cryopick.pipeline.evaluate import read_truth
from cryopick.tables.micrographs import open_micrographs, pixel_sizes

__all__ = ["PIXEL_SIZE", "Picking", "cpu_seconds", "fields_of", "pick_fields", "score", "simulate"]

PIXEL_SIZE = 1.5  # A
Picking = Callable[[torch.Tensor, float, FieldCtf], FieldPicks]


def simulate(
    folder: Path, *, phantom: str, contrast: str, diameter: float, number: int, side: int
) -> None:
    """Make fields that are crowded alike whatever the size of the particle."""
    crowd = round(0.35 * (side * PIXEL_SIZE / diameter) ** 2)
    command = [str(Path(sys.executable).parent / "cryopick"), "simulate", "micrographs"]
    options = {
        "--phantoms": phantom, "--contrast": contrast, "--number": number,
        "--width": side, "--height": side, "--particles": crowd, "--out": folder, "--workers": 1,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)


def fields_of(folder: Path) -> list[tuple[str, float, FieldCtf]]:
    """Name, A/px and true CTF of each field."""
    table = open_micrographs([str(folder / "micrographs_ctf.star")])
    lens = table.optics.iloc[0]
    sizes = pixel_sizes(table)
    return [
        (
            str(row.micrograph),
            float(size),
            FieldCtf(
                defocus_u=row.defocus_u,
                defocus_v=row.defocus_v,
                defocus_angle=row.defocus_angle,
                voltage=lens["voltage"],
                spherical_aberration=lens["spherical_aberration"],
                amplitude_contrast=lens["amplitude_contrast"],
            ),
        )
        for row, size in zip(table.rows.itertuples(), sizes, strict=True)
    ]


def pick_fields(folder: Path, picking: Picking) -> tuple[pd.DataFrame, float]:
    """Peaks of all fields, and CPU seconds per field of reading and picking."""
    start = time.process_time()
    tables = []
    for name, pixel_size, ctf in fields_of(folder):
        found = picking(torch.from_numpy(read_micrograph(folder / name)), pixel_size, ctf)
        table = pd.DataFrame({"micrograph": Path(name).name, "x": found.x, "y": found.y})
        tables.append(table.assign(fom=found.fom, is_pick=found.is_pick))
    return pd.concat(tables), (time.process_time() - start) / len(tables)


def score(folder: Path, peaks: pd.DataFrame, diameter: float) -> PickScores:
    """Compare peaks with the truth; picks of ignored particles do not count."""
    truth = read_truth(folder / "truth.json")
    names = sorted(f.name for f in (folder / "micrographs").glob("*.mrc"))
    return evaluate_picks(
        peaks,
        truth.rows,
        pixel_sizes=dict.fromkeys(names, PIXEL_SIZE),
        diameter=diameter,
        ignored=truth.ignored,
    ).total


def cpu_seconds(command: Sequence[str], folder: Path) -> float:
    """Run a program on one core in a folder: user and system time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
