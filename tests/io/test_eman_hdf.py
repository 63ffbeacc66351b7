"""Stacks of EMAN2 are read as its own library wrote them: layout, types, compression."""

from __future__ import annotations

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
