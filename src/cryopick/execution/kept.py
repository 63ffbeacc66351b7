"""Fleets that outlive one map: a run of many steps keeps its workers from step to step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Connected", "keeping_fleets", "kept_or_new"]


class Connected(Protocol):
    """A fleet that is open."""

    @property
    def is_alive(self) -> bool:
        """Whether its scheduler still answers."""
        ...

    def close(self) -> None:
        """Give the workers back."""
        ...


Connection = TypeVar("Connection", bound=Connected)

_lock = threading.Lock()
_kept: dict[str, Connected] | None = None  # by place; None: nothing is kept


@contextlib.contextmanager
def keeping_fleets() -> Iterator[None]:
    """Within it, work that goes to the same place finds the same workers.

    A fleet is opened by the first work that needs it, so a run without work submits no job, and
    is given back at the end. Within another it does nothing.
    """
    global _kept
    with _lock:
        is_outermost = _kept is None
        if is_outermost:
            _kept = {}
    try:
        yield
    finally:
        if is_outermost:
            with _lock:
                found, _kept = _kept or {}, None
            with contextlib.ExitStack() as stack:
                for connection in found.values():
                    stack.callback(connection.close)


@contextlib.contextmanager
def kept_or_new(place: str, connect: Callable[[], Connection]) -> Iterator[Connection]:
    """Give the fleet that is kept for a place, or one for this work alone.

    Parameters
    ----------
    place
        What the user says to name it; empty is never kept.
    connect
        Opens it. A kept one whose scheduler is lost is opened anew.
    """
    with _lock:
        connection = None if _kept is None or not place else _found(_kept, place, connect)
    if connection is not None:
        yield connection
        return
    connection = connect()
    try:
        yield connection
    finally:
        connection.close()


def _found(kept: dict[str, Connected], place: str, connect: Callable[[], Connection]) -> Connection:
    known = kept.get(place)
    if known is not None and not known.is_alive:
        known.close()
        del kept[place]
    if place not in kept:
        kept[place] = connect()
    return kept[place]  # type: ignore[return-value] # one place has one kind
