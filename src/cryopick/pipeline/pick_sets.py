"""Sets of picks of a project: what each job has found, with all its peaks, field by field."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopick.errors import CryopickError
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.job import identity_of
from cryopick.pipeline.ledger_tail import LedgerTail
from cryopick.tables.paths import micrograph_key
from cryopick.tables.pick_scores import UNKNOWN, PickScore, read_pick_score
from cryopick.tables.relion import picks_of_file, read_picks

__all__ = ["FieldCount", "PickSet", "Totals", "is_picking", "read_field_picks"]

_PICKS, _PEAKS = "_autopick.star", "_peaks.star"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FieldCount:
    """What a picker says of one field."""

    n_picks: int
    n_peaks: int
    threshold: float  # NaN where there is none


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a picker says of all fields."""

    n_picks: int
    n_peaks: int
    threshold: float | None  # None where fields have their own


def is_picking(folder: Path) -> bool:
    """Tell whether a folder holds the picks of a job, or picks that somebody saved."""
    kind = job_kind(folder)
    is_of_picker = kind.startswith("pick ") and "train" not in kind and "diameter" not in kind
    return is_of_picker or (folder / "autopick.star").is_file()


def read_field_picks(folder: Path, micrograph: str, *, peaks: bool = False) -> pd.DataFrame:
    """Read the picks, or all peaks, of one field.

    Parameters
    ----------
    folder
        Of a picking job.
    micrograph
        Name of the field.
    peaks
        All that were stored, not only those above the threshold.

    Returns
    -------
    pandas.DataFrame
        micrograph, x, y and the other columns, best first; empty where nothing was found.

    Raises
    ------
    FormatError, TableError
        If the file is broken.
    """
    key = micrograph_key(micrograph)
    path = folder / "peaks" / (key + _PEAKS) if peaks else folder / (key + _PICKS)
    if not path.is_file():
        none = pd.DataFrame({"micrograph": pd.Series([], dtype="str")})
        return none.assign(x=pd.Series([], dtype=float), y=pd.Series([], dtype=float))
    return picks_of_file(path, micrograph)


@dataclass(kw_only=True)
class PickSet:
    """The picks of one job, with what has been read of them.

    Attributes
    ----------
    folder
        Of the job.
    counts
        Of the fields, by key.
    """

    folder: Path
    counts: dict[str, FieldCount] = field(default_factory=dict)
    _tail: LedgerTail | None = None
    _scores: dict[str, tuple[int, Floats]] = field(default_factory=dict)  # when changed; best first
    _sorted: Floats | None = None
    _totals: Totals | None = None
    _listed: str = ""  # state of the list of a folder without ledger
    _lock: threading.Lock = field(default_factory=threading.Lock)  # reading all may take long

    @property
    def has_peaks(self) -> bool:
        """Whether peaks below the threshold were stored."""
        return (self.folder / "peaks").is_dir()

    def refresh(self) -> bool:
        """Take in what is new; tell whether anything is."""
        if self._tail is None:
            self._tail = LedgerTail(path=self.folder / "ledger.jsonl")
        items = self._tail.read_new()
        if self._tail.was_replaced:
            self.counts.clear()
        for item in items:
            if item.error:
                self.counts.pop(item.key, None)
                continue
            said = item.summary
            self.counts[item.key] = FieldCount(
                n_picks=int(said.get("n_picks", 0)),
                n_peaks=int(said.get("n_peaks", 0)),
                threshold=float(said.get("threshold", float("nan"))),
            )
        if not self._tail.path.exists():
            return self._count_listed()
        if items or self._tail.was_replaced:
            self._sorted = self._totals = None
        return bool(items)

    def _count_listed(self) -> bool:
        """Count the picks of a folder without ledger, if its list is another than before."""
        stamp = identity_of(self.folder / "autopick.star")
        if stamp == self._listed:
            return False
        self._listed, self._sorted, self._totals = stamp, None, None
        self.counts.clear()
        with contextlib.suppress(CryopickError):
            picks = read_picks(self.folder)
            counts = picks.rows["micrograph"].value_counts()
            listed = picks.attributes.get("micrographs")
            names = listed if isinstance(listed, list) else list(counts.index)
            for name in names:
                n = int(counts.get(name, 0))
                self.counts[micrograph_key(str(name))] = FieldCount(
                    n_picks=n, n_peaks=n, threshold=float("nan")
                )
        return True

    def score(self) -> PickScore:
        """Tell what the scores mean."""
        found = read_pick_score(self.folder / "summary.star")
        if found != UNKNOWN:
            return found
        first = next(self._files(), None)
        return UNKNOWN if first is None else read_pick_score(first[1])

    def totals(self) -> Totals:
        """Count picks and peaks of all fields, and tell the threshold that they share."""
        if self._totals is None:
            values = {c.threshold for c in self.counts.values()}
            (only,) = values if len(values) == 1 else (float("nan"),)
            self._totals = Totals(
                n_picks=sum(c.n_picks for c in self.counts.values()),
                n_peaks=sum(c.n_peaks for c in self.counts.values()),
                threshold=None if np.isnan(only) else only,
            )
        return self._totals

    def count(self, threshold: float) -> int:
        """Count the peaks of all fields whose score is at least the threshold."""
        scores = self._all_scores()
        return int(len(scores) - np.searchsorted(scores, threshold, side="left"))

    def scores(self) -> Floats:
        """Give the scores of all peaks of all fields, the lowest first."""
        return self._all_scores()

    def pick_scores(self) -> Floats:
        """Give the scores of the picks as they were shipped: the best of each field."""
        self._all_scores()
        kept = [
            found[1][: self.counts[key].n_picks]
            for key, found in self._scores.items()
            if key in self.counts
        ]
        return np.concatenate(kept) if kept else np.zeros(0)

    def _all_scores(self) -> Floats:
        with self._lock:
            return self._read_scores()

    def _read_scores(self) -> Floats:
        if self._sorted is None:
            for key, path in self._files():
                changed = path.stat().st_mtime_ns
                if self._scores.get(key, (0,))[0] != changed:
                    rows = picks_of_file(path, key)
                    fom = rows["fom"].to_numpy(np.float64) if "fom" in rows else np.zeros(0)
                    self._scores[key] = (changed, np.sort(fom)[::-1])
            for key in set(self._scores) - set(self.counts):
                del self._scores[key]
            parts = [found[1] for found in self._scores.values()]
            self._sorted = np.sort(np.concatenate(parts)) if parts else np.zeros(0)
        return self._sorted

    def _files(self) -> Iterator[tuple[str, Path]]:
        """Give key and file of each field that has peaks, or picks where there are no peaks."""
        has_peaks = self.has_peaks
        for key in list(self.counts):
            name = f"peaks/{key}{_PEAKS}" if has_peaks else f"{key}{_PICKS}"
            path = self.folder / name
            if path.is_file():
                yield key, path
