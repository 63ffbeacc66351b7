"""What a 2D classification has found so far: everything needed to go on after a stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EmState", "ImageSource", "Poses"]

Floats = NDArray[np.float32]


class ImageSource(Protocol):
    """Where the classifier gets images from; reading must be possible from several threads."""

    box_size: int  # px
    pixel_size: float  # A/px
    group_numbers: NDArray[np.int64]  # (n,) group of equal contrast, from 0
    optics_numbers: NDArray[np.int64]  # (n,) group of equal noise, from 0
    is_premultiplied: NDArray[np.bool_]  # (optics groups,) images were multiplied by their CTF
    is_phase_flipped: NDArray[np.bool_]  # (optics groups,)

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Read images (m, y, x), float32 on the CPU."""
        ...

    def ctf_parameters(self, indices: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Give (m, 9) as for `ctf.rings.evaluate_ctf_rings`; None: no correction."""
        ...


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Class and pose of each particle, and how sure they are."""

    class_index: NDArray[np.int32]  # from 0
    psi: Floats  # deg, turns the centred image onto the class
    shift_x: Floats  # A, centres the image
    shift_y: Floats  # A
    max_probability: Floats  # of the best pose
    log_likelihood: Floats  # best pose against no particle
    n_significant: NDArray[np.int32]  # poses above a thousandth of the best
    entropy: Floats  # of the posterior, nats
    norm: Floats  # residual standard deviation against the mean of all
    junk_probability: Floats
    membership: Floats  # weight the particle has in the averages there are now
    margin: Floats  # posterior of the best class less that of the second, each at its best pose
    seen: NDArray[np.bool_]  # False: not yet aligned

    @classmethod
    def empty(cls, n: int) -> Self:
        """Make poses of n particles nothing is known of."""
        zero = np.zeros(n, np.float32)
        return cls(
            class_index=np.zeros(n, np.int32),
            psi=zero,
            shift_x=zero.copy(),
            shift_y=zero.copy(),
            max_probability=zero.copy(),
            log_likelihood=zero.copy(),
            n_significant=np.zeros(n, np.int32),
            entropy=zero.copy(),
            norm=np.ones(n, np.float32),
            junk_probability=zero.copy(),
            membership=zero.copy(),
            margin=zero.copy(),
            seen=np.zeros(n, bool),
        )

    def __len__(self) -> int:
        return len(self.psi)

    @property
    def is_member(self) -> NDArray[np.bool_]:
        """Whether a particle belongs to its class: it has been aligned, and is no junk."""
        members: NDArray[np.bool_] = self.seen & (self.junk_probability <= 0.5)
        return members

    def copy(self) -> Poses:
        """Copy every column."""
        return Poses(**{f.name: getattr(self, f.name).copy() for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class EmState:
    """One point of a run; a run restored from `to_arrays` goes on to the same result."""

    iteration: int  # done
    is_finished: bool
    poses: Poses
    harmonics: Tensor  # (K, R, B) complex64 averages in the basis of `n_rings`
    n_rings: int
    noise: Tensor  # (optics groups, most rings) power of the noise, unmasked, in box units
    ring_frequencies: Tensor  # (most rings,) 1/A
    shares: Tensor  # (K,) soft shares of the particles
    ssnr: Tensor  # (R,) of the averages
    own_gain: Tensor  # (K,) log-likelihood noise gains in a class by being one of its members
    sigma_offset: float  # A
    group_scale: Tensor  # (groups,)
    resolution: float  # A, of the E-step just done
    changes: tuple[float, float, float]  # class (share), rotation (deg), shift (A, rms)
    has_references: bool = False  # the run began from averages of the user's
    visited: int = 0  # place in the random order up to which particles have been seen
    fine_from: int | None = None  # iteration at which the classes had settled

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, ready for `numpy.savez`."""
        arrays: dict[str, NDArray[Any]] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "poses":
                arrays |= {f"poses.{p.name}": getattr(value, p.name) for p in fields(value)}
            elif isinstance(value, Tensor):
                arrays[f.name] = value.cpu().numpy()
            elif value is not None:
                arrays[f.name] = np.asarray(value)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore what `to_arrays` gave."""
        poses = Poses.empty(len(arrays["poses.psi"]))
        for column in fields(Poses):
            if f"poses.{column.name}" in arrays:  # margin is younger than some checkpoints
                getattr(poses, column.name)[:] = arrays[f"poses.{column.name}"]
        values: dict[str, Any] = {"poses": poses}
        for f in fields(cls):
            if f.name == "poses" or f.name not in arrays:
                continue
            value = np.array(arrays[f.name])
            is_tensor = f.name in _TENSORS
            values[f.name] = torch.from_numpy(value) if is_tensor else value.tolist()
        values["changes"] = tuple(values["changes"])
        return cls(**values)

    def summary(self) -> dict[str, float]:
        """Numbers for one line on the progress."""
        counts = np.bincount(self.poses.class_index[self.poses.seen], minlength=len(self.shares))
        return {
            "iteration": self.iteration,
            "resolution": self.resolution,
            "changed_class": self.changes[0],
            "changed_psi": self.changes[1],
            "changed_shift": self.changes[2],
            "classes": int((counts > 0).sum()),
            "max_probability": float(self.poses.max_probability[self.poses.seen].mean())
            if self.poses.seen.any()
            else 0.0,
        }


_TENSORS = {"harmonics", "noise", "ring_frequencies", "shares", "ssnr", "own_gain", "group_scale"}
