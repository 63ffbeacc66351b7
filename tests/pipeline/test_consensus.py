"""Claims about the job that joins sets: what it writes, refuses, and leaves alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import DataError, ParameterError
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.pipeline.consensus import join_sets
from cryopick.tables.pick_scores import PROBABILITY, VOTES
from cryopick.tables.relion import read_picks, write_coordinate_files, write_picks_file

NAMES = tuple(f"Movies/{letter}.mrc" for letter in "abcd")
SENSITIVITY, FALSE = (0.9, 0.8, 0.7), (2, 10, 40)  # share of the particles; picks of nothing
ALONE = ComputeParameters(workers=1, threads=1)


def pick(seed):
    """True places of each micrograph and the picks of three pickers."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(15), np.arange(15)), -1).reshape(-1, 2) * 60.0 + 50
    turned = grid[random.permutation(len(grid))]
    true, empty = turned[:100], turned[100:]
    sets = []
    for share, n_false in zip(SENSITIVITY, FALSE, strict=True):
        found = true[random.random(100) < share]
        places = np.concatenate([found, empty[random.permutation(125)[:n_false]]])
        moved = places + random.normal(0, 2, places.shape)
        fom = random.normal(np.arange(len(places)) < len(found), 1.0)
        sets.append(pd.DataFrame({"x": moved[:, 0], "y": moved[:, 1], "fom": fom}))
    return true, sets


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three sets on four micrographs, and a table of these; no image is there."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{n} 1\n" for n in NAMES)
    Path("micrographs.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnOpticsGroupName\n_rlnMicrographPixelSize\n"
        "1 one 1.5\n\ndata_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n" + rows
    )
    truth = {}
    files = [[], [], []]
    for seed, name in enumerate(NAMES):
        truth[name], sets = pick(seed)
        for number, table in enumerate(sets):
            folder = Path(f"set{number}")
            folder.mkdir(exist_ok=True)
            path = folder / f"{Path(name).stem}_autopick.star"
            write_picks_file(path, table)
            files[number].append((name, str(path)))
    for number, listed in enumerate(files):
        write_coordinate_files(Path(f"set{number}/autopick.star"), listed)
    return truth


def join(out, sets=("set0", "set1", "set2"), **values):
    values = {"method": "reliability", **values}
    extra = {k: values.pop(k) for k in ("set_pixel_sizes", "overwrite") if k in values}
    return join_sets(
        [Path(s) for s in sets],
        ["micrographs.star"],
        Path(out),
        parameters=ConsensusParameters(diameter=80.0, **values),
        compute=ALONE,
        **extra,
    )


def right_share(picks, truth):
    """Precision and recall of picks within 10 px."""
    hits = n_true = 0
    for name, places in truth.items():
        own = picks.rows[picks.rows["micrograph"] == name][["x", "y"]].to_numpy(float)
        away = np.hypot(*(own[:, None] - places).transpose(2, 0, 1))
        hits += int((away.min(1) < 10).sum())
        n_true += len(places)
    return hits / len(picks), hits / n_true


def test_what_is_joined_is_better_than_any_picker(world):
    result = join("out")
    picks = read_picks(Path("out"))
    precision, recall = right_share(picks, world)

    assert picks.attributes["score"] == PROBABILITY
    assert len(picks) == result.picks.to_dict()["n_picks"]
    assert precision > 0.93
    assert recall > 0.93
    told = json.loads(Path("out/consensus.json").read_text())["pickers"]
    np.testing.assert_allclose([p["sensitivity"] for p in told], SENSITIVITY, atol=0.06)


@pytest.mark.parametrize(("quorum", "expected"), [(1, 0.994), (2, 0.90), (0, 0.504)])
def test_votes_are_counted(world, quorum, expected):
    """1 - 0.1 x 0.2 x 0.3; two or three of them; 0.9 x 0.8 x 0.7."""
    join("out", method="votes", quorum=quorum)
    picks = read_picks(Path("out"))

    assert picks.attributes["score"] == VOTES
    assert picks.rows["fom"].min() == (quorum or 3)
    assert abs(right_share(picks, world)[1] - expected) < 0.04
    peaks = pd.concat([read_picks(p).rows for p in Path("out/peaks").rglob("*.star")])
    assert peaks["fom"].min() == 1  # all candidates


def test_the_order_of_sets_and_their_pixel_size_change_nothing(world):
    for name, path in ((n, Path(f"set2/{Path(n).stem}_autopick.star")) for n in NAMES):
        table = read_picks(path).rows
        half = Path("half") / Path(name).name.replace(".mrc", "_autopick.star")
        half.parent.mkdir(exist_ok=True)
        write_picks_file(half, table.assign(x=table["x"] / 2, y=table["y"] / 2))
    join("one")
    join("other", ("half", "set1", "set0"), set_pixel_sizes=(3.0, None, None))

    one, other = (read_picks(Path(n)).rows for n in ("one", "other"))
    for column in ("x", "y", "fom"):
        np.testing.assert_allclose(
            np.sort(other[column]), np.sort(one[column]), rtol=1e-4, atol=1e-4
        )


def test_a_finished_job_is_not_done_again(world):
    join("out")
    files = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*_autopick.star")}
    assert len(files) == 5  # with coords_suffix_autopick.star

    join("out")
    again = {p: p.stat().st_mtime_ns for p in files if not p.name.startswith("coords")}
    assert all(files[p] == time for p, time in again.items())


def test_what_contradicts_itself_is_refused_before_anything_is_written(world):
    with pytest.raises(ParameterError, match="SETS must be at least two; got 1"):
        join("out", ("set0",))
    with pytest.raises(ParameterError, match="quorum must be at most the number of sets, 3"):
        join("out", method="votes", quorum=4)
    with pytest.raises(ParameterError, match="quorum must be given with --method votes only"):
        join("out", quorum=2)
    with pytest.raises(ParameterError, match="set_pixel_size must be given once for each"):
        join("out", set_pixel_sizes=(1.0,))
    for name in NAMES:
        write_picks_file(
            Path(f"set0/{Path(name).stem}_autopick.star"),
            pd.DataFrame({"x": [], "y": [], "fom": []}, dtype=float),
        )
    with pytest.raises(DataError, match="the sets must hold picks on these micrographs"):
        join("out", ("set0", "set0"))
    assert not Path("out").exists()
