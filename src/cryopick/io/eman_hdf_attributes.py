"""Attributes of EMAN2's HDF files: the types that its library knows, and no others.

    bool        int8, the letter T or F
    int         int32
    float       float32
    str         fixed length, one byte more than the text, ended by 0
    list        1-D int32 or float32
    transform   compound of twelve float32 named 00, 01, ... 23: three rows of four

Of other types, h5py's own among them, EMAN2 makes 0 or garbage.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from cryopick.errors import ParameterError

__all__ = [
    "LONGEST_LIST",
    "PREFIX",
    "EmanValue",
    "is_like_ctf",
    "is_long_list",
    "read_attributes",
    "write_attribute",
]

EmanValue: TypeAlias = bool | int | float | str | Sequence[int] | Sequence[float] | NDArray[Any]

PREFIX = "EMAN."
LONGEST_LIST = 16_000  # of 4 bytes: HDF5 holds an attribute in 64 kB, its head included
_ALWAYS_LISTS = ("members",)  # also with one entry, which EMAN2 reads as a number
_TRANSFORM = np.dtype([(f"{row}{column}", "<f4") for row in range(3) for column in range(4)])
_WHOLE = np.iinfo(np.int32)


def write_attribute(group: h5py.Group, name: str, value: EmanValue, *, prefix: str = "") -> None:
    """Add an attribute in the type that EMAN2 expects.

    Parameters
    ----------
    group
        Of an image, or ``/MDF/images``.
    name
        At most 127 letters with the prefix.
    value
        A list of no entry is left out, as its type is unknown; an array (3, 4) is a transform.
    prefix
        ``EMAN.`` for attributes of an image.

    Raises
    ------
    ParameterError
        If EMAN2 has no type for the value, or would take a text for a CTF.
    """
    if len(prefix + name) > 127:
        _refuse(name, "have at most 127 letters", f"{len(prefix + name)}", "Shorten the name")
    if isinstance(value, str):
        _write_text(group, prefix, name, value)
        return
    array = _as_array(name, value)
    if array.size:
        group.attrs.create(prefix + name, array, shape=array.shape, dtype=array.dtype)


def is_long_list(value: EmanValue) -> bool:
    """Tell whether a list is too long for an attribute."""
    return not isinstance(value, str) and np.ndim(value) == 1 and np.size(value) > LONGEST_LIST


def is_like_ctf(name: str, value: object) -> bool:
    """Tell whether EMAN2 would take a text that is no CTF for one: E or O and a digit."""
    if not isinstance(value, str) or name.startswith("ctf"):
        return False
    return value[:1] in ("E", "O") and value[1:2].isdigit()


def read_attributes(group: h5py.Group, *, only: Collection[str] = ()) -> dict[str, Any]:
    """Read the attributes of an image, without the prefix of their names.

    Parameters
    ----------
    group
        Of an image, or ``/MDF/images``.
    only
        Names of those wanted, which is faster than all.

    Returns
    -------
    dict
        bool, int, float, str, 1-D int64 or float64 arrays, and (3, 4) float64 for a transform.
        A list of one entry is a number, ``members`` excepted. Types that EMAN2 has not are left
        out.
    """
    values = {}
    attributes = group.attrs
    wanted = [k for n in only for k in (n, PREFIX + n) if k in attributes]
    for name in wanted if only else attributes:
        short = name.removeprefix(PREFIX)
        try:
            value = _plain(attributes[name], is_list=short in _ALWAYS_LISTS)
        except (OSError, TypeError, ValueError):  # a type that numpy has not
            continue
        if value is not None:
            values[short] = value
    return values


def _as_array(name: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind == "b":
        return np.array(ord("T" if array else "F"), np.int8)
    if array.shape == (3, 4) and array.dtype.kind in "iuf":
        return np.array([tuple(array.ravel().tolist())], _TRANSFORM)
    if array.ndim > 1 or array.dtype.kind not in "iuf":
        got = f"{array.dtype} of shape {array.shape}"
        _refuse(name, "be a number, a text, a list of numbers or a transform", got, "Convert it")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = array.astype("<f4")
        if (np.isinf(single) & np.isfinite(array)).any():
            _refuse(name, "be a number of single precision", f"{value}", "Give a smaller one")
        return single
    if array.size and (array.min() < _WHOLE.min or array.max() > _WHOLE.max):
        got = f"{array.min()} to {array.max()}"
        _refuse(name, "lie within 32 bits, which is all that EMAN2 reads", got, "Renumber it")
    return array.astype("<i4")


def _write_text(group: h5py.Group, prefix: str, name: str, text: str) -> None:
    if is_like_ctf(name, text):
        _refuse(name, "not begin like a CTF, for which EMAN2 would take it", text, "Change it")
    raw = text.encode()
    if len(raw) >= 4 * LONGEST_LIST:
        got = f"{len(raw):,} bytes"
        _refuse(name, f"be shorter than {4 * LONGEST_LIST:,} bytes", got, "Shorten the text")
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(raw) + 1)
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(group.id, (prefix + name).encode(), kind, space)
    attribute.write(np.array(raw, f"S{len(raw) + 1}"), mtype=kind)


def _plain(value: Any, *, is_list: bool) -> Any:
    """Turn what h5py gives into plain values; None where EMAN2 has no such type."""
    array = np.asarray(value)
    if array.dtype.fields is not None:
        return _transform(array)
    if array.dtype.kind in "SUO":
        return _text(array)
    if array.dtype.kind not in "biuf":
        return None
    if array.size != 1 or is_list:
        return array.ravel().astype(np.float64 if array.dtype.kind == "f" else np.int64)
    single = array.ravel()[0]
    if array.dtype.kind == "f":
        return float(single)
    if array.dtype.kind == "b" or array.dtype.itemsize == 1:
        return int(single) in (1, ord("T"))
    return int(single)


def _transform(array: NDArray[Any]) -> NDArray[np.float64] | None:
    names = array.dtype.names or ()
    if set(names) != set(_TRANSFORM.names or ()) or array.size != 1:
        return None
    one = array.ravel()[0]
    return np.array([float(one[name]) for name in _TRANSFORM.names or ()]).reshape(3, 4)


def _text(array: NDArray[Any]) -> str | None:
    if array.size != 1:
        return None
    one = array.ravel()[0]
    return one.decode(errors="replace").rstrip("\0") if isinstance(one, bytes) else str(one)


def _refuse(name: str, must: str, got: str, remedy: str) -> None:
    raise ParameterError(f"attribute {name}", must=must, got=got, remedy=remedy)
