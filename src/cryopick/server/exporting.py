"""What leaves the page: exports, the report, links for others, files."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from cryopick.io.star import write_star
from cryopick.pipeline.field_choices import SELECTED
from cryopick.pipeline.pick_sets import is_picking
from cryopick.pipeline.project_places import EXPORTS
from cryopick.server.answers import Call, Conflict, Missing, WrongCall
from cryopick.server.commands import run_command
from cryopick.server.names import find_folder, require_name
from cryopick.server.particle_places import particle_table
from cryopick.server.served import command_line
from cryopick.server.starting import start
from cryopick.server.tickets import Ticket, write_ticket
from cryopick.tables.relion import read_picks
from cryopick.tables.relion_names import PICK_ROWS, to_relion

__all__ = ["download", "export", "make_report", "report", "share"]

_LAYOUTS = ("relion", "scipion", "cryosparc")
_LONGEST_SHARE = 720  # hours
_OF_REPORT = (
    "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "font-src data:; frame-ancestors 'self'"
)


def export(call: Call) -> dict[str, Any]:
    """Write the project for another program."""
    layout = call.said("layout", str)
    if layout not in _LAYOUTS:
        raise WrongCall(f"layout must be one of {', '.join(_LAYOUTS)}.")
    out = call.served.folder / EXPORTS / require_name(call.said("name", str, f"for_{layout}"))
    if out.exists():
        raise Conflict(f"There is an export of the name {out.name} already.")
    words: list[object] = ["project", "export", call.served.folder]
    words += ["--layout", layout, "--out", out]
    words += ["--copy"] if call.wants("copy") else []
    result = run_command(words)
    return {
        "path": str(out),
        "written": result["written"],
        "notes": result["notes"],
        "command": command_line(*words),
    }


def report(call: Call) -> Response:
    """Show the report: a page of its own, which may run nothing."""
    path = call.served.folder / "report.html"
    if not path.is_file():
        raise Missing("There is no report yet.")
    headers = {
        "Content-Security-Policy": _OF_REPORT,
        "X-Frame-Options": "SAMEORIGIN",
        "Cache-Control": "no-cache",
    }
    name = f"{call.served.project.description.name or 'cryopick'}_report.html"
    kind = "attachment" if call.flag("download") else "inline"
    return FileResponse(
        path,
        media_type="text/html",
        filename=name,
        content_disposition_type=kind,
        headers=headers,
    )


def make_report(call: Call) -> dict[str, Any]:
    """Make the report anew: a run that has nothing else to do."""
    values = call.served.project.run_parameters()
    if values is None:
        raise Conflict("This project was not made by a run.")
    values.pop("pixel_size", None)
    body = {"command": "run", "parameters": values}
    return start(Call(served=call.served, path={}, body=body))


def share(call: Call) -> dict[str, Any]:
    """Make a link with which others may look, for some time."""
    hours = call.said("hours", (int, float), 24)
    if not 0 < hours <= _LONGEST_SHARE:
        raise WrongCall(f"hours must be above 0 and at most {_LONGEST_SHARE}.")
    ticket = Ticket(role="viewer", expires=int(time.time() + 3600 * hours))
    text = write_ticket(ticket, call.served.settings.token).removeprefix("viewer.")
    expires = datetime.fromtimestamp(ticket.expires, UTC).isoformat(timespec="seconds")
    return {"url": f"?share={text}", "expires": expires}


def download(call: Call) -> Response:
    """Give a table as a file."""
    kind, identity = call.path["kind"], call.path["id"]
    if kind == "fields":
        path = call.served.folder / SELECTED
        if identity != "selected" or not path.is_file():
            raise Missing("Save the accepted micrographs first.")
        return FileResponse(path, filename=path.name, media_type="text/plain")
    folder = find_folder(call.served, f"s:{identity}" if kind == "selection" else identity)
    name = folder.name
    is_particles = kind in ("particles", "selection")
    if is_particles and (table := particle_table(folder)) is not None:
        return FileResponse(table, filename=f"{name}_particles.star", media_type="text/plain")
    if kind == "picks" and is_picking(folder):
        return _all_picks(folder, name)
    raise Missing("There is no such file.")


def _all_picks(folder: Path, name: str) -> Response:
    """Write all picks of a set as one table."""
    picks = read_picks(folder)
    with tempfile.NamedTemporaryFile(suffix=".star", delete=False) as handle:
        path = Path(handle.name)
    names = {"micrograph": "rlnMicrographName", **PICK_ROWS}
    write_star(path, {"particles": to_relion(picks.rows, names)})
    return FileResponse(
        path,
        filename=f"{name}_picks.star",
        media_type="text/plain",
        background=BackgroundTask(path.unlink, missing_ok=True),
    )
