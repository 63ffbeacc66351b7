"""The jobs of the project: their states, what they found and where they failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryopick.pipeline.ledger_tail import LedgerTail
from cryopick.pipeline.project_layout import LEDGER, list_job_folders
from cryopick.pipeline.project_outdated import find_outdated
from cryopick.pipeline.project_records import StepRecord
from cryopick.pipeline.project_status import find_holder
from cryopick.server.served import Served

__all__ = ["JobList", "list_jobs"]


@dataclass(frozen=True, kw_only=True)
class JobList:
    """All jobs of the project, as they are now."""

    records: Mapping[int, StepRecord]
    folders: Mapping[int, Path]
    aliases: Mapping[str, int]
    outdated: Mapping[int, str]
    tails: Mapping[int, LedgerTail]  # of those that have items
    holder: str
    is_held: bool

    def state_of(self, number: int) -> str:
        """Say running, stopped (begun, but nobody is at work on it), done or failed."""
        state = self.records[number].state
        return "stopped" if state == "running" and not self.is_held else state

    def aliases_of(self, number: int) -> list[str]:
        """Names that stand for a job."""
        return [name for name, n in self.aliases.items() if n == number]


def list_jobs(served: Served) -> JobList:
    """Read the records of all jobs, and what their ledgers have gained."""
    project = served.project
    records, aliases = project.jobs(), project.aliases()
    folders = {n: f for n, f in list_job_folders(served.folder).items() if n in records}
    holder, is_held = find_holder(project)
    with served.lock:
        tails: dict[int, LedgerTail] = served.kept.setdefault("tails", {})
        for number, folder in folders.items():
            if number not in tails and (folder / LEDGER).exists():
                tails[number] = LedgerTail(path=folder / LEDGER)
        for number in set(tails) - set(folders):
            del tails[number]
        for number, tail in tails.items():
            tail.read_new()
            if records[number].state == "running" and is_held:
                served.rates.note(number, len(tail.is_failed))
        known = dict(tails)
    return JobList(
        records=records,
        folders=folders,
        aliases=aliases,
        outdated=find_outdated(records, aliases),
        tails=known,
        holder=holder,
        is_held=is_held,
    )
