"""The first micrographs of a run, on which it learns: those that are refused do not count."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_world import (
    DIAMETER,
    GENERAL,
    NOT_OF_CTF,
    QUICK,
    TABLE,
    changed,
    job_files,
    new_steps,
    run,
)

from cryopick.io.mrc import write_mrc
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.tables.relion import read_micrographs, write_micrographs

pytest_plugins = ("run_world",)

LEARN = RunParameters(
    diameter=DIAMETER, picker="template", subset=2, until="first_particles", **QUICK
)
GOOD = [f"data/micrographs/sim_{n:05d}.mrc" for n in range(1, 6)]


@pytest.fixture
def bad(run_folder: Path) -> list[str]:
    """Names of micrographs that are cut short, blank, not finite, too small and not there."""
    Path("bad").mkdir()
    Path("bad/cut.mrc").write_bytes(Path(GOOD[0]).read_bytes()[:9000])
    noise = np.random.default_rng(1).normal(size=(640, 640)).astype(np.float32)
    spoilt = noise.copy()
    spoilt[3, 4] = np.nan
    images = {"blank": 0 * noise, "nan": spoilt, "small": noise[:9, :9]}
    for name, pixels in images.items():
        write_mrc(Path(f"bad/{name}.mrc"), pixels, pixel_size=4.0)
    return [f"bad/{name}.mrc" for name in ("cut", "blank", "nan", "small", "gone")]


def table_of(names: list[str], *, has_ctf: bool = True) -> str:
    """Write a table of these, with the CTF of the first simulated field or without any."""
    table = read_micrographs(Path(TABLE))
    left_out = [] if has_ctf else [c for c in NOT_OF_CTF if c in table.rows]
    rows = pd.concat([table.rows.drop(columns=left_out).iloc[:1]] * len(names), ignore_index=True)
    write_micrographs(Path("mics.star"), replace(table, rows=rows.assign(micrograph=names)))
    return "mics.star"


@pytest.mark.parametrize("has_ctf", [True, False])
def test_micrographs_that_are_refused_are_replaced_by_the_next_ones(bad, has_ctf):
    names = [*bad[:3], GOOD[0], *bad[3:], GOOD[1], GOOD[2]]
    given = table_of(names, has_ctf=has_ctf)

    result = run(given, parameters=LEARN)

    assert result.halted is None, result.halted
    picks, particles = result.steps[-2:]
    assert picks.facts["n_micrographs"] - picks.facts["n_failed"] == LEARN.subset
    assert particles.facts["n_particles"] > 50
    found = {p.name for p in Path("project/first_picks").rglob("sim_*_autopick.star")}
    assert found == {"sim_00001_autopick.star", "sim_00002_autopick.star"}
    assert sorted(result.refused) == sorted(bad)
    before, listed = job_files("project"), Path("project/micrographs.star").read_text()

    again = run(given, parameters=LEARN)

    assert new_steps(again) == []
    assert job_files("project") == before
    assert Path("project/micrographs.star").read_text() == listed

    more = run(table_of([*names, GOOD[3]], has_ctf=has_ctf), parameters=LEARN)

    assert new_steps(more) == ([] if has_ctf else ["ctf"])
    assert Path("project/micrographs.star").read_text().startswith(listed.rstrip())


def test_where_too_few_are_good_these_are_taken(bad):
    result = run(table_of([*bad, GOOD[0]]), parameters=changed(LEARN, subset=4))

    assert result.halted is None, result.halted
    assert result.steps[0].facts["n_micrographs"] == len(bad) + 1
    assert result.steps[0].facts["n_failed"] == len(bad)


def test_where_none_is_good_the_run_halts_with_the_reason(bad):
    for has_ctf in (True, False):
        halted = run(
            table_of(bad, has_ctf=has_ctf), parameters=LEARN, out=f"project{has_ctf:d}"
        ).halted

        assert halted is not None
        assert "must be readable, one at least; got 5 refused. The first: bad/cut.mrc" in str(
            halted.error
        )


def test_a_diameter_is_estimated_on_the_first_micrographs_that_can_be_searched(bad):
    parameters = changed(GENERAL, diameter=None, until="diameter")
    others = [name.replace(".mrc", "_too.mrc") for name in bad]
    for name, other in zip(bad[:-1], others, strict=False):
        shutil.copy(name, other)

    result = run(table_of([*bad, *others, *GOOD[:2]]), parameters=parameters)

    assert result.halted is None, result.halted
    assert abs(result.steps[0].facts["diameter"] - DIAMETER) < 0.2 * DIAMETER
    assert new_steps(run("mics.star", parameters=parameters)) == []
