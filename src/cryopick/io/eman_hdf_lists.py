"""Lists too long for an attribute of HDF5: a JSON file beside the stack.

``class_averages.hdf`` has ``class_averages_lists.json`` beside it if a class has more than 16,000
members; the attribute ``long_lists`` of an image names what is there, and ``long_lists_check`` of
``/MDF/images`` says which file of this name it was:

    {"0": {"members": [3, 5, 8, ...]}, ...}
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import FormatError
from cryopick.io.atomic import output_errors, writing

__all__ = ["CHECK", "LONG_LISTS", "list_path", "read_lists", "remove_lists", "write_lists"]

LONG_LISTS, CHECK = "long_lists", "long_lists_check"


def list_path(stack: Path) -> Path:
    """Name the file of long lists of a stack.

    Examples
    --------
    >>> list_path(Path("out/class_averages.hdf")).name
    'class_averages_lists.json'
    """
    return stack.with_name(f"{stack.stem}_lists.json")


def write_lists(stack: Path, lists: Mapping[int, Mapping[str, Any]]) -> int:
    """Write the long lists of a stack, by image number and name, and return their check sum.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    plain = {str(n): {k: np.asarray(v).tolist() for k, v in ls.items()} for n, ls in lists.items()}
    raw = json.dumps(plain).encode()
    with writing(list_path(stack)) as file:
        file.write(raw)
    return _check_of(raw)


def remove_lists(stack: Path) -> None:
    """Remove long lists that an earlier stack of this name had.

    Raises
    ------
    OutputError
        If the file cannot be removed.
    """
    path = list_path(stack)
    with output_errors(path):
        path.unlink(missing_ok=True)


def read_lists(stack: Path, check: int) -> dict[int, dict[str, Any]]:
    """Read the long lists of a stack, by image number and name, as 1-D arrays.

    Raises
    ------
    FormatError
        If the file is missing, broken or of another stack.
    """
    path = list_path(stack)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _refused(path, "lie beside its stack", "no such file") from error
    if _check_of(raw) != check:
        raise _refused(path, "be what was written with its stack", "another file")
    lists = json.loads(raw)
    return {int(n): {k: np.asarray(v) for k, v in ls.items()} for n, ls in lists.items()}


def _check_of(raw: bytes) -> int:
    """CRC-32 as the signed number that an attribute holds."""
    return int(np.array(zlib.crc32(raw), np.uint32).view(np.int32))


def _refused(path: Path, must: str, got: str) -> FormatError:
    return FormatError(
        str(path), must=must, got=got, remedy="Copy it with its stack, or write both again"
    )
