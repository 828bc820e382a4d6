"""The report as Markdown, for the summary of a CI job or a comment.

GitHub drops the summary of a step above 1 MiB whole. So every list has a limit, very long names and messages lose
their middle, and the page ends before that, whatever the report is. The JSON report has all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render import gradients
from normcheck.render.cells import layouts, layouts_of_layers
from normcheck.render.changes import before_and_after
from normcheck.render.counts import counts, outcome
from normcheck.render.findings import verdict
from normcheck.render.folding import Names, folded, listed
from normcheck.render.groups import brief, findings_of, grouped, holds_for, omitted, said, unread, worst_of
from normcheck.render.layer_findings import verdict as verdict_on_layers
from normcheck.render.layout import printable
from normcheck.render.markdown_text import cell, code, fenced, prose
from normcheck.render.places import Shown, counted, where, worst_first
from normcheck.render.views import condition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.render.groups import Group
    from normcheck.results import Advice, Change, Comparison, Report

LIMIT = 1024 * 1024
"""Bytes that GitHub takes as the summary of a step."""

_ROWS = 100
"""Rows of a table, at most: well within what a reader looks through."""

_ITEMS = 50
"""Items of other lists, at most."""

_SNIPPET = 200
"""Lines of text to paste, at most; a part of them would be of no use."""

_NAMES = 400
"""Characters of layers' names in an item, unless the first is longer."""

_ONE_LINE = 10**6
_CUT = "\nThe rest does not fit here: the JSON report has all.\n"
_TITLES = {"error": "Errors", "warning": "Warnings", "note": "Notes"}


def render(report: Report) -> str:
    """Return the report as Markdown."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, block by block, as long as there is room."""
    room = LIMIT - len(_CUT)
    for block in _blocks(report):
        room -= len(block.encode())
        if room < 0:
            yield _CUT
            return
        yield block


def _blocks(report: Report) -> Iterator[str]:
    """Yield the page: how it ended, what is wrong, what to do about it, all figures, and what was left out."""
    yield f"## normcheck {report.command}: {outcome(report)}\n\n"
    yield f"{prose(_verdict(report))}\n\n"
    yield from _table([*counts(report)], [[str(many) for many in counts(report).values()]])
    yield from _section("Could not be read", [prose(why) for _, why in unread(report)])
    if report.comparison is not None:
        yield from _comparison(report.comparison)
    yield from _findings(report)
    yield from (_advice(item) for item in report.advice if item.asked)
    if report.command != "diff":
        yield from _results(report)
    yield from _section("Not analysed", [prose(line) for line in omitted(report)])


def _verdict(report: Report) -> str:
    """Return the sentence with which the table ends; of a diff, how many findings changed."""
    comparison = report.comparison
    if report.command == "diff" and comparison is not None:
        worse, better = len(comparison.regressions), len(comparison.improvements)
        return f"{worse} new or worse, {better} gone or better, {comparison.unchanged} findings unchanged"
    if report.layers:
        lines = verdict_on_layers(report, _names(report), _ONE_LINE)
    else:
        lines = verdict(report, [Shown(result) for result in worst_first(report.results)], _ONE_LINE)
    return " ".join(line.plain for line in lines)


def _names(report: Report) -> Names:
    return Names([*(layer.name for layer in report.layers), *(r.layer or "-" for r in report.results)])


