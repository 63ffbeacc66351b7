"""Write docs/options.md: every option of every command, from the parameter classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cryopick.cli.app import app
from cryopick.parameters import ParameterDescription, Parameters, describe

_PAGE = Path(__file__).parents[1] / "docs" / "options.md"
_HEAD = """# Options of every command

Written from the parameter classes in the source by `python scripts/make_options_page.py`; not to be
edited by hand. `--no-...` turns a switch off; "-" as a default means: not given.
"""
_TABLE = ("| option | default | unit | allowed | meaning |", "|---|---|---|---|---|")


def main() -> None:
    """Write the page."""
    _PAGE.write_text(options_page())


def options_page() -> str:
    """Compose the page."""
    known = _known_parameters()
    parts = [_HEAD.rstrip()]
    for name, command in _commands(typer.main.get_command(app), "cryopick"):
        parts += ["", f"## {name}", "", _first_sentence(command.help or ""), ""]
        parts += _table(command, known)
    return "\n".join(parts) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Walk the tree of commands in alphabetical order."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for child in sorted(command.commands):
        yield from _commands(command.commands[child], f"{name} {child}")


def _known_parameters() -> dict[tuple[str, str], ParameterDescription]:
    """All declared parameters, by the title of their group and their name."""
    classes = [c for c in Parameters.__subclasses__() if c.__module__.startswith("cryopick.")]
    return {(_title(cls), one.name): one for cls in classes for one in describe(cls)}


def _title(cls: type[Parameters]) -> str:
    return (cls.__doc__ or "").splitlines()[0].rstrip(".")


def _table(command: Any, known: dict[tuple[str, str], ParameterDescription]) -> list[str]:
    """One table of arguments and plain options, and one for each group of parameters."""
    groups: dict[str, list[str]] = {"": []}
    for option in command.params:
        title = getattr(option, "rich_help_panel", None) or ""
        declared = known.get((title, option.name))
        row = _plain_row(option) if declared is None else _declared_row(option, declared)
        groups.setdefault(title, []).append(row)
    lines: list[str] = []
    for title, rows in groups.items():
        lines += [f"**{title}**", ""] if title else []
        lines += [*_TABLE, *rows, ""]
    return lines[:-1]


def _plain_row(option: Any) -> str:
    is_argument = option.param_type_name == "argument"
    name = option.name.upper() if is_argument else ", ".join(option.opts)
    default = "required" if option.required else _shown(option.default)
    text = _cell(option.help or "")
    unit = "A" if text.endswith(" [A]") else ""
    return f"| `{name}` | {default} | {unit} | | {text.removesuffix(' [A]')} |"


def _declared_row(option: Any, declared: ParameterDescription) -> str:
    flags = ", ".join([*option.opts, *option.secondary_opts])
    default = "required" if declared.is_required else _shown(declared.default)
    cells = [f"`{flags}`", default, declared.unit, _allowed(declared), _cell(declared.help)]
    return f"| {' | '.join(cells)} |"


def _allowed(declared: ParameterDescription) -> str:
    if declared.choices:
        return ", ".join(declared.choices)
    limits = [
        f"{sign} {limit:g}"
        for sign, limit in (
            ("≥", declared.minimum),
            (">", declared.above),
            ("≤", declared.maximum),
            ("<", declared.below),
        )
        if limit is not None
    ]
    if declared.even:
        limits.append("even")
    return ", ".join(limits)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if default is None or default == "":
        return "-"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    main()
