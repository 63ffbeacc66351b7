"""The right to manage a project: one process at a time, on any host that sees the folder.

The holder writes ``project.lock.json`` and counts it up every few seconds. A holder that died on
this machine is followed at once; one on another machine, whose processes cannot be seen, only
when its count has stood still for a minute by our own clock. A holder that finds another's name
in the file has lost the project, and stops before it writes anything more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

from cryopick.errors import ProjectError
from cryopick.io.atomic import aside_path, output_errors
from cryopick.pipeline.project_holder import Holder, Place, read_holder, this_place
from cryopick.pipeline.project_layout import GUARD, LOCK, now

__all__ = ["Lease", "LeaseTimes"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_CLAIM = ".project.takeover."  # and the run of the holder that is followed
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """When a lease is renewed and when it is given up, and by which clock."""

    beat: float = 5.0  # s between two renewals
    patience: float = 60.0  # s without a renewal, after which a holder elsewhere has lost it
    poll: float = 1.0  # s between two looks at a holder
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Lease:
    """The right to manage the project in a folder, from `acquire` to `release`.

    Parameters
    ----------
    folder
        Of the project.
    command
        What this process is doing, for others to read; its command line if not given.
    times
        Intervals and clock.
    place
        Where this process is.
    tell
        Called with a sentence when the lease has to be waited for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str | None = None,
        times: LeaseTimes | None = None,
        place: Place | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._path = self._folder / LOCK
        self._times = times or LeaseTimes()
        self._tell = tell or (lambda sentence: None)
        self._me = Holder(
            **asdict(place or this_place()),
            uuid=uuid.uuid4().hex,
            seq=0,
            since=now(),
            command=" ".join(sys.argv) if command is None else command,
        )
        self._guard: IO[bytes] | None = None
        self._seen: dict[tuple[str, str, int], float] = {}  # what was seen, and when first
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: Holder | str | None = None

    @property
    def uuid(self) -> str:
        """Names this lease."""
        return self._me.uuid

    @property
    def is_lost(self) -> bool:
        """Whether another process was seen to have taken over."""
        return self._lost is not None

    def acquire(self) -> Self:
        """Take the lease and begin to renew it.

        Raises
        ------
        ProjectError
            If another process has it.
        OutputError
            If the folder cannot be written.
        """
        try:
            while not self._try():
                pass
        except BaseException:
            self._drop_guard()
            raise
        self._sweep()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(Exception):  # a disk that is gone holds no lease
            found = read_holder(self._path)
            if found is not None and found.uuid == self.uuid:
                self._path.unlink(missing_ok=True)
        self._drop_guard()

    def require(self) -> None:
        """Refuse to go on if another process has taken over; to be called before every commit.

        Raises
        ------
        ProjectError
            If the lease is lost.
        """
        with self._mutex:
            self._look()
        if self._lost is not None:
            raise ProjectError(
                str(self._folder),
                must="still be managed by this run",
                got=f"{self._lost}",
                remedy="This run stops here; what it had finished is kept",
            )

    def beat(self) -> None:
        """Renew the lease, or notice that it is lost."""
        with self._mutex:
            self._look()
            if self._lost is None:
                self._me = replace(self._me, seq=self._me.seq + 1)
                self._write(self._path)

    def _renew(self) -> None:
        while not self._ended.wait(self._times.beat):
            with contextlib.suppress(Exception):  # a full or slow disk: tried again next time
                self.beat()
            if self.is_lost:
                return

    def _look(self) -> None:
        if self._lost is None:
            found = read_holder(self._path)
            if found is None or found.uuid != self.uuid:
                self._lost = found or "a lock that somebody has removed"

    def _try(self) -> bool:
        """Take one step towards the lease: True when it is ours."""
        is_guarded = self._take_guard()
        found = read_holder(self._path)
        if found is None:
            if is_guarded is False:  # a process here is about to write the lock
                self._wait_for("the guard", "", 0, refuse_after=self._times.beat)
                return False
            return self._create(self._path)
        if self._me.sees(found):
            if found.is_alive:
                self._refuse(str(found))
            return self._take_over(found)
        if not self._watch(found):
            return False
        return self._take_over(found)

    def _watch(self, found: Holder) -> bool:
        """Look at a holder elsewhere: True when its lock has stood still for long enough."""
        looks = {(identity, count) for kind, identity, count in self._seen if kind == "lock"}
        if not looks:
            self._tell(
                f"{self._folder} was managed by {found}. Whether that still runs cannot be seen "
                f"from here, so its lock is watched for {self._times.patience:.0f} s."
            )
        elif (found.uuid, found.seq) not in looks:
            self._refuse(str(found))
        if self._stands_still("lock", found.uuid, found.seq):
            return True
        self._times.sleep(self._times.poll)
        return False

    def _stands_still(self, kind: str, identity: str, count: int) -> bool:
        """Whether the same was seen for as long as our patience lasts."""
        clock = self._times.monotonic()
        first = self._seen.setdefault((kind, identity, count), clock)
        return clock - first >= self._times.patience

    def _wait_for(self, kind: str, identity: str, count: int, *, refuse_after: float) -> None:
        clock = self._times.monotonic()
        if clock - self._seen.setdefault((kind, identity, count), clock) >= refuse_after:
            self._refuse("a run that is just starting")
        self._times.sleep(min(0.05, self._times.poll))

    def _take_over(self, found: Holder) -> bool:
        """Follow a holder that is gone; of several that try, one does."""
        claim = self._folder / f"{_CLAIM}{found.uuid or 'unknown'}"
        if not self._create(claim):
            other = read_holder(claim)
            if other is not None:
                is_gone = self._me.sees(other) and not other.is_alive
                if is_gone or self._stands_still("claim", other.uuid, other.seq):
                    claim.unlink(missing_ok=True)
                else:
                    self._times.sleep(min(0.05, self._times.poll))
            return False
        try:
            now_there = read_holder(self._path)
            if now_there != found:
                return False
            self._write(self._path)
        finally:
            claim.unlink(missing_ok=True)
        return True

    def _sweep(self) -> None:
        """Remove claims of processes that were killed while they followed an earlier holder."""
        for claim in self._folder.glob(f"{_CLAIM}*"):
            claimant = read_holder(claim)
            if claimant is not None and self._me.sees(claimant) and not claimant.is_alive:
                claim.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        """Write who we are to a file that is not there yet; False if somebody was faster."""
        aside = path.with_name(f".{path.name}.{self.uuid}.{os.getpid()}.tmp")
        with output_errors(path, option="folder"):
            try:
                aside.write_text(self._text())
                path.hardlink_to(aside)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return self._create_without_link(path)
            finally:
                aside.unlink(missing_ok=True)
        return True

    def _create_without_link(self, path: Path) -> bool:
        try:
            with path.open("x") as handle:
                handle.write(self._text())
        except FileExistsError:
            return False
        return True

    def _write(self, path: Path) -> None:
        aside = aside_path(path)
        with output_errors(path, option="folder"):
            try:
                aside.write_text(self._text())
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)

    def _text(self) -> str:
        values: dict[str, Any] = asdict(self._me)
        return json.dumps(values, indent=2) + "\n"

    def _take_guard(self) -> bool | None:
        """Lock a file; False if another process has it, None on a disk without locks."""
        if self._guard is not None:
            return True
        path = self._folder / GUARD
        with output_errors(path, option="folder"):
            handle = path.open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            if isinstance(error, BlockingIOError):
                return False
            if error.errno not in _NO_LOCKS:
                raise
            return None
        self._guard = handle
        return True

    def _drop_guard(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _refuse(self, holder: str) -> None:
        raise ProjectError(
            str(self._folder),
            must="be managed by one run at a time",
            got=holder,
            remedy="Wait until it has ended, or stop it",
        )
