"""What a person sees: a progress bar with an ETA on stderr, results on stdout, one-line errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer

from cryopick.errors import CryopickError

__all__ = [
    "EXIT_SOME_FAILED",
    "error_line",
    "print_result",
    "progress_bar",
    "share_bar",
    "warn",
]

EXIT_SOME_FAILED = 3  # the run finished, but some items were refused and are listed


@contextlib.contextmanager
def progress_bar(label: str, *, is_json: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far a loop is and when it will end.

    Parameters
    ----------
    label
        What is being done, for example "Picking".
    is_json
        Keep quiet, because the output is for a machine.

    Yields
    ------
    callable
        To be called with the number of items done and in all.
    """
    if is_json or not sys.stderr.isatty():
        yield _log_lines(label, is_quiet=is_json)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextlib.contextmanager
def share_bar(*, is_json: bool = False) -> Iterator[Callable[[str, float, str], None]]:
    """Show how far a work of several steps is, and what is known of it meanwhile.

    Parameters
    ----------
    is_json
        Keep quiet, because the output is for a machine.

    Yields
    ------
    callable
        To be called with the step, its share done from 0 to 1, and a note.
    """
    if is_json or not sys.stderr.isatty():
        yield _share_lines(is_quiet=is_json)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=10),
        TaskProgressColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bars: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(step: str, share: float, note: str) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=1.0, note=note)
            progress.update(bars[step], completed=share, note=note)

        yield report


def _share_lines(*, is_quiet: bool) -> Callable[[str, float, str], None]:
    import time

    first: dict[str, tuple[float, float]] = {}  # when a step began, and where
    last: dict[str, tuple[float, str]] = {}

    def report(step: str, share: float, note: str) -> None:
        now = time.monotonic()
        began, at = first.setdefault(step, (now, share))
        told, before = last.setdefault(step, (now, ""))
        if is_quiet or now - told < 10 or (note == before and share < 1):
            return
        last[step] = (now, note)
        left = f", ETA {(1 - share) * (now - began) / (share - at):.0f} s" if share > at else ""
        notes = f"; {note}" if note else ""
        typer.echo(f"{step}: {share:.0%} in {now - began:.0f} s{left}{notes}", err=True)

    return report


def _log_lines(label: str, *, is_quiet: bool) -> Callable[[int, int], None]:
    import time

    start = time.monotonic()
    first: list[int] = []
    last = [start]

    def report(done: int, total: int) -> None:
        first[:] = first or [done]
        now = time.monotonic()
        if is_quiet or (now - last[0] < 10 and done < total) or done == first[0]:
            return
        last[0] = now
        rate = (done - first[0]) / (now - start)
        left = f", ETA {(total - done) / rate:.0f} s" if rate and done < total else ""
        typer.echo(f"{label}: {done} of {total} in {now - start:.0f} s{left}", err=True)

    return report


def print_result(result: dict[str, Any], lines: list[str], *, is_json: bool) -> None:
    """Print the outcome of a command on stdout: JSON for machines, else sentences."""
    if is_json:
        typer.echo(json.dumps(result))
    else:
        typer.echo("\n".join(lines))


def warn(sentence: str) -> None:
    """Print a sentence on stderr."""
    typer.echo(sentence, err=True)


def error_line(error: CryopickError) -> str:
    """Write the one line that is printed for an error."""
    return f"Error: {error}"
