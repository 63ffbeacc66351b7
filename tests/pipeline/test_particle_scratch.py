"""Copies of particle images on a fast disk: exact, whole or not there, used again if they fit."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil

import numpy as np
import pytest
from particle_world import expected, noise, overwrite_pixels, particles_of, write_stack

from cryopick.errors import FormatError, OutputError
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.tables.model import Particles


def copies(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def shuffled(particles, seed):
    order = np.random.default_rng(seed).permutation(len(particles))
    return Particles(
        rows=particles.rows.iloc[order], optics=particles.optics, source=particles.source
    )


@pytest.fixture
def particles(tmp_path):
    """Twelve images of two stacks, shuffled."""
    write_stack(tmp_path / "a.mrcs", noise(5, seed=1))
    write_stack(tmp_path / "b.mrcs", noise(7, seed=2))
    return shuffled(particles_of(tmp_path, {"a.mrcs": 5, "b.mrcs": 7}), 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.int16])
def test_the_copy_is_exact_in_table_order_and_keeps_its_type(tmp_path, dtype):
    for name in ("a", "b"):
        write_stack(tmp_path / f"{name}.mrcs", noise(5, seed=ord(name), dtype=dtype))
    particles = shuffled(particles_of(tmp_path, {"a.mrcs": 5, "b.mrcs": 5}), 1)
    truth = expected(particles)

    images = ParticleImages.open(particles).to_scratch(tmp_path / "scratch")

    np.testing.assert_array_equal(images.read(np.arange(10)), truth)
    (path,) = copies(tmp_path / "scratch")
    stored = np.load(path)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, truth)


def test_stacks_of_different_types_become_float32(tmp_path):
    write_stack(tmp_path / "a.mrcs", noise(3, dtype=np.float16))
    write_stack(tmp_path / "b.mrcs", noise(3, dtype=np.int16))
    particles = shuffled(particles_of(tmp_path, {"a.mrcs": 3, "b.mrcs": 3}), 2)

    images = ParticleImages.open(particles, scratch=tmp_path / "scratch")

    np.testing.assert_array_equal(images.read(np.arange(6)), expected(particles))


def test_the_copy_is_used_again_without_the_stacks_being_read(particles, tmp_path):
    truth = expected(particles)
    ParticleImages.open(particles, scratch=tmp_path / "scratch")
    (path,) = copies(tmp_path / "scratch")
    made = path.stat().st_mtime_ns
    calls = []

    again = ParticleImages.open(
        particles, scratch=tmp_path / "scratch", progress=lambda *done: calls.append(done)
    )

    assert calls == []
    assert path.stat().st_mtime_ns == made
    np.testing.assert_array_equal(again.read(np.arange(12)), truth)


def test_changed_stacks_and_other_orders_are_copied_anew(particles, tmp_path):
    scratch = tmp_path / "scratch"
    ParticleImages.open(particles, scratch=scratch)

    other = shuffled(particles, 9)
    reordered = ParticleImages.open(other, scratch=scratch)

    np.testing.assert_array_equal(reordered.read(np.arange(12)), expected(other))
    assert len(copies(scratch)) == 2
    path = tmp_path / "a.mrcs"
    overwrite_pixels(path, noise(5, seed=8))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # a clock may be coarse
    changed = ParticleImages.open(particles, scratch=scratch)
    np.testing.assert_array_equal(changed.read(np.arange(12)), expected(particles))
    assert len(copies(scratch)) == 3


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_stacks_are_read_through_the_copy(tmp_path, suffix, pack):
    plain = write_stack(tmp_path / "a.mrcs", noise(5, seed=1))
    (tmp_path / f"b.mrcs{suffix}").write_bytes(
        pack(write_stack(tmp_path / "b.mrcs", noise(7, seed=2)).read_bytes())
    )
    particles = shuffled(particles_of(tmp_path, {plain.name: 5, f"b.mrcs{suffix}": 7}), 3)
    truth = expected(shuffled(particles_of(tmp_path, {plain.name: 5, "b.mrcs": 7}), 3))

    images = ParticleImages.open(particles, scratch=tmp_path / "scratch")

    np.testing.assert_array_equal(images.read(np.arange(12)), truth)
    assert len(copies(tmp_path / "scratch")) == 1


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_a_broken_compressed_stack_leaves_no_copy(tmp_path, suffix, damage):
    whole = write_stack(tmp_path / "a.mrcs", noise(40, 32)).read_bytes()
    raw = bytearray({".gz": gzip.compress, ".bz2": bz2.compress}[suffix](whole))
    half = len(raw) // 2
    raw = raw[:half] if damage == "cut" else raw[:half] + bytes(1000) + raw[half + 1000 :]
    (tmp_path / f"b.mrcs{suffix}").write_bytes(raw)
    particles = particles_of(tmp_path, {f"b.mrcs{suffix}": 40})

    with pytest.raises(FormatError, match=rf"b\.mrcs\{suffix} must be a "):
        ParticleImages.open(particles, scratch=tmp_path / "scratch")

    assert copies(tmp_path / "scratch") == []


def test_a_compressed_stack_of_fewer_images_than_it_says_is_refused(tmp_path):
    whole = write_stack(tmp_path / "a.mrcs", noise(4)).read_bytes()
    (tmp_path / "b.mrcs.gz").write_bytes(gzip.compress(whole[:-100]))

    with pytest.raises(FormatError, match=r"b\.mrcs\.gz must hold 2,048 bytes when unpacked"):
        ParticleImages.open(particles_of(tmp_path, {"b.mrcs.gz": 2}), scratch=tmp_path / "scratch")

    assert copies(tmp_path / "scratch") == []


def test_a_copy_cut_short_leaves_nothing_and_the_next_is_whole(particles, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ParticleImages.open(particles, scratch=tmp_path / "scratch", progress=stop)

    assert copies(tmp_path / "scratch") == []
    images = ParticleImages.open(particles, scratch=tmp_path / "scratch")
    np.testing.assert_array_equal(images.read(np.arange(12)), expected(particles))


def test_progress_ends_with_all_images(particles, tmp_path):
    calls = []

    ParticleImages.open(particles, scratch=tmp_path / "s", progress=lambda *c: calls.append(c))

    assert calls[-1] == (12, 12)
    assert calls == sorted(calls)


def test_bad_images_are_named_as_in_the_table(tmp_path):
    pixels = noise(3)
    path = write_stack(tmp_path / "a.mrcs", pixels)
    pixels[1, 0, 0] = np.nan
    overwrite_pixels(path, pixels)
    particles = shuffled(particles_of(tmp_path, {"a.mrcs": 3}), 5)
    row = int(np.flatnonzero(particles.rows["image_index"] == 1)[0])

    images = ParticleImages.open(particles, scratch=tmp_path / "scratch")
    images.read(np.arange(3))

    assert list(images.bad) == [row]
    assert images.bad[row].startswith("image 2 of a.mrcs must")


def test_the_copy_is_removed_on_request_and_originals_never(particles, tmp_path):
    originals = ParticleImages.open(particles)
    images = originals.to_scratch(tmp_path / "scratch")

    originals.remove_scratch()
    assert len(copies(tmp_path / "scratch")) == 1
    images.remove_scratch()

    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "a.mrcs").exists()
    np.testing.assert_array_equal(originals.read(np.arange(12)), expected(particles))


def test_a_run_that_has_begun_to_read_a_copy_keeps_it_when_another_removes_it(particles, tmp_path):
    mine = ParticleImages.open(particles, scratch=tmp_path / "scratch")
    theirs = ParticleImages.open(particles, scratch=tmp_path / "scratch")
    theirs.read(np.arange(1))

    mine.remove_scratch()

    np.testing.assert_array_equal(theirs.read(np.arange(12)), expected(particles))


def test_a_disk_without_room_is_told_before_copying(tmp_path):
    header = write_stack(tmp_path / "a.mrcs", noise(1)).read_bytes()[:1024]
    sides = np.array([4096, 4096], np.int32).tobytes()
    (tmp_path / "a.mrcs").write_bytes(sides + header[8:])
    os.truncate(tmp_path / "a.mrcs", 1024 + 4096 * 4096 * 4)  # a hole takes no room
    one = particles_of(tmp_path, {"a.mrcs": 1})
    count = shutil.disk_usage(tmp_path).free // (4096 * 4096 * 4) + 100
    rows = one.rows.loc[np.zeros(count, np.int64)]
    many = Particles(rows=rows, optics=one.optics, source=one.source)

    with pytest.raises(OutputError, match=r"GB free for the copy of the images.* --scratch"):
        ParticleImages.open(many, scratch=tmp_path / "scratch")

    assert copies(tmp_path / "scratch") == []
