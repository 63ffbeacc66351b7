"""Sentences of the commands that a run is made of, in words that are right for a run.

What a step raises was written for the command that does this step alone, and may name an option
that `cryopick run` does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cryopick.errors import CryopickError
from cryopick.execution.parameters import ComputeParameters
from cryopick.parameters import describe
from cryopick.pipeline.run_parameters import RunParameters

__all__ = ["reword", "reword_error"]

_OPTION = re.compile(r"(?<![\w./-])--([a-z][a-z-]*[a-z])(?![\w./-])( \d[\d.]*)?")
_GROUPS = (RunParameters, ComputeParameters)
_OTHERS = frozenset(("out", "pixel-size", "json"))  # of `run`, beside its parameters
_PICKERS = {
    "network": "pick network",
    "general": "pick network",
    "topaz": "pick topaz pick",
    "template": "pick template",
}
_COMMANDS = {
    "ctf": "ctf estimate",
    "diameter": "pick blob",
    "first_particles": "extract",
    "first_classes": "class2d em",
    "first_selection": "select classes",
    "blob_picks": "pick blob",
    "log_picks": "pick log",
    "general_picks": "pick network",
    "topaz_picks": "pick topaz pick",
    "consensus": "pick consensus",
    "particles": "extract",
    "classes": "class2d em",
    "selection": "select classes",
}
_WORDS: Mapping[str, Mapping[str, str]] = {  # by step; what a run calls by another name
    "first_particles": {
        "Pick again with a lower threshold": "Look at the micrographs; change the diameters",
    },
    "first_classes": {"--classes": "--first-classes", "--ctf none": "--ctf ignore"},
    "training": {"--micrographs": "MICROGRAPHS"},
    "particles": {
        "--minimum-fom": "--threshold",
        "Pick again with a lower threshold": "Look at the picks in the report; choose another "
        "--picker or other diameters",
    },
    "classes": {"--ctf none": "--ctf ignore"},
}


def reword(text: str, *, step: str, parameters: RunParameters) -> str:
    """Say of each option that a run lacks which command takes it.

    Parameters
    ----------
    text
        A sentence, or a part of one, that a step has raised.
    step
        Its name.
    parameters
        Of the run.

    Examples
    --------
    >>> text = "Lower --max-defocus or leave the micrograph out"
    >>> reword(text, step="ctf", parameters=RunParameters())
    'Lower --max-defocus of `cryopick ctf estimate` or leave the micrograph out'
    """
    for word, other in _WORDS.get(step, {}).items():
        text = text.replace(word, other)
    command = f" of `cryopick {_command(step, parameters)}`"
    ours = {d.flag.removeprefix("--") for c in _GROUPS for d in describe(c)} | _OTHERS

    def named(found: re.Match[str]) -> str:
        is_told = "cryopick " in text[: found.start()] or text.startswith(command, found.end())
        is_ours = found[1].removeprefix("no-") in ours
        return found[0] if is_ours or is_told else found[0] + command

    return _OPTION.sub(named, text)


def reword_error(error: CryopickError, *, step: str, parameters: RunParameters) -> None:
    """Do so in the parts of an error.

    Parameters
    ----------
    error
        That a step has raised; it is changed.
    step
        Its name.
    parameters
        Of the run.
    """
    for part in ("must", "got", "remedy"):
        setattr(error, part, reword(getattr(error, part), step=step, parameters=parameters))


def _command(step: str, parameters: RunParameters) -> str:
    """Name the command that does a step alone."""
    if step == "first_picks":
        return f"pick {parameters.first_picker}"
    if step == "training":
        return "pick topaz train" if parameters.picker == "topaz" else "pick train"
    return _COMMANDS.get(step) or _PICKERS[parameters.picker]
