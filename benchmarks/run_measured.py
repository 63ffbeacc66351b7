"""``cryopick run`` on one core, with the CPU time of each step; called by ``run_quality.py``.

All steps run in one process, as in the command, so user and system time between the ends of two
steps is what a step has used, without the start of the program. Wall time is that of the job's
record. What a run that was cut off has used before is added.

    python benchmarks/run_measured.py MICROGRAPHS.star PROJECT USAGE.json UNTIL [DIAMETER]
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run import run_project
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.runner import StepDone


def main() -> None:
    micrographs, project, usage, until, *diameter = sys.argv[1:]
    said = {"until": until, "diameter": float(diameter[0]) if diameter else None}
    partial = Path(usage).with_suffix(".partial")
    steps: dict[str, Any] = json.loads(partial.read_text()) if partial.is_file() else {}
    before = _cpu()

    def after(step: StepDone) -> None:
        nonlocal before
        now = _cpu()
        kept = steps.get(step.name, {"cpu": 0.0})
        used = kept["cpu"] + (now - before if step.is_new else 0.0)
        steps[step.name] = {"cpu": used, "wall": step.seconds}
        partial.write_text(json.dumps(steps))
        before = now

    result = run_project(
        [micrographs],
        Path(project),
        parameters=RunParameters.from_dict(said),
        compute=ComputeParameters(workers=1, threads=1),
        after=after,
    )
    Path(usage).write_text(json.dumps({"steps": steps, "result": result.to_dict()}, indent=1))
    partial.unlink(missing_ok=True)


def _cpu() -> float:
    """User and system time of this process and those that it has ended, s."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


if __name__ == "__main__":
    main()
