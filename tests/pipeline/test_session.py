"""A session makes what a run makes, whenever its micrographs come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_world import DIAMETER, GENERAL, QUICK, changed, leftovers, run
from session_world import (
    LENS,
    OPEN,
    TO_PARTICLES,
    bring,
    by_step,
    comparable,
    make_older,
    meanwhile,
    session,
    spoil,
    status_of,
    until,
    wait_for,
)

from cryopick.errors import ParameterError, ProjectError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.pipeline.field_choices import set_limits, set_ticks
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_verify import verify_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_layout import ask
from cryopick.tables.relion import read_micrographs, read_particles

pytest_plugins = ("run_world",)

WHOLE = changed(GENERAL, classes=2, rescale=16, **LENS)


def run_of(*inputs, parameters):
    """What a run makes of the same files, in a folder of its own with the same names."""
    result = run(*inputs, parameters=parameters)
    assert result.halted is None, result.halted
    return comparable("project")


@pytest.fixture
def of_run(run_folder, monkeypatch, tmp_path):
    """Makes what a run makes of the files in ``incoming``, beside the session's project."""

    def make(parameters=TO_PARTICLES):
        place = tmp_path / "beside"
        place.mkdir()
        (place / "incoming").symlink_to(Path("incoming").resolve())
        with monkeypatch.context() as patch:
            patch.chdir(place)
            return run_of("incoming", parameters=parameters)

    return make


def test_a_session_makes_what_a_run_makes_of_the_same_files(run_folder, of_run):
    bring(1, 2)

    with meanwhile(until(extracted=2), lambda: bring(3), until(listed=3)):
        ended = session("incoming", parameters=WHOLE, watching=OPEN)

    assert ended.result is not None
    assert comparable("project") == of_run(WHOLE)
    assert not leftovers("project")
    assert verify_project(Path("project")) == []


def test_each_micrograph_is_there_once_in_the_order_in_which_it_came(run_folder):
    bring(3)

    with meanwhile(
        until(listed=1), lambda: bring(1), until(listed=2), lambda: bring(2), until(listed=3)
    ):
        session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    names = [
        Path(n).stem[-1]
        for n in read_micrographs(Path("project/micrographs.star")).rows["micrograph"]
    ]
    assert names == ["3", "1", "2"]
    particles = read_particles(Path("project/particles/particles.star")).rows
    assert list(dict.fromkeys(Path(n).stem[-1] for n in particles["micrograph"])) == names
    assert not particles.duplicated(["micrograph", "x", "y"]).any()


def test_a_session_goes_on_in_the_project_of_a_run_and_the_other_way_round(run_folder, of_run):
    bring(1)
    run("incoming", parameters=TO_PARTICLES)
    bring(2)
    session("incoming", parameters=TO_PARTICLES)
    bring(3)
    again = run("incoming", parameters=TO_PARTICLES)

    assert [step.number for step in again.steps] == [1, 2, 3]
    assert comparable("project") == of_run()
    assert not [s for s in run("incoming", parameters=TO_PARTICLES).steps if s.is_new]


def learned():
    wait_for(lambda status: status["training"]["state"] == "done")


def test_a_picker_that_learns_is_that_of_a_run_and_others_pick_meanwhile(run_folder, of_run):
    parameters = RunParameters(
        diameter=DIAMETER, subset=3, training_steps=8, until="particles", **QUICK, **LENS
    )
    bring(1, 2, 3)

    with meanwhile(until(extracted=3), lambda: bring(4), until(listed=4), learned):
        ended = session("incoming", parameters=parameters, watching=OPEN)

    assert ended.result is not None
    made = of_run(parameters)
    found = comparable("project")
    for step in ("training", "picks", "particles"):
        of_step = by_step(made, step)
        assert len(of_step) > 0
        assert by_step(found, step) == of_step
    live = list(Path("project/jobs").glob("*_live_picks/incoming/*_autopick.star"))
    assert len(live) >= 3


@pytest.mark.slow
def test_where_the_first_show_nothing_to_learn_from_the_picker_learns_from_more(run_folder):
    parameters = RunParameters(diameter=DIAMETER, subset=2, until="first_classes", **QUICK, **LENS)
    bring(1, 2)
    for path in Path("incoming").iterdir():  # fields without a particle
        noise = np.random.default_rng(1).normal(size=read_mrc(path).shape[-2:])
        write_mrc(path, noise.astype(np.float32), pixel_size=4.0)
        make_older(path)

    def first_classes(state):
        def holds(status):
            return any(
                s["name"] == "first_classes" and s["state"] == state for s in status["steps"]
            )

        return lambda: wait_for(holds)

    def broke():
        wait_for(lambda status: status["training"]["state"] == "failed")

    with meanwhile(until(listed=2), broke, lambda: bring(3, 4), first_classes("done")):
        ended = session("incoming", parameters=parameters, watching=OPEN)

    assert ended.result.halted is None
    assert status_of("project")["training"]["subset"] == 4


