"""The index of a project: what its files say, in one SQLite file that may be deleted at any time.

Only the manager of a project writes it. Readers open it read-only; where it is missing, broken or
behind the files they read on in memory, and the file stays as it is. The journal is a file that is
deleted, not a write-ahead log, which needs memory shared by all readers and fails on network disks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from cryopick.errors import OutputError, ProjectError
from cryopick.io.atomic import aside_path, commit_file, output_errors
from cryopick.pipeline.project_aliases import read_aliases
from cryopick.pipeline.project_decisions import read_decisions
from cryopick.pipeline.project_layout import (
    ALIASES,
    DECISIONS,
    DESCRIPTION,
    INDEX,
    LEDGER,
    STEP,
    list_job_folders,
)
from cryopick.pipeline.project_records import StepRecord, read_ledger, read_step

__all__ = ["Index", "ItemCounts"]

_VERSION = 1  # of the tables; an index of another version is made anew
_BATCH = 2000  # items
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, step TEXT NOT NULL, identity TEXT NOT NULL, state TEXT NOT NULL,
    started TEXT NOT NULL, seconds REAL NOT NULL, error TEXT NOT NULL, record TEXT NOT NULL,
    stamp TEXT NOT NULL, ledger TEXT NOT NULL, ledger_bytes INTEGER NOT NULL
);
CREATE TABLE items (
    job INTEGER NOT NULL, micrograph TEXT NOT NULL, step TEXT NOT NULL, state TEXT NOT NULL,
    error TEXT NOT NULL, PRIMARY KEY (job, micrograph)
) WITHOUT ROWID;
CREATE TABLE aliases (name TEXT PRIMARY KEY, job INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY, made TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    choice TEXT NOT NULL
);
"""
_NAMES = ("meta", "jobs", "items", "aliases", "decisions")


class ItemCounts(NamedTuple):
    """Items of a job."""

    n_done: int = 0
    n_failed: int = 0


