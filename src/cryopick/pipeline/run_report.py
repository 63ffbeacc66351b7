"""The report of an unattended run: the whole story in one file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cryopick.io.atomic import write_text
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import Halted, StepDone
from cryopick.report.blocks import table_block
from cryopick.report.page import Section, make_page

__all__ = ["write_run_report"]


def write_run_report(
    path: Path,
    *,
    title: str,
    table: Path,
    parameters: RunParameters,
    steps: Sequence[StepDone],
    halted: Halted | None,
) -> list[str]:
    """Write one self-contained HTML file on a run.

    Parameters
    ----------
    path
        Of the HTML file.
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

    Returns
    -------
    list of str
        A sentence for each section that could not be drawn.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows = pd.DataFrame(
        {
            "step": [s.name for s in steps],
            "job": [str(s.folder) for s in steps],
            "seconds": [round(s.seconds, 1) for s in steps],
        }
    )
    remarks = [] if halted is None else [str(halted.error)]
    page = make_page(
        title=title,
        subtitle=" ".join(["cryopick", *sys.argv[1:]]),
        facts=[],
        remarks=remarks,
        sections=[Section(title="Steps", blocks=[table_block(rows)])],
    )
    write_text(path, page)
    return []
