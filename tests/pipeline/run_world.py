"""Small simulated fields for tests of the unattended run, and what its results are compared by.

A plugin of pytest: a test module takes its fixtures with ``pytest_plugins``, and imports the
rest before pytest could rewrite it (PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run import RunResult, run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.simulate import simulate_micrographs
from cryopick.simulation.parameters import (
    MicrographSimulationParameters,
    MicroscopeParameters,
    SpecimenParameters,
)
from cryopick.tables.relion import read_micrographs, write_micrographs

ALONE = ComputeParameters(workers=1, threads=1)
DIAMETER = 180.0  # A, of barrels of 182 A
TABLE = "data/micrographs_ctf.star"
QUICK = {"first_classes": 4, "classes": 4, "rescale": 32, "coarse_pixel_size": 6.0}
GENERAL = RunParameters(diameter=DIAMETER, picker="general", classes=4, rescale=32)
NOT_OF_CTF = ("defocus_u", "defocus_v", "defocus_angle", "ctf_fom", "ctf_max_resolution")

# What may differ between two runs that made the same: times, machine, command line, names drawn
# at random, and the index and report, which show them.
_TIMES = ("started", "seconds", "host", "command", "created", "uuid", "identity", "version")
_STAMP = re.compile(r"\d+:\d{15,}|(?<= rows \()[0-9a-f]{12}(?=\))")  # of times of change
_LABELS = slice(224, 1024)  # of an MRC header; one says when it was written
_NOT_COMPARED = ("index.sqlite", "report.html", ".project.lock", ".lock", "run.json")


def simulate(folder: Path, *, number: int, particles: int, side: int = 640, seed: int = 0) -> Path:
    """Simulate fields of 4 A/px, with their CTF and the truth."""
    simulate_micrographs(
        folder,
        specimen=SpecimenParameters(phantoms="barrel"),
        microscope=MicroscopeParameters(min_defocus=12000.0),
        parameters=MicrographSimulationParameters(
            number=number,
            width=side,
            height=side,
            pixel_size=4.0,
            particles=particles,
            ice_blobs=0,
            aggregates=0,
            carbon_fraction=0,
            seed=seed,
        ),
        compute=ALONE,
    )
    return folder


@pytest.fixture(scope="session")
def run_fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five fields of 640 px and 4 A/px with 40 barrels of 182 A each."""
    return simulate(tmp_path_factory.mktemp("run_fields"), number=5, particles=40)


@pytest.fixture
def run_folder(run_fields: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder beside the simulated fields."""
    (tmp_path / "data").symlink_to(run_fields)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    *inputs: str, parameters: RunParameters = GENERAL, out: str | Path = "project", **given: Any
) -> RunResult:
    """Run in this process, on one core."""
    return run_project(inputs or [TABLE], Path(out), parameters=parameters, compute=ALONE, **given)


def changed(parameters: RunParameters, **values: Any) -> RunParameters:
    """Give the same parameters but for some."""
    return replace(parameters, **values)


def write_table(
    path: str | Path, rows: Sequence[int] | None = None, *, without: Sequence[str] = ()
) -> str:
    """Write some rows of the table of the fields, less some columns; give its name."""
    table = read_micrographs(Path(TABLE))
    chosen = table.rows if rows is None else table.rows.iloc[list(rows)].reset_index(drop=True)
    chosen = chosen.assign(micrograph=[f"data/{n}" for n in chosen["micrograph"]])
    chosen = chosen.drop(columns=[c for c in without if c in chosen])
    write_micrographs(Path(path), replace(table, rows=chosen))
    return str(path)


def new_steps(result: RunResult) -> list[str]:
    """Names of the steps that a run worked on."""
    return [step.name for step in result.steps if step.is_new]


def job_files(project: str | Path) -> dict[str, tuple[int, int]]:
    """Time of change and size of each file of the jobs."""
    jobs = Path(project) / "jobs"
    found = sorted(p for p in jobs.rglob("*") if p.is_file())
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in found}


def results_of(project: str | Path) -> dict[str, Any]:
    """Gather all that a run has made, less what may differ between two that made the same."""
    project = Path(project)
    found: dict[str, Any] = {}
    for path in sorted(project.rglob("*")):
        name = path.relative_to(project).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and path.name not in _NOT_COMPARED:
            found[name] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.suffix in (".mrc", ".mrcs", ".ctf"):
        raw = bytearray(path.read_bytes())
        raw[_LABELS] = bytes(_LABELS.stop - _LABELS.start)
        return bytes(raw)
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    text = _STAMP.sub("a stamp", path.read_text())
    if path.suffix == ".json":
        return _timeless(json.loads(text))
    lines = [_timeless(json.loads(line)) for line in text.splitlines()]
    return {str(line.get("key")): line for line in lines}  # a later line counts


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _timeless(v) for k, v in value.items() if k not in _TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def leftovers(project: str | Path) -> list[Path]:
    """List files that a writer had not finished."""
    return [p for p in Path(project).rglob(".*") if ".tmp" in p.name]
