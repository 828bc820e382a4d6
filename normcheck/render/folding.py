"""Layers that behave the same, as one: whose figures a row of the table has, and how it names its layers."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from normcheck.render import gradients
from normcheck.render.gradients import common, error_size, tally_sum
from normcheck.render.layout import inline
from normcheck.render.places import Shown, badness, concerns, distinct, plural, room
from normcheck.results import ROW_KINDS, Headroom, Result, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from normcheck.results import Finding

_FEW, _SHORT = 3, 64
"""So many names, and so many characters of them, are a short list."""

_NUMBER = re.compile(r"\d+")


def _pattern(name: str) -> str:
    return _NUMBER.sub("*", name)


class Names:
    """The names of all layers of a report, which decide how some of them can be told in few words."""

    def __init__(self, layers: Iterable[str]) -> None:
        every = distinct(layers)
        self.total = len(every)
        self._alike = Counter(map(_pattern, every))

    def parts(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Return which layers they are, and how many where that is not seen.

        A few short names are listed. ``layer*.*.bn1`` stands for all layers so called, * being any number; first and
        last for others. All are just so many.
        """
        if len(layers) == self.total > _FEW:
            return (self.count(self.total),)
        if len(layers) == 1 or (len(layers) <= _FEW and sum(map(len, layers)) <= _SHORT):
            return (", ".join(map(inline, layers)),)
        return (self._brief(layers), self.count(len(layers)))

    def count(self, layers: int) -> str:
        """Return how many of all layers: ``16 of 53 layers``, ``all 53 layers``."""
        if layers == self.total > 1:
            return f"all {self.total} layers"
        return f"{layers} of {self.total} {plural('layer', self.total)}"

    def _brief(self, layers: Sequence[str]) -> str:
        here = Counter(map(_pattern, layers))
        patterns = ", ".join(map(inline, here))
        exact = all(many == self._alike[pattern] for pattern, many in here.items())
        if exact and len(here) <= _FEW and len(patterns) <= _SHORT and len(here) < len(layers):
            return patterns
        return f"{inline(layers[0])} … {inline(layers[-1])}"


def listed(layers: Sequence[str], budget: int) -> str:
    """Return as many names as take no more characters than that, at least one, and how many there are besides."""
    names = [inline(name) for name in layers]
    taken, used = 1, len(names[0])
    while taken < len(names) and used + len(names[taken]) + 2 <= budget:
        used += len(names[taken]) + 2
        taken += 1
    rest = f" and {len(names) - taken} more (all in --format json)" if taken < len(names) else ""
    return ", ".join(names[:taken]) + rest


def folded(results: Iterable[Result], findings: Iterable[Finding], names: Names) -> list[Shown]:
    """Return the results with those folded into one that behave the same, the worst first.

    Layers behave the same whose norm, precision, implementation, mode and verdict are equal, on which the same rules
    fired as errors or warnings, and whose bad rows are of the same classes, also of the gradient.
    """
    about: dict[str | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.severity != "note":
            about[finding.layer].append(finding)
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        rules = tuple(sorted({f.rule for f in about[result.layer] if concerns(f, result)}))
        groups.setdefault((*_behaviour(result), rules), []).append(result)
    ordered = sorted(groups.items(), key=lambda item: min(map(badness, item[1])))
    return [Shown(merged(group), _layers(group, names), key[-1]) for key, group in ordered]


def _behaviour(result: Result) -> tuple[Any, ...]:
    classes = tuple(bool(getattr(result.rows, name)) for name in ROW_KINDS)
    gradient = result.backward
    lost = None if gradient is None else (bool(gradient.rows.nonfinite), bool(gradient.rows.vanished))
    made = (result.norm, result.precision, result.implementation, result.mode, result.params)
    return *made, result.verdict, classes, lost


def merged(results: Sequence[Result]) -> Result:
    """Return layers as one result: counts are sums, figures those of the layer in which they are worst.

    What is no figure of the table is that of the worst layer.
    """
    worst = _first(results, badness)
    if len(results) == 1:
        return worst
    passes = [result.backward for result in results if result.backward is not None]
    above, below = _first(results, room).headroom, _first(results, _room_below).headroom
    return replace(
        worst,
        rows=Rows(**{name: sum(getattr(r.rows, name) for r in results) for name in Rows.__slots__}),
        overflow=tally_sum(r.overflow for r in results),
        underflow=tally_sum(r.underflow for r in results),
        invalid=tally_sum(r.invalid for r in results),
        absorbed=tally_sum(r.absorbed for r in results),
        deviation=_furthest(results).deviation,
        headroom=Headroom(
            overflow_bits=above.overflow_bits,
            overflow_step=above.overflow_step,
            underflow_bits=below.underflow_bits,
            underflow_step=below.underflow_step,
        ),
        safe_scale=common([r.safe_scale for r in results]),
        safe_magnitude=_least([r.safe_magnitude for r in results]),
        backward=gradients.merged(passes) if passes else None,
    )


def _least(bounds: Sequence[float | None]) -> float | None:
    """Return the bound that holds for all: None where some have none."""
    known = [bound for bound in bounds if bound is not None]
    return min(known) if len(known) == len(bounds) else None


def _layers(results: Sequence[Result], names: Names) -> tuple[str, ...]:
    """Return the parts that name the layers, then those whose figures are shown."""
    parts = names.parts([result.layer or "-" for result in results])
    if len(results) == 1:
        return parts
    worst, least = _first(results, badness), _first(results, room)
    roles: dict[str, list[str]] = {}
    for role, result in (
        ("worst", worst if worst.rows.bad else None),
        ("least headroom", least if room(least) < math.inf else None),
        ("largest deviation", _furthest(results)),
    ):
        if result is not None:
            roles.setdefault(inline(result.layer or "-"), []).append(role)
    if len(roles) == 1:
        return (*parts, f"worst {next(iter(roles))}")
    return (*parts, *(f"{' and '.join(of)} {layer}" for layer, of in roles.items()))


def _first(results: Sequence[Result], key: Callable[[Result], Any]) -> Result:
    """Return the result with the least key: of equals the one that is worst in all, so that few names are needed."""
    return min(results, key=lambda result: (key(result), badness(result)))


def _furthest(results: Sequence[Result]) -> Result:
    return _first(results, lambda result: -error_size(result.deviation.relative_rms))


def _room_below(result: Result) -> float:
    bits = result.headroom.underflow_bits
    return math.inf if bits is None else -math.inf if math.isnan(bits) else bits
