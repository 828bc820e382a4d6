"""Work on several threads whose results come in order, so that their number changes nothing."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

T = TypeVar("T")
U = TypeVar("U")


def in_order(function: Callable[[U], T], items: Sequence[U], jobs: int | None) -> Iterator[T]:
    """Yield the function of every item, computed on `jobs` threads: all processors unless given.

    Only a few results wait at a time, so that memory stays bounded, and nothing more is begun once nobody asks.
    """
    workers = min(jobs or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
