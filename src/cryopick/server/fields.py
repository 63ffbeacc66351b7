"""The table of fields: pages of it, limits, and ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.pipeline.field_choices import (
    FieldChoices,
    FieldStates,
    check_limits,
    find_limits,
    judge_fields,
    save_accepted,
    set_limits,
    set_ticks,
)
from cryopick.pipeline.field_columns import COLUMNS
from cryopick.pipeline.field_table import FieldTable
from cryopick.server.answers import Call, Missing, WrongCall
from cryopick.server.numbers import plain
from cryopick.server.served import command_line

__all__ = [
    "columns",
    "limits",
    "page",
    "position",
    "preview_limits",
    "put_limits",
    "put_ticks",
    "save",
    "series",
]

_SHOWN = (
    *("number", "name", "state", "tick", "reason", "time", "defocus", "ctf_resolution"),
    *("picks", "mean_score", "background", "particles", "selected", "yield", "error"),
)
_STATES = ("accepted", "rejected", "failed")
_LONGEST = 120  # characters of names on a shown command line


def columns(call: Call) -> dict[str, Any]:
    """List the columns of which anything is known."""
    table, _, _ = call.served.states()
    found = []
    for name, column in COLUMNS.items():
        values = _column(table, name)
        known = values[~np.isnan(values)] if values is not None else None
        if known is not None and not len(known):
            continue
        found.append(
            {
                "name": name,
                "title": column.title,
                "unit": column.unit,
                "about": column.about,
                "kind": column.kind,
                "digits": column.digits,
                "minimum": None if known is None else float(known.min()),
                "maximum": None if known is None else float(known.max()),
                "n_known": len(table) if known is None else len(known),
            }
        )
    return {"columns": found}


def page(call: Call) -> dict[str, Any]:
    """Give a page of the table."""
    table, _, states = call.served.states()
    order = _ordered(call, table, states)
    offset = call.whole("offset", 0)
    limit = call.whole("limit", 100, low=1, high=1000)
    names = [n for n in call.query.get("columns", "").split(",") if n] or list(_SHOWN)
    if unknown := [n for n in names if n not in COLUMNS]:
        raise WrongCall(f"There is no column {unknown[0][:50]}; known are {', '.join(COLUMNS)}.")
    places = order[offset : offset + limit]
    values = [_shown(table, states, name, places) for name in names]
    rows = zip([table.ids[p] for p in places.tolist()], *values, strict=True)
    return {
        "n_all": len(table),
        "n": len(order),
        "offset": offset,
        "columns": ["id", *names],
        "rows": [list(row) for row in rows],
    }


def position(call: Call) -> dict[str, Any]:
    """Say where a field stands in the order of the table, and which are beside it."""
    table, _, states = call.served.states()
    place = find_field(table, call.query.get("id", ""))
    order = _ordered(call, table, states)
    (at,) = np.nonzero(order == place)
    if not len(at):
        first = table.ids[int(order[0])] if len(order) else None
        return {"position": None, "previous": None, "next": first}
    here = int(at[0])
    return {
        "position": here,
        "previous": table.ids[int(order[here - 1])] if here else None,
        "next": table.ids[int(order[here + 1])] if here + 1 < len(order) else None,
    }


def series(call: Call) -> dict[str, Any]:
    """Give whole columns for plots."""
    table, _, states = call.served.states()
    wanted = [n for n in call.query.get("columns", "number").split(",") if n]
    most = call.whole("max_points", 20000, low=1, high=100000)
    step = max(1, -(-len(table) // most))
    places = np.arange(0, len(table), step)
    if unknown := [n for n in wanted if n not in COLUMNS]:
        raise WrongCall(f"There is no column {unknown[0][:50]}.")
    return {
        "n_all": len(table),
        "ids": [table.ids[p] for p in places.tolist()],
        "columns": {name: _shown(table, states, name, places) for name in wanted},
    }


def find_field(table: FieldTable, identity: str) -> int:
    """Find the place of a field by its id.

    Raises
    ------
    Missing
        If there is none.
    """
    place = table.index.get(identity)
    if place is None:
        raise Missing("There is no such micrograph.")
    return place


def limits(call: Call) -> dict[str, Any]:
    """Say which limits hold, and what they do."""
    _, choices, states = call.served.states()
    return _limits(choices, states)


def put_limits(call: Call) -> dict[str, Any]:
    """Set limits: those that are given, or those that were saved under a name."""
    _, before, _ = call.served.states()
    use, name = call.said("use", str, ""), call.said("name", str, "")
    wanted = find_limits(before, use) if use else call.said("limits", dict)
    set_limits(call.served.folder, wanted, name=name)
    _, choices, states = call.served.states()
    words: list[str] = ["--use", use] if use else []
    for column, (low, high) in choices.limits.items() if not use else ():
        bounds = f"{'' if low is None else f'{low:.12g}'}:{'' if high is None else f'{high:.12g}'}"
        words += ["--limit", f"{column}={bounds}"]
    words = (words or ["--none"]) + (["--name", name] if name else [])
    command = command_line("project", "limits", call.served.folder, *words)
    return _limits(choices, states) | {"command": command}


def preview_limits(call: Call) -> dict[str, Any]:
    """Say what limits would do."""
    table, choices, _ = call.served.states()
    wanted = FieldChoices(limits=check_limits(call.said("limits", dict)), ticks=choices.ticks)
    states = judge_fields(table, wanted, tells_why=False)
    return _counts(states) | {"by_column": states.by_column}


def put_ticks(call: Call) -> dict[str, Any]:
    """Accept or reject fields by hand."""
    table, _, states = call.served.states()
    where = call.said("where", dict, {})
    if call.body.get("fields") is not None:
        given = call.said("fields", list)
        names = [table.names[find_field(table, str(one))] for one in given]
    elif where:
        asked = Call(served=call.served, path={}, query={k: str(v) for k, v in where.items()})
        names = [table.names[p] for p in _ordered(asked, table, states).tolist()]
    else:
        raise WrongCall("fields or where must say which micrographs.")
    tick, reason = call.said("tick", str), call.said("reason", str, "")
    set_ticks(call.served.folder, names, tick, reason=reason)
    _, _, states = call.served.states()
    words = {"accepted": "--accept", "rejected": "--reject", "": "--clear"}
    shown = [word for name in names[:_LONGEST] for word in (words[tick], name)]
    shown += ["--reason", reason] if reason else []
    command = command_line("project", "tick", call.served.folder, *shown)
    if len(names) > _LONGEST:
        command += f"  # and {len(names) - _LONGEST} more"
    return {"n_changed": len(names), **_counts(states), "command": command}


def save(call: Call) -> dict[str, Any]:
    """Write the accepted fields."""
    with call.served.lock:
        path, n = save_accepted(call.served.table())
    command = command_line("project", "fields", call.served.folder)
    return {"path": str(path), "n": n, "command": command}


def _limits(choices: FieldChoices, states: FieldStates) -> dict[str, Any]:
    return {
        "limits": {name: list(bounds) for name, bounds in choices.limits.items()},
        **_counts(states),
        "by_column": states.by_column,
        "history": [
            {"when": d.when, "who": d.who, "limits": d.values.get("limits", {})}
            for d in choices.history[-50:]
        ],
        "named": [
            {"name": n, "when": d.when, "who": d.who, "limits": d.values.get("limits", {})}
            for n, d in choices.named.items()
        ],
    }


def _counts(states: FieldStates) -> dict[str, Any]:
    n = int(states.is_accepted.sum())
    return {"n_accepted": n, "n_rejected": len(states.is_accepted) - n}


def _ordered(call: Call, table: FieldTable, states: FieldStates) -> NDArray[np.intp]:
    """Places of the fields that are asked for, in the order that is asked for."""
    is_in = _chosen(call, table, states)
    places = np.flatnonzero(is_in)
    by = call.query.get("sort", "") or "number"
    if by not in COLUMNS:
        raise WrongCall(f"There is no column {by[:50]}; known are {', '.join(COLUMNS)}.")
    if by == "number":
        return places[::-1] if call.flag("descending") else places
    values = _column(table, by)
    if values is None:
        texts = np.array(_texts(table, states, by, places.tolist()), dtype=object)
        order = np.argsort(np.where(texts == "", "\uffff", texts), kind="stable")
        n_known = int(np.count_nonzero(texts != ""))
    else:
        order = np.argsort(values[places], kind="stable")  # those not known are last
        n_known = int(np.count_nonzero(~np.isnan(values[places])))
    if call.flag("descending"):
        order = np.concatenate([order[:n_known][::-1], order[n_known:]])
    return places[order]


def _chosen(call: Call, table: FieldTable, states: FieldStates) -> NDArray[np.bool_]:
    is_in = np.ones(len(table), bool)
    state = call.query.get("state", "")
    if state:
        if state not in _STATES:
            raise WrongCall(f"state must be one of {', '.join(_STATES)}.")
        is_in &= {
            "accepted": states.is_accepted,
            "failed": states.is_failed,
            "rejected": ~states.is_accepted & ~states.is_failed,
        }[state]
    if search := call.query.get("search", "").lower():
        is_in &= np.fromiter((search in n.lower() for n in table.names), bool, len(table))
    for key in call.query:
        side, dot, name = key.partition(".")
        if not dot or side not in ("min", "max"):
            continue
        values, bound = _column(table, name), call.number(key)
        if values is None or bound is None:
            raise WrongCall(f"{key[:50]} must name a column of numbers, and give a bound.")
        is_in &= values >= bound if side == "min" else values <= bound
    return is_in


def _column(table: FieldTable, name: str) -> NDArray[np.float64] | None:
    """Give the values of a column; None for one that has no numbers."""
    if name == "number":
        return np.arange(1, len(table) + 1, dtype=np.float64)
    return table.numbers.get(name)


def _texts(table: FieldTable, states: FieldStates, name: str, places: Sequence[int]) -> list[str]:
    """Give the words of some fields in a column without numbers."""
    if name == "state":
        return [states.name_of(p) for p in places]
    if name == "error":
        return [table.errors.get(p, ("", ""))[1] for p in places]
    columns = {"name": table.names, "reason": states.reasons, "tick": states.ticks}
    words = columns[name]
    return [words[p] for p in places]


def _shown(
    table: FieldTable, states: FieldStates, name: str, places: NDArray[np.intp]
) -> list[Any]:
    values = _column(table, name)
    if values is not None:
        return plain(values[places], digits=max(COLUMNS[name].digits + 2, 3))
    return _texts(table, states, name, places.tolist())
