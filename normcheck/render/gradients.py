"""The backward passes of results as a table: what became of dx, and the loss scales that are safe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.render.figures import bits, count, figure, multiple, number, of
from normcheck.render.layout import Column, Layout, Lines, paragraph, table
from normcheck.render.places import either, where

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from normcheck.results import Backward, Result

    Cell = Callable[[Backward], list[str]]

Item = tuple["Result", "Backward"]


def section(results: Sequence[Result], width: int) -> Lines:
    """Return the table of those results that have a backward pass, under what it was run on; none where none has."""
    items = items_of(results)
    if not items:
        return []
    return [*paragraph(premise(items), width=width, hanging=2, head="backward"), *table(items, LAYOUTS, width=width)]


def items_of(results: Sequence[Result]) -> list[Item]:
    """Return the results that have a backward pass, with it."""
    return [(result, result.backward) for result in results if result.backward is not None]


def premise(items: Sequence[Item]) -> list[str]:
    """Return what backward passes were run on: the gradient, and the loss scale."""
    scales = either(f"loss scale {number(backward.loss_scale)}" for _, backward in items)
    return [f"gradient {either(backward.source for _, backward in items)}", scales]


def powers(ends: tuple[float, float] | None) -> str:
    """Return the powers of two from the one to the other: ``2^-2 to 2^26``, ``none`` where there is none."""
    return "none" if ends is None else " to ".join(f"2^{round(math.log2(end))}" for end in ends)


def _rows(backward: Backward) -> list[str]:
    rows = backward.rows
    bad = of(rows.bad, rows.total)
    classes = [f"{count(getattr(rows, name))} {name}" for name in ("nonfinite", "vanished") if getattr(rows, name)]
    return [f"{bad}:", *(f"{text}," for text in classes[:-1]), classes[-1]] if classes else [bad]


def _overflow(backward: Backward) -> list[str]:
    return [of(backward.overflow.count, backward.overflow.of)]


def _flushed(backward: Backward) -> list[str]:
    return [of(backward.flushed.count, backward.flushed.of)]


def _deviation(backward: Backward) -> list[str]:
    return [figure(backward.deviation.relative_rms)]


def _multiple(backward: Backward) -> list[str]:
    return [multiple(backward.deviation.relative_rms, backward.deviation.ideal.relative_rms)]


def _room(backward: Backward) -> list[str]:
    return bits(backward.overflow_bits, backward.overflow_step)


def _safe(backward: Backward) -> list[str]:
    return [powers(backward.safe_loss_scale)]


def _name(title: str) -> Column[Item]:
    return Column(title, lambda item: str(getattr(item[0], title)))


def _line(title: str, cell: Cell) -> Column[Item]:
    return Column(title, lambda item: " ".join(filter(None, cell(item[1]))))


def _stack(title: str, *cells: Cell) -> Column[Item]:
    return Column(title, lambda item: "\n".join(part for cell in cells for part in cell(item[1])))


_NAMES = (_name("norm"), _name("precision"), _name("implementation"))
LAYOUTS: tuple[Layout[Item], ...] = (
    Layout(
        (
            *_NAMES,
            _line("rows bad", _rows),
            _line("overflow", _overflow),
            _line("flushed", _flushed),
            _line("deviation", _deviation),
            _line("of ideal", _multiple),
            _line("headroom", _room),
            _line("safe loss scale", _safe),
        )
    ),
    Layout(
        (
            _stack("rows bad", _rows),
            _stack("overflow", _overflow),
            _stack("flushed", _flushed),
            _stack("deviation", _deviation, _multiple),
            _stack("headroom\n\nsafe loss scale", _room, _safe),
        ),
        above=lambda item: where(item[0]),
    ),
)
"""Widest first; headroom is that of the loss scale."""
