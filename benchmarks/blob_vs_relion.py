"""Blob picking beside ``relion_autopick --LoG`` on simulated fields: quality and CPU time.

For each phantom and contrast some fields are simulated and picked over the same range of diameters.
RELION keeps all peaks above the mean response (its threshold of 0). A pick within 0.3 diameters of
a particle is right; average precision and best F1 are over all peaks, F1 over the picks as
shipped. CPU is user and system time per field: of the whole program for RELION, of reading and
picking for cryopick. Nothing is asserted.

    python benchmarks/blob_vs_relion.py --phantoms barrel,shell,asymmetric,rod --fields 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.picking.blob import pick_blob
from cryopick.picking.blob_parameters import BlobParameters
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.log import pick_log
from cryopick.picking.log_parameters import LogParameters
from cryopick.simulation.phantoms import make_phantom
from cryopick.tables.relion import picks_of_file
from simulated_fields import cpu_seconds, pick_fields, score, simulate

_RANGES = {  # A: short and long side, as a user would say them
    "barrel": (140.0, 190.0),
    "shell": (110.0, 140.0),
    "asymmetric": (140.0, 215.0),
    "rod": (80.0, 200.0),
    "small": (65.0, 90.0),
    "ring": (110.0, 160.0),
    "tetramer": (100.0, 160.0),
    "cage": (140.0, 220.0),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--phantoms", default="barrel,shell,asymmetric,rod")
    options.add_argument("--contrasts", default="1,0.35")
    options.add_argument("--fields", type=int, default=3)
    options.add_argument("--side", type=int, default=2048, help="Of a field, px of 1.5 A.")
    given = options.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{'phantom':<11} {'contrast':>8} {'program':<18} {'AP':>6} {'best F1':>8} "
          f"{'F1':>6} {'error, A':>9} {'CPU s':>7}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for phantom in given.phantoms.split(","):
            for contrast in given.contrasts.split(","):
                folder = Path(temporary) / f"{phantom}_{contrast}"
                _compare(folder, phantom, contrast, given)
                shutil.rmtree(folder)


def _compare(folder: Path, phantom: str, contrast: str, given: argparse.Namespace) -> None:
    diameter, (low, high) = make_phantom(phantom).diameter, _RANGES[phantom]
    simulate(
        folder,
        phantom=phantom,
        contrast=contrast,
        diameter=diameter,
        number=given.fields,
        side=given.side,
    )

    def tell(program: str, peaks: pd.DataFrame, seconds: float) -> None:
        everything = score(folder, peaks, diameter)
        shipped = score(folder, peaks[peaks["is_pick"]], diameter)
        error = shipped.centring_error or float("nan")
        print(f"{phantom:<11} {contrast:>8} {program:<18} {everything.average_precision:>6.3f} "
              f"{everything.best_f1:>8.3f} {shipped.f1:>6.3f} {error:>9.1f} {seconds:>7.2f}",
              flush=True)  # fmt: skip

    def log(field: torch.Tensor, pixel_size: float, _: FieldCtf) -> FieldPicks:
        parameters = LogParameters(min_diameter=low, max_diameter=high)
        return pick_log(field, pixel_size=pixel_size, parameters=parameters)

    def blob(field: torch.Tensor, pixel_size: float, ctf: FieldCtf | None) -> FieldPicks:
        parameters = BlobParameters(min_diameter=low, max_diameter=high)
        return pick_blob(field, pixel_size=pixel_size, parameters=parameters, ctf=ctf)

    tell("relion LoG", *_relion(folder, low, high, given.fields))
    tell("pick log", *pick_fields(folder, log))
    tell("pick blob", *pick_fields(folder, blob))
    tell("  without a CTF", *pick_fields(folder, lambda f, size, _: blob(f, size, None)))


def _relion(folder: Path, low: float, high: float, count: int) -> tuple[pd.DataFrame, float]:
    command = [
        *("relion_autopick", "--i", "micrographs_ctf.star", "--odir", "relion/", "--LoG"),
        *("--LoG_diam_min", f"{low:g}", "--LoG_diam_max", f"{high:g}"),
        *("--shrink", "0", "--lowpass", "20"),
    ]
    seconds = cpu_seconds(command, folder)
    files = sorted((folder / "relion").rglob("*_autopick.star"))
    tables = [picks_of_file(f, f.name.replace("_autopick.star", ".mrc")) for f in files]
    return pd.concat(tables).assign(is_pick=True), seconds / count


if __name__ == "__main__":
    main()
