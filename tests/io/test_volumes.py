"""Volumes read box by box: the same voxels whatever the format, sizes as the headers say."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr

from cryopick.errors import FormatError, OutputError, ParameterError, ShapeError
from cryopick.io.volumes import VolumeWriter, open_volume

SHAPE = (9, 12, 70)


@pytest.fixture
def voxels():
    return np.random.default_rng(3).integers(0, 200, SHAPE).astype(np.float32)


def write_mrcfile(path, voxels, *, size=10.0, **header):
    """Write with mrcfile, a program of others."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(voxels)
        mrc.voxel_size = size
        for name, value in header.items():
            mrc.header[name] = value
    return path


def write(path, voxels, dtype=np.float32, *, cuts=(4, 9)):
    """Write in boxes: whole sections, then parts of rows."""
    with VolumeWriter(path, voxels.shape, dtype, 10.5) as writer:
        writer.write((0, 0, 0), voxels[: cuts[0]])
        writer.write((cuts[0], 0, 0), voxels[cuts[0] :, : cuts[1]])
        writer.write((cuts[0], cuts[1], 0), voxels[cuts[0] :, cuts[1] :, :5])
        writer.write((cuts[0], cuts[1], 5), voxels[cuts[0] :, cuts[1] :, 5:])
    return path


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_a_box_of_every_mode_is_what_mrcfile_wrote(tmp_path, voxels, dtype):
    values = (voxels - (100 if dtype == "int8" else 0)).astype(dtype)

    volume = open_volume(write_mrcfile(tmp_path / "a.mrc", values))

    assert volume.shape == SHAPE
    assert volume.voxel_size == pytest.approx(10.0)
    box = volume.read((2, 3, 4), (5, 12, 40))
    assert box.dtype == np.float32
    np.testing.assert_array_equal(box, values[2:5, 3:12, 4:40].astype(np.float32))


def test_bytes_are_unsigned_where_imod_says_so(tmp_path, voxels):
    path = write_mrcfile(tmp_path / "a.mrc", voxels.astype(np.uint8).view(np.int8))
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(raw)

    np.testing.assert_array_equal(open_volume(path).read((0, 0, 0), SHAPE), voxels)


def test_axes_are_those_that_the_header_names(tmp_path, voxels):
    turned = np.ascontiguousarray(voxels.transpose(1, 0, 2))  # sections are rows, as in raw .rec
    path = write_mrcfile(tmp_path / "a.rec", turned, mapr=3, maps=2, my=12, mz=9)
    with mrcfile.mmap(path, mode="r+") as mrc:
        mrc.header.cella.y, mrc.header.cella.z = 120, 90

    volume = open_volume(path)

    assert volume.shape == SHAPE
    np.testing.assert_array_equal(volume.read((0, 0, 0), SHAPE), voxels)


