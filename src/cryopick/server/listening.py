"""Listen on an address until somebody stops the server."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace

import uvicorn

from cryopick.errors import ParameterError
from cryopick.server.allocation import give_memory_back
from cryopick.server.application import make_application
from cryopick.server.settings import ServerSettings

__all__ = ["page_address", "serve"]

_LARGEST_HEAD = 16 << 10  # bytes of request line and headers
_MOST_CONNECTIONS = 200


def serve(settings: ServerSettings, *, say: Callable[[ServerSettings], None]) -> None:
    """Serve a project until SIGINT or SIGTERM.

    Parameters
    ----------
    settings
        Port 0 takes a free one.
    say
        Called with the settings, the port filled in, when connections are taken.

    Raises
    ------
    ProjectError
        If the folder is no project.
    ParameterError
        If the address cannot be listened on.
    """
    give_memory_back()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    with _listen(settings) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        config = uvicorn.Config(
            make_application(settings),
            http="h11",
            loop="asyncio",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        say(settings)
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def page_address(settings: ServerSettings) -> str:
    """Write the address that opens the page."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}/?token={settings.token}"


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's delay off, 40 ms for each answer, if the protocol is named
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ParameterError(
            f"{settings.host}, port {settings.port},",
            must="be free to listen on",
            got=error.strerror or str(error),
            remedy="Choose another --port, or 0 for any that is free",
        ) from error
    return listening
