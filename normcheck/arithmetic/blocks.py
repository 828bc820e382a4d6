"""How a mean of means cuts its terms into blocks, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Level = tuple["NDArray[np.int64]", "NDArray[np.float64] | None"]
"""Sizes of the blocks, and what each term is multiplied by; None where it is divided by the size of its block."""


def block_sizes(n: int, largest: int) -> NDArray[np.int64]:
    """Return the sizes of the blocks that n elements are cut into.

    Equal where a divisor of n allows it with at most twice as many blocks as needed; else nearly equal, larger first.
    """
    fewest = -(-n // largest)
    count = next((c for c in range(fewest, min(2 * fewest, n - 1) + 1) if n % c == 0), fewest)
    small, larger = divmod(n, count)
    return np.repeat(np.array([small + 1, small], np.int64), [larger, count - larger])


def block_levels(n: int, largest: int) -> Iterator[Level]:
    """Yield the levels of a mean of means of n elements in blocks of at most `largest`, the elements' own first.

    The terms of a further level are the means of the one before. Where they stand for different numbers of elements,
    or go into blocks of different sizes, each has its share of the block's elements as its weight.
    """
    sizes = block_sizes(n, largest)
    yield sizes, None
    elements = sizes.astype(np.float64)
    while len(elements) > 1:
        sizes = block_sizes(len(elements), largest)
        totals = np.add.reduceat(elements, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        equal = bool(np.all(elements == elements[0])) and bool(np.all(sizes == sizes[0]))
        yield sizes, None if equal else elements / np.repeat(totals, sizes)
        elements = totals
