"""Quality of blob picking on real fields, on fields without particles and on pure noise.

Both modes of ``cryopick pick log`` pick the same fields; mode relion gives RELION's own picks, so
it stands for ``relion_autopick --LoG``. AP and best F1 are over all stored peaks, F1 as shipped
over the picks; a pick within 0.3 diameters of the truth is right. Nothing is asserted.

    python benchmarks/picking_quality.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cryopick.io.micrograph import read_micrograph
from cryopick.picking.evaluate import evaluate_picks
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters
from cryopick.picking.log_relion import pick_log_relion
from cryopick.tables.relion import picks_of_file

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
    given = options.parse_args()
    torch.set_num_threads(1)
    for folder, pixel_size, smallest, largest, diameter in _SPECIMENS:
        for mode in ("default", "relion"):
            parameters = LogParameters(min_diameter=smallest, max_diameter=largest, mode=mode)
            _specimen(given.data / folder, pixel_size, parameters, diameter)
    for mode in ("default", "relion"):
        parameters = LogParameters(min_diameter=150, max_diameter=150, mode=mode)
        _empty_fields(given.data / "junk_micrographs", parameters)
    for mode in ("default", "relion"):
        _noise(given.noise_fields, LogParameters(min_diameter=150, max_diameter=180, mode=mode))


def _pick(
    micrograph: Path | torch.Tensor, pixel_size: float, parameters: LogParameters
) -> FieldPicks:
    field = micrograph
    if isinstance(field, Path):
        field = torch.from_numpy(read_micrograph(field))
    function = pick_log if parameters.mode == "default" else pick_log_relion
    return function(field, pixel_size=pixel_size, parameters=parameters)


def _specimen(folder: Path, pixel_size: float, parameters: LogParameters, diameter: float) -> None:
    peaks, picks, truth = [], [], []
    for path in sorted((folder / "micrographs").glob("*.mrc")):
        found = _pick(path, pixel_size, parameters)
        rows = pd.DataFrame({"micrograph": path.name, "x": found.x, "y": found.y, "fom": found.fom})
        peaks.append(rows)
        picks.append(rows[found.is_pick])
        truth.append(picks_of_file(folder / "coordinates" / f"{path.stem}.star", path.name))
    sizes = {rows["micrograph"].iloc[0]: pixel_size for rows in truth}
    known = pd.concat(truth)
    at_all = evaluate_picks(pd.concat(peaks), known, pixel_sizes=sizes, diameter=diameter).total
    shipped = evaluate_picks(pd.concat(picks), known, pixel_sizes=sizes, diameter=diameter).total
    print(
        f"{folder.name:20s} {parameters.mode:8s} AP {at_all.average_precision:.3f}  "
        f"best F1 {at_all.best_f1:.3f}  F1 as shipped {shipped.f1:.3f} "
        f"(precision {shipped.precision:.3f}, recall {shipped.recall:.3f})  "
        f"centring error {shipped.centring_error or float('nan'):.1f} A"
    )


def _empty_fields(folder: Path, parameters: LogParameters) -> None:
    everything = []
    for name in _EMPTY:
        counts = [
            int(_pick(path, 8.0, parameters).is_pick.sum())
            for path in sorted((folder / name).glob("*.png"))
        ]
        everything += counts
        print(f"{name:40s} {parameters.mode:8s} picks {counts}")
    print(
        f"{'all fields without particles':40s} {parameters.mode:8s} "
        f"mean {np.mean(everything):.1f}, median {np.median(everything):.0f}"
    )


def _noise(count: int, parameters: LogParameters) -> None:
    found = []
    for seed in range(count):
        noise = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(seed))
        found.append(int(_pick(noise, 3.54, parameters).is_pick.sum()))
    print(
        f"pure noise, 1024 x 1024  {parameters.mode:8s} mean {np.mean(found):.2f}, "
        f"most {max(found)}"
    )


if __name__ == "__main__":
    main()
