"""Commands for the tests of the pretended GPU, and classes of two runs compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from cryopick.cli.app import app
from cryopick.tables.relion import read_particles

STABLE = (
    "--img-per-grp 30 --target-radius 11 --target-nx 32 --init-iter 1 --maxit 4 --stab-ali 2 "
    "--indep-run 2 --main-iter-limit 1"
)


def run(words: str) -> None:
    """Run a command in this process."""
    result = CliRunner().invoke(app, words.split())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def assert_same_classes(one: Path, other: Path) -> None:
    """Claim the same classes, and but for rounding the same poses, of two particle tables."""
    table, again = (read_particles(path).rows for path in (one, other))
    assert np.array_equal(table["class_number"], again["class_number"])
    turn = np.deg2rad(table["psi"] - again["psi"])
    assert (np.abs(np.angle(np.exp(1j * turn))) < 0.01).mean() > 0.95
    for name in ("shift_x", "shift_y"):
        assert (np.abs(table[name] - again[name]) < 0.1).mean() > 0.95
