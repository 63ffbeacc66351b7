"""Claims about a consensus in which networks have a say: quality, repetition, broken fields."""

import json
from pathlib import Path

import numpy as np
import pytest

from cryopick.execution.parameters import ComputeParameters
from cryopick.picking.consensus_parameters import ConsensusParameters
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus import join_sets
from cryopick.pipeline.evaluate import evaluate_pick_files, read_truth
from cryopick.tables.relion import read_picks, write_coordinate_files, write_picks_file

pytest_plugins = ("topaz_world",)

DIAMETER = 125.0
SETS = ("sure", "eager")
TABLE = "micrographs_ctf.star"


@pytest.fixture
def project(topaz_project):
    """Beside four fields, the sets of a picker that misses much and of one that errs much."""
    truth = read_truth(Path("truth.json")).rows
    random = np.random.default_rng(4)
    for name, share, n_false in (("sure", 0.6, 3), ("eager", 0.95, 40)):
        Path(name).mkdir()
        files = []
        for micrograph, rows in truth.groupby("micrograph"):
            rows = rows[random.random(len(rows)) < share][["x", "y"]]
            rows = rows + random.normal(0, 2.0, rows.shape)
            for place in random.uniform(20, 490, (n_false, 2)):
                rows.loc[len(rows) + 1000] = place
            path = Path(name) / f"{Path(str(micrograph)).stem}_autopick.star"
            write_picks_file(path, rows)
            files.append((f"Movies/{Path(str(micrograph)).name}", str(path)))
        write_coordinate_files(Path(name) / "autopick.star", files)
    return topaz_project


def join(out, *, steps=None, **values):
    return join_sets(
        [Path(s) for s in SETS],
        [TABLE],
        Path(out),
        parameters=ConsensusParameters(diameter=DIAMETER, **values),
        training=ConsensusTraining(steps=steps),
        compute=ComputeParameters(workers=1, threads=1),
    )


def f1(out):
    return evaluate_pick_files(Path(out), Path("truth.json")).picks.total.f1


def test_a_consensus_with_networks_is_better_than_its_sets_and_than_votes(project):
    result = join("network", steps=2)
    join("votes", method="votes")

    assert f1("network") > max(f1("votes"), *(f1(s) for s in SETS)) + 0.02
    assert result.picks.to_dict()["n_failed"] == 0
    sure, eager = json.loads(Path("network/consensus.json").read_text())["pickers"]
    assert sure["sensitivity"] < eager["sensitivity"] - 0.2
    assert sure["false_share"] < eager["false_share"] - 0.2


def test_a_job_taken_up_again_gives_the_same_and_trains_no_more(project):
    result = join("one", steps=2)
    assert result.n_crowded == 4  # more than 60 candidates leave no room of a box
    first = read_picks(Path("one")).rows
    kept = Path("one/candidates.npz")
    time = kept.stat().st_mtime_ns
    for path in Path("one").rglob("*_autopick.star"):  # killed when it had just been trained
        path.unlink()
    Path("one/ledger.jsonl").unlink()
    assert join("one", steps=2).n_crowded == 4
    assert kept.stat().st_mtime_ns == time
    assert read_picks(Path("one")).rows.equals(first)

    kept.unlink()  # killed before
    join("one", steps=2)
    assert read_picks(Path("one")).rows.equals(first)


def test_a_broken_micrograph_is_refused_and_the_others_are_judged(project):
    name = sorted((project / "micrographs").glob("*.mrc"))[0].name
    images = project / "micrographs"
    files = {p.name: p.resolve() for p in images.glob("*.mrc")}
    images.unlink()
    images.mkdir()
    for own, target in files.items():
        if own != name:
            (images / own).symlink_to(target)
    (images / name).write_bytes(b"no image")

    result = join("out", steps=0)
    assert [Path(m.micrograph).name for m in result.picks.failed] == [name]
    assert len(result.picks.picked) == 3
    assert f1("out") > 0.5
