"""Classes of the particles of a session while they come: a stream beside it, and what it is worth.

Each micrograph that is accepted and has particles is fed to the stream once, in a table of its own
or with others that have come with it. What the stream was fed is in ``feed/``; the folder is that
of a job of the project, ``live_classes``. A stream cannot give back what it has taken: when limits
reject a micrograph that was fed, another stream begins with those that are left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryopick.class2d.stream_parameters import StreamParameters
from cryopick.errors import CryopickError
from cryopick.execution.parameters import ComputeParameters
from cryopick.io.atomic import make_folder, write_text
from cryopick.pipeline.extraction_field import table_path
from cryopick.pipeline.project import Project
from cryopick.pipeline.session_aside import Aside, Tell
from cryopick.pipeline.stream_run_parameters import StreamRunParameters
from cryopick.selection.select_classes_parameters import SelectClassesParameters

__all__ = ["LiveClasses", "classify_live", "score_live"]

STEP = "live_classes"
FEED, FED, SELECTION = "feed", "fed.json", "selection"
_AT_ONCE = 200  # micrographs in one table
_PAUSE = 60.0  # s before a stream that broke is tried again


def classify_live(
    feed: str,
    out: Path,
    parameters: StreamParameters,
    compute: StreamRunParameters,
    *,
    tell: Tell,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Be a stream until it is ended, in a process of its own.

    Raises
    ------
    CryopickError
        If the particles are of no use, or `out` cannot be written.
    """
    from cryopick.pipeline.stream import classify_stream

    return classify_stream(
        [feed],
        out,
        parameters=parameters,
        compute=compute,
        progress=lambda now: tell(now.step, now.done / max(now.total, 1), ""),
        tell=say,
    ).values


def score_live(
    classes: Path, out: Path, minimum_score: float, *, tell: Tell, say: Callable[[str], None]
) -> dict[str, Any]:
    """Score the classes of a round, in a process of its own; none may be good.

    Raises
    ------
    CryopickError
        If they cannot be read.
    """
    from cryopick.errors import DataError
    from cryopick.pipeline.select_classes import select_classes

    chosen = SelectClassesParameters(minimum_score=minimum_score)
    try:
        values = select_classes(classes, out, chosen, overwrite=True).values
    except DataError:
        return {"n_good": 0, "good_particles": 0}
    return {
        "n_good": int(values["n_selected"]),
        "good_particles": int(values["n_particles_selected"]),
    }


