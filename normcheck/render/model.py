"""The report on a model as a table for people: layers that behave the same folded, the worst first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render import changes, gradients, layer_facts, layer_findings, premise
from normcheck.render.cells import layouts_of_layers
from normcheck.render.findings import left_out
from normcheck.render.folding import Names, folded
from normcheck.render.layout import Lines, paragraph, table
from normcheck.render.places import plural
from normcheck.results import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.render.places import Shown
    from normcheck.results import Report

_LEGEND = (
    "figures of several layers: counts are sums, headroom is the least, deviation the largest, and the safe scale is "
    "safe for all of them; * is any number; --format json has each layer"
)


def parts(report: Report, width: int, *, with_steps: bool = False, top: int | None = None) -> Iterator[Lines]:
    """Yield what the page is made of: see `normcheck.render.table.render` for the arguments."""
    asked = [result for result in report.results if result.asked]
    names = Names([*(layer.name for layer in report.layers), *(r.layer or "-" for r in report.results)])
    shown = folded(asked, report.findings, names)
    facts = premise.of_model(report, asked)
    yield paragraph(facts, width=width, hanging=2, head=report.command) if facts else []
    yield from _rows(shown, names, width, top)
    if with_steps:
        yield from layer_facts.parts(report, width)
    yield layer_findings.unasked(report, names, width)
    yield layer_findings.findings(report, names, width)
    yield left_out(report, width)
    yield from layer_findings.advice(report, width)
    yield layer_findings.skipped(report, width)
    yield layer_findings.unreadable(report, width)
    yield layer_findings.unseen(asked, width)
    yield from changes.section(report, width)
    yield layer_findings.verdict(report, names, width)


def _rows(shown: list[Shown], names: Names, width: int, top: int | None) -> list[Lines]:
    """Return the table, what it leaves out, and what the figures of folded layers are."""
    rows, hidden = shown[:top], shown[len(shown[:top]) :]
    if not rows:
        return []
    several = any(names.total > 1 and row.layers[1:] for row in rows)
    return [
        table(rows, layouts_of_layers(shown), width=width),
        _hidden(hidden, len(shown), width) if hidden else [],
        gradients.section(rows, width),
        paragraph(_LEGEND, width=width) if several else [],
    ]


def _hidden(hidden: list[Shown], every: int, width: int) -> Lines:
    worst = min((item.result.verdict for item in hidden), key=VERDICTS.index)
    more = f"{len(hidden)} more {plural('row', len(hidden))} not shown, the worst {worst}"
    return paragraph(f"{more}: --top {every} shows all", width=width)
