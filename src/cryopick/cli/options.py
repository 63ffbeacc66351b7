"""Turn parameter dataclasses into command-line options, so that nothing is written twice.

A command is a typed function; every argument whose type is a `Parameters` subclass is replaced
by one option per field, with its default, unit, range and help, and handed over filled in.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import MISSING
from enum import Enum
from typing import Annotated, Any

import typer

from cryopick.parameters import ParameterDescription, Parameters, describe

__all__ = ["expand_parameters"]


def expand_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command so that its `Parameters` arguments become options.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from cryopick.parameters import option
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Example(Parameters):
    ...     box_size: int = option(128, help="Side of a particle image.", unit="px")
    >>> def extract(name: str, *, parameters: Example) -> None:
    ...     pass
    >>> list(inspect.signature(expand_parameters(extract)).parameters)
    ['name', 'box_size']
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, type[Parameters]] = {}
    plain: list[inspect.Parameter] = []
    expanded: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if inspect.isclass(hint) and issubclass(hint, Parameters):
            groups[parameter.name] = hint
            expanded.extend(_as_option(d, hint) for d in describe(hint))
        else:
            plain.append(parameter.replace(annotation=hint))

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        filled: dict[str, Any] = {}
        for name, cls in groups.items():
            taken = {d.name: _plain_value(values.pop(d.name)) for d in describe(cls)}
            filled[name] = cls(**taken)
        command(**values, **filled)

    required = [p for p in expanded if p.default is inspect.Parameter.empty]
    optional = [p for p in expanded if p.default is not inspect.Parameter.empty]
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in plain]
    signature = inspect.Signature([*own, *required, *optional])
    wrapper.__signature__ = signature  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return wrapper


def _as_option(description: ParameterDescription, group: type[Parameters]) -> inspect.Parameter:
    annotation: Any = description.annotation
    if description.choices:
        make_enum: Any = Enum  # mypy wants a literal name, which a field cannot give
        words = make_enum(description.name, {c: c for c in description.choices}, type=str)
        annotation = words
        if description.default is None:
            annotation = annotation | None
    elif typing.get_origin(description.base_type) is tuple:
        annotation = list[typing.get_args(description.base_type)[0]]  # type: ignore[misc]
    unit = f" [{description.unit}]" if description.unit else ""
    panel = (group.__doc__ or group.__name__).splitlines()[0].rstrip(".")
    if description.base_type is bool:
        flags = f"{description.flag}/--no-{description.flag.removeprefix('--')}"
        info = typer.Option(flags, help=description.help, rich_help_panel=panel)
    else:
        info = typer.Option(description.flag, help=description.help + unit, rich_help_panel=panel)
    default = inspect.Parameter.empty if description.default is MISSING else description.default
    return inspect.Parameter(
        description.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[annotation, info],
    )


def _plain_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return tuple(value) if isinstance(value, list) else value
