"""What the classification of a stream has found so far: everything the next round needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.class2d.em_state import EmState
from cryopick.class2d.stream_basis import CovarianceSums, ReducedBasis
from cryopick.class2d.stream_classes import ClassChange

__all__ = ["JunkCurve", "StreamState", "reservoir"]

_KINDS = ("merge", "split")


def reservoir(n_seen: int, most: int, *, seed: int) -> NDArray[np.int64]:
    """Draw `most` of the particles that have arrived, each with the same chance, in order.

    Every particle has a random key of its own, and those with the smallest keys are drawn: the
    result depends on how many have arrived, not on how they came.
    """
    if n_seen <= most:
        return np.arange(n_seen)
    keys = np.random.default_rng([seed, 1]).random(n_seen)
    return np.sort(np.argpartition(keys, most)[:most])


@dataclass(frozen=True, kw_only=True)
class JunkCurve:
    """Chance to be junk as it falls with the log-likelihood, for fixed references."""

    log_likelihood: NDArray[np.float32]  # rising
    probability: NDArray[np.float32]

    def __call__(self, log_likelihood: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate; beyond the ends the end values hold."""
        found = np.interp(log_likelihood, self.log_likelihood, self.probability)
        return found.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """A stream after a round; `from_arrays` restores what `to_arrays` gave."""

    round: int  # done
    version: int  # of the references that the particles were assigned to
    n_seen: int  # particles assigned, the first of the stream
    is_anchored: bool  # references are given and stay as they are
    em: EmState  # averages in rings, noise, and the poses of all particles seen
    arrived: NDArray[np.int32]  # (n_seen,) round in which each particle was first assigned
    basis: ReducedBasis | None
    covariance: CovarianceSums | None
    junk_curve: JunkCurve | None  # of anchored references
    drift: NDArray[np.float32]  # (K,) 1 - correlation with the reference of the round before
    changes: tuple[ClassChange, ...]  # merges and splits of the last round

    def weights(self, forgetting: float) -> NDArray[np.float32]:
        """Weight of each particle in the averages, (n_seen,)."""
        age = np.maximum(self.round - self.arrived, 0)
        return ((1 - forgetting) ** age).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, ready for `numpy.savez`."""
        arrays: dict[str, NDArray[Any]] = {
            n: np.asarray(getattr(self, n)) for n in ("round", "version", "n_seen", "is_anchored")
        }
        arrays |= {"arrived": self.arrived, "drift": self.drift}
        rows = [(_KINDS.index(c.kind), c.class_index, c.other) for c in self.changes]
        arrays["changes"] = np.array(rows, np.int64).reshape(-1, 3)
        arrays |= {f"em.{n}": a for n, a in self.em.to_arrays().items()}
        if self.basis is not None:
            arrays |= {f"basis.{n}": a for n, a in self.basis.to_arrays().items()}
        if self.covariance is not None:
            arrays |= {f"covariance.{n}": a for n, a in self.covariance.to_arrays().items()}
        if self.junk_curve is not None:
            arrays["junk.log_likelihood"] = self.junk_curve.log_likelihood
            arrays["junk.probability"] = self.junk_curve.probability
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore what `to_arrays` gave."""

        def part(prefix: str) -> dict[str, NDArray[Any]]:
            names = [n for n in arrays if n.startswith(prefix)]
            return {n.removeprefix(prefix): np.array(arrays[n]) for n in names}

        basis, covariance, junk = part("basis."), part("covariance."), part("junk.")
        rows = np.array(arrays["changes"]).tolist()
        return cls(
            round=int(arrays["round"]),
            version=int(arrays["version"]),
            n_seen=int(arrays["n_seen"]),
            is_anchored=bool(arrays["is_anchored"]),
            em=EmState.from_arrays(part("em.")),
            arrived=np.array(arrays["arrived"]),
            basis=ReducedBasis.from_arrays(basis) if basis else None,
            covariance=CovarianceSums.from_arrays(covariance) if covariance else None,
            junk_curve=JunkCurve(**junk) if junk else None,
            drift=np.array(arrays["drift"]),
            changes=tuple(ClassChange("merge" if k == 0 else "split", c, o) for k, c, o in rows),
        )
