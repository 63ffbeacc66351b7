"""What happens around a stream: ends, restarts, tables that do not fit, rounds without news."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from classification_world import DIAMETER, PIXEL, purity, shapes
from particle_world import write_stack
from stream_world import cut, particles_in, stream, whole

from cryopick.errors import DataError, FormatError, ParameterError
from cryopick.io.mrc import read_mrc, write_mrc
from cryopick.io.star import read_star
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.stream import Stream
from cryopick.pipeline.stream_subdivide import subdivide_class
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settle(path):
    then = time.time() - 10
    os.utime(path, (then, then))


def without_ctf(particles, path):
    Path(path).parent.mkdir(exist_ok=True)
    rows = particles.rows.drop(columns=["defocus_u", "defocus_v", "defocus_angle"])
    optics = particles.optics.assign(pixel_size=2 * PIXEL)
    write_particles(Path(path), Particles(rows=rows, optics=optics, source=particles.source))
    settle(path)


def test_references_of_particles_with_pixels_of_one_angstrom_are_taken():
    particles = whole(120)
    optics = particles.optics.assign(pixel_size=1.0)
    one = Particles(rows=particles.rows, optics=optics, source=particles.source)
    write_particles(Path("particles.star"), one)
    write_mrc(Path("given.mrcs"), shapes().numpy(), pixel_size=1.0)
    same = {"diameter": DIAMETER / PIXEL, "resolution_limit": 14 / PIXEL, "ctf": "none"}
    scaled = {"offset_range": 3.0, "offset_step": 1.3}

    stream(references=Path("given.mrcs"), classes=None, **same, **scaled)

    rows = particles_in()
    assert (rows["class_number"] == rows["rlnShape"] + 1).mean() > 0.9
    stream(references=Path("out/current"), classes=None, out="again", **same, **scaled)
    assert (particles_in("again")["class_number"] == rows["class_number"]).mean() > 0.9


def test_a_table_is_refused_at_once_while_it_waits_and_does_not_bind_the_others():
    particles = whole(130)
    without_ctf(particles, "in/a.star")
    cut(particles, 0, 130, "in/b.star")
    settle("in/b.star")
    told = []

    values = stream("in", close=False, idle=0.005, poll=0.1, iterations=2, tell=told.append).values

    assert values["n_particles"] == 130
    assert set(values["refused"]) == {"in/a.star"}
    refused = [s for s in told if s.startswith("Refused: in/a.star must have a column")]
    assert len(refused) == 1
    assert told.index(refused[0]) == 0


def test_the_time_that_a_round_takes_is_not_idle(monkeypatch):
    particles = whole(200)
    cut(particles, 0, 125, "in/a.star")
    settle("in/a.star")
    do, late = Stream._do, [(125, 190, "in/b.star"), (190, 200, "in/c.star")]

    def slow(self, stop):
        do(self, stop)
        time.sleep(1.3)
        if late:
            first, last, name = late.pop(0)
            cut(particles, first, last, name)
            settle(name)

    monkeypatch.setattr(Stream, "_do", slow)

    values = stream("in", close=False, idle=0.02, poll=0.1, iterations=1).values

    assert values["n_particles"] == 200


def test_a_round_in_which_no_image_is_of_use_is_a_round():
    particles = whole(200)
    images = read_mrc(Path("stack.mrcs")).copy()
    images[120:180] = 1.0
    write_mrc(Path("stack.mrcs"), images, pixel_size=PIXEL)
    cut(particles, 0, 180, "grown.star")

    stream("grown.star", iterations=2)

    classes = read_star(Path("out/current/stream_classes.star"))["stream_classes"]
    assert classes["cryopickNewParticles"].sum() == 0
    assert classes["cryopickParticleCount"].sum() == 120
    assert (particles_in()["class_number"] > 0).sum() == 120
    assert Path("out/current/run_it002_data.star").exists()
    time.sleep(0.01)
    cut(particles, 0, 200, "grown.star")
    stream("grown.star", iterations=2)
    classes = read_star(Path("out/current/stream_classes.star"))["stream_classes"]
    assert classes["cryopickNewParticles"].sum() == 20
    assert Path("out/current/run_it003_data.star").exists()


def test_tables_that_group_particles_differently_are_classified_together():
    particles = whole(200)
    cut(particles, 0, 130, "in/a.star")
    named = particles.rows.iloc[130:].assign(rlnGroupName="g")
    table = Particles(rows=named, optics=particles.optics, source=particles.source)
    write_particles(Path("in/b.star"), table)

    stream("in", iterations=2)

    rows = particles_in()
    assert rows["rlnGroupName"].unique().tolist() == ["m0.mrc", "m1.mrc", "m2.mrc", "g"]
    assert rows["group_number"].unique().tolist() == [1, 2, 3, 4]


def test_stacks_that_cannot_be_read_with_the_others_are_refused_before_they_are_taken():
    particles = whole(200)
    cut(particles, 0, 130, "in/a.star")
    images = read_mrc(Path("stack.mrcs"))
    write_stack(Path("odd.mrcs"), images[130:, 1:, 1:])
    odd = particles.rows.iloc[130:].assign(image="odd.mrcs", image_index=np.arange(70))
    optics = particles.optics.drop(columns="box_size")
    write_particles(Path("in/b.star"), Particles(rows=odd, optics=optics, source=particles.source))

    values = stream("in", iterations=2).values

    assert values["n_particles"] == 130
    assert list(values["refused"]) == ["in/b.star"]
    assert stream("in", iterations=2).values["n_particles"] == 130


def test_a_stream_without_its_list_of_arrivals_does_not_go_on():
    particles = whole(200)
    cut(particles, 0, 130, "in/b.star")
    stream("in", iterations=2)
    Path("out/arrivals.jsonl").unlink()
    cut(particles, 130, 200, "in/a.star")

    with pytest.raises(FormatError, match="must list the 130 particles of the last round; got 0"):
        stream("in", iterations=2)


def test_exports_that_are_asked_for_later_are_those_of_the_last_round():
    whole(130)
    names = ("classes_images.xmd", "classes_classes.xmd", "classes.sqlite")
    stream(iterations=2, xmd=True, scipion=True)
    made = {n: Path("out/current", n) for n in names}
    wanted = made[names[1]].read_bytes()
    for path in made.values():
        path.unlink()

    stream(iterations=2, xmd=True, scipion=True)

    assert all(path.stat().st_size > 0 for path in made.values())
    assert made[names[1]].read_bytes() == wanted


def test_a_class_is_parted_from_another_folder(monkeypatch):
    whole(130)
    stream()
    monkeypatch.chdir("out")

    values = subdivide_class(
        Path(),
        1,
        2,
        compute=MachineParameters(threads=1),
        progress=lambda _: None,
        tell=lambda _: None,
    ).values

    assert values["n_classes"] == 5
    monkeypatch.chdir("..")
    assert purity(particles_in()) > 0.9


def test_more_classes_than_first_particles_are_refused_before_it_waits():
    with pytest.raises(ParameterError, match="classes must be at most --first-batch, 30; got 50"):
        stream("later.star", classes=50, first_batch=30, close=False)


def test_a_file_named_close_that_is_left_from_before_is_told():
    whole(130)
    Path("out").mkdir()
    Path("out/close").touch()
    told = []

    stream(close=False, iterations=2, tell=told.append)

    assert told[0] == "out/close is there: the stream takes what has come, and ends."


def test_references_that_are_not_square_are_refused():
    write_mrc(Path("given.mrcs"), shapes()[:, :, :28].numpy(), pixel_size=PIXEL)

    with pytest.raises(DataError, match="must be square images; got 28 x 32 px"):
        stream("later.star", references=Path("given.mrcs"))


def test_particles_that_are_black_are_told():
    whole(120)
    told = []
    stream(iterations=1, tell=told.append)
    assert not [s for s in told if "black" in s]
    images = read_mrc(Path("stack.mrcs"))
    write_mrc(Path("stack.mrcs"), -images, pixel_size=PIXEL)

    stream(iterations=1, out="other", tell=told.append)

    assert len([s for s in told if s.startswith("Warning: the particles look black")]) == 1
