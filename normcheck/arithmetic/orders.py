"""Orders of summation: how a sum of n terms is associated. Data only; the kernels are in `sums`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from normcheck.errors import UsageError, unknown_name

Kind = Literal["sequential", "pairwise", "lanes", "tree", "blocks", "kahan"]
Merge = Literal["tree", "serial"]


@dataclass(frozen=True, slots=True)
class Order:
    """How a sum is associated.

    Attributes:
        kind: one of ``ORDERS``.
        width: lanes W, or largest block B; 0 for the orders that have none.
        merge: how the partial sums of lanes are added up.
    """

    kind: Kind
    width: int = 0
    merge: Merge = "tree"

    @property
    def is_mean(self) -> bool:
        """Whether the order yields the mean itself: nothing grows with n, and n never appears as a number."""
        return self.kind == "blocks"

    def __str__(self) -> str:
        inside = ", ".join([str(self.width)] * bool(self.width) + ["serial"] * (self.merge == "serial"))
        return f"{self.kind}({inside})" if inside else self.kind


ORDERS: dict[Kind, str] = {
    "sequential": "one accumulator, from zero, element after element",
    "pairwise": "neighbours are added, then neighbouring sums, level by level (Higham 1993)",
    "lanes": "element i goes to lane i mod W, each lane sequential from zero; lanes merged by a tree or serially",
    "tree": "element i and element i + h are added, h halving from the largest power of two below n",
    "blocks": "mean of means: blocks of at most B elements, each term divided by the block's length before a tree "
    "adds them, then the blocks' means in the same way until one is left",
    "kahan": "sequential with Kahan's compensation, every operation rounded",
}

DEFAULT_LANES, DEFAULT_BLOCK = 32, 64
_TEXT = re.compile(r"([a-z]+)(?:\(\s*([0-9]*)\s*,?\s*(tree|serial)?\s*\))?")


def order_named(text: str) -> Order:
    """Parse ``sequential``, ``pairwise``, ``tree``, ``kahan``, ``lanes(32)``, ``lanes(8, serial)`` or ``blocks(64)``.

    Raises:
        UsageError: unknown name, or arguments that the order does not take.
    """
    match = _TEXT.fullmatch(text.strip().lower())
    if match is None or match[1] not in ORDERS:
        raise unknown_name("order", text, ORDERS, "normcheck simulate --help")
    kind: Kind = match[1]
    takes_width, takes_merge = kind in ("lanes", "blocks"), kind == "lanes"
    if (match[2] and not takes_width) or (match[3] and not takes_merge):
        raise UsageError(f"order {text!r}: {kind} takes no such argument; lanes(W[, serial]) and blocks(B) do")
    width = int(match[2]) if match[2] else (DEFAULT_LANES if kind == "lanes" else DEFAULT_BLOCK)
    if takes_width and not 2 <= width <= 4096:
        raise UsageError(f"order {text!r}: the width must be from 2 to 4096, received {width}")
    return Order(kind, width if takes_width else 0, "serial" if match[3] == "serial" else "tree")
