"""How many images to work on at once, so that a command stays within the memory there is."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cryopick.errors import ParameterError
from cryopick.execution.parameters import WORKER_BASE_BYTES

__all__ = ["MemoryPlan", "free_memory", "memory_limit", "plan_memory", "release_memory"]

_SHARE_OF_FREE = 0.9  # the rest is for what nobody counts
_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Images of a batch, and what memory goes where."""

    batch_size: int
    parts: Mapping[str, float]  # bytes of each part, the batches last
    limit: float  # bytes

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = " + ".join(f"{name} {size / _GB:.1f}" for name, size in self.parts.items())
        return f"Memory: {self.total / _GB:.1f} GB = {parts}; limit {self.limit / _GB:.1f} GB."


def plan_memory(
    *,
    bytes_per_image: float,
    fixed: Mapping[str, float],
    limit: float,
    minimum: int = 16,
    maximum: int = 1024,
) -> MemoryPlan:
    """Choose the size of a batch.

    Parameters
    ----------
    bytes_per_image
        All that one image of a batch needs at the peak: pixels, those read in advance, and
        what is computed from them.
    fixed
        Bytes that do not depend on the batch, by name; the program itself is added.
    limit
        Bytes in all, see `memory_limit`.
    minimum, maximum
        Bounds of the batch size, images.

    Returns
    -------
    MemoryPlan
        The largest batch that fits; ``str`` of it says what memory goes where.

    Raises
    ------
    ParameterError
        If not even `minimum` images fit.

    Examples
    --------
    >>> print(plan_memory(bytes_per_image=4e6, fixed={"references": 1e8}, limit=3e9, maximum=256))
    Memory: 1.5 GB = program 0.4 + references 0.1 + batches of 256 images 1.0; limit 3.0 GB.
    """
    parts = {"program": float(WORKER_BASE_BYTES), **fixed}
    left = limit - sum(parts.values())
    fitting = int(left // bytes_per_image) if left > 0 else 0
    if fitting < minimum:
        wanted = sum(parts.values()) + minimum * bytes_per_image
        raise ParameterError(
            "memory",
            must=f"be at least {wanted / _GB:.1f} GB for these images",
            got=f"{max(limit, 0) / _GB:.1f} GB",
            remedy="Raise --memory, free some memory, or take smaller images or fewer classes",
        )
    size = min(fitting, maximum)
    parts[f"batches of {size} images"] = size * bytes_per_image
    return MemoryPlan(batch_size=size, parts=parts, limit=limit)


def memory_limit(memory: float) -> float:
    """Turn the value of ``--memory`` into bytes.

    Parameters
    ----------
    memory
        GB; 0 takes nine tenths of what is free now.
    """
    return memory * _GB if memory else _SHARE_OF_FREE * free_memory()


def free_memory(root: Path = Path("/")) -> int:
    """Tell how many bytes this process may still take: of the machine, and of its control group.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.

    Notes
    -----
    Files that the system keeps in memory can give way, and count as free. A control group
    (container, batch job) is bounded by its own limit and by those of the groups above it.
    """
    return max(0, min(_free_of_machine(root), _free_of_groups(root)))


def _free_of_machine(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _free_of_groups(root: Path) -> int:
    free = 1 << 62
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:  # version 2
            home = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            home = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = home / path.strip("/")
        for folder in (group, *group.parents):  # inside a container the path may not be there
            free = min(free, _free_of_group(folder, *names))
            if folder == home:
                break
    return free


def _free_of_group(folder: Path, limit: str, used: str, given_back: str) -> int:
    try:
        bound = int((folder / limit).read_text())  # "max" is no number, and no bound
        free = bound - int((folder / used).read_text())
    except (OSError, ValueError):
        return 1 << 62
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == given_back:
            return free + int(value)
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def release_memory() -> None:
    """Give memory that was freed back to the system, where allocators would keep it.

    A program that runs for days with tables of text would seem to grow without end.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # of the C library of Linux alone
        ctypes.CDLL("libc.so.6").malloc_trim(0)
