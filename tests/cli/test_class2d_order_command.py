"""``cryopick class2d order`` as a user runs it, on the views of a body that tilts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_world import contents, leftovers, refused

from cryopick.alignment.transform import transform_images
from cryopick.io.eman_hdf import EmanStack
from cryopick.io.eman_hdf_write import write_eman_stack
from cryopick.io.mrc import read_mrc, read_mrc_header, write_mrc
from cryopick.io.star import read_star, write_star
from cryopick.pipeline import class2d_order
from cryopick.simulation.orientations import euler_matrices
from cryopick.simulation.projection import Model, project

pytest_plugins = ("command_world",)

N, SIZE, PIXEL = 12, 32, 5.0
ORDER = ("class2d", "order")
HOW = ("--out", "ordered", "--threads", 1)
STEM = Path("ordered/ordered_class_averages")


def shuffled():
    """Views in a random order and turned at random, and the number that each had."""
    body = Model(
        name="blobs",
        positions=torch.from_numpy(np.random.default_rng(7).normal(0, 20, (12, 3))).float(),
        weights=torch.linspace(0.6, 1.6, 12),
        blur=7.0,
        symmetry="C1",
        diameter=130.0,
    )
    angles = np.stack([np.zeros(N), np.linspace(10, 110, N), np.zeros(N)], axis=1)
    views = project(body, euler_matrices(angles), box_size=SIZE, pixel_size=PIXEL)
    generator = np.random.default_rng(0)
    was = generator.permutation(N)
    psi = torch.from_numpy(generator.uniform(-180, 180, N)).float()
    none = torch.zeros(N)
    return transform_images(views[was], psi=psi, shift_x=none, shift_y=none).numpy(), was


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``averages.mrcs``, ``.hdf`` and ``.star``; the fourth is of an empty class."""
    monkeypatch.chdir(tmp_path)
    images, _ = shuffled()
    images = np.insert(images, 3, 0, axis=0)
    members = [list(range(n + 1)) for n in range(N + 1)]
    headers = [{"members": m, "n_objects": len(m), "main": 2} for m in members]
    write_mrc(Path("averages.mrcs"), images, pixel_size=PIXEL)
    write_eman_stack(Path("averages.hdf"), images, pixel_size=PIXEL, attributes=headers)
    rows = pd.DataFrame(
        {
            "rlnReferenceImage": [f"{n + 1:06d}@averages.mrcs" for n in range(N + 1)],
            "rlnClassNumber": np.arange(N + 1) + 101,
            "rlnPredictedClassScore": np.linspace(0, 1, N + 1),
        }
    )
    write_star(Path("averages.star"), {"": rows})
    return tmp_path


def true_places(order):
    """Of the averages in order, by their places in the stack from 1."""
    was = np.insert(shuffled()[1], 3, -1)
    return was[np.asarray(order) - 1]


def test_an_hdf_stack_is_ordered_with_its_attributes(folder, cryopick):
    ended = cryopick(*ORDER, "averages.hdf", *HOW)

    assert ended.code == 0, ended
    values = json.loads(STEM.with_suffix(".json").read_text())
    assert (np.abs(np.diff(true_places(values["order"]))) == 1).all()
    assert f"{N} averages in order; 1 empty ones left out." in ended.out
    assert f"{values['mean_similarity']:.3f} on average" in ended.out
    for name in values["files"]:
        assert (Path("ordered") / name).exists()
    with EmanStack(STEM.with_suffix(".hdf")) as stack:
        headers, pixels = stack.all_attributes(), stack.read()
        assert stack.pixel_size == PIXEL
    for number, header in zip(values["order"], headers, strict=True):
        assert header["members"].tolist() == list(range(number))
        assert (header["n_objects"], header["main"]) == (number, 2)
        assert header["source_n"] == number - 1
    assert "similarity" not in headers[0]
    np.testing.assert_array_equal(pixels, read_mrc(STEM.with_suffix(".mrcs")))
    assert read_mrc_header(STEM.with_suffix(".mrcs")).pixel_size == pytest.approx(PIXEL)
    flat = pixels.reshape(N, -1) - pixels.mean((1, 2))[:, None]
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    with_next = (flat[1:] * flat[:-1]).sum(1)
    assert with_next.min() > 0.9
    np.testing.assert_allclose([h["similarity"] for h in headers[1:]], with_next, atol=0.03)


