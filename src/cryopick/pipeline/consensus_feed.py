"""Micrographs and coordinates that arrive while a consensus runs.

A micrograph is ready when it is whole and every picker has looked at it; once no more is to come,
when one has. What is taken is frozen: the candidates of a micrograph are written to ``taken/``
and its name to the list ``arrivals.jsonl`` before they are used. So a stream that is killed goes
on with the same candidates, and a set that changes afterwards changes nothing.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import CryopickError, FormatError
from cryopick.io.atomic import writing
from cryopick.io.line_list import append_lines, read_lines
from cryopick.io.micrograph import read_micrograph_size
from cryopick.picking.consensus_points import Consensus
from cryopick.pipeline.consensus_sets import (
    CandidateField,
    CoordinateSet,
    find_candidates,
    read_set,
)
from cryopick.tables.micrographs import micrograph_path, open_micrographs, pixel_sizes
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key

__all__ = ["ARRIVALS", "TAKEN", "ConsensusFeed", "Waiting"]

ARRIVALS, TAKEN = "arrivals.jsonl", "taken"
_SETTLED = 2.0  # s without a change, after which picks or a micrograph count as written
_FIELDS = ("positions", "has_vote", "scores", "spread")


class Waiting:
    """What is waited for, in numbers."""

    def __init__(self, names: Sequence[str], missing: Mapping[str, int]) -> None:
        self.names = list(names)  # micrographs that are ready and not taken
        self.missing = dict(missing)  # micrographs without picks of a set, by its path


class ConsensusFeed:
    """Looks for micrographs that all pickers have seen.

    Parameters
    ----------
    sets
        Files or folders of picks, which may grow or not be there yet.
    micrographs
        One STAR file; or paths, folders and globs of images. Likewise.
    folder
        Where the list of arrivals is kept.
    set_pixel_sizes
        A/px of each set, or None.
    pixel_size
        A/px of the micrographs, instead of what their table or headers say.
    check
        Called with every micrograph, by its full name, that is about to be taken; what it raises
        refuses the micrograph.

    Attributes
    ----------
    table : Micrographs or None
        As it was when it was last read.
    sets : list
        The sets as they were when they were last read; None where one is not there yet.
    errors : dict
        What was wrong with a set or the table at the last look, by its name.
    changed : set
        Micrographs whose picks have changed since they were taken; that has no effect.

    Raises
    ------
    FormatError
        If the list of arrivals is broken.
    """

    def __init__(
        self,
        sets: Sequence[Path],
        micrographs: Sequence[str],
        folder: Path,
        *,
        set_pixel_sizes: Sequence[float | None],
        pixel_size: float | None = None,
        check: Callable[[Micrographs, str], None] | None = None,
    ) -> None:
        self._paths, self._inputs = [Path(s) for s in sets], list(micrographs)
        self._sizes, self._pixel_size = list(set_pixel_sizes), pixel_size
        self._folder = Path(folder)
        self._check = check
        self.table: Micrographs | None = None
        self.sets: list[CoordinateSet | None] = [None] * len(self._paths)
        self.errors: dict[str, CryopickError] = {}
        self.refused: dict[str, str] = {}  # micrographs, and why
        self.changed: set[str] = set()
        self._since: dict[tuple[int, str], tuple[str, float]] = {}  # picks, and since when so
        self._arrivals = read_lines(self._folder / ARRIVALS, _arrival, name="arrivals")
        self._taken = {a["micrograph"]: a for a in self._arrivals}

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def radius(self) -> float | None:
        """Least distance of different particles that the first was taken with, A."""
        return float(self._arrivals[0]["radius"]) if self._arrivals else None

    @property
    def taken(self) -> list[str]:
        """Micrographs in the order in which they were taken."""
        return [str(a["micrograph"]) for a in self._arrivals]

    def look(self, *, is_last: bool = False) -> Waiting:
        """Read what has come, and see what is ready.

        Parameters
        ----------
        is_last
            Take what may still be written, and micrographs that only some pickers have seen.

        Raises
        ------
        CryopickError
            If this is the last look, and the table or a set cannot be read.
        """
        self.errors = {}
        self._read(is_last=is_last)
        if self.table is None:
            return Waiting([], {})
        ready, missing = [], dict.fromkeys(map(str, self._paths), 0)
        for name in map(str, self.table.rows["micrograph"]):
            looks = [self._look_of(n, name, is_last=is_last) for n in range(len(self._paths))]
            if name in self._taken or name in self.refused:
                continue
            for path, is_seen in zip(self._paths, looks, strict=True):
                missing[str(path)] += not is_seen
            is_ready = any(looks) if is_last else all(looks)
            if is_ready and self._is_whole(name, is_last=is_last):
                ready.append(name)
        return Waiting(ready, missing)

    def take(self, names: Sequence[str], *, radius: float) -> list[CandidateField]:
        """Freeze the candidates of some micrographs.

        Parameters
        ----------
        names
            That are ready.
        radius
            Least distance of different particles, A.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        assert self.table is not None
        wanted = set(names)
        rows = self.table.rows[self.table.rows["micrograph"].isin(wanted)].reset_index(drop=True)
        some = Micrographs(rows=rows, optics=self.table.optics, source=self.table.source)
        known = [
            CoordinateSet(path=p, positions={}, scores={}, box=None, n_unlisted=0)
            if s is None
            else s
            for p, s in zip(self._paths, self.sets, strict=True)
        ]
        fields = find_candidates(some, known, radius=radius)
        for field in fields:
            _save(self._folder / TAKEN / f"{field.key}.npz", field)
        fresh: list[dict[str, Any]] = [
            {"micrograph": f.micrograph, "radius": radius, "picks": self._digests(f.micrograph)}
            for f in fields
        ]
        append_lines(self._folder / ARRIVALS, fresh)
        self._arrivals += fresh
        self._taken |= {a["micrograph"]: a for a in fresh}
        return fields

    def fields(self) -> list[CandidateField]:
        """Give all that was taken, in the order of the table.

        Raises
        ------
        FormatError
            If what was taken is not there any more.
        """
        assert self.table is not None
        sizes = dict(zip(self.table.rows["micrograph"], pixel_sizes(self.table), strict=True))
        missing = [name for name in self.taken if name not in sizes]
        found = []
        for name in (*missing, *(n for n in sizes if n in self._taken)):
            if missing:
                raise FormatError(
                    str(self.table.source or self._inputs[0]),
                    must="only grow while it is read",
                    got=f"no {name}, which was taken from it",
                    remedy="Bring it back, or begin again in another --out",
                )
            key = micrograph_key(name)
            found.append(
                _load(
                    self._folder / TAKEN / f"{key}.npz",
                    CandidateField(
                        micrograph=name,
                        key=key,
                        path=micrograph_path(name, self.table.source),
                        pixel_size=float(sizes[name]),
                        found=_NOTHING,
                        is_seen=np.empty(0, bool),
                    ),
                )
            )
        return found

    def _read(self, *, is_last: bool) -> None:
        """Read the table and the sets; what cannot be read is waited for."""
        try:
            self.table = open_micrographs(self._inputs, pixel_size=self._pixel_size)
        except CryopickError as error:
            if is_last:
                raise
            self.errors["micrographs"] = error
            return
        for number, (path, size) in enumerate(zip(self._paths, self._sizes, strict=True)):
            try:
                self.sets[number] = read_set(path, self.table, pixel_size=size)
            except CryopickError as error:
                if is_last:
                    raise
                self.errors[str(path)] = error

    def _look_of(self, number: int, name: str, *, is_last: bool) -> bool:
        """Whether a picker has seen a micrograph, and its picks are there as a whole."""
        one = self.sets[number]
        if one is None or name not in one.positions:
            return False
        digest, now = _digest(one, name), time.monotonic()
        if name in self._taken:
            if self._taken[name]["picks"][number] not in (None, digest):
                self.changed.add(name)
            return True
        before, since = self._since.get((number, name), ("", now))
        if digest != before:
            since = now
            self._since[number, name] = (digest, now)
        return is_last or now - since >= _SETTLED

    def _digests(self, name: str) -> list[str | None]:
        return [
            None if s is None or name not in s.positions else _digest(s, name) for s in self.sets
        ]

    def _is_whole(self, name: str, *, is_last: bool) -> bool:
        assert self.table is not None
        path = micrograph_path(name, self.table.source)
        try:
            age = time.time() - path.stat().st_mtime
            read_micrograph_size(path)
            if self._check is not None:
                self._check(self.table, name)
        except (CryopickError, OSError) as error:
            if is_last:
                self.refused[name] = str(error)
            return False
        return is_last or age < 0 or age >= _SETTLED


