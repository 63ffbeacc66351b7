"""Stacks of EMAN2 are read as its own library wrote them: layout, types, compression."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from cryopick.errors import FormatError
from cryopick.io.eman_hdf import read_eman_stack


def write(path, images, *, apix=None, prefix="EMAN.", bits=0):
    with h5py.File(path, "w", libver="earliest") as file:
        groups = file.create_group("MDF/images")
        groups.attrs["imageid_max"] = np.int32(len(images) - 1)
        for number, image in enumerate(images):
            group = groups.create_group(str(number))
            if apix is not None:
                group.attrs[f"{prefix}apix_x"] = np.float32(apix)
            if bits:
                low, high = image.min(), image.max()
                group.attrs["EMAN.stored_renderbits"] = np.int32(bits)
                group.attrs["EMAN.stored_rendermin"] = np.float32(low)
                group.attrs["EMAN.stored_rendermax"] = np.float32(high)
                scaled = np.round((image - low) / (high - low) * (2**bits - 1))
                kind = np.uint8 if bits <= 8 else np.uint16
                group.create_dataset("image", data=scaled.astype(kind), compression="gzip")
            else:
                group.create_dataset("image", data=image)
    return path


def images(count=3, size=16):
    return np.random.default_rng(0).normal(size=(count, size, size)).astype(np.float32)


@pytest.mark.parametrize("prefix", ["EMAN.", ""])
def test_plain_images_and_pixel_size_are_read(tmp_path, prefix):
    path = write(tmp_path / "a.hdf", images(), apix=1.5, prefix=prefix)

    found, pixel_size = read_eman_stack(path)

    np.testing.assert_array_equal(found, images())
    assert found.dtype == np.float32
    assert pixel_size == 1.5


@pytest.mark.parametrize("bits", [8, 12])
def test_compressed_images_have_their_grey_values(tmp_path, bits):
    found, pixel_size = read_eman_stack(write(tmp_path / "a.hdf", images(), bits=bits))

    step = np.ptp(images()) / (2**bits - 1)
    np.testing.assert_allclose(found, images(), atol=0.51 * step)
    assert pixel_size == 0.0


def test_an_image_of_one_plane_is_an_image(tmp_path):
    found, _ = read_eman_stack(write(tmp_path / "a.hdf", images()[:, None]))

    assert found.shape == (3, 16, 16)


@pytest.mark.parametrize("compression", ["gzip", "szip", "lzf"])
def test_16_bits_of_any_compression_are_read(tmp_path, compression):
    low, high = np.float32(-3.5), np.float32(8.25)
    stored = np.random.default_rng(1).integers(0, 2**16, (8, 16), dtype=np.uint16)
    path = write(tmp_path / "a.hdf", images(1))
    with h5py.File(path, "r+") as file:
        group = file["MDF/images/0"]
        del group["image"]
        group.create_dataset("image", data=stored, compression=compression, chunks=(8, 16))
        group.attrs["EMAN.stored_renderbits"] = np.int32(16)
        group.attrs["EMAN.stored_rendermin"], group.attrs["EMAN.stored_rendermax"] = low, high

    found, _ = read_eman_stack(path)

    expected = stored / 65535 * (float(high) - float(low)) + float(low)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["int16", "uint8", "float16", ">f4", "float64"])
def test_numbers_of_any_type_are_densities(tmp_path, kind):
    given = np.arange(256).reshape(1, 16, 16).astype(kind)

    found, _ = read_eman_stack(write(tmp_path / "a.hdf", given))

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0].ravel(), np.arange(256))


def test_images_that_never_came_are_not_counted_but_a_gap_is_refused(tmp_path):
    path = write(tmp_path / "a.hdf", images(4))
    with h5py.File(path, "r+") as file:
        file["MDF/images"].attrs["imageid_max"] = np.int32(10**8)
        file.create_group("MDF/images/4").attrs["EMAN.nx"] = np.int32(16)

    assert len(read_eman_stack(path)[0]) == 4

    with h5py.File(path, "r+") as file:
        del file["MDF/images/1"]
    with pytest.raises(FormatError, match="must hold images without a gap; got no image 1, but 3"):
        read_eman_stack(path)


def test_a_database_of_eman2_is_refused_with_what_converts_it():
    for name in ("bdb:Class2D#stack_ali2d", "EMAN2DB/stack.bdb"):
        with pytest.raises(FormatError, match=r"got a BDB.*Convert it with e2proc2d.py IN OUT.hdf"):
            read_eman_stack(Path(name))


def test_an_unknown_compression_is_named(tmp_path):
    path = write(tmp_path / "a.hdf", images(1))
    with h5py.File(path, "r+") as file:
        group = file["MDF/images/0"]
        del group["image"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((16, 16))
        layout.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((16, 16))
        h5py.h5d.create(group.id, b"image", h5py.h5t.IEEE_F32LE, space, layout)

    with pytest.raises(FormatError, match=r"h5py knows; got filter 32001\. Write it anew"):
        read_eman_stack(path)


def test_what_is_no_stack_is_refused(tmp_path):
    (tmp_path / "text.hdf").write_text("no")
    with h5py.File(tmp_path / "other.hdf", "w") as file:
        file.create_dataset("data", data=np.zeros(3))
    mixed = write(tmp_path / "mixed.hdf", [images()[0], images(size=8)[0]])
    whole = write(tmp_path / "cut.hdf", images(size=64))
    whole.write_bytes(whole.read_bytes()[:20000])

    for path, sentence in (
        (tmp_path / "none.hdf", "must be a readable file; got no such file"),
        (tmp_path / "text.hdf", "must be a whole HDF stack of EMAN2"),
        (tmp_path / "other.hdf", "no group /MDF/images"),
        (mixed, "must hold images of one size; got 8 x 8 px and 16 x 16 px"),
        (whole, "must be a whole HDF stack of EMAN2"),
    ):
        with pytest.raises(FormatError, match=sentence) as refused:
            read_eman_stack(path)
        assert "\n" not in str(refused.value)
