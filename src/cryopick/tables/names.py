"""Micrograph names across programs: files and tables of others often hold only part of a name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from cryopick.errors import TableError
from cryopick.tables.paths import micrograph_key

__all__ = ["MicrographNames", "bare_name", "coordinate_stem", "file_stems"]

_IMAGE = {".mrc", ".mrcs", ".map", ".rec", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg"}
_IMAGE |= {".hdf", ".hdf5", ".em", ".spi", ".dm4", ".gz", ".bz2"}
_COORDINATE = {".star", ".pos", ".box", ".cbox", ".json", ".txt", ".tab", ".tsv", ".coords"}
_PICKS = ("_autopick", "_manualpick", "_automatch", "_topazpicks")
_ENDINGS = (*_PICKS, "_extract", "_info", "_boxes", "_truth")  # the last is of simulations


def _without(name: str, suffixes: set[str]) -> str:
    path = PurePosixPath(name)
    while path.suffix.lower() in suffixes:
        path = path.with_suffix("")
    return str(path)


def bare_name(name: str) -> str:
    """Name of a micrograph without folder and image suffix; other dots stay.

    Examples
    --------
    >>> bare_name("Movies/FoilHole_1.2_x.mrc")
    'FoilHole_1.2_x'
    """
    return PurePosixPath(_without(str(name).replace("\\", "/"), _IMAGE)).name


def coordinate_stem(name: str) -> str:
    """Path of the micrograph that a coordinate file belongs to, without any suffix.

    Examples
    --------
    >>> coordinate_stem("Movies/a.b_autopick.star")
    'Movies/a.b'
    """
    stem = _without(name, _COORDINATE)
    for ending in _ENDINGS:
        if stem.endswith(ending) and len(stem) > len(ending):
            return stem.removesuffix(ending)
    return _without(stem, _IMAGE)


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Path without suffix for a file about each micrograph.

    Most programs look for files by the bare name of the micrograph; folders are kept only where
    two micrographs would otherwise share a file.

    Examples
    --------
    >>> file_stems(["Movies/a.mrc", "Movies/b.mrc"])
    {'Movies/a.mrc': 'a', 'Movies/b.mrc': 'b'}
    >>> file_stems(["1/a.mrc", "2/a.mrc"])
    {'1/a.mrc': '1/a', '2/a.mrc': '2/a'}
    """
    unique = list(dict.fromkeys(names))
    bare = [bare_name(name) for name in unique]
    if len(set(bare)) == len(bare):
        return dict(zip(unique, bare, strict=True))
    return {name: micrograph_key(_image_name(name)) for name in unique}


class MicrographNames:
    """Finds the full name of a micrograph from what another program kept of it.

    Parameters
    ----------
    names
        The full names; with none, a part is completed by ``.mrc``.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._known = list(dict.fromkeys(names))
        self._by: list[dict[str, list[str]]] = [{}, {}, {}]
        for name in self._known:
            for level, key in enumerate((name, micrograph_key(_image_name(name)), bare_name(name))):
                self._by[level].setdefault(key, []).append(name)

    def __bool__(self) -> bool:
        return bool(self._known)

    def find(self, part: str, *, source: str) -> str:
        """Full name of the micrograph that `part` stands for.

        Raises
        ------
        TableError
            If no known micrograph fits, or several do.
        """
        if not self._known:
            return part if _without(part, _IMAGE) != part else f"{part}.mrc"
        found = self._fitting(part)
        if len(found) == 1:
            return found[0]
        if found:
            raise TableError(
                source,
                must=f"name one micrograph by {part}",
                got=f"{len(found)} that fit: {', '.join(found[:2])}",
                remedy="Keep the folders of the micrographs in the names, or convert one "
                "folder at a time",
            )
        raise TableError(
            source,
            must="be of a micrograph that --micrographs lists",
            got=f"{part}, which is not among {len(self._known)} names such as {self._known[0]}",
            remedy="Give the --micrographs that were picked",
        )

    def is_known(self, part: str) -> bool:
        """Whether `part` stands for a known micrograph, or for several."""
        return bool(self._fitting(part))

    def _fitting(self, part: str) -> list[str]:
        whole = micrograph_key(_image_name(part))
        for level, key in enumerate((part, whole, bare_name(part))):
            if found := self._by[level].get(key):
                return found
        return []


def _image_name(name: str) -> str:
    """Make every name end in a suffix, so that micrograph_key strips no dot of the name."""
    return f"{_without(name, _IMAGE)}.mrc"
