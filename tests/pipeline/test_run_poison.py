"""Files that no micrograph should be: refused one by one, and the others as if alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from poison_fields import make_poison, vanishing
from run_world import (
    GENERAL,
    NOT_OF_CTF,
    TABLE,
    changed,
    leftovers,
    new_steps,
    results_of,
    run,
)

from cryopick.io.mrc import read_mrc
from cryopick.tables.relion import read_micrographs, write_micrographs

pytest_plugins = ("run_world",)

_SENTENCE = re.compile(r".+ must .+; got .+\. .+\.", re.DOTALL)
_GOOD = [f"good/sim_{n:05d}.mrc" for n in (1, 2, 3)]


@pytest.fixture
def poisoned(run_folder):
    """Names of files that are none, in a folder beside that of good micrographs."""
    Path("good").symlink_to("data/micrographs")
    Path("bad").mkdir()
    names = make_poison(Path("bad"), Path(_GOOD[0]), read_mrc(Path(_GOOD[0])))
    bad = [f"bad/{name}" for name in names]
    if os.geteuid() == 0:
        bad.remove("bad/locked.mrc")  # root may read it
    return bad


@pytest.fixture
def time_limit():
    """End what waits for ever."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(400)
    yield
    signal.alarm(0)


def table_of(names, path="mics.star"):
    """Write a table without CTF of these micrographs."""
    table = read_micrographs(Path(TABLE))
    row = table.rows.drop(columns=[c for c in NOT_OF_CTF if c in table.rows]).iloc[:1]
    rows = pd.concat([row] * len(names), ignore_index=True).assign(micrograph=list(names))
    write_micrographs(Path(path), replace(table, rows=rows))
    return path


def test_what_is_no_micrograph_is_listed_with_a_sentence_and_the_rest_is_as_without_it(
    poisoned, time_limit
):
    assert len(poisoned) >= 40
    vanish = vanishing(Path("bad/vanishing.mrc"), Path(_GOOD[0]).read_bytes())
    bad = ["bad/vanishing.mrc", *poisoned]
    run(table_of(_GOOD))
    alone = results_of("project")
    shutil.rmtree("project")
    mixed = [_GOOD[0], *bad[:20], _GOOD[1], *bad[20:], _GOOD[2]]

    result = run(table_of(mixed), progress=vanish)

    assert result.halted is None
    assert sorted(result.refused) == sorted(bad)
    for name, sentence in result.refused.items():
        assert _SENTENCE.fullmatch(sentence), sentence
        assert "Traceback" not in sentence
        assert len(sentence) < 400, (name, sentence)
    for name, content in results_of("project").items():
        if name.endswith((".json", ".jsonl")) or Path(name).name in _LIST_ALL:
            continue  # they list what was refused
        assert content == alone[name], name
    assert not leftovers("project")
    run(table_of(mixed))  # one has vanished since the first run had looked at it
    again = run(table_of(mixed))
    assert again.refused == result.refused
    assert new_steps(again) == []


_LIST_ALL = ("micrographs.star", "subset.star", "failed.star")


def test_nothing_but_poison_halts_with_a_sentence(poisoned, time_limit):
    result = run(table_of(poisoned))

    assert result.halted is not None
    assert _SENTENCE.fullmatch(str(result.halted.error))
    assert result.report.exists()


def test_images_by_name_are_refused_like_those_of_a_table(poisoned, time_limit):
    parameters = changed(GENERAL, until="picks", ctf="ignore")

    result = run(*_GOOD, *poisoned, parameters=parameters, pixel_size=4.0)

    assert sorted(result.refused) == sorted(poisoned)
