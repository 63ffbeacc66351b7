"""Change the names of files in RELION's STAR files, and nothing else of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

__all__ = ["rename_files"]

_LABELS = frozenset(
    (
        "rlnMicrographName",
        "rlnCtfImage",
        "rlnImageName",
        "rlnReferenceImage",
        "rlnMicrographCoordinates",
        "rlnExperimentalDataStarFile",
        "rlnModelStarFile",
        "rlnModelStarFile2",
        "rlnOrientSamplingStarFile",
        "rlnOutputRootName",
    )
)
_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")
_FILE = re.compile(r"(?P<number>\d+@)?(?P<name>.+?)(?P<format>:mrcs?)?")


def rename_files(lines: Iterable[str], rename: Callable[[str], str]) -> Iterator[str]:
    r"""Rename the files that a STAR file names.

    Parameters
    ----------
    lines
        Of a STAR file of RELION 3.1 or later.
    rename
        Gives the new name of a file; the number of an image in a stack (``000001@``) and the
        format (``:mrc``) are taken off before and put back.

    Yields
    ------
    str
        The lines, in their order; those without names of files as they were.

    Examples
    --------
    >>> list(rename_files(["_rlnImageName 1@a.mrcs\n"], str.upper))
    ['_rlnImageName 1@A.MRCS\n']
    """
    columns: list[str] = []
    for line in lines:
        if line.startswith("_"):
            label, *value = line.split(maxsplit=1)
            if value and not value[0].startswith("#") and label[1:] in _LABELS:
                yield line.removesuffix(value[0]) + _renamed(value[0].strip(), rename) + "\n"
                continue
            columns.append(label[1:])
        elif line.startswith(("data_", "loop_")):
            columns = []
        elif _LABELS.intersection(columns) and not line.startswith("#") and line.strip():
            line = _renamed_row(line, columns, rename)
        yield line


def _renamed_row(line: str, columns: list[str], rename: Callable[[str], str]) -> str:
    words = _WORD.findall(line)
    for place, label in enumerate(columns[: len(words)]):
        if label in _LABELS:
            words[place] = _renamed(words[place], rename)
    return " ".join(words) + "\n"


def _renamed(word: str, rename: Callable[[str], str]) -> str:
    quote = word[0] if word[0] in "'\"" else ""
    match = _FILE.fullmatch(word.strip(quote) if quote else word)
    if match is None:
        return word
    new = rename(match["name"])
    quote = quote or ('"' if " " in new else "")
    return f"{quote}{match['number'] or ''}{new}{match['format'] or ''}{quote}"
