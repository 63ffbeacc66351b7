"""What memory a 2D classification gives to alignment, averages and images kept ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from cryopick.pipeline.class2d_averages import average_bytes, sums_bytes
from cryopick.pipeline.class2d_parameters import MachineParameters
from cryopick.pipeline.class2d_source import ParticleSource
from cryopick.pipeline.memory_plan import MemoryPlan, memory_limit, plan_memory

__all__ = ["PlannedClassifier", "plan_classifier"]

_TABLE_BYTES = 2000  # of a row: columns in memory, twice
_SUMS_SHARE, _SUMS_BESIDE = 0.25, 3  # of the memory; all sums and averages, in sizes of a sum
_BATCH_PIXELS = 1 << 19
_KEPT_SHARE = 0.8  # of the memory that is left may go to images kept ready


class _Sized(Protocol):
    @property
    def fixed_bytes(self) -> int: ...

    @property
    def bytes_per_image(self) -> int: ...

    def close(self) -> None: ...


Classifier = TypeVar("Classifier", bound=_Sized)


@dataclass(frozen=True, kw_only=True)
class PlannedClassifier(Generic[Classifier]):
    """A classifier that fits, and how to average beside it."""

    classifier: Classifier
    plan: MemoryPlan
    n_threads: int  # that can have sums of averages of their own


def plan_classifier(
    make: Callable[[int], Classifier],
    source: ParticleSource,
    compute: MachineParameters,
    *,
    n_classes: int,
) -> PlannedClassifier[Classifier]:
    """Make a classifier that keeps its images ready if there is memory for them.

    Parameters
    ----------
    make
        Makes it, with so many bytes for images.
    source
        The images.
    compute
        How much of the machine to use.
    n_classes
        Averages at the full box.

    Raises
    ------
    ParameterError
        If not even one image fits beside classes and tables.
    """
    limit, box = memory_limit(compute.memory), source.box_size
    sums = sums_bytes(box, n_classes)
    threads = max(1, min(compute.n_threads, int(_SUMS_SHARE * limit / sums)))
    classifier = make(0)
    plan = plan_memory(
        bytes_per_image=threads * average_bytes(box),
        fixed={
            "tables": float(_TABLE_BYTES * len(source.images)),
            "alignment": float(classifier.fixed_bytes),
            "averages": float(sums * (threads + _SUMS_BESIDE)),
        },
        limit=limit,
        minimum=1,
        maximum=min(max(_BATCH_PIXELS // box**2, 16), 128),
    )
    wanted = len(source) * classifier.bytes_per_image
    if wanted <= _KEPT_SHARE * (plan.limit - plan.total):
        classifier.close()
        classifier = make(wanted)
        plan = replace(plan, parts={**plan.parts, "images kept ready": float(wanted)})
    return PlannedClassifier(classifier=classifier, plan=plan, n_threads=threads)
