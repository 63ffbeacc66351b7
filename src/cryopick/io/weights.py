"""Trained weights on disk: plain arrays and a header in a zip archive, never code.

A file is an ``.npz`` that `numpy.load` opens with ``allow_pickle=False``. Beside its arrays it
holds ``header``, uint8, the UTF-8 text of a JSON object:

    format   "cryopick weights"
    kind     what the weights are for
    version  of the architecture they fit
    notes    how they were made
    arrays   {name: {"shape": [...], "dtype": "<f4"}}
    sha256   of the other keys, written with sorted keys and no spaces, followed by the bytes of
             all arrays in the order of their names

Nothing in a file is ever unpickled, imported or evaluated, and no entry is unpacked before its
size is known to be what the header says.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, FormatError
from cryopick.io.atomic import writing

__all__ = ["LARGEST", "Weights", "read_weights", "write_weights"]

LARGEST = 2**30  # bytes of all arrays together
_FORMAT = "cryopick weights"
_HEADER = "header"
_LARGEST_HEADER = 2**24  # bytes
_DTYPES = tuple(np.dtype(code) for code in ("<f2", "<f4", "<f8", "<i8"))
_TYPES = "float16, float32, float64 or int64"
_NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_MAX_AXES = 32
_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_SPARE = 4096  # bytes, more than what precedes the values in an .npy file of so few axes
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][fiu]\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)
_ZIP_MAGIC = b"PK\x03\x04"
_FOREIGN = {
    b"\x1f\x8b": "a gzip file",
    b"\x80": "a pickle, which can run code when it is read",
}
_DAMAGE = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # of zipfile: encrypted, unknown compression; of json: nested too deeply
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """What was learned, and how."""

    kind: str  # what they are for, such as "class scores"
    version: int  # of the architecture, from 1
    arrays: Mapping[str, NDArray[Any]]  # float16, float32, float64 or int64; finite
    notes: Mapping[str, Any]  # JSON values: seed, data, scores; no date, so that files compare


def write_weights(path: Path, weights: Weights) -> None:
    """Write weights, whole or not at all; the same weights give the same bytes.

    Parameters
    ----------
    path
        Of the file, by custom ``.npz``.
    weights
        Names of arrays consist of letters, digits, ``_``, ``.`` and ``-``. Values are stored
        with little end first.

    Raises
    ------
    DataError
        If they hold what `read_weights` would refuse.
    OutputError
        If the file cannot be written.
    """
    _check_labels(weights)
    total = sum(array.nbytes for array in weights.arrays.values())
    if total > LARGEST:
        _refuse_data("the arrays", f"take at most {LARGEST:,} bytes", f"{total:,}")
    arrays = {name: _plain(name, weights.arrays[name]) for name in sorted(weights.arrays)}
    text = _header_text(weights, arrays)
    header = np.frombuffer(text, np.uint8)
    with writing(path) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        for name, array in ((_HEADER, header), *arrays.items()):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getbuffer())


def read_weights(path: Path, *, kind: str, versions: Collection[int]) -> Weights:
    """Read weights that `write_weights` has written.

    Parameters
    ----------
    path
        Of the file.
    kind
        What the weights are needed for.
    versions
        Of the architecture that the caller knows, at least one.

    Returns
    -------
    Weights
        With arrays of their own, writable.

    Raises
    ------
    FormatError
        If the file is missing, foreign, damaged, too large, for another use or of another
        version.
    """
    path = Path(path)
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(path, archive)
            header = _read_header(path, archive, entries[_HEADER])
            _check_use(path, header, kind=kind, versions=versions)
            _check_entries(path, header["arrays"], entries)
            arrays = {name: _read_npy(archive, entries[name]) for name in header["arrays"]}
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _refuse(path, "be whole and undamaged", reason)
    _check_arrays(path, header, arrays)
    return Weights(kind=kind, version=header["version"], arrays=arrays, notes=header["notes"])


def _refuse(path: Path, must: str, got: str, remedy: str = "Fetch or make it again") -> NoReturn:
    raise FormatError(str(path), must=must, got=got, remedy=remedy)


def _refuse_foreign(path: Path, got: str) -> NoReturn:
    _refuse(path, "be weights that cryopick has written", got, "Name another file")


def _refuse_data(what: str, must: str, got: str) -> NoReturn:
    raise DataError(f"weights: {what}", must=must, got=got, remedy="Correct what is to be written")


def _check_labels(weights: Weights) -> None:
    if not isinstance(weights.kind, str) or not weights.kind:
        _refuse_data("the kind", "be a name", repr(weights.kind))
    if type(weights.version) is not int or weights.version < 1:
        _refuse_data("the version", "be a whole number from 1", repr(weights.version))
    try:
        is_kept = json.loads(_canonical(weights.notes)) == weights.notes
    except (RecursionError, TypeError, ValueError) as error:
        _refuse_data("the notes", "be JSON values", str(error))
    if not is_kept:
        _refuse_data("the notes", "be JSON values", "tuples, or keys that are no text")


def _plain(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Give the values as they are stored: little end first, last axis fastest."""
    if not _is_name(name):
        _refuse_data("the name of an array", "be letters, digits, _ . and -", _short(name))
    wanted = array.dtype.newbyteorder("<")
    if wanted not in _DTYPES:
        _refuse_data(f"array {name}", f"be {_TYPES}", str(array.dtype))
    if not np.isfinite(array).all():
        _refuse_data(f"array {name}", "be finite", "NaN or infinity")
    return np.asarray(array, wanted, order="C")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name != _HEADER