@pytest.mark.parametrize("name", ["a.mrc", "a.zarr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_what_was_written_in_boxes_is_read_whole(tmp_path, voxels, name, dtype):
    volume = open_volume(write(tmp_path / name, voxels, dtype))

    assert volume.voxel_size == pytest.approx(10.5)
    np.testing.assert_array_equal(volume.read((0, 0, 0), SHAPE), voxels)


def test_other_programs_read_what_was_written(tmp_path, voxels):
    write(tmp_path / "a.mrc", voxels)
    write(tmp_path / "a.zarr", voxels)

    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, voxels)
        assert mrc.is_volume()
        assert float(mrc.voxel_size.z) == pytest.approx(10.5)
        assert float(mrc.header.dmean) == pytest.approx(voxels.mean())
        assert float(mrc.header.rms) == pytest.approx(voxels.std(), rel=1e-5)
    assert mrcfile.validate(tmp_path / "a.mrc")
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr", mode="r")["0"][:], voxels)
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())["multiscales"][0]
    assert [a["unit"] for a in attributes["axes"]] == ["angstrom"] * 3
    assert attributes["datasets"][0]["coordinateTransformations"][0]["scale"] == [10.5] * 3


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_of_ome_zarr_has_its_own_size(tmp_path, voxels, version):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    for level, step in (("fine", 1), ("coarse", 2)):
        group.create_array(level, data=voxels[None, ::step, ::step, ::step])
    axes = [{"name": "t"}] + [{"name": n, "unit": "nanometer"} for n in "zyx"]
    levels = [
        {"path": p, "coordinateTransformations": [{"type": "scale", "scale": [1, s, s, s]}]}
        for p, s in (("fine", 0.7), ("coarse", 1.4))
    ]
    images = [{"axes": axes, "datasets": levels}]
    group.attrs.update({"ome": {"multiscales": images}} if version == "0.5" else {})
    group.attrs.update({"multiscales": images} if version == "0.4" else {})

    fine, coarse = (open_volume(tmp_path / "a.zarr" / p) for p in ("", "coarse"))

    assert (fine.voxel_size, coarse.voxel_size) == (pytest.approx(7), pytest.approx(14))
    np.testing.assert_array_equal(coarse.read((0, 0, 1), (5, 6, 35)), voxels[::2, ::2, 2::2])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_stack_is_read_with_the_size_that_is_given(tmp_path, voxels, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels.astype(np.uint8), compression=compression)

    volume = open_volume(path, voxel_size=10.52)

    assert volume.voxel_size == 10.52
    np.testing.assert_array_equal(volume.read((1, 2, 3), (4, 9, 11)), voxels[1:4, 2:9, 3:11])
    with pytest.raises(FormatError, match=r"say the size of its voxels; got none.*--voxel-size"):
        open_volume(path)


def test_bad_headers_are_one_sentence(tmp_path, voxels):
    path = write_mrcfile(tmp_path / "a.mrc", voxels, size=0.0)
    with pytest.raises(FormatError, match="say the size of its voxels; got 0 x 0 x 0 A"):
        open_volume(path)
    assert open_volume(path, voxel_size=4).voxel_size == 4
    with pytest.raises(ParameterError, match="voxel_size must be above 0 A; got -1 A"):
        open_volume(path, voxel_size=-1)
    write_mrcfile(path, voxels, size=(10, 10, 12))
    with pytest.raises(FormatError, match="have cubic voxels; got 10 x 10 x 12 A"):
        open_volume(path)
    write_mrcfile(path, voxels, mapc=2, mapr=2)
    with pytest.raises(FormatError, match="name each axis once"):
        open_volume(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="data bytes"):
        open_volume(path)
    with pytest.raises(FormatError, match="no such file"):
        open_volume(tmp_path / "none.mrc")
    np.save(tmp_path / "a.npy", voxels)
    with pytest.raises(FormatError, match=r"got suffix \.npy"):
        open_volume(tmp_path / "a.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="Zarr"):
        open_volume(tmp_path / "empty")


def test_a_box_outside_the_volume_is_refused(tmp_path, voxels):
    volume = open_volume(write(tmp_path / "a.mrc", voxels))

    for lower, upper in (((-1, 0, 0), (2, 2, 2)), ((0, 0, 0), (9, 12, 71)), ((3, 0, 0), (2, 1, 1))):
        with pytest.raises(ShapeError, match=r"lie within a\.mrc"):
            volume.read(lower, upper)


@pytest.mark.parametrize("name", ["a.mrc", "a.zarr"])
def test_a_volume_that_is_not_finished_does_not_appear_and_leaves_the_old_one(
    tmp_path, voxels, name
):
    path = write(tmp_path / name, voxels)

    def stop_halfway():
        with VolumeWriter(path, SHAPE, np.float32, 1.0) as writer:
            writer.write((0, 0, 0), voxels[:2] + 1)
            raise KeyError

    with pytest.raises(KeyError):
        stop_halfway()

    assert [p.name for p in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(open_volume(path).read((0, 0, 0), SHAPE), voxels)


def test_a_disk_without_room_refuses_before_anything_is_written(tmp_path):
    with (
        pytest.raises(OutputError, match=r"have room left|size limit"),
        VolumeWriter(tmp_path / "a.mrc", (1 << 16, 1 << 16, 1 << 14), np.float32, 1.0),
    ):
        pytest.fail("the room was not asked for")

    assert not list(tmp_path.iterdir())
