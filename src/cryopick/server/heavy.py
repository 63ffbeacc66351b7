"""Work that needs the numerical library, done in a process of its own.

So the server itself stays small and answers at once; the process ends when nobody needs it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.process
import os
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cryopick.server.allocation import give_memory_back

__all__ = ["close", "elsewhere", "warm_up"]

_PATIENCE = 60.0  # s
_IDLE = 90.0  # s after which the process is ended
_lock = threading.Lock()
_pool: ProcessPoolExecutor | None = None
_used = 0.0


def elsewhere(name: str, *arguments: Any) -> Any:
    """Call a function of `heavy_fields` or a module like it in the helper process.

    Parameters
    ----------
    name
        Module of this package and function, ``heavy_fields.denoise``; it is imported there only.
    arguments
        Of the function, plain arrays and numbers.

    Raises
    ------
    CryopickError
        That the function raises.
    TimeoutError
        If it takes too long.
    """
    try:
        return _submit(name, arguments).result(timeout=_PATIENCE)
    except BrokenProcessPool:
        close()
        return _submit(name, arguments).result(timeout=_PATIENCE)


def warm_up() -> None:
    """Begin to start the helper process, if it does not run: somebody will soon ask for it."""
    if _pool is None:
        _submit("heavy_fields.nothing", ())


def _submit(name: str, arguments: tuple[Any, ...]) -> Future[Any]:
    global _pool, _used
    with _lock:
        _used = time.monotonic()
        if _pool is None:
            context = multiprocessing.get_context("spawn")
            _pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin)
        return _pool.submit(_call, name, arguments)


def close(*, if_idle: bool = False) -> None:
    """End the helper process."""
    global _pool
    with _lock:
        if _pool is None or (if_idle and time.monotonic() - _used < _IDLE):
            return
        _pool.shutdown(wait=False, cancel_futures=True)
        for helper in multiprocessing.active_children():  # it may still be loading libraries
            helper.kill()
        _pool = None


def _begin() -> None:
    """Prepare the helper process; it ends with the server, also with one that is killed."""
    give_memory_back()
    server = multiprocessing.parent_process()
    if server is not None:
        threading.Thread(target=_end_after, args=(server,), daemon=True).start()


def _end_after(server: multiprocessing.process.BaseProcess) -> None:
    server.join()
    os._exit(1)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"cryopick.server.{module}"), function)(*arguments)
