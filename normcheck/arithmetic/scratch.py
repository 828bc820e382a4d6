"""Scratch arrays that are used again: a fresh block-sized array costs more in page faults than a rounding does.

A buffer is free when nothing but the pool refers to it: every array handed out is a view whose base is the buffer,
so the reference count tells. Pools belong to a thread.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
_SMALL = 1 << 14
"""Bytes below which the allocator's own free lists are as good."""
_KEPT = 24
"""Buffers kept of one size; more are left to the allocator."""
_pools = threading.local()


def _free(buffers: list[Array]) -> Array | None:
    for index in range(len(buffers)):
        if sys.getrefcount(buffers[index]) <= _REFERENCES_WHEN_FREE:
            return buffers[index]
    return None


def _count_when_free() -> int:
    buffers = [np.empty(1, np.uint8)]
    return sys.getrefcount(buffers[0])


_REFERENCES_WHEN_FREE = _count_when_free()


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an uninitialised C-contiguous array, of recycled memory where it is large."""
    kind = np.dtype(dtype)
    size = kind.itemsize
    for length in shape:
        size *= length
    if size < _SMALL:
        return np.empty(shape, kind)
    pool: dict[int, list[Array]] = _pools.__dict__.setdefault("buffers", {})
    room = 1 << (size - 1).bit_length()
    buffers = pool.setdefault(room, [])
    buffer = _free(buffers)
    if buffer is None:
        buffer = np.empty(room, np.uint8)
        if len(buffers) < _KEPT:
            buffers.append(buffer)
    out: Array = buffer[:size].view(kind).reshape(shape)
    return out
