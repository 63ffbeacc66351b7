"""From micrographs to clean particles with one command that nobody has to watch.

The steps are those of RELION's tutorial on picking: CTF, first picks on some micrographs, their
classes and the good ones among them, a picker trained on these, all picks, particles, classes.
The same command again does what is new or changed, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryopick.errors import DataError
from cryopick.execution.kept import keeping_fleets
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.accepted_fields import name_choices
from cryopick.pipeline.planner import Step
from cryopick.pipeline.project import Project
from cryopick.pipeline.report_stamp import has_stamp, make_stamp
from cryopick.pipeline.run_context import RunContext, StepTell
from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_table import (
    MICROGRAPHS,
    has_ctf,
    listed_micrographs,
    write_run_table,
)
from cryopick.pipeline.runner import Halted, Runner, StepDone
from cryopick.tables.micrographs import open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.relion import read_micrographs

__all__ = [
    "REPORT",
    "RunResult",
    "run_listed",
    "run_project",
    "step_contexts",
    "under_lease",
    "write_report",
]

REPORT = "report.html"
_LOOK = 2.0  # s between looks at the lease
_LENS = ("voltage", "spherical_aberration", "amplitude_contrast")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What an unattended run made."""

    folder: Path
    steps: tuple[StepDone, ...]  # in order
    report: Path
    report_problems: list[str]  # a sentence for each part that could not be drawn
    halted: Halted | None  # why it stopped before its last step

    @property
    def refused(self) -> dict[str, str]:
        """Micrographs that a step refused, and why."""
        found: dict[str, str] = {}
        for step in self.steps:
            found = dict(step.facts.get("failed") or {}) | found
        return found

    def to_dict(self) -> dict[str, Any]:
        """Gather the results of the steps, ready for JSON."""
        return {
            "folder": str(self.folder),
            "steps": {
                s.name: {
                    "job": s.number,
                    "folder": str(s.folder),
                    "seconds": s.seconds,
                    "is_new": s.is_new,
                    **s.facts,
                }
                for s in self.steps
            },
            "halted": None
            if self.halted is None
            else {"step": self.halted.step, "error": str(self.halted.error)},
            "refused": self.refused,
            "report": str(self.report),
            "report_problems": self.report_problems,
        }


def _quiet(*_: object) -> None:
    pass


def run_project(
    inputs: Sequence[str],
    folder: Path,
    *,
    parameters: RunParameters,
    compute: ComputeParameters | None = None,
    pixel_size: float | None = None,
    progress: StepTell = _quiet,
    say: Callable[[str], None] = _quiet,
    after: Callable[[StepDone], None] = _quiet,
) -> RunResult:
    """Do what a project still lacks of a run.

    Parameters
    ----------
    inputs
        One STAR file of RELION; or paths, folders and globs of images.
    folder
        Of the project, which is made if need be. Results of other parameters stay in their jobs.
    parameters
        Of the run.
    compute
        How much of the machine to use.
    pixel_size
        A/px of all micrographs, instead of what their table or headers say.
    progress
        Called with the step, its share done from 0 to 1, and a note.
    say
        Called with sentences for the user.
    after
        Called when a step is done, with what it came to.

    Returns
    -------
    RunResult
        Micrographs that were refused, and why the run halted if it did: after classes of which
        none is good, for example. The report is written in any case.

    Raises
    ------
    ProjectError
        If the folder holds something else, or another process manages the project.
    CryopickError
        If the inputs or parameters do not allow a run, or the project cannot be written.
    """
    folder, compute = Path(folder), compute or ComputeParameters()
    require_devices(compute)
    lens = {name: getattr(parameters, name) for name in _LENS}
    micrographs = open_micrographs(inputs, pixel_size=pixel_size, **lens)
    graph = run_graph(
        parameters,
        has_ctf=has_ctf(micrographs),
        pixel_size=pixel_size,
        choices=name_choices(folder),
    )
    if any(step.name == "training" for step in graph):
        _require_enough(micrographs)
    with Project.open(folder, create=True, tell=say) as project:
        for note in project.notes:
            say(note)
        table = write_run_table(folder / MICROGRAPHS, micrographs)
        return run_listed(
            project,
            table,
            graph,
            parameters=parameters,
            compute=compute,
            pixel_size=pixel_size,
            progress=progress,
            say=say,
            after=after,
        )


