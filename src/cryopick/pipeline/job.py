"""A job: one command at work in one folder, that can be killed at any time and goes on.

The folder holds ``job.json`` (command, parameters, versions, inputs, times) and ``ledger.jsonl``,
to which one line is added for every item finished or refused. Results are committed by rename
before their line is written, so a line is a promise that its files are whole. Started again
with the same parameters, a job skips what its ledger says is done and tries again what failed;
with other parameters it refuses, so that nothing is overwritten silently.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from cryopick.errors import OtherJobError, OutputError, ProjectError
from cryopick.execution.local import Executor
from cryopick.io.atomic import make_folder, output_errors, remove_leftovers, write_json
from cryopick.io.line_list import whole_lines
from cryopick.pipeline.growing import keeps_missing, kept_ledgers, rests_refused
from cryopick.pipeline.versions import known_versions

__all__ = [
    "Job",
    "ProgressCallback",
    "Record",
    "Task",
    "forgotten_if_not_begun",
    "identity_of",
    "take_back_items",
]

ProgressCallback = Callable[[int, int], None]  # items done, items in all

_SCHEMA = 1
_MISSING = "missing"  # instead of size and time of a file
_STAMP = r"(?:\d+:\d+|missing)"  # of one file, by `identity_of`
_STAMPS = re.compile(rf" \({_STAMP}(?: {_STAMP})*\)")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One item of work; `payload` is what the worker function gets."""

    key: str  # unique in the job
    identity: str  # changes when an input changes
    payload: Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the ledger says of one item."""

    key: str
    identity: str
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    attempts: list[dict[str, str]] = field(default_factory=list)  # whose worker died: host, reason

    @property
    def is_done(self) -> bool:
        """Whether the item's results are whole."""
        return not self.error


def identity_of(*paths: Path) -> str:
    """Size and time of change of each file: enough to see that an input was replaced."""
    parts = []
    for path in paths:
        try:
            status = Path(path).stat()
            parts.append(f"{status.st_size}:{status.st_mtime_ns}")
        except OSError:
            parts.append(_MISSING)
    return " ".join(parts)


def take_back_items(folder: Path, keys: Sequence[str], *, why: str) -> None:
    """Let the job of a folder do items again that its ledger says are done.

    Parameters
    ----------
    folder
        Of the job, which nobody is at work in.
    keys
        Of the items.
    why
        A sentence, the error of each until it is done.

    Raises
    ------
    OutputError
        If the ledger cannot be written.
    """
    path = Path(folder) / "ledger.jsonl"
    with output_errors(path), path.open("ab") as ledger:
        if not path.read_bytes().endswith(b"\n"):  # its last line was cut off by a kill
            ledger.write(b"\n")
        for key in keys:
            _append(ledger, Record(key=key, identity="", error=why))


@contextlib.contextmanager
def forgotten_if_not_begun(
    folder: Path,
    *,
    begun: str,
    files: Sequence[str] = (),
    on: type[BaseException] = BaseException,
) -> Iterator[None]:
    """Free a folder for other parameters if a new job fails before it has found anything.

    Parameters
    ----------
    folder
        Of the job.
    begun
        Name or pattern of a file that is there once something has been found.
    files
        That are removed beside ``job.json``.
    on
        What the job fails with; other exceptions leave all as it is.
    """
    folder = Path(folder)
    is_new = not (folder / "job.json").exists()
    try:
        yield
    except ProjectError:  # the folder is somebody else's
        raise
    except on:
        if is_new and not any(folder.glob(begun)):
            for name in ("job.json", *files):
                (folder / name).unlink(missing_ok=True)
        raise


