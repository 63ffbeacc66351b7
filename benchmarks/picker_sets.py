"""The fields on which trained pickers are compared, and what each seed gives them to learn from."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.picking.label_split import split_micrographs
from cryopick.pipeline.evaluate import read_truth
from cryopick.tables.relion import picks_of_file, write_picks_file

__all__ = ["CRYOPICK", "SETS", "PickingSet", "Split", "open_set", "split_set"]

CRYOPICK = str(Path(sys.executable).parent / "cryopick")
SETS = ("easy", "hard", "apoferritin", "beta_galactosidase")
_SIMULATED = {"easy": (1.3, 7), "hard": (0.5, 8)}  # contrast of the particles, seed
_REAL = {"apoferritin": (125.0, 1.5), "beta_galactosidase": (160.0, 7.08)}  # diameter A, A/px
_DIAMETER, _PIXEL_SIZE = 130.0, 1.5  # A of the simulated particle, A/px
_SIMULATION = {
    "--phantoms": "tetramer",  # the general model has never seen one
    "--phantom-diameter": _DIAMETER,
    "--pixel-size": _PIXEL_SIZE,
    "--number": 12,
    "--width": 1024,
    "--height": 1024,
    "--particles": 90,
    "--carbon-fraction": 0.25,
    "--ice-blobs": 1,
    "--aggregates": 0.7,
    "--workers": 1,
}
_TRAIN = 4  # fields with labels
_LABELS = 200  # in all of them
_TEST_SHARE = 0.2  # of the labels, which both programs keep to choose their model by


@dataclass(frozen=True)
class PickingSet:
    """Fields of one specimen, and the truth."""

    name: str
    diameter: float  # A
    pixel_size: float  # A/px
    fields: tuple[Path, ...]
    truth: pd.DataFrame  # micrograph, x, y px
    ignored: pd.DataFrame  # the same of particles that need not be found

    @property
    def words(self) -> list[str]:
        """What every command is told of the specimen."""
        return ["--diameter", f"{self.diameter:g}", "--pixel-size", f"{self.pixel_size:g}"]


@dataclass(frozen=True)
class Split:
    """Fields to learn from and to be tested on."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    labels: Path  # folder of STAR files
    particles: float  # in a field that is learned from, labelled or not


def open_set(name: str, work: Path, data: Path) -> PickingSet:
    """Find the fields of real data, or simulate them."""
    if name in _REAL:
        return _real(name, data / name)
    folder = work / "fields" / name
    contrast, seed = _SIMULATED[name]
    options = {**_SIMULATION, "--contrast": contrast, "--seed": seed, "--out": folder}
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run(
        [CRYOPICK, "simulate", "micrographs", *words], check=True, stdout=subprocess.DEVNULL
    )
    truth = read_truth(folder / "truth.json")
    fields = tuple(sorted((folder / "micrographs").glob("*.mrc")))
    return PickingSet(name, _DIAMETER, _PIXEL_SIZE, fields, truth.rows, truth.ignored)


def _real(name: str, folder: Path) -> PickingSet:
    diameter, pixel_size = _REAL[name]
    fields = tuple(sorted((folder / "micrographs").glob("*.mrc")))
    tables = [picks_of_file(folder / "coordinates" / f"{f.stem}.star", f.name) for f in fields]
    truth = pd.concat(tables, ignore_index=True)
    return PickingSet(name, diameter, pixel_size, fields, truth, truth.iloc[:0])


def split_set(fields: PickingSet, seed: int, folder: Path) -> Split:
    """Draw the fields to learn from and the particles that are labelled there.

    Fields are drawn again where they hold too few particles for all labels.
    """
    draw = np.random.default_rng([seed, 41])
    while True:
        chosen = np.sort(draw.permutation(len(fields.fields))[:_TRAIN])
        train = [fields.fields[i] for i in chosen]
        known = fields.truth[fields.truth["micrograph"].isin([f.name for f in train])]
        if len(known) >= _LABELS:
            break
    labels = known.iloc[np.sort(draw.permutation(len(known))[:_LABELS])]
    folder.mkdir(parents=True, exist_ok=True)
    for field in train:
        rows = labels[labels["micrograph"] == field.name]
        write_picks_file(folder / f"{field.stem}_autopick.star", rows[["micrograph", "x", "y"]])
    counts = [int((labels["micrograph"] == f.name).sum()) for f in train]
    learned, _ = split_micrographs(counts, test_share=_TEST_SHARE, seed=seed)
    return Split(
        train=tuple(train),
        test=tuple(f for f in fields.fields if f not in train),
        labels=folder,
        particles=float(np.mean([(known["micrograph"] == train[i].name).sum() for i in learned])),
    )
