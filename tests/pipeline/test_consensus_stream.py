"""A consensus of what arrives while it runs, against the same of what is there from the start."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import TableError
from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline import consensus_feed
from cryopick.pipeline.consensus import join_request
from cryopick.pipeline.consensus_output_parameters import ConsensusOutputParameters
from cryopick.pipeline.consensus_request import ConsensusRequest
from cryopick.pipeline.consensus_stream import join_stream
from cryopick.pipeline.consensus_stream_parameters import ConsensusStreamParameters
from cryopick.pipeline.evaluate import read_truth
from cryopick.tables.relion import read_picks, write_picks_file

pytest_plugins = ("topaz_world",)

SETS = ("one", "two")
COMMAND = Path(sys.executable).with_name("cryopick")


@pytest.fixture
def source(topaz_project, monkeypatch):
    """What is to arrive: fields, and two sets that each miss a third of the particles."""
    monkeypatch.setattr(consensus_feed, "_SETTLED", 0.0)
    truth = read_truth(Path("truth.json")).rows
    chance = np.random.default_rng(5)
    for name in SETS:
        Path("source", name).mkdir(parents=True)
        for micrograph in truth["micrograph"].unique():
            own = truth.loc[truth["micrograph"] == micrograph, ["x", "y"]]
            found = own[chance.random(len(own)) < 0.67] + chance.normal(0, 1.5)
            wrong = pd.DataFrame(chance.uniform(20, 490, (8, 2)), columns=["x", "y"])
            write_picks_file(
                Path("source", name, f"{Path(micrograph).stem}_autopick.star"),
                pd.concat([found, wrong]),
            )
    for name in (*SETS, "mics"):
        Path(name).mkdir()
    return sorted(p.stem for p in Path("micrographs").glob("*.mrc"))


def arrive(stem):
    for name in SETS:
        shutil.copy(Path("source", name, f"{stem}_autopick.star"), name)
    shutil.copy(Path("micrographs", f"{stem}.mrc"), "mics")


def make_request(**given):
    values = {
        "parameters": ConsensusParameters(diameter=125.0),
        "training": ConsensusTraining(steps=3),
        "output": ConsensusOutputParameters(particle_size=24),
    }
    return ConsensusRequest(
        sets=tuple(map(Path, SETS)),
        micrographs=("mics",),
        pixel_size=4.0,
        compute=ComputeParameters(workers=1, threads=1),
        **{**values, **given},
    )


def stream(request, out, *, stems=(), **given):
    """Run a stream; each time it waits the next micrograph arrives, and then the end is said."""
    waiting = list(stems)

    def tell(step, share):
        if step != "Waiting for micrographs":
            return
        if waiting:
            arrive(waiting.pop(0))
        else:
            Path(out, "close").touch()

    parameters = ConsensusStreamParameters(
        stream=True, poll=0.01, **{"extraction_batch": 1, "training_batch": 2, **given}
    )
    return join_stream(request, Path(out), stream=parameters, progress=tell)


def picks_of(folder):
    rows = read_picks(Path(folder)).rows
    return rows.sort_values(["micrograph", "y", "x"])[["micrograph", "x", "y", "fom"]].to_numpy()


def same_picks(first, second):
    a, b = picks_of(first), picks_of(second)
    if a.shape != b.shape or (a[:, 0] != b[:, 0]).any():
        return False
    return np.allclose(a[:, 1:].astype(float), b[:, 1:].astype(float), atol=1e-5)


def status(out):
    return json.loads(Path(out, "stream.json").read_text())


def test_in_the_end_a_stream_is_what_it_would_be_without_waiting(source):
    result = stream(make_request(), "out", stems=source, preliminary=True)

    join_request(make_request(), Path("batch"))
    assert same_picks("out", "batch")
    said = status("out")
    assert said["state"] == "closed"
    assert said["n_taken"] == len(source)
    assert [p["n_micrographs"] for p in said["passes"]] == [2, 4]
    assert result.particles.n_particles > 0
    taken = [json.loads(line) for line in Path("out/arrivals.jsonl").read_text().splitlines()]
    assert sorted(Path(t["micrograph"]).stem for t in taken) == source
    assert (
        "Preliminary: the networks still learn" in Path("out/preliminary/report.html").read_text()
    )
    assert "Preliminary" not in Path("out/report.html").read_text()
    assert len(read_picks(Path("out/preliminary")).rows)


def test_networks_that_have_learned_enough_stay_and_judge_what_comes(source):
    enough = make_request(training=ConsensusTraining(steps=3, training_particles=60))
    result = stream(enough, "out", stems=source)

    said = status("out")
    assert said["is_learned"]
    assert [p["is_complete"] for p in said["passes"]] == [False, True]
    truth = read_truth(Path("truth.json")).rows
    assert len(result.picks.picked) == len(source)
    assert picks_of("out").shape[0] > 0.6 * len(truth)


def test_a_stream_that_is_started_again_goes_on(source):
    for stem in source[:2]:
        arrive(stem)
    stream(make_request(), "out", close=True)
    first = status("out")["n_taken"]
    assert not Path("out/preliminary").exists()  # nobody has asked
    for stem in source[2:]:
        arrive(stem)
    stream(make_request(), "out", close=True)

    assert (first, status("out")["n_taken"]) == (2, len(source))
    join_request(make_request(), Path("batch"))
    assert same_picks("out", "batch")


def test_votes_need_no_network_and_are_written_as_they_come(source):
    votes = make_request(
        parameters=ConsensusParameters(diameter=125.0, method="votes", quorum=2),
        training=ConsensusTraining(),
    )
    stream(votes, "out", stems=source, training_batch=5)  # the usual one, as it has no say

    join_request(votes, Path("batch"))
    assert same_picks("out", "batch")
    assert not Path("out/passes").exists()


def test_sets_of_other_micrographs_are_an_error_in_the_end(source):
    arrive(source[0])
    for name in SETS:
        Path(name, f"{source[0]}_autopick.star").rename(Path(name, "other_autopick.star"))

    with pytest.raises(TableError, match="one must name micrographs that MICROGRAPHS lists"):
        stream(make_request(), "out", close=True)
    assert not Path("out/job.json").exists()


def kill_and_compare(source, *, n_kills, seed):
    """Kill a stream at random moments, let it end, and compare with one that was not killed."""
    for stem in source:
        arrive(stem)
    words = [str(COMMAND), "pick", "consensus", *SETS, "--micrographs", "mics"]
    words += ["--diameter", "125", "--pixel-size", "4", "--out", "out", "--steps", "3", "--stream"]
    words += ["--extraction-batch", "1", "--training-batch", "2", "--poll", "0.2", "--workers", "1"]
    words += ["--threads", "1", "--particle-size", "24", "--preliminary"]
    chance = random.Random(seed)
    for _ in range(n_kills):
        with Path("log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as one:
            time.sleep(chance.uniform(1.5, 12.0))
            one.send_signal(signal.SIGKILL)
    done = subprocess.run([*words, "--close"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken = [json.loads(line) for line in Path("out/arrivals.jsonl").read_text().splitlines()]
    assert sorted(Path(t["micrograph"]).stem for t in taken) == source

    stream(make_request(), "calm", close=True)
    assert same_picks("out", "calm")
    left = [p for p in Path("out").rglob("*") if ".tmp" in p.name or p.name.startswith(".")]
    assert [p for p in left if p.is_file() and "lock" not in p.name] == []


def test_five_kills_lose_nothing(source):
    kill_and_compare(source, n_kills=5, seed=int(os.environ.get("KILL_SEED", "1")))


@pytest.mark.long
def test_twenty_kills_lose_nothing(source):
    kill_and_compare(source, n_kills=20, seed=2)
