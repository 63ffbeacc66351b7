"""Micrographs that appear while they are waited for: in folders, by patterns, in lists, by name.

A file is taken when it is complete: it had the same size and time of change at two looks, so far
apart by our own clock as files need to settle, and its header says that all of it is there. A file
that was renamed after it had been written is complete at once: a rename changes the time of its
entry and not that of its content. Folders are looked through, because network disks tell nobody
what another machine has written.
"""

from __future__ import annotations

import csv
import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from cryopick.errors import CryopickError, FormatError
from cryopick.io.micrograph_length import require_whole_micrograph
from cryopick.tables.micrographs import is_image_name, micrograph_path
from cryopick.tables.model import Micrographs

__all__ = ["Look", "Waiting", "Watch"]

_LISTS = (".csv", ".txt")
_COLUMNS = ("micrograph", "rlnmicrographname", "path", "file", "filename")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A file that is not complete."""

    name: str
    why: str
    since: float  # s since 1970


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen."""

    complete: tuple[str, ...]  # names of new files, in the order in which they became complete
    waiting: tuple[Waiting, ...]
    trouble: str = ""  # why a folder or list could not be read


@dataclass(kw_only=True)
class _Seen:
    """A file that was seen and not taken."""

    stamp: tuple[int, int] = (-1, -1)
    since: float = 0.0  # of the stamp, by the monotonic clock
    first: float = 0.0  # s since 1970
    why: str = ""


@dataclass(kw_only=True)
class Watch:
    """Looks for new images.

    Attributes
    ----------
    inputs
        Folders, patterns, lists (CSV, or one name a line) and names of images.
    settle
        s without a change after which a file counts as written.
    clock
        Monotonic, s.
    read_table
        Reads a STAR file that lists images.
    taken
        Names that are known already.
    tables
        The last STAR file that could be read, by its name.
    """

    inputs: Sequence[str]
    read_table: Callable[[str], Micrographs]
    settle: float = 2.0
    clock: Callable[[], float] = time.monotonic
    taken: set[str] = field(default_factory=set)
    added: list[str] = field(default_factory=list)  # by people, while the session runs
    tables: dict[str, Micrographs] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)  # of what each STAR file lists
    _known: dict[tuple[str, str], str] = field(default_factory=dict)  # places by file and name
    _read: dict[str, _Seen] = field(default_factory=dict)

    def look(self) -> Look:
        """Look once."""
        complete, trouble = [], ""
        names: list[str] = []
        for given in (*self.inputs, *self.added):
            try:
                names += [n for n in self._names_of(given) if n not in self.taken]
            except (CryopickError, OSError) as error:
                trouble = f"{given} cannot be read: {error}"
        for name in dict.fromkeys(names):
            if self._is_complete(name):
                complete.append(name)
                self.taken.add(name)
                self._seen.pop(name, None)
        for gone in set(self._seen).difference(names):
            del self._seen[gone]
        waiting = tuple(
            Waiting(name=name, why=seen.why, since=seen.first) for name, seen in self._seen.items()
        )
        return Look(complete=tuple(complete), waiting=waiting, trouble=trouble)

    def _names_of(self, given: str) -> Iterator[str]:
        if given.endswith(".star"):
            return iter(self._of_star(given))
        return _names_of(given, self.taken)

    def _of_star(self, given: str) -> list[str]:
        """List what a STAR file names; one that is being written counts as it was before."""
        path, now = Path(given), self.clock()
        seen = self._read.setdefault(given, _Seen())
        try:
            status = path.stat()
        except FileNotFoundError:
            return self.places.get(given, [])
        stamp = (status.st_size, status.st_mtime_ns)
        if stamp != seen.stamp:
            seen.stamp, seen.since, seen.why = stamp, now, "new"
        if seen.why and now - seen.since >= self.settle:
            table = self.read_table(given)
            names = [str(n) for n in table.rows["micrograph"]]
            self.places[given] = [self._place(n, given, table) for n in names]
            self.tables[given], seen.why = table, ""
        return self.places.get(given, [])

    def _place(self, name: str, given: str, table: Micrographs) -> str:
        """Where a micrograph of a STAR file lies; one that was found is not looked for again."""
        if (given, name) in self._known:
            return self._known[given, name]
        path = micrograph_path(name, table.source)
        if path.exists():
            self._known[given, name] = str(path)
        return str(path)

    def _is_complete(self, name: str) -> bool:
        now = self.clock()
        seen = self._seen.setdefault(name, _Seen(first=time.time()))
        try:
            status = Path(name).stat()
        except OSError:
            seen.stamp, seen.why = (-1, -1), "The file is not there yet."
            return False
        stamp = (status.st_size, status.st_mtime_ns)
        if stamp != seen.stamp:
            seen.stamp, seen.since = stamp, now
        is_renamed = status.st_ctime_ns > status.st_mtime_ns
        if now - seen.since < self.settle and not is_renamed:
            seen.why = "It is still being written."
            return False
        try:
            require_whole_micrograph(Path(name))
        except FormatError as error:
            seen.why = str(error)
            return False
        return True


def _names_of(given: str, taken: Set[str]) -> Iterator[str]:
    """List the names that an input leads to now; those in a folder less the ones known."""
    path = Path(given)
    if path.is_dir():
        begin = str(path / "a")[:-1]
        with os.scandir(path) as entries:
            new = (e for e in entries if begin + e.name not in taken)
            found = [e.name for e in new if is_image_name(e.name) and not e.is_dir()]
        yield from (begin + name for name in sorted(found))
    elif path.suffix.lower() in _LISTS:
        yield from _listed(path)
    elif glob.has_magic(given):
        yield from sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (absolute globs)
    else:
        yield given


def _listed(path: Path) -> Iterator[str]:
    """Read the names of a list, whose last line counts when it has an end."""
    if not path.exists():
        return
    text = path.read_text(errors="replace")
    lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    place = 0
    if lines:
        heads = [word.strip().lower().lstrip("_") for word in lines[0]]
        known = [k for k, head in enumerate(heads) if head in _COLUMNS]
        if known:
            place, lines = known[0], lines[1:]
    for words in lines:
        if len(words) > place and words[place].strip() and not words[0].startswith("#"):
            yield _found(words[place].strip(), path)


def _found(name: str, source: Path) -> str:
    """Let a name that starts from its list work from the working folder."""
    there = source.parent / name
    return str(there) if not Path(name).exists() and there.exists() else name
