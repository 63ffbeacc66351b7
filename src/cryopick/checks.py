"""Checks at the public door, one wording each."""

from __future__ import annotations

from typing import Protocol

from cryopick.errors import ParameterError, ShapeError

__all__ = ["require_above", "require_even", "require_shape"]


class _HasShape(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def require_shape(array: _HasShape, axes: str, *, name: str) -> None:
    """Refuse an array whose axes differ from `axes`.

    Parameters
    ----------
    array
        Anything with a ``shape``.
    axes
        Names or numbers separated by spaces, for example ``"n 2"``; a leading ``...``
        stands for any number of batch axes, and a name used twice must have one length.
    name
        What the user calls the array.

    Raises
    ------
    ShapeError
        If the number of axes or a fixed length differs.
    """
    wanted = axes.split()
    shape = tuple(array.shape)
    tail = wanted[1:] if wanted and wanted[0] == "..." else wanted
    fits = len(shape) >= len(tail) if tail is not wanted else len(shape) == len(tail)
    seen: dict[str, int] = {}
    if fits and tail:
        for axis, length in zip(tail, shape[-len(tail) :], strict=True):
            expected = int(axis) if axis.isdigit() else seen.setdefault(axis, length)
            fits = fits and expected == length
    if not fits:
        raise ShapeError(
            name,
            must=f"have shape ({', '.join(wanted)})",
            got=f"({', '.join(map(str, shape))})",
            remedy="Reshape the array",
        )


def require_even(value: int, *, name: str, unit: str = "px") -> None:
    """Refuse a number that is odd or below 2.

    Raises
    ------
    ParameterError
        If `value` is odd or below 2.
    """
    if value < 2 or value % 2:
        nearest = max(2, value + value % 2)
        raise ParameterError(
            name, must="be an even number", got=f"{value} {unit}", remedy=f"Try {nearest}"
        )


def require_above(value: float, limit: float, *, name: str, unit: str = "") -> None:
    """Refuse a number that is not above `limit` (NaN is refused too).

    Raises
    ------
    ParameterError
        If `value` is not above `limit`.
    """
    if not value > limit:
        raise ParameterError(
            name,
            must=f"be above {limit:g} {unit}".rstrip(),
            got=f"{value:g} {unit}".rstrip(),
            remedy="Give a larger number",
        )
