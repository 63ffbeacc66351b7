"""Memory of this process by what it holds itself: pages of program files do not count."""

from __future__ import annotations

from pathlib import Path


def _bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def bytes_held() -> int:
    """What it holds now."""
    return _bytes("RssAnon")


def most_bytes() -> int:
    """The most that it has held."""
    return _bytes("VmHWM") - _bytes("RssFile") - _bytes("RssShmem")
