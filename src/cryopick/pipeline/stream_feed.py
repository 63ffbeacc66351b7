"""Particles that arrive while they are waited for, in tables that grow or in folders of tables.

Whatever is taken up is written to a list, ``arrivals.jsonl``, before it is used: one line for
some rows of one table. The list alone says which particles there are and in which order; started
again, the feed reads it and goes on with what has come since. A particle that two tables name is
taken once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopick.errors import CryopickError, FormatError, TableError
from cryopick.io.line_list import append_lines, read_lines
from cryopick.io.mrc import MrcHeader, read_mrc_header
from cryopick.tables.joining import join_particles
from cryopick.tables.model import Particles
from cryopick.tables.paths import resolve_path
from cryopick.tables.relion import read_particles

__all__ = ["ARRIVALS", "Arrival", "ParticleFeed"]

ARRIVALS = "arrivals.jsonl"
_SETTLED = 2.0  # s without a change, after which a file counts as written
_KEPT_TABLES = 4  # read last
_LABEL, _HEAD = b"_rlnImageName", 1 << 16  # bytes of a table that name its columns


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Some rows of a table, in the order in which they were taken up."""

    table: str
    first: int
    stop: int
    digest: str  # of the names of the images

    def __len__(self) -> int:
        return self.stop - self.first


