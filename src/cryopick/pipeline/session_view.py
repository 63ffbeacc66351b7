"""What a session shows: the numbers of its status, its live classes, its report, its messages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.pipeline.field_choices import FieldStates, judge_fields, read_choices
from cryopick.pipeline.field_columns import COLUMNS
from cryopick.pipeline.field_table import FieldTable
from cryopick.pipeline.ledger_tail import LedgerTail
from cryopick.pipeline.planner import PlannerState, Process, Step
from cryopick.pipeline.project import Project
from cryopick.pipeline.project_layout import LEDGER
from cryopick.pipeline.run import REPORT
from cryopick.pipeline.run_context import RunContext
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import StepDone
from cryopick.pipeline.session_classes import LiveClasses, stream_parameters
from cryopick.pipeline.session_consensus import LiveConsensus
from cryopick.pipeline.session_list import Arrival, GrowingList
from cryopick.pipeline.session_notify import Notifier
from cryopick.pipeline.session_parameters import SessionParameters
from cryopick.pipeline.session_report import LiveReport
from cryopick.pipeline.session_runner import LiveRunner
from cryopick.pipeline.session_status import Rates, StatusFile
from cryopick.tables.paths import micrograph_key

__all__ = ["SessionView"]

_SHOWN = 1.0  # s between two looks at the numbers
_LATENCIES, _RECENT, _LISTED = 100, 20, 50
_QUANTITIES = (
    *("defocus", "astigmatism", "ctf_resolution", "ctf_fom", "ice_ring"),
    *("picks", "mean_score", "background", "particles"),
)
_PICKING, _CUTTING = ("picks", "live_picks"), ("particles", "live_particles")
_LEARNED = ("first_classes", "first_selection", "training")
_FIRST = ("first_picks", "first_particles")  # that these are made from


class SessionView:
    """Gathers what a session shows.

    Parameters
    ----------
    project
        Open, to be written.
    inputs
        What is watched.
    session, parameters
        How, and what is done with it.
    """

    def __init__(
        self,
        project: Project,
        inputs: Sequence[str],
        session: SessionParameters,
        parameters: RunParameters,
    ) -> None:
        self._parameters = parameters
        self.state = "watching"
        self._project, self._inputs, self._session = project, list(inputs), session
        self._file = StatusFile(project.folder)
        self._fields = FieldTable(project=project.folder)
        self._states: FieldStates | None = None
        self._choices_stamp: tuple[int, int] = (-1, -1)
        self._rates = Rates()
        self._began = time.time()
        self._complete: dict[str, float] = {}  # when files were, by key
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._picked: set[str] = set()
        self._errors: dict[str, str] = {}  # of steps
        self._now: dict[str, tuple[float, str]] = {}  # share and note of steps at work
        self._done: dict[str, StepDone] = {}
        self._shown = -1e9
        self._last: dict[str, Any] = {}
        self.has_new_choices = False  # since particles were fed
        self._cut = LedgerTail(path=project.folder / LEDGER)  # of the particles that are fed
        self._particles: dict[str, int] = {}
        self._classes: LiveClasses | None = None
        self._consensus: LiveConsensus | None = None
        self._round = 0  # the last that was told of
        self._report = LiveReport(project.folder / REPORT, pause=60 * session.report)
        name, pause = project.folder.resolve().name, 60 * session.notify_pause
        self._notifier = Notifier(session.notify, project=name, pause=pause)
        self._notifier.tell("started", "The session has started.")

    # What happens

    def arrived(self, arrivals: Sequence[Arrival]) -> None:
        """Take in micrographs that have come."""
        for one in arrivals:
            since = one.changed if one.changed >= self._began else one.taken
            self._complete[micrograph_key(one.name)] = since

    def done(self, step: StepDone) -> None:
        """Take in what a step has come to."""
        self._done[step.name] = step
        self._errors.pop(step.name, None)
        self._now.pop(step.name, None)

    def broke(self, step: str, error: str) -> None:
        """Take in why a step broke."""
        if self._errors.get(step) != error:
            self._notifier.tell("broke", f"{step} broke: {error}")
        self._errors[step] = error
        self._now.pop(step, None)

    def set_working(self, step: str, share: float, note: str) -> None:
        """Take in how far a set is that is made beside."""
        self._now[step] = (share, note)

    def processed(self, step: str, instruction: Process, names: Sequence[str]) -> None:
        """Take in that a step over micrographs has done a portion."""
        if step not in _PICKING:
            return
        now = time.time()
        for name in names[instruction.start : instruction.stop]:
            key = micrograph_key(name)
            if key in self._complete and key not in self._picked:
                self._latencies.append(max(0.0, now - self._complete[key]))
                self._picked.add(key)

    # Live classes

    def join(self, runner: LiveRunner, shared: RunContext) -> None:
        """Let the picks of several pickers be joined, when all have begun."""
        others = [f"{kind}_picks" for kind in shared.parameters.also_pickers]
        folders = {n: d.folder for n, d in runner.done.items()}
        picks = folders.get("live_picks", folders.get("picks"))
        if not others or picks is None or not all(name in folders for name in others):
            return
        if self._consensus is None:
            self._consensus = LiveConsensus(self._project)
        kept = ("ctf", "diameter", *others)
        known = {n: f for n, f in folders.items() if n in kept} | {"picks": picks}
        alone = RunContext(
            table=shared.table,
            parameters=shared.parameters,
            compute=shared.compute,
            folders=known,
        )
        self._consensus.follow(alone, known)

    def feed(self, runner: LiveRunner, shared: RunContext, request: Any) -> None:
        """Give the live classes the particles that they have not got."""
        self.has_new_choices = False
        if not self._session.live_classes:
            return
        names = {step.name for step in runner.state.graph}
        source = "live_particles" if "live_particles" in names else "particles"
        step = runner.done.get(source)
        if step is None or not runner.state.of(source).finished:
            return
        self._refresh()
        wanted = self._accepted_keys(step.folder)
        if self._classes is None:
            self._classes = LiveClasses(
                project=self._project,
                make_parameters=lambda: self._stream_parameters(runner, shared),
                compute=request.compute,
                minimum_score=request.parameters.minimum_score,
            )
        self._classes.feed(step.folder, runner.state.of(source).identity, wanted)

    def _accepted_keys(self, folder: Path) -> list[str]:
        """Name the micrographs that are accepted and of which a job has particles."""
        if self._cut.path != folder / LEDGER:
            self._cut, self._particles = LedgerTail(path=folder / LEDGER), {}
        for item in self._cut.read_new():
            count = 0 if item.error else int(item.summary.get("n_particles", 0))
            self._particles[item.key] = count
        place_of = self._fields.place_of_key
        places = [(key, place_of(key)) for key, count in self._particles.items() if count]
        accepted = None if self._states is None else self._states.is_accepted.tolist()
        return [key for key, at in places if at is not None and (accepted is None or accepted[at])]

    def _stream_parameters(self, runner: LiveRunner, shared: RunContext) -> Any:
        folders = {n: d.folder for n, d in runner.done.items()}
        context = runner.context(folders, runner.state.graph[-1].name)
        sizes = context.sizes
        return stream_parameters(
            diameter=sizes.diameter,
            mask_diameter=1.05 * sizes.max_diameter,
            classes=shared.parameters.classes,
            first_batch=self._session.first_batch,
            uses_ctf=context.uses_ctf([one.path for one in runner.micrographs]),
            seed=shared.parameters.seed,
        )

    def end_beside(self) -> None:
        """End the processes of the live classes, the consensus and the report."""
        self._report.end()
        if self._consensus is not None:
            self._consensus.end()
        if self._classes is not None:
            self._classes.end()

    # The status

    def counts(self) -> dict[str, Any]:
        """Count micrographs, picks and particles."""
        fields = self._fields
        numbers = fields.numbers
        if not numbers:
            return dict.fromkeys(_COUNTS, 0)
        states = self._states
        is_failed = np.zeros(len(fields), bool)
        is_failed[[k for k in fields.errors if k < len(fields)]] = True
        classes = None if self._classes is None else self._classes.values
        found = {
            "listed": len(fields),
            "measured": int((~np.isnan(numbers["defocus"])).sum()),
            "picked": int((~np.isnan(numbers["picks"])).sum()),
            "extracted": int((~np.isnan(numbers["particles"]) | (numbers["picks"] == 0)).sum()),
            "failed": int(is_failed.sum()),
            "rejected": 0 if states is None else int((~states.is_accepted & ~is_failed).sum()),
            "picks": int(np.nansum(numbers["picks"])),
            "particles": int(np.nansum(numbers["particles"])),
            "classified": 0 if classes is None else classes["n_particles"],
        }
        found["waiting"] = max(0, found["listed"] - found["extracted"] - found["failed"])
        return {name: found.get(name, 0) for name in _COUNTS}

    def write(
        self, *, runner: LiveRunner | None, names: GrowingList, trouble: str, kept_subset: int
    ) -> None:
        """Write the status, if it is time to."""
        now = time.monotonic()
        if now - self._shown < _SHOWN:
            return
        self._shown = now
        if self.state != "closing":
            self._look_beside(runner, names)
        if trouble and trouble != self._last.get("error"):
            self._notifier.tell("waiting", trouble)
        self._notifier.look()
        self._refresh()
        counts = self.counts()
        self._rates.count(counts, now=now)
        steps = [] if runner is None else self._steps(runner)
        self._last = {
            "state": self.state,
            "sentence": trouble or self._sentence(counts, names),
            "error": trouble,
            "is_finished": False,
            "source": {
                "inputs": self._inputs,
                "last_look": round(time.time()),
                "trouble": names.last.trouble,
                "settling": len(names.last.waiting),
            },
            "counts": counts,
            "rates": self._rates.to_dict(),
            "eta": self._rates.eta(counts["waiting"]),
            "latency": self._latency(),
            "steps": steps,
            "quantities": self._quantities(),
            "limits": self._limits(),
            "waits": [
                {"name": w.name, "why": w.why, "since": w.since}
                for w in names.last.waiting[:_LISTED]
            ],
            "failures": self._failures(names),
            "classes": None if self._classes is None else self._classes.values,
            "consensus": None if self._consensus is None else self._consensus.look(),
            "training": self._training(runner, kept_subset),
            **self._picker(runner),
            "notify": self._notifier.to_dict(),
            "report": str(self._report.path),
            "fields": {"n": len(self._fields), "revision": self._fields.version},
            "recent": self._recent(),
        }
        if self._classes is not None and self._classes.values:
            self._last["classes"] = {
                **self._classes.values,
                "trouble": self._classes.trouble,
                "note": self._classes.note,
            }
        self._file.write(self._last)

    def _look_beside(self, runner: LiveRunner | None, names: GrowingList) -> None:
        """Look at the live classes and the report."""
        if self._classes is not None:
            self._classes.look()
            found = self._classes.values
            if found is not None and found["round"] != self._round:
                self._round = found["round"]
                self._notifier.tell(
                    "classes",
                    f"Round {self._round} of the live classes: {found['n_particles']:,} particles "
                    f"in {found['n_classes']} classes, {found['resolution']:.1f} A.",
                )
        if runner is not None:
            self._report.look(self._done, names.table, self._parameters)

    def end(self, state: str, *, is_finished: bool, error: str = "") -> None:
        """Write the last status."""
        words = {"stopped": "Closed." if is_finished else "Stopped.", "failed": error}
        self.state = state
        self._refresh()
        self._notifier.tell(state, error or words.get(state, state))
        self._notifier.end()
        self._last["notify"] = self._notifier.to_dict()
        self._file.write(
            {
                **self._last,
                "state": state,
                "sentence": words.get(state, state),
                "error": error,
                "is_finished": is_finished,
                "counts": self.counts(),
            }
        )

    def _refresh(self) -> None:
        """Take in what the jobs have done and people have chosen."""
        changed = self._fields.refresh()
        path = self._project.folder / "decisions.jsonl"
        status = path.stat() if path.exists() else None
        stamp = (0, 0) if status is None else (status.st_size, status.st_mtime_ns)
        if changed is None or changed or stamp != self._choices_stamp or self._states is None:
            self.has_new_choices |= stamp != self._choices_stamp
            self._choices_stamp = stamp
            self._choices = read_choices(self._project.folder)
            self._states = judge_fields(self._fields, self._choices, tells_why=False)

    def _sentence(self, counts: dict[str, Any], names: GrowingList) -> str:
        if not counts["listed"]:
            return "Waiting for the first micrograph."
        said = f"{counts['listed']:,} micrographs, {counts['extracted']:,} done"
        waiting = counts["waiting"]
        said += f", {waiting:,} waiting" if waiting else ""
        said += f", {counts['failed']:,} refused" if counts["failed"] else ""
        return said + f"; {counts['particles']:,} particles."

    def _latency(self) -> dict[str, Any]:
        values = np.asarray(self._latencies, float)
        if not len(values):
            return {"median": None, "p90": None, "n": 0}
        return {
            "median": round(float(np.median(values)), 2),
            "p90": round(float(np.percentile(values, 90)), 2),
            "n": len(values),
        }

    def _steps(self, runner: LiveRunner) -> list[dict[str, Any]]:
        return [self._step(step, runner.state, runner.done) for step in runner.state.graph]

    def _step(self, step: Step, state: PlannerState, done: dict[str, StepDone]) -> dict[str, Any]:
        now, known = state.of(step.name), done.get(step.name)
        total = 1 if step.is_set else min(state.count, step.first or state.count)
        share, note = self._now.get(step.name, (now.finished / max(total, 1), ""))
        is_whole = now.finished >= total > 0
        kind = "failed" if now.error else "done" if is_whole else "waiting"
        return {
            "name": step.name,
            "is_set": step.is_set,
            "state": "running" if now.is_running else kind,
            "job": None if known is None else known.number,
            "folder": None if known is None else str(known.folder),
            "done": now.finished,
            "total": total,
            "share": round(min(float(share), 1.0), 4),
            "note": note,
            "error": now.error,
        }

    def _quantities(self) -> list[dict[str, Any]]:
        found = []
        for name in _QUANTITIES:
            values = self._fields.numbers.get(name, np.zeros(0))
            known = values[np.isfinite(values)]
            low, high = self._choices.limits.get(name, (None, None))
            by_column = {} if self._states is None else self._states.by_column
            spread = (np.min, np.median, np.max)
            numbers = [round(float(f(known)), 4) if len(known) else None for f in spread]
            found.append(
                {
                    "name": name,
                    "label": COLUMNS[name].title,
                    "unit": COLUMNS[name].unit,
                    "below": low,
                    "above": high,
                    "n_rejected": by_column.get(name, 0),
                    **dict(zip(("minimum", "median", "maximum"), numbers, strict=True)),
                }
            )
        return found

    def _limits(self) -> dict[str, Any]:
        limits = self._choices.limits.items()
        return {name: {"below": low, "above": high} for name, (low, high) in limits}

    def _failures(self, names: GrowingList) -> list[dict[str, Any]]:
        fields = self._fields
        found = [
            {"name": fields.names[k], "step": step, "reason": reason}
            for k, (step, reason) in sorted(fields.errors.items())
        ]
        found += [{"name": n, "step": "list", "reason": why} for n, why in names.refused.items()]
        errors = dict(self._errors)
        if self._classes is not None and self._classes.trouble:
            errors["live_classes"] = self._classes.trouble
        found += [{"name": "", "step": s, "reason": why} for s, why in errors.items()]
        return found[-_LISTED:]

    def _training(self, runner: LiveRunner | None, subset: int) -> dict[str, Any]:
        if runner is None:
            return {"state": "waiting", "subset": subset, "error": ""}
        steps = {s.name: runner.state.of(s.name) for s in runner.state.graph}
        known = [steps[n] for n in _LEARNED if n in steps]
        if not known:
            return {"state": "off", "subset": 0, "error": ""}
        before = [runner.state.of(name) for name in _FIRST]
        error = next((s.error for s in (*before, *known) if s.error), "")
        if error:
            kind = "failed"
        elif known[-1].finished:
            kind = "done"
        else:
            kind = "running" if any(s.is_running or s.finished for s in known) else "waiting"
        return {"state": kind, "subset": subset, "error": error}

    def _picker(self, runner: LiveRunner | None) -> dict[str, Any]:
        done = {} if runner is None else runner.done
        is_trained = "picks" in done and "training" in done
        job = done["training"].number if is_trained else None
        return {"picker": "trained" if is_trained else "general", "picker_job": job}

    def _state_of(self, place: int) -> str:
        states = self._states
        if states is None or place in self._fields.errors:
            return "failed" if place in self._fields.errors else ""
        return "accepted" if states.is_accepted[place] else "rejected"

    def _recent(self) -> list[dict[str, Any]]:
        fields = self._fields
        found = []
        for place in range(max(0, len(fields) - _RECENT), len(fields)):
            values = {n: fields.numbers[n][place] for n in _QUANTITIES}
            found.append(
                {
                    "number": place + 1,
                    "name": fields.names[place],
                    "state": self._state_of(place),
                    **{
                        n: round(float(v), 4) if np.isfinite(v) else None for n, v in values.items()
                    },
                }
            )
        return found


_COUNTS = (
    *("listed", "waiting", "measured", "picked", "extracted", "failed", "rejected"),
    *("picks", "particles", "classified"),
)
