"""Live classes get each accepted micrograph once, and never one that is rejected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_world import GENERAL, changed
from session_world import LENS, WATCHING, bring, meanwhile, session, until, wait_for

from cryopick.pipeline.field_choices import set_ticks
from cryopick.tables.relion import read_particles

pytest_plugins = ("run_world",)

PARTICLES = changed(GENERAL, classes=2, until="particles", **LENS)
LIVE = changed(WATCHING, idle=0, live_classes=True)


def arrivals(folder):
    """Rows of each table that a stream has taken."""
    lines = (Path(folder) / "arrivals.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def images_of(folder):
    """Names of the images that a stream was fed, in its order."""
    found = []
    for one in arrivals(folder):
        rows = read_particles(Path(one["table"])).rows.iloc[one["first"] : one["stop"]]
        found += [f"{i}@{n}" for i, n in zip(rows["image_index"], rows["image"], strict=True)]
    return found


def classified(number):
    return lambda: wait_for(lambda s: s["classes"] and s["counts"]["classified"] >= number)


@pytest.mark.slow
def test_each_particle_is_classified_once_while_micrographs_come(run_folder):
    bring(1, 2)
    seen = []

    def bring_more():
        seen.append(wait_for(lambda s: s["classes"] and s["classes"]["n_good"] is not None))
        bring(3, 4, 5)

    with meanwhile(until(extracted=2), classified(50), bring_more, until(extracted=5), fed(5)):
        session("incoming", parameters=PARTICLES, watching=LIVE)

    assert seen[0]["classes"]["n_classes"] == 2
    assert Path(seen[0]["classes"]["picture"]).name == "classes.png"
    [stream] = Path("project/jobs").glob("*_live_classes")
    images = images_of(stream)
    rows = read_particles(Path("project/particles/particles.star")).rows
    names = [f"{i}@{n}" for i, n in zip(rows["image_index"], rows["image"], strict=True)]
    assert sorted(images) == sorted(names)
    assert len(set(images)) == len(images)


def fed(count):
    """Wait until the stream has taken particles of so many micrographs."""

    def holds(_):
        [stream] = Path("project/jobs").glob("*_live_classes") or [None]
        return len({n.split("@")[1] for n in images_of(stream)}) == count

    return lambda: wait_for(holds)


@pytest.mark.slow
def test_when_one_that_was_fed_is_rejected_another_stream_begins_without_it(run_folder):
    bring(1, 2, 3)

    def reject():
        set_ticks(Path("project"), ["incoming/sim_00001.mrc"], "rejected")
        bring(4)

    def second_stream(status):
        streams = sorted(Path("project/jobs").glob("*_live_classes"))
        number = int(streams[-1].name.split("_")[0])
        return len(streams) == 2 and status["classes"] and status["classes"]["job"] == number

    with meanwhile(until(extracted=3), classified(50), reject, lambda: wait_for(second_stream)):
        session("incoming", parameters=PARTICLES, watching=LIVE)

    first, second = sorted(Path("project/jobs").glob("*_live_classes"))
    assert any("sim_00001" in name for name in images_of(first))
    assert not any("sim_00001" in name for name in images_of(second))
    assert any("sim_00002" in name for name in images_of(second))
