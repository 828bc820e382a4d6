"""What `normcheck convert` did, as a table, as Markdown, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render.figures import ABSENT, figure, of
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column, Layout, Lines, inline, page, pairs, paragraph, table
from normcheck.render.markdown_text import cell, code, prose
from normcheck.render.places import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.results.conversion import ConversionReport, ConvertedLayer

_MEANING = (
    "change: relative rms difference of a norm's output for the same input of the model; own change: for the same "
    "input of the norm, which leaves out what the norms before it changed"
)


def render(report: ConversionReport, *, width: int, color: bool = False) -> str:
    """Return the conversion as a table of layers, the most changed first, and what is known of the whole."""
    ran = report.conversion.samples > 0
    return page(
        [
            paragraph(_premise(report), width=width, hanging=2, head="convert"),
            table(report.conversion.layers, _layouts(ran=ran), width=width),
            paragraph(_MEANING, width=width) if ran else [],
            pairs([(title, text) for title, text in _facts(report)], width=width),
            _skipped(report, width),
        ],
        color=color,
    )


def render_json(report: ConversionReport) -> str:
    """Return the conversion as one JSON object."""
    return dumps(to_plain(report))


def render_markdown(report: ConversionReport) -> str:
    """Return the conversion as Markdown."""
    columns = _columns(ran=report.conversion.samples > 0)
    rows = [[column.title for column in columns], ["---"] * len(columns)]
    rows += [[cell(column.cell(layer)) for column in columns] for layer in report.conversion.layers]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    facts = [f"* {title}: {prose(text)}" for title, text in _facts(report)]
    skipped = [f"* skipped {code(inline(item.name))}: {prose(item.reason)}" for item in report.conversion.skipped]
    head = f"## normcheck convert\n\n{prose('; '.join(_premise(report)))}\n"
    return "\n".join([head, *lines, "", *facts, *skipped]) + "\n"


def _premise(report: ConversionReport) -> list[str]:
    """Return what was converted to what, how many norms, and what their statistic needs to know besides."""
    layers = report.conversion.layers
    return [
        f"{inline(report.checkpoint)} -> {inline(report.out)}",
        f"{counted(len(layers), 'norm')} converted to {report.to}",
        *sorted({f"constant {layer.constant}" for layer in layers if layer.constant is not None}),
        *sorted({f"k {layer.k}" for layer in layers if layer.k is not None}),
    ]


def _columns(*, ran: bool) -> tuple[Column[ConvertedLayer], ...]:
    changes: tuple[Column[ConvertedLayer], ...] = (
        Column("change", lambda layer: figure(layer.change), right=True),
        Column("own change", lambda layer: figure(layer.own_change), right=True),
    )
    return (
        Column("layer", lambda layer: inline(layer.layer)),
        *(changes if ran else ()),
        Column("from", lambda layer: layer.before),
        Column("eps", lambda layer: figure(layer.eps_before), right=True),
        Column("to", lambda layer: layer.after),
        Column("eps", lambda layer: figure(layer.eps), right=True),
    )


def _layouts(*, ran: bool) -> Sequence[Layout[ConvertedLayer]]:
    """Return all columns side by side, or below each layer's name where the width is short."""
    columns = _columns(ran=ran)
    return [Layout(columns), Layout(columns[1:], above=lambda layer: inline(layer.layer))]


def _facts(report: ConversionReport) -> list[tuple[str, str]]:
    conversion = report.conversion
    facts = [("calibrated on", report.calibrated_on)]
    if report.input is not None:
        facts.append(("measured on", f"{conversion.samples} samples of {inline(report.input)}, in evaluation"))
        facts.append(("output", f"relative rms change {figure(conversion.change)}"))
    if conversion.accuracy is not None:
        right = conversion.accuracy
        facts.append(("accuracy", f"{_share(right.before, right.of)} before, {_share(right.after, right.of)} after"))
    return facts


def _share(right: int, total: int) -> str:
    return f"{of(right, total)} ({right / total:.1%})" if total else ABSENT


def _skipped(report: ConversionReport, width: int) -> Lines:
    lines: Lines = []
    for item in report.conversion.skipped:
        lines += paragraph(f"{inline(item.name)}: {item.reason}", width=width, hanging=2, head="skipped")
    return lines
