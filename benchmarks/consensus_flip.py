"""What flipping phases costs or gains the general model, on simulated fields of two defoci.

The fields are picked as they are and flipped by their true CTF; AP over all peaks.

    python benchmarks/consensus_flip.py --work FOLDER
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import torch

from cryopick.ctf.field_flip import flip_field
from cryopick.picking.network_parameters import NetworkParameters
from cryopick.picking.network_pick import pick_network
from cryopick.pipeline.pick_models import read_model
from picker_sets import CRYOPICK
from simulated_fields import PIXEL_SIZE, pick_fields, score

_PHANTOMS = {"tetramer": 130.0, "barrel": 150.0, "small": 90.0}
_DEFOCI = (8000.0, 24000.0)  # A
_SIDE = 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--number", type=int, default=6, help="Fields of each kind.")
    options.add_argument("--contrast", type=float, default=0.8)
    options.add_argument("--work", type=Path, required=True, help="Fields stay here.")
    given = options.parse_args()
    torch.set_num_threads(1)
    model, _ = read_model(None)
    print(f"{'particle':<10} {'defocus':>8} {'as it is':>9} {'flipped':>8}")
    for phantom, diameter in _PHANTOMS.items():
        for defocus in _DEFOCI:
            folder = given.work / f"{phantom}_{defocus:g}"
            _make(folder, phantom, diameter, defocus, given)
            parameters = NetworkParameters(diameter=diameter)

            def pick(field, size, ctf, *, is_flipped, parameters=parameters):
                seen = flip_field(field, ctf, pixel_size=size) if is_flipped else field
                return pick_network(seen, pixel_size=size, parameters=parameters, model=model)

            scores = []
            for is_flipped in (False, True):
                peaks, _ = pick_fields(
                    folder, lambda f, s, c, flip=is_flipped, by=pick: by(f, s, c, is_flipped=flip)
                )
                scores.append(score(folder, peaks, diameter).average_precision)
            print(f"{phantom:<10} {defocus:>8g} {scores[0]:>9.3f} {scores[1]:>8.3f}", flush=True)


def _make(
    folder: Path, phantom: str, diameter: float, defocus: float, given: argparse.Namespace
) -> None:
    """Simulate fields of one defocus, unless that was done before."""
    crowd = round(0.35 * (_SIDE * PIXEL_SIZE / diameter) ** 2)
    options = {
        "--phantoms": phantom, "--phantom-diameter": diameter, "--contrast": given.contrast,
        "--pixel-size": PIXEL_SIZE, "--number": given.number, "--width": _SIDE,
        "--height": _SIDE, "--particles": crowd, "--min-defocus": defocus,
        "--max-defocus": defocus, "--workers": 1, "--out": folder,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run(
        [CRYOPICK, "simulate", "micrographs", *words], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
