"""What a job of a session has made of all portions of its micrographs so far.

A portion is worked on as if there were no other micrographs, so that its cost does not depend on
how many there are. The tables that join all of them are lines of text here, one for each
micrograph: those of a portion take their places, and the files are written now and then. The last
pass, which is that of `run`, writes them anew, in the order of the list.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cryopick.io.atomic import make_folder, writing
from cryopick.io.star import read_star, write_star
from cryopick.pipeline.failed_micrographs import write_failed
from cryopick.pipeline.growing import PORTION, KeptLedgers
from cryopick.pipeline.run_context import CTF_TABLE, TRUSTED, RunContext
from cryopick.pipeline.run_steps import all_refused
from cryopick.pipeline.session_list import GrowingList
from cryopick.tables.paths import micrograph_key
from cryopick.tables.relion import write_coords_suffix

__all__ = ["JoinedTable", "LiveTables"]

_NAME = "rlnMicrographName"
_JOINED = (CTF_TABLE, "autopick.star", "summary.star")
_FAILED = "failed.star"
_WHOLE = "coords_suffix_autopick.star"  # names the table of the micrographs, and no micrograph
_COUNTED = (
    *("n_trusted", "n_picks", "n_peaks"),
    *("n_without_picks", "n_without_ctf", "n_ctf_estimated"),
)
_PATIENCE, _SHARE = 2.0, 20.0  # s between two writes; times what the last has taken


class JoinedTable:
    """A STAR file whose last table has a row for each micrograph.

    Parameters
    ----------
    path
        Of the file, which is written by `write` only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head: list[bytes] = []
        self._labels: tuple[str, ...] = ()
        self._rows: dict[str, bytes] = {}
        self._is_changed = False

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, part: Path) -> dict[str, Mapping[Hashable, Any]]:
        """Take the rows of another file, instead of those of the same micrographs.

        Parameters
        ----------
        part
            A file of the same tables.

        Returns
        -------
        dict
            Values of the rows by label, by the key of the micrograph.

        Raises
        ------
        FormatError
            If it is none.
        OutputError
            If the columns are others, and the file cannot be written with both.
        """
        rows = list(read_star(part).values())[-1]
        lines = part.read_bytes().rstrip(b"\n").split(b"\n")
        first, labels = len(lines) - len(rows), tuple(map(str, rows.columns))
        keys = [micrograph_key(str(n)) for n in rows[_NAME]]
        values: dict[str, Mapping[Hashable, Any]] = dict(
            zip(keys, rows.to_dict("records"), strict=True)
        )
        if self._rows and labels != self._labels:
            self._widen(part)
            return values
        self._head, self._labels = lines[:first], labels
        self._rows |= dict(zip(keys, lines[first:], strict=True))
        self._is_changed = True
        return values

    def drop(self, keys: Iterable[str]) -> None:
        """Leave out micrographs."""
        for key in keys:
            self._is_changed |= self._rows.pop(key, None) is not None

    def write(self) -> None:
        """Write the file, if it is not there as it should be.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._is_changed:
            self.write_some(self.path, self._rows)
            self._is_changed = False

    def write_some(self, target: Path, keys: Iterable[str]) -> int:
        """Write the rows of some micrographs, as far as there are any, and count them.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        rows = [self._rows[key] for key in keys if key in self._rows]
        with writing(target) as handle:
            handle.write(b"\n".join([*self._head, *rows]) + b"\n\n")
        return len(rows)

    def _widen(self, part: Path) -> None:
        """Join tables of different columns."""
        self.write()
        before, now = read_star(self.path), read_star(part)
        name, rows = list(now.items())[-1]
        old = before[name]
        is_kept = ~old[_NAME].isin(set(rows[_NAME]))
        joined = pd.concat([old[is_kept], rows], ignore_index=True)
        write_star(self.path, {**now, name: joined})
        self._rows, self._labels = {}, ()
        self.take(self.path)
        self._is_changed = False


