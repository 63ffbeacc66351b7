"""From micrographs to clean particles with one command that nobody has to watch.

The steps are those of RELION's tutorial on picking: CTF, first picks on some micrographs, their
classes and the good ones among them, a picker trained on these, all picks, particles, classes.
The same command again does what is new or changed, and nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryopick.errors import DataError
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.project import Project
from cryopick.pipeline.report_stamp import has_stamp, make_stamp
from cryopick.pipeline.run_context import RunContext, StepTell, real_path
from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_jobs import ListedMicrograph
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import Halted, Runner, StepDone
from cryopick.tables.micrographs import micrograph_path, open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = ["RunResult", "run_project"]

MICROGRAPHS, REPORT = "micrographs.star", "report.html"
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
    graph = run_graph(parameters, has_ctf=_has_ctf(micrographs), pixel_size=pixel_size)
    if any(step.name == "training" for step in graph):
        _require_enough(micrographs)
    with Project.open(folder, create=True, tell=say) as project:
        for note in project.notes:
            say(note)
        table = _write_table(folder / MICROGRAPHS, micrographs)
        project.write_run_parameters({**parameters.to_dict(), "pixel_size": pixel_size})
        shared = RunContext(
            table=table,
            parameters=parameters,
            compute=compute,
            tell=_under_lease(project, progress),
            say=say,
        )
        runner = Runner(
            project=project,
            context=_contexts(shared, [step.name for step in graph]),
            micrographs=_listed(read_micrographs(table)),
            pixel_size=pixel_size,
            after=after,
        )
        runner.run(graph)
        problems = _report(folder / REPORT, table, parameters, runner)
    return RunResult(
        folder=folder,
        steps=tuple(runner.done.values()),
        report=folder / REPORT,
        report_problems=problems,
        halted=runner.halted,
    )


def _contexts(
    shared: RunContext, names: Sequence[str]
) -> Callable[[Mapping[str, Path], str], RunContext]:
    """Give each step the folders of those before it, and tell which of all steps it is."""

    def context(folders: Mapping[str, Path], name: str) -> RunContext:
        place = f"{names.index(name) + 1} of {len(names)}"

        def tell(step: str, share: float, note: str) -> None:
            shared.tell(f"{step} ({place})", share, note)

        return replace(shared, folders=folders, tell=tell)

    return context


def _report(path: Path, table: Path, parameters: RunParameters, runner: Runner) -> list[str]:
    """Write the report, unless the one that is there tells the same."""
    steps, halted = tuple(runner.done.values()), runner.halted
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


def _under_lease(project: Project, progress: StepTell) -> StepTell:
    """Tell progress, and stop the work once another process manages the project."""
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


def _has_ctf(micrographs: Micrographs) -> bool:
    rows = micrographs.rows
    return "defocus_u" in rows and bool(rows["defocus_u"].notna().all())


def _paths(micrographs: Micrographs) -> list[Path]:
    names = [str(name) for name in micrographs.rows["micrograph"]]
    return [real_path(micrograph_path(name, micrographs.source)) for name in names]


def _places(micrographs: Micrographs) -> list[tuple[Path, int]]:
    """Tell where each micrograph lies, and how many names before had led there."""
    seen: Counter[Path] = Counter()
    places = []
    for path in _paths(micrographs):
        places.append((path, seen[path]))
        seen[path] += 1
    return places


def _listed(micrographs: Micrographs) -> list[ListedMicrograph]:
    """Tell where each micrograph lies, and what the table says of it and of its optics."""
    optics = micrographs.optics.set_index("optics_group")
    rows = micrographs.rows.drop(columns="micrograph")
    return [
        ListedMicrograph(path=path, said=f"{row} {optics.loc[row['optics_group']].to_dict()}")
        for path, row in zip(_paths(micrographs), rows.to_dict("records"), strict=True)
    ]


def _write_table(path: Path, given: Micrographs) -> Path:
    """Write the micrographs that a run was given.

    Those that the project knows keep their order and their names, whatever the order of the list
    and the working folder; new ones follow.
    """
    places = _places(given)
    names = [rename_for(str(n), source=given.source, target=path) for n in given.rows["micrograph"]]
    known: dict[tuple[Path, int], tuple[int, str]] = {}
    if path.exists():
        before = read_micrographs(path)
        listed = zip(_places(before), before.rows["micrograph"], strict=True)
        known = {place: (number, str(name)) for number, (place, name) in enumerate(listed)}
    first = len(known)
    order = sorted(range(len(places)), key=lambda k: known.get(places[k], (first + k, ""))[0])
    renamed = [known.get(places[k], (0, names[k]))[1] for k in order]
    rows = given.rows.iloc[order].reset_index(drop=True).assign(micrograph=renamed)
    table = replace(given, rows=rows)
    write_micrographs(path, table if given.source is not None else _renumbered(table))
    return path


def _renumbered(table: Micrographs) -> Micrographs:
    """Give optics groups the order of their first rows, so that later images change no number."""
    numbers = {old: k + 1 for k, old in enumerate(dict.fromkeys(table.rows["optics_group"]))}
    optics = table.optics.assign(optics_group=table.optics["optics_group"].map(numbers))
    optics = optics.sort_values("optics_group").reset_index(drop=True)
    names = [f"opticsGroup{n}" for n in optics["optics_group"]]
    rows = table.rows.assign(optics_group=table.rows["optics_group"].map(numbers))
    return replace(table, rows=rows, optics=optics.assign(optics_group_name=names))
