"""Tensors that lie in others' fields, on another device."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor

__all__ = ["Movable", "moved"]

Value = TypeVar("Value")


@runtime_checkable
class Movable(Protocol):
    """What knows by itself which of its tensors belong on a device."""

    def on(self, device: str) -> Self:
        """Copy it to a device."""
        ...


def moved(value: Value, device: str) -> Value:
    """Copy a value to a device, with all tensors in it.

    Parameters
    ----------
    value
        A tensor, what is `Movable`, a dataclass of these and of such dataclasses, or a list or
        tuple of them. Anything else is given back as it is.
    device
        Where to.
    """
    found: Any = value
    if isinstance(value, Tensor):
        found = value.to(device)
    elif isinstance(value, Movable):
        found = value.on(device)
    elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        found = type(value)([moved(one, device) for one in value])
    elif is_dataclass(value) and not isinstance(value, type):
        before = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        after = {name: moved(one, device) for name, one in before.items()}
        changed = {name: one for name, one in after.items() if one is not before[name]}
        found = replace(value, **changed) if changed else value
    return found  # type: ignore[no-any-return]