def test_the_status_tells_what_was_done(run_folder):
    bring(1, 2)

    session("incoming", parameters=TO_PARTICLES)

    status = status_of("project")
    particles = read_particles(Path("project/particles/particles.star"))
    assert status["state"] == "stopped"
    assert status["is_finished"]
    counts = status["counts"]
    assert {counts[n] for n in ("listed", "measured", "picked", "extracted")} == {2}
    assert counts["particles"] == len(particles)
    assert counts["waiting"] == counts["failed"] == counts["rejected"] == 0
    defocus = next(q for q in status["quantities"] if q["name"] == "defocus")
    rows = read_micrographs(Path("project/ctf/micrographs_ctf.star")).rows
    mean = (rows["defocus_u"] + rows["defocus_v"]) / 2
    assert defocus["minimum"] == pytest.approx(mean.min(), abs=0.01)
    assert defocus["maximum"] == pytest.approx(mean.max(), abs=0.01)


def test_a_second_manager_is_refused(run_folder):
    bring(1)

    with Project.open(Path("project"), create=True), pytest.raises(ProjectError) as caught:
        session("incoming", parameters=TO_PARTICLES)

    assert "must be managed by one run at a time" in str(caught.value)


def test_a_micrograph_that_cannot_be_worked_on_is_refused_and_the_others_go_on(run_folder):
    bring(1)
    pixels = Path("incoming/sim_00001.mrc").read_bytes()
    Path("incoming/poison.mrc").write_bytes(pixels[:1024] + b"\xff" * (len(pixels) - 1024))

    session("incoming", parameters=TO_PARTICLES)

    status = status_of("project")
    assert status["counts"]["failed"] == 1
    assert status["counts"]["extracted"] == 1
    [failure] = [f for f in status["failures"] if f["name"]]
    assert failure["name"].endswith("poison.mrc")
    assert "must" in failure["reason"]


def test_a_first_micrograph_without_use_does_not_hold_up_those_that_follow(run_folder):
    bring(1)
    spoil(Path("incoming/sim_00001.mrc"))

    with meanwhile(until(failed=1), lambda: bring(2), until(extracted=1)):
        ended = session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    assert ended.result is not None
    assert ended.result.halted is None, ended.result.halted
    assert ended.counts["extracted"] == 1


def test_first_micrographs_without_use_do_not_hold_up_a_session_that_is_started_again(run_folder):
    bring(1, 2, 3, 4)
    for number in (1, 2, 3):
        spoil(Path(f"incoming/sim_{number:05d}.mrc"))

    with meanwhile(until(failed=3, extracted=1), lambda: ask(Path("project"), "stop")):
        assert session("incoming", parameters=TO_PARTICLES, watching=OPEN).result is None
    for request in Path("project/session/requests").glob("*.json"):
        request.unlink()  # that of `meanwhile`
    with meanwhile(lambda: bring(5), until(extracted=2)):
        ended = session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    assert ended.result.halted is None
    assert (ended.counts["extracted"], ended.counts["failed"]) == (2, 3)


def test_results_of_a_file_that_is_gone_are_kept(run_folder):
    bring(1, 2)

    gone = Path("incoming/sim_00001.mrc").unlink
    with meanwhile(until(extracted=2), gone, lambda: bring(3), until(extracted=3)):
        session("incoming", parameters=TO_PARTICLES, watching=OPEN)

    particles = read_particles(Path("project/particles/particles.star"))
    assert {Path(n).stem[-1] for n in particles.rows["micrograph"]} == {"1", "2", "3"}


def test_rejected_micrographs_are_left_out_of_the_classes_and_come_back(run_folder):
    bring(1, 2, 3)
    session("incoming", parameters=TO_PARTICLES)
    names = [str(n) for n in read_micrographs(Path("project/micrographs.star")).rows["micrograph"]]
    set_ticks(Path("project"), [names[0]], "rejected")
    project = Path("project")

    def fields_of_classes():
        session("incoming", parameters=WHOLE)
        table = max(project.glob("classes/run_it*_data.star"))
        return set(map(str, read_particles(table).rows["micrograph"]))

    assert fields_of_classes() == {names[1], names[2]}
    assert status_of("project")["counts"]["rejected"] == 1
    set_ticks(project, [names[0]], "")
    set_limits(project, {"defocus": (1e6, None)})
    halted = session("incoming", parameters=WHOLE).result.halted
    assert halted.step == "accepted"
    assert "Widen the limits" in str(halted.error)
    set_limits(project, {})
    before = {p: p.stat().st_mtime_ns for p in project.glob("particles/**/*.mrcs")}
    assert fields_of_classes() == set(names)
    assert {p: p.stat().st_mtime_ns for p in project.glob("particles/**/*.mrcs")} == before


def test_what_no_session_can_begin_with_is_refused_in_a_sentence(run_folder):
    with pytest.raises(ParameterError, match="until must name a step of this run"):
        session("incoming", parameters=changed(GENERAL, until="training"))


def test_with_several_pickers_the_particles_are_those_of_a_run_s_consensus(run_folder, of_run):
    parameters = changed(TO_PARTICLES, also_pick="blob,log", consensus="reliability")
    bring(1, 2)

    def is_joined(status):
        return status["consensus"] and status["consensus"]["n_taken"] >= 5

    def bring_more():
        bring(3, 4, 5)
        wait_for(is_joined)

    with meanwhile(until(picked=2), bring_more):
        session("incoming", parameters=parameters, watching=OPEN)

    made, found = of_run(parameters), comparable("project")
    for step in ("consensus", "particles"):
        of_step = by_step(made, step)
        assert len(of_step) > 2
        assert by_step(found, step) == of_step
