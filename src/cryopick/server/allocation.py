"""Give memory back: every picture needs arrays of many megabytes for a moment."""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["give_memory_back"]

_LARGE = 1 << 20  # bytes: what is as large gets pages of its own, and gives them back when freed
_ARENAS = 2
# numbers of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def give_memory_back() -> None:
    """Let the C library return freed arrays to the system at once, where it can be told to.

    Left alone, the GNU library learns from the first large array that is freed to keep such
    memory, in a heap for each thread: a server with many threads then holds hundreds of megabytes
    that nobody uses.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        for name, value in (
            (_MMAP_THRESHOLD, _LARGE),
            (_TRIM_THRESHOLD, _LARGE),
            (_ARENA_MAX, _ARENAS),
        ):
            library.mallopt(name, value)
