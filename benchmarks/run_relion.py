"""Steps of ``cryopick run`` done by RELION 3.1.3; called by ``run_quality.py``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from class2d_runs import measured
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = ["RELION_STEPS", "run_relion"]

RELION_STEPS = ("first_picks", "first_particles", "first_classes", "particles", "classes")
_FIRST = 10  # micrographs
_MASK = 1.05  # of the classes, over the largest diameter, as in a run
_REFINE = (
    "--iter 25 --tau2_fudge 2 --oversampling 1 --psi_step 12 --offset_range 5 --offset_step 2 "
    "--norm --scale --ctf --zero_mask --flatten_solvent --center_classes --pad 2 --random_seed 1 "
    "--j 1 --dont_combine_weights_via_disc --pool 3"
)


def run_relion(step: str, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Do one step with RELION; extraction has the run's picks, classes the particles of these.

    Parameters
    ----------
    step
        One of `RELION_STEPS`.
    folder
        Holds fields/ and project/; results go to relion/.
    facts
        What the steps of the run came to.

    Returns
    -------
    dict
        CPU seconds (user and system), wall seconds and MB of the program.
    """
    if shutil.which("relion_refine") is None:
        sys.exit("RELION is not installed (Debian: apt install relion)")
    work = folder / "relion"
    _prepare(folder, work)
    prefix = "first_" if step.startswith("first_") else ""
    table = work / f"{prefix}micrographs.star"
    out = f"{prefix}particles/"
    sizes = facts["diameter"]
    if step == "first_picks":
        low, high = (f"{sizes[f'{end}_diameter']:g}" for end in ("min", "max"))
        command = [
            *("relion_autopick", "--i", table.name, "--odir", "first_picks/", "--LoG"),
            *("--LoG_diam_min", low, "--LoG_diam_max", high, "--shrink", "0", "--lowpass", "20"),
        ]
    elif step in ("first_particles", "particles"):
        found = facts[step]
        _copy_picks(folder / "project" / f"{prefix}picks", work / f"{prefix}run_picks")
        size = int(found["image_size"])
        shutil.rmtree(work / out, ignore_errors=True)
        command = [
            *("relion_preprocess", "--i", table.name, "--coord_dir", f"{prefix}run_picks/"),
            *("--coord_suffix", "_autopick.star", "--part_dir", out, "--extract"),
            *("--part_star", f"{out}particles.star", "--extract_size", str(found["box_size"])),
            *("--scale", str(size), "--norm", "--bg_radius", str(int(0.375 * size))),
            "--invert_contrast",
        ]
    else:
        (work / step).mkdir(exist_ok=True)
        command = [
            *("relion_refine", "--i", f"{out}particles.star", "--o", f"{step}/run"),
            *("--K", str(facts[step]["n_classes"]), *_REFINE.split()),
            *("--particle_diameter", f"{_MASK * sizes['max_diameter']:g}"),
        ]
    return asdict(measured(command, threads=1, folder=work))


def _prepare(folder: Path, work: Path) -> None:
    """Give RELION the fields by a link, and tables of the first and of all."""
    work.mkdir(parents=True, exist_ok=True)
    link = work / "micrographs"
    if not link.is_symlink():
        link.symlink_to(Path("..", "fields", "micrographs"))
    fields = read_micrographs(folder / "fields" / "micrographs_ctf.star")
    rows = fields.rows
    for name, some in (("micrographs.star", rows), ("first_micrographs.star", rows[:_FIRST])):
        if not (work / name).is_file():
            write_micrographs(work / name, replace(fields, rows=some))


def _copy_picks(source: Path, target: Path) -> None:
    (target / "micrographs").mkdir(parents=True, exist_ok=True)
    for path in source.resolve().rglob("*_autopick.star"):
        if not path.name.startswith("coords_suffix"):
            shutil.copy(path, target / "micrographs")
