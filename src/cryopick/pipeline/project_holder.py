"""Who manages a project, and whether that process lives."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cryopick.io.atomic import is_alive, output_errors

__all__ = ["Holder", "Place", "read_holder", "this_place"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process is, so that another can tell whether it lives."""

    host: str
    pid: int
    boot_id: str  # of the machine since it was started
    pid_space: str  # in which the number of the process holds; a container has its own
    process_start: str  # tells a process from a later one of the same number

    def sees(self, other: Place) -> bool:
        """Whether a process here can tell if the other lives."""
        mine, others = (self.boot_id, self.pid_space), (other.boot_id, other.pid_space)
        return bool(self.boot_id) and self.host == other.host and mine == others


@dataclass(frozen=True, kw_only=True)
class Holder(Place):
    """Who manages a project."""

    uuid: str
    seq: int
    since: str
    command: str

    def __str__(self) -> str:
        who = f"host {self.host}, process {self.pid}, since {self.since}"
        return f"{who}: {self.command}" if self.uuid else "an unreadable lock"

    @property
    def is_alive(self) -> bool:
        """Whether the process lives, as seen from a place that can tell."""
        started = _process_start(self.pid)
        return is_alive(self.pid) and (not self.process_start or started == self.process_start)


def this_place() -> Place:
    """Where this process is."""
    boot_id = _text_of(Path("/proc/sys/kernel/random/boot_id"))
    try:
        pid_space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it names no file)
    except OSError:
        pid_space = ""
    return Place(
        host=platform.node(),
        pid=os.getpid(),
        boot_id=boot_id,
        pid_space=pid_space,
        process_start=_process_start(os.getpid()),
    )


def read_holder(path: Path) -> Holder | None:
    """Read a lock; None where there is none. A broken one is held by nobody known.

    Raises
    ------
    OutputError
        If the disk does not answer.
    """
    with output_errors(path, option="folder"):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        known = {f.name for f in fields(Holder)}
        return Holder(**{k: v for k, v in json.loads(raw).items() if k in known})
    except (ValueError, TypeError, AttributeError):
        nowhere = Place(host="", pid=0, boot_id="", pid_space="", process_start="")
        return Holder(**asdict(nowhere), uuid="", seq=len(raw), since="", command="")


def _process_start(pid: int) -> str:
    """When a process began, in ticks since the start of the machine; empty where nobody says."""
    words = _text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return words[19] if len(words) > 19 else ""


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
