"""Fields that the benchmark of consensus is run on, and what each picker finds there."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import write_mrc
from cryopick.picking.blob import pick_blob
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.evaluate import is_near
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import pick_network
from cryopick.pipeline.evaluate import Truth, read_truth
from cryopick.pipeline.pick_models import read_model
from cryopick.tables.relion import picks_of_file, write_picks_file
from picker_sets import CRYOPICK
from simulated_fields import Picking, cpu_seconds, pick_fields

__all__ = ["REAL", "SIMULATED", "FieldSet", "picks_of", "real_fields", "simulated_fields"]

PIXEL_SIZE = 1.5  # A, of all sets
_CONTRAST = {"easy": 1.3, "hard": 0.8}
_SIDE = 1024
_SIMULATION = {
    "--phantoms": "tetramer", "--phantom-diameter": 130.0, "--pixel-size": PIXEL_SIZE,
    "--width": _SIDE, "--height": _SIDE, "--particles": 90,
    "--carbon-fraction": 0.25, "--ice-blobs": 1, "--aggregates": 0.7, "--workers": 1,
}  # fmt: skip
SIMULATED = ("shy", "greedy", "off-centre", "crowd-blind")
REAL = ("log", "blob", "network", "relion")

Points = NDArray[np.float64]


class FieldSet(NamedTuple):
    """Fields with truth, and the picks of all pickers beside them."""

    folder: Path  # holds micrographs/ and picks/
    table: str  # of the micrographs
    truth: Truth
    diameter: float  # A
    smallest: float  # A: size that LoG and blob look for
    largest: float

    def picks(self, picker: str) -> pd.DataFrame:
        """Read the picks on all micrographs."""
        return picks_of(self.folder, picker)


def simulated_fields(folder: Path, name: str, seed: int, number: int) -> FieldSet:
    """Simulate fields and let all pickers pick them, unless that was done before."""
    table = "micrographs_ctf.star"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        options = {**_SIMULATION, "--number": number, "--contrast": _CONTRAST[name],
                   "--seed": 100 + seed, "--out": folder}  # fmt: skip
        words = [str(word) for pair in options.items() for word in pair]
        subprocess.run(
            [CRYOPICK, "simulate", "micrographs", *words], check=True, stdout=subprocess.DEVNULL
        )
    made = FieldSet(folder, table, read_truth(folder / "truth.json"), 130.0, 100.0, 160.0)
    if not (folder / "done").exists():
        for picker, picking in _pickings(made).items():
            found, _ = pick_fields(folder, picking)
            _write(folder, picker, found[found["is_pick"]])
        if shutil.which("relion_autopick"):
            _write(folder, "relion", _relion(made))
        for place, picker in enumerate((*SIMULATED, "random")):
            random = np.random.default_rng([seed, place])
            _write(folder, picker, _simulated(made, picker, random))
        (folder / "done").touch()
    return made


def real_fields(folder: Path, data: Path) -> FieldSet:
    """Let real pickers pick the apoferritin fields, which are read where they are."""
    source = data / "apoferritin"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("micrographs", "micrographs.star"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((source / name).resolve())
    rows = pd.concat(
        picks_of_file(f, f"{f.stem}.mrc") for f in sorted((source / "coordinates").glob("*.star"))
    )
    truth = Truth(rows=rows, ignored=rows.iloc[:0], micrographs=list(rows["micrograph"].unique()))
    made = FieldSet(folder, "micrographs.star", truth, 125.0, 110.0, 140.0)
    if not (folder / "done").exists():
        for picker, picking in _pickings(made).items():
            _write(folder, picker, _pick_real(folder, picking))
        if shutil.which("relion_autopick"):
            _write(folder, "relion", _relion_on_numbers(made))
        (folder / "done").touch()
    return made


def _relion_on_numbers(made: FieldSet) -> pd.DataFrame:
    """Let RELION pick real numbers: older versions do not know unsigned ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "micrographs").mkdir()
        shutil.copy(made.folder / made.table, folder)
        for path in sorted((made.folder / "micrographs").glob("*.mrc")):
            pixels = read_micrograph(path).astype(np.float32)
            write_mrc(folder / "micrographs" / path.name, pixels, pixel_size=PIXEL_SIZE)
        return _relion(made._replace(folder=folder))


def _pick_real(folder: Path, picking: Picking) -> pd.DataFrame:
    tables = []
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        found = picking(torch.from_numpy(read_micrograph(path)), PIXEL_SIZE, None)
        table = pd.DataFrame({"x": found.x, "y": found.y, "fom": found.fom})[found.is_pick]
        tables.append(table.assign(micrograph=path.name))
    return pd.concat(tables)