class ParticleFeed:
    """Looks for new particles in tables and folders.

    Parameters
    ----------
    inputs
        STAR files, which may grow or not be there yet, and folders, all of whose STAR files of
        particles are taken.
    folder
        Where the list of arrivals is kept.
    pixel_size
        A/px of the particles, instead of what the tables say.
    check
        Called with every table that has new particles; what it raises refuses the table.
    check_stack
        Likewise with every stack that a table names for the first time, and its header.

    Attributes
    ----------
    errors : dict
        What is wrong with each table that is not taken, or not any further, by its name.

    Raises
    ------
    FormatError
        If the list of arrivals is broken.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        folder: Path,
        *,
        pixel_size: float | None = None,
        check: Callable[[Particles], None] | None = None,
        check_stack: Callable[[Path, MrcHeader], None] | None = None,
    ) -> None:
        self._inputs = [Path(i) for i in inputs]
        self._list = Path(folder) / ARRIVALS
        self._pixel_size, self._check, self._check_stack = pixel_size, check, check_stack
        self.errors: dict[str, CryopickError] = {}
        self._seen: dict[str, str] = {}  # stamp of each table when it was last read
        self._read_rows: dict[str, int] = {}  # rows looked at, in the list or named twice
        self._known: set[int] = set()
        self._tables: dict[str, tuple[str, Particles]] = {}
        self._arrivals = read_lines(self._list, lambda x: Arrival(**x), name="arrivals")
        for arrival in self._arrivals:
            part = self._rows_of(arrival)
            if check is not None and arrival is self._arrivals[0]:
                check(part)
            names = self._names(part)
            self._known.update(_hashes(names).tolist())
            self._read_rows[arrival.table] = max(
                arrival.stop, self._read_rows.get(arrival.table, 0)
            )

    def __len__(self) -> int:
        return sum(map(len, self._arrivals))

    @property
    def n_twice(self) -> int:
        """Count the rows that name a particle that was taken before."""
        return sum(self._read_rows.values()) - len(self)

    @property
    def refused(self) -> dict[str, str]:
        """Give a sentence for each table that is not taken, or not any further."""
        return {name: str(error) for name, error in self.errors.items()}

    def take(self, first: int, stop: int, *, target: Path) -> Particles:
        """Read particles by their place in the order of arrival.

        Parameters
        ----------
        first, stop
            Places, from 0; `stop` is at most the number of particles.
        target
            File that the table will be written to.

        Raises
        ------
        TableError
            If a table does not hold any more what was taken from it.
        """
        parts, place = [], 0
        for arrival in self._arrivals:
            low, high = max(first, place), min(stop, place + len(arrival))
            if low < high:
                part = self._rows_of(arrival)
                chosen = part.rows.iloc[low - place : high - place]
                parts.append(Particles(rows=chosen, optics=part.optics, source=part.source))
            place += len(arrival)
        return join_particles(parts, target=target)

    def poll(self, *, is_last: bool = False) -> int:
        """Look for new particles, and write them to the list.

        Parameters
        ----------
        is_last
            Take files that may still be written, and refuse those that are not whole.

        Returns
        -------
        int
            How many there are that were not there before.

        Raises
        ------
        OutputError
            If the list cannot be written.
        """
        fresh: list[Arrival] = []
        for path in self._files():
            name = str(path)
            stamp = _stamp(path)
            if not stamp or stamp == self._seen.get(name) or name in self.errors:
                continue
            if not is_last and _age(path) < _SETTLED:
                continue
            try:
                found, is_whole = self._look(path, is_last=is_last)
            except CryopickError as error:
                if is_last:
                    self.errors[name] = error
                continue
            fresh += found
            if is_whole:
                self._seen[name] = stamp
        if fresh:
            append_lines(self._list, map(asdict, fresh))
            self._arrivals += fresh
        return sum(map(len, fresh))

    def _files(self) -> list[Path]:
        """List the tables there are; those of a folder in the order of their names."""
        found: list[Path] = []
        for given in self._inputs:
            is_folder = given.is_dir()
            found += self._files_in(given) if is_folder else [given]
        return list(dict.fromkeys(found))

    def _files_in(self, folder: Path) -> list[Path]:
        """List the tables of particles in a folder, but for those of the stream itself."""
        tables, root, own = sorted(folder.rglob("*.star")), folder.resolve(), self._list.parent
        if own.resolve().is_relative_to(root):
            rounds = folder / own.resolve().relative_to(root) / "rounds"
            tables = [t for t in tables if rounds not in t.parents]
        return list(filter(_is_of_particles, tables))

    def _look(self, path: Path, *, is_last: bool) -> tuple[list[Arrival], bool]:
        """Find the rows of a table that are new and whose images are there."""
        name, table = str(path), self._read(path)
        hashes = _hashes(self._names(table))
        self._require_grown(name, hashes)
        is_new = np.array([h not in self._known for h in hashes.tolist()], bool)
        is_new &= ~pd.Series(hashes).duplicated().to_numpy()
        stop = len(table)
        if is_new.any() or len(table) > self._read_rows.get(name, 0):
            with self._refusing(name):
                if self._check is not None:
                    self._check(table)
                stop = self._whole_rows(table, is_new)
        if is_last and stop < len(table):
            missing = str(resolve_path(str(table.rows["image"].iloc[stop]), table.source))
            self.errors[name] = FormatError(
                missing,
                must=f"hold the images that {name} lists",
                got=f"no image for row {stop + 1}",
                remedy="Start again when it is whole",
            )
        if stop < len(table):  # what a table does not say of a stack is read from the stack
            self._tables.pop(name, None)
        self._known.update(hashes[:stop].tolist())
        self._read_rows[name] = stop
        arrivals = [
            Arrival(table=name, first=low, stop=high, digest=_digest(hashes[low:high]))
            for low, high in _stretches(is_new[:stop])
        ]
        return arrivals, stop == len(table)

    @contextlib.contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        """Refuse a table if it does not fit."""
        try:
            yield
        except CryopickError as error:
            self.errors[name] = error
            raise

    def _require_grown(self, name: str, hashes: np.ndarray) -> None:
        taken = [a for a in self._arrivals if a.table == name]
        first = self._read_rows.get(name, 0)
        if len(hashes) < first or any(_digest(hashes[a.first : a.stop]) != a.digest for a in taken):
            error = TableError(
                name,
                must="only grow while it is read",
                got=f"{len(hashes)} other rows where {first} were taken",
                remedy="Give new particles in a table of their own",
            )
            self.errors[name] = error
            raise error

    def _whole_rows(self, table: Particles, is_new: np.ndarray) -> int:
        """Count the rows up to the first new one whose image is not there yet."""
        rows = table.rows[is_new]
        depth = {n: self._images_in(n, table) for n in rows["image"].unique()}
        stacks = rows["image"].map(depth).to_numpy(np.int64)
        is_there = rows["image_index"].to_numpy(np.int64) < stacks
        missing = np.flatnonzero(is_new)[~is_there]
        return int(missing[0]) if len(missing) else len(table)

    def _images_in(self, name: str, table: Particles) -> int:
        """Count the images that a stack holds; 0 while it is not there or not whole."""
        path = resolve_path(str(name), table.source)
        try:
            header = read_mrc_header(path)
        except CryopickError:
            return 0
        if self._check_stack is not None:
            self._check_stack(path, header)
        return int(header.shape[0])

    def _rows_of(self, arrival: Arrival) -> Particles:
        """Read what an arrival stands for, and see that it is still the same."""
        table = self._read(Path(arrival.table))
        rows = table.rows.iloc[arrival.first : arrival.stop]
        part = Particles(rows=rows, optics=table.optics, source=table.source)
        if _digest(_hashes(self._names(part))) != arrival.digest:
            raise TableError(
                arrival.table,
                must="hold what was taken from it",
                got=f"other particles in rows {arrival.first + 1} to {arrival.stop}",
                remedy="Bring it back, or begin again in another --out",
            )
        return part

    def _read(self, path: Path) -> Particles:
        name = str(path)
        path = resolve_path(name, self._list)  # it may go on from another folder
        stamp = _stamp(path)
        known = self._tables.get(name)
        if known is None or known[0] != stamp:
            self._tables.pop(name, None)
            while len(self._tables) >= _KEPT_TABLES:
                self._tables.pop(next(iter(self._tables)))
            known = self._tables[name] = (stamp, read_particles(path, pixel_size=self._pixel_size))
        return known[1]

    def _names(self, table: Particles) -> pd.Series:
        """Name each image by where it lies, wherever its table does."""
        rows = table.rows
        places = {
            n: os.path.realpath(resolve_path(str(n), table.source))
            for n in rows["image"].dropna().unique()
        }
        return rows["image_index"].astype(str) + "@" + rows["image"].map(places).astype(str)


def _is_of_particles(path: Path) -> bool:
    """Whether a file of a folder names images: there are other tables, as of micrographs."""
    try:
        with path.open("rb") as handle:
            return _LABEL in handle.read(_HEAD)
    except OSError:
        return False


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _age(path: Path) -> float:
    """Seconds since a file was changed; a clock that runs ahead makes it old."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:  # it has just gone
        return 0.0
    return age if age >= 0 else _SETTLED


def _hashes(names: pd.Series) -> np.ndarray:
    return pd.util.hash_pandas_object(names, index=False).to_numpy()


def _digest(hashes: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(hashes).tobytes(), digest_size=8).hexdigest()


def _stretches(mask: np.ndarray) -> Iterable[tuple[int, int]]:
    """Cut a mask into stretches that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