@dataclass(kw_only=True)
class LiveClasses:
    """The stream of a session.

    Attributes
    ----------
    project
        Open, to be written.
    make_parameters
        Makes those of the stream from the first table of particles that it is fed.
    compute
        How much of the machine to use.
    minimum_score
        From which a class is good.
    """

    project: Project
    make_parameters: Callable[[], StreamParameters]
    compute: ComputeParameters
    minimum_score: float
    values: dict[str, Any] | None = None  # of the last round, for the status
    trouble: str = ""
    _folder: Path | None = None
    _number: int = 0
    _source: str = ""
    _generation: int = 0
    _fed: dict[str, int] = field(default_factory=dict)  # key of a micrograph: number of its table
    _stream: Aside | None = None
    _scoring: Aside | None = None
    _scored: int = 0
    _not_before: float = 0.0

    def feed(self, particles: Path, identity: str, wanted: Sequence[str]) -> None:
        """Give the stream what it has not got.

        Parameters
        ----------
        particles
            Folder of the job whose particles they are.
        identity
            Of that job; those of another one begin another stream.
        wanted
            Keys of the micrographs that are accepted and have particles; those whose table is not
            there yet are taken another time.

        Raises
        ------
        OutputError, ProjectError
            If the project cannot be written.
        """
        if identity != self._source:
            self._open(identity)
        if set(self._fed).difference(wanted):
            self._generation += 1
            self._open(identity)
        fresh = [
            key for key in wanted if key not in self._fed and table_path(particles, key).exists()
        ]
        for first in range(0, len(fresh), _AT_ONCE):
            self._write(particles, fresh[first : first + _AT_ONCE])
        self._start()

    def look(self) -> None:
        """Take in what has become of the stream, and have a new round scored."""
        if self._stream is not None and self._stream.is_over:
            try:
                self._stream.result()
            except CryopickError as error:
                self.trouble = str(error)
            self._stream.end()
            self._stream, self._not_before = None, time.monotonic() + _PAUSE
        elif self._stream is None and self._fed and time.monotonic() > self._not_before:
            self._start()
        self._look_at_rounds()

    def end(self) -> None:
        """End the processes; what is committed stays."""
        for aside in (self._stream, self._scoring):
            if aside is not None:
                aside.end()
        self._stream = self._scoring = None

    @property
    def note(self) -> str:
        """What the stream is doing."""
        return "" if self._stream is None else self._stream.step

    def _open(self, source: str) -> None:
        """Find the job of the stream of these particles, or begin it."""
        self.end()
        self._source, self._fed, self.values, self._scored = source, {}, None, 0
        while True:
            text = json.dumps([STEP, source, self._generation])
            identity = hashlib.sha256(text.encode()).hexdigest()[:16]
            found = self.project.find_job(STEP, identity)
            later = json.dumps([STEP, source, self._generation + 1])
            after = hashlib.sha256(later.encode()).hexdigest()[:16]
            if found is None or self.project.find_job(STEP, after) is None:
                break
            self._generation += 1
        if found is None:
            found = self.project.new_job(STEP, identity, parameters={"source": source})
        else:
            found = self.project.resume_job(found.number)
        self.project.set_alias(STEP, found.number)
        self._number, self._folder = found.number, self.project.job_folder(found.number)
        make_folder(self._folder / FEED)
        with contextlib.suppress(OSError, ValueError):
            self._fed = dict(json.loads((self._folder / FED).read_bytes()))

    def _write(self, particles: Path, keys: Sequence[str]) -> None:
        """Write the particles of some micrographs as a table of the feed."""
        from cryopick.tables.joining import join_particles
        from cryopick.tables.relion import read_particles, write_particles

        assert self._folder is not None
        number = max(self._fed.values(), default=0) + 1
        target = self._folder / FEED / f"{number:06d}.star"
        parts = [read_particles(table_path(particles, key)) for key in keys]
        write_particles(target, join_particles(parts, target=target))
        self._fed |= dict.fromkeys(keys, number)
        write_text(self._folder / FED, json.dumps(self._fed))

    def _start(self) -> None:
        if self._stream is not None or self._folder is None or not self._fed:
            return
        if time.monotonic() < self._not_before:
            return
        threads = self.compute.threads
        compute = StreamRunParameters(
            device="cpu" if self.compute.is_remote else self.compute.device,  # made here
            threads=0 if threads == 0 else threads,
            memory=self.compute.memory,
            poll=2.0,
        )
        self._stream = Aside(
            "live classes",
            classify_live,
            str(self._folder / FEED),
            self._folder,
            self.make_parameters(),
            compute,
        )

    def _look_at_rounds(self) -> None:
        if self._folder is None:
            return
        current = self._folder / "current"
        try:
            made = json.loads((current / "round.json").read_bytes())
            number = int(current.resolve().name)
        except (OSError, ValueError):
            return
        if self.values is None or self.values["round"] != number:
            before = self.values or {}
            self.values = {
                "job": self._number,
                "folder": str(current.resolve()),
                "round": number,
                "n_classes": int(made.get("n_occupied", 0)),
                "n_particles": int(made["n_particles"]),
                "n_good": before.get("n_good"),
                "good_particles": before.get("good_particles"),
                "resolution": made.get("resolution"),
                "when": (current / "round.json").stat().st_mtime,
                "picture": str(current.resolve() / "classes.png"),
                "report": str(self._folder / "report.html"),
            }
        self._look_at_scores(number)

    def _look_at_scores(self, number: int) -> None:
        assert self._folder is not None
        assert self.values is not None
        if self._scoring is not None and self._scoring.is_over:
            with contextlib.suppress(CryopickError):
                self.values |= self._scoring.result()
            self._scoring.end()
            self._scoring = None
        if self._scoring is None and number > self._scored:
            self._scored = number
            out = self._folder / SELECTION
            self._scoring = Aside(
                "scoring live classes",
                score_live,
                Path(self.values["folder"]),
                out,
                self.minimum_score,
            )


def stream_parameters(
    *,
    diameter: float,
    mask_diameter: float,
    classes: int | None,
    first_batch: int,
    uses_ctf: bool,
    seed: int,
) -> StreamParameters:
    """Make those of the stream of a session.

    Parameters
    ----------
    diameter, mask_diameter
        Of the particles, A.
    classes
        How many; one for 20 particles of the first batch, 10 to 50, if not given.
    first_batch
        Particles that make the first classes.
    uses_ctf
        Whether the CTF is known.
    seed
        Of random choices.
    """
    count = classes or min(max(first_batch // 20, 10), 50)
    made = StreamParameters(
        classes=min(count, first_batch),
        diameter=diameter,
        mask_diameter=mask_diameter,
        ctf="full" if uses_ctf else "none",
        first_batch=first_batch,
        seed=seed,
    )
    return replace(made, batch=max(made.batch // 2, 1))
