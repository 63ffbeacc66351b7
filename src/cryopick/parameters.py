"""The one parameter mechanism: a frozen dataclass whose fields know their unit, range and help.

A method declares its parameters once. The command-line options, the job records, the tables
in the docs and, later, the web form are all derived from that declaration.

Examples
--------
>>> @dataclass(frozen=True, kw_only=True)
... class Example(Parameters):
...     box_size: int = option(128, help="Side of a particle image.", unit="px", minimum=2)
>>> Example(box_size=64).to_dict()
{'box_size': 64}
>>> Example(box_size=1)
Traceback (most recent call last):
    ...
cryopick.errors.ParameterError: box_size must be at least 2 px; got 1 px. Change --box-size.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, Self, Union, get_args, get_origin

from cryopick.errors import ParameterError

__all__ = ["ParameterDescription", "Parameters", "describe", "option"]


def option(
    default: Any = MISSING,
    *,
    help: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    even: bool = False,
) -> Any:
    """Declare one parameter of a method.

    Parameters
    ----------
    default
        The shipped value; without one the user must give it.
    help
        One sentence in the user's words.
    unit
        Unit of the value: A, px, deg, kV, mm, %.
    minimum, maximum
        Closed limits.
    above, below
        Open limits.
    even
        The value must be an even number.

    Returns
    -------
    Any
        A dataclass field.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "even": even,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class ParameterDescription:
    """What is known of one parameter: all that a form, a page or an option needs."""

    name: str
    annotation: Any  # the resolved type hint
    default: Any  # dataclasses.MISSING where the user must give a value
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    above: float | None
    below: float | None
    even: bool

    @property
    def flag(self) -> str:
        """The command-line option, for example ``--box-size``."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        """Whether the user must give a value."""
        return self.default is MISSING

    @property
    def base_type(self) -> Any:
        """The type hint without ``| None``."""
        if get_origin(self.annotation) in (Union, types.UnionType):
            rest = [a for a in get_args(self.annotation) if a is not type(None)]
            return rest[0] if len(rest) == 1 else self.annotation
        return self.annotation

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a ``Literal``; empty for every other type."""
        return get_args(self.base_type) if get_origin(self.base_type) is Literal else ()


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Base of all parameter dataclasses: checks every value when it is made."""

    def __post_init__(self) -> None:
        for description in describe(type(self)):
            value = getattr(self, description.name)
            values = value if isinstance(value, tuple) else (value,)
            for single in values:
                _check(description, single)
        self.check_together()

    def check_together(self) -> None:
        """Check rules that join several fields; a subclass overrides this.

        Raises
        ------
        ParameterError
            If two values contradict each other.
        """

    def to_dict(self) -> dict[str, Any]:
        """All values by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the parameters from stored values.

        Raises
        ------
        ParameterError
            If a name is unknown or a value is out of range.
        """
        known = {d.name: d for d in describe(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ParameterError(
                unknown[0],
                must=f"be a parameter of {cls.__name__}",
                got="an unknown name",
                remedy=f"Known are {', '.join(known)}",
            )
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def describe(cls: type[Parameters]) -> tuple[ParameterDescription, ...]:
    """List the parameters of a method in the order they were declared."""
    hints = typing.get_type_hints(cls)
    return tuple(
        ParameterDescription(name=f.name, annotation=hints[f.name], default=f.default, **f.metadata)
        for f in dataclasses.fields(cls)
    )


def _check(description: ParameterDescription, value: Any) -> None:
    if description.choices and value is not None and value not in description.choices:
        _refuse(description, "be one of " + ", ".join(description.choices), value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    unit = f" {description.unit}" if description.unit else ""
    number = float(value)
    if math.isnan(number):
        _refuse(description, "be a number", value)
    if description.minimum is not None and number < description.minimum:
        _refuse(description, f"be at least {description.minimum:g}{unit}", value)
    if description.maximum is not None and number > description.maximum:
        _refuse(description, f"be at most {description.maximum:g}{unit}", value)
    if description.above is not None and not number > description.above:
        _refuse(description, f"be above {description.above:g}{unit}", value)
    if description.below is not None and not number < description.below:
        _refuse(description, f"be below {description.below:g}{unit}", value)
    if description.even and number % 2:
        _refuse(description, "be an even number", value, f"Try {int(number) + 1}")


def _refuse(description: ParameterDescription, must: str, value: Any, remedy: str = "") -> None:
    unit = f" {description.unit}" if description.unit and isinstance(value, int | float) else ""
    raise ParameterError(
        description.name,
        must=must,
        got=f"{value}{unit}",
        remedy=remedy or f"Change {description.flag}",
    )
