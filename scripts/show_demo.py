"""Say what a run on simulated micrographs has found, beside the truth: ``PROJECT TRUTH``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.tables.relion import read_particles

_NEAR = 0.5  # diameters


def main(project: Path, truth: Path) -> None:
    """Print a few sentences."""
    diameter = json.loads((project / "diameter" / "diameter.json").read_text())["diameter"]
    true_diameter = json.loads(truth.read_text())["diameter"]
    print(f"\nDiameter: {diameter:.0f} A estimated, {true_diameter:.0f} A true.")  # noqa: T201
    for name, when in (("first_picks", "Before training"), ("picks", "After training")):
        found = evaluate_pick_files(project / name, truth)
        scores = found.picks.total
        print(  # noqa: T201
            f"{when}: {scores.n_matched} of {scores.n_truth} particles found, recall "
            f"{scores.recall:.2f}, precision {scores.precision:.2f}, average precision "
            f"{found.peaks.total.average_precision:.2f}, centring error "
            f"{scores.centring_error:.1f} A."
        )
    n_particles, n_wrong = count_particles(project / "selection" / "particles.star", truth)
    print(  # noqa: T201
        f"In good classes: {n_particles} particles, of which {n_wrong} "
        f"({n_wrong / n_particles:.1%}) lie where none is."
    )


def count_particles(table: Path, truth: Path) -> tuple[int, int]:
    """Count the particles of a table, and those of them that are none."""
    known, particles = read_truth(truth), read_particles(table).rows
    assert known.diameter is not None
    assert known.pixel_size is not None
    radius = _NEAR * known.diameter / known.pixel_size
    true = pd.concat([known.rows, known.ignored])
    n_wrong = 0
    for name, mine in particles.groupby("micrograph"):
        stems = true["micrograph"].map(lambda n: Path(str(n)).stem)
        at = true[stems == Path(str(name)).stem][["x", "y"]].to_numpy()
        way = mine[["x", "y"]].to_numpy()[:, None] - at
        n_wrong += int((np.hypot(way[..., 0], way[..., 1]).min(1, initial=np.inf) > radius).sum())
    return len(particles), n_wrong


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
