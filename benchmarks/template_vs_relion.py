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
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cryopick.ctf.field_ctf import FieldCtf
from cryopick.io.micrograph import read_micrograph
from cryopick.io.mrc import write_mrc
from cryopick.picking.evaluate import PickScores, evaluate_picks
from cryopick.picking.template import pick_template
from cryopick.picking.template_harmonics import prepare_templates
from cryopick.picking.template_parameters import TemplateParameters
from cryopick.pipeline.evaluate import read_truth
from cryopick.simulation.microscope import interaction_constant
from cryopick.simulation.orientations import draw_angles, euler_matrices
from cryopick.simulation.phantoms import make_phantom
from cryopick.simulation.projection import project
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.relion import picks_of_file

_TEMPLATE_PIXEL = 3.0  # A


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--phantoms", default="barrel,shell,asymmetric,small")
    options.add_argument("--contrasts", default="1,0.4")
    options.add_argument("--fields", type=int, default=2)
    options.add_argument("--side", type=int, default=1536, help="Of a field, px of 1.5 A.")
    options.add_argument("--views", type=int, default=20)
    options.add_argument("--keep", type=Path, help="Folder for the fields and RELION's picks.")
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"{'phantom':<11} {'contrast':>8} {'program':<22} {'AP':>6} {'best F1':>8} "
          f"{'F1':>6} {'CPU s':>7} {'ratio':>6}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for phantom in given.phantoms.split(","):
            for contrast in given.contrasts.split(","):
                folder = Path(given.keep or temporary).absolute() / f"{phantom}_{contrast}"
                _compare(folder, phantom, contrast, given)


def _compare(folder: Path, phantom: str, contrast: str, given: argparse.Namespace) -> None:
    diameter = make_phantom(phantom).diameter
    _simulate(folder, phantom, contrast, diameter, given)
    stack = _make_templates(folder, phantom, diameter, given.views, float(contrast))
    relion, reference = _relion(folder, diameter)
    _report(phantom, contrast, "relion_autopick", folder, relion, diameter, reference, 1.0)
    for with_ctf in (True, False):
        picks, seconds = _cryopick(folder, stack, diameter, with_ctf=with_ctf)
        name = "cryopick template" if with_ctf else "  without its CTF"
        _report(phantom, contrast, name, folder, picks, diameter, seconds, reference / seconds)


def _simulate(
    folder: Path, phantom: str, contrast: str, diameter: float, given: argparse.Namespace
) -> None:
    crowd = round(0.35 * (given.side * 1.5 / diameter) ** 2)
    command = [str(Path(sys.executable).parent / "cryopick"), "simulate", "micrographs"]
    options = {
        "--phantoms": phantom, "--contrast": contrast, "--number": given.fields,
        "--width": given.side, "--height": given.side, "--particles": crowd,
        "--out": folder, "--workers": 1,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)


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
    out = folder / "relion"
    files = sorted((folder / "micrographs").glob("*.mrc"))
    done = folder / "relion_seconds.txt"
    if not done.exists():
        shutil.rmtree(out, ignore_errors=True)
        options = {
            "--i": "micrographs_ctf.star", "--odir": f"{out}/", "--ref": "templates.mrcs",
            "--angpix_ref": _TEMPLATE_PIXEL, "--particle_diameter": diameter, "--ang": 5,
            "--lowpass": 20, "--shrink": 0, "--threshold": 0, "--min_distance": 0.75 * diameter,
        }  # fmt: skip
        words = [str(word) for pair in options.items() for word in pair]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            ["relion_autopick", *words, "--invert", "--ctf"], check=True, cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        done.write_text(str(used / len(files)))
    tables = [picks_of_file(out / "micrographs" / f"{f.stem}_autopick.star", f.name) for f in files]
    return pd.concat(tables), float(done.read_text())


def _cryopick(
    folder: Path, stack: torch.Tensor, diameter: float, *, with_ctf: bool
) -> tuple[pd.DataFrame, float]:
    parameters = TemplateParameters(diameter=diameter)
    start = time.process_time()
    templates = prepare_templates(
        stack, template_pixel_size=_TEMPLATE_PIXEL, diameter=diameter, low_pass=parameters.low_pass
    )
    tables = []
    for name, pixel_size, ctf in _fields(folder):
        found = pick_template(
            torch.from_numpy(read_micrograph(folder / name)),
            pixel_size=pixel_size,
            templates=templates,
            parameters=parameters,
            ctf=ctf if with_ctf else None,
        )
        table = pd.DataFrame({"micrograph": Path(name).name, "x": found.x, "y": found.y})
        tables.append(table.assign(fom=found.fom, is_pick=found.is_pick))
    return pd.concat(tables), (time.process_time() - start) / len(tables)


def _fields(folder: Path) -> list[tuple[str, float, FieldCtf]]:
    table = open_micrographs([str(folder / "micrographs_ctf.star")])
    lens = table.optics.iloc[0]
    return [
        (
            row.micrograph,
            float(lens["pixel_size"]),
            FieldCtf(
                defocus_u=row.defocus_u,
                defocus_v=row.defocus_v,
                defocus_angle=row.defocus_angle,
                voltage=lens["voltage"],
                spherical_aberration=lens["spherical_aberration"],
                amplitude_contrast=lens["amplitude_contrast"],
            ),
        )
        for row in table.rows.itertuples()
    ]


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
    scores = _score(folder, peaks, diameter)
    shipped = "-"
    if "is_pick" in peaks:
        shipped = f"{_score(folder, peaks[peaks['is_pick']], diameter).f1:.3f}"
    print(f"{phantom:<11} {contrast:>8} {program:<22} {scores.average_precision:>6.3f} "
          f"{scores.best_f1:>8.3f} {shipped:>6} {seconds:>7.2f} {ratio:>6.1f}",
          flush=True)  # fmt: skip


def _score(folder: Path, peaks: pd.DataFrame, diameter: float) -> PickScores:
    truth = read_truth(folder / "truth.json")
    rows = truth.rows
    names = sorted(f.name for f in (folder / "micrographs").glob("*.mrc"))
    return evaluate_picks(
        peaks, rows, pixel_sizes=dict.fromkeys(names, 1.5), diameter=diameter
    ).total


if __name__ == "__main__":
    main()
