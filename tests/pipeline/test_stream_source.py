"""Images of a stream keep their place, and what does not fit the first of them is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopick.errors import DataError, TableError
from cryopick.io.mrc import write_mrc
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.pipeline.stream_source import (
    ImageScreen,
    StreamSource,
    StreamStandard,
    shrunk_size,
)
from cryopick.tables.model import Particles

SIZE = 16


def table(images, *, pixel_size=2.0, stack="s.mrcs", **columns):
    path = Path(stack)
    write_mrc(path, np.asarray(images, np.float32), pixel_size=pixel_size)
    box = np.shape(images)[-1]
    rows = {"image": str(path), "image_index": range(len(images)), "optics_group": 1, **columns}
    optics = {"optics_group": [1], "pixel_size": [pixel_size], "box_size": [box]}
    lens = {"voltage": [300.0], "spherical_aberration": [2.7], "amplitude_contrast": [0.1]}
    return Particles(rows=pd.DataFrame(rows), optics=pd.DataFrame({**optics, **lens}), source=path)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(count, seed=0, size=SIZE):
    return np.random.default_rng(seed).normal(size=(count, size, size))


def test_images_of_no_use_are_passed_over_and_the_others_keep_their_place():
    images = noise(8)
    images[2] = 1.0  # constant
    images[5] *= 1000.0
    screen = ImageScreen()
    screen.look(ParticleImages.open(table(images[:4])), enough=4)
    first = screen.is_useful.copy()

    opened = ParticleImages.open(table(images))
    screen.look(opened, enough=4)

    assert first.tolist() == [True, True, False, True]
    assert screen.is_useful.tolist() == [True, True, False, True, True, False, True, True]
    source = StreamSource(opened, screen, corrects_ctf=False, size=SIZE)
    assert source.rows.tolist() == [0, 1, 3, 4, 6, 7]
    read = source.read(np.array([2, 4])).numpy()
    np.testing.assert_array_equal(read, images[[3, 6]].astype(np.float32))


def test_without_any_image_of_use_there_is_no_stream():
    with pytest.raises(DataError, match="must be images that hold different numbers"):
        ImageScreen().look(ParticleImages.open(table(np.ones((3, SIZE, SIZE)))), enough=4)


def test_a_large_box_is_shrunk_to_the_resolution_limit():
    axis = np.arange(256) - 128
    wave = np.cos(2 * np.pi * axis / 32)[None, :] * np.ones((256, 1))  # 32 A at 1 A/px
    opened = ParticleImages.open(table([wave, 2 * wave], pixel_size=1.0))
    screen = ImageScreen()
    screen.look(opened, enough=2)
    size = shrunk_size(box_size=256, pixel_size=1.0, resolution=8.0)

    source = StreamSource(opened, screen, corrects_ctf=False, size=size)

    assert size < 80
    assert source.pixel_size == pytest.approx(256 / size)
    assert 2 * source.pixel_size < 8.0
    place = (np.arange(size) - size // 2) * source.pixel_size
    expected = np.cos(2 * np.pi * place / 32) * np.ones((size, 1))
    np.testing.assert_allclose(source.read(np.array([0]))[0].numpy(), expected, atol=1e-3)


def test_half_sets_follow_the_names_of_particles():
    images = noise(60)
    screen = ImageScreen()
    whole = table(images)
    opened = ParticleImages.open(whole)
    screen.look(opened, enough=60)
    halves = StreamSource(opened, screen, corrects_ctf=False, size=SIZE).half_numbers
    turned = Particles(rows=whole.rows.iloc[::-1], optics=whole.optics, source=whole.source)

    other = StreamSource(ParticleImages.open(turned), screen, corrects_ctf=False, size=SIZE)

    assert 15 < halves.sum() < 45
    np.testing.assert_array_equal(other.half_numbers[::-1], halves)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pixel_size": 2.1}, "must have the pixel size of the particles before, 2 A; got 2.1 A"),
        ({"size": 24}, "must have the box of the particles before, 16 px; got 24 px"),
    ],
)
def test_other_boxes_and_pixel_sizes_are_refused(given, sentence):
    standard = StreamStandard(needs_ctf=False)
    standard.check(table(noise(2)))
    size = given.pop("size", SIZE)

    with pytest.raises(TableError, match=sentence):
        standard.check(table(noise(2, size=size), stack="other.mrcs", **given))


def test_a_missing_ctf_is_refused():
    with pytest.raises(TableError, match="begin with --ctf none"):
        StreamStandard(needs_ctf=True).check(table(noise(2)))

    with_ctf = table(noise(2), defocus_u=9000.0, defocus_v=9000.0, defocus_angle=0.0)
    StreamStandard(needs_ctf=True).check(with_ctf)