_NOTHING = Consensus(np.empty((0, 2)), np.empty((0, 0), bool), np.empty((0, 0)), np.empty(0))


def _digest(one: CoordinateSet, name: str) -> str:
    """Name the picks of a micrograph."""
    digest = hashlib.blake2b(one.positions[name].astype("<f8").tobytes(), digest_size=8)
    scores = one.scores[name]
    if scores is not None:
        digest.update(scores.astype("<f8").tobytes())
    return digest.hexdigest()


def _save(path: Path, field: CandidateField) -> None:
    found = field.found
    with writing(path) as handle:
        np.savez(
            handle,
            positions=found.positions,
            has_vote=found.has_vote,
            scores=found.scores,
            spread=found.spread,
            is_seen=field.is_seen,
        )


def _load(path: Path, field: CandidateField) -> CandidateField:
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = Consensus(*(stored[n] for n in _FIELDS))
            return CandidateField(
                micrograph=field.micrograph,
                key=field.key,
                path=field.path,
                pixel_size=field.pixel_size,
                found=found,
                is_seen=stored["is_seen"],
            )
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FormatError(
            str(path),
            must="hold the candidates of a micrograph that was taken",
            got="no whole file",
            remedy="Begin again in another --out",
        ) from error


def _arrival(values: Any) -> dict[str, Any]:
    return {
        "micrograph": str(values["micrograph"]),
        "radius": values["radius"],
        "picks": values["picks"],
    }
