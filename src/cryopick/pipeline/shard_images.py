"""Images that a worker of a cluster keeps from iteration to iteration."""

from __future__ import annotations

import threading

import numpy as np
import torch
from distributed import get_worker
from numpy.typing import NDArray
from torch import Tensor

from cryopick.class2d.em_images import Geometry, WorkingImages
from cryopick.class2d.em_state import ImageSource

__all__ = ["KeptImages", "kept_bytes"]

_SHARE = 0.4  # of the memory of a worker
_UNLIMITED = 1 << 30  # bytes, where a worker has no limit
_NONE = -1


class KeptImages(WorkingImages):
    """Working images, of which as many are kept as a share of the memory holds.

    The first that are read are kept; the others are read again each time. A worker is given the
    same part of the images in each iteration as far as that goes, so these are the right ones.

    Parameters
    ----------
    source, geometry
        As for `WorkingImages`.
    keep_bytes
        Memory for them; it is taken as it is needed.
    """

    def __init__(self, source: ImageSource, geometry: Geometry, *, keep_bytes: int) -> None:
        super().__init__(source, geometry)
        size = geometry.working_size
        capacity = min(len(source), keep_bytes // (4 * size * size))
        self._memory = torch.empty(capacity, size, size)
        self._slots = np.full(len(source), _NONE, np.int64)
        self._lock = threading.Lock()
        self.n_kept = self.n_read = 0

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Working images (m, s, s) of some particles, float32 on the CPU, from any thread."""
        with self._lock:
            slots = self._slots[indices]
        is_new = slots == _NONE
        size = self.geometry.working_size
        if not is_new.any():
            return self._memory[slots]
        images = torch.empty(len(indices), size, size)
        images[~is_new] = self._memory[slots[~is_new]]
        missing, place = np.unique(indices[is_new], return_inverse=True)
        prepared = self.prepare(self.source.read(missing))
        images[is_new] = prepared[place]
        self._keep(missing, prepared)
        return images

    def _keep(self, indices: NDArray[np.int64], images: Tensor) -> None:
        """Keep what there is room for; another thread may have kept some of them meanwhile."""
        with self._lock:
            self.n_read += len(indices)
            places = np.flatnonzero(self._slots[indices] == _NONE)
            places = places[: len(self._memory) - self.n_kept]
            indices = indices[places]
            slots = np.arange(self.n_kept, self.n_kept + len(indices))
            self._memory[slots] = images[places]
            self._slots[indices] = slots
            self.n_kept += len(indices)


def kept_bytes() -> int:
    """How much of its memory the worker that asks may give to images."""
    limit = get_worker().memory_manager.memory_limit
    return int(_SHARE * limit) if limit else _UNLIMITED
