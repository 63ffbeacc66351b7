"""What a run with other parameters would do again, by asking the planner of the run itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from cryopick.io.star import read_star
from cryopick.pipeline.planner import (
    Finish,
    Halt,
    Instruction,
    Listed,
    Made,
    PlannerState,
    Process,
    Processed,
    Step,
    begin,
    plan,
)
from cryopick.pipeline.run_graph import run_graph, step_parameters
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.run_story import TITLES
from cryopick.server.answers import Call
from cryopick.server.forms import FORMS, check_values, flags_of
from cryopick.server.served import Served, command_line

__all__ = ["foresee"]


def foresee(call: Call) -> dict[str, Any]:
    """Say what becomes of each step if parameters are changed."""
    served = call.served
    before = served.project.run_parameters() or {}
    pixel_size = before.pop("pixel_size", None)
    given = {**before, **call.said("parameters", dict, {})}
    parameters, *_ = check_values(FORMS["run"], given)
    assert isinstance(parameters, RunParameters)
    graph = run_graph(parameters, has_ctf=_has_ctf(served), pixel_size=pixel_size)
    n = len(served.table())
    fates = _fates(served, graph, n)
    old = RunParameters.from_dict(before)
    for step in graph:
        said = fates[step.name]
        said["why"] = _why(step, said["fate"], old, parameters, fates)
    words = ["run", served.table().source or "MICROGRAPHS", "--out", served.folder]
    return {
        "steps": [{"name": s.name, "title": TITLES[s.name], **fates[s.name]} for s in graph],
        "n_fields": n,
        "command": command_line(*words, *flags_of(parameters)),
    }


def _fates(served: Served, graph: tuple[Step, ...], n: int) -> dict[str, dict[str, Any]]:
    """Play the run through with the results there are."""
    project = served.project
    aliases, jobs = project.aliases(), project.jobs()
    fates: dict[str, dict[str, Any]] = {}
    state, first = plan(begin(graph), Listed(count=n, is_closed=True))
    waiting: deque[Instruction] = deque(first)
    while waiting:
        instruction = waiting.popleft()
        if isinstance(instruction, Finish | Halt):
            break
        job = project.find_job(instruction.step, instruction.identity)
        result = (job.result if job is not None and job.is_done else None) or {}
        if job is None or "content" not in result:
            continue
        is_whole = not isinstance(instruction, Process) or int(result.get("n_inputs", 0)) >= n
        is_current = aliases.get(instruction.step) == job.number
        fate = "kept" if is_current else "back"
        fates[instruction.step] = {
            "fate": fate if is_whole or instruction.step.startswith("first") else "more",
            "job": str(job.number),
        }
        state, more = _taken(state, instruction, str(result["content"]), n)
        waiting.extend(more)
    for step in graph:
        has_job = any(job.step == step.name for job in jobs.values())
        fates.setdefault(step.name, {"fate": "again" if has_job else "new", "job": None})
    return fates


def _taken(
    state: PlannerState, instruction: Instruction, content: str, n: int
) -> tuple[PlannerState, tuple[Instruction, ...]]:
    if isinstance(instruction, Process):
        stop = max(instruction.stop, 1)
        event = Processed(
            step=instruction.step, identity=instruction.identity, stop=min(stop, n), content=content
        )
        return plan(state, event)
    assert not isinstance(instruction, Finish | Halt)
    return plan(state, Made(step=instruction.step, identity=instruction.identity, content=content))


def _why(
    step: Step,
    fate: str,
    old: RunParameters,
    new: RunParameters,
    fates: Mapping[str, Mapping[str, Any]],
) -> str:
    if fate == "kept":
        return ""
    if fate == "more":
        return "there are new micrographs"
    before, after = (step_parameters(step.name, p, pixel_size=None) for p in (old, new))
    changed = [f"{k} {after[k]} instead of {before[k]}" for k in after if after[k] != before[k]]
    again = [TITLES[name] for name in step.needs if fates[name]["fate"] in ("again", "new")]
    parts = [", ".join(changed)] if changed else []
    parts += [f"made from {' and '.join(again)}"] if again else []
    if fate == "back":
        parts.append("made before with these parameters")
    return "; ".join(parts)


def _has_ctf(served: Served) -> bool:
    """Tell whether the table that the run was given says the CTF of each field."""
    path = served.folder / "micrographs.star"
    if not path.is_file():
        return False
    rows = next((b for b in read_star(path).values() if "rlnMicrographName" in b), None)
    return rows is not None and "rlnDefocusU" in rows and bool(rows["rlnDefocusU"].notna().all())
