"""A session: `cryopick run` on a list that grows.

The manager looks for micrographs, tells the planner of them, and carries out what that asks for:
micrograph by micrograph in its own workers, sets (classes, training) in a process beside. What it
knows is in the project, so it can be killed at any time and goes on. When nothing more is to come,
the last pass is that of `run`, in the same project, which finishes the jobs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.errors import OutputError, ProjectError
from cryopick.execution.kept import keeping_fleets
from cryopick.execution.local import count_cores, require_devices
from cryopick.io.atomic import make_folder
from cryopick.pipeline.accepted_fields import name_choices
from cryopick.pipeline.growing import KeptLedgers, Stage, growing
from cryopick.pipeline.planner import Again, Broke, Event, Listed, Make, Process, Processed
from cryopick.pipeline.project import Project
from cryopick.pipeline.run import RunResult, run_listed, step_contexts, under_lease
from cryopick.pipeline.run_context import RunContext
from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_table import MICROGRAPHS
from cryopick.pipeline.runner import follow_to_end
from cryopick.pipeline.session_beside import SetBeside
from cryopick.pipeline.session_graph import LIVE_STEPS, session_graph
from cryopick.pipeline.session_layout import (
    Request,
    read_requests,
    remove_request,
    session_folder,
)
from cryopick.pipeline.session_list import GrowingList
from cryopick.pipeline.session_order import NewestFirst
from cryopick.pipeline.session_runner import LiveRunner
from cryopick.pipeline.session_settings import SessionRequest, read_kept, write_settings
from cryopick.pipeline.session_view import SessionView

if TYPE_CHECKING:  # loads what computes
    from cryopick.pipeline.session_portion import LiveTables

__all__ = ["SessionRequest", "SessionResult", "run_session"]

_LOOK = 0.5  # s between two looks at requests while nothing else is done
_SLOW = 10.0  # a look for files may take so many times less than the pause after it
_LENS: Sequence[str] = ("voltage", "spherical_aberration", "amplitude_contrast")
_LEARNING = ("first_picks", "first_particles", "first_classes", "first_selection", "training")
_DISK_PAUSE = 30.0  # s before a disk that did not take results is tried again


def _quiet(*_: object) -> None:
    pass


class _StoppedError(Exception):
    """Somebody asks the session to stop while it is at work."""


@dataclass(frozen=True, kw_only=True)
class SessionResult:
    """How a session ended."""

    folder: Path
    counts: dict[str, Any]
    result: RunResult | None  # of the last pass; None if it was stopped before


def run_session(
    folder: Path,
    request: SessionRequest,
    *,
    progress: Callable[[str, float, str], None] = _quiet,
    say: Callable[[str], None] = _quiet,
) -> SessionResult:
    """Work on micrographs as they come, until somebody stops the session or it closes.

    Parameters
    ----------
    folder
        Of the project, which is made if need be. Started again, the session goes on.
    request
        What is watched, and what is to be done.
    progress
        Called with the step, its share done from 0 to 1, and a note.
    say
        Called with sentences for the user.

    Raises
    ------
    ProjectError
        If the folder holds something else, or another process manages the project.
    CryopickError
        If the inputs or parameters allow no session.
    """
    require_devices(request.compute)
    run_graph(request.parameters, has_ctf=False, pixel_size=request.pixel_size)
    with Project.open(folder, create=True, tell=say) as project, keeping_fleets():
        for note in project.notes:
            say(note)
        return _Session(project, request, progress=progress, say=say).go()


class _Session:
    """A session at work."""

    def __init__(
        self,
        project: Project,
        request: SessionRequest,
        *,
        progress: Callable[[str, float, str], None],
        say: Callable[[str], None],
    ) -> None:
        self._project, self._request = project, request
        self._progress, self._say = progress, say
        make_folder(session_folder(project.folder))
        self._kept = read_kept(project.folder, request)
        self._write_settings()
        parameters = request.parameters
        self._list = GrowingList(
            project.folder,
            project.folder / MICROGRAPHS,
            request.inputs,
            settle=request.session.settle,
            pixel_size=request.pixel_size,
            lens={n: getattr(parameters, n) for n in _LENS},
        )
        self._list.watch.added += self._kept.added
        self._view = SessionView(project, request.inputs, request.session, parameters)
        self._runner: LiveRunner | None = None
        self._tables: LiveTables | None = None
        self._ledgers = KeptLedgers()
        self._set = SetBeside()
        self._to_retry: set[str] = set()  # steps that broke, until more micrographs come
        self._is_paused = self._is_finishing = self._is_stopped = False
        self._looked = self._asked = -1e9
        self._look_pause = self._finish_asked = 0.0
        self._began = time.time()
        self._latest = time.monotonic()  # when a micrograph came or was worked on
        self._tell = under_lease(project, self._while_working)

    @property
    def _parameters(self) -> RunParameters:
        return replace(self._request.parameters, subset=self._kept.subset)

    def go(self) -> SessionResult:
        """Work until somebody stops the session or it closes."""
        result = None
        try:
            self._say(f"Watching {', '.join(self._request.inputs) or 'what is added'}.")
            while not self._is_stopped:
                with contextlib.suppress(_StoppedError):
                    if self._turn():
                        result = self._close()
                        break
            if self._tables is not None and result is None:
                self._tables.write()
            self._view.end("stopped", is_finished=result is not None)
        except KeyboardInterrupt:
            self._view.end("stopped", is_finished=False)
            raise
        except BaseException as error:
            with contextlib.suppress(ProjectError):  # the status may be another manager's by now
                self._project.require_lease()
                self._view.end("failed", is_finished=False, error=_sentence_of(error))
            raise
        finally:
            self._set.end()
            self._view.end_beside()
        return SessionResult(folder=self._project.folder, counts=self._view.counts(), result=result)

    def _turn(self) -> bool:
        """Do what is next; True when nothing is left and the session is to close."""
        try:
            self._tell("Watching", 0.0, "")
            self._take_up()
            self._hear_set()
            worked = not self._is_paused and self._work_once()
            if self._view.has_new_choices and self._runner is not None:
                self._view.feed(self._runner, self._shared, self._request)
            self._show("")
        except OutputError as error:  # of the disk: it may be mended
            self._show(f"Waiting for the disk. {error}")
            self._sleep(_DISK_PAUSE)
            return False
        if worked or self._set.is_at_work:
            self._latest = time.monotonic()
        if worked:
            return False
        if self._is_due_to_close():
            return True
        if self._tables is not None:
            self._tables.write()
        self._sleep(_LOOK)
        return False

    def _is_due_to_close(self) -> bool:
        """Whether to wait no more; files that are being written are waited for a little."""
        now, session = time.monotonic(), self._request.session
        idle = session.idle * 60
        if idle > 0 and now - self._latest > idle and not self._is_paused:
            return True
        patience = max(3 * session.settle, 2 * self._look_pause)
        is_late = now - self._finish_asked > patience
        return self._is_finishing and (is_late or self._has_looked_through())

    def _has_looked_through(self) -> bool:
        """Whether a look since the wish to finish has found nothing that is being written."""
        return self._looked > self._finish_asked and not self._list.last.waiting

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_stopped:
            time.sleep(min(_LOOK, max(until - time.monotonic(), 0.01)))
            self._take_requests()

    # Micrographs

    def _while_working(self, step: str, share: float, note: str) -> None:
        """Look about while a step is at work: for files, and for what people ask."""
        self._progress(step, share, note)
        self._look()
        self._take_requests()
        if self._is_stopped:
            raise _StoppedError
        if self._runner is not None:
            self._show("")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < self._look_pause:
            return
        new = self._list.look()
        self._looked = time.monotonic()
        self._look_pause = max(self._request.session.poll, _SLOW * (self._looked - now))
        if new:
            self._latest = time.monotonic()
            self._view.arrived([self._list.arrivals[name] for name in new])

    def _take_up(self) -> None:
        """Tell the planner of micrographs that have come."""
        if self._runner is None and len(self._list):
            self._runner = self._make_runner()
            self._follow()
        if self._runner is None:
            return
        runner = self._runner
        if len(self._list) > runner.state.count:
            for step in self._to_retry:
                runner.hear(Again(step=step))
            self._to_retry.clear()
            runner.micrographs = self._list.listed
            self._grow_subset()
            self._follow()
            runner.hear(Listed(count=len(self._list), is_closed=False))

    def _make_runner(self) -> LiveRunner:
        shared = RunContext(
            table=self._list.table,
            parameters=self._parameters,
            compute=self._request.compute,
            tell=self._tell,
            say=self._say,
        )
        self._shared = shared
        workers = self._request.compute.workers or count_cores()
        return LiveRunner(
            order=NewestFirst(backlog=self._request.session.backlog),
            least=2 * workers,
            project=self._project,
            context=step_contexts(shared, [step.name for step in self._graph()]),
            micrographs=self._list.listed,
            pixel_size=self._request.pixel_size,
            after=self._view.done,
        )

    def _graph(self) -> Any:
        return session_graph(
            self._parameters,
            has_ctf=self._list.has_ctf,
            pixel_size=self._request.pixel_size,
            is_live=self._request.session.live_picks and not self._kept.is_live_over,
        )

    def _follow(self) -> None:
        """Let the runner follow the steps that are wanted now, if they have changed."""
        assert self._runner is not None
        graph = self._graph()
        if graph == self._runner.state.graph:
            return
        self._shared = replace(self._shared, parameters=self._parameters)
        self._runner.context = step_contexts(self._shared, [step.name for step in graph])
        self._runner.follow(graph)
        self._project.write_run_parameters(
            {**self._parameters.to_dict(), "pixel_size": self._request.pixel_size}
        )

    # Work

    def _work_once(self) -> bool:
        """Carry out one instruction; False if there is none that can be."""
        if self._runner is None:
            return False
        instruction = self._runner.next_for(takes_sets=not self._set.is_at_work)
        if instruction is None:
            return False
        from cryopick.pipeline.session_portion import LiveTables  # loads what computes
        from cryopick.pipeline.session_steps import perform_live

        self._tables = self._tables or LiveTables(self._list, self._ledgers)
        if isinstance(instruction, Make):
            self._tables.write()
            self._begin_set(instruction)
            return True
        stage: Stage = "whole"
        if self._runner.is_endless(instruction.step):
            again = instruction.step in self._runner.tries_again
            stage = "again" if again else "portion"
        perform = partial(perform_live, tables=self._tables)
        try:
            with growing(stage, ledgers=self._ledgers):
                event = follow_to_end(self._runner.course(instruction), perform)
            self._tables.write(is_due=True)
        except BaseException:
            self._runner.put_back(instruction)
            raise
        self._hear(event, instruction)
        return True

    def _hear(self, event: Event, instruction: Process | Make) -> None:
        assert self._runner is not None
        self._runner.hear(event)
        if isinstance(event, Broke):
            self._view.broke(event.step, event.error)
            if isinstance(instruction, Process) or event.step == "diameter":
                self._to_retry.add(event.step)
            if event.step in _LEARNING:
                self._grow_subset()
                self._follow()
        if isinstance(event, Processed) and isinstance(instruction, Process):
            self._view.processed(event.step, instruction, self._list.names)
            self._view.feed(self._runner, self._shared, self._request)
            self._view.join(self._runner, self._shared)
            self._end_live_picks()

    def _end_live_picks(self) -> None:
        """Stop picking with the general model when the picker that learned has picked all."""
        assert self._runner is not None
        state = self._runner.state
        if self._kept.is_live_over or "live_picks" not in {s.name for s in state.graph}:
            return
        if state.of("particles").finished >= state.count > 0 and not state.of("particles").error:
            self._kept.is_live_over = True
            self._write_settings()
            self._follow()
            self._say("The picker that has learned has picked all micrographs so far.")

    def _grow_subset(self) -> None:
        """Let the picker learn from more micrographs where the first gave it nothing to learn."""
        if self._runner is None or not self._request.parameters.is_trained:
            return
        state = self._runner.state
        broken = [n for n in _LEARNING if state.of(n).error]
        if not broken or len(self._list) < 2 * self._kept.subset:
            return
        self._kept.subset = min(2 * self._kept.subset, 1000)
        self._write_settings()
        self._say(f"The picker is to learn from {self._kept.subset} micrographs.")

    def _begin_set(self, instruction: Make) -> None:
        assert self._runner is not None
        event = self._set.begin(
            self._runner.course(instruction), identity=instruction.identity, step=instruction.step
        )
        if event is not None:
            self._hear(event, instruction)

    def _hear_set(self) -> None:
        """Go on with a set that is made beside, when there is something to go on with."""
        if self._runner is None or not self._set.is_at_work:
            return
        made = Make(step=self._set.step, identity=self._set.identity)
        if self._runner.state.of(made.step).identity != made.identity:
            self._set.end()  # another result is wanted by now
            return
        self._view.set_working(made.step, self._set.share, self._set.note)
        event = self._set.hear()
        if event is not None:
            self._hear(event, made)

    def _close(self) -> RunResult:
        """Do the last pass, which is that of `run`."""
        self._set.end()
        self._view.end_beside()
        self._view.state = "closing"
        graph = run_graph(
            self._parameters,
            has_ctf=self._list.has_ctf,
            pixel_size=self._request.pixel_size,
            choices=name_choices(self._project.folder),
        )
        if self._runner is not None:
            from cryopick.pipeline.session_steps import tidy_portions

            tidy_portions(self._runner.done.values())
            self._runner.state = replace(self._runner.state, graph=graph)
        with growing("closing"):
            result = run_listed(
                self._project,
                self._list.table,
                graph,
                parameters=self._parameters,
                compute=self._request.compute,
                pixel_size=self._request.pixel_size,
                progress=self._while_working,
                say=self._say,
                after=self._view.done,
            )
        for name in (*LIVE_STEPS, "live_classes", "live_consensus"):
            if name in self._project.aliases():
                self._project.remove_alias(name)
        return result

    # What people ask

    def _take_requests(self) -> None:
        now = time.monotonic()
        if now - self._asked < _LOOK:
            return
        self._asked = now
        for request in read_requests(self._project.folder):
            self._take(request)
            remove_request(request)

    def _take(self, request: Request) -> None:
        is_old = request.when < self._began  # of a session before this one
        match request.what:
            case "stop" | "pause" | "resume" if is_old:
                pass
            case "stop":
                is_final = bool(request.values.get("finish"))
                self._is_finishing |= is_final
                self._is_stopped |= not is_final
                self._finish_asked = time.monotonic()
            case "pause":
                self._is_paused = True
            case "resume":
                self._is_paused = False
            case "retry":
                self._retry()
            case "add":
                self._kept.added.append(str(request.values.get("path", "")))
                self._list.watch.added.append(self._kept.added[-1])
                self._write_settings()
        if self._view.state != "closing":
            self._view.state = "paused" if self._is_paused else "watching"

    def _retry(self) -> None:
        """Try again what broke or was refused."""
        if self._runner is None:
            return
        for step in self._runner.state.graph:
            now = self._runner.state.of(step.name)
            if now.error or (not step.is_set and self._runner.is_endless(step.name)):
                self._runner.try_again(step.name)
                self._runner.hear(Again(step=step.name))
        self._to_retry.clear()

    def _show(self, trouble: str) -> None:
        self._view.write(
            runner=self._runner, names=self._list, trouble=trouble, kept_subset=self._kept.subset
        )

    def _write_settings(self) -> None:
        write_settings(self._project.folder, self._request, self._kept)


def _sentence_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
