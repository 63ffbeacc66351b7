"""MRC files: mrcfile is the oracle for bytes; broken files are refused in one sentence."""

from __future__ import annotations

import bz2
import gzip
import os
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryopick.errors import FormatError, OutputError, ShapeError
from cryopick.io.mrc import (
    MrcStackWriter,
    read_mrc,
    read_mrc_header,
    read_mrc_images,
    write_mrc,
)

MODES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}


def pixels_of(dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(1)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return rng.normal(size=shape).astype(dtype)


def write_with_mrcfile(path: Path, pixels: np.ndarray, pixel_size: float = 1.25) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(pixels)
        if pixels.ndim == 3:
            mrc.set_image_stack()
        mrc.voxel_size = pixel_size
    return path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
def test_every_mode_is_read_as_mrcfile_wrote_it(tmp_path, mode, shape):
    pixels = pixels_of(MODES[mode], shape)
    path = write_with_mrcfile(tmp_path / "a.mrc", pixels)

    found = read_mrc(path)

    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)
    header = read_mrc_header(path)
    assert header.shape == ((1, *shape) if len(shape) == 2 else shape)
    assert header.pixel_size == pytest.approx(1.25)
    assert not header.is_volume


@pytest.mark.parametrize("mode", MODES)
def test_big_endian_files_are_read_as_mrcfile_reads_them(tmp_path, mode):
    pixels = pixels_of(MODES[mode], (4, 6))
    path = write_with_mrcfile(tmp_path / "little.mrc", pixels)
    with mrcfile.open(path) as mrc:
        header = mrc.header.astype(mrc.header.dtype.newbyteorder(">"))
    header["machst"] = [0x11, 0x11, 0, 0]
    swapped = tmp_path / "big.mrc"
    swapped.write_bytes(header.tobytes() + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
    np.testing.assert_array_equal(mrcfile.read(swapped), pixels)  # the file is what it should be

    found = read_mrc(swapped)

    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)
    assert read_mrc_header(swapped).pixel_size == pytest.approx(1.25)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_files_are_read(tmp_path, suffix, pack):
    pixels = pixels_of(np.float32, (3, 5, 4))
    plain = write_with_mrcfile(tmp_path / "a.mrcs", pixels)
    packed = tmp_path / f"a.mrcs{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))

    np.testing.assert_array_equal(read_mrc(packed), pixels)
    np.testing.assert_array_equal(read_mrc_images(packed, np.array([2, 0])), pixels[[2, 0]])
    assert read_mrc_header(packed).shape == (3, 5, 4)


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_a_file_cut_at_any_tenth_is_refused(tmp_path, tenth, suffix):
    raw = write_with_mrcfile(tmp_path / "a.mrc", pixels_of(np.float32, (40, 50))).read_bytes()
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[suffix]
    whole = pack(raw)
    cut = tmp_path / f"cut.mrc{suffix}"
    cut.write_bytes(whole[: len(whole) * tenth // 10])

    with pytest.raises(FormatError, match=r"cut\.mrc"):
        read_mrc(cut)


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 1025, 9023])
def test_a_cut_is_seen_in_the_header_alone(tmp_path, length):
    raw = write_with_mrcfile(tmp_path / "a.mrc", pixels_of(np.float32, (40, 50))).read_bytes()
    cut = tmp_path / "cut.mrc"
    cut.write_bytes(raw[:length])

    with pytest.raises(FormatError, match="may still be being copied"):
        read_mrc_header(cut)


def test_an_extended_header_is_skipped(tmp_path):
    pixels = pixels_of(np.int16, (6, 5))
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, pixels) as mrc:
        mrc.set_extended_header(np.arange(64, dtype=np.int32))

    np.testing.assert_array_equal(read_mrc(path), pixels)
    assert read_mrc_header(path).data_offset == 1024 + 256


@pytest.mark.parametrize("mode", [3, 4, 101])
def test_an_unknown_mode_is_refused_by_its_number(tmp_path, mode):
    path = write_with_mrcfile(tmp_path / "a.mrc", pixels_of(np.float32, (4, 4)))
    raw = bytearray(path.read_bytes())
    raw[12:16] = mode.to_bytes(4, "little")
    path.write_bytes(raw)

    with pytest.raises(FormatError, match=f"got mode {mode}"):
        read_mrc(path)


def test_absurd_sizes_are_refused_as_a_file_too_short(tmp_path):
    path = write_with_mrcfile(tmp_path / "a.mrc", pixels_of(np.float32, (4, 4)))
    raw = bytearray(path.read_bytes())
    raw[0:12] = b"\x00\x00\x00\x40" * 3  # 2^90 pixels, which is 0 in 64 bits
    path.write_bytes(raw)

    with pytest.raises(FormatError, match="data bytes; got 64"):
        read_mrc(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.mrc"
    path.write_text("hello world\n" * 200)

    with pytest.raises(FormatError, match=r"text.mrc must be an MRC file"):
        read_mrc(path)
    with pytest.raises(FormatError, match="no such file"):
        read_mrc(tmp_path / "none.mrc")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("name", "shape"), [("a.mrc", (5, 8)), ("a.mrcs", (3, 4, 6))])
