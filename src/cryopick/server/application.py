"""All routes, and what lives as long as the server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from cryopick.server.answers import calls, json_answer
from cryopick.server.guard import Guard
from cryopick.server.heavy import close as close_helper
from cryopick.server.served import Served
from cryopick.server.settings import ServerSettings
from cryopick.server.watch import watch

__all__ = ["make_application"]

_GETS = {
    "me": "overview.me",
    "overview": "overview.overview",
    "fields": "fields.page",
    "fields/columns": "fields.columns",
    "fields/position": "fields.position",
    "fields/series": "fields.series",
    "limits": "fields.limits",
    "fields/{field}": "micrograph.one",
    "fields/{field}/image": "micrograph.image",
    "fields/{field}/tiles/{level:int}/{x:int}/{y:int}": "micrograph.tile",
    "fields/{field}/spectrum": "micrograph.spectrum",
    "fields/{field}/spectrum/image": "micrograph.spectrum_image",
    "sets": "sets.sets",
    "sets/{set}/count": "sets.count",
    "sets/{set}/histogram": "sets.histogram",
    "sets/{set}/edits": "editing.edits",
    "sets/{set}/fields/{field}": "sets.of_field",
    "sets/{set}/fields/{field}/labels": "sets.labels",
    "classifications": "classifications.classifications",
    "classifications/{classes}": "classifications.one",
    "classifications/{classes}/atlas": "classifications.atlas",
    "classifications/{classes}/classes/{number}": "classifications.members",
    "classifications/{classes}/places/{field}": "classifications.places",
    "selections": "selections.selections",
    "jobs": "job_pages.jobs",
    "jobs/{job}": "job_pages.one",
    "jobs/{job}/log": "job_pages.log",
    "jobs/{job}/pictures/{name}": "job_pages.picture",
    "forms": "starting.forms",
    "forms/{command}": "starting.form",
    "tomograms": "tomograms.tomograms",
    "tomograms/{tomogram}": "tomograms.one",
    "tomograms/{tomogram}/slice/{axis}/{index:int}": "tomograms.slice_image",
    "tomograms/{tomogram}/segmentation/{axis}/{index:int}": "tomograms.segmentation",
    "tomograms/{tomogram}/picks": "tomograms.picks",
    "report": "exporting.report",
    "downloads/{kind}/{id}": "exporting.download",
    "particles": "particles.tables",
    "particles/{particles}": "particles.page",
    "particles/{particles}/atlas": "particles.atlas",
    "particles/{particles}/pictures/{name}": "particles.picture",
}
_CHANGES = {
    ("PUT", "limits"): "fields.put_limits",
    ("POST", "limits/preview"): "fields.preview_limits",
    ("PUT", "ticks"): "fields.put_ticks",
    ("POST", "fields/save"): "fields.save",
    ("POST", "sets/{set}/fields/{field}/edits"): "editing.edit",
    ("POST", "sets/{set}/fields/{field}/undo"): "editing.undo_edit",
    ("POST", "sets/{set}/fields/{field}/redo"): "editing.redo_edit",
    ("POST", "sets/{set}/save"): "editing.save",
    ("PUT", "selections/{name}"): "selections.put",
    ("POST", "selections/{name}/use"): "starting.use_selection",
    ("POST", "jobs"): "starting.start",
    ("POST", "jobs/preview"): "starting.preview",
    ("POST", "jobs/{job}/stop"): "job_pages.stop",
    ("POST", "jobs/{job}/retry"): "job_pages.retry",
    ("POST", "plan"): "planning.foresee",
    ("POST", "session"): "session_control.session",
    ("POST", "report"): "exporting.make_report",
    ("POST", "export"): "exporting.export",
    ("POST", "share"): "exporting.share",
    ("POST", "particles/{particles}/average"): "particles.average",
    ("PUT", "particles/{particles}/disabled"): "particles.disable",
    ("POST", "particles/{particles}/save"): "particles.save",
}


def make_application(settings: ServerSettings) -> Guard:
    """Make the server of a project.

    Raises
    ------
    ProjectError
        If the folder is no project, or one of a newer version.
    """
    served = Served(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        served.hub.open()
        async with watch(served):
            yield
        served.hub.close()
        close_helper()

    application = Starlette(routes=_routes(), lifespan=lifespan)
    application.state.served = served
    return Guard(application, settings)


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/", _index),
        Route("/favicon.ico", _icon),
        Route("/api/events", _events),
        Route("/api/changes", _changes),
    ]
    routes += [Route(f"/api/{path}", calls(name)) for path, name in _GETS.items()]
    routes += [
        Route(f"/api/{path}", calls(name), methods=[method])
        for (method, path), name in _CHANGES.items()
    ]
    return [*routes, Mount("/static", StaticFiles(directory=_static(), check_dir=False))]


def _static() -> Path:
    return Path(str(resources.files("cryopick.server") / "static"))


async def _index(_: Request) -> Response:
    return FileResponse(_static() / "index.html", headers={"Cache-Control": "no-cache"})


async def _icon(_: Request) -> Response:
    return FileResponse(_static() / "icon.svg", media_type="image/svg+xml")


async def _events(request: Request) -> Response:
    last = request.headers.get("last-event-id", "") or request.query_params.get("since", "")
    stream = request.app.state.served.hub.listen(last)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _changes(request: Request) -> Response:
    hub = request.app.state.served.hub
    news = hub.since(request.query_params.get("since", ""))
    return json_answer(
        request,
        {
            "revision": hub.revision,
            "is_reset": news is None,
            "events": [
                {"id": f"{hub.boot}-{e.number}", "event": e.name, "data": e.data}
                for e in news or ()
            ],
        },
    )
