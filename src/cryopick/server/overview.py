"""What the first page says: where the project stands, how fast it goes, what failed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cryopick import __version__
from cryopick.errors import CryopickError
from cryopick.pipeline.field_table import find_job_of
from cryopick.pipeline.planner import Step
from cryopick.pipeline.project_records import StepRecord
from cryopick.pipeline.run_graph import run_graph
from cryopick.pipeline.run_numbers import run_flow
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_story import TITLES, step_result
from cryopick.server.answers import Call
from cryopick.server.jobs import JobList, list_jobs
from cryopick.server.served import Served
from cryopick.server.watch import read_session

__all__ = ["me", "overview", "run_steps", "short_overview"]

_MOST_FAILURES = 500
_OF_FIELDS = ("ctf", "first_picks", "first_particles", "picks", "particles")
_SPREAD = 0.3  # of an expected time, either way


def me(call: Call) -> dict[str, Any]:
    """Say who asks, and of which project."""
    said = call.served.project.description
    expires = datetime.fromtimestamp(call.expires, UTC).isoformat(timespec="seconds")
    return {
        "role": call.role,
        "expires": expires if call.role == "viewer" else None,
        "can_write": call.role == "owner" and not call.served.settings.is_read_only,
        "version": __version__,
        "project": {
            "name": said.name,
            "folder": str(call.served.folder.resolve()),
            "uuid": said.uuid,
            "created": said.created,
        },
    }


def overview(call: Call) -> dict[str, Any]:
    """Gather all that the first page says."""
    served = call.served
    jobs = list_jobs(served)
    steps = run_steps(served)
    rows = [_step(served, jobs, name, steps) for name in steps]
    facts = {
        r["name"]: (jobs.records[int(r["job"])].result or {}).get("facts") or {}
        for r in rows
        if r["job"] and r["state"] == "done"
    }
    failures = _failures(served, jobs)
    halted = next((r for r in rows if r["state"] == "failed"), None)
    running = next((r for r in rows if r["state"] == "running"), None)
    rate, eta = _rate_and_eta(served, running)
    return {
        "revision": served.hub.revision,
        "now": datetime.now(UTC).isoformat(timespec="seconds"),
        **short_overview(served),
        "session": read_session(served.folder),
        "halted": halted
        and {
            "step": halted["name"],
            "title": halted["title"],
            "error": jobs.records[int(halted["job"])].error,
            "job": halted["job"],
        },
        "rate": rate,
        "eta": eta,
        "steps": rows,
        "waiting": _waiting(rows, steps),
        "failures": failures[-_MOST_FAILURES:],
        "n_failures": len(failures),
        "flow": _flow(facts, len(served.table())),
        "has_report": (served.folder / "report.html").is_file(),
    }


def short_overview(served: Served) -> dict[str, Any]:
    """Count what there is, and say whether anybody works on it."""
    table, _, states = served.states()
    jobs = list_jobs(served)
    numbers = table.numbers
    is_failed = any(
        jobs.records[n].state == "failed" for n in jobs.aliases.values() if n in jobs.records
    )
    state = "running" if jobs.is_held else "halted" if is_failed else "idle"
    return {
        "holder": jobs.holder,
        "state": state if len(table) else "running" if jobs.is_held else "empty",
        "counts": {
            "fields": len(table),
            "with_ctf": int(np.count_nonzero(~np.isnan(numbers["defocus"]))),
            "picked": int(np.count_nonzero(~np.isnan(numbers["picks"]))),
            "failed": len(table.errors),
            "accepted": int(states.is_accepted.sum()),
            "rejected": int((~states.is_accepted & ~states.is_failed).sum()),
            "picks": int(np.nansum(numbers["picks"])),
            "particles": int(np.nansum(numbers["particles"])),
            "selected": int(np.nansum(numbers["selected"])),
            "classes": _n_classes(jobs),
        },
    }


def run_steps(served: Served) -> dict[str, Step]:
    """Tell the steps of the last run, in order; empty where there was none that can be read."""
    values = served.project.run_parameters()
    if values is None:
        return {}
    pixel_size = values.pop("pixel_size", None)
    try:
        parameters = RunParameters.from_dict(values)
        has_ctf = find_job_of(served.folder, "ctf") is None
        graph = run_graph(parameters, has_ctf=has_ctf, pixel_size=pixel_size)
    except CryopickError:
        return {}
    return {step.name: step for step in graph}


def _n_classes(jobs: JobList) -> int:
    number = jobs.aliases.get("classes", jobs.aliases.get("first_classes", 0))
    record = jobs.records.get(number)
    facts = ((record.result if record else None) or {}).get("facts") or {}
    return int(facts.get("n_occupied", 0))


def _step(served: Served, jobs: JobList, name: str, steps: Mapping[str, Step]) -> dict[str, Any]:
    numbers = [n for n, record in jobs.records.items() if record.step == name]
    latest = max(numbers, default=0)
    number = jobs.aliases.get(name, latest)
    if latest in jobs.records and jobs.state_of(latest) == "running":
        number = latest
    record = jobs.records.get(number)
    step = steps[name]
    tail = jobs.tails.get(number)
    n_fields = len(served.table())
    n_all = min(step.first or n_fields, n_fields) if name in _OF_FIELDS else None
    return {
        "name": name,
        "title": TITLES[name],
        "job": None if record is None else str(number),
        "state": "waiting" if record is None else jobs.state_of(number),
        "n_done": tail.n_done if tail else 0,
        "n_failed": tail.n_failed if tail else 0,
        "n_all": n_all,
        "seconds": record.seconds if record else 0.0,
        "sentence": _sentence(name, record),
        "outdated": jobs.outdated.get(number, ""),
    }


def _sentence(name: str, record: StepRecord | None) -> str:
    if record is None:
        return ""
    if record.error:
        return record.error
    facts = (record.result or {}).get("facts")
    if record.state != "done" or not facts:
        return ""
    try:
        return step_result_of(name, facts)
    except (KeyError, TypeError, ValueError):  # of another version
        return ""


def step_result_of(name: str, facts: Mapping[str, Any]) -> str:
    """Say what a step came to, from its numbers alone."""
    from pathlib import Path

    from cryopick.pipeline.runner import StepDone

    done = StepDone(name=name, number=0, folder=Path(), facts=facts, seconds=0.0, is_new=False)
    return step_result(done)


def _waiting(rows: Sequence[Mapping[str, Any]], steps: Mapping[str, Step]) -> list[str]:
    done = {r["name"] for r in rows if r["state"] == "done"}
    sentences = []
    for row in rows:
        if row["state"] != "waiting":
            continue
        lacking = [TITLES[n] for n in steps[row["name"]].needs if n not in done]
        what = " and ".join(lacking) or "its turn"
        sentences.append(f"{row['title']} waits for {what}.")
    return sentences


def _failures(served: Served, jobs: JobList) -> list[dict[str, Any]]:
    table = served.table()
    found = [
        {
            "field": table.ids[place],
            "name": table.names[place],
            "job": _job_of(served, role),
            "step": role,
            "reason": reason,
        }
        for place, (role, reason) in sorted(table.errors.items())
    ]
    for number, record in jobs.records.items():
        if record.error:
            found.append(
                {
                    "field": None,
                    "name": TITLES.get(record.step, record.step),
                    "job": str(number),
                    "step": record.step,
                    "reason": record.error,
                }
            )
    return found


def _job_of(served: Served, role: str) -> str | None:
    folder = find_job_of(served.folder, role)
    return None if folder is None else str(int(folder.name.split("_")[0]))


def _rate_and_eta(
    served: Served, running: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if running is None or running["n_all"] is None:
        return None, None
    rate = served.rates.of(int(running["job"]))
    if rate is None:
        return None, None
    per_second, window = rate
    left = max(0, running["n_all"] - running["n_done"] - running["n_failed"])
    seconds = left / per_second
    return (
        {"fields_per_hour": round(3600 * per_second, 1), "window_s": round(window, 1)},
        {
            "seconds": round(seconds),
            "low": round(seconds * (1 - _SPREAD)),
            "high": round(seconds * (1 + _SPREAD)),
            "of": running["name"],
        },
    )


def _flow(facts: Mapping[str, Mapping[str, Any]], n_fields: int) -> list[dict[str, Any]]:
    try:
        groups = run_flow(facts, n_micrographs=n_fields)
    except (KeyError, TypeError, ValueError):  # numbers of another version
        return []
    return [
        {
            "title": group.title,
            "rows": [
                {
                    "name": row.name,
                    "kept": row.kept,
                    "losses": [{"count": n, "why": why} for n, why in row.losses],
                }
                for row in group.rows
            ],
        }
        for group in groups
    ]
