"""The ``cryopick`` command: the list of its subcommands, and how it ends when one fails."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from cryopick import __version__
from cryopick.cli import (  # noqa: F401 (add their commands)
    class2d_order,
    class2d_stable,
    class2d_stream,
    project_choices,
)
from cryopick.cli.class2d import class2d_app
from cryopick.cli.console import error_line, warn
from cryopick.cli.convert import convert
from cryopick.cli.ctf import ctf_app
from cryopick.cli.evaluate import evaluate_app
from cryopick.cli.extract import extract
from cryopick.cli.pick import pick_app
from cryopick.cli.project import project_app
from cryopick.cli.run import run_command
from cryopick.cli.select import select_app
from cryopick.cli.serve import serve_command
from cryopick.cli.session import session_app
from cryopick.cli.show import show_command
from cryopick.cli.simulate import simulate_app
from cryopick.cli.tomo import tomo_app
from cryopick.errors import CryopickError

__all__ = ["app", "main"]

_INTERRUPTED = 130  # how typer ends after Ctrl-C

app = typer.Typer(
    name="cryopick",
    help="From cryo-EM micrographs to clean particles and trustworthy 2D classes, unattended.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would read a unit such as [px] as markup and cut long options
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:  # noqa: FBT001 (typer passes it by place)
    if value:
        typer.echo(f"cryopick {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    if debug:
        os.environ["CRYOPICK_DEBUG"] = "1"


app.add_typer(class2d_app, name="class2d")
app.add_typer(ctf_app, name="ctf")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(pick_app, name="pick")
app.add_typer(project_app, name="project")
app.add_typer(select_app, name="select")
app.add_typer(session_app, name="session")
app.add_typer(simulate_app, name="simulate")
app.add_typer(tomo_app, name="tomo")
app.command("convert")(convert)
app.command("extract")(extract)
app.command("serve")(serve_command)
app.command("show")(show_command)
app.command("run")(run_command)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; an error the user can mend is one line on stderr and exit code 1."""
    signal.signal(signal.SIGTERM, _stop)  # what schedulers send: end as on Ctrl-C
    # threads that wait for work sleep: spinning, they took most of the CPU time
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except CryopickError as error:
        _end(error)
    except OSError as error:
        _end(
            CryopickError(
                str(error.filename or "a file"),
                must="be accessible",
                got=error.strerror or str(error),
                remedy="Check the path, its permissions and the disk",
            ),
        )
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            warn("Stopped. Finished work is kept; the same command goes on from here.")
        raise


def _end(error: CryopickError) -> None:
    if os.environ.get("CRYOPICK_DEBUG"):
        raise error
    warn(error_line(error))
    sys.exit(1)
