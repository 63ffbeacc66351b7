"""The planner over a long session: nothing is asked for twice, and its cost does not grow."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from cryopick.pipeline.planner import Finish, Process
from planner_replay import replay

FIELDS = 5000


def test_five_thousand_fields_are_each_handed_out_once_at_a_cost_that_does_not_grow():
    handed: dict[tuple[str, str], list[Process]] = defaultdict(list)
    spans = {False: [0.0, 0], True: [0.0, 0]}
    said = ()
    then = time.process_time()
    for state, said in replay(FIELDS):
        span = spans[state.count > FIELDS // 2]
        span[0] += time.process_time() - then
        span[1] += 1
        for one in said:
            if isinstance(one, Process):
                handed[one.step, one.identity].append(one)
        then = time.process_time()

    assert said == (Finish(),)
    for (step, _), parts in handed.items():
        edges = [0, *(one.stop for one in parts)]
        assert [one.start for one in parts] == edges[:-1], step
        assert step.startswith("first_") or edges[-1] == FIELDS, step
    assert {step for step, _ in handed} >= {"ctf", "live_picks", "picks", "particles"}
    early, late = (seconds / count for seconds, count in spans.values())
    assert max(early, late) < 1e-3
    assert late < 3 * early