class Job:
    """A folder of results and the right to write to it.

    Use as a context manager; the folder is locked while it is open.

    Parameters
    ----------
    folder
        Where the results go; made if need be.
    name
        The command, for example ``pick log``.
    parameters
        All values that change the results, as JSON takes them.
    inputs
        Files or tables the command was given.
    results
        Files of the folder that join the items. Found without a job that made them, they
        belong to somebody else and are not overwritten.
    overwrite
        Throw away what a job with other parameters left in the folder.
    adjustable
        Names of parameters that may have another value than the job in the folder had.

    Raises
    ------
    ProjectError
        If the folder holds another job or results of unknown origin, or the same job is running.
    OutputError
        If the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        parameters: Mapping[str, Any],
        inputs: Sequence[str] = (),
        results: Sequence[str] = (),
        overwrite: bool = False,
        adjustable: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.name = name
        self.parameters: dict[str, Any] = json.loads(json.dumps(dict(parameters)))
        self.inputs = [str(i) for i in inputs]
        self.results = list(results)
        self._overwrite = overwrite
        self._adjustable = frozenset(adjustable)
        self._records: dict[str, Record] = {}
        self._started = time.time()

    def __enter__(self) -> Self:
        make_folder(self.folder)
        self._lock()
        try:
            before = self._read_description()
            if not self._is_same(before):
                if not self._overwrite:
                    self._require_empty(before)
                self._clear(before or {})
            self._records = self._known_records()
            self._write_description(state="running")
        except BaseException:
            self._lock_handle.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write_description(state="finished")
                kept = kept_ledgers()
                if kept is not None:
                    kept.keep(self.folder / "ledger.jsonl", self._records)
                return
            with contextlib.suppress(OutputError):  # the first error is the one to tell
                self._write_description(state="stopped")
        finally:
            self._lock_handle.close()

    def stored_parameters(self) -> dict[str, Any] | None:
        """Parameters of the job of this name that the folder holds, without opening it.

        Returns
        -------
        dict or None
            None where there is no job yet, or the one there is to be overwritten.

        Raises
        ------
        ProjectError
            If the folder holds another job, or parameters that are not adjustable differ.
        """
        if self._overwrite:
            return None
        before = self._read_description()
        if self._is_same(before):
            return dict((before or {}).get("parameters") or {})
        self._require_empty(before)
        return None

    def run(
        self,
        executor: Executor,
        function: Callable[[Any], dict[str, Any]],
        tasks: Sequence[Task],
        *,
        progress: ProgressCallback | None = None,
    ) -> list[Record]:
        """Do what is not yet done and return one record per task, in the order of `tasks`.

        Parameters
        ----------
        executor
            Runs `function` over the payloads.
        function
            Takes a payload, commits its results to files and returns a small summary for
            the ledger.
        tasks
            The items.
        progress
            Called with the number of items done and in all.

        Raises
        ------
        OutputError
            If the ledger cannot be written, for example because the disk is full.
        """
        waiting = [t for t in tasks if not self._is_finished(t)]
        done = len(tasks) - len(waiting)
        if progress:
            progress(done, len(tasks))
        path = self.folder / "ledger.jsonl"
        with output_errors(path):
            ledger = path.open("ab")
        outcomes = executor.map_unordered(function, [t.payload for t in waiting])
        with ledger, contextlib.closing(outcomes):  # no worker writes when the lock is gone
            for outcome in outcomes:
                task = waiting[outcome.index]
                record = Record(
                    key=task.key,
                    identity=task.identity,
                    summary=outcome.value or {},
                    error=str(outcome.error or ""),
                    attempts=[asdict(a) for a in outcome.attempts],
                )
                self._records[task.key] = record
                with output_errors(path):
                    _append(ledger, record)
                done += 1
                if progress:
                    progress(done, len(tasks))
        return [self._records[t.key] for t in tasks]

    def _is_finished(self, task: Task) -> bool:
        record = self._records.get(task.key)
        if record is None:
            return False
        if keeps_missing() and record.is_done and task.identity.startswith(_MISSING):
            return True
        rests = rests_refused() and bool(record.identity)
        return (record.is_done or rests) and record.identity == task.identity

    def _lock(self) -> None:
        path = self.folder / ".lock"
        with output_errors(path):
            self._lock_handle = path.open("w")
        try:
            fcntl.flock(self._lock_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_handle.close()
            raise ProjectError(
                str(self.folder),
                must="be used by one run at a time",
                got="a run that is still going",
                remedy="Wait for it, or choose another --out",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # some network disks: the user must take care
                self._lock_handle.close()
                raise

    def _read_description(self) -> dict[str, Any] | None:
        """Read job.json; None where there is none, empty where it is broken."""
        path = self.folder / "job.json"
        try:
            description = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            return {}
        return description if isinstance(description, dict) else {}

    def _is_same(self, before: Mapping[str, Any] | None) -> bool:
        if before is None or before.get("name") != self.name:
            return False
        return self._fixed(before.get("parameters") or {}) == self._fixed(self.parameters)

    def _fixed(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in parameters.items() if k not in self._adjustable}

    def _require_empty(self, before: Mapping[str, Any] | None) -> None:
        """Refuse to write over another job, or over results that no job accounts for."""
        if before is None:
            found = [n for n in ("ledger.jsonl", *self.results) if (self.folder / n).exists()]
            if not found:
                return
            other = f"{found[0]} of unknown origin"
        elif not before:
            other = "a broken job.json"
        else:
            old, new = dict(before.get("parameters") or {}), self.parameters
            changed = [
                f"{k} {_difference(old.get(k), new.get(k))}"
                for k in {**old, **new}
                if old.get(k) != new.get(k) and k not in self._adjustable
            ]
            is_named = before.get("name") == self.name and changed
            other = f"`{before.get('name')}`"
            other += f" with {', '.join(changed[:3])}" if is_named else ""
        raise OtherJobError(
            str(self.folder),
            must=f"be empty or hold `{self.name}` with the same parameters",
            got=other,
            remedy="Choose another --out, or add --overwrite",
        )

    def _clear(self, before: Mapping[str, Any]) -> None:
        names = [n for record in self._read_ledger().values() for n in _files_of(record)]
        for name in (*names, *before.get("results", ()), "ledger.jsonl"):
            path = self.folder / name
            with output_errors(path):
                if path.is_dir() and not path.is_symlink():  # a volume in OME-Zarr
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)

    def _known_records(self) -> dict[str, Record]:
        """Tidy the folder and read what is done, unless that was done for a portion before."""
        kept = kept_ledgers()
        records = None if kept is None else kept.recall(self.folder / "ledger.jsonl")
        if records is None:
            remove_leftovers(self.folder)
            records = self._read_ledger()
        return records

    def _read_ledger(self) -> dict[str, Record]:
        """Read what is done; a line that is no record means that its item is done again."""
        records: dict[str, Record] = {}
        for line in whole_lines(self.folder / "ledger.jsonl"):
            with contextlib.suppress(ValueError, TypeError):
                record = Record(**json.loads(line))
                records[record.key] = record
        return records

    def _write_description(self, *, state: str) -> None:
        now = time.time()
        n_failed = sum(1 for r in self._records.values() if r.error)
        description = {
            "schema": _SCHEMA,
            "name": self.name,
            "state": state,
            "command": " ".join(sys.argv),
            "parameters": self.parameters,
            "inputs": self.inputs,
            "results": self.results,
            "versions": known_versions(),
            "host": platform.node(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
            "seconds": round(now - self._started, 3),
            "n_done": len(self._records) - n_failed,
            "n_failed": n_failed,
        }
        write_json(self.folder / "job.json", description)


def _difference(old: object, new: object) -> str:
    """Tell two values of a parameter apart in words, without the stamps of files."""
    before, after = (
        _STAMPS.sub("", ", ".join(map(str, v)) if isinstance(v, list) else str(v))
        for v in (old, new)
    )
    is_same = before == after  # the same names: what they name has changed
    return f"{before} before a change" if is_same else f"{before} instead of {after}"


def _append(ledger: IO[bytes], record: Record) -> None:
    values = asdict(record)
    if not record.attempts:
        del values["attempts"]
    ledger.write(json.dumps(values).encode() + b"\n")
    ledger.flush()
    os.fsync(ledger.fileno())


def _files_of(record: Record) -> list[str]:
    return list(record.summary.get("files", ()))
