"""What is written has the types that EMAN2's library reads, and comes back as it was."""

from __future__ import annotations

import resource
import signal

import h5py
import numpy as np
import pytest

from cryopick.errors import FormatError, OutputError, ParameterError, ShapeError
from cryopick.io.eman_hdf import EmanStack, require_square
from cryopick.io.eman_hdf_write import write_eman_stack

CTF = "E1.5 0.02 30 100 10 300 2.7 1.06 0 0 0"
TURN = np.array([[0.0, 1.0, 0.0, 2.5], [-1.0, 0.0, 0.0, -1.0], [0.0, 0.0, 1.0, 0.0]])
HEADER = {
    "members": [4, 0, 17],
    "n_objects": 3,
    "ptcl_source_image": "mic 1.mrc",
    "ctf": CTF,
    "segment_angle": 33.5,
    "ctf_applied": True,
    "is_bad": False,
    "weights": [0.5, 2.0],
    "xform.align2d": TURN,
}


def images(count=2, y=12, x=10):
    return np.random.default_rng(0).normal(size=(count, y, x)).astype(np.float32)


def write(path, headers=(HEADER, {}), **more):
    return write_eman_stack(path, images(len(headers)), pixel_size=1.06, attributes=headers, **more)


def test_attributes_have_the_types_of_eman2(tmp_path):
    write(tmp_path / "a.hdf", stack_attributes={"program": "cryopick", "generation": 2})

    with h5py.File(tmp_path / "a.hdf", "r") as file:
        image = file["MDF/images/0"]
        assert file["MDF/images"].attrs.get_id("imageid_max").dtype == np.dtype("<i4")
        assert int(file["MDF/images"].attrs["imageid_max"]) == 1
        assert "num_dataset" not in file.attrs

        def kind(name):
            attribute = image.attrs.get_id(f"EMAN.{name}")
            kind = attribute.get_type()
            return kind.get_class(), kind.get_size(), attribute.shape

        whole, real, text = h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING
        for name in ("nx", "ny", "nz", "is_complex", "is_complex_ri", "datatype", "n_objects"):
            assert kind(name) == (whole, 4, ()), name
        for name in ("apix_x", "apix_z", "minimum", "mean", "sigma", "segment_angle"):
            assert kind(name) == (real, 4, ()), name
        assert kind("members") == (whole, 4, (3,))
        assert kind("weights") == (real, 4, (2,))
        assert kind("ctf_applied") == kind("is_bad") == (whole, 1, ())
        assert image.attrs["EMAN.ctf_applied"] == ord("T")
        assert image.attrs["EMAN.is_bad"] == ord("F")
        assert kind("ctf") == (text, len(CTF) + 1, ())
        written = image.attrs.get_id("EMAN.ctf").get_type()
        assert not written.is_variable_str()
        assert written.get_strpad() == h5py.h5t.STR_NULLTERM
        assert kind("xform.align2d") == (h5py.h5t.COMPOUND, 48, (1,))
        members = image.attrs.get_id("EMAN.xform.align2d").get_type()
        names = [members.get_member_name(k) for k in range(12)]
        assert names == [f"{r}{c}".encode() for r in range(3) for c in range(4)]
        pixels = image["image"]
        assert (pixels.dtype, pixels.chunks, pixels.shape) == (np.dtype("<f4"), None, (12, 10))
        assert (image.attrs["EMAN.nx"], image.attrs["EMAN.ny"]) == (10, 12)


def test_the_file_is_of_the_oldest_layout(tmp_path):
    write(tmp_path / "a.hdf")

    assert (tmp_path / "a.hdf").read_bytes()[:9] == b"\x89HDF\r\n\x1a\n\0"  # superblock 0


