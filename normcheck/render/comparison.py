"""Many implementations of the same norms beside each other, and why: one line each, what fares alike together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from normcheck.render.figures import bits, figure, multiple
from normcheck.render.findings import found_on, told
from normcheck.render.layout import Column, Layout, Lines, paragraph, table
from normcheck.render.places import counted, distinct
from normcheck.results import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.render.places import Shown
    from normcheck.results import Finding, Report

NAMED = 6
"""A verdict names so many implementations of a norm and precision at most; of more it names one less, and counts."""

_NORM = re.compile(r"--norm (\S+)")
"""A norm that a fix advises in another's place."""

COMPARED = 3
"""With more implementations than that of one norm and precision, a report of `simulate` is a comparison of them."""


def is_comparison(report: Report) -> bool:
    """Whether results are shown as a comparison of implementations: there are many, and nothing else was asked for."""
    if report.command != "simulate" or any(result.backward is not None for result in report.results):
        return False
    kinds = [(result.norm, result.precision) for result in report.results]
    return max(map(kinds.count, kinds), default=0) > COMPARED


def tables(report: Report, shown: list[Shown], width: int) -> Iterator[Lines]:
    """Yield a table for each norm and precision, the worst implementations first, and what to do about them."""
    found = {id(item): found_on(item.result, report.findings) for item in shown}
    for kind in dict.fromkeys((item.result.norm, item.result.precision) for item in shown):
        rows: dict[tuple[str, str], list[Shown]] = {}
        for item in shown:
            if (item.result.norm, item.result.precision) == kind:
                rows.setdefault((item.result.verdict, _why(item, found[id(item)])), []).append(item)
        yield [*paragraph(" ".join(kind), width=width), *table(list(rows.values()), _layouts(found), width=width)]
    yield _fixes(shown, found, width)


def unshown(report: Report, shown: list[Shown], width: int) -> Lines:
    """Return how many findings are in no line of the tables, and of which rules they are."""
    told = {id(found[0]) for item in shown if (found := found_on(item.result, report.findings)) and _is_told(item)}
    rest = [finding for finding in report.findings if id(finding) not in told]
    if not rest:
        return []
    rules = ", ".join(sorted(distinct(finding.rule for finding in rest)))
    text = f"{counted(len(rest), 'further finding')} ({rules}): --format json, or fewer implementations, shows them"
    return paragraph(text, width=width, hanging=2)


def summary(shown: list[Shown], width: int) -> Lines:
    """Return which implementations are which, the worst first; of many, some and how many more there are."""
    lines: Lines = []
    kinds = dict.fromkeys((item.result.norm, item.result.precision) for item in shown)
    for name in VERDICTS:
        rows = [item.result for item in shown if item.result.verdict == name]
        each = {kind: [r.implementation for r in rows if (r.norm, r.precision) == kind] for kind in kinds}
        texts = [f"{' '.join(kind)}: {_few(names)}" for kind, names in each.items() if names]
        lines += paragraph("; ".join(texts), width=width, hanging=2, head=name) if rows else []
    return lines


def _few(names: list[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} others"


def _layouts(found: dict[int, list[Finding]]) -> list[Layout[list[Shown]]]:
    """Return the columns, fewer of them where the width is short; a row are implementations that fare alike."""

    def each(cell: Callable[[Shown], str]) -> Callable[[list[Shown]], str]:
        return lambda items: "\n".join(map(cell, items))

    name = Column("implementation", each(lambda item: item.result.implementation))
    verdict: Column[list[Shown]] = Column("verdict", lambda items: items[0].result.verdict)
    why: Column[list[Shown]] = Column("why", lambda items: _why(items[0], found[id(items[0])]), prose=True)
    figures = (Column("deviation", each(_deviation), right=True), Column("headroom", each(_headroom), right=True))
    return [Layout((name, verdict, *figures, why)), Layout((name, verdict, why))]


def _why(item: Shown, found: list[Finding]) -> str:
    """Return the worst finding; of a result without one, how much room it has."""
    if found and _is_told(item):
        step, message = told(found[0])
        return f"{found[0].severity} {found[0].rule}{step}: {message}"
    room = item.result.headroom
    return " ".join(["headroom", *bits(room.overflow_bits, room.overflow_step)])


def _is_told(item: Shown) -> bool:
    """Whether the worst finding on a result is its line; else that is how much room it has."""
    return item.result.verdict != "ok"


def _deviation(item: Shown) -> str:
    deviation = item.result.deviation
    return f"{figure(deviation.relative_rms)} {multiple(deviation.relative_rms, deviation.ideal.relative_rms)}"


def _headroom(item: Shown) -> str:
    return bits(item.result.headroom.overflow_bits, None)[0]


def _fixes(shown: list[Shown], found: dict[int, list[Finding]], width: int) -> Lines:
    """Return the remedies of the worst findings, each once, after what they are for."""
    worst = [found[id(item)][0] for item in shown if found[id(item)] and _is_told(item)]
    groups: dict[str, list[Finding]] = {}
    for finding in worst:
        if finding.fix:
            groups.setdefault(_NORM.sub("--norm", finding.fix), []).append(finding)
    lines: Lines = []
    for group in groups.values():
        others = [finding for finding in worst if not any(finding is one for one in group)]
        lines += paragraph(_fix(group, others), width=width, hanging=2)
    return lines


def _fix(group: list[Finding], others: list[Finding]) -> str:
    """Return what findings are of, and their one remedy; by implementation where another remedy is for the same."""
    rules, norms = distinct(f.rule for f in group), distinct(f.norm for f in group)
    clash = {(f.rule, f.norm) for f in group} & {(f.rule, f.norm) for f in others}
    names = _few(distinct(f.implementation or "" for f in group))
    under = f", {names}" if clash else ""
    return f"fix of {', '.join(rules)} in {', '.join(norms)}{under}: {_advice(group)}"


def _advice(group: list[Finding]) -> str:
    """Return the remedy; where it advises each norm another one, all of these, each with its norm."""
    advised = {finding.norm: match[1] for finding in group if (match := _NORM.search(finding.fix))}
    if len(set(advised.values())) <= 1:
        return group[0].fix
    each = " or ".join(f"{name} (for {norm})" for norm, name in advised.items())
    return _NORM.sub(lambda _: f"--norm {each}", group[0].fix, count=1)
