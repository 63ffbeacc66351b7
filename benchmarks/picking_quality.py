"""Quality of blob picking on real fields, on fields without particles and on pure noise.

``cryopick pick network`` with the general model, ``pick blob`` and both modes of ``pick log`` pick
the same fields; mode relion gives
RELION's own picks, so it stands for ``relion_autopick --LoG``. The CTF is estimated where pixels
are fine enough for rings. AP and best F1 are over all stored peaks, F1 as shipped
over the picks; a pick within 0.3 diameters of the truth is right. Nothing is asserted.

    python benchmarks/picking_quality.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial import cKDTree

from cryopick.ctf.polar import Lens
from cryopick.io.micrograph import read_micrograph
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.evaluate import evaluate_picks
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.pipeline.network_picker import NetworkPicker, make_network_picker
from cryopick.pipeline.pickers import BlobPicker, LogPicker
from cryopick.pipeline.picking_ctf import CtfOfField, find_ctf
from cryopick.tables.relion import picks_of_file

Some = LogPicker | BlobPicker | NetworkPicker
_SPECIMENS = (  # folder, A/px, smallest and largest diameter sought, diameter of the truth (A)
    ("apoferritin", 1.5, 110.0, 140.0, 125.0),
    ("beta_galactosidase", 7.08, 130.0, 180.0, 160.0),
)
_EMPTY = ("empty_no_ice", "empty_ice_no_particles_but_vitreous_ice", "crystalline_ice")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).parents[2] / "shared" / "data"
    named = os.environ.get("CRYOPICK_TEST_DATA", str(beside))
    options.add_argument("--data", type=Path, default=Path(named), help="Folder of real data.")
    options.add_argument("--noise-fields", type=int, default=20)
    options.add_argument("--model", type=Path, help="Of the network, instead of the general one.")
    given = options.parse_args()
    torch.set_num_threads(1)
    for folder, pixel_size, smallest, largest, diameter in _SPECIMENS:
        for picker in _pickers(smallest, largest, given.model):
            _specimen(given.data / folder, pixel_size, picker, diameter)
        _agreement(given.data / folder, pixel_size, _pickers(smallest, largest, given.model)[1:3])
    for picker in _pickers(150, 150, given.model):
        _empty_fields(given.data / "junk_micrographs", picker)
    for picker in _pickers(150, 180, given.model):
        _noise(given.noise_fields, picker)


def _pickers(smallest: float, largest: float, model: Path | None) -> list[Some]:
    limits = {"min_diameter": smallest, "max_diameter": largest}
    middle = NetworkParameters(diameter=(smallest + largest) / 2)
    return [
        make_network_picker(model, parameters=middle),
        BlobPicker(parameters=BlobParameters(**limits)),
        LogPicker(parameters=LogParameters(**limits)),
        LogPicker(parameters=LogParameters(**limits, mode="relion")),
    ]


def _name(picker: Some) -> str:
    if isinstance(picker, LogPicker):
        return f"log {picker.parameters.mode}"
    return picker.name.removeprefix("pick ")


def _pick(
    micrograph: Path | torch.Tensor,
    pixel_size: float,
    picker: Some,
    lens: Lens | None = None,
) -> FieldPicks:
    field = micrograph
    if isinstance(field, Path):
        field = torch.from_numpy(read_micrograph(field))
    known = CtfOfField(lens=lens if isinstance(picker, BlobPicker) else None)
    ctf = find_ctf(field, known, pixel_size=pixel_size).ctf
    return picker.pick(field, pixel_size=pixel_size, ctf=ctf)


def _specimen(folder: Path, pixel_size: float, picker: Some, diameter: float) -> None:
    peaks, picks, truth = [], [], []
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        found = _pick(path, pixel_size, picker, Lens(300.0, 2.7, 0.1))
        rows = pd.DataFrame({"micrograph": path.name, "x": found.x, "y": found.y, "fom": found.fom})
        peaks.append(rows)
        picks.append(rows[found.is_pick])
        truth.append(picks_of_file(folder / "coordinates" / f"{path.stem}.star", path.name))
    sizes = {rows["micrograph"].iloc[0]: pixel_size for rows in truth}
    known = pd.concat(truth)
    at_all = evaluate_picks(pd.concat(peaks), known, pixel_sizes=sizes, diameter=diameter).total
    shipped = evaluate_picks(pd.concat(picks), known, pixel_sizes=sizes, diameter=diameter).total
    print(
        f"{folder.name:20s} {_name(picker):12s} AP {at_all.average_precision:.3f}  "
        f"best F1 {at_all.best_f1:.3f}  F1 as shipped {shipped.f1:.3f} "
        f"(precision {shipped.precision:.3f}, recall {shipped.recall:.3f})  "
        f"centring error {shipped.centring_error or float('nan'):.1f} A"
    )


def _agreement(folder: Path, pixel_size: float, pickers: Sequence[Some]) -> None:
    """Print how far apart two pickers put the same particles: they share no error of the truth."""
    gaps = []
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        one, other = (_pick(path, pixel_size, p, Lens(300.0, 2.7, 0.1)) for p in pickers)
        tree = cKDTree(np.c_[one.x, one.y][one.is_pick])
        gap, _ = tree.query(np.c_[other.x, other.y][other.is_pick])
        gaps.append(gap[gap * pixel_size < 0.3 * pickers[0].largest_diameter] * pixel_size)
    names = " and ".join(map(_name, pickers))
    print(
        f"{folder.name:20s} {names} agree within {np.median(np.concatenate(gaps)):.1f} A (median)"
    )


def _empty_fields(folder: Path, picker: Some) -> None:
    everything = []
    for name in _EMPTY:
        counts = [
            int(_pick(path, 8.0, picker).is_pick.sum())
            for path in sorted((folder / name).glob("*.png"))
        ]
        everything += counts
        print(f"{name:40s} {_name(picker):12s} picks {counts}")
    print(
        f"{'all fields without particles':40s} {_name(picker):12s} "
        f"mean {np.mean(everything):.1f}, median {np.median(everything):.0f}"
    )


def _noise(count: int, picker: Some) -> None:
    found = []
    for seed in range(count):
        noise = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(seed))
        found.append(int(_pick(noise, 3.54, picker).is_pick.sum()))
    print(
        f"pure noise, 1024 x 1024  {_name(picker):12s} mean {np.mean(found):.2f}, most {max(found)}"
    )


if __name__ == "__main__":
    main()
