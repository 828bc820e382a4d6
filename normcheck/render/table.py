"""The report as a table for people: the premise, results and findings worst first, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render import changes, comparison, gradients, layout, model, steps, strip
from normcheck.render.cells import layouts
from normcheck.render.figures import number
from normcheck.render.findings import findings, left_out, skipped, unseen, verdict
from normcheck.render.layout import Lines, paragraph, table
from normcheck.render.places import Shown, distinct, either, plural, worst_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Report


def render(
    report: Report,
    *,
    width: int = 80,
    color: bool = False,
    with_steps: bool = False,
    top: int | None = None,
) -> str:
    """Return the report as text.

    Args:
        report: what to show.
        width: columns that a line may take.
        color: whether to add colour; the text is the same without.
        with_steps: whether the steps of each result follow the table; of a model, also the facts of each layer.
        top: of a model, how many rows the table shows at most; None for all.
    """
    return "".join(pieces(report, width=width, color=color, with_steps=with_steps, top=top))


def pieces(
    report: Report, *, width: int, color: bool = False, with_steps: bool = False, top: int | None = None
) -> Iterator[str]:
    """Return the text of `render` in pieces, so that steps of many results are not held as text together."""
    if report.command == "diff":
        return layout.pieces(changes.page(report, width), color=color)
    if report.command == "analyze":
        return layout.pieces(model.parts(report, width, with_steps=with_steps, top=top), color=color)
    return layout.pieces(_parts(report, width, with_steps=with_steps), color=color)


def _parts(report: Report, width: int, *, with_steps: bool) -> Iterator[Lines]:
    shown = [Shown(result) for result in worst_first(report.results)]
    yield paragraph(_premise(report), width=width, hanging=2, head=report.command)
    if comparison.is_comparison(report):
        yield from _compared(report, shown, width, with_steps=with_steps)
        return
    if shown:
        yield table(shown, layouts(shown), width=width)
    yield gradients.section(shown, width)
    if with_steps:
        yield from steps.parts((item.result for item in shown), strip.ranges(report), width=width)
    yield from _under(report, shown, width)


def _compared(report: Report, shown: list[Shown], width: int, *, with_steps: bool) -> Iterator[Lines]:
    yield from comparison.tables(report, shown, width)
    if with_steps:
        yield from steps.parts((item.result for item in shown), strip.ranges(report), width=width)
    yield comparison.unshown(report, shown, width)
    yield left_out(report, width)
    yield skipped(report, width)
    yield from changes.section(report, width)
    yield comparison.summary(shown, width)


def _under(report: Report, shown: list[Shown], width: int) -> list[Lines]:
    return [
        findings(report, width),
        left_out(report, width),
        skipped(report, width),
        unseen(shown, width),
        *changes.section(report, width),
        verdict(report, shown, width),
    ]


def _premise(report: Report) -> list[str]:
    """Return what was computed on: source, seed, shape, elements, n, eps, mode and parameters."""
    results, settings = report.results, report.settings
    seed, shape = settings.get("seed"), settings.get("shape")
    facts = [
        either(result.input.source + " (assumed)" * result.input.assumed for result in results),
        f"seed {seed}" if seed is not None else "",
        f"shape {_dimensions(shape)}" if shape is not None else "",
        either(f"{r.input.elements} {plural('element', r.input.elements)}" for r in results),
        _by_norm("n =", {result.norm: str(result.shape.size) for result in results}),
        _by_norm("eps", {result.norm: number(result.eps) for result in results}),
        either(result.mode for result in results),
        f"params {either(result.params for result in results)}" if results else "",
    ]
    return [fact for fact in facts if fact]


def _dimensions(shape: object) -> str:
    return ",".join(map(str, shape)) if isinstance(shape, list | tuple) else str(shape)


def _by_norm(label: str, values: dict[str, str]) -> str:
    """Return one value, or where norms differ, which norms have which."""
    different = distinct(values.values())
    if len(different) <= 1:
        return f"{label} {different[0]}" if different else ""
    named = (f"{value} ({', '.join(n for n in values if values[n] == value)})" for value in different)
    return f"{label} {either(named)}"