class _Job:
    """The lists of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables = {name: JoinedTable(folder / name) for name in _JOINED}
        self.failed: dict[str, tuple[str, str]] = {}  # name and reason, by key
        self.listed: Path | None = None  # the table of all micrographs
        self._numbers: dict[str, Counter[str]] = {}
        self._totals: Counter[str] = Counter()
        self._is_failed_changed = False

    @property
    def is_of_use(self) -> bool:
        """Whether a micrograph was not refused."""
        return bool(self._numbers) or not self.failed

    def take(self) -> None:
        """Take in the lists of a portion."""
        part = self.folder / PORTION
        found: dict[str, Counter[str]] = {}
        for name, table in self.tables.items():
            taken = table.take(part / name) if (part / name).exists() else {}
            for key, values in taken.items():
                found.setdefault(key, Counter()).update(_numbers_of(values))
        refused = {}
        if (part / _FAILED).exists():
            rows = read_star(part / _FAILED)["failed"]
            pairs = zip(rows[_NAME], rows["cryopickReason"], strict=True)
            refused = {micrograph_key(str(n)): (str(n), str(why)) for n, why in pairs}
        for key in refused:
            self._totals.subtract(self._numbers.pop(key, Counter()))
        for table in self.tables.values():
            table.drop(refused)
        for key, numbers in found.items():
            self._totals.subtract(self._numbers.get(key, Counter()))
            self._totals.update(numbers)
            self._numbers[key] = numbers
        kept = {k: v for k, v in self.failed.items() if k not in found} | refused
        self._is_failed_changed |= kept != self.failed
        self.failed = kept
        if self.listed is not None and (part / _WHOLE).exists():
            write_coords_suffix(self.folder / _WHOLE, str(self.listed))
            self.listed = None

    def facts(self, of_portion: Mapping[str, Any]) -> dict[str, Any]:
        """Count what the job has made, as its method counts that of a portion."""
        return {
            **{k: v for k, v in of_portion.items() if not k.startswith("median_")},
            **{name: self._totals[name] for name in _COUNTED},
            "n_micrographs": len(self._numbers) + len(self.failed),
            "n_failed": len(self.failed),
            "failed": dict(self.failed.values()),
        }

    def write(self) -> None:
        """Write what has changed."""
        for table in self.tables.values():
            table.write()
        if self._is_failed_changed:
            write_failed(self.folder / _FAILED, dict(self.failed.values()))
            self._is_failed_changed = False


def _numbers_of(values: Mapping[Hashable, Any]) -> dict[str, int]:
    """Count one micrograph, from its row of a list."""
    if "cryopickIsCtfTrusted" in values:
        return {"n_trusted": int(values["cryopickIsCtfTrusted"])}
    if "rlnGroupNrParticles" not in values:
        return {}
    count, ctf = int(values["rlnGroupNrParticles"]), values.get("cryopickCtf")
    return {
        "n_picks": count,
        "n_peaks": int(values["cryopickPeaks"]),
        "n_without_picks": int(not count),
        "n_without_ctf": int(ctf == "none"),
        "n_ctf_estimated": int(ctf == "estimated"),
    }


class LiveTables:
    """The tables of a session: of all micrographs, and of those of a portion.

    Parameters
    ----------
    micrographs
        The list that grows.
    ledgers
        Of the jobs.
    """

    def __init__(self, micrographs: GrowingList, ledgers: KeptLedgers) -> None:
        self.micrographs = micrographs
        self._ledgers = ledgers
        self._jobs: dict[Path, _Job] = {}
        self._due = 0.0

    def begin(self, run: RunContext, folder: Path, numbers: Sequence[int]) -> RunContext | None:
        """Make ready for a portion.

        Parameters
        ----------
        run
            What the step is given.
        folder
            Of its job.
        numbers
            Of the micrographs, from 0, in the order of the list.

        Returns
        -------
        RunContext or None
            The same for these micrographs alone; None where there are none, or none with a CTF.

        Raises
        ------
        OutputError
            If their table cannot be written.
        """
        shutil.rmtree(folder / PORTION, ignore_errors=True)
        table = make_folder(folder / PORTION) / "micrographs.star"
        self._jobs.setdefault(folder, _Job(folder)).listed = run.micrographs()
        if not numbers:
            return None
        estimated = run.folders.get("ctf")
        ctf = None if estimated in (None, folder) else self._jobs.get(estimated)
        trusts = self.micrographs.trusts_ctf
        if ctf is None:
            self.micrographs.write_some(table, numbers)
        else:
            keys = [self.micrographs.keys[k] for k in numbers]
            trusts = self._share_trusted(ctf.folder) >= TRUSTED
            if not ctf.tables[CTF_TABLE].write_some(table, keys):
                return None
        folders = {name: path for name, path in run.folders.items() if name != "ctf"}
        return replace(run, table=table, folders=folders, trusts_ctf=trusts)

    def _share_trusted(self, folder: Path) -> float:
        """Share of all micrographs, those before this start of the session, too."""
        records = self._ledgers.records(folder).values()
        trusted = [bool(r.summary.get("is_trusted")) for r in records if not r.error]
        return sum(trusted) / max(len(trusted), 1)

    def end(self, folder: Path, facts: Mapping[str, Any], *, is_last: bool) -> dict[str, Any]:
        """Take in what was made of a portion, and count all that the job has made.

        Parameters
        ----------
        folder
            Of the job.
        facts
            Numbers of the portion.
        is_last
            Whether no other micrograph waits.

        Raises
        ------
        CryopickError
            If no micrograph was of use so far, and none waits.
        """
        job = self._jobs[folder]
        job.take()
        if is_last and not job.is_of_use:
            raise all_refused([why for _, why in job.failed.values()])
        return job.facts(facts)

    def write(self, *, is_due: bool = False) -> None:
        """Write the tables that have changed.

        Parameters
        ----------
        is_due
            Only if that was not done a moment ago: it takes longer the more micrographs there are.

        Raises
        ------
        OutputError
            If one cannot be written.
        """
        begun = time.monotonic()
        if is_due and begun < self._due:
            return
        for job in self._jobs.values():
            job.write()
        took = time.monotonic() - begun
        self._due = begun + max(_PATIENCE, _SHARE * took)
