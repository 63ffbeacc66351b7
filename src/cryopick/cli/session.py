"""``cryopick session``: work on micrographs while the microscope writes them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cryopick.cli.console import EXIT_SOME_FAILED, print_result, share_bar, warn
from cryopick.cli.options import expand_parameters
from cryopick.errors import ParameterError, ProjectError
from cryopick.execution.parameters import ComputeParameters
from cryopick.pipeline.run_parameters import RunParameters
from cryopick.pipeline.session_parameters import SessionParameters

__all__ = ["session_app"]

session_app = typer.Typer(
    help="Work on micrographs while the microscope writes them.", no_args_is_help=True
)

_PATIENCE = 120.0  # s for a session to end that was asked to
Folder = Annotated[Path, typer.Argument(help="Folder of the project.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@session_app.command("start")
@expand_parameters
def start(
    micrographs: Annotated[
        list[str] | None,
        typer.Argument(
            help="A folder, patterns, a CSV list, or a STAR file, all of which may grow; as before "
            "if not given."
        ),
    ] = None,
    *,
    project: Annotated[Path, typer.Option(help="Folder of the project.")],
    session: SessionParameters,
    parameters: RunParameters,
    pixel_size: Annotated[
        float | None,
        typer.Option(help="Of the micrographs, instead of what table or headers say. [A]"),
    ] = None,
    compute: ComputeParameters,
    background: Annotated[
        bool,
        typer.Option(
            "--background", help="Go on when this terminal closes; what is said goes to a file."
        ),
    ] = False,
    is_json: Json = False,
) -> None:
    """Watch for micrographs, and do with each what `run` does.

    A file is taken when it is complete. Killed at any time, the same command goes on. The session
    works until it is stopped, or closes after --idle minutes; its last pass is that of `run`.
    Exit code 3 says that some micrographs were refused.
    """
    if background:  # before anything is loaded
        _start_apart(project)
        return
    from cryopick.pipeline.session import run_session
    from cryopick.pipeline.session_settings import SessionRequest

    request = SessionRequest(
        inputs=_inputs(micrographs or [], project),
        parameters=parameters,
        session=session,
        compute=compute,
        pixel_size=pixel_size,
    )
    with share_bar(is_json=is_json) as progress:
        ended = run_session(
            project,
            request,
            progress=progress,
            say=(lambda _: None) if is_json else warn,
        )
    counts = ended.counts
    result = None if ended.result is None else ended.result.to_dict()
    line = f"{counts['listed']:,} micrographs, {counts['particles']:,} particles."
    print_result(
        {"folder": str(ended.folder), "counts": counts, "result": result}, [line], is_json=is_json
    )
    if ended.result is not None and ended.result.halted is not None:
        raise ended.result.halted.error
    if counts["failed"]:
        raise typer.Exit(EXIT_SOME_FAILED)


def _start_apart(project: Path) -> None:
    """Give the same command to a process that no terminal owns, and see it begin."""
    words = [word for word in sys.argv[1:] if word != "--background"]
    log = project.with_name(f"{project.name}_session.txt")
    program = "from cryopick.cli.app import main; main()"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as handle:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if _manager(project) == process.pid:
            typer.echo(f"Process {process.pid} works on {project}; it says how in {log}.")
            return
        time.sleep(0.1)
    lines = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
    raise ProjectError(
        "the session", must="begin", got=lines[-1].rstrip("."), remedy=f"Look at {log}"
    )


def _inputs(given: list[str], project: Path) -> tuple[str, ...]:
    """Take what was watched before where nothing is given."""
    from cryopick.pipeline.session_layout import SETTINGS, read_settings, session_folder

    if given:
        stars = [name for name in given if name.endswith(".star")]
        if stars and len(given) > 1:
            raise ParameterError(
                "MICROGRAPHS",
                must="be one STAR file, or folders, patterns and lists",
                got=f"{len(given)} inputs with {len(stars)} STAR files",
                remedy="Give one STAR file",
            )
        return tuple(given)
    if not (session_folder(project) / SETTINGS).exists():
        return ()
    return tuple(read_settings(project)["inputs"])


@session_app.command("status")
def status(project: Folder, *, is_json: Json = False) -> None:
    """Say where a session stands."""
    from cryopick.pipeline.session_layout import read_status

    found = read_status(project)
    print_result(found, _lines(found), is_json=is_json)


@session_app.command("stop")
def stop(
    project: Folder,
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="First do what waits, and the last pass, as `run`.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Come back when it has ended.")
    ] = True,
    is_json: Json = False,
) -> None:
    """End a session; what is finished is kept, and start goes on from there."""
    from cryopick.pipeline.session_layout import ask, remove_request

    _require_running(project)
    request = ask(project, "stop", finish=finish)
    is_over = not wait or _wait_for_end(project, None if finish else _PATIENCE)
    if not is_over:
        remove_request(request)
        raise ProjectError(
            str(project),
            must="be given back by its session",
            got=f"nothing for {_PATIENCE:.0f} s",
            remedy="Look at: cryopick session status",
        )
    said = "Stopped." if wait else "The session was asked to stop."
    print_result({"stopped": wait}, [said], is_json=is_json)


@session_app.command("pause")
def pause(project: Folder) -> None:
    """Begin no new work; micrographs are still taken."""
    _ask(project, "pause", "Paused; go on with: cryopick session resume.")


@session_app.command("resume")
def resume(project: Folder) -> None:
    """Go on after a pause."""
    _ask(project, "resume", "Going on.")


@session_app.command("retry")
def retry(project: Folder) -> None:
    """Try again what was refused or broke."""
    _ask(project, "retry", "What was refused is tried again.")


@session_app.command("add")
def add(
    project: Folder,
    files: Annotated[list[str], typer.Argument(help="Images.")],
) -> None:
    """Give a session micrographs that lie elsewhere."""
    for name in files:
        _ask(project, "add", f"{name} is taken when it is complete.", path=name)


@session_app.command("reject")
def reject(
    project: Folder,
    quantity: Annotated[
        str | None, typer.Argument(help="Column of the fields, such as ctf_resolution or picks.")
    ] = None,
    *,
    below: Annotated[float | None, typer.Option(help="Reject lower values.")] = None,
    above: Annotated[float | None, typer.Option(help="Reject higher values.")] = None,
    micrograph: Annotated[
        list[str] | None, typer.Option(help="Reject this micrograph, whatever its values.")
    ] = None,
) -> None:
    """Leave micrographs out of the classes; their results stay, and they can come back."""
    from cryopick.pipeline.field_choices import set_ticks

    if micrograph:
        set_ticks(project, micrograph, "rejected")
    if quantity is not None:
        if below is None and above is None:
            raise ParameterError(
                f"the limits of {quantity}",
                must="be given",
                got="none",
                remedy="Give --below, --above or both",
            )
        _limit(project, quantity, (below, above))
    elif not micrograph:
        raise ParameterError(
            "what to reject",
            must="be a quantity or a micrograph",
            got="neither",
            remedy="Give a quantity, or --micrograph",
        )
    _say_rejected(project)


@session_app.command("accept")
def accept(
    project: Folder,
    quantity: Annotated[
        str | None, typer.Argument(help="Take back the limits of this column.")
    ] = None,
    *,
    micrograph: Annotated[
        list[str] | None, typer.Option(help="Accept this micrograph, whatever its values.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Take back all limits.")] = False,
) -> None:
    """Let micrographs back into the classes."""
    from cryopick.pipeline.field_choices import set_limits, set_ticks

    if micrograph:
        set_ticks(project, micrograph, "accepted")
    if everything:
        set_limits(project, {})
    elif quantity is not None:
        _limit(project, quantity, (None, None))
    elif not micrograph:
        raise ParameterError(
            "what to accept",
            must="be a quantity or a micrograph",
            got="neither",
            remedy="Give a quantity, --micrograph or --all",
        )
    _say_rejected(project)


def _limit(project: Path, quantity: str, bounds: tuple[float | None, float | None]) -> None:
    from cryopick.pipeline.field_choices import read_choices, set_limits

    limits = {**read_choices(project).limits, quantity: bounds}
    set_limits(project, limits)


def _say_rejected(project: Path) -> None:
    from cryopick.pipeline.field_choices import judge_fields, read_choices
    from cryopick.pipeline.field_table import FieldTable

    fields = FieldTable(project=project)
    fields.refresh()
    states = judge_fields(fields, read_choices(project), tells_why=False)
    typer.echo(f"{int(states.is_accepted.sum()):,} of {len(fields):,} micrographs are accepted.")


def _ask(project: Path, what: str, said: str, **values: Any) -> None:
    from cryopick.pipeline.session_layout import ask

    ask(project, what, **values)
    typer.echo(said)


def _manager(project: Path) -> int:
    """Tell the number of the process that the status is of; 0 before there is one."""
    from cryopick.pipeline.session_layout import read_status

    try:
        return int((read_status(project).get("manager") or {}).get("pid") or 0)
    except ProjectError:
        return 0


def _holder(project: Path) -> str:
    """Say who manages the project; empty if nobody seems to."""
    from cryopick.pipeline.project_holder import read_holder, this_place
    from cryopick.pipeline.project_layout import LOCK

    found = read_holder(project / LOCK)
    if found is None or (this_place().sees(found) and not found.is_alive):
        return ""
    return str(found)


def _require_running(project: Path) -> None:
    from cryopick.pipeline.session_layout import read_settings

    read_settings(project)
    if not _holder(project):
        raise ProjectError(
            str(project),
            must="have a session that runs",
            got="none",
            remedy="Start it with: cryopick session start",
        )


def _wait_for_end(project: Path, patience: float | None) -> bool:
    until = None if patience is None else time.monotonic() + patience
    while _holder(project):
        if until is not None and time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _lines(found: dict[str, Any]) -> list[str]:
    """Say for people where a session stands."""
    if not found:
        return ["The session has not begun."]
    counts, latency = found.get("counts") or {}, found.get("latency") or {}
    age = time.time() - found["written"]
    is_silent = found["state"] not in ("stopped", "failed") and age > 30
    state = f"killed {age / 60:.0f} min ago" if is_silent else found["state"]
    lines = [f"{state}: {found.get('sentence', '')}"]
    if counts:
        rate = (found.get("rates") or {}).get("extracted")
        eta = (found.get("eta") or {}).get("seconds")
        lines.append(
            f"CTF {counts['measured']:,}, picked {counts['picked']:,}, extracted "
            f"{counts['extracted']:,}, refused {counts['failed']:,}, rejected "
            f"{counts['rejected']:,}; {counts['picks']:,} picks"
            + (f"; {rate:,.0f} an hour" if rate else "")
            + (f"; {eta:,.0f} s left" if eta else "")
        )
    if latency.get("n"):
        lines.append(f"From file to picks: {latency['median']:.1f} s (median).")
    for step in found.get("steps") or ():
        if step["state"] in ("running", "failed"):
            said = step["error"] or f"{step['share']:.0%} {step['note']}".rstrip()
            lines.append(f"{step['name']} {step['state']}: {said}")
    classes = found.get("classes")
    if classes:
        good = "" if classes["n_good"] is None else f", {classes['n_good']} good"
        lines.append(
            f"Live classes, round {classes['round']}: {classes['n_particles']:,} particles in "
            f"{classes['n_classes']} classes{good}; {classes['resolution']:.1f} A."
        )
    for wait in (found.get("waits") or ())[:5]:
        lines.append(f"Waits: {wait['name']}: {wait['why']}")
    for failure in (found.get("failures") or ())[-5:]:
        lines.append(f"Refused: {failure['name'] or failure['step']}: {failure['reason']}")
    return lines
