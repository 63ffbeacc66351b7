"""The micrographs of a session: what was taken, in its order, in the table of the project."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.errors import CryopickError
from cryopick.io.line_list import append_lines, read_lines
from cryopick.pipeline.run_context import TRUSTED, real_path
from cryopick.pipeline.run_jobs import ListedMicrograph
from cryopick.pipeline.run_table import (
    has_ctf,
    join_micrographs,
    listed_micrographs,
    write_run_table,
)
from cryopick.pipeline.session_layout import ARRIVALS, session_folder
from cryopick.pipeline.session_watch import Look, Watch
from cryopick.tables.micrographs import micrograph_path, open_micrographs
from cryopick.tables.model import Micrographs
from cryopick.tables.paths import micrograph_key, rename_for
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = ["Arrival", "GrowingList"]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A micrograph that was taken."""

    name: str  # as in the table of the project
    taken: float  # s since 1970
    changed: float  # likewise, when the file was


class GrowingList:
    """The micrographs of a project, and those that come.

    Parameters
    ----------
    project
        The folder.
    table
        Of the micrographs in it; what it lists is known.
    inputs
        As for `Watch`.
    settle
        Likewise.
    pixel_size, lens
        Of new micrographs, instead of what they say; as for `open_micrographs`.
    """

    def __init__(
        self,
        project: Path,
        table: Path,
        inputs: Sequence[str],
        *,
        settle: float,
        pixel_size: float | None,
        lens: dict[str, float | None],
    ) -> None:
        self.table = table
        self._given = {"pixel_size": pixel_size, **lens}
        self._arrivals_path = session_folder(project) / ARRIVALS
        self.watch = Watch(inputs=inputs, settle=settle, read_table=self._open)
        self.micrographs: Micrographs | None = None
        self.listed: list[ListedMicrograph] = []
        self.names: list[str] = []  # of all, as the table has them
        self.keys: list[str] = []  # that name their results
        self.refused: dict[str, str] = {}  # names that no table can hold, and why
        self.last = Look(complete=(), waiting=())
        self._places: set[Path] = set()
        if table.exists():
            self._know(read_micrographs(table))
        self.watch.taken.update(self.names)
        times = read_lines(self._arrivals_path, lambda x: Arrival(**x), name="arrivals")
        self.arrivals = {one.name: one for one in times}

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def has_ctf(self) -> bool:
        """Whether the table says the CTF of all."""
        return self.micrographs is not None and has_ctf(self.micrographs)

    @property
    def trusts_ctf(self) -> bool:
        """Whether the table says a CTF that is trusted, for half of them or more."""
        if self.micrographs is None:
            return False
        rows = self.micrographs.rows
        if "is_ctf_trusted" in rows:
            return float(rows["is_ctf_trusted"].astype(float).mean()) >= TRUSTED
        return "defocus_u" in rows

    @property
    def finest_pixel(self) -> float:
        """The finest pixel size of all, A."""
        assert self.micrographs is not None
        sizes = self.micrographs.optics.set_index("optics_group")["pixel_size"]
        return float(sizes[self.micrographs.rows["optics_group"].unique()].min())

    def write_some(self, target: Path, numbers: Sequence[int]) -> None:
        """Write the table of some micrographs.

        Parameters
        ----------
        target
            To be written.
        numbers
            Of the micrographs, from 0, in the order of the list.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        assert self.micrographs is not None
        rows = self.micrographs.rows.iloc[list(numbers)].reset_index(drop=True)
        names = [rename_for(self.names[k], source=self.table, target=target) for k in numbers]
        table = replace(self.micrographs, rows=rows.assign(micrograph=names))
        write_micrographs(target, table)

    def look(self) -> list[str]:
        """Look for new micrographs, and write those that are complete to the table.

        Returns
        -------
        list of str
            Their names.

        Raises
        ------
        ParameterError
            If no pixel size is known of any micrograph.
        OutputError
            If the table cannot be written.
        """
        self.last = self.watch.look()
        there = {real_path(Path(n)): n for n in reversed(self.last.complete)}
        fresh = [n for path, n in reversed(there.items()) if path not in self._places]
        if not fresh:
            return []
        part = self._part(fresh)
        if part is None:
            return []
        known = len(self)
        if self.micrographs is None:
            write_run_table(self.table, part)
        else:  # as that does, which asks the disk for each micrograph that is known
            joined = join_micrographs(self.micrographs, part, target=self.table)
            write_micrographs(self.table, joined)
        self._know(read_micrographs(self.table))
        new = self.names[known:]
        arrivals = [self._arrival(name) for name in new]
        append_lines(self._arrivals_path, [vars(one) for one in arrivals])
        self.arrivals |= {one.name: one for one in arrivals}
        return new

    def _arrival(self, name: str) -> Arrival:
        now = time.time()
        try:
            changed = os.stat(micrograph_path(name, self.table)).st_mtime  # noqa: PTH116
        except OSError:
            changed = now
        return Arrival(name=name, taken=now, changed=min(changed, now))

    def _know(self, micrographs: Micrographs) -> None:
        self.micrographs = micrographs
        known = len(self.listed)
        rows = micrographs.rows.iloc[known:]
        self.listed += listed_micrographs(replace(micrographs, rows=rows))
        self.names += [str(n) for n in rows["micrograph"]]
        self.keys += [micrograph_key(n) for n in self.names[known:]]
        self._places.update(one.path for one in self.listed[known:])

    def _open(self, name: str) -> Micrographs:
        return open_micrographs([name], **self._given)

    def _part(self, names: Sequence[str]) -> Micrographs | None:
        """Make the table of new micrographs; one that it cannot hold is refused alone."""
        wanted = set(names)
        for given, table in self.watch.tables.items():
            is_new = [place in wanted for place in self.watch.places[given]]
            if any(is_new):
                return replace(table, rows=table.rows[is_new].reset_index(drop=True))
        try:
            return open_micrographs(list(names), **self._given)
        except CryopickError as error:
            if len(names) == 1:
                if not len(self):
                    raise
                self.refused[names[0]] = str(error)
                return None
        parts = [self._part([name]) for name in names]
        good = [part for part in parts if part is not None]
        joined = good[0] if good else None
        for part in good[1:]:
            assert joined is not None
            joined = join_micrographs(joined, part, target=self.table)
        return joined
