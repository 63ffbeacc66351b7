"""What the planner costs: the events of a long session, with no work behind them.

python benchmarks/planner_replay.py [--fields 50000]

Fields become known one by one. Each instruction is answered at once by the event that says that
it is done, a hundredth of the fields as refused by the picker, and each time that many fields
have come the list of them is told again, as a session does on a restart.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import deque
from collections.abc import Iterator

from cryopick.pipeline.planner import (
    Event,
    Finish,
    Instruction,
    Listed,
    Made,
    Make,
    PlannerState,
    Process,
    Processed,
    begin,
    plan,
)
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_graph import session_graph

_PARTS = 5  # of the session, timed one by one
_AGAIN = 1000  # fields between two repetitions of the list


def answer(instruction: Process | Make, state: PlannerState) -> Event:
    """Say that it is done."""
    identity = instruction.identity
    if isinstance(instruction, Make):
        return Made(step=instruction.step, identity=identity, content=f"of {state.count}")
    stop = instruction.stop
    return Processed(
        step=instruction.step,
        identity=identity,
        stop=stop,
        content=f"{stop}",
        refused=stop // 100 if instruction.step == "picks" else 0,
    )


def replay(fields: int) -> Iterator[tuple[PlannerState, tuple[Instruction, ...]]]:
    """Give what the planner says to each event of a session of so many fields."""
    graph = session_graph(
        RunParameters(diameter=180.0), has_ctf=False, pixel_size=1.0, is_live=True
    )
    state = begin(graph)
    waiting: deque[Event] = deque()
    for count in range(1, fields + 1):
        waiting.append(Listed(count=count, is_closed=count == fields))
        if count % _AGAIN == 0:
            waiting.append(Listed(count=count, is_closed=count == fields))
        while waiting:
            state, instructions = plan(state, waiting.popleft())
            waiting.extend(answer(i, state) for i in instructions if isinstance(i, Process | Make))
            yield state, instructions


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fields", type=int, default=50_000)
    fields = parser.parse_args().fields
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times: list[list[float]] = [[] for _ in range(_PARTS)]
    is_finished = False
    then = time.perf_counter()
    for state, said in replay(fields):
        now = time.perf_counter()
        is_finished = Finish() in said
        times[min(state.count * _PARTS // (fields + 1), _PARTS - 1)].append(now - then)
        then = time.perf_counter()
    n_events = sum(map(len, times))
    print(f"{fields} fields, {n_events} events, {sum(map(sum, times)):.1f} s")
    for number, part in enumerate(times):
        mean, worst = 1e3 * sum(part) / len(part), 1e3 * max(part)
        print(f"part {number + 1} of {_PARTS}: {mean:.3f} ms an event, {worst:.1f} ms the slowest")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"finished: {is_finished}; memory grew by {grown:.0f} MiB")


if __name__ == "__main__":
    main()
