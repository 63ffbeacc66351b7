"""What a stable classification has found so far: everything needed to go on after a stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_state import EmState
from cryopick.class2d.stable_engine import Poses2d

__all__ = ["StableClasses", "StableState"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StableClasses:
    """Candidate classes of all generations, in the order they were found."""

    main: Integers  # (C,) main iteration, from 1
    generation: Integers  # (C,) from 1 in each main iteration
    is_accepted: NDArray[np.bool_]  # (C,)
    n_core: Integers  # (C,) images that most partitions agree upon
    n_members: Integers  # (C,) stable members; of a rejected class those it had
    pixel_error: Floats  # (C,) px at working size: root mean square over the members
    stable_share: Floats  # (C,) of the images that fit the class
    reproducibility: Floats  # (C,) mean Jaccard index of the partitions
    averages: Floats  # (C, size, size) at working size

    @classmethod
    def empty(cls, size: int) -> Self:
        """No classes."""
        none, whole = np.zeros(0, np.float32), np.zeros(0, np.int64)
        return cls(
            main=whole, generation=whole, is_accepted=np.zeros(0, bool), n_core=whole,
            n_members=whole, pixel_error=none, stable_share=none, reproducibility=none,
            averages=np.zeros((0, size, size), np.float32),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.main)

    def extended(self, other: StableClasses) -> StableClasses:
        """Put the classes of a generation behind."""
        return StableClasses(**{
            f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
            for f in fields(self)
        })  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StableState:
    """One point of a run; a run restored from `to_arrays` goes on to the same result.

    Poses shift first, then turn, then mirror (x to -x); shifts are in pixels at working size.
    """

    phase: str  # prealignment, partition, judgement, finished
    main: int  # from 1
    generation: int  # from 1
    partition: int  # from 0, of the independent ones
    step: int  # done in this phase
    noise: Tensor  # (most rings,)
    n_rings: int  # rings that averages have signal in
    centred: Poses2d  # (n,) of the prealignment
    global_average: Tensor  # (size, size) of the prealignment
    alignment: tuple[int, int, int]  # stage, iterations in it, iterations in all
    pool: Integers  # images of the generation
    label: Integers  # (pool,) of the partition at work; -1: none
    poses: Poses2d  # (pool,)
    share_image: Integers  # (m,) parts of images in the averages of that partition
    share_label: Integers
    share_weight: Floats
    share_poses: Poses2d
    n_classes: int  # of that partition
    agreement: float  # share of images that its last pass has left in their class
    partitions: Integers  # (done, pool) labels of the partitions that are done
    run_poses: Poses2d  # (done x pool,) in them, one after the other
    class_index: Integers  # (n,) accepted class of each image, its place in `classes`; -1: none
    pixel_error: Floats  # (n,) px; NaN where not tested
    significance: Floats  # (n,) of the best fit, last time tested, over the limit from decoys
    member_poses: Poses2d  # (n,) in the accepted class
    classes: StableClasses
    accounted: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # per generation
    first: EmState | None = None  # where the first classes of the partition are, before its passes
    refinement: EmState | None = None  # of the accepted classes, at the end of a run

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.phase == "finished"

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, ready for `numpy.savez`."""
        arrays: dict[str, NDArray[Any]] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, EmState):
                arrays |= {f"{f.name}.{name}": part for name, part in value.to_arrays().items()}
            elif isinstance(value, Poses2d | StableClasses):
                parts = fields(value)
                arrays |= {f"{f.name}.{p.name}": getattr(value, p.name) for p in parts}
            elif isinstance(value, Tensor):
                arrays[f.name] = value.cpu().numpy()
            elif value is not None:
                arrays[f.name] = np.asarray(value)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore what `to_arrays` gave."""
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name in ("first", "refinement"):
                values[f.name] = _em_state_of(arrays, f"{f.name}.")
                continue
            if f.type in ("Poses2d", "StableClasses"):
                kind: Any = Poses2d if f.type == "Poses2d" else StableClasses
                names = [p.name for p in fields(kind)]
                values[f.name] = kind(**{n: np.array(arrays[f"{f.name}.{n}"]) for n in names})
                continue
            value = np.array(arrays[f.name])
            if f.type == "Tensor":
                values[f.name] = torch.from_numpy(value)
            else:
                values[f.name] = value if f.type in ("Integers", "Floats") else value.tolist()
        values["alignment"] = tuple(values["alignment"])
        return cls(**values)


def _em_state_of(arrays: Mapping[str, NDArray[Any]], prefix: str) -> EmState | None:
    own = {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
    return EmState.from_arrays(own) if own else None