def _section(title: str, items: Sequence[str], most: int = _ITEMS) -> Iterator[str]:
    """Yield a list of what is Markdown already; nothing where it is empty."""
    if not items:
        return
    yield f"\n### {title}\n\n"
    yield from (f"- {item}\n" for item in items[:most])
    if items[most:]:
        yield f"- and {len(items) - most} more: the JSON report has all\n"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table of plain text."""
    yield f"| {' | '.join(map(cell, titles))} |\n|{' --- |' * len(titles)}\n"
    yield from (f"| {' | '.join(map(cell, row))} |\n" for row in rows[:_ROWS])
    if rows[_ROWS:]:
        yield f"\nand {len(rows) - _ROWS} more rows: the JSON report has all\n"


# ---------------------------------------------------------------------------------------------- what changed


def _comparison(comparison: Comparison) -> Iterator[str]:
    """Yield what is new or worse and what is gone or better, with the figures that moved."""
    yield f"\n### Compared with {code(brief(comparison.old))}\n"
    for title, changes in (("New or worse", comparison.regressions), ("Gone or better", comparison.improvements)):
        yield f"\n{title}: {len(changes)}\n"
        if changes:
            yield "\n"
            yield from _table(("change", "severity", "rule", "where", "what", "figures"), [*map(_change, changes)])
    yield f"\nUnchanged: {comparison.unchanged}\n"
    if comparison.unasked:
        yield f"\nIn the view that nobody asked for, which counts for nothing: {len(comparison.unasked)} changes\n"
    yield _only("old", comparison.only_old) + _only("new", comparison.only_new)
    differ = [prose(f"{item.name}: {brief(item.old)} → {brief(item.new)}") for item in comparison.settings]
    yield from _section("Settings that differ", differ)


def _only(which: str, places: Sequence[str]) -> str:
    if not places:
        return ""
    return f"\nOnly in the {which} report: {counted(len(places), 'place')}: {prose(_listed(places))}\n"


def _change(change: Change) -> tuple[str, ...]:
    figures = "\n".join(map(before_and_after, change.figures))
    return (
        change.kind,
        change.severity or "",
        change.rule or "verdict",
        brief(where(change)),
        brief(change.message),
        figures,
    )


def _listed(names: Sequence[str]) -> str:
    return listed([brief(name) for name in names], _NAMES)


# ------------------------------------------------------------------------------------------ findings and advice


def _findings(report: Report) -> Iterator[str]:
    """Yield the findings of each severity, those of the view that nobody asked for last: an item a rule and fix."""
    titles = {rule.code: rule.title for rule in report.rules}
    groups = grouped(report)
    parts = [(title, [g for g in groups if g.asked and g.severity == word]) for word, title in _TITLES.items()]
    beside = [group for group in groups if not group.asked]
    for title, part in (*parts, (f"Notes {condition(findings_of(beside))}", beside)):
        many = len(findings_of(part))
        yield from _section(f"{title}: {many}", [_item(group, titles.get(group.rule, "")) for group in part])


def _item(group: Group, title: str) -> str:
    """Return what a group of findings says: rule, the worst of them, where else, and what to do."""
    lines = [f"**{prose(f'{group.rule} {title}'.strip())}**{group.on}", prose(said(group.findings[0]))]
    if len(group.findings) > 1:
        lines.append(prose(f"{worst_of(group)}{holds_for(group, _NAMES)}"))
    if group.fix:
        lines.append(f"Fix: {prose(group.fix)}")
    return "<br>\n  ".join(lines)


def _advice(advice: Advice) -> str:
    """Return something to change: for which layers, what trying it gave, and the text to paste."""
    many = len(advice.layers)
    facts = [f"{counted(many, 'layer')}: {_listed(advice.layers)}"] if many else []
    facts += [advice.evidence] if advice.evidence else []
    text = printable(advice.snippet.strip("\n"))
    lines = text.count("\n") + 1
    block = fenced(text, "python") if lines <= _SNIPPET else f"The text to paste has {lines} lines: see the table.\n"
    told_first = "".join(f"{prose(fact)}\n\n" for fact in facts)
    return f"\n### Advice: {prose(advice.title)}\n\n{told_first}{block if text else ''}"


# ---------------------------------------------------------------------------------------------------- figures


def _results(report: Report) -> Iterator[str]:
    """Yield the results in the columns of the table, the worst first; layers that behave the same are one row."""
    if report.layers:
        asked = [result for result in report.results if result.asked]
        shown = folded(asked, report.findings, _names(report))
        columns = layouts_of_layers(shown)[1].columns
    else:
        shown = [Shown(result) for result in worst_first(report.results)]
        columns = layouts(shown)[1].columns
    if shown:
        yield "\n### Results\n\n"
        titles = [column.title.replace("\n", " ") for column in columns]
        yield from _table(titles, [[column.cell(item) for column in columns] for item in shown])
    yield from _gradients(shown)
    beside = sum(not result.asked for result in report.results)
    if beside:
        yield f"\nNot shown: {beside} results of the view that nobody asked for, whose findings are notes.\n"


def _gradients(shown: Sequence[Shown]) -> Iterator[str]:
    """Yield the backward passes of those results that have one."""
    items = gradients.items_of(shown)
    if items:
        columns = gradients.layouts(items)[0].columns
        yield f"\n### Backward\n\n{prose('; '.join(gradients.premise([item.backward for item in items])))}\n\n"
        yield from _table([column.title for column in columns], [[c.cell(item) for c in columns] for item in items])
