"""Which fields are accepted: limits on what is known of them, and what people have ticked.

Both are decisions of people, lines that are only ever added to ``decisions.jsonl``. The last
limits hold, and of each field its last tick, which stands above them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import DataError, ParameterError
from cryopick.pipeline.field_columns import COLUMNS, LIMITED
from cryopick.pipeline.field_table import FieldTable
from cryopick.pipeline.project_decisions import Decision, add_decision, read_decisions
from cryopick.pipeline.project_places import is_plain_name
from cryopick.tables.paths import rename_for
from cryopick.tables.relion import read_micrographs, write_micrographs

__all__ = [
    "SELECTED",
    "FieldChoices",
    "FieldStates",
    "find_limits",
    "judge_fields",
    "read_choices",
    "save_accepted",
    "set_limits",
    "set_ticks",
]

SELECTED = "micrographs_selected.star"
LIMITS, TICKS = "limits", "ticks"  # kinds of decisions

Tick = Literal["accepted", "rejected", ""]
Limits = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, kw_only=True)
class FieldChoices:
    """What people have chosen."""

    limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    ticks: dict[str, tuple[Tick, str]] = field(default_factory=dict)  # and reason, by name
    history: list[Decision] = field(default_factory=list)  # of limits, oldest first
    named: dict[str, Decision] = field(default_factory=dict)  # limits that got a name, by that


@dataclass(frozen=True, kw_only=True)
class FieldStates:
    """What becomes of each field: all arrays are in the order of the fields."""

    is_accepted: NDArray[np.bool_]
    is_failed: NDArray[np.bool_]  # refused by a job
    reasons: list[str]  # why one is not accepted; empty where it is
    ticks: list[str]
    by_column: dict[str, int]  # fields that each limit alone would reject

    def name_of(self, place: int) -> str:
        """Say accepted, rejected or failed."""
        if self.is_failed[place]:
            return "failed"
        return "accepted" if self.is_accepted[place] else "rejected"


def read_choices(project: Path) -> FieldChoices:
    """Gather the choices that hold."""
    limits: dict[str, tuple[float | None, float | None]] = {}
    ticks: dict[str, tuple[Tick, str]] = {}
    history, named = [], {}
    for one in read_decisions(project):
        if one.what == LIMITS:
            history.append(one)
            if name := str(one.values.get("name") or ""):
                named[name] = one
            found = dict(one.values.get("limits") or {})
            limits = {str(k): (v[0], v[1]) for k, v in found.items()}
        elif one.what == TICKS:
            tick = one.values.get("tick", "")
            for name in one.values.get("fields") or ():
                ticks[str(name)] = (tick, str(one.values.get("reason") or ""))
    return FieldChoices(
        limits=limits,
        ticks={n: t for n, t in ticks.items() if t[0]},
        history=history,
        named=named,
    )


def judge_fields(
    table: FieldTable, choices: FieldChoices, *, tells_why: bool = True
) -> FieldStates:
    """Say of each field whether it is accepted.

    A field is rejected that lacks the value of a limited column: it is not known to be good.

    Parameters
    ----------
    table
        The fields.
    choices
        Of people.
    tells_why
        Make the reasons of limits, which takes longer than all else.
    """
    n = len(table)
    is_inside, reasons = np.ones(n, bool), [""] * n
    by_column = {}
    for name, (low, high) in choices.limits.items():
        values = _values(table, name)
        is_out = np.isnan(values)
        if low is not None:
            is_out |= values < low
        if high is not None:
            is_out |= values > high
        by_column[name] = int(is_out.sum())
        for at in np.flatnonzero(is_out & is_inside).tolist() if tells_why else ():
            reasons[at] = _why(name, float(values[at]), low, high)
        is_inside &= ~is_out
    is_failed = np.zeros(n, bool)
    for failed, (_, error) in table.errors.items():
        is_failed[failed], is_inside[failed], reasons[failed] = True, False, error
    ticks = [""] * n
    for name, (tick, reason) in choices.ticks.items():
        place = table.place_of(name)
        if place is not None:
            ticks[place] = tick
            is_inside[place] = tick == "accepted" and not is_failed[place]
            if not is_failed[place]:
                reasons[place] = "" if tick == "accepted" else reason or "ticked off by hand"
    return FieldStates(
        is_accepted=is_inside,
        is_failed=is_failed,
        reasons=reasons,
        ticks=ticks,
        by_column=by_column,
    )


def check_limits(limits: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Bring limits to one form; those without a bound are left out.

    Raises
    ------
    ParameterError
        If a name is no column of numbers, or bounds are no numbers or contradict each other.
    """
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, bounds in limits.items():
        if name not in LIMITED:
            raise ParameterError(
                f"limit {name}",
                must="be on a column of numbers",
                got=name,
                remedy=f"Known are {', '.join(LIMITED)}",
            )
        low, high = _bounds(name, bounds)
        if low is not None or high is not None:
            found[name] = (low, high)
    return found


