"""A consensus of micrographs and picks that arrive while it runs.

The folder holds, beside what every consensus leaves there:

    arrivals.jsonl, taken/  micrographs in the order in which they were taken, with candidates
    passes.jsonl, passes/   the passes in which networks have learned, and their networks
    preliminary/            if asked for: what networks that still learn make of it so far
    prepared/               what networks see and answer, until the stream ends
    stream.json             where it stands

Networks learn in passes from all micrographs so far. When they have learned enough, they stay as
they are and judge what comes. When the stream ends before, all micrographs are judged together as
if none had come late. Killed at any moment and started again, it goes on after what was written.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

from cryopick.errors import CryopickError, DataError, FormatError, TableError
from cryopick.io.atomic import make_folder, write_json
from cryopick.picking.consensus_training_parameters import ConsensusTraining
from cryopick.pipeline.consensus_chances import Chances, ShareCallback
from cryopick.pipeline.consensus_feed import ARRIVALS, TAKEN, ConsensusFeed, Waiting
from cryopick.pipeline.consensus_finish import ConsensusInput, judge, write_consensus
from cryopick.pipeline.consensus_models import MODELS, read_models
from cryopick.pipeline.consensus_passes import PASSES, Passes
from cryopick.pipeline.consensus_plan import CtfCheck, TrainingPlan, plan_training
from cryopick.pipeline.consensus_request import ConsensusRequest
from cryopick.pipeline.consensus_result import ConsensusResult
from cryopick.pipeline.consensus_sets import CoordinateSet
from cryopick.pipeline.consensus_spool import SPOOL
from cryopick.pipeline.consensus_stream_parameters import ConsensusStreamParameters
from cryopick.pipeline.job import Job, forgotten_if_not_begun
from cryopick.tables.model import Micrographs

__all__ = ["PRELIMINARY", "join_stream"]

_NAME, CLOSE, STATUS, PRELIMINARY = "pick consensus stream", "close", "stream.json", "preliminary"
_REDRAWN = 60.0  # s after which the report is drawn once more
_JUDGED = 0.01  # of what was judged before: so many new micrographs are judged at once
_BUSY = 10.0  # a look may take so many times less than the pause after it


def join_stream(
    request: ConsensusRequest,
    folder: Path,
    *,
    stream: ConsensusStreamParameters,
    progress: ShareCallback | None = None,
) -> ConsensusResult:
    """Join sets that grow, until the stream ends.

    Parameters
    ----------
    request
        What is asked; sets and micrographs may come later.
    folder
        Where the results go. Started again with the same request, it goes on.
    stream
        How to wait, when to learn, and when to end.
    progress
        Called with the step and the share of it that is done.

    Returns
    -------
    ConsensusResult
        Of all micrographs, when the stream has ended.

    Raises
    ------
    CryopickError
        If what is asked contradicts itself, nothing has come when the stream ends, or `folder`
        cannot be written or holds something else. What is wrong with sets and micrographs while
        more may come is in ``stream.json``.
    """
    request.check()
    if request.parameters.method != "network" or request.training.is_skipped:
        stream.require_learning()
    folder, tell = Path(folder), progress or (lambda step, share: None)
    job = request.job(
        folder,
        name=_NAME,
        plan=None,
        has_table=True,
        results=(STATUS, ARRIVALS, PASSES),
        more={"training": request.training.to_dict()},
    )
    forgotten = forgotten_if_not_begun(
        folder, begun=f"{TAKEN}/*", files=(ARRIVALS, STATUS), on=CryopickError
    )
    with forgotten, job:
        return _Stream(job, request, stream, tell).go()


class _Stream:
    """A stream at work."""

    def __init__(
        self,
        job: Job,
        request: ConsensusRequest,
        stream: ConsensusStreamParameters,
        tell: ShareCallback,
    ) -> None:
        self._job, self._folder = job, job.folder
        self._request, self._stream, self._tell = request, stream, tell
        self._feed = ConsensusFeed(
            request.sets,
            request.micrographs,
            self._folder,
            set_pixel_sizes=request.sizes,
            pixel_size=request.pixel_size,
            check=CtfCheck(request.files.ctf) if request.parameters.phase_flip else None,
        )
        self._passes = Passes(self._folder)
        self._spool = self._folder / SPOOL
        self._n_written = self._n_tried = 0  # micrographs
        self._trouble = ""  # of the last pass
        self._drawn = -math.inf  # when the report was
        self._waiting = Waiting([], {})

    def go(self) -> ConsensusResult:
        """Take, learn and judge until the stream ends."""
        latest = time.monotonic()
        while True:
            is_ending = self._is_ending(latest)
            started = time.monotonic()
            if self._take_up(is_last=is_ending):
                latest = time.monotonic()
            looked = time.monotonic() - started
            if is_ending:
                return self._end()
            if self._learn_if_due() or self._judge_if_due():
                latest = time.monotonic()  # nobody looked meanwhile
                continue
            self._write_status("waiting")
            self._tell("Waiting for micrographs", 0.0)
            time.sleep(max(self._stream.poll, _BUSY * looked))

    def _is_ending(self, latest: float) -> bool:
        idle = self._stream.idle * 60
        return (
            self._stream.close
            or (self._folder / CLOSE).exists()
            or (idle > 0 and time.monotonic() - latest > idle)
        )

    def _take_up(self, *, is_last: bool) -> int:
        """Take micrographs that are ready, in whole batches unless it is the end."""
        self._waiting = self._feed.look(is_last=is_last)
        names, batch = self._waiting.names, self._stream.extraction_batch
        n_taken = len(names) if is_last else len(names) // batch * batch
        for first in range(0, n_taken, batch):
            self._feed.take(names[first : min(first + batch, n_taken)], radius=self._radius())
        return n_taken

    def _radius(self) -> float:
        """Least distance of different particles, A: as it was for the first micrograph."""
        if self._feed.radius is not None:
            return self._feed.radius
        return self._request.radius(self._box())

    def _box(self) -> float:
        return self._request.box(self._sets(), self._table)

    @property
    def _table(self) -> Micrographs:
        assert self._feed.table is not None
        return self._feed.table

    def _sets(self) -> list[CoordinateSet]:
        empty = [
            CoordinateSet(path=p, positions={}, scores={}, box=None, n_unlisted=0)
            for p in self._request.sets
        ]
        return [e if s is None else s for e, s in zip(empty, self._feed.sets, strict=True)]

    def _input(self) -> ConsensusInput:
        """Give all that was taken."""
        return ConsensusInput(
            table=self._table,
            sets=self._sets(),
            fields=self._feed.fields(),
            radius=self._radius(),
            box_size=self._request.box_size(self._box(), self._table),
        )

    def _learn_if_due(self) -> bool:
        """Let networks learn from all so far, if enough has come since they did."""
        last, n_taken = self._passes.last, len(self._feed)
        if self._request.parameters.method != "network" or self._request.training.is_skipped:
            return False
        if self._passes.is_complete:
            return False
        n_last = max(self._n_tried, 0 if last is None else last.n_micrographs)
        if not self._stream.is_due(n_taken, n_last):
            return False
        self._write_status("learning")
        given = self._input()
        start = self._passes.models()
        training = self._request.training
        if start is not None:
            training = replace(training, model=str(start), steps=training.most_steps)
        pass_folder = self._passes.folder(n_taken)
        make_folder(pass_folder)
        self._n_tried = n_taken
        try:
            plan = self._plan(given, replace(self._request, training=training))
            found = judge(
                pass_folder, self._request, given, plan, spool=self._spool, progress=self._tell
            )
        except (DataError, FormatError, TableError) as error:  # more may come that is of use
            self._trouble = str(error)
            return False
        self._trouble = ""
        made = self._passes.add(n_taken, found, self._request.training)
        if self._stream.preliminary and not made.is_complete:
            self._write_preliminary(given, found, plan, pass_folder)
        return True

    def _write_preliminary(
        self, given: ConsensusInput, found: Chances, plan: TrainingPlan, judged_in: Path
    ) -> None:
        request = replace(self._request, overwrite=True)  # the folder is the stream's own
        job = request.job(
            self._folder / PRELIMINARY,
            name=f"{_NAME}, preliminary",
            plan=None,
            has_table=True,
            more={"training": request.training.to_dict()},
        )
        words = "Preliminary: the networks still learn, and more micrographs may come."
        with job:
            write_consensus(
                job,
                request,
                given,
                found,
                plan,
                judged_in=judged_in,
                remarks=[words],
                progress=self._tell,
            )

    def _judge_if_due(self) -> bool:
        """Judge what has come with networks that learn no more, and write it."""
        method, training = self._request.parameters.method, self._request.training
        is_fixed = method != "network" or training.is_skipped or self._passes.is_complete
        n_new = len(self._feed) - self._n_written
        if not is_fixed or n_new <= _JUDGED * self._n_written:
            return False
        self._write_status("judging")
        self._write_final(is_last=False)
        return True

    def _write_final(self, *, is_last: bool) -> ConsensusResult:
        given = self._input()
        plan = None
        if self._request.parameters.method == "network":
            plan = self._final_plan(given)
        judged = judge(
            self._folder, self._request, given, plan, spool=self._spool, progress=self._tell
        )
        has_report = is_last or time.monotonic() - self._drawn > _REDRAWN
        result = write_consensus(
            self._job,
            self._request,
            given,
            judged,
            plan,
            has_report=has_report,
            progress=self._tell,
        )
        self._n_written = len(self._feed)
        self._drawn = time.monotonic() if has_report else self._drawn
        return result

    def _final_plan(self, given: ConsensusInput) -> TrainingPlan:
        """Say what judges in the end: networks that have learned enough, or new ones."""
        models = self._passes.models() if self._passes.is_complete else None
        if models is None:
            return self._plan(given, self._request)
        plan = self._plan(given, self._request)
        learned, _ = read_models(models / MODELS)
        learned_enough = ConsensusTraining(skip_training=True)
        return replace(plan, start=(*learned, *plan.start), training=learned_enough)

    def _plan(self, given: ConsensusInput, request: ConsensusRequest) -> TrainingPlan:
        return plan_training(
            given.table,
            given.fields,
            parameters=request.parameters,
            training=request.training,
            files=request.files,
        )

    def _end(self) -> ConsensusResult:
        """Judge all that has come, and close the stream."""
        if not len(self._feed):
            for error in self._feed.errors.values():
                raise error
            raise DataError(
                "the stream",
                must="bring micrographs with picks before it ends",
                got="none",
                remedy="Check the names of the sets",
            )
        self._write_status("judging")
        result = self._write_final(is_last=True)
        shutil.rmtree(self._spool, ignore_errors=True)
        self._write_status("closed")
        return result

    def _write_status(self, state: str) -> None:
        values = {
            "state": state,
            "n_taken": len(self._feed),
            "n_ready": len(self._waiting.names),
            "missing": self._waiting.missing,
            "changed": sorted(self._feed.changed),
            "refused": self._feed.refused,
            "errors": {name: str(error) for name, error in self._feed.errors.items()},
            "not_learned": self._trouble,
            "is_learned": self._passes.is_complete,
            "passes": [asdict(p) for p in self._passes.done],
        }
        write_json(self._folder / STATUS, values)
