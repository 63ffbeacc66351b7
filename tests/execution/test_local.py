from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cryopick.errors import DataError, ParameterError
from cryopick.execution.local import LocalExecutor, SerialExecutor, make_executor
from cryopick.execution.parameters import WORKER_BASE_BYTES, ComputeParameters


def square(number):
    return number * number


def first_waits_for_second(item):
    number, flag = item
    if number == 1:
        Path(flag).touch()
    end = time.monotonic() + 240
    while not Path(flag).exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5 if number == 0 else 0.0)
    return number


def refuse_odd(number):
    if number % 2:
        raise DataError("number", must="be even", got=number, remedy="Add 1")
    return number


def open_missing(number):
    return Path(f"/no/such/folder/{number}").read_bytes()


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def find_no_memory(number):
    if number == 0:
        raise MemoryError
    if number == 1:
        torch.empty(1 << 60, dtype=torch.uint8)
    return number


def end_at_once(*_):
    os._exit(1)


class Load:
    """Says how often it was read in this process."""

    count = 0

    def __call__(self, _):
        return os.getpid(), Load.count

    def __setstate__(self, _):
        Load.count += 1

    def __getstate__(self):
        return {"data": b"0" * 1000}


def raise_bug(number):
    raise ZeroDivisionError(number)


def worker(_):
    return os.getpid(), torch.get_num_threads()


def interrupt(number):
    os.kill(os.getpid(), signal.SIGINT)
    return number


EXECUTORS = [SerialExecutor(threads=1), LocalExecutor(workers=2, threads=1)]


def outcomes(executor, function, items):
    found = list(executor.map_unordered(function, items))
    return sorted(found, key=lambda outcome: outcome.index)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_each_item_has_one_outcome_with_its_index(executor):
    found = outcomes(executor, square, [3, 1, 2] * 5)

    assert [(o.index, o.value, o.error) for o in found] == [
        (index, value, None) for index, value in enumerate([9, 1, 4] * 5)
    ]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_no_items_have_no_outcome(executor):
    assert outcomes(executor, square, []) == []


def test_results_come_as_they_finish(tmp_path):
    items = [(number, str(tmp_path / "flag")) for number in (0, 1)]
    executor = LocalExecutor(workers=2, threads=1)

    order = [o.index for o in executor.map_unordered(first_waits_for_second, items)]

    assert order == [1, 0]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_belongs_to_its_item_and_the_rest_goes_on(executor):
    found = outcomes(executor, refuse_odd, list(range(9)))

    assert [o.value for o in found] == [0, None, 2, None, 4, None, 6, None, 8]
    assert str(found[3].error) == "number must be even; got 3. Add 1."


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_error_of_the_system_belongs_to_its_item(executor):
    (found,) = outcomes(executor, open_missing, [7])

    assert isinstance(found.error, DataError)
    assert str(found.error).startswith("/no/such/folder/7 must be readable; got No such file")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_want_of_memory_belongs_to_its_item(executor):
    found = outcomes(executor, find_no_memory, [0, 1, 2])

    assert "fit in the memory" in str(found[0].error)
    assert "fit in the memory" in str(found[1].error)
    assert found[2].value == 2


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_bug_stops_the_run(executor):
    with pytest.raises(ZeroDivisionError):
        outcomes(executor, raise_bug, [1, 2, 3])


def test_a_killed_worker_costs_only_the_item_that_kills_it():
    found = outcomes(LocalExecutor(workers=2, threads=1), die_at_three, list(range(12)))

    assert [o.value for o in found] == [None if n == 3 else n for n in range(12)]
    assert "a worker process that was killed" in str(found[3].error)
    assert sum(o.error is not None for o in found) == 1


def test_workers_that_cannot_start_are_one_error(monkeypatch):
    monkeypatch.setattr("cryopick.execution.local._start_worker", end_at_once)

    with pytest.raises(Exception, match="a worker process must start") as caught:
        outcomes(LocalExecutor(workers=2, threads=1), square, [1, 2])
    assert type(caught.value).__name__ == "ProjectError"


def test_workers_leave_the_interrupt_key_to_their_parent():
    found = outcomes(LocalExecutor(workers=2, threads=1), interrupt, [1, 2, 3])

    assert [o.value for o in found] == [1, 2, 3]


def test_workers_are_other_processes_with_the_threads_asked_for():
    found = [o.value for o in outcomes(LocalExecutor(workers=2, threads=3), worker, range(6))]

    assert os.getpid() not in {process for process, _ in found}
    assert {threads for _, threads in found} == {3}


def test_the_function_goes_to_each_worker_once():
    found = [o.value for o in outcomes(LocalExecutor(workers=2, threads=1), Load(), range(12))]

    assert {count for _, count in found} == {1}
    assert os.getpid() not in {process for process, _ in found}


def test_an_abandoned_run_waits_for_its_workers():
    before = set(threading.enumerate())
    running = LocalExecutor(workers=2, threads=1).map_unordered(square, range(100))
    next(running)

    running.close()

    assert set(threading.enumerate()) <= before


def test_a_script_without_a_guard_can_use_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from cryopick.execution.local import LocalExecutor\n"
        "print('started')\n"
        "run = LocalExecutor(workers=2, threads=1).map_unordered(math.sqrt, [4.0, 9.0])\n"
        "print(sorted(o.value for o in run))\n"
    )

    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240)

    assert result.stdout == "started\n[2.0, 3.0]\n"
    assert result.stderr == ""


def test_as_many_workers_as_items_and_as_fit_in_memory():
    compute = ComputeParameters(workers=8, memory=3 * (WORKER_BASE_BYTES + 1e9) / 1e9)

    assert make_executor(compute, n_items=8, bytes_per_item=10**9)._workers == 3
    assert make_executor(compute, n_items=2, bytes_per_item=10**9)._workers == 2
    assert isinstance(make_executor(compute, n_items=1, bytes_per_item=10**9), SerialExecutor)


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(ParameterError, match=r"memory must be at least 2\.4 GB .* got 1 GB"):
        make_executor(ComputeParameters(memory=1), n_items=4, bytes_per_item=2 * 10**9)


@pytest.mark.parametrize("device", ["cuda:99", "cpu,mps:7"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ParameterError, match="device must be on this machine"):
        make_executor(ComputeParameters(device=device), n_items=1, bytes_per_item=1)


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cpu,tpu"])
def test_a_device_without_meaning_is_refused(device):
    with pytest.raises(ParameterError, match="Change --device"):
        ComputeParameters(device=device)