def _header_text(weights: Weights, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    header: dict[str, Any] = {
        "format": _FORMAT,
        "kind": weights.kind,
        "version": weights.version,
        "notes": weights.notes,
        "arrays": {n: {"shape": a.shape, "dtype": a.dtype.str} for n, a in arrays.items()},
    }
    text = _canonical(header | {"sha256": _digest(header, arrays)})
    if len(text) > _LARGEST_HEADER:
        _refuse_data("the notes", f"take at most {_LARGEST_HEADER:,} bytes", f"{len(text):,}")
    return text


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _digest(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(_canonical(rest))
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _check_file(path: Path) -> None:
    """Refuse what is not a zip archive of a size that can be."""
    must = "be a file that can be read"
    try:
        if path.is_dir():
            _refuse(path, must, "a folder", "Name a file")
        size = path.stat().st_size
        if not path.is_file():
            _refuse(path, must, "a device or a pipe", "Name a file")
        with path.open("rb") as handle:
            head = handle.read(len(_ZIP_MAGIC))
    except FileNotFoundError:
        _refuse(path, must, "no such file", "Check its name")
    except OSError as error:
        _refuse(path, must, error.strerror or str(error), "Check its permissions")
    if not head:
        _refuse_foreign(path, "an empty file")
    if head != _ZIP_MAGIC:
        kinds = [name for magic, name in _FOREIGN.items() if head.startswith(magic)]
        _refuse_foreign(path, (kinds or ["a file that is no zip archive"])[0])
    most = LARGEST + 2 * _LARGEST_HEADER
    if size > most:
        _refuse(path, f"take at most {most:,} bytes", f"{size:,}", "Name another file")


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries by the names of their arrays."""
    infos = archive.infolist()
    if any(info.filename.endswith("data.pkl") for info in infos):
        _refuse_foreign(path, "a PyTorch checkpoint, which can run code when it is read")
    entries = {info.filename.removesuffix(".npy"): info for info in infos}
    if _HEADER not in entries:
        _refuse_foreign(path, "an archive without a header of cryopick")
    if len(entries) < len(infos):
        _refuse(path, "hold each array once", "two of one name")
    for name, info in entries.items():
        is_array = info.filename == f"{name}.npy" and (_is_name(name) or name == _HEADER)
        if not is_array:
            _refuse(path, "hold nothing but arrays", _short(info.filename))
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse(path, "be stored or deflated", f"compression {info.compress_type}")
    total = sum(info.file_size for info in infos)
    most = LARGEST + 2 * _LARGEST_HEADER
    if total > most:
        _refuse(path, f"hold at most {most:,} bytes", f"{total:,}", "Name another file")
    return entries


def _read_header(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> dict[str, Any]:
    if entry.file_size > _LARGEST_HEADER + _NPY_SPARE:
        _refuse(path, f"have a header of at most {_LARGEST_HEADER:,} bytes", f"{entry.file_size:,}")
    array = _read_npy(archive, entry)
    if array.dtype != np.uint8 or array.ndim != 1:
        _refuse_foreign(path, f"a header of {array.dtype} with {array.ndim} axes")
    try:
        header = json.loads(array.tobytes().decode())
        _canonical(header)
    except (RecursionError, ValueError):
        _refuse_foreign(path, "a header that is no JSON")
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        _refuse_foreign(path, "a header of another program")
    types = {"kind": str, "version": int, "notes": dict, "arrays": dict, "sha256": str}
    for key, wanted in types.items():
        if type(header.get(key)) is not wanted:
            _refuse(path, f"name its {key} in its header", _short(header.get(key)))
    return header


def _check_use(path: Path, header: dict[str, Any], *, kind: str, versions: Collection[int]) -> None:
    if header["kind"] != kind:
        got = f"weights of {_short(header['kind'])}"
        _refuse(path, f"be weights of {kind!r}", got, "Name another file")
    if header["version"] not in versions:
        is_newer = header["version"] > max(versions)
        _refuse(
            path,
            f"be of version {' or '.join(map(str, sorted(versions)))} of {kind!r}",
            f"version {_short(header['version'])}",
            "Update cryopick" if is_newer else "Train them again, or name a newer file",
        )


def _check_entries(
    path: Path, declared: dict[str, Any], entries: Mapping[str, zipfile.ZipInfo]
) -> None:
    """Refuse entries that are not those declared, before any of them is unpacked."""
    names = set(entries) - {_HEADER}
    if missing := sorted(set(declared) - names):
        _refuse(path, f"hold array {_short(missing[0])}", "none of this name")
    if extra := sorted(names - set(declared)):
        _refuse(path, "hold the arrays of its header only", f"also {_short(extra[0])}")
    for name, said in declared.items():
        size = _declared_size(path, name, said)
        found = entries[name].file_size
        if not size < found <= size + _NPY_SPARE:
            _refuse(path, f"have {size:,} bytes of values in array {name}", f"{found:,} in all")


def _declared_size(path: Path, name: str, said: object) -> int:
    """Bytes of an array by the header."""
    facts: dict[str, Any] = said if isinstance(said, dict) else {}
    shape: Any = facts.get("shape")
    dtype = facts.get("dtype")
    if dtype not in [known.str for known in _DTYPES]:
        _refuse(path, f"hold array {name} as {_TYPES}", _short(dtype))
    if not _is_shape(shape):
        _refuse(path, f"give the shape of array {name} in its header", _short(shape))
    size: int = math.prod(shape) * np.dtype(dtype).itemsize
    return size


def _is_shape(value: object) -> bool:
    if not isinstance(value, list) or len(value) > _MAX_AXES:
        return False
    return all(type(length) is int and length >= 0 for length in value)


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """Read an .npy file of numbers; its header is matched, not evaluated.

    No more is unpacked than the size that the entry declares, and its CRC is checked.
    """
    with archive.open(entry) as handle:
        data = handle.read(entry.file_size + 1)
    start = len(_MAGIC) + 2
    head = data[start : start + int.from_bytes(data[start - 2 : start], "little")]
    match = _NPY_HEADER.fullmatch(head)
    if not data.startswith(_MAGIC) or match is None:
        raise ValueError(f"{_short(entry.filename)}, which is no plain array")
    dtype = np.dtype(match[1].decode())
    shape = [int(n) for n in match[2].decode().replace(",", " ").split()]
    return np.frombuffer(data, dtype, offset=start + len(head)).reshape(shape).copy()


def _check_arrays(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    for name, array in arrays.items():
        said = header["arrays"][name]
        if list(array.shape) != said["shape"] or array.dtype.str != said["dtype"]:
            wanted = f"{said['dtype']} {said['shape']}"
            _refuse(path, f"hold array {name} as {wanted}", f"{array.dtype.str} {[*array.shape]}")
        if not np.isfinite(array).all():
            _refuse(path, f"hold finite values in array {name}", "NaN or infinity")
    if _digest(header, arrays) != header["sha256"]:
        _refuse(path, "be whole and undamaged", "values of another checksum")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