def run_listed(
    project: Project,
    table: Path,
    graph: tuple[Step, ...],
    *,
    parameters: RunParameters,
    compute: ComputeParameters,
    pixel_size: float | None,
    progress: StepTell,
    say: Callable[[str], None],
    after: Callable[[StepDone], None],
) -> RunResult:
    """Do what a project that is open still lacks of the steps of a run, and write the report.

    Parameters
    ----------
    project
        Open, to be written.
    table
        Of all micrographs, in the folder of the project.
    graph
        The steps.
    parameters, compute, pixel_size, progress, say, after
        As for `run_project`.

    Raises
    ------
    OutputError, ProjectError
        If the project cannot be written any more, or is another's.
    """
    project.write_run_parameters({**parameters.to_dict(), "pixel_size": pixel_size})
    shared = RunContext(
        table=table,
        parameters=parameters,
        compute=compute,
        tell=under_lease(project, progress),
        say=say,
    )
    runner = Runner(
        project=project,
        context=step_contexts(shared, [step.name for step in graph]),
        micrographs=listed_micrographs(read_micrographs(table)),
        pixel_size=pixel_size,
        after=after,
    )
    with keeping_fleets():
        runner.run(graph)
    report = project.folder / REPORT
    problems = write_report(
        report, table, parameters, steps=tuple(runner.done.values()), halted=runner.halted
    )
    return RunResult(
        folder=project.folder,
        steps=tuple(runner.done.values()),
        report=report,
        report_problems=problems,
        halted=runner.halted,
    )


def step_contexts(
    shared: RunContext, names: Sequence[str]
) -> Callable[[Mapping[str, Path], str], RunContext]:
    """Give each step the folders of those before it, and tell which of all steps it is.

    Parameters
    ----------
    shared
        What is the same for all steps.
    names
        Of the steps, in order.
    """

    def context(folders: Mapping[str, Path], name: str) -> RunContext:
        place = f"{names.index(name) + 1} of {len(names)}"

        def tell(step: str, share: float, note: str) -> None:
            shared.tell(f"{step} ({place})", share, note)

        return replace(shared, folders=folders, tell=tell)

    return context


def write_report(
    path: Path,
    table: Path,
    parameters: RunParameters,
    *,
    steps: tuple[StepDone, ...],
    halted: Halted | None,
) -> list[str]:
    """Write the report, unless the one that is there tells the same.

    Parameters
    ----------
    path
        Of the report.
    table, parameters, steps, halted
        As for `make_stamp`.

    Returns
    -------
    list of str
        A sentence for each part that could not be drawn.
    """
    stamp = make_stamp(table=table, parameters=parameters, steps=steps, halted=halted)
    if has_stamp(path, stamp):
        return []
    from cryopick.pipeline.run_report import write_run_report  # drawing takes long to import

    return write_run_report(
        path,
        title=f"Particles of {path.parent.resolve().name}",
        table=table,
        parameters=parameters,
        steps=steps,
        halted=halted,
        stamp=stamp,
    )


def under_lease(project: Project, progress: StepTell) -> StepTell:
    """Tell progress, and stop the work once another process manages the project.

    Parameters
    ----------
    project
        Open, to be written.
    progress
        Is told; what comes back raises a ProjectError when the lease is lost.
    """
    looked = time.monotonic()

    def tell(step: str, share: float, note: str) -> None:
        nonlocal looked
        if time.monotonic() - looked > _LOOK:
            project.require_lease()
            looked = time.monotonic()
        progress(step, share, note)

    return tell


def _require_enough(micrographs: Micrographs) -> None:
    """Refuse what no picker can be trained on, before there is work."""
    if len(micrographs) < 2:
        raise DataError(
            "micrographs",
            must="be at least 2 for a picker to be trained",
            got="1",
            remedy="Give more, or use --no-training",
        )
