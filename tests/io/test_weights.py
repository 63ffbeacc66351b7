"""Files of trained weights: they come back as written, run no code, and damage is noticed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from cryopick.errors import DataError, FormatError, OutputError
from cryopick.io.weights import LARGEST, Weights, read_weights, write_weights

KIND = "class scores"


def some_arrays():
    rng = np.random.default_rng(3)
    return {
        "layer.0.weight": rng.standard_normal((3, 4, 2)).astype(np.float32),
        "layer.0.bias": rng.standard_normal(5).astype(np.float16),
        "mean": rng.standard_normal((2, 3)).T,  # last axis not the fastest
        "order": np.array([2**62, -1]),
        "scale": np.float64(0.1) * np.ones(()),
        "none": np.zeros((0, 3), np.float32),
    }


def some_weights(**changes):
    notes = {"seed": 7, "data": ["a", "b"], "auc": 0.1 + 0.2, "by": {"name": "Å"}}
    return Weights(
        **{"kind": KIND, "version": 2, "arrays": some_arrays(), "notes": notes} | changes
    )


def read(path):
    return read_weights(path, kind=KIND, versions=(1, 2))


def assert_same(found, wanted):
    assert (found.kind, found.version, found.notes) == (wanted.kind, wanted.version, wanted.notes)
    assert set(found.arrays) == set(wanted.arrays)
    for name, array in wanted.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "good.npz", some_weights())
    return tmp_path / "good.npz"


class Crafted(NamedTuple):
    """What a file is made of by hand."""

    header: dict[str, object]
    entries: dict[str, bytes]


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    return buffer.getvalue()


def take_apart(path):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    header = np.load(io.BytesIO(entries.pop("header.npy")))
    return Crafted(json.loads(header.tobytes()), entries)


def put_together(path, crafted, *, sign=True, compression=zipfile.ZIP_STORED):
    """Write a file, whatever is in it; its checksum is made to fit if `sign`."""
    header = dict(crafted.header)
    if sign:
        del header["sha256"]
        text = json.dumps(header, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode())
        for name in sorted(header["arrays"]):
            entry = io.BytesIO(crafted.entries.get(f"{name}.npy", npy(np.zeros(0))))
            digest.update(np.load(entry, allow_pickle=False).tobytes())
        header["sha256"] = digest.hexdigest()
    packed = npy(np.frombuffer(json.dumps(header).encode(), np.uint8))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"header.npy": packed, **crafted.entries}.items():
            archive.writestr(name, data)


def one_sentence(error, path):
    text = str(error.value)
    assert text.startswith(f"{path} must ")
    assert "\n" not in text
    return text


def test_weights_come_back_as_they_were_written(path):
    found = read(path)

    assert_same(found, some_weights())
    assert all(a.flags.writeable and a.flags.c_contiguous for a in found.arrays.values())


def test_numpy_reads_the_file_without_pickles(path):
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays) == sorted([*some_arrays(), "header"])
        for name, array in some_arrays().items():
            np.testing.assert_array_equal(arrays[name], array)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    arrays = some_arrays()
    notes = some_weights().notes
    turned = {name: arrays[name] for name in reversed(arrays)}
    turned["mean"] = np.ascontiguousarray(turned["mean"]).astype(">f8")

    write_weights(tmp_path / "a", some_weights())
    write_weights(tmp_path / "b", some_weights(arrays=turned, notes=dict(reversed(notes.items()))))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_deflated_file_made_by_hand_is_read(path):
    put_together(path, take_apart(path), compression=zipfile.ZIP_DEFLATED)

    assert_same(read(path), some_weights())


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_flipped_bit_is_noticed_or_does_not_matter(path, compression):
    put_together(path, take_apart(path), compression=compression)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0

    for place, bit in enumerate(rng.integers(0, 8, len(good))):  # one in every byte
        bad = bytearray(good)
        bad[place] ^= 1 << bit
        path.write_bytes(bad)
        try:
            found = read(path)
        except FormatError:
            n_refused += 1
        else:
            assert_same(found, some_weights())

    assert n_refused > 0.7 * len(good)  # the rest: times and attributes in the zip directory


def test_a_truncated_file_is_refused(path):
    good = path.read_bytes()

    for length in range(0, len(good), 13):
        path.write_bytes(good[:length])
        with pytest.raises(FormatError) as error:
            read(path)
        one_sentence(error, path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"some text\n", "a file that is no zip archive"),
        (gzip.compress(b"import os", mtime=0), "a gzip file"),
        (pickle.dumps({"a": 1}), "a pickle, which can run code"),
        (b"PK\x03\x04 and no more", "File is not a zip file"),
    ],
)
def test_foreign_files_are_refused(path, content, got):
    path.write_bytes(content)

    with pytest.raises(FormatError, match=got) as error:
        read(path)

    one_sentence(error, path)


@pytest.mark.parametrize(("is_zip", "got"), [(True, "a PyTorch checkpoint"), (False, "a pickle")])
def test_checkpoints_of_torch_are_refused(path, is_zip, got):
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=is_zip)

    with pytest.raises(FormatError, match=f"got {got}, which can run code") as error:
        read(path)

    one_sentence(error, path)


def test_missing_files_folders_and_archives_of_others_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name, got in (
        ("none", "no such file"),
        ("", "a folder"),
        ("other.npz", "without a header"),
    ):
        with pytest.raises(FormatError, match=got) as error:
            read(tmp_path / name)
        one_sentence(error, tmp_path / name)


def test_weights_for_another_use_are_refused(path):
    write_weights(path, some_weights(kind="picking network"))

    with pytest.raises(FormatError, match="must be weights of 'class scores'; got weights of"):
        read(path)


@pytest.mark.parametrize(
    ("version", "remedy"), [(3, "Update cryopick"), (1, "Train them again, or name a newer file")]
)
def test_an_unknown_version_is_refused(path, version, remedy):
    write_weights(path, some_weights(version=version))

    with pytest.raises(FormatError, match=rf"version 2 of .* got version {version}\. {remedy}\."):
        read_weights(path, kind=KIND, versions={2})


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (b"{", "a header that is no JSON"),
        (b"\xff\xfe", "a header that is no JSON"),
        (b'{"format": NaN}', "a header that is no JSON"),
        (b'{"format": ' + b"[" * 10**5, "a header that is no JSON"),
        (b"[1]", "a header of another program"),
        (b'{"format": "weights"}', "a header of another program"),
        (b'{"format": "cryopick weights", "kind": 3}', "must name its kind in its header; got 3"),
        (
            b'{"format": "cryopick weights", "kind": "k", "version": true}',
            "its version .* got True",
        ),
    ],
)
def test_broken_headers_are_refused(path, text, got):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", npy(np.frombuffer(text, np.uint8)))

    with pytest.raises(FormatError, match=got) as error:
        read(path)

    one_sentence(error, path)


def test_a_header_that_is_no_text_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", npy(np.ones((2, 2))))

    with pytest.raises(FormatError, match="got a header of float64 with 2 axes"):
        read(path)


def drop(crafted):
    del crafted.entries["order.npy"]


def add(crafted):
    crafted.entries["more.npy"] = npy(np.ones(1))


def reshape(crafted):
    crafted.header["arrays"]["mean"]["shape"] = [2, 3]


def retype(crafted):
    crafted.header["arrays"]["order"]["dtype"] = "<f8"


def shrink(crafted):
    crafted.header["arrays"]["mean"]["shape"] = [10**6, 10**6]


def negate(crafted):
    crafted.header["arrays"]["mean"]["shape"] = [-2, -3]


def allow_bytes(crafted):
    crafted.header["arrays"]["mean"]["dtype"] = "|u1"
    crafted.entries["mean.npy"] = npy(np.ones((3, 2), np.uint8))


def say_nothing(crafted):
    crafted.header["arrays"]["mean"] = None


def spoil(crafted):
    crafted.entries["mean.npy"] = npy(np.array([[1, 2], [np.nan, 4], [5, 6]]))


def overflow(crafted):
    crafted.entries["layer.0.bias.npy"] = npy(np.full(5, np.inf, np.float16))


def climb(crafted):
    crafted.entries["../order.npy"] = crafted.entries.pop("order.npy")
    crafted.header["arrays"]["../order"] = crafted.header["arrays"].pop("order")


def add_code(crafted):
    crafted.entries["setup.py"] = b"print()"


def turn_axes(crafted):
    crafted.entries["mean.npy"] = npy(np.asfortranarray(some_arrays()["mean"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "must hold array 'order'; got none of this name"),
        (add, "must hold the arrays of its header only; got also 'more'"),
        (reshape, r"must hold array mean as <f8 \[2, 3\]; got <f8 \[3, 2\]"),
        (retype, r"must hold array order as <f8 \[2\]; got <i8 \[2\]"),
        (shrink, "must have 8,000,000,000,000 bytes of values in array mean; got 176 in all"),
        (negate, r"must give the shape of array mean in its header; got \[-2, -3\]"),
        (allow_bytes, r"must hold array mean as float16, .*; got '\|u1'"),
        (say_nothing, "must hold array mean as float16, .*; got None"),
        (spoil, "must hold finite values in array mean; got NaN or infinity"),
        (overflow, "must hold finite values in array layer.0.bias"),
        (climb, r"must hold nothing but arrays; got '\.\./order\.npy'"),
        (add_code, r"must hold nothing but arrays; got 'setup\.py'"),
        (turn_axes, "mean.npy', which is no plain array"),
    ],
)
def test_arrays_that_differ_from_the_header_are_refused(path, change, message):
    crafted = take_apart(path)
    change(crafted)
    put_together(path, crafted)

    with pytest.raises(FormatError, match=message) as error:
        read(path)

    one_sentence(error, path)


def test_two_arrays_of_one_name_are_refused(path):
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("mean.npy", npy(np.zeros((3, 2))))

    with pytest.raises(FormatError, match="must hold each array once"):
        read(path)


@pytest.mark.parametrize("key", ["notes", "version", "arrays"])
def test_whatever_is_changed_without_the_checksum_is_noticed(path, key):
    crafted = take_apart(path)
    if key == "notes":
        crafted.header["notes"]["seed"] = 8
    elif key == "version":
        crafted.header["version"] = 1
    else:
        crafted.entries["mean.npy"] = npy(np.ones((3, 2)))
    put_together(path, crafted)
    read(path)  # with a checksum that fits it is sound

    put_together(path, crafted, sign=False)

    with pytest.raises(FormatError, match="must be whole and undamaged; got values of another"):
        read(path)


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(path):
    crafted = take_apart(path)
    n = 2**24
    crafted.header["arrays"] = {"a": {"shape": [80 * n], "dtype": "<f4"}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        text = json.dumps(crafted.header).encode()
        archive.writestr("header.npy", npy(np.frombuffer(text, np.uint8)))
        with archive.open("a.npy", "w", force_zip64=True) as handle:
            for _ in range(80):
                handle.write(bytes(n))

    with pytest.raises(FormatError, match=r"must hold at most [\d,]+ bytes; got 1,342,"):
        read(path)


def test_an_archive_that_lies_about_its_sizes_is_refused(path):
    crafted = take_apart(path)
    size = len(crafted.entries["mean.npy"])
    crafted.entries["mean.npy"] += bytes(2**20)
    put_together(path, crafted, compression=zipfile.ZIP_DEFLATED)
    long = struct.pack("<I", size + 2**20)
    path.write_bytes(path.read_bytes().replace(long, struct.pack("<I", size)))

    with pytest.raises(FormatError, match="must be whole and undamaged; got Bad CRC-32"):
        read(path)


def test_files_beyond_the_limit_are_refused_unread(path):
    with path.open("r+b") as handle:
        handle.truncate(2 * LARGEST)  # sparse: takes no room

    with pytest.raises(FormatError, match=r"must take at most [\d,]+ bytes; got 2,147,483,648"):
        read(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def pickled(trap):
    array = np.empty(1, object)
    array[0] = trap
    return npy(array)


@pytest.mark.parametrize("where", ["declared", "lied about", "undeclared", "header", "whole"])
def test_pickles_are_never_run(tmp_path, path, where):
    target = tmp_path / "was-run"
    trap = pickled(Trap(target))
    crafted = take_apart(path)
    if where == "undeclared":
        crafted.entries["more.npy"] = trap
    if where in ("declared", "lied about"):
        dtype = "|O" if where == "declared" else "<f8"
        crafted.header["arrays"]["order"] = {"shape": [1], "dtype": dtype}
        crafted.entries["order.npy"] = trap
    text = npy(np.frombuffer(json.dumps(crafted.header).encode(), np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", trap if where == "header" else text)
        for name, data in crafted.entries.items():
            archive.writestr(name, data)
    if where == "whole":
        path.write_bytes(pickle.dumps(Trap(target)))

    with pytest.raises(FormatError) as error:
        read(path)

    one_sentence(error, path)
    assert not target.exists()
    np.load(io.BytesIO(trap), allow_pickle=True)
    assert target.exists()  # so the trap works


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": ""}, "the kind must be a name"),
        ({"version": 0}, "the version must be a whole number from 1; got 0"),
        ({"version": True}, "the version must be a whole number from 1; got True"),
        ({"notes": {"when": object()}}, "the notes must be JSON values"),
        ({"notes": {"auc": float("nan")}}, "the notes must be JSON values"),
        ({"notes": {1: 2}}, "the notes must be JSON values; got tuples, or keys"),
        ({"arrays": {"a": np.array([object()])}}, "array a must be float16, .*; got object"),
        ({"arrays": {"a": np.ones(2, np.int32)}}, "array a must be float16, .*; got int32"),
        ({"arrays": {"a": np.array([1, np.nan])}}, "array a must be finite"),
        ({"arrays": {"a/b": np.ones(2)}}, "the name of an array must be letters.*; got 'a/b'"),
        ({"arrays": {"..": np.ones(2)}}, "the name of an array must be letters"),
        ({"arrays": {"header": np.ones(2)}}, "the name of an array must be letters"),
        ({"arrays": {"a": np.broadcast_to(0.0, 2**28)}}, "take at most 1,073,741,824 bytes"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        write_weights(tmp_path / "w.npz", some_weights(**changes))

    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()

    with pytest.raises(OutputError):
        write_weights(tmp_path / "taken", some_weights())

    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