def _pickings(made: FieldSet) -> dict[str, Picking]:
    model, _ = read_model(None)

    def network(threshold: float | None) -> Picking:
        parameters = NetworkParameters(diameter=made.diameter, threshold=threshold)
        return lambda f, size, _: pick_network(
            f, pixel_size=size, parameters=parameters, model=model
        )

    log = LogParameters(min_diameter=made.smallest, max_diameter=made.largest)
    blob = BlobParameters(min_diameter=made.smallest, max_diameter=made.largest)
    return {
        "log": lambda f, size, _: pick_log(f, pixel_size=size, parameters=log),
        "blob": lambda f, size, ctf: pick_blob(f, pixel_size=size, parameters=blob, ctf=ctf),
        "network": network(None),
        "network 0.1": network(0.1),
    }


def _relion(made: FieldSet) -> pd.DataFrame:
    command = [
        *("relion_autopick", "--i", made.table, "--odir", "relion/", "--LoG"),
        *("--LoG_diam_min", f"{made.smallest:g}", "--LoG_diam_max", f"{made.largest:g}"),
        *("--shrink", "0", "--lowpass", "20"),
    ]
    cpu_seconds(command, made.folder)
    files = sorted((made.folder / "relion").rglob("*_autopick.star"))
    return pd.concat(
        picks_of_file(f, f.name.replace("_autopick.star", ".mrc"))[["micrograph", "x", "y", "fom"]]
        for f in files
    )


def _simulated(made: FieldSet, picker: str, random: np.random.Generator) -> pd.DataFrame:
    """Make picks from the truth, and from the false ones of our LoG what is mistaken."""
    truth, wrong = made.truth, _wrong_picks(made)
    tables = []
    for name in truth.micrographs:
        true = _places(truth.rows, name)
        crowded = np.sort(np.hypot(*(true[:, None] - true).transpose(2, 0, 1)), 1)[:, 1]
        sensitivity, false, jitter, shift = {
            "shy": (np.full(len(true), 0.55), 0.05, 3.0, 0.0),
            "greedy": (np.full(len(true), 0.95), 0.9, 6.0, 0.0),
            "off-centre": (np.full(len(true), 0.85), 0.25, 3.0, 7.0),
            "crowd-blind": (np.where(crowded < 1.25 * made.diameter / PIXEL_SIZE, 0.5, 0.9),
                            0.2, 4.0, 0.0),
            "random": (np.zeros(len(true)), 0.0, 0.0, 0.0),
        }[picker]  # fmt: skip
        found = true[random.random(len(true)) < sensitivity]
        found = found + random.normal(0, max(jitter, 1e-9), found.shape) + shift
        others = _places(wrong, name)
        others = others[random.random(len(others)) < false]
        n_anywhere = 60 if picker == "random" else int(random.poisson(20 * false))
        others = np.concatenate([others, random.uniform(0, _SIDE - 1, (n_anywhere, 2))])
        fom = np.concatenate([random.normal(1.5, 1, len(found)), random.normal(0, 1, len(others))])
        table = pd.DataFrame(np.concatenate([found, others]), columns=["x", "y"])
        tables.append(table.assign(micrograph=name, fom=fom))
    return pd.concat(tables)


def _wrong_picks(made: FieldSet) -> pd.DataFrame:
    log = made.picks("log")
    kept = []
    for name, rows in log.groupby("micrograph"):
        places = rows[["x", "y"]].to_numpy(float)
        radius = 0.5 * made.diameter / PIXEL_SIZE
        near = is_near(places, _places(made.truth.rows, str(name)), radius=radius)
        kept.append(rows[~near])
    return pd.concat(kept)


def _places(rows: pd.DataFrame, name: str) -> Points:
    return rows.loc[rows["micrograph"] == name, ["x", "y"]].to_numpy(np.float64)


def _write(folder: Path, picker: str, table: pd.DataFrame) -> None:
    out = folder / "picks" / picker
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        rows = table[table["micrograph"] == path.name]
        write_picks_file(out / f"{path.stem}_autopick.star", rows[["x", "y", "fom"]])


def picks_of(folder: Path, picker: str) -> pd.DataFrame:
    """Read the picks of a picker on all micrographs."""
    return pd.concat(
        picks_of_file(f, f.name.replace("_autopick.star", ".mrc"))
        for f in sorted((folder / "picks" / picker).glob("*.star"))
    )