def test_a_table_keeps_its_columns_and_can_be_used_again(folder, cryopick):
    assert cryopick(*ORDER, "averages.star", *HOW).code == 0

    (rows,) = read_star(STEM.with_suffix(".star")).values()
    places = rows["rlnClassNumber"].to_numpy() - 100
    assert (np.abs(np.diff(true_places(places))) == 1).all()
    np.testing.assert_allclose(rows["rlnPredictedClassScore"], (places - 1) / N)
    again = cryopick(*ORDER, STEM.with_suffix(".star"), "--out", "again", "--threads", 1, "--json")
    found = json.loads(again.out)["order"]
    assert found in (rows["rlnClassNumber"].tolist(), rows["rlnClassNumber"].tolist()[::-1])


def test_all_ways_to_give_the_circle_agree_and_threads_change_nothing(folder, cryopick):
    one = json.loads(cryopick(*ORDER, "averages.mrcs", *HOW, "--radius", 14, "--json").out)
    other = ("--out", "b", "--threads", 2, "--diameter", 140, "--json")
    two = json.loads(cryopick(*ORDER, "averages.mrcs", *other).out)

    for name in ("order", "similarity", "n_mirrored", "pixel_size", "n_empty"):
        assert one[name] == two[name], name
    for kind in (".hdf", ".png"):
        name = f"ordered_class_averages{kind}"
        assert (Path("b") / name).read_bytes() == (Path("ordered") / name).read_bytes()


def test_a_killed_job_goes_on_to_the_same_files(folder, cryopick, monkeypatch):
    assert cryopick(*ORDER, "averages.hdf", "--out", "whole", "--threads", 1).code == 0
    real = class2d_order.write_order

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(class2d_order, "write_order", killed)
    ended = cryopick(*ORDER, "averages.hdf", *HOW)
    assert ended.code == 130
    assert STEM.with_suffix(".hdf").exists()
    assert not STEM.with_suffix(".json").exists()
    monkeypatch.setattr(class2d_order, "write_order", real)

    assert cryopick(*ORDER, "averages.hdf", *HOW).code == 0
    assert not leftovers(Path("ordered"))
    for kind in (".hdf", ".png", ".json"):
        name = f"ordered_class_averages{kind}"
        whole = (Path("whole") / name).read_bytes().replace(b"whole", b"ordered")
        assert whole == (Path("ordered") / name).read_bytes()


def test_other_parameters_need_overwrite(folder, cryopick):
    assert cryopick(*ORDER, "averages.mrcs", *HOW).code == 0
    before = contents(Path("ordered"))

    refused(cryopick(*ORDER, "averages.mrcs", *HOW, "--no-mirrors"), "--overwrite")
    assert contents(Path("ordered")) == before
    ended = cryopick(*ORDER, "averages.mrcs", *HOW, "--no-mirrors", "--overwrite", "--json")
    assert json.loads(ended.out)["n_mirrored"] == 0


def test_what_cannot_be_ordered_is_refused_in_a_sentence(folder, cryopick):
    images, _ = shuffled()
    write_mrc(Path("wide.mrcs"), images[:, 2:-2], pixel_size=PIXEL)
    write_mrc(Path("unsaid.mrcs"), images, pixel_size=1.0)
    write_mrc(Path("empty.mrcs"), 0 * images, pixel_size=PIXEL)
    write_mrc(Path("map.mrc"), np.zeros((8, 8, 8), np.float32), pixel_size=PIXEL)
    images[2, 3, 4] = np.nan
    write_mrc(Path("nan.mrcs"), images, pixel_size=PIXEL)
    for words, sentence in (
        (("none.hdf",), "got no such file"),
        (("bdb:Class2D#averages",), "Convert it with e2proc2d.py"),
        (("wide.mrcs",), "must hold square averages; got 32 x 28 px"),
        (("empty.mrcs",), "must hold an average with density; got 12 empty ones"),
        (("nan.mrcs",), "must have finite pixel values; got NaN or infinity"),
        (("map.mrc",), "got a 3D map of 8 x 8 x 8 voxels"),
        (("unsaid.mrcs", "--diameter", 100), "Add --pixel-size, or give --radius"),
        (("unsaid.mrcs", "--shift-range", 10), "Add --pixel-size"),
        (("averages.mrcs", "--diameter", 999), "must be at most the box, 32 px"),
        (("averages.mrcs", "--radius", 9, "--diameter", 99), "Leave out --radius or --diameter"),
        (("averages.mrcs", "--device", "cpu,cpu"), "must be one device for this command"),
        (("averages.mrcs", "--memory", 1e-9), "GB for 12 averages"),
    ):
        refused(cryopick(*ORDER, *words, *HOW), sentence)
        assert not Path("ordered").exists()
    refused(
        cryopick(*ORDER, "averages.mrcs", "--out", "."), "another folder than that of the input"
    )
