"""The report of an unattended run: the whole story in one file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryopick.io.atomic import write_text
from cryopick.pipeline import report_classes, report_fields, report_record, report_steps
from cryopick.pipeline.report_head import run_facts, run_remarks
from cryopick.pipeline.report_source import PICKINGS, ReportSource
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_story import TITLES, duration
from cryopick.pipeline.runner import Halted, StepDone
from cryopick.report.page import Section, make_page
from cryopick.tables.relion import read_micrographs

__all__ = ["write_run_report"]

_Maker = tuple[str, Callable[[], Section]]


def write_run_report(
    path: Path,
    *,
    title: str,
    table: Path,
    parameters: RunParameters,
    steps: Sequence[StepDone],
    halted: Halted | None,
    stamp: str = "",
) -> list[str]:
    """Write one self-contained HTML file on a run.

    All but the numbers of the steps is read from the folders of their jobs, also of those that
    earlier runs did. Its size does not grow with the data set: at most 6 fields, 6 CTF fits, 60
    classes of each selection, 60 particles and the peaks of 300 micrographs are shown. A section
    that cannot be drawn is left out and named.

    Parameters
    ----------
    path
        Of the HTML file, in the folder of the project.
    title
        Its heading.
    table
        All micrographs.
    parameters
        Of the run.
    steps
        That are done, in order.
    halted
        Why the run could not go on, if so.
    stamp
        What the report is made from, to end the file with if all could be drawn.

    Returns
    -------
    list of str
        A sentence for each section that could not be drawn.

    Raises
    ------
    FormatError
        If the table of the micrographs is missing or broken.
    OutputError
        If the file cannot be written.
    """
    source = ReportSource(
        table=table,
        parameters=parameters,
        steps={step.name: step for step in steps},
        halted=halted,
    )
    n_micrographs = len(read_micrographs(table).rows)
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    sections, problems = _make(_makers(source, n_micrographs, command))
    page = make_page(
        title=title,
        subtitle=f"{time.strftime('%-d %B %Y, %H:%M')}; {duration(source.seconds)} at work",
        alarm=""
        if halted is None
        else f"Halted at \u201c{TITLES[halted.step]}\u201d: {halted.error}",
        facts=run_facts(source, n_micrographs=n_micrographs),
        remarks=[*run_remarks(source), *problems],
        sections=sections,
    )
    write_text(path, page if problems else page + stamp)
    return problems


def _makers(source: ReportSource, n_micrographs: int, command: str) -> list[_Maker]:
    """List the sections of the steps that are done, in reading order."""
    done = set(source.steps)
    scored = done | ({source.halted.step} if source.halted else set())  # classes may be none good
    pickings, particles = set(PICKINGS), set(report_classes.PARTICLE_STEPS)
    steps, classes = report_steps, report_classes
    found: list[tuple[bool, str, Callable[[], Section]]] = [
        (True, "Numbers", lambda: steps.numbers_section(source, n_micrographs=n_micrographs)),
        (bool(done & pickings), "Fields", lambda: report_fields.fields_section(source)),
        ("ctf" in done, "CTF", lambda: steps.ctf_section(source)),
        ("diameter" in done, "Diameter", lambda: steps.diameter_section(source)),
        ("training" in done, "Training", lambda: steps.training_section(source)),
        (bool(done & pickings), "Scores", lambda: report_fields.scores_section(source)),
        (
            "first_selection" in scored,
            "First classes",
            lambda: classes.classes_section(source, "first_selection", title="First classes"),
        ),
        (
            "selection" in scored,
            "Final classes",
            lambda: classes.classes_section(source, "selection", title="Final classes"),
        ),
        (bool(done & particles), "Particles", lambda: classes.particles_section(source)),
        (True, "Refused", lambda: report_record.refused_section(source)),
        (True, "Commands", lambda: report_record.commands_section(source, command=command)),
    ]
    return [(title, make) for is_wanted, title, make in found if is_wanted]


def _make(makers: Sequence[_Maker]) -> tuple[list[Section], list[str]]:
    """Make every section that can be made: no picture is worth the results it shows."""
    sections, problems = [], []
    for title, make in makers:
        try:
            sections.append(make())
        except Exception as error:  # a fault of drawing must not end a run whose results are safe
            problems.append(f"The section {title} of the report could not be drawn: {error}")
    return sections, problems
