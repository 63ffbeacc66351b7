"""A project: a folder of numbered jobs, their names, the choices of people, and who manages it.

All that is true of a project is in files that are written whole; the index is made from them. A
project opened for writing is held under a lease, and each change asks first whether it still is.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from cryopick.errors import OutputError, ProjectError
from cryopick.io.atomic import write_json
from cryopick.io.disk_space import require_space
from cryopick.io.json_files import read_object
from cryopick.pipeline.project_aliases import read_aliases, require_alias_name, write_aliases
from cryopick.pipeline.project_decisions import Decision, add_decision, read_decisions
from cryopick.pipeline.project_index import Index
from cryopick.pipeline.project_layout import RUN, list_job_folders, now, require_step_name
from cryopick.pipeline.project_lease import Lease, LeaseTimes
from cryopick.pipeline.project_numbers import REMOVED, claim_folder
from cryopick.pipeline.project_opening import (
    describe_under_lease,
    put_right,
    require_current,
    require_openable,
)
from cryopick.pipeline.project_records import (
    StepRecord,
    made_files,
    read_step,
    write_step,
)
from cryopick.pipeline.project_schema import ProjectDescription
from cryopick.pipeline.versions import known_versions

__all__ = ["REMOVED", "Project"]

_ROOM = 64 << 10  # bytes: for a record and what follows it


class Project:
    """An open project; `open` makes one. Use as a context manager, or call `close`.

    Attributes
    ----------
    folder
        As it was given, so that names made from it hold from the working folder.
    description
        What ``project.json`` says.
    notes
        Sentences for the user: what was put right when the project was opened.
    """

    def __init__(
        self, folder: Path, description: ProjectDescription, lease: Lease | None = None
    ) -> None:
        self.folder = Path(folder)
        self.description = description
        self.notes: list[str] = []
        self._lease = lease
        self._index: Index | None = None
        self._begun: dict[int, float] = {}  # of jobs at work, by a clock that is never set

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        create: bool = False,
        writes: bool = True,
        command: str | None = None,
        times: LeaseTimes | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Self:
        """Open a project.

        Parameters
        ----------
        folder
            Of the project.
        create
            Make a project of an empty folder, or of none.
        writes
            Take the lease, to change the project; without it only reading is possible, also
            while another process writes.
        command
            What is being done, for others to read; the command line if not given.
        times
            Of the lease.
        tell
            Called with a sentence when the lease has to be waited for.

        Raises
        ------
        ProjectError
            If the folder holds something else, a project of a newer schema, or one that another
            process manages.
        OutputError
            If it cannot be written.
        """
        folder = Path(folder)
        if not writes:
            return cls(folder, require_current(folder))
        require_openable(folder, create=create)
        lease = Lease(folder, command=command, times=times, tell=tell).acquire()
        try:
            project = cls(folder, describe_under_lease(folder, create=create), lease)
            project.notes += put_right(folder, project.jobs())
            return project
        except BaseException:
            lease.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Bring the index up to date and give the lease back."""
        try:
            if self._lease is not None and not self._lease.is_lost:
                with contextlib.suppress(OutputError):  # it is made from the files another time
                    self.update_index()
        finally:
            if self._index is not None:
                self._index.close()
                self._index = None
            if self._lease is not None:
                self._lease.release()
                self._lease = None

    def require_lease(self) -> None:
        """Refuse to go on if this process does not, or no longer, manage the project.

        Raises
        ------
        ProjectError
            If another process has taken over, or the project was opened for reading.
        """
        if self._lease is None:
            raise ProjectError(
                str(self.folder),
                must="be opened for writing to be changed",
                got="a project opened for reading",
                remedy="Open it with writes=True",
            )
        self._lease.require()

    def jobs(self) -> dict[int, StepRecord]:
        """Read the records of all jobs, by number; one that is broken is left out."""
        found = {}
        for number, folder in list_job_folders(self.folder).items():
            with contextlib.suppress(ProjectError):  # `cryopick project verify` says so
                found[number] = read_step(folder)
        return found

    def job(self, number: int) -> StepRecord:
        """Record of a job.

        Raises
        ------
        ProjectError
            If there is no such job, or its record is broken.
        """
        return read_step(self.job_folder(number))

    def job_folder(self, number: int) -> Path:
        """Folder of a job, to be given to the function that does its work.

        Raises
        ------
        ProjectError
            If there is no such job.
        """
        folders = list_job_folders(self.folder)
        if number not in folders:
            raise ProjectError(
                str(self.folder),
                must="hold the job that is asked for",
                got=f"no job {number}",
                remedy="List them with: cryopick project status",
            )
        return folders[number]

    def find_job(self, step: str, identity: str) -> StepRecord | None:
        """Find the job of a step that depends on the same things: one that is done before others.

        Parameters
        ----------
        step
            Its name.
        identity
            Of what its result depends on.

        Returns
        -------
        StepRecord or None
            One that is not done was killed or failed; `resume_job` goes on with it.
        """
        fits = [j for j in self.jobs().values() if (j.step, j.identity) == (step, identity)]
        return max(fits, key=lambda j: (j.is_done, j.number)) if identity and fits else None

    def new_job(
        self,
        step: str,
        identity: str,
        *,
        upstream: Mapping[str, str] | None = None,
        upstream_content: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        inputs: Sequence[str] = (),
    ) -> StepRecord:
        """Make the folder of a new job and its record, in state running.

        Parameters
        ----------
        step
            Small letters, digits and underscores.
        identity
            Of what its result depends on.
        upstream
            Identities of the jobs it is made from, by step.
        upstream_content
            ``result["content"]`` of these jobs as they are now, by step; where one is given, the
            job is outdated when that changes.
        parameters
            As JSON takes them.
        inputs
            Files or tables it was given.

        Raises
        ------
        ProjectError
            If the lease is lost or the name of the step is none.
        OutputError
            If the folder cannot be written.
        """
        require_step_name(step)
        self.require_lease()
        require_space(self.folder, _ROOM)
        folder = claim_folder(self.folder, step, self.jobs().values())
        record = StepRecord(
            number=int(folder.name.split("_")[0]),
            step=step,
            identity=identity,
            upstream=dict(upstream or {}),
            upstream_content=dict(upstream_content or {}),
            parameters=json.loads(json.dumps(dict(parameters or {}))),
            command=" ".join(sys.argv),
            versions=known_versions(),
            inputs=tuple(map(str, inputs)),
            started=now(),
        )
        self._begun[record.number] = time.monotonic()
        write_step(folder, record)
        return record

    def resume_job(
        self, number: int, *, upstream_content: Mapping[str, str] | None = None
    ) -> StepRecord:
        """Set a job that was killed, has failed, or has got more to do, to running again.

        Parameters
        ----------
        number
            Of the job.
        upstream_content
            As for `new_job`; if not given, that of before.

        Raises
        ------
        ProjectError
            If there is no such job, or the lease is lost.
        OutputError
            If the record cannot be written.
        """
        self.require_lease()
        self._begun[number] = time.monotonic()
        changes: dict[str, Any] = {"state": "running", "error": "", "versions": known_versions()}
        if upstream_content is not None:
            changes["upstream_content"] = dict(upstream_content)
        return self._change(number, **changes)

    def finish_job(
        self, number: int, *, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> StepRecord:
        """Record what became of a job: done, or failed with an error.

        Parameters
        ----------
        number
            Of the job.
        result
            What it found, as JSON takes it.
        error
            Why it failed; empty for a job that is done.

        Raises
        ------
        ProjectError
            If there is no such job, or the lease is lost.
        OutputError
            If the record cannot be written.
        """
        self.require_lease()
        require_space(self.folder, _ROOM)
        begun = self._begun.pop(number, None)
        seconds = 0.0 if begun is None else time.monotonic() - begun
        return self._change(
            number,
            seconds=seconds,
            state="failed" if error else "done",
            error=error,
            result=None if result is None else json.loads(json.dumps(dict(result))),
            files={} if error else made_files(self.job_folder(number)),
        )

    def aliases(self) -> dict[str, int]:
        """Numbers of jobs by alias; the alias with the name of a step is its current job."""
        return read_aliases(self.folder)

    def set_alias(self, name: str, number: int) -> None:
        """Let a name stand for a job.

        Raises
        ------
        ProjectError
            If the job is not there, the name is taken by a file, or is that of another step.
        OutputError
            If it cannot be written.
        """
        self.require_lease()
        record = self.job(number)
        require_alias_name(self.folder, name)
        if name != record.step and name in {job.step for job in self.jobs().values()}:
            raise ProjectError(
                f"alias {name}",
                must="stand for a job of the step of that name",
                got=f"job {number}, which is a {record.step}",
                remedy="Choose another name or number",
            )
        aliases = self.aliases()
        if aliases.get(name) != number:
            write_aliases(self.folder, {**aliases, name: number})

    def remove_alias(self, name: str) -> None:
        """Take a name back; the job stays.

        Raises
        ------
        ProjectError
            If there is no such alias.
        OutputError
            If it cannot be written.
        """
        self.require_lease()
        aliases = self.aliases()
        if name not in aliases:
            raise ProjectError(
                f"alias {name}",
                must="be there to be removed",
                got=", ".join(aliases) or "no alias at all",
                remedy="List them with: cryopick project status",
            )
        write_aliases(self.folder, {n: k for n, k in aliases.items() if n != name})

    def decisions(self) -> list[Decision]:
        """Choices of people, oldest first."""
        return read_decisions(self.folder)

    def add_decision(self, what: str, **values: Any) -> Decision:
        """Record a choice of a person, for good.

        Raises
        ------
        ProjectError
            If the lease is lost.
        OutputError
            If it cannot be written.
        """
        self.require_lease()
        return add_decision(self.folder, what, values)

    def run_parameters(self) -> dict[str, Any] | None:
        """Parameters of the last run; None where there was none, or they cannot be read."""
        return read_object(self.folder / RUN)

    def write_run_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep the parameters of a run.

        Raises
        ------
        ProjectError
            If the lease is lost.
        OutputError
            If they cannot be written.
        """
        self.require_lease()
        write_json(self.folder / RUN, dict(parameters))

    def update_index(self) -> None:
        """Take into the index what has changed in the files; made anew if it is broken.

        Raises
        ------
        ProjectError
            If the lease is lost.
        OutputError
            If the index cannot be written. The files are not affected.
        """
        self.require_lease()
        if self._index is not None:
            try:
                self._index.update()
                return
            except OutputError:
                self._index.close()
                self._index = None
        self._index = Index.for_writing(self.folder)
        self.notes += [self._index.note] if self._index.note else []

    def read_index(self) -> Index:
        """Open the index for reading; it is up to date, and to be closed by the caller."""
        return Index.for_reading(self.folder)

    def _change(self, number: int, *, seconds: float = 0.0, **values: Any) -> StepRecord:
        before = self.job(number)
        record = replace(before, seconds=round(before.seconds + seconds, 3), **values)
        write_step(self.job_folder(number), record)
        return record
