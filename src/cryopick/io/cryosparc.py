"""The bytes of a cryoSPARC ``.cs`` file: one NumPy structured array in NumPy's own format."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError
from cryopick.io.atomic import writing

__all__ = ["read_cs", "read_cs_fields", "write_cs"]

_COMPRESSED = b"\x94CSDAT"  # cryoSPARC 4 keeps its largest tables in this form of its own


def read_cs(path: Path) -> NDArray[np.void]:
    """Read a ``.cs`` table.

    Parameters
    ----------
    path
        A file that cryoSPARC wrote or exported in NumPy format.

    Returns
    -------
    numpy.ndarray
        (n,) structured; the fields are named ``group/field``.

    Raises
    ------
    FormatError
        If the file is missing, truncated, compressed, or is not a structured array.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_COMPRESSED))
            handle.seek(0)
            if start == _COMPRESSED:
                raise FormatError(
                    str(path),
                    must="be in NumPy format",
                    got="cryoSPARC's compressed format",
                    remedy="Use the exported .cs file, or save it anew with cryosparc-tools",
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old headers: written by Python 2, read well
                table = np.load(handle, allow_pickle=False)
    except FileNotFoundError as error:
        raise FormatError(
            str(path),
            must="be a readable .cs file",
            got="no such file",
            remedy="Check the path",
        ) from error
    except (ValueError, EOFError, OSError) as error:
        raise FormatError(
            str(path),
            must="be a readable .cs file",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="Export the particles again from cryoSPARC",
        ) from error
    if table.dtype.names is None or table.ndim != 1:
        raise FormatError(
            str(path),
            must="hold a table with named fields",
            got=f"an array of shape {table.shape} and type {table.dtype}",
            remedy="Give the .cs file of a cryoSPARC job",
        )
    return np.asarray(table)


def read_cs_fields(path: Path) -> tuple[str, ...]:
    """Names of the fields of a ``.cs`` table, without its rows where NumPy can map the file.

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    try:
        return tuple(np.load(path, mmap_mode="r", allow_pickle=False).dtype.names or ())
    except (OSError, ValueError):
        return tuple(read_cs(path).dtype.names or ())  # which says what is wrong


def write_cs(path: Path, fields: dict[str, NDArray[Any]]) -> None:
    """Write a ``.cs`` table that ``numpy.load`` and cryoSPARC read.

    Parameters
    ----------
    path
        Where to; whole or not at all.
    fields
        Arrays of one length n by field name; (n,) or (n, k). Text is written as bytes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    columns = {name: _plain(values) for name, values in fields.items()}
    layout = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    table = np.zeros(len(next(iter(columns.values()))), dtype=layout)
    for name, values in columns.items():
        table[name] = values
    with writing(path) as handle:
        np.save(handle, table, allow_pickle=False)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "OU":
        return values
    encoded = [str(value).encode() for value in values]
    width = max((len(text) for text in encoded), default=1)
    return np.array(encoded, dtype=f"S{max(width, 1)}")
