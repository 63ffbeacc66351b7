"""Particles are classified round by round, and each is counted once."""

from __future__ import annotations

import json
import os
import threading
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from classification_world import PIXEL, purity, shapes
from stream_world import (
    averages_in,
    cut,
    members,
    particles_in,
    stream,
    whole,
)

from cryopick.errors import (
    DataError,
    FormatError,
    ParameterError,
    ProjectError,
    TableError,
)
from cryopick.io.mrc import write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.io.xmd import write_xmd
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.class2d_references import read_averages
from cryopick.pipeline.stream_subdivide import subdivide_class
from cryopick.tables.model import Particles
from cryopick.tables.relion import write_particles
from cryopick.tables.xmipp import read_xmd_particles


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settle(path):
    then = time.time() - 10
    os.utime(path, (then, then))


def state_after(number):
    """Wait until the status tells of a round; its state. None after five minutes."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if Path("out/stream.json").exists():
            status = json.loads(Path("out/stream.json").read_text())
            if status["round"] >= number:
                return status["state"]
        time.sleep(0.05)
    return None


def given_references():
    write_mrc(Path("given.mrcs"), shapes().numpy(), pixel_size=PIXEL)
    return Path("given.mrcs")


def test_classes_are_made_and_updated_round_by_round():
    whole()

    values = stream(classes=6).values

    assert values["state"] == "closed"
    assert [r["n_particles"] for r in values["rounds"]] == [120, 180, 200]
    assert [r["n_new"] for r in values["rounds"]] == [120, 60, 20]
    rows = particles_in()
    assert len(rows) == 200
    assert (rows["class_number"] > 0).all()
    assert purity(rows) > 0.9
    assert rows["margin"].between(0, 1).all()
    assert rows["margin"].mean() > 0.3
    assert Path("out/current").resolve() == Path("out/rounds/0003").resolve()
    classes = read_star(Path("out/current/stream_classes.star"))["stream_classes"]
    assert classes["cryopickParticleCount"].sum() == 200
    assert classes["cryopickNewParticles"].sum() == 20
    averages, pixel_size = read_averages(Path("out/current"))
    assert averages.shape == (6, 32, 32)
    assert pixel_size == pytest.approx(PIXEL)
    report = Path("out/report.html").read_text()
    assert "Round 3, 200 particles." in report
    assert "<td>classes made</td>" in report
    assert {p.name for p in Path("out/rounds/0001").iterdir()} >= {"classes.png", "round.json"}
    assert not list(Path("out/rounds/0001").glob("*_data.star"))


def test_a_table_that_grows_is_taken_on_where_it_stood():
    particles = whole()
    cut(particles, 0, 130, "grown.star")
    first = stream("grown.star").values
    assert first["n_particles"] == 130
    time.sleep(0.01)
    cut(particles, 0, 200, "grown.star")

    values = stream("grown.star").values

    assert values["n_particles"] == 200
    assert values["n_arrived"] == 200
    assert len(members()) == 200
    assert [r["n_particles"] for r in values["rounds"]] == [120, 130, 190, 200]


def test_while_it_waits_new_particles_are_taken_until_it_is_told_to_close():
    particles = whole()
    cut(particles, 0, 120, "in/a.star")
    settle("in/a.star")

    states = []

    def feed():
        states.append(state_after(1))
        cut(particles, 120, 180, "in/b.star")
        settle("in/b.star")
        states.append(state_after(2))
        cut(particles, 180, 200, "in/c.star")
        Path("out/close").touch()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    values = stream("in", close=False, poll=0.1, idle=10).values
    feeder.join(60)

    assert states == ["provisional"] * 2
    assert [r["n_particles"] for r in values["rounds"]] == [120, 180, 200]
    assert values["state"] == "closed"


def test_it_ends_when_nothing_has_come_for_a_while():
    particles = whole()
    cut(particles, 0, 130, "a.star")
    settle("a.star")

    values = stream("a.star", close=False, poll=0.1, idle=0.01).values

    assert values["n_particles"] == 130


def test_given_references_keep_their_numbers_and_their_members_are_right():
    whole()

    values = stream(references=given_references(), classes=None, batch=100).values

    rows = particles_in()
    right = rows["class_number"] == rows["rlnShape"] + 1
    assert right.mean() > 0.95
    assert {r["kind"] for r in values["rounds"]} == {"assigned"}
    for average, shape in zip(averages_in(), shapes().numpy(), strict=True):
        assert np.corrcoef(average.ravel(), shape.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("kind", ["hdf", "xmd", "star"])
def test_references_of_other_programs_keep_their_numbers(kind):
    whole(140)
    order = [2, 0, 3, 1]  # in the stack; the tables bring them back
    write_mrc(Path("averages.mrcs"), shapes().numpy()[order], pixel_size=PIXEL)
    if kind == "hdf":
        path = Path("given.hdf")
        with h5py.File(path, "w") as file:
            groups = file.create_group("MDF/images")
            groups.attrs["imageid_max"] = np.int32(3)
            for number, shape in enumerate(shapes().numpy()):
                group = groups.create_group(str(number))
                group.attrs["EMAN.apix_x"] = np.float32(PIXEL)
                group.create_dataset("image", data=shape)
    else:
        path = Path(f"given.{kind}")
        label = "rlnReferenceImage" if kind == "star" else "image"
        names = [f"{order.index(k) + 1:06d}@averages.mrcs" for k in range(4)]
        table = pd.DataFrame({label: names})
        if kind == "xmd":
            table = table.assign(ref=[1, 2, 3, 4]).iloc[::-1]
            write_xmd(path, {"classes": table})
        else:
            write_star(path, {"averages": table})

    stream(references=path, classes=None)

    rows = particles_in()
    assert (rows["class_number"] == rows["rlnShape"] + 1).mean() > 0.95


def test_however_the_stream_is_cut_assignments_and_averages_are_the_same():
    particles = whole(700)
    reference = given_references()
    found = []
    for number, batches in enumerate((1, 3, 7)):
        edges = np.linspace(0, 700, batches + 1).astype(int)
        for k, (first, stop) in enumerate(pairwise(edges)):
            cut(particles, first, stop, f"in{number}/{k:02d}.star")
        stream(f"in{number}", out=f"out{number}", references=reference, batch=700 // batches)
        found.append((members(f"out{number}"), averages_in(f"out{number}")))

    (classes, averages), *others = found
    for other_classes, other_averages in others:
        assert other_classes == classes
        scale = np.abs(averages).max()
        np.testing.assert_allclose(other_averages, averages, atol=1e-5 * scale)


def test_the_order_within_a_batch_does_not_matter():
    particles = whole(700)
    reference = given_references()
    order = np.concatenate([np.arange(500), 500 + np.random.default_rng(0).permutation(200)])
    turned = Particles(
        rows=particles.rows.iloc[order], optics=particles.optics, source=particles.source
    )
    write_particles(Path("turned.star"), turned)

    stream(out="a", references=reference, batch=700)
    stream("turned.star", out="b", references=reference, batch=700)

    assert members("a") == members("b")
    scale = np.abs(averages_in("a")).max()
    np.testing.assert_allclose(averages_in("a"), averages_in("b"), atol=1e-5 * scale)


def test_the_full_pass_at_the_end_tells_the_difference():
    whole()

    values = stream(classes=6, full_pass=True).values

    assert values["kind"] == "full pass"
    assert values["n_new"] == 0
    assert 0 < values["changed"]["class"] < 1  # six classes of four shapes can be cut otherwise
    assert purity(particles_in()) > 0.9


def test_tables_for_xmipp_and_scipion_tell_the_same():
    whole()
    stream(xmd=True, scipion=True, references=given_references())

    rows = particles_in()
    found = read_xmd_particles(Path("out/current/classes_images.xmd"), pixel_size=PIXEL).rows
    assert found["class_number"].tolist() == rows["class_number"].tolist()
    turn = (found["psi"] - rows["psi"] + 180) % 360 - 180
    np.testing.assert_allclose(turn, 0, atol=1e-4)
    assert Path("out/current/classes.sqlite").stat().st_size > 0


def test_tables_that_do_not_fit_are_refused_and_the_rest_is_classified():
    particles = whole()
    cut(particles, 0, 120, "in/a.star")
    without = particles.rows.drop(columns=["defocus_u", "defocus_v", "defocus_angle"])
    lost = Particles(rows=without.iloc[:5], optics=particles.optics, source=particles.source)
    write_particles(Path("in/b.star"), lost)
    other = pd.DataFrame(particles.optics.assign(pixel_size=5.0))
    wide = Particles(rows=particles.rows.iloc[120:], optics=other, source=particles.source)
    write_particles(Path("in/c.star"), wide)

    values = stream("in").values

    assert values["n_particles"] == 120
    assert set(values["refused"]) == {"in/b.star", "in/c.star"}
    assert "begin with --ctf none" in values["refused"]["in/b.star"]
    assert "must have the pixel size" in values["refused"]["in/c.star"]


def test_other_parameters_need_another_folder_or_overwrite():
    whole(140)
    stream()
    with pytest.raises(ProjectError, match="classes 4 instead of 3"):
        stream(classes=3)

    values = stream(classes=3, overwrite=True).values

    assert values["n_classes"] == 3
    assert [r["round"] for r in values["rounds"]] == [1, 2]


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"classes": 3}, ParameterError, "must be the number of averages in --references, 4"),
        ({"full_pass": True, "references": True}, ParameterError, "--full-pass must be left out"),
        ({"inputs": "none.star"}, DataError, "must bring particles before it ends"),
    ],
)
def test_what_cannot_be_done_is_said(given, error, sentence):
    whole(60)
    if "classes" in given or "references" in given:
        given = given | {"references": given_references()}
    inputs = [given.pop("inputs")] if "inputs" in given else []
    with pytest.raises(error, match=sentence):
        stream(*inputs, **given)


def test_a_stream_that_cannot_begin_leaves_the_folder_free():
    particles = whole(60)
    with pytest.raises(ParameterError, match="must fit in the box"):
        stream(diameter=500.0)
    without = particles.rows.drop(columns=["defocus_u", "defocus_v", "defocus_angle"])
    lost = Particles(rows=without, optics=particles.optics, source=particles.source)
    write_particles(Path("lost.star"), lost)
    with pytest.raises(TableError, match="begin with --ctf none"):
        stream("lost.star")

    assert stream(iterations=2).values["n_particles"] == 60


def test_a_broken_state_is_told_in_one_sentence():
    whole(140)
    stream(iterations=2)
    state = next(Path("out/current").glob("state.npz"))
    state.write_bytes(state.read_bytes()[:-100])

    with pytest.raises(FormatError, match="must be the state of a stream of this version"):
        stream(iterations=2)


def test_references_without_a_pixel_size_are_refused():
    whole(60)
    write_mrc(Path("given.mrcs"), shapes().numpy(), pixel_size=1.0)

    with pytest.raises(DataError, match="must say their pixel size"):
        stream(references=Path("given.mrcs"))


def test_references_of_opposite_contrast_are_refused():
    whole(60)
    write_mrc(Path("given.mrcs"), -shapes().numpy(), pixel_size=PIXEL)

    with pytest.raises(DataError, match="must be white where the particles are white"):
        stream(references=Path("given.mrcs"))


def test_a_class_is_parted_on_request_and_the_stream_goes_on_with_the_parts():
    particles = whole()
    cut(particles, 0, 150, "grown.star")
    stream("grown.star", classes=3)  # of four shapes
    before = members()
    sizes = np.bincount(list(before.values()), minlength=4)
    table = pd.crosstab(particles_in()["class_number"], particles_in()["rlnShape"])
    mixed = int(table.index[(table.max(axis=1) / table.sum(axis=1)).argmin()])

    values = subdivide_class(
        Path("out"),
        mixed,
        2,
        compute=MachineParameters(threads=1),
        progress=lambda _: None,
        tell=lambda _: None,
    ).values

    assert values["n_classes"] == 4
    assert values["kind"] == f"class {mixed} parted"
    after = members()
    assert {n: c for n, c in after.items() if c not in (mixed, 4)} == {
        n: c for n, c in before.items() if c != mixed
    }
    counts = np.bincount(list(after.values()), minlength=5)
    assert counts[mixed] + counts[4] == sizes[mixed]
    assert counts[mixed] >= counts[4] > 0
    assert purity(particles_in()) > 0.9
    time.sleep(0.01)
    cut(particles, 0, 200, "grown.star")
    values = stream("grown.star", classes=3).values
    assert (values["n_classes"], values["n_particles"]) == (4, 200)
    assert purity(particles_in()) > 0.9


def test_parting_needs_a_stream_and_a_class():
    compute = MachineParameters(threads=1)
    quiet = {"progress": lambda _: None, "tell": lambda _: None}
    with pytest.raises(ProjectError, match="must hold a stream with a round"):
        subdivide_class(Path("none"), 1, 2, compute=compute, **quiet)
    whole(140)
    stream()
    with pytest.raises(ParameterError, match="class must be from 1 to 4; got 9"):
        subdivide_class(Path("out"), 9, 2, compute=compute, **quiet)
