"""What the benchmarks of 2D classification share: measured runs, scores and tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.pipeline.evaluate_classes import evaluate_class_files

__all__ = ["SCORES", "Run", "Table", "Usage", "classify", "measured", "score"]

# A process starts with the peak memory of the one that made it, so a small one goes between.
_LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss / 1000], file)
sys.exit(code)
"""

SCORES = {  # column: key of the scores, digits
    "coherence": ("coherence", 3),
    "of all": ("coherence_all", 3),
    "junk AUC": ("junk_auc", 3),
    "purity": ("species_purity", 3),
    "accounted": ("accounted", 3),
    "occupied": ("n_occupied", 0),
    "by views": ("n_view_classes", 0),
    "rare": ("rare_recall", 3),
    "A": ("resolution", 1),
}


@dataclass(frozen=True)
class Usage:
    """What a process has used, from its start to its end."""

    cpu: float  # s, user and system
    wall: float  # s
    memory: float  # MB, peak


@dataclass(frozen=True)
class Run:
    """A finished `cryopick class2d em`."""

    out: Path
    usage: Usage
    values: dict[str, Any]  # what --json printed


def measured(command: Sequence[str], *, threads: int, folder: Path | None = None) -> Usage:
    """Run a program to its end; what it says on stderr is shown if it fails."""
    with tempfile.TemporaryDirectory() as temporary:
        record, said = Path(temporary) / "usage.json", Path(temporary) / "stderr"
        start = time.perf_counter()
        with said.open("wb") as stderr:
            code = subprocess.call(
                [sys.executable, "-c", _LAUNCHER, str(record), *command],
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        if code:
            sys.exit(f"{' '.join(command)}\n{said.read_text()[-2000:]}\nended with code {code}")
        cpu, memory = json.loads(record.read_text())
        return Usage(cpu, time.perf_counter() - start, memory)


def classify(
    particles: Path,
    out: Path,
    *,
    threads: int,
    options: Mapping[str, object],
    openmp: int | None = None,
) -> Run:
    """Run ``cryopick class2d em`` in a process of its own.

    Parameters
    ----------
    particles, out
        STAR file and folder for the results.
    threads
        For --threads.
    options
        Other options by name.
    openmp
        OpenMP threads for what the command does outside of its own threads; `threads` if not
        given.
    """
    command = [str(Path(sys.executable).parent / "cryopick"), "class2d", "em", str(particles)]
    command += ["--out", str(out), "--threads", str(threads), "--json"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    usage = measured(command, threads=openmp or threads)
    return Run(out, usage, json.loads((out / "result.json").read_text()))


def score(folder: Path, truth: Path, *, n_classes: int, averages: Path | None) -> dict[str, Any]:
    """Score the last iteration in a folder; columns as in `SCORES`."""
    found = evaluate_class_files(folder, truth, n_classes=n_classes, averages=averages)
    values = found.to_dict()
    return {column: values[key] for column, (key, _) in SCORES.items()}


class Table:
    """Rows printed as they come, or only kept.

    Parameters
    ----------
    columns
        Digits after the point of each column; None for words.
    is_json
        Print nothing; the rows are wanted as JSON.
    """

    def __init__(self, columns: Mapping[str, int | None], *, is_json: bool, width: int = 9) -> None:
        self._columns, self._is_json, self._width = columns, is_json, width
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Print one row, the head before the first; columns that are missing are left empty."""
        if not self.rows and not self._is_json:
            print(" ".join(self._place(name, name) for name in self._columns), flush=True)
        self.rows.append(dict(row))
        if not self._is_json:
            cells = (self._place(n, self._cell(n, row.get(n))) for n in self._columns)
            print(" ".join(cells), flush=True)

    def note(self, text: str) -> None:
        """Print a line of text, but not into JSON."""
        if not self._is_json:
            print(text, flush=True)

    def _place(self, name: str, cell: str) -> str:
        if self._columns[name] is None:
            return f"{cell:<{2 * self._width}}"
        return f"{cell:>{max(len(name), self._width - 2)}}"

    def _cell(self, name: str, value: Any) -> str:
        digits = self._columns[name]
        if value is None:
            return "-"
        return str(value) if digits is None else f"{value:.{digits}f}"
