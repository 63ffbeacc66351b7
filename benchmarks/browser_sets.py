"""Large projects for the browser: a small one whose fields are there many times, by links."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

STEPS = ("ctf", "picks")
PEAKS = """
# rlnAutopickFigureOfMerit: Probability of a particle
# version 30001

data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
_rlnClassNumber #4
_rlnAnglePsi #5
_rlnParticleDiameter #6
"""


def link(target: Path, name: Path) -> None:
    """Link a name to a file, by the way from one to the other."""
    name.symlink_to(os.path.relpath(target.resolve(), name.parent))


def write_peaks(path: Path, *, number: int, width: int, height: int, diameter: float) -> None:
    """Write peaks at random places with scores between 0 and 1, best first."""
    rng = np.random.default_rng(1)
    scores = np.sort(rng.beta(0.6, 0.6, number))[::-1]
    x, y = rng.uniform(0, width, number), rng.uniform(0, height, number)
    rows = [
        f"{a:.3f} {b:.3f} {s:.6f} 0 0.0 {diameter:.1f}"
        for a, b, s in zip(x, y, scores, strict=True)
    ]
    path.write_text(PEAKS + "\n".join(rows) + "\n")


def _many_lines(ledger: Path, keys: list[str], rng: np.random.Generator) -> str:
    """Repeat the lines of a ledger for other fields, with other numbers."""
    lines = [json.loads(line) for line in ledger.read_text().splitlines() if line.strip()]
    done = [line for line in lines if line.get("summary") and not line.get("error")]
    said = []
    for i, key in enumerate(keys):
        line = json.loads(json.dumps(done[i % len(done)]))
        summary, old = line["summary"], line["key"]
        line["key"] = key
        summary["files"] = [name.replace(old, key) for name in summary.get("files", [])]
        for name in ("defocus_u", "defocus_v"):
            if name in summary:
                summary[name] *= float(rng.uniform(0.4, 1.6))
        if "n_picks" in summary:
            summary["n_picks"] = int(rng.integers(0, 500))
            summary["valid_fraction"] = float(rng.uniform(0.4, 1))
        said.append(json.dumps(line))
    return "\n".join(said) + "\n"


def make_large_project(small: Path, folder: Path, *, number: int, peaks: int) -> Path:
    """Make a project of many fields from one of few.

    Parameters
    ----------
    small
        A folder with ``data/micrographs`` and the ``project`` that a run made of them, to picks.
    folder
        Of the large project, ``project``, and its micrographs; made if absent.
    number
        Fields that it shall have.
    peaks
        Stored peaks in every field.
    """
    if (folder / "project" / "project.json").is_file():
        return folder
    rng = np.random.default_rng(0)
    images = sorted((small / "data" / "micrographs").glob("*.mrc"))
    keys = [f"data/micrographs/field_{i:05d}" for i in range(1, number + 1)]
    (folder / "data" / "micrographs").mkdir(parents=True)
    for i, key in enumerate(keys):
        link(images[i % len(images)], folder / f"{key}.mrc")
    project, old = folder / "project", small / "project"
    project.mkdir()
    for name in ("project.json", "run.json"):
        (project / name).write_bytes((old / name).read_bytes())
    _write_table(old / "micrographs.star", project / "micrographs.star", keys)
    jobs = [job for job in sorted((old / "jobs").iterdir()) if job.name.split("_")[1] in STEPS]
    aliases = {job.name.split("_")[1]: int(job.name.split("_")[0]) for job in jobs}
    (project / "aliases.json").write_text(json.dumps(aliases))
    for job in jobs:
        target = project / "jobs" / job.name
        target.mkdir(parents=True)
        for name in ("job.json", "step.json"):
            (target / name).write_bytes((job / name).read_bytes())
        (target / "ledger.jsonl").write_text(_many_lines(job / "ledger.jsonl", keys, rng))
        if job.name.endswith("_picks"):
            _write_picks(target, keys, peaks, images[0])
    return folder


def _write_table(old: Path, new: Path, keys: list[str]) -> None:
    """Write the table of micrographs with other names, and all else of its rows in turn."""
    lines = old.read_text().splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("_rln")) + 1
    rows = [line.split() for line in lines[start:] if line.strip()]
    place = next(i for i, value in enumerate(rows[0]) if value.endswith(".mrc"))
    said = []
    for i, key in enumerate(keys):
        values = list(rows[i % len(rows)])
        values[place] = f"{key}.mrc"
        said.append(" ".join(values))
    new.write_text("\n".join([*lines[:start], *said]) + "\n")


def _write_picks(job: Path, keys: list[str], peaks: int, image: Path) -> None:
    """Write the peaks once, and name them in every field."""
    import mrcfile

    with mrcfile.open(image, header_only=True) as opened:
        width, height = int(opened.header.nx), int(opened.header.ny)
    first = job / "peaks.star"
    write_peaks(first, number=peaks, width=width, height=height, diameter=180.0)
    rows = []
    (job / "data" / "micrographs").mkdir(parents=True)
    (job / "peaks" / "data" / "micrographs").mkdir(parents=True)
    for key in keys:
        link(first, job / f"{key}_autopick.star")
        link(first, job / "peaks" / f"{key}_peaks.star")
        rows.append(f"{key}.mrc project/jobs/{job.name}/{key}_autopick.star")
    head = "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    (job / "autopick.star").write_text(f"\n# version 50001\n\n{head}" + "\n".join(rows) + "\n")
