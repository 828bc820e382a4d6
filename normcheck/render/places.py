"""How results and findings are named, ordered and counted in text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from normcheck.results import VERDICTS, Finding, Result

if TYPE_CHECKING:
    from collections.abc import Iterable


class Shown(NamedTuple):
    """A result, and what its rows are called."""

    result: Result
    noun: str


def where(item: Result | Finding) -> str:
    """Return what an item is about: layer, norm, precision, implementation, and mode unless training."""
    mode = item.mode if item.mode != "train" else None
    return " ".join(filter(None, (item.layer, item.norm, item.precision, item.implementation, mode)))


def worst_first(results: Iterable[Result]) -> list[Result]:
    """Return the results by verdict, then by the share of bad rows, then by headroom, the worst first."""
    return sorted(results, key=_badness)


def _badness(result: Result) -> tuple[int, float, float]:
    headroom = result.headroom.overflow_bits
    room = math.inf if headroom is None else -math.inf if math.isnan(headroom) else headroom
    return VERDICTS.index(result.verdict), -result.rows.bad / max(result.rows.total, 1), room


def distinct(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of first occurrence."""
    return list(dict.fromkeys(values))


def plural(noun: str, many: int) -> str:
    """Return the noun for so many."""
    return noun if many == 1 else f"{noun}s"
