"""How much memory a call holds."""

from __future__ import annotations

import tracemalloc


def peak_of(make):
    """Return the bytes that were held at most while `make` ran, beyond what was held before, and what it made."""
    make()  # what is kept for later runs is not of this one
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        return tracemalloc.get_traced_memory()[1] - before, made
    finally:
        tracemalloc.stop()
