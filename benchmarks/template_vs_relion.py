"""Template picking beside ``relion_autopick --ref`` on simulated fields: quality and CPU time.

For each phantom and contrast some fields are simulated, and noise-free projections of the phantom
without a CTF are the templates of both programs: 5 degrees, 20 A, CTF on, threshold 0, the same
least distance and one core. RELION's score depends on the scale of its references, so they have
that of class averages of normalised particles. A pick within 0.3 diameters of a particle is right;
average precision and best F1 are over all peaks. CPU is user and system time per field: of the
whole program for RELION, of reading and picking for cryopick. Nothing is asserted.

    python benchmarks/template_vs_relion.py --phantoms barrel,shell,asymmetric,small --fields 2
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import write_mrc
from cryopick.picking.field_picks import FieldPicks
from cryopick.picking.template import pick_template
from cryopick.picking.template_harmonics import prepare_templates
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.simulation.microscope import interaction_constant
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project
from cryopick.tables.relion import picks_of_file
from simulated_fields import cpu_seconds, pick_fields, score, simulate

_TEMPLATE_PIXEL = 3.0  # A


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--phantoms", default="barrel,shell,asymmetric,small")
    options.add_argument("--contrasts", default="1,0.4")
    options.add_argument("--fields", type=int, default=2)
    options.add_argument("--side", type=int, default=1536, help="Of a field, px of 1.5 A.")
    options.add_argument("--views", type=int, default=20)
    given = options.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{'phantom':<11} {'contrast':>8} {'program':<22} {'AP':>6} {'best F1':>8} "
          f"{'F1':>6} {'CPU s':>7} {'ratio':>6}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for phantom in given.phantoms.split(","):
            for contrast in given.contrasts.split(","):
                folder = Path(temporary) / f"{phantom}_{contrast}"
                _compare(folder, phantom, contrast, given)
                shutil.rmtree(folder)


def _compare(folder: Path, phantom: str, contrast: str, given: argparse.Namespace) -> None:
    diameter = make_phantom(phantom).diameter
    simulate(
        folder,
        phantom=phantom,
        contrast=contrast,
        diameter=diameter,
        number=given.fields,
        side=given.side,
    )
    stack = _make_templates(folder, phantom, diameter, given.views, float(contrast))
    relion, reference = _relion(folder, diameter)
    _report(phantom, contrast, "relion_autopick", folder, relion, diameter, reference, 1.0)
    for with_ctf in (True, False):
        picks, seconds = _cryopick(folder, stack, diameter, with_ctf=with_ctf)
        name = "cryopick template" if with_ctf else "  without its CTF"
        _report(phantom, contrast, name, folder, picks, diameter, seconds, reference / seconds)


def _make_templates(
    folder: Path, phantom: str, diameter: float, views: int, contrast: float
) -> torch.Tensor:
    """Project the phantom; in units of the fields' deviation, as class averages are."""
    angles = draw_angles(views, generator=np.random.default_rng(1))
    angles[:, 2] = 0
    box = 2 * round(0.75 * diameter / _TEMPLATE_PIXEL)
    stack = project(
        make_phantom(phantom), euler_matrices(angles), box_size=box, pixel_size=_TEMPLATE_PIXEL
    )
    field = torch.from_numpy(read_micrograph(next((folder / "micrographs").glob("*.mrc"))))
    binned = torch.nn.functional.avg_pool2d(field[None, None], round(_TEMPLATE_PIXEL / 1.5))
    deviation = float((binned / binned.mean()).std())
    stack = stack * (2 * contrast * interaction_constant(300.0) / deviation)
    write_mrc(folder / "templates.mrcs", stack.numpy(), pixel_size=_TEMPLATE_PIXEL)
    return stack


def _relion(folder: Path, diameter: float) -> tuple[pd.DataFrame, float]:
    options = {
        "--i": "micrographs_ctf.star", "--odir": "relion/", "--ref": "templates.mrcs",
        "--angpix_ref": _TEMPLATE_PIXEL, "--particle_diameter": diameter, "--ang": 5,
        "--lowpass": 20, "--shrink": 0, "--threshold": 0, "--min_distance": 0.75 * diameter,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    seconds = cpu_seconds(["relion_autopick", *words, "--invert", "--ctf"], folder)
    files = sorted((folder / "relion").rglob("*_autopick.star"))
    tables = [picks_of_file(f, f.name.replace("_autopick.star", ".mrc")) for f in files]
    return pd.concat(tables), seconds / len(files)


def _cryopick(
    folder: Path, stack: torch.Tensor, diameter: float, *, with_ctf: bool
) -> tuple[pd.DataFrame, float]:
    parameters = TemplateParameters(diameter=diameter)
    templates = prepare_templates(
        stack, template_pixel_size=_TEMPLATE_PIXEL, diameter=diameter, low_pass=parameters.low_pass
    )

    def picking(field: torch.Tensor, pixel_size: float, ctf: FieldCtf) -> FieldPicks:
        return pick_template(
            field,
            pixel_size=pixel_size,
            templates=templates,
            parameters=parameters,
            ctf=ctf if with_ctf else None,
        )

    return pick_fields(folder, picking)


def _report(
    phantom: str,
    contrast: str,
    program: str,
    folder: Path,
    peaks: pd.DataFrame,
    diameter: float,
    seconds: float,
    ratio: float,
) -> None:
    scores = score(folder, peaks, diameter)
    shipped = "-"
    if "is_pick" in peaks:
        shipped = f"{score(folder, peaks[peaks['is_pick']], diameter).f1:.3f}"
    print(f"{phantom:<11} {contrast:>8} {program:<22} {scores.average_precision:>6.3f} "
          f"{scores.best_f1:>8.3f} {shipped:>6} {seconds:>7.2f} {ratio:>6.1f}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
