"""2D classification of particles that arrive while it runs.

Rounds begin when the particles have grown enough (`StreamParameters.next_round`), and take the
particles in the order in which they came: what a round works on does not depend on when it was
looked for. Each is committed as a whole (`stream_rounds`); killed at any moment and started
again, the stream goes on after the last one, and no particle is lost or counted twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cryopick.class2d.stream import StreamClassifier
from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.class2d.stream_state import StreamState
from cryopick.errors import (
    CryopickError,
    DataError,
    FormatError,
    OutputError,
    ParameterError,
)
from cryopick.execution.kept import keeping_fleets
from cryopick.execution.local import require_devices
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import write_json
from cryopick.pipeline.class2d_averages import FinalAverages
from cryopick.pipeline.class2d_place import AlignmentPlace, open_place
from cryopick.pipeline.class2d_references import kept_averages
from cryopick.pipeline.class2d_run import ClassificationProgress, Report, Tell
from cryopick.pipeline.job import Job, forgotten_if_not_begun, identity_of
from cryopick.pipeline.memory_plan import release_memory
from cryopick.pipeline.particle_images import ParticleImages
from cryopick.pipeline.stream_contrast import looks_black, require_same_contrast
from cryopick.pipeline.stream_feed import ARRIVALS, ParticleFeed
from cryopick.pipeline.stream_output import (
    CLASSES,
    STATE,
    SUMS,
    class_table,
    read_class_table,
    read_state,
    read_sums,
    round_sentence,
    round_values,
    write_class_table,
    write_state,
    write_sums,
    write_xmd_tables,
)
from cryopick.pipeline.stream_references import read_stream_references, require_said_pixel_size
from cryopick.pipeline.stream_report import write_stream_report
from cryopick.pipeline.stream_round import References, StreamRound
from cryopick.pipeline.stream_rounds import CURRENT, Round, StreamRounds
from cryopick.pipeline.stream_run_parameters import StreamRunParameters
from cryopick.pipeline.stream_source import (
    ImageScreen,
    StreamSource,
    StreamStandard,
    shrunk_size,
)
from cryopick.tables.classification import Classification
from cryopick.tables.relion_class2d import read_classification
from cryopick.tables.scipion_classes import write_scipion_classes

__all__ = ["NAME", "Stream", "StreamResult", "classify_stream", "stream_job"]

NAME = "class2d stream"
CLOSE, STATUS, REPORT = "close", "stream.json", "report.html"
_BLACK = "Warning: the particles look black, and classes are of white ones; invert the particles."
_PASSING = (STATE, SUMS, "_data.star", ".xmd", ".sqlite")  # of use in the last round only


@dataclass(frozen=True, kw_only=True)
class StreamResult:
    """What a stream has found; `values` are ready for JSON."""

    values: dict[str, Any]


def _silent(_: object) -> None:
    pass


def classify_stream(
    inputs: Sequence[str],
    out: Path,
    *,
    parameters: StreamParameters,
    compute: StreamRunParameters,
    references: Path | None = None,
    pixel_size: float | None = None,
    overwrite: bool = False,
    progress: Report = _silent,
    tell: Tell = _silent,
) -> StreamResult:
    """Classify particles round by round, until the stream ends.

    Parameters
    ----------
    inputs
        STAR files of particles, which may grow or come later, and folders of them.
    out
        Folder of the stream. ``current`` in it is the last round, whole at any moment.
    parameters, compute
        What to do, and with how much of the machine; how the stream ends.
    references
        Averages that particles are assigned to; without them classes are made.
    pixel_size
        A/px of the particles, instead of what their tables say.
    overwrite
        Throw away what other parameters left in `out`.
    progress, tell
        Called with where a round is, and with sentences for the user.

    Raises
    ------
    CryopickError
        If the input is of no use, memory does not suffice, or `out` cannot be written or holds
        something else. Tables that do not fit the first are refused one by one, in the result.
    """
    require_devices(ComputeParameters(device=compute.device, execution=compute.execution))
    given = None if references is None else read_stream_references(references)
    if given is not None and parameters.classes not in (None, len(given.images)):
        raise ParameterError(
            "classes",
            must=f"be the number of averages in --references, {len(given.images)}",
            got=parameters.classes,
            remedy="Leave it out",
        )
    if given is not None and compute.full_pass:
        raise ParameterError(
            "--full-pass",
            must="be left out with --references, which stay as they are",
            got="both",
            remedy="Leave out one of them",
        )
    if given is None and parameters.n_classes > parameters.first_batch:
        raise ParameterError(
            "classes",
            must=f"be at most --first-batch, {parameters.first_batch}",
            got=parameters.n_classes,
            remedy="Lower --classes, or raise --first-batch",
        )
    if given is not None:
        parameters = replace(parameters, classes=len(given.images))
    identity = parameters.to_dict() | {"pixel_size": pixel_size}
    if references is not None:
        read = kept_averages(references) or references
        identity["references"] = f"{references} ({identity_of(read)})"
    job = stream_job(out, identity, inputs=inputs, overwrite=overwrite)
    forgotten = forgotten_if_not_begun(
        Path(out), begun="rounds/*/round.json", files=(ARRIVALS,), on=CryopickError
    )
    with forgotten, job, keeping_fleets():
        stream = Stream(
            inputs, job, parameters, compute, given, pixel_size, progress=progress, tell=tell
        )
        return StreamResult(values=stream.go())


def stream_job(
    out: Path, identity: Mapping[str, Any], *, inputs: Sequence[str], overwrite: bool
) -> Job:
    """Make the job of a stream, which is not open yet."""
    return Job(
        out,
        name=NAME,
        parameters=identity,
        inputs=inputs,
        results=[STATUS, ARRIVALS, REPORT],
        overwrite=overwrite,
    )


class Stream:
    """A stream at work: what has come, what has been done, and the next round."""

    def __init__(
        self,
        inputs: Sequence[str],
        job: Job,
        parameters: StreamParameters,
        compute: StreamRunParameters,
        references: References | None,
        pixel_size: float | None,
        *,
        progress: Report,
        tell: Tell,
    ) -> None:
        self._out, self._parameters, self._compute = job.folder, parameters, compute
        self._references, self._progress, self._tell = references, progress, tell
        self._rounds = StreamRounds(
            self._out, identity=job.parameters, passing=_PASSING, lasting=(CLASSES,)
        )
        self._state: StreamState | None = None
        self._classes: pd.DataFrame | None = None  # of the last round
        self._screen = ImageScreen()
        last = self._rounds.last
        if last is not None:
            self._state, self._screen = read_state(last.folder)
            self._classes = read_class_table(last.folder)
        self._standard = StreamStandard(
            needs_ctf=parameters.ctf != "none",
            box_size=None if last is None else last.values["box_size"],
            pixel_size=None if last is None else last.values["pixel_size"],
        )
        self._feed = ParticleFeed(
            inputs,
            self._out,
            pixel_size=pixel_size,
            check=self._standard.check,
            check_stack=self._standard.check_stack,
        )
        self._told: set[str] = set()  # tables whose refusal the user knows of
        if len(self._feed) < self._n_done:
            raise FormatError(
                str(self._out / ARRIVALS),
                must=f"list the {self._n_done} particles of the last round",
                got=len(self._feed),
                remedy="Bring it back, or begin again in another --out",
            )

    @property
    def _n_done(self) -> int:
        last = self._rounds.last
        return 0 if last is None else int(last.values["n_particles"])

    def go(self) -> dict[str, Any]:
        """Do rounds until the stream ends."""
        latest = time.monotonic()
        if (self._out / CLOSE).exists():
            self._tell(f"{self._out / CLOSE} is there: the stream takes what has come, and ends.")
        while True:
            is_ending = self._is_ending(latest)
            if self._take_up(is_last=is_ending):
                latest = time.monotonic()
            while (stop := self._next_stop()) <= len(self._feed):
                self._do(stop)
                release_memory()
                latest = time.monotonic()  # nobody looked meanwhile
            if is_ending:
                return self._end()
            self._progress(
                ClassificationProgress(
                    step="Waiting for particles",
                    done=len(self._feed) - self._n_done,
                    total=stop - self._n_done,
                )
            )
            time.sleep(self._compute.poll)

    def subdivide(self, class_index: int, parts: int) -> dict[str, Any]:
        """Part a class, as a round of its own."""
        before, started = self._state, time.monotonic()
        if before is None:
            raise ParameterError(
                "class",
                must="be one that has been made",
                got=class_index + 1,
                remedy="Wait for the first round",
            )
        with self._working(self._n_done) as work:
            state = work.subdivide(before, class_index, parts)
            final = work.average(state)
            kind = f"class {class_index + 1} parted"
            made = self._commit(
                work, state, final, before, self._n_done, kind=kind, started=started
            )
        return self._tell_status(made, is_closed=False)

    def _is_ending(self, latest: float) -> bool:
        idle = self._compute.idle * 60
        return (
            self._compute.close
            or (self._out / CLOSE).exists()
            or (idle > 0 and time.monotonic() - latest > idle)
        )

    def _take_up(self, *, is_last: bool) -> int:
        """Look for new particles; tell what is refused while more is waited for."""
        n_new = self._feed.poll(is_last=is_last)
        for name, sentence in self._feed.refused.items():
            if not is_last and name not in self._told:
                self._tell(f"Refused: {sentence}")
            self._told.add(name)
        found = self._standard.pixel_size
        if self._references is not None and self._state is None and found is not None:
            require_said_pixel_size(self._references, particle_pixel_size=found)
        return n_new

    def _next_stop(self) -> int:
        is_anchored = self._references is not None
        stop = self._parameters.next_round(self._n_done, is_anchored=is_anchored)
        if is_anchored and not self._n_done:
            return max(stop, StreamClassifier.fewest_to_begin)
        return stop

    def _end(self) -> dict[str, Any]:
        """Take what is left, and close the set."""
        if len(self._feed) > self._n_done:
            self._do(len(self._feed))
        last = self._rounds.last
        if last is None:
            for error in self._feed.errors.values():
                raise error
            raise DataError(
                "the stream",
                must="bring particles before it ends",
                got="none",
                remedy="Check the names of its tables",
            )
        if self._compute.full_pass and last.values["kind"] != "full pass":
            last = self._do_full_pass()
        self._export(last.folder)
        return self._tell_status(last, is_closed=True)

    def _do(self, stop: int) -> None:
        """Work on the first `stop` particles."""
        started = time.monotonic()
        with self._working(stop) as work:
            before = self._state
            first, sums = 0, None
            if before is None and self._references is not None:
                require_same_contrast(
                    work.source,
                    self._references.images,
                    pixel_size=self._references.pixel_size,
                    diameter=self._parameters.diameter,
                )
                state = work.begin(self._references)
            elif before is None:
                if looks_black(work.source, diameter=self._parameters.diameter):
                    self._tell(_BLACK)
                state = work.create()
            else:
                state = work.extend(before)
                last = self._rounds.last
                if state.is_anchored and last is not None:
                    first = before.n_seen
                    sums = read_sums(last.folder, forgetting=self._parameters.forgetting)
            final = work.average(state, before=sums, first=first)
            kind = "assigned" if state.is_anchored else "classes made"
            self._commit(work, state, final, before, stop, kind=kind, started=started)

    def _do_full_pass(self) -> Round:
        """Classify all particles by EM, and tell the difference."""
        assert self._state is not None
        started, before = time.monotonic(), self._state
        with self._working(self._n_done) as work:
            state = work.full_pass(before)
            final = work.average(state)
            return self._commit(
                work, state, final, before, self._n_done, kind="full pass", started=started
            )

    @contextlib.contextmanager
    def _working(self, stop: int) -> Iterator[StreamRound]:
        """Open the first `stop` particles for the work of a round, and close them after it."""
        source = self._open(stop)
        with (
            contextlib.closing(source.images),
            open_place(self._compute, self._out) as place,
            contextlib.closing(self._round(source, place)) as work,
        ):
            yield work

    def _open(self, stop: int) -> StreamSource:
        table = self._feed.take(0, stop, target=self._out / "particles.star")
        images = ParticleImages.open(table)
        known = len(self._screen.is_useful)
        self._screen.look(images, enough=self._parameters.first_batch)
        n_bad = int((~self._screen.is_useful[known:]).sum())
        if n_bad:
            self._tell(f"Warning: {n_bad} images are of no use; they are left out, with class 0.")
        box, pixel = images.box_size, images.pixel_size
        size = shrunk_size(box_size=box, pixel_size=pixel, resolution=self._parameters.limit(pixel))
        if not known:
            sentences = [self._parameters.limit_sentence(pixel)]
            if size < box:
                sentences.append(
                    f"Boxes of {box} px are shrunk to {size} px of {pixel * box / size:.3g} A, "
                    f"as {self._parameters.limit(pixel):g} A is the finest detail used."
                )
            for sentence in filter(None, sentences):
                self._tell(sentence)
        return StreamSource(
            images, self._screen, corrects_ctf=self._parameters.ctf != "none", size=size
        )

    def _round(self, source: StreamSource, place: AlignmentPlace) -> StreamRound:
        k = self._parameters.n_classes
        if self._state is not None:
            k = max(k, len(self._state.em.shares))
        return StreamRound(
            source,
            self._parameters,
            self._compute,
            n_classes=k,
            progress=self._progress,
            workers=place.workers(source),
        )

    def _commit(
        self,
        work: StreamRound,
        state: StreamState,
        final: FinalAverages,
        before: StreamState | None,
        stop: int,
        *,
        kind: str,
        started: float,
    ) -> Round:
        folder = self._rounds.begin()
        tables = work.write(folder, state, final)
        classes = class_table(state, tables, before=before)
        write_class_table(folder, classes)
        self._export(folder, tables)
        write_state(folder, state, self._screen)
        write_sums(folder, final.sums)
        values = {
            "kind": kind,
            "n_particles": stop,
            "n_new": stop - self._n_done,
            **round_values(work.source, state, before, classes),
            "seconds": round(time.monotonic() - started, 2),
        }
        made = self._rounds.commit(folder, values)
        self._state, self._classes = state, classes
        self._tell_status(made, is_closed=False)
        self._tell(round_sentence(made))
        return made

    def _export(self, folder: Path, tables: Classification | None = None) -> None:
        """Write the tables for other programs that are asked for and not there."""
        xmd, scipion = folder / "classes_classes.xmd", folder / "classes.sqlite"
        if self._compute.xmd and not xmd.exists():  # the one of the two that is written last
            tables = tables or read_classification(folder)
            write_xmd_tables(folder, tables)
        if self._compute.scipion and not scipion.exists():
            write_scipion_classes(scipion, tables or read_classification(folder))

    def _tell_status(self, last: Round, *, is_closed: bool) -> dict[str, Any]:
        """Write where the stream stands, for whoever watches it."""
        values = {
            "state": "closed" if is_closed else "provisional",
            "round": last.number,
            **last.values,
            "n_arrived": len(self._feed),
            "n_twice": self._feed.n_twice,
            "refused": self._feed.refused,
            "folder": str(self._out / CURRENT),
            "rounds": [{"round": r.number, **r.values} for r in self._rounds.rounds],
        }
        write_json(self._out / STATUS, values)
        self._report(values)
        return values

    def _report(self, status: dict[str, Any]) -> None:
        """Draw the report; no fault of drawing may cost a round, or keep the stream from it."""
        if self._classes is None:
            return
        try:
            write_stream_report(
                self._out / REPORT, self._rounds.rounds, status=status, classes=self._classes
            )
        except OutputError:
            raise
        except Exception as error:
            self._tell(f"Warning: the report could not be drawn: {error}")
