"""Jobs of the project and those that were started here: lists, details, logs, stop and retry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response

from cryopick.io.json_files import read_object
from cryopick.pipeline.field_table import job_kind
from cryopick.pipeline.ledger_tail import LedgerTail
from cryopick.pipeline.run_story import TITLES
from cryopick.server.answers import Call, Conflict, Missing
from cryopick.server.forms import FORMS, schema_of
from cryopick.server.jobs import JobList, list_jobs
from cryopick.server.names import find_folder
from cryopick.server.pictures import digest
from cryopick.server.served import Served, stamp_of
from cryopick.server.starting import start
from cryopick.server.tasks import log_of, read_tasks, restart_task, stop_task

__all__ = ["jobs", "log", "one", "picture", "retry", "stop"]

_MOST_LOG = 256 << 10  # bytes
_MOST_FAILURES = 1000
_MOST_FILES = 500
_OTHERS = {"session start": "Session", "report": "Report"}  # that have no form


def jobs(call: Call) -> dict[str, Any]:
    """List all jobs."""
    known = list_jobs(call.served)
    found = [_of_project(known, number) for number in known.records]
    found += [_of_task(call.served, k, record) for k, record in read_tasks(call.served).items()]
    return {"jobs": found, "holder": known.holder}


def one(call: Call) -> dict[str, Any]:
    """Say all that is known of a job."""
    identity = call.path["job"]
    tasks = read_tasks(call.served)
    if identity in tasks:
        said = _of_task(call.served, identity, tasks[identity])
        folder: Path | None = _folder_of(tasks[identity])
        record = (read_object(folder / "job.json") or {}) if folder is not None else {}
        more = {
            "parameters": record.get("parameters") or {},
            "inputs": record.get("inputs") or [],
            "versions": record.get("versions") or {},
            "result": (read_object(folder / "result.json") or {}) if folder is not None else {},
        }
    else:
        folder = find_folder(call.served, identity)
        known = list_jobs(call.served)
        number = int(identity) if identity.isdecimal() else 0
        if number not in known.records:
            raise Missing("There is no such job.")
        job = known.records[number]
        said = _of_project(known, number)
        more = {
            "parameters": dict(job.parameters),
            "inputs": list(job.inputs),
            "versions": dict(job.versions),
            "result": dict(job.result or {}),
        }
    return {
        **said,
        **more,
        "units": _units(folder),
        "failures": _failures(call.served, folder),
        **_files(identity, folder),
    }


def log(call: Call) -> dict[str, Any]:
    """Give what a job has said since a place in its log."""
    identity = call.path["job"]
    after = call.whole("after", 0, high=1 << 50)
    tasks = read_tasks(call.served)
    if identity in tasks:
        path: Path | None = log_of(tasks[identity])
        is_over = tasks[identity]["state"] not in ("starting", "running")
    else:
        path = next(iter(sorted(find_folder(call.served, identity).glob("*.log"))), None)
        is_over = True
    if path is None or not path.is_file():
        return {"text": "", "next": 0, "is_whole": is_over}
    size = path.stat().st_size
    start_at = max(after, size - _MOST_LOG) if not after else min(after, size)
    with path.open("rb") as handle:
        handle.seek(start_at)
        text = handle.read(_MOST_LOG)
    end = start_at + len(text)
    return {
        "text": text.decode(errors="replace"),
        "next": end,
        "is_whole": is_over and end >= size,
    }


def picture(call: Call) -> Response:
    """Show a picture that a job has made."""
    folder = _any_folder(call.served, call.path["job"])
    names = {p.name: p for p in _pictures(folder)}
    path = names.get(call.path["name"])
    if path is None:
        raise Missing("The job has no such picture.")
    headers = {"Cache-Control": "private, max-age=31536000, immutable"} if "v" in call.query else {}
    return FileResponse(path, media_type="image/png", headers=headers)


def stop(call: Call) -> dict[str, Any]:
    """Ask a job that was started here to end."""
    stop_task(call.served, call.path["job"])
    return {"job": call.path["job"], "command": "Ctrl-C, where it was started"}


def retry(call: Call) -> dict[str, Any]:
    """Begin a job again: what is finished is kept, what failed is tried again."""
    identity = call.path["job"]
    if identity.startswith("t"):
        restart_task(call.served, identity)
        line = read_tasks(call.served)[identity]["line"]
        call.served.hub.add("jobs", {"jobs": [identity]})
        return {"job": identity, "command": line}
    find_folder(call.served, identity)
    values = call.served.project.run_parameters()
    if values is None:
        raise Conflict("This project was not made by a run; start the job anew from its form.")
    values.pop("pixel_size", None)
    body = {"command": "run", "parameters": values}
    return start(Call(served=call.served, path={}, body=body))


def _of_project(known: JobList, number: int) -> dict[str, Any]:
    job, tail = known.records[number], known.tails.get(number)
    state = known.state_of(number)
    by_identity = {(r.step, r.identity): str(n) for n, r in known.records.items()}
    return {
        "id": str(number),
        "number": number,
        "step": job.step,
        "title": TITLES.get(job.step, job.step),
        "command": job.command,
        "state": state,
        "started": job.started,
        "seconds": job.seconds,
        "n_done": tail.n_done if tail else None,
        "n_failed": tail.n_failed if tail else None,
        "error": job.error,
        "aliases": known.aliases_of(number),
        "outdated": known.outdated.get(number, ""),
        "upstream": {s: by_identity.get((s, i)) for s, i in job.upstream.items()},
        "can_stop": False,
        "can_retry": state in ("failed", "stopped") and not known.is_held,
        "path": str(known.folders[number]),
    }


def _of_task(served: Served, identity: str, record: dict[str, Any]) -> dict[str, Any]:
    folder = _folder_of(record)
    tail = LedgerTail(path=folder / "ledger.jsonl") if folder is not None else None
    if tail is not None:
        tail.read_new()
    state = "running" if record["state"] == "starting" else record["state"]
    command = str(record["command"])
    return {
        "id": identity,
        "number": None,
        "step": command.replace(" ", "_"),
        "title": FORMS[command].title if command in FORMS else _OTHERS.get(command, command),
        "command": record["line"],
        "state": state,
        "started": record["started"],
        "seconds": record["seconds"],
        "n_done": tail.n_done if tail else None,
        "n_failed": tail.n_failed if tail else None,
        "error": _last_line(log_of(record)) if state == "failed" else "",
        "aliases": [],
        "outdated": "",
        "upstream": {},
        "can_stop": state == "running",
        "can_retry": state in ("failed", "stopped", "done"),
        "path": str(folder) if folder is not None else str(served.folder),
    }


def _folder_of(record: dict[str, Any]) -> Path | None:
    path: Path = record["record"]
    folder = path.with_suffix("")
    return folder if folder.is_dir() else None


def _any_folder(served: Served, identity: str) -> Path:
    return find_folder(served, identity)


def _units(folder: Path | None) -> dict[str, str]:
    """Give the units of the parameters of a job, as far as its command has a form."""
    form = None if folder is None else FORMS.get(job_kind(folder))
    if form is None:
        return {}
    said = schema_of(form)["properties"]
    return {name: one["x-unit"] for name, one in said.items() if one["x-unit"]}


def _failures(served: Served, folder: Path | None) -> list[dict[str, Any]]:
    if folder is None:
        return []
    table = served.table()
    last = {item.key: item for item in LedgerTail(path=folder / "ledger.jsonl").read_new()}
    found = []
    for key, item in last.items():
        if item.error:
            place = table.place_of(key)
            found.append(
                {
                    "name": key,
                    "field": None if place is None else table.ids[place],
                    "reason": item.error,
                }
            )
    return found[-_MOST_FAILURES:]


def _files(identity: str, folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"files": [], "pictures": []}
    files = [
        {"name": p.name, "bytes": p.stat().st_size}
        for p in sorted(folder.iterdir())
        if p.is_file() and not p.name.startswith(".")
    ]
    pictures = [
        {
            "name": p.name,
            "url": f"api/jobs/{identity}/pictures/{p.name}?v={digest(stamp_of(p))[:8]}",
        }
        for p in _pictures(folder)
    ]
    return {"files": files[:_MOST_FILES], "pictures": pictures}


def _pictures(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.png")) if p.is_file() and not p.is_symlink()]


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 4000))
            lines = handle.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
