"""How results and findings are named, ordered and counted in text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from normcheck.render.figures import count
from normcheck.render.layout import inline
from normcheck.results import VERDICTS, Change, Finding, Result, Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normcheck.results import Verdict


_FEW = 3
"""So many combinations of precision, implementation and mode are told one by one."""


class Shown(NamedTuple):
    """A result, or several layers' results as one.

    `layers`: the parts that say which layers it is about; `rules`: codes of the rules that fired on it. Both are empty
    where a result stands for itself.
    """

    result: Result
    layers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """What its rows are called."""
        return self.result.shape.row


def where(item: Result | Finding | Change) -> str:
    """Return what an item is about: layer, norm, precision, implementation, and mode unless training."""
    layer = inline(item.layer) if item.layer else None
    return " ".join(filter(None, (layer, kernel(item))))


def kernel(item: Result | Finding | Change) -> str:
    """Return what an item was computed with: norm, precision, implementation, and mode unless training."""
    mode = item.mode if item.mode != "train" else None
    return " ".join(filter(None, (item.norm, item.precision, item.implementation, mode)))


def place(item: Result | Finding) -> tuple[str | None, ...]:
    """Return what a finding and the result that it is on have in common."""
    return item.layer, item.norm, item.precision, item.implementation, item.mode


def concerns(finding: Finding, result: Result) -> bool:
    """Return whether a finding is about a result: what it leaves open, it holds for any."""
    return (
        finding.layer == result.layer
        and finding.norm == result.norm
        and finding.precision in (None, result.precision)
        and finding.implementation in (None, result.implementation)
        and finding.mode in (None, result.mode)
    )


def whole(item: Skipped) -> str:
    """Return what was left out and why; the reason may name it already."""
    return item.reason if item.reason.startswith(item.name) else f"{inline(item.name)}: {item.reason}"


def by_reason(skipped: Iterable[Skipped]) -> dict[str, list[str]]:
    """Return the names of what was left out, by the reason that they share."""
    names: dict[str, list[str]] = {}
    for item in skipped:
        names.setdefault(item.reason, []).append(item.name)
    return names


def worst_first(results: Iterable[Result]) -> list[Result]:
    """Return the results by verdict, then by the share of bad rows, then by headroom, the worst first."""
    return sorted(results, key=badness)


def badness(result: Result) -> tuple[int, float, float]:
    """Return what orders results, the least for the worst."""
    return VERDICTS.index(result.verdict), -result.rows.bad / max(result.rows.total, 1), room(result)


def room(result: Result) -> float:
    """Return the bits of headroom: infinite where no step overflows, the least of all where they are NaN."""
    bits = result.headroom.overflow_bits
    return math.inf if bits is None else -math.inf if math.isnan(bits) else bits


def verdicts(results: Iterable[Result]) -> dict[Verdict, int]:
    """Return how many layers, else results, have which verdict, each its worst; the worst first, none that none has."""
    worst: dict[str | int, int] = {}
    for index, result in enumerate(results):
        of = index if result.layer is None else result.layer
        rank = VERDICTS.index(result.verdict)
        worst[of] = min(rank, worst.get(of, rank))
    ranks = list(worst.values())
    return {verdict: ranks.count(rank) for rank, verdict in enumerate(VERDICTS) if rank in ranks}


def distinct(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of first occurrence."""
    return list(dict.fromkeys(values))


def either(values: Iterable[str]) -> str:
    """Return the values as alternatives, each once."""
    return " or ".join(distinct(values))


def ran(items: Iterable[Result | Finding | Change]) -> str:
    """Return what items were computed with: one by one where that are few, else how many combinations."""
    kernels = distinct(filter(None, map(kernel, items)))
    return "; ".join(kernels) if len(kernels) <= _FEW else f"{len(kernels)} combinations"


def counted(many: int, noun: str) -> str:
    """Return how many of something: ``1 layer``, ``1.93e7 elements``."""
    return f"{count(many)} {plural(noun, many)}"


def plural(noun: str, many: int) -> str:
    """Return the noun for so many."""
    return noun if many == 1 else f"{noun}s"
