"""Sections of the report of a run on what was refused, and on how all was made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cryopick.class2d.em_parameters import ClassificationParameters
from cryopick.extraction.extraction_parameters import ExtractionParameters
from cryopick.parameters import describe
from cryopick.picking.log_parameters import LogParameters
from cryopick.pipeline.report_source import ReportSource, read_record
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_story import TITLES
from cryopick.report.blocks import Command, command_block, table_block
from cryopick.report.page import Section

__all__ = ["commands_section", "refused_section"]

_UNITS = {
    d.name: d.unit
    for p in (LogParameters, ExtractionParameters, ClassificationParameters, RunParameters)
    for d in describe(p)
}


def refused_section(source: ReportSource) -> Section:
    """List what was refused, with the reason of each."""
    found = [
        (TITLES[step.name], name, reason)
        for step in source.steps.values()
        for name, reason in {
            **(step.facts.get("failed") or {}),
            **(step.facts.get("failures") or {}),
        }.items()
    ]
    rows = pd.DataFrame(found, columns=["Step", "Micrograph", "Reason"], dtype="str")
    return Section(
        title="Refused",
        lead="These were left out; the rest went on. The same command tries those again that have "
        "changed.",
        blocks=[table_block(rows)] if found else [],
    )


def commands_section(source: ReportSource, *, command: str) -> Section:
    """Write how the results were made: the command, each job's parameters, the versions."""
    blocks = [
        command_block(
            Command(
                name="Run",
                command=command,
                outcome="",
                parameters=source.parameters.to_dict(),
                units=_UNITS,
            )
        )
    ]
    versions: dict[str, str] = {}
    for step in source.steps.values():
        record = read_record(step.folder)
        own = {str(k): str(v) for k, v in record["versions"].items()}
        versions = versions or own
        blocks.append(
            command_block(
                Command(
                    name=f"{step.number}. {TITLES[step.name]}{_called(record)}",
                    command=_short(record["command"]),
                    outcome=_outcome(record, own if own != versions else {}),
                    parameters=record["parameters"],
                    units=_UNITS,
                )
            )
        )
    return Section(
        title="Commands",
        lead=f"Software: {_listed(versions)}." if versions else "",
        blocks=blocks,
    )


def _called(record: Mapping[str, Any]) -> str:
    """Name the command that does this alone, where there is one."""
    return f": cryopick {record['name']}" if "name" in record else ""


def _short(command: str) -> str:
    """Leave out where the program lies."""
    program, _, rest = command.partition(" ")
    return f"{Path(program).name} {rest}".strip()


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _outcome(record: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    started = datetime.fromisoformat(record["started"]).strftime("%-d %B %Y, %H:%M:%S")
    said = [f"Started {started} and took {float(record['seconds']):,.1f} s."]
    if versions:  # of an earlier run, with other programs
        said.append(f"Software: {_listed(versions)}.")
    return " ".join(said)