def _bounds(name: str, bounds: Sequence[float | None]) -> tuple[float | None, float | None]:
    is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2
    numbers = [b for b in bounds if b is not None] if is_pair else []
    is_right = is_pair and all(
        isinstance(b, int | float) and not isinstance(b, bool) and math.isfinite(b) for b in numbers
    )
    if not is_right or (len(numbers) == 2 and numbers[0] > numbers[1]):
        raise ParameterError(
            f"limit {name}",
            must="be a lower and an upper bound, of which either may be missing",
            got=bounds,
            remedy="Change it",
        )
    low, high = bounds
    return (None if low is None else float(low)), (None if high is None else float(high))


def set_limits(
    project: Path, limits: Mapping[str, Sequence[float | None]], *, name: str = ""
) -> Decision:
    """Record the limits that hold from now on, instead of those before.

    Parameters
    ----------
    project
        Its folder, which another process may manage.
    limits
        Lower and upper bound of what is accepted, None for none, by column.
    name
        To find them again by, instead of those that had it before; empty for none.

    Raises
    ------
    ParameterError
        If a limit is none, or the name has other characters than letters, digits, _ and -.
    OutputError
        If it cannot be written.
    """
    values = {"limits": check_limits(limits)}
    if name and not is_plain_name(name):
        raise ParameterError(
            "a name of limits",
            must="have 1 to 64 letters, digits, _ and -, and not begin with -",
            got=name[:80],
            remedy="Choose another",
        )
    return add_decision(project, LIMITS, {**values, "name": name} if name else values)


def find_limits(choices: FieldChoices, name: str) -> dict[str, tuple[float | None, float | None]]:
    """Find limits by their name.

    Raises
    ------
    ParameterError
        If none have it.
    """
    if name not in choices.named:
        raise ParameterError(
            "limits",
            must="have been saved under this name",
            got=name[:80],
            remedy=f"Known are {', '.join(choices.named)}" if choices.named else "Save some first",
        )
    return check_limits(dict(choices.named[name].values.get("limits") or {}))


def set_ticks(project: Path, names: Iterable[str], tick: Tick, *, reason: str = "") -> Decision:
    """Record that a person accepts or rejects fields, whatever the limits.

    Parameters
    ----------
    project
        Its folder, which another process may manage.
    names
        Of the micrographs, as their table has them.
    tick
        Empty to leave them to the limits again.
    reason
        Why, in a person's words.

    Raises
    ------
    ParameterError
        If the tick is none of the words.
    OutputError
        If it cannot be written.
    """
    if tick not in ("accepted", "rejected", ""):
        raise ParameterError(
            "a tick", must="be accepted, rejected or empty", got=tick, remedy="Change it"
        )
    values = {"fields": list(names), "tick": tick, "reason": reason[:500]}
    return add_decision(project, TICKS, values)


def save_accepted(table: FieldTable, out: Path | None = None) -> tuple[Path, int]:
    """Write the accepted fields as a STAR table of micrographs.

    The table has all columns of the one that the fields come from, or of the CTF estimation.

    Parameters
    ----------
    table
        The fields, up to date.
    out
        Where to, instead of ``micrographs_selected.star`` in the project.

    Returns
    -------
    tuple
        Path of the table and number of its rows.

    Raises
    ------
    DataError
        If no field is accepted.
    OutputError
        If it cannot be written.
    """
    states = judge_fields(table, read_choices(table.project))
    wanted = set(np.flatnonzero(states.is_accepted).tolist())
    if not wanted or table.source is None:
        raise DataError(
            str(table.project),
            must="have an accepted field",
            got=f"none of {len(table)}",
            remedy="Widen the limits, or tick fields",
        )
    path = table.project / SELECTED if out is None else Path(out)
    given = read_micrographs(_with_ctf(table))
    is_wanted = [table.place_of(str(name)) in wanted for name in given.rows["micrograph"]]
    rows = given.rows.loc[is_wanted].reset_index(drop=True)
    names = [rename_for(str(n), source=given.source, target=path) for n in rows["micrograph"]]
    rows = rows.assign(micrograph=names)
    used = given.optics["optics_group"].isin(rows["optics_group"])
    write_micrographs(path, replace(given, rows=rows, optics=given.optics[used]))
    return path, len(rows)


def _with_ctf(table: FieldTable) -> Path:
    """Table of the CTF estimation if that is finished, for it says more."""
    from cryopick.pipeline.field_table import find_job_of

    assert table.source is not None
    folder = find_job_of(table.project, "ctf")
    path = None if folder is None else folder / "micrographs_ctf.star"
    return path if path is not None and path.is_file() else table.source


def _values(table: FieldTable, name: str) -> NDArray[np.float64]:
    if name == "number":
        return np.arange(1, len(table) + 1, dtype=np.float64)
    return table.numbers.get(name, np.full(len(table), np.nan))


def _why(name: str, value: float, low: float | None, high: float | None) -> str:
    column = COLUMNS[name]
    if math.isnan(value):
        return f"{column.title} is not known"
    bound, word = (low, "below") if low is not None and value < low else (high, "above")
    assert bound is not None
    unit = f" {column.unit}" if column.unit else ""
    return f"{column.title} {value:.{column.digits}f}{unit}, {word} {bound:g}"
