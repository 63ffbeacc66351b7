"""``cryopick serve``: a project in the browser."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryopick.cli.console import print_result, warn

if TYPE_CHECKING:
    from cryopick.server.settings import ServerSettings

__all__ = ["serve_command"]


def serve_command(
    project: Annotated[Path, typer.Argument(help="Folder of the project.")],
    *,
    port: Annotated[
        int, typer.Option(help="Where to listen; 0 takes a free port.", min=0, max=65535)
    ] = 8642,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            help="Word that opens the page, at least 16 letters; CRYOPICK_TOKEN gives it unseen "
            "by other users. Made, and kept for the project, if not given."
        ),
    ] = None,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make another: links given before end.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which browsers may call this server, beside its address."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Let nobody change anything.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Open a project in the browser: see, pick, choose, while it is worked on and afterwards.

    Prints the address with its token; whoever knows it may change the project. Ctrl-C ends it.
    """
    from cryopick.pipeline.project import Project
    from cryopick.server.listening import page_address, serve
    from cryopick.server.settings import ServerSettings, is_loopback, project_token

    with Project.open(project, writes=False) as opened:
        uuid = opened.description.uuid
    chosen = _checked(token or os.environ.get("CRYOPICK_TOKEN"))
    settings = ServerSettings(
        project=project,
        token=chosen or project_token(uuid, is_new=new_token),
        host=host,
        port=port,
        is_read_only=read_only,
        allowed_hosts=tuple(name.lower() for name in (socket.gethostname(), *(allow_host or ()))),
    )
    if not is_loopback(host):
        warn("Other machines reach this server, and nothing on the way is encrypted.")

    def say(listening: ServerSettings) -> None:
        address = page_address(listening)
        values = {"url": address, "port": listening.port, "pid": os.getpid()}
        print_result(values, [address], is_json=is_json)

    serve(settings, say=say)


def _checked(token: str | None) -> str | None:
    from cryopick.errors import ParameterError

    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise ParameterError(
            "--token",
            must="have at least 16 letters that can be typed",
            got=f"{len(token)} characters",
            remedy="Give a longer one, or none",
        )
    return token
