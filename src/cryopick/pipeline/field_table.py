"""The fields of a project and all that its jobs say of them, kept up to date as they work.

Names and CTF come from the table that the project was given; what the jobs have found from their
ledgers, of which each look reads only what is new. Nothing here is written.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.io.star import read_star
from cryopick.pipeline.field_columns import COLUMNS, UNSHOWN, values_of_ctf, values_of_picks
from cryopick.pipeline.ledger_tail import LedgerItem, LedgerTail
from cryopick.pipeline.project_aliases import read_aliases
from cryopick.pipeline.project_layout import LEDGER, list_job_folders
from cryopick.pipeline.star_counts import count_by_micrograph
from cryopick.tables.paths import micrograph_key

__all__ = ["MICROGRAPHS", "FieldTable", "field_id", "find_job_of", "job_kind"]

MICROGRAPHS = "micrographs.star"
_ROLES: Mapping[str, tuple[str, ...]] = {  # names of steps, the one that counts first
    "ctf": ("ctf",),
    "picks": ("picks", "live_picks", "pick", "first_picks"),
    "particles": ("particles", "live_particles", "extract", "first_particles"),
    "selection": ("selection",),
}
_KINDS = {"ctf": "ctf estimate", "picks": "pick ", "particles": "extract", "selection": "select"}
_OF_TABLE = {
    "ctf_resolution": "rlnCtfMaxResolution",
    "ctf_fom": "rlnCtfFigureOfMerit",
    "ice_ring": "cryopickIceRing",
    "phase_shift": "rlnPhaseShift",
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
}
_NUMBERS = (
    *(n for n, c in COLUMNS.items() if c.kind == "number" and n != "number"),
    *UNSHOWN,
)

Floats = NDArray[np.float64]


def field_id(name: str) -> str:
    """Name a field by twelve hexadecimal digits that its name alone decides.

    Examples
    --------
    >>> field_id("MotionCorr/job002/movies/a.mrc") == field_id("movies/a.mrc")
    True
    """
    return hashlib.sha256(micrograph_key(name).encode()).hexdigest()[:12]


def job_kind(folder: Path) -> str:
    """Name the command that a job's folder is of; empty where nothing says it."""
    try:
        return str(json.loads((folder / "job.json").read_bytes()).get("name") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def find_job_of(project: Path, role: str) -> Path | None:
    """Find the folder of the job that counts for a role.

    Parameters
    ----------
    project
        Its folder.
    role
        ``ctf``, ``picks``, ``particles`` or ``selection``.

    Returns
    -------
    Path or None
        That of an alias; else of the latest job of such a step, done or not.
    """
    folders, aliases = list_job_folders(project), read_aliases(project)
    for name in _ROLES[role]:
        if aliases.get(name) in folders:
            return folders[aliases[name]]
        latest = [n for n, folder in folders.items() if folder.name.split("_", 1)[1] == name]
        if latest:
            return folders[max(latest)]
    fits = [n for n, f in folders.items() if _is_of_kind(f, _KINDS[role])]
    return folders[max(fits)] if fits else None


def _is_of_kind(folder: Path, begin: str) -> bool:
    kind = job_kind(folder)
    return kind.startswith(begin) and "train" not in kind


@dataclass(kw_only=True)
class _Source:
    """A job that says something of the fields."""

    values: Callable[[Mapping[str, Any]], dict[str, float]]
    columns: tuple[str, ...]
    tail: LedgerTail | None = None
    early: list[LedgerItem] = field(default_factory=list)  # of fields that are not listed yet


@dataclass(kw_only=True)
class FieldTable:
    """All fields of a project, in the order in which it came to know them.

    Attributes
    ----------
    project
        Its folder.
    names, ids
        Of the fields; `index` tells the place of an id.
    numbers
        A column of floats for each name of a number, NaN where it is not known.
    errors
        Why a field was refused, by its place, and by which step.
    """

    project: Path
    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, Floats] = field(default_factory=dict)
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)
    source: Path | None = None  # the table with their names
    version: int = 0  # grows with every change
    _places: dict[str, int] = field(default_factory=dict)  # by key
    _stamp: tuple[int, int] = (0, 0)
    _selected: tuple[str, int, int] = ("", 0, 0)
    _sources: dict[str, _Source] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def refresh(self) -> set[int] | None:
        """Take in what is new.

        Returns
        -------
        set of int or None
            Places of the fields that have changed; None where all may have.

        Raises
        ------
        FormatError, ProjectError
            If the table of the fields, or the aliases, cannot be read.
        """
        changed = self._read_names()
        for role in ("ctf", "picks", "particles"):
            found = self._follow(role)
            changed = None if changed is None or found is None else changed | found
        if self._count_selected():
            changed = None
        if changed is None or changed:
            self.version += 1
            self.numbers["yield"] = _share(self.numbers["selected"], self.numbers["picks"])
        return changed

    def place_of(self, name: str) -> int | None:
        """Tell the place of the field that a table calls by a name."""
        return self._places.get(micrograph_key(name))

    def place_of_key(self, key: str) -> int | None:
        """Tell the place of the field whose results a job names by a key."""
        return self._places.get(key)

    def _read_names(self) -> set[int] | None:
        """Read the names anew if their table is another; those known before keep their place."""
        path = find_field_table(self.project)
        stamp = (0, 0)
        if path is not None:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
        if stamp == self._stamp and self.numbers:
            return set()
        blocks = {} if path is None else read_star(path)
        rows = next((b for b in blocks.values() if "rlnMicrographName" in b), None)
        names = [] if rows is None else [str(n) for n in rows["rlnMicrographName"]]
        n_before = len(self.names)
        if not n_before or path != self.source or names[:n_before] != self.names:
            n_before = 0
            self._places, self.ids, self.index = {}, [], {}
            self.numbers = {n: np.zeros(0) for n in _NUMBERS}
            self.errors, self._sources, self._selected = {}, {}, ("", 0, 0)
        self.source, self._stamp, self.names = path, stamp, names
        self._add(names[n_before:])
        if rows is not None:
            self._take_ctf({c: rows[c].to_numpy()[n_before:] for c in rows.columns})
        return set(range(n_before, len(names))) if n_before else None

    def _add(self, names: Sequence[str]) -> None:
        """Take up fields that are new, of which nothing is known yet."""
        first = len(self.ids)
        ids = [field_id(name) for name in names]
        self._places |= {micrograph_key(name): first + k for k, name in enumerate(names)}
        self.index |= {one: first + k for k, one in enumerate(ids)}
        self.ids = self.ids + ids
        unknown = np.full(len(names), np.nan)
        self.numbers = {n: np.concatenate([values, unknown]) for n, values in self.numbers.items()}

    def _take_ctf(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take the CTF that the table itself says of the last fields."""
        first = len(self.names) - len(next(iter(columns.values())))
        if {"rlnDefocusU", "rlnDefocusV"} <= set(columns):
            u, v = (columns[c].astype(np.float64) for c in ("rlnDefocusU", "rlnDefocusV"))
            self.numbers["defocus"][first:] = (u + v) / 2
            self.numbers["astigmatism"][first:] = np.abs(u - v)
        for name, label in _OF_TABLE.items():
            if label in columns:
                self.numbers[name][first:] = columns[label].astype(np.float64)

    def _follow(self, role: str) -> set[int] | None:
        """Read what the ledger of the job of a role has gained."""
        folder = find_job_of(self.project, role)
        path = None if folder is None else folder / LEDGER
        source = self._sources.setdefault(role, _new_source(role))
        is_other = (source.tail.path if source.tail else None) != path
        if is_other:
            source.tail = None if path is None else LedgerTail(path=path)
        items = [] if source.tail is None else source.tail.read_new()
        is_new = is_other or (source.tail is not None and source.tail.was_replaced)
        items = items if is_new else [*source.early, *items]
        if is_new:
            self._forget(role, source)
        changed = self._take_items(role, source, items)
        return None if is_new else changed

    def _forget(self, role: str, source: _Source) -> None:
        if role != "ctf" or source.tail is not None:
            for name in source.columns:
                self.numbers[name][:] = np.nan
        self.errors = {place: e for place, e in self.errors.items() if e[0] != role}

    def _take_items(self, role: str, source: _Source, items: Iterable[LedgerItem]) -> set[int]:
        changed = set()
        source.early = []
        for item in items:
            place = self._places.get(item.key)
            if place is None:
                source.early.append(item)
                continue
            changed.add(place)
            self._take_time(place, item.identity)
            if self.errors.get(place, ("",))[0] == role:
                del self.errors[place]
            if item.error:
                self.errors[place] = (role, item.error)
                for name in source.columns:
                    self.numbers[name][place] = np.nan
                continue
            for name, value in source.values(item.summary).items():
                self.numbers[name][place] = value
        return changed

    def _take_time(self, place: int, identity: str) -> None:
        """Take the time of change of the file, which is a part of an item's identity."""
        stamp = identity.partition(" ")[0].partition(":")[2]
        if stamp.isdigit():
            self.numbers["time"][place] = int(stamp) / 1e9

    def _count_selected(self) -> bool:
        """Count the particles of good classes, if their table is another than before."""
        folder = find_job_of(self.project, "selection")
        path = None if folder is None else folder / "particles.star"
        stamp = ("", 0, 0)
        if path is not None and path.is_file():
            status = path.stat()
            stamp = (str(path), status.st_ino, status.st_mtime_ns)
        if stamp == self._selected:
            return False
        self._selected = stamp
        counts = self.numbers["selected"]
        counts[:] = np.nan
        if path is not None and stamp[0]:
            counts[~np.isnan(self.numbers["picks"])] = 0
            for name, count in _by_place(count_by_micrograph(path), self.place_of).items():
                counts[name] = count
        return True


def find_field_table(project: Path) -> Path | None:
    """Find the table that names the fields: that of the run, else the one a job has written."""
    path = project / MICROGRAPHS
    if path.is_file():
        return path
    for role in ("ctf", "picks"):
        folder = find_job_of(project, role)
        if folder is None:
            continue
        for name in ("micrographs_ctf.star", MICROGRAPHS, "subset.star"):
            if (folder / name).is_file():
                return folder / name
    return None


def _new_source(role: str) -> _Source:
    if role == "ctf":
        names = ("defocus", "astigmatism", "phase_shift", "ctf_resolution", "ctf_fom", "ice_ring")
        return _Source(values=values_of_ctf, columns=(*names, "ctf_trusted", *UNSHOWN))
    if role == "picks":
        found = ("picks", "mean_score", "threshold", "searched", "background")
        return _Source(values=values_of_picks, columns=found)
    return _Source(
        values=lambda summary: {"particles": float(summary["n_particles"])}, columns=("particles",)
    )


def _by_place(counts: Counter[str], place_of: Callable[[str], int | None]) -> dict[int, int]:
    found = {place_of(name): count for name, count in counts.items()}
    return {place: count for place, count in found.items() if place is not None}


def _share(part: Floats, whole: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = part / whole
    return np.where(whole > 0, found, np.nan)
