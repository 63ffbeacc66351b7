"""Work that is one piece, done where its device is: here, or on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cryopick.execution.local import make_executor
from cryopick.execution.parameters import ComputeParameters

__all__ = ["is_elsewhere", "run_whole"]

Result = TypeVar("Result")


def is_elsewhere(compute: ComputeParameters) -> bool:
    """Whether work of one piece goes to a worker: to one with a GPU, which may not be here."""
    return compute.is_remote and compute.uses_gpu


def run_whole(compute: ComputeParameters, work: Callable[[ComputeParameters], Result]) -> Result:
    """Do work of one piece.

    Parameters
    ----------
    compute
        What the user chose. Without a GPU the work is done in this process.
    work
        Given what it may use there. For a worker it must be picklable, and such that it goes on
        when it is called again after a death.

    Raises
    ------
    CryopickError
        What `work` raises, or that its workers die.
    """
    if not is_elsewhere(compute):
        return work(compute)
    there = ComputeParameters(device=compute.device, workers=1, threads=compute.threads)
    executor = make_executor(compute, n_items=1, bytes_per_item=0)
    (outcome,) = executor.map_unordered(partial(_call, work), [there])
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value] # without an error there is one


def _call(work: Callable[[ComputeParameters], Result], compute: ComputeParameters) -> Result:
    return work(compute)
