"""Run a command of cryopick as a person would type it, and take what it prints as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cryopick.server.answers import WrongCall

__all__ = ["environment", "program", "run_command"]

_PATIENCE = 900.0  # s
_SOME_FAILED = 3  # exit code: the result is there


def program() -> list[str]:
    """Name the program, as the system starts it."""
    return [sys.executable, "-c", "from cryopick.cli.app import main; main()"]


def environment() -> Mapping[str, str]:
    """Give a command all variables but the secret of this server."""
    return {k: v for k, v in os.environ.items() if k != "CRYOPICK_TOKEN"}


def run_command(words: Sequence[object]) -> dict[str, Any]:
    """Run a command to its end.

    Parameters
    ----------
    words
        Behind ``cryopick``; no shell reads them.

    Raises
    ------
    WrongCall
        With the sentence that the command ends with, if it fails.
    """
    done = subprocess.run(
        [*program(), *map(str, words), "--json"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode not in (0, _SOME_FAILED):
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        sentence = lines[-1] if lines else f"The command ended with {done.returncode}."
        raise WrongCall(sentence.removeprefix("Error: "))
    found = json.loads(done.stdout)
    return found if isinstance(found, dict) else {}
