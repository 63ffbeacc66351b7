"""The record of a job in a project, ``step.json``, and the lines of its ledger."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cryopick.errors import ProjectError
from cryopick.io.atomic import write_json
from cryopick.pipeline.project_layout import STEP, job_folder_name

__all__ = [
    "JobState",
    "LedgerLine",
    "StepRecord",
    "made_files",
    "read_ledger",
    "read_step",
    "write_step",
]

JobState = Literal["running", "done", "failed"]
_SCHEMA = 1
_STATES = ("running", "done", "failed")


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What is known of one job of a project."""

    number: int
    step: str
    identity: str  # names all that the result depends on; empty where nobody knows
    state: JobState = "running"  # also of a job that was killed
    upstream: Mapping[str, str] = field(default_factory=dict)  # step: identity
    upstream_content: Mapping[str, str] = field(default_factory=dict)  # step: result["content"]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0  # at work, in all runs
    result: Mapping[str, Any] | None = None  # of a job that is done, as JSON takes it
    error: str = ""  # why it failed
    files: Mapping[str, int] = field(default_factory=dict)  # bytes of each table it promises

    @property
    def folder_name(self) -> str:
        """Name of the job's folder."""
        return job_folder_name(self.number, self.step)

    @property
    def is_done(self) -> bool:
        """Whether the job is finished and has not failed."""
        return self.state == "done"

    def to_dict(self) -> dict[str, Any]:
        """All values, ready for JSON."""
        return {"schema": _SCHEMA, **asdict(self)}


def read_step(folder: Path) -> StepRecord:
    """Read the record of the job in a folder.

    Raises
    ------
    ProjectError
        If there is none, or it is broken.
    """
    path = Path(folder) / STEP
    try:
        values = json.loads(path.read_bytes())
        known = {f.name for f in fields(StepRecord)}
        values = {k: v for k, v in values.items() if k in known}
        record = StepRecord(**{**values, "inputs": tuple(values.get("inputs") or ())})
    except FileNotFoundError as error:
        raise _broken(path, "no such file") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _broken(path, "something else") from error
    if record.state not in _STATES or record.folder_name != folder.name:
        raise _broken(path, f"{record.state} of {record.folder_name}")
    return record


def write_step(folder: Path, record: StepRecord) -> None:
    """Write the record of a job, whole or not at all.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_json(Path(folder) / STEP, record.to_dict())


def _broken(path: Path, got: str) -> ProjectError:
    return ProjectError(
        str(path),
        must="hold the record of its job",
        got=got,
        remedy="Move its folder out of the project, or bring the file back from a backup",
    )


def made_files(folder: Path) -> dict[str, int]:
    """Size in bytes of each file that joins the items of a job and is there now."""
    try:
        names = json.loads((folder / "job.json").read_bytes()).get("results") or []
    except (OSError, ValueError, AttributeError):
        return {}
    sizes = {}
    for name in sorted(set(map(str, names))):
        with contextlib.suppress(OSError):
            if (folder / name).is_file():
                sizes[name] = (folder / name).stat().st_size
    return sizes


class LedgerLine(NamedTuple):
    """What one line of a ledger says of an item."""

    key: str
    error: str  # empty where it is done
    files: list[str]  # of the job's folder, that the line promises
    sizes: dict[str, int]  # bytes of files, where the line says them
    end: int  # bytes of the ledger up to the end of this line

    @property
    def state(self) -> str:
        """Done or failed."""
        return "failed" if self.error else "done"


def read_ledger(path: Path, *, start: int = 0) -> Iterator[LedgerLine]:
    """Read the whole lines of a ledger, one after the other.

    Parameters
    ----------
    path
        The ledger; without one there are no lines.
    start
        Byte to begin from, the end of a line read before.

    Yields
    ------
    LedgerLine
        A line that was cut off, or is no record, is left out.
    """
    try:
        handle = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with handle:
        handle.seek(start)
        end = start
        for line in handle:
            end += len(line)
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
                    yield _ledger_line(json.loads(line), end)


def _ledger_line(values: Mapping[str, Any], end: int) -> LedgerLine:
    summary = values.get("summary") or {}
    return LedgerLine(
        key=str(values["key"]),
        error=str(values.get("error") or ""),
        files=[str(name) for name in summary.get("files") or ()],
        sizes={str(k): int(v) for k, v in (summary.get("sizes") or {}).items()},
        end=end,
    )