def test_images_and_attributes_come_back(tmp_path):
    write(tmp_path / "a.hdf", stack_attributes={"program": "cryopick", "generation": 2})

    with EmanStack(tmp_path / "a.hdf") as stack:
        first, second = stack.all_attributes()
        np.testing.assert_array_equal(stack.read(), images())
        np.testing.assert_array_equal(stack.read([1]), images()[1:])
        assert stack.stack_attributes == {
            "imageid_max": 1,
            "program": "cryopick",
            "generation": 2,
        }
        assert stack.pixel_size == pytest.approx(1.06)
    for name, value in HEADER.items():
        np.testing.assert_array_equal(first[name], value)
        assert isinstance(first[name], np.ndarray | type(value)), name
    assert first["mean"] == pytest.approx(float(images()[0].mean()), abs=1e-6)
    assert "members" not in second


def test_one_member_is_a_list_of_one(tmp_path):
    write(tmp_path / "a.hdf", [{"members": [7], "ptcl_source_coord_id": [7]}])

    with EmanStack(tmp_path / "a.hdf") as stack:
        header = stack.attributes(0)
    assert header["members"].tolist() == [7]
    assert header["ptcl_source_coord_id"] == 7  # as EMAN2 reads it


def test_a_class_too_large_for_an_attribute_lies_beside(tmp_path):
    many, few = np.arange(16_001), np.arange(16_000)
    headers = [{"members": many, "n_objects": len(many)}, {"members": few}]

    files = write(tmp_path / "a.hdf", headers)

    assert [f.name for f in files] == ["a.hdf", "a_lists.json"]
    with EmanStack(tmp_path / "a.hdf") as stack:
        assert "members" not in stack.attributes(0)
        found = stack.all_attributes()
    np.testing.assert_array_equal(found[0]["members"], many)
    np.testing.assert_array_equal(found[1]["members"], few)
    assert found[0]["n_objects"] == 16_001

    (tmp_path / "a_lists.json").write_text('{"0": {"members": [1]}}')
    with (
        EmanStack(tmp_path / "a.hdf") as stack,
        pytest.raises(FormatError, match="must be what was written with its stack; got another"),
    ):
        stack.all_attributes()
    write(tmp_path / "a.hdf")
    assert not (tmp_path / "a_lists.json").exists()


def test_attributes_read_from_a_compressed_stack_can_be_handed_on(tmp_path):
    header = {"stored_renderbits": 12, "stored_rendermin": -3.0, "nx": 99, "apix_x": 5.0, "ID": 4}

    write(tmp_path / "a.hdf", [header])

    with EmanStack(tmp_path / "a.hdf") as stack:
        found = stack.attributes(0)
        np.testing.assert_array_equal(stack.read(), images(1))
    assert (found["nx"], found["ID"]) == (10, 4)
    assert found["apix_x"] == pytest.approx(1.06)
    assert "stored_renderbits" not in found


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (2**31, "attribute a must lie within 32 bits, which is all that EMAN2 reads; got 2147"),
        (1e39, "must be a number of single precision; got 1e\\+39"),
        ("E12 kV", "must not begin like a CTF, for which EMAN2 would take it; got E12 kV"),
        (np.zeros((2, 2)), "must be a number, a text, a list of numbers or a transform"),
        ("x" * 70_000, "must be shorter than 64,000 bytes; got 70,000 bytes"),
    ],
)
def test_what_eman2_would_read_wrongly_is_refused(tmp_path, value, sentence):
    with pytest.raises(ParameterError, match=sentence):
        write(tmp_path / "a.hdf", [{"a": value}])

    assert list(tmp_path.iterdir()) == []


def test_attributes_of_other_images_are_refused(tmp_path):
    with pytest.raises(ShapeError, match="got 1 for 2 images"):
        write_eman_stack(tmp_path / "a.hdf", images(2), pixel_size=1.0, attributes=[{}])


def test_images_that_are_not_square_are_refused_with_their_size(tmp_path):
    require_square(images(x=12), tmp_path / "a.hdf")
    with pytest.raises(FormatError, match="must hold square images; got 10 x 12 px"):
        require_square(images(), tmp_path / "a.hdf")


def test_a_failed_write_leaves_the_old_stack(tmp_path):
    write(tmp_path / "a.hdf")
    before = (tmp_path / "a.hdf").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="must be within the size limit of files"):
            write_eman_stack(tmp_path / "a.hdf", images(9, 64, 64), pixel_size=1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert (tmp_path / "a.hdf").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.hdf"]
