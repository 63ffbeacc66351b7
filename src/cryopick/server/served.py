"""The project that is served: what is known of it now, shared by all requests."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.pipeline.project import Project
from cryopick.server.hub import Hub
from cryopick.server.rates import Rates
from cryopick.server.settings import ServerSettings

if TYPE_CHECKING:
    from cryopick.pipeline.field_choices import FieldChoices, FieldStates
    from cryopick.pipeline.field_table import FieldTable

__all__ = ["Served", "command_line"]


class Served:
    """One project, and what has been read of it."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.project = Project.open(settings.project, writes=False)
        self.folder = self.project.folder
        self.hub = Hub()
        self.rates = Rates()
        self.kept: dict[str, Any] = {}  # of modules that keep something for all requests
        self.lock = threading.RLock()  # of `kept` and the table
        self.slow_lock = threading.RLock()  # of tables of particles, which take long to read
        self._table: FieldTable | None = None
        self._states: tuple[tuple[int, str], FieldChoices, FieldStates] | None = None
        self._n_told = 0  # fields that listeners know of
        self._changed: set[int] | None = set()  # since they were told; None: all

    def table(self) -> FieldTable:
        """Give the fields, up to date.

        Raises
        ------
        CryopickError
            If they cannot be read.
        """
        from cryopick.pipeline.field_table import FieldTable

        with self.lock:
            is_first = self._table is None
            if self._table is None:
                self._table = FieldTable(project=self.folder)
            changed = self._table.refresh()
            if is_first:  # what it holds now is news to nobody
                self._n_told, self._changed = len(self._table), set()
                return self._table
            is_all = changed is None or self._changed is None
            self._changed = None if is_all else (self._changed or set()) | (changed or set())
            return self._table

    def take_changes(self) -> tuple[int, set[int] | None]:
        """Say what has changed since this was last asked.

        Returns
        -------
        tuple
            Number of fields that were known then, and the places of those that have changed;
            None where all may have.
        """
        with self.lock:
            found = (self._n_told, self._changed)
            self._n_told = 0 if self._table is None else len(self._table)
            self._changed = set()
            return found

    def states(self) -> tuple[FieldTable, FieldChoices, FieldStates]:
        """Give the fields, the choices of people, and what becomes of each field."""
        from cryopick.pipeline.field_choices import judge_fields, read_choices
        from cryopick.pipeline.project_layout import DECISIONS

        with self.lock:
            table = self.table()
            stamp = (table.version, stamp_of(self.folder / DECISIONS))
            if self._states is None or self._states[0] != stamp:
                choices = read_choices(self.folder)
                self._states = (stamp, choices, judge_fields(table, choices))
            return table, self._states[1], self._states[2]


def stamp_of(path: Path) -> str:
    """Name the state of a file; empty where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def command_line(*words: object) -> str:
    """Write a command as a shell takes it.

    Examples
    --------
    >>> command_line("project", "limits", "my project")
    "cryopick project limits 'my project'"
    """
    return shlex.join(["cryopick", *map(str, words)])
