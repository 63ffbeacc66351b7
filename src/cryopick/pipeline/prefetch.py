"""Do the next steps in a background thread while the caller works on the present one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["prefetched"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Generator[Result, None, None]:
    """Map a function over items in order, up to `ahead` results before they are asked for.

    An error is raised where its result would have come. When the caller stops early, what is
    under way is finished and the rest is left. Besides the result that the caller holds there are
    never more than `ahead`.

    Parameters
    ----------
    function
        Called in one other thread; in the caller's if `ahead` is 0.
    items
        What to call it with.
    ahead
        Results made in advance.

    Examples
    --------
    >>> list(prefetched(abs, [-1, 2, -3], ahead=1))
    [1, 2, 3]
    """
    if ahead < 1:
        yield from map(function, items)
        return
    waiting = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(waiting, ahead)
        )
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