class Index:
    """An open index; use as a context manager.

    `for_writing` and `for_reading` make one.
    """

    def __init__(self, project: Path, connection: sqlite3.Connection, note: str = "") -> None:
        self.note = note  # a sentence, where the file was not as it should be
        self._project = Path(project)
        self._connection = connection

    @classmethod
    def for_writing(cls, project: Path) -> Self:
        """Open the index of a project that this process manages, and bring it up to date.

        A missing one is made; a broken one is made anew, and `note` says so.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        path = Path(project, INDEX)
        with _writing(path):
            note = ""
            if path.exists():
                with contextlib.suppress(sqlite3.DatabaseError, _OtherVersion):
                    found = cls(project, _connect(path))
                    try:
                        found._require_version()
                        found.refresh()
                        return found
                    except BaseException:
                        found.close()
                        raise
                note = f"{path} was broken, and has been made anew from the files."
            cls._make(project)
            return cls(project, _connect(path), note)

    @classmethod
    def for_reading(cls, project: Path) -> Self:
        """Open the index, up to date, without writing anything to the project.

        Where the file is missing, broken or behind, `note` says so and the index is in memory.
        """
        path = Path(project, INDEX)
        if not path.exists():
            return cls.from_files(project, f"{path} is missing; the files were read instead.")
        index = cls(project, sqlite3.connect(":memory:"))
        try:
            with contextlib.closing(_connect_read_only(path)) as stored:
                stored.backup(index._connection)
            index._require_version()
            index.refresh()
        except (sqlite3.DatabaseError, _OtherVersion):
            index.close()
            return cls.from_files(project, f"{path} cannot be read; the files were read instead.")
        return index

    @classmethod
    def from_files(cls, project: Path, note: str = "") -> Self:
        """Make an index in memory, from the files alone."""
        index = cls(project, sqlite3.connect(":memory:"), note)
        index._connection.executescript(_TABLES)
        index.refresh()
        return index

    @classmethod
    def rebuild(cls, project: Path) -> None:
        """Make the index anew from the files of the project.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with _writing(Path(project, INDEX)):
            cls._make(project)

    @classmethod
    def _make(cls, project: Path) -> None:
        path = Path(project, INDEX)
        aside = aside_path(path)
        journals = [p.with_name(f"{p.name}-journal") for p in (path, aside)]
        try:
            aside.unlink(missing_ok=True)
            with cls(project, _connect(aside)) as index:
                index._connection.executescript(_TABLES)
                index.refresh()
            if journals[0].exists():  # of a killed writer: it must not be played back into the new
                path.unlink(missing_ok=True)
                journals[0].unlink(missing_ok=True)
            commit_file(aside, path)
        finally:
            for left in (aside, journals[1]):
                left.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def refresh(self) -> None:
        """Take in what has changed in the files since the index was last brought up to date."""
        with self._connection:
            self._refresh_meta()
            folders = list_job_folders(self._project)
            known = {row[0]: row[1:] for row in self._rows("SELECT number, stamp FROM jobs")}
            for number in set(known) - set(folders):
                self._forget(number)
            for number, folder in folders.items():
                self._refresh_job(number, folder, known.get(number, (None,))[0])
            self._refresh_small("aliases", ALIASES, self._fill_aliases)
            self._refresh_small("decisions", DECISIONS, self._fill_decisions)

    def update(self) -> None:
        """Take in what has changed; as `refresh`, of an index opened for writing.

        Raises
        ------
        OutputError
            If the index is broken or cannot be written.
        """
        with _writing(Path(self._project, INDEX)):
            self.refresh()

    def counts(self) -> dict[int, ItemCounts]:
        """Items done and failed of each job that has items."""
        rows = self._rows(
            "SELECT job, sum(state = 'done'), sum(state = 'failed') FROM items GROUP BY job"
        )
        return {job: ItemCounts(done, failed) for job, done, failed in rows}

    def items(self, job: int, *, state: str | None = None) -> Iterator[tuple[str, str, str]]:
        """Micrograph, state and error of the items of a job, by name, one after the other.

        Parameters
        ----------
        job
            Its number.
        state
            Only those ``done`` or ``failed``.
        """
        query = "SELECT micrograph, state, error FROM items WHERE job = ?"
        if state is None:
            return self._rows(f"{query} ORDER BY micrograph", job)
        return self._rows(f"{query} AND state = ? ORDER BY micrograph", job, state)

    def dump(self) -> Iterator[str]:
        """Write every row as one line, in an order that depends on the rows alone."""
        for name in _NAMES:
            for row in self._rows(f"SELECT * FROM {name} ORDER BY 1, 2"):
                yield f"{name} {json.dumps(row)}"

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        return iter(self._connection.execute(query, values))

    def _require_version(self) -> None:
        ((found,),) = self._rows("SELECT max(value) FROM meta WHERE name = 'version'")
        ((check,),) = self._rows("SELECT count(*) FROM sqlite_master WHERE type = 'table'")
        if found != str(_VERSION) or check != len(_NAMES):
            raise _OtherVersion

    def _refresh_meta(self) -> None:
        stamp = _stamp(self._project / DESCRIPTION)
        values = (("version", str(_VERSION)), ("project", stamp))
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)

    def _refresh_small(self, name: str, file: str, fill: Callable[[], None]) -> None:
        stamp = _stamp(self._project / file)
        if [(stamp,)] != list(self._rows("SELECT value FROM meta WHERE name = ?", name)):
            fill()
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, stamp))

    def _fill_aliases(self) -> None:
        self._connection.execute("DELETE FROM aliases")
        with contextlib.suppress(ProjectError):  # a broken file: `verify` says so
            aliases = read_aliases(self._project)
            self._connection.executemany("INSERT INTO aliases VALUES (?, ?)", aliases.items())

    def _fill_decisions(self) -> None:
        self._connection.execute("DELETE FROM decisions")
        rows = [
            (n, d.when, d.who, d.what, json.dumps(d.values))
            for n, d in enumerate(read_decisions(self._project), start=1)
        ]
        self._connection.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", rows)

    def _refresh_job(self, number: int, folder: Path, known: str | None) -> None:
        stamp = _stamp(folder / STEP)
        if stamp != known:
            try:
                record = read_step(folder)
            except ProjectError:  # `verify` says so
                self._forget(number)
                return
            self._insert_job(record, stamp)
        self._refresh_items(number, folder / LEDGER)

    def _insert_job(self, record: StepRecord, stamp: str) -> None:
        values = (
            record.number,
            record.step,
            record.identity,
            record.state,
            record.started,
            record.seconds,
            record.error,
            json.dumps(record.to_dict()),
            stamp,
        )
        self._connection.execute(
            "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0) ON CONFLICT (number) DO "
            "UPDATE SET step = excluded.step, identity = excluded.identity, "
            "state = excluded.state, started = excluded.started, seconds = excluded.seconds, "
            "error = excluded.error, record = excluded.record, stamp = excluded.stamp",
            values,
        )

    def _refresh_items(self, number: int, path: Path) -> None:
        """Read the lines that a ledger has gained; all, if it is another file than before."""
        query = "SELECT step, ledger, ledger_bytes FROM jobs WHERE number = ?"
        ((step, name, start),) = self._rows(query, number)
        found, size = _file_and_size(path)
        if found == name and size == start:
            return
        if found != name or size < start:
            self._connection.execute("DELETE FROM items WHERE job = ?", (number,))
            start = 0
        lines = read_ledger(path, start=start)
        while batch := list(itertools.islice(lines, _BATCH)):
            self._connection.executemany(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)",
                [(number, line.key, step, line.state, line.error) for line in batch],
            )
            start = batch[-1].end
        self._connection.execute(
            "UPDATE jobs SET ledger = ?, ledger_bytes = ? WHERE number = ?", (found, start, number)
        )

    def _forget(self, number: int) -> None:
        self._connection.execute("DELETE FROM jobs WHERE number = ?", (number,))
        self._connection.execute("DELETE FROM items WHERE job = ?", (number,))


class _OtherVersion(Exception):
    """The tables are those of another version."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _connect_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one sentence why the index cannot be written."""
    with output_errors(path, option="folder"):
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                str(path),
                must="be written to its disk",
                got=str(error),
                remedy="Check the room on the disk and its permissions; the files are not affected",
            ) from error


def _stamp(path: Path) -> str:
    """Name the state of a small file that is only ever replaced or added to."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _file_and_size(path: Path) -> tuple[str, int]:
    try:
        status = path.stat()
    except OSError:
        return "", 0
    return str(status.st_ino), status.st_size