def test_what_is_written_mrcfile_validates_and_reads(tmp_path, name, shape, dtype):
    pixels = pixels_of(dtype, shape)
    path = tmp_path / name

    write_mrc(path, pixels, pixel_size=3.54)

    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (a device, not a path)
        assert mrcfile.validate(path, print_file=nowhere)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, pixels)
        assert float(mrc.voxel_size.x) == pytest.approx(3.54)
        assert mrc.is_image_stack() == (name == "a.mrcs")
    np.testing.assert_array_equal(read_mrc(path), pixels)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_other_types_become_float32_and_the_argument_stays(tmp_path):
    pixels = np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4))
    before = pixels.copy()

    write_mrc(tmp_path / "a.mrc", pixels, pixel_size=1.0)

    found = read_mrc(tmp_path / "a.mrc")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, before)
    np.testing.assert_array_equal(pixels, before)


def test_images_with_nan_can_be_written(tmp_path):
    pixels = np.full((4, 4), np.nan, np.float32)

    write_mrc(tmp_path / "a.mrc", pixels, pixel_size=1.0)

    np.testing.assert_array_equal(read_mrc(tmp_path / "a.mrc"), pixels)


def test_one_axis_is_refused(tmp_path):
    with pytest.raises(ShapeError, match="2 or 3 axes"):
        write_mrc(tmp_path / "a.mrc", np.zeros(4, np.float32), pixel_size=1.0)


def test_some_images_of_a_stack_are_read_in_the_order_asked_for(tmp_path):
    pixels = pixels_of(np.float32, (5, 4, 6))
    path = write_with_mrcfile(tmp_path / "a.mrcs", pixels)

    np.testing.assert_array_equal(read_mrc_images(path, np.array([4, 0, 4])), pixels[[4, 0, 4]])
    assert read_mrc_images(path, np.array([], np.int64)).shape == (0, 4, 6)
    for wrong in (5, -1):
        with pytest.raises(FormatError, match="got 5 images"):
            read_mrc_images(path, np.array([0, wrong]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_stack_in_batches_is_the_stack_at_once(tmp_path, dtype):
    pixels = pixels_of(np.float32, (7, 6, 6))
    path = tmp_path / "out" / "a.mrcs"

    with MrcStackWriter(path, box_size=6, pixel_size=2.5, dtype=dtype) as stack:
        for batch in (pixels[:2], pixels[2:2], pixels[2:]):
            stack.append(batch)

    expected = pixels.astype(dtype)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (a device, not a path)
        assert mrcfile.validate(path, print_file=nowhere)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, expected)
        assert mrc.is_image_stack()
        assert float(mrc.voxel_size.x) == pytest.approx(2.5)
        wide = expected.astype(np.float64)
        assert float(mrc.header.dmean) == pytest.approx(wide.mean(), abs=1e-6)
        assert float(mrc.header.rms) == pytest.approx(wide.std(), rel=1e-5)
        assert float(mrc.header.dmax) == pytest.approx(wide.max())


def test_a_stack_that_fails_halfway_leaves_nothing(tmp_path):
    path = tmp_path / "a.mrcs"

    def fail() -> None:
        with MrcStackWriter(path, box_size=4, pixel_size=1.0) as stack:
            stack.append(np.zeros((1, 4, 4), np.float32))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_empty_stacks_and_wrong_boxes_are_refused(tmp_path):
    path = tmp_path / "a.mrcs"

    with (
        pytest.raises(OutputError, match="must hold an image"),
        MrcStackWriter(path, box_size=4, pixel_size=1.0),
    ):
        pass
    with (
        pytest.raises(ShapeError, match=r"\(n, 4, 4\)"),
        MrcStackWriter(path, box_size=4, pixel_size=1.0) as stack,
    ):
        stack.append(np.zeros((1, 4, 5), np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="no relion on PATH")
def test_relion_reads_our_stacks(tmp_path):
    pixels = pixels_of(np.float32, (3, 16, 16))
    with MrcStackWriter(tmp_path / "a.mrcs", box_size=16, pixel_size=2.5) as stack:
        stack.append(pixels)

    command = ["relion_image_handler", "--i", "a.mrcs", "--o", "b.mrcs", "--multiply_constant", "2"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    np.testing.assert_allclose(read_mrc(tmp_path / "b.mrcs"), 2 * pixels, rtol=1e-6)
    assert read_mrc_header(tmp_path / "b.mrcs").pixel_size == pytest.approx(2.5)
