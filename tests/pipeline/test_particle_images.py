"""Particle images: what opening refuses, and that reading is exact in any order and batch."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import resource
import subprocess
import sys
import threading

import mrcfile
import numpy as np
import pytest
import torch
from particle_world import (
    PIXEL_SIZE,
    expected,
    noise,
    optics_table,
    overwrite_pixels,
    particles_of,
    with_ctf,
    write_stack,
)

from cryopick.errors import FormatError, ParameterError, TableError
from cryopick.io.image_stacks import ImageStacks
from cryopick.io.mrc import read_mrc
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.pipeline.prefetch import prefetched
from cryopick.tables.model import Particles
from cryopick.tables.relion import read_particles


@pytest.fixture
def three_stacks(tmp_path):
    """Stacks of 5, 1 and 7 images, and their table in an order of its own."""
    for place, count in enumerate((5, 1, 7)):
        write_stack(tmp_path / f"stacks/{place}.mrcs", noise(count, seed=place))
    particles = particles_of(tmp_path, {f"stacks/{p}.mrcs": n for p, n in enumerate((5, 1, 7))})
    order = np.random.default_rng(3).permutation(13)
    rows = particles.rows.iloc[order]  # row labels that are not row numbers
    return Particles(rows=rows, optics=particles.optics, source=particles.source)


def test_images_come_in_the_order_asked_for_from_many_stacks(three_stacks):
    truth = expected(three_stacks)

    with ParticleImages.open(three_stacks) as images:
        assert (len(images), images.box_size, images.pixel_size) == (13, 8, PIXEL_SIZE)
        for indices in (range(13), reversed(range(13)), [4, 4, 0, 12, 4], [7]):
            indices = np.array(list(indices))
            found = images.read(indices)
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found, truth[indices])
        assert images.read(np.zeros(0, np.int64)).shape == (0, 8, 8)
        assert images.bad == {}


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16])
@pytest.mark.parametrize("is_big_endian", [False, True])
def test_every_type_of_numbers_is_read(tmp_path, dtype, is_big_endian):
    pixels = np.abs(noise(6, dtype=dtype)) if dtype == np.uint16 else noise(6, dtype=dtype)
    path = write_stack(tmp_path / "a.mrcs", pixels)
    if is_big_endian:
        with mrcfile.open(path) as mrc:
            header = mrc.header.astype(mrc.header.dtype.newbyteorder(">"))
        header["machst"] = [0x11, 0x11, 0, 0]
        path.write_bytes(header.tobytes() + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())

    images = ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 6}))

    np.testing.assert_array_equal(images.read(np.array([5, 0, 1])), pixels[[5, 0, 1]])


def test_float16_keeps_three_digits_of_float32(tmp_path):
    exact = noise(4)
    write_stack(tmp_path / "a.mrcs", exact.astype(np.float16))

    found = ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 4})).read(np.arange(4))

    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-6)


def test_stacks_of_different_types_mix_in_a_batch(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(3, seed=1))
    write_stack(tmp_path / "b.mrcs", noise(3, seed=2, dtype=np.float16))
    write_stack(tmp_path / "c.mrcs", noise(3, seed=3, dtype=np.int16))
    particles = particles_of(tmp_path, {"a.mrcs": 3, "b.mrcs": 3, "c.mrcs": 3})
    order = np.array([8, 0, 4, 2, 7, 5, 1, 3, 6])

    found = ParticleImages.open(particles).read(order)

    np.testing.assert_array_equal(found, expected(particles)[order])


def test_images_beyond_one_chunk_of_reading_are_in_place(tmp_path):
    pixels = noise(200, 128)  # 13 MB, read some 4 MB at a time
    write_stack(tmp_path / "a.mrcs", pixels)
    images = ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 200}))
    order = np.random.default_rng(1).permutation(200)

    np.testing.assert_array_equal(images.read(np.arange(200)), pixels)
    np.testing.assert_array_equal(images.read(order), pixels[order])


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 4, 13, 100])
def test_batches_deliver_every_image_in_order_whatever_their_size(three_stacks, size, prefetch):
    truth = expected(three_stacks)
    order = np.random.default_rng(5).permutation(13)

    batches = list(ParticleImages.open(three_stacks).batches(order, size, prefetch=prefetch))

    assert [len(i) for i, _ in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([i for i, _ in batches]), order)
    np.testing.assert_array_equal(torch.cat([b for _, b in batches]), truth[order])


def test_the_next_batch_is_read_while_this_one_is_held():
    begun = [threading.Event() for _ in range(3)]
    made = prefetched(lambda n: begun[n].set() or n, [0, 1, 2], ahead=1)

    assert next(made) == 0
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert list(made) == [1, 2]


def test_dropping_the_batches_ends_their_thread(three_stacks):
    before = set(threading.enumerate())
    batches = ParticleImages.open(three_stacks).batches(np.arange(13), 2)
    next(batches)
    assert set(threading.enumerate()) - before

    batches.close()

    assert not set(threading.enumerate()) - before
    assert list(batches) == []


def test_an_error_of_the_reading_thread_comes_in_its_place(three_stacks, tmp_path):
    images = ParticleImages.open(three_stacks)
    by_stack = np.argsort(three_stacks.rows["image"].to_numpy(), kind="stable")
    path = tmp_path / "stacks/2.mrcs"
    os.truncate(path, 1024 + 8 * 8 * 4)

    batches = images.batches(by_stack, 3)

    assert len(next(batches)[1]) == 3
    assert len(next(batches)[1]) == 3
    with pytest.raises(FormatError, match=r"2\.mrcs must hold image .* Do not change stacks"):
        next(batches)


def test_rows_outside_the_table_and_empty_batches_are_refused(three_stacks):
    images = ParticleImages.open(three_stacks)

    with pytest.raises(ParameterError, match=r"must be from 0 to 12; got -1"):
        images.read(np.array([0, -1]))
    with pytest.raises(ParameterError, match=r"must be from 0 to 12; got 13"):
        images.batches(np.array([13]), 2)
    with pytest.raises(ParameterError, match="batch size must be above 0"):
        images.batches(np.array([1]), 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_images_of_no_use_come_as_zeros_and_are_told(tmp_path, dtype):
    pixels = noise(6, 16, dtype=dtype)
    path = write_stack(tmp_path / "a.mrcs", pixels)
    pixels[1, 3, 4] = np.nan
    pixels[2] = 0.5
    pixels[4, 0, 0], pixels[4, 1, 1] = np.inf, -np.inf
    pixels[5] = 0.25
    pixels[5, 7, 3] = 0.5  # one pixel makes an image
    overwrite_pixels(path, pixels)
    images = ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 6}))

    found = images.read(np.array([5, 4, 3, 2, 1, 0])).flip(0)

    good = [0, 3, 5]
    np.testing.assert_array_equal(found[good], pixels[good])
    assert not found[[1, 2, 4]].any()
    assert sorted(images.bad) == [1, 2, 4]
    assert re.fullmatch(
        r"image 2 of a\.mrcs must .*; got NaN or infinity in 1 of its .*", images.bad[1]
    )
    assert re.fullmatch(r"image 3 of a\.mrcs must .*; got 0\.5 in every pixel\..*", images.bad[2])
    assert "NaN or infinity in 2 of its pixels" in images.bad[4]


def test_large_numbers_whose_sum_overflows_are_not_bad(tmp_path):
    path = write_stack(tmp_path / "a.mrcs", noise(2))
    pixels = np.abs(noise(2)) * np.float32(1e37)
    pixels[1] *= 9
    with np.errstate(over="ignore"):
        assert np.isinf(pixels[1].sum())
    overwrite_pixels(path, pixels)
    images = ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 2}))

    np.testing.assert_array_equal(images.read(np.arange(2)), pixels)
    assert images.bad == {}


def test_a_missing_stack_is_refused_and_others_are_counted(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(2))
    one = particles_of(tmp_path, {"a.mrcs": 2, "gone.mrcs": 1})
    more = particles_of(tmp_path, {"a.mrcs": 2, "gone.mrcs": 1, "too.mrcs": 4})

    with pytest.raises(FormatError, match=r"^gone\.mrcs, which .*particles\.star lists, must"):
        ParticleImages.open(one)
    with pytest.raises(FormatError, match="1 more of 3 stacks cannot be read either"):
        ParticleImages.open(more)


def test_a_stack_still_being_copied_is_refused(tmp_path):
    path = write_stack(tmp_path / "a.mrcs", noise(4))
    os.truncate(path, path.stat().st_size - 1)

    with pytest.raises(FormatError, match="may still be being copied"):
        ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 2}))


@pytest.mark.parametrize(("index", "told"), [(3, "4"), (-1, "0")])
def test_an_index_outside_its_stack_is_refused(tmp_path, index, told):
    write_stack(tmp_path / "a.mrcs", noise(3))
    particles = particles_of(tmp_path, {"a.mrcs": 3})
    particles.rows.loc[1, "image_index"] = index

    with pytest.raises(FormatError, match=rf"a\.mrcs must hold image {told}, for row 2 .* 3 im"):
        ParticleImages.open(particles)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 8, 8), (2, 10, 10)], r"b\.mrcs must hold images of 8 x 8 px.*got 10 x 10 px"),
        ([(2, 8, 6)], r"a\.mrcs must hold square images; got 6 x 8 px"),
        ([(2, 7, 7)], r"even number of pixels; got 7 x 7 px"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path, shapes, message):
    names = ["a.mrcs", "b.mrcs"][: len(shapes)]
    for name, shape in zip(names, shapes, strict=True):
        write_stack(tmp_path / name, np.random.default_rng(0).normal(size=shape).astype("f4"))

    with pytest.raises(FormatError, match=message):
        ParticleImages.open(particles_of(tmp_path, dict.fromkeys(names, 2)))


def test_a_table_of_another_box_size_is_refused(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(2))
    unused = optics_table(2, box_size=[8, 64])  # a group without particles may say what it likes

    ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 2}, optics=unused))
    with pytest.raises(TableError, match="box size of its stacks, 8 px; got 10 px"):
        ParticleImages.open(particles_of(tmp_path, {"a.mrcs": 2}, optics=optics_table(box_size=10)))


def test_tables_without_usable_rows_are_refused(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(2))
    particles = particles_of(tmp_path, {"a.mrcs": 2})
    rows, optics = particles.rows, particles.optics

    with pytest.raises(TableError, match="must hold particles; got none"):
        ParticleImages.open(Particles(rows=rows[:0], optics=optics))
    with pytest.raises(TableError, match="name the image of every particle; got 1 rows"):
        ParticleImages.open(Particles(rows=rows.assign(image=["a.mrcs", None]), optics=optics))
    with pytest.raises(TableError, match="must hold 2D images; got subtomograms"):
        ParticleImages.open(
            particles_of(tmp_path, {"a.mrcs": 2}, optics=optics_table(image_dimensions=3))
        )


def test_a_ctf_is_required_only_when_asked_for(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(2))
    without = particles_of(tmp_path, {"a.mrcs": 2})

    assert not ParticleImages.open(without).optics.has_ctf
    with pytest.raises(TableError, match="must have a column rlnDefocusU for defocus_u"):
        ParticleImages.open(without, require_ctf=True)
    complete = particles_of(tmp_path, {"a.mrcs": 2}, **with_ctf(2))
    assert ParticleImages.open(complete, require_ctf=True).optics.has_ctf


def test_compressed_stacks_are_refused_at_once(tmp_path):
    path = write_stack(tmp_path / "a.mrcs", noise(2))
    (tmp_path / "a.mrcs.gz").write_bytes(gzip.compress(path.read_bytes()))

    with pytest.raises(FormatError, match=r"a\.mrcs\.gz must not be compressed.* --scratch"):
        ParticleImages.open(particles_of(tmp_path, {"a.mrcs.gz": 2}))


def test_few_files_are_open_however_many_stacks_there_are(tmp_path):
    paths = [write_stack(tmp_path / f"{n}.mrcs", noise(2, seed=n)) for n in range(30)]
    stacks = ImageStacks.open(paths, max_open=4)
    places = np.tile(np.arange(30), 3), np.repeat([0, 1, 0], 30)
    found = np.empty((90, 8, 8), np.float32)

    for positions, images in stacks.chunks(*places):
        found[positions] = images
        assert stacks.n_open <= 4

    truth = [noise(2, seed=n)[i] for n, i in zip(*places, strict=True)]
    np.testing.assert_array_equal(found, truth)
    stacks.close()
    assert stacks.n_open == 0


def test_several_threads_read_at_once(three_stacks):
    truth = expected(three_stacks)
    images = ParticleImages.open(three_stacks)
    orders = [np.random.default_rng(n).permutation(13) for n in range(4)]
    wrong = []

    def read(order):
        for _ in range(50):
            if not np.array_equal(images.read(order), truth[order]):
                wrong.append(order)

    threads = [threading.Thread(target=read, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


def test_another_process_can_be_given_the_images(three_stacks):
    images = ParticleImages.open(three_stacks)
    images.read(np.arange(3))  # with files open

    copy = pickle.loads(pickle.dumps(images))

    np.testing.assert_array_equal(copy.read(np.arange(13)), expected(three_stacks))


def test_micrographs_are_numbered_in_the_order_of_the_table(three_stacks):
    names = ["b", "a", "b", "c"] * 3 + ["a"]
    rows = three_stacks.rows.assign(micrograph=names)
    named = Particles(rows=rows, optics=three_stacks.optics, source=three_stacks.source)

    groups = ParticleImages.open(named).micrograph_groups()

    assert groups.names == ("b", "a", "c")
    assert [groups.names[n - 1] for n in groups.numbers] == names
    by_stack = ParticleImages.open(three_stacks).micrograph_groups()
    assert [by_stack.names[n - 1] for n in by_stack.numbers] == list(three_stacks.rows["image"])


def test_reading_a_large_stack_takes_the_memory_of_some_batches(tmp_path):
    count, size = 800, 256  # 210 MB of holes: no disk, and every image is constant
    header = write_stack(tmp_path / "a.mrcs", noise(1, size)).read_bytes()[:1024]
    path = tmp_path / "large.mrcs"
    path.write_bytes(header[:8] + np.int32(count).tobytes() + header[12:])
    os.truncate(path, 1024 + count * size * size * 4)
    script = (
        "import resource, sys, pathlib, numpy as np\n"
        "from particle_world import particles_of\n"
        "from cryopick.pipeline.particle_images import ParticleImages\n"
        "table = particles_of(pathlib.Path(sys.argv[1]), {'large.mrcs': 800})\n"
        "images = ParticleImages.open(table)\n"
        "images.read(np.arange(2))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "n = sum(len(b) for _, b in images.batches(np.arange(800), 130))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(n, len(images.bad), (after - before) / 1024)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}

    output = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip

    assert output[:2] == ["800", "800"]
    assert float(output[2]) < 120  # MiB; a batch has 33, and one more is read in advance


def test_a_thousand_stacks_are_read_where_few_files_may_be_open(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(2))
    for n in range(1000):
        os.link(tmp_path / "a.mrcs", tmp_path / f"{n}.mrcs")
    particles = particles_of(tmp_path, {f"{n}.mrcs": 2 for n in range(1000)})
    order = np.random.default_rng(0).permutation(2000)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        found = ParticleImages.open(particles).read(order)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    np.testing.assert_array_equal(found, noise(2)[order % 2])


@pytest.mark.data
def test_a_stack_as_users_have_it_is_read(test_data):
    folder = test_data / "stacks/groel_es"
    order = np.array([2, 0, 999, 500])

    with ParticleImages.open(read_particles(folder / "particles.star"), require_ctf=True) as images:
        found = images.read(order)

    np.testing.assert_array_equal(found, read_mrc(folder / "particles.mrcs")[order])
    assert images.optics.ctf_of(order, (64, 64)).shape == (4, 64, 33)
    assert images.bad == {}
