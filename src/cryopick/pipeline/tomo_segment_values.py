"""Values of a YAML file, checked by type: each refusal is one sentence."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from cryopick.errors import ParameterError
from cryopick.parameters import Parameters, describe

__all__ = ["filled", "list_of", "mapping_of", "refuse_unknown", "require_some", "typed"]

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
Filled = typing.TypeVar("Filled", bound=Parameters)


def filled(cls: type[Filled], values: Mapping[str, Any]) -> Filled:
    """Make parameters from values whose types are checked, as YAML may hold anything."""
    checked: dict[str, Any] = {}
    for description in describe(cls):
        if description.name not in values:
            continue
        value = values[description.name]
        if typing.get_origin(description.base_type) is tuple:
            items = value if isinstance(value, list | tuple) else [value]
            checked[description.name] = tuple(typed(description.name, v, int) for v in items)
        elif value is None and description.default is None:
            checked[description.name] = None
        else:
            kind = str if description.choices else description.base_type
            checked[description.name] = typed(description.name, value, kind)
    return cls(**checked)


def typed(name: str, value: Any, kind: type) -> Any:
    """Refuse a value of another type; a whole number is a number."""
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a data set may be called 10301
    if not is_right:
        raise ParameterError(
            name, must=f"be {_WORDS[kind]}", got=repr(value), remedy="Change it in the YAML file"
        )
    return value


def mapping_of(value: Any, what: str) -> dict[str, Any]:
    """Take a value for keys with values, or refuse it."""
    if not isinstance(value, dict):
        raise ParameterError(
            what, must="be keys with values", got=repr(value)[:60], remedy="Write key: value"
        )
    return {str(k): v for k, v in value.items()}


def list_of(name: str, value: Any) -> list[Any]:
    """Take a value for a list, or refuse it."""
    if not isinstance(value, list | tuple):
        raise ParameterError(
            name, must="be a list", got=repr(value)[:60], remedy="Put it in square brackets"
        )
    return list(value)


def refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse keys that are not known, naming those that are."""
    unknown = sorted(set(values) - known)
    if unknown:
        raise ParameterError(
            unknown[0],
            must=f"be a key that {where} knows",
            got="an unknown key",
            remedy=f"Known are {', '.join(sorted(known))}",
        )


def require_some(values: Sequence[Any], name: str, what: str) -> None:
    """Refuse an empty list."""
    if not values:
        raise ParameterError(name, must=f"name {what}", got="none", remedy="Add one")
