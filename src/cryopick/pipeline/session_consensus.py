"""The consensus of several pickers while micrographs come: a stream beside the session.

It is for people to look at, in the job ``live_consensus``; that which particles are cut from is
found by the last pass, from all micrographs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError
from cryopick.pipeline.project import Project
from cryopick.pipeline.run_context import RunContext
from cryopick.pipeline.session_aside import Aside, Tell

__all__ = ["LiveConsensus", "join_live"]

STEP = "live_consensus"
_PAUSE = 60.0  # s before a stream that broke is tried again


def join_live(
    run: RunContext,
    folders: Mapping[str, Path],
    out: Path,
    *,
    tell: Tell,
    say: Callable[[str], None],
) -> None:
    """Be a consensus in stream until it is ended, in a process of its own.

    Raises
    ------
    CryopickError
        If the sets cannot be joined, or `out` cannot be written.
    """
    from cryopick.pipeline.consensus_stream import join_stream
    from cryopick.pipeline.consensus_stream_parameters import ConsensusStreamParameters
    from cryopick.pipeline.run_consensus import consensus_request

    stream = ConsensusStreamParameters(stream=True)
    if run.parameters.consensus == "network":
        stream = replace(stream, preliminary=True)
    join_stream(
        consensus_request(run, folders),
        out,
        stream=stream,
        progress=lambda step, share: tell(step, share, ""),
    )


class LiveConsensus:
    """The consensus of a session.

    Parameters
    ----------
    project
        Open, to be written.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._identity = ""
        self._folder: Path | None = None
        self._stream: Aside | None = None
        self._not_before = 0.0
        self.trouble = ""

    def follow(self, run: RunContext, folders: Mapping[str, Path]) -> None:
        """Join these sets, those of before if they are the same.

        Parameters
        ----------
        run
            What steps share; without what cannot go to another process.
        folders
            Of the jobs of the pickers, and of those before them, by step.

        Raises
        ------
        OutputError, ProjectError
            If the project cannot be written.
        """
        text = json.dumps([STEP, run.parameters.consensus, sorted(map(str, folders.values()))])
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        if identity != self._identity:
            self.end()
            found = self._project.find_job(STEP, identity)
            if found is None:
                found = self._project.new_job(STEP, identity)
            else:
                found = self._project.resume_job(found.number)
            self._project.set_alias(STEP, found.number)
            self._identity, self._folder = identity, self._project.job_folder(found.number)
        if self._stream is None and self._folder and time.monotonic() > self._not_before:
            self._stream = Aside("live consensus", join_live, run, dict(folders), self._folder)

    def look(self) -> dict[str, Any] | None:
        """Say where it stands; None before it began."""
        if self._stream is not None and self._stream.is_over:
            try:
                self._stream.result()
            except CryopickError as error:
                self.trouble = str(error)
            self.end()
            self._not_before = time.monotonic() + _PAUSE
        if self._folder is None:
            return None
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self._folder / "stream.json").read_bytes())
        return {
            "state": found.get("state", "waiting"),
            "n_taken": int(found.get("n_taken", 0)),
            "folder": str(self._folder),
            "trouble": self.trouble,
        }

    def end(self) -> None:
        """End the process."""
        if self._stream is not None:
            self._stream.end()
            self._stream = None
