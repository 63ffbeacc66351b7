"""Look at the project's files now and then, and tell those who listen what has changed.

Files are asked for their time of change and size, not watched: shared disks tell nobody anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from cryopick.errors import CryopickError
from cryopick.io.json_files import read_object
from cryopick.pipeline.project_layout import (
    ALIASES,
    DECISIONS,
    LEDGER,
    LOCK,
    RUN,
    list_job_folders,
)
from cryopick.pipeline.project_places import EDITS, SELECTIONS, SESSION, TASKS
from cryopick.server.heavy import close as close_helper
from cryopick.server.served import Served, stamp_of

__all__ = ["Watch", "read_session", "watch"]

_LISTENED, _ALONE = 1.0, 5.0  # s between looks, with somebody listening and without
_MANY = 200  # ids in one event
_OF_JOBS = ("step.json", "result.json", "stream.json", "job.json")
_LOG = logging.getLogger("cryopick.server")


@contextlib.asynccontextmanager
async def watch(served: Served) -> AsyncIterator[None]:
    """Look while the server runs: whatever changes after its first answer is told."""
    looker = Watch(served)
    with contextlib.suppress(CryopickError, OSError):  # the first look says what is wrong
        await run_in_threadpool(looker.begin)
    task = asyncio.create_task(_look_on(looker, served))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _look_on(looker: Watch, served: Served) -> None:
    was_gone = False
    while True:
        try:
            await run_in_threadpool(looker.look)
            close_helper(if_idle=True)
            was_gone = False
        except (CryopickError, OSError) as error:
            if not was_gone:
                served.hub.add("gone", {"error": str(error)})
            was_gone = True
        except Exception:  # the next look may do better
            _LOG.exception("looking at the project failed")
        await asyncio.sleep(_LISTENED if served.hub.n_listeners else _ALONE)


class Watch:
    """What was seen at the last look."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stamps: dict[str, str] = {}
        self._is_first = True

    def begin(self) -> None:
        """Take down how the files are; to be called before anybody can have asked for them."""
        self._stamps = dict(_stamps(self._served.folder))

    def look(self) -> None:
        """Compare the files with those of the last look, and add events."""
        stamps = dict(_stamps(self._served.folder))
        before, self._stamps = self._stamps, stamps
        changed = {n for n in stamps.keys() | before.keys() if stamps.get(n) != before.get(n)}
        if self._is_first:
            self._is_first = False
            self._served.table()  # slow once; who asks for it finds it ready
        if changed:
            self._tell(changed)

    def _tell(self, changed: set[str]) -> None:
        served, kinds = self._served, {name.partition(":")[0] for name in changed}
        if kinds & {"ledger", "fields", "aliases", "selected"}:
            self._tell_fields()
        if kinds & {"ledger", "job", "aliases", "task", "lock"}:
            jobs = sorted({n.split(":")[1] for n in changed if n.count(":") >= 1})
            served.hub.add("jobs", {"jobs": jobs})
            self._tell_overview()
        if "decisions" in kinds:
            _, _, states = served.states()
            n = int(states.is_accepted.sum())
            served.hub.add("limits", {"n_accepted": n, "n_rejected": len(states.ticks) - n})
        if "edits" in kinds:
            served.hub.add("edits", {"set": None, "field": None, "n_edits": None})
        if "selection" in kinds:
            names = sorted(n.split(":")[1] for n in changed if n.startswith("selection:"))
            served.hub.add("selections", {"names": names})
        if "classes" in kinds:
            numbers = sorted(n.split(":")[1] for n in changed if n.startswith("classes:"))
            served.hub.add("classes", {"classifications": numbers})
        if "session" in kinds and (said := read_session(served.folder)) is not None:
            served.hub.add("session", said)

    def _tell_fields(self) -> None:
        served = self._served
        table = served.table()
        n_before, places = served.take_changes()
        added = table.ids[n_before:] if n_before <= len(table) else table.ids
        changed = None
        if places is not None:
            changed = [table.ids[p] for p in sorted(places) if p < n_before]
            if not changed and not added:
                return
        data = {
            "n_all": len(table),
            "added": added[-_MANY:],
            "changed": None if changed is None or len(changed) > _MANY else changed,
        }
        served.hub.add("fields", data)

    def _tell_overview(self) -> None:
        from cryopick.server.overview import short_overview

        self._served.hub.add("overview", short_overview(self._served))


def read_session(folder: Path) -> dict[str, Any] | None:
    """Read what a session says of itself; None where there is none."""
    return read_object(folder / SESSION)


def _stamps(folder: Path) -> Iterator[tuple[str, str]]:
    """Name the state of every file of which a page shows something."""
    yield "fields", stamp_of(folder / "micrographs.star")
    yield "aliases", stamp_of(folder / ALIASES)
    yield "decisions", stamp_of(folder / DECISIONS)
    yield "run", stamp_of(folder / RUN)
    yield "session", stamp_of(folder / SESSION)
    yield "lock", str((folder / LOCK).exists())
    for number, job in list_job_folders(folder).items():
        yield f"job:{number}", "|".join(stamp_of(job / name) for name in _OF_JOBS)
        yield f"ledger:{number}", stamp_of(job / LEDGER)
        if (job / "rounds").is_dir():
            yield f"classes:{number}", stamp_of(job / "rounds")
    for path in _files(folder / TASKS, "*.json"):
        yield f"task:{path.stem}", stamp_of(path)
    for path in _files(folder / EDITS, "*.jsonl"):
        yield f"edits:{path.stem}", stamp_of(path)
    for path in _files(folder / SELECTIONS, "*/job.json"):
        yield f"selection:{path.parent.name}", stamp_of(path)


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []
