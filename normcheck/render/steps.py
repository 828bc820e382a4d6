"""The steps of a result as a table: what each operation did, in which format."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from normcheck.render import strip
from normcheck.render.figures import ABSENT, count, figure
from normcheck.render.layout import Column, Layout, Lines, paragraph, table
from normcheck.render.places import where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from normcheck.results import FormatFacts, Result, Step


def parts(results: Iterable[Result], formats: Mapping[str, FormatFacts], *, width: int) -> Iterator[Lines]:
    """Yield the steps of each result in the order in which they run, and a picture of their magnitudes.

    Args:
        results: those whose steps are shown; nothing is of one whose steps are unknown.
        formats: their ranges, by name.
        width: columns that a line may take.
    """
    pictured = False
    for result in results:
        yield lines(result, where(result), width=width)
        picture = strip.lines(result, where(result), formats, width=width)
        pictured = pictured or bool(picture)
        yield picture
        if result.backward is not None:
            yield lines(replace(result, steps=result.backward.steps), f"{where(result)}, backward", width=width)
    if pictured:
        yield strip.legend(width)


def lines(result: Result, title: str, *, width: int) -> Lines:
    """Return the table of the steps of a result under its title; none where the steps are unknown."""
    if not result.steps:
        return []
    return [
        *paragraph(title, width=width, hanging=2, head="steps of"),
        *table(result.steps, _LAYOUTS, width=width),
    ]


def _events(name: str) -> Callable[[Step], str]:
    return lambda step: count(getattr(step, name))


def _figure(name: str) -> Callable[[Step], str]:
    return lambda step: figure(getattr(step, name) if step.operations else None)  # of no operation there is none


def _degree(step: Step) -> str:
    return ABSENT if step.degree is None else str(step.degree)


def _stack(*cells: Callable[[Step], str]) -> Callable[[Step], str]:
    return lambda step: "\n".join(cell(step) for cell in cells)


def _name(step: Step) -> str:
    return step.step


def _format(step: Step) -> str:
    return step.format


def _column(title: str, *cells: Callable[[Step], str]) -> Column[Step]:
    return Column(title, _stack(*cells), right=True)


_LAYOUTS: tuple[Layout[Step], ...] = (
    Layout(
        (
            Column("step", _name),
            Column("format", _format),
            _column("degree", _degree),
            _column("operations", _events("operations")),
            _column("overflow", _events("overflow")),
            _column("underflow", _events("underflow")),
            _column("subnormal", _events("subnormal")),
            _column("invalid", _events("invalid")),
            _column("absorbed", _events("absorbed")),
            _column("lost mass", _figure("lost_mass")),
            _column("cancelled bits", _figure("cancelled_bits")),
            _column("rows", _events("rows_affected")),
            _column("max", _figure("max_abs")),
            _column("min", _figure("min_abs")),
        )
    ),
    Layout(
        (
            Column("step\nformat", _stack(_name, _format)),
            _column("operations\ndegree", _events("operations"), _degree),
            _column("overflow\nunderflow", _events("overflow"), _events("underflow")),
            _column("subnormal\ninvalid", _events("subnormal"), _events("invalid")),
            _column("absorbed\nlost mass", _events("absorbed"), _figure("lost_mass")),
            _column("rows\ncancelled", _events("rows_affected"), _figure("cancelled_bits")),
            _column("max\nmin", _figure("max_abs"), _figure("min_abs")),
        )
    ),
)
"""Widest first; `cancelled` are bits, `rows` those with an overflow, underflow or invalid result in it."""
