"""The backward passes of results as a table: what became of gradients, and the loss scales that are safe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from normcheck.render.figures import ABSENT, bits, count, figure, multiple, number, of
from normcheck.render.layout import Column, Layout, Lines, paragraph, table
from normcheck.render.places import Shown, either, kernel, plural, where
from normcheck.results import Flushed, GradientRows, Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from normcheck.results import Backward, ParameterGradient

    Cell = Callable[[Backward], list[str]]


class Item(NamedTuple):
    """A result, or several layers' as one, and its backward pass."""

    shown: Shown
    backward: Backward


def section(shown: Sequence[Shown], width: int) -> Lines:
    """Return the table of those results that have a backward pass, under what it was run on; none where none has."""
    items = items_of(shown)
    if not items:
        return []
    return [
        *paragraph(premise([item.backward for item in items]), width=width, hanging=2, head="backward"),
        *table(items, layouts(items), width=width),
    ]


def items_of(shown: Sequence[Shown]) -> list[Item]:
    """Return the results that have a backward pass, with it."""
    return [Item(each, each.result.backward) for each in shown if each.result.backward is not None]


def premise(passes: Sequence[Backward]) -> list[str]:
    """Return what backward passes were run on: the gradient, and the loss scale."""
    scales = either(f"loss scale {number(backward.loss_scale)}" for backward in passes)
    sources = either(backward.source + " (assumed)" * backward.assumed for backward in passes)
    return [f"gradient {sources}", scales]


def powers(ends: tuple[float, float] | None) -> str:
    """Return the powers of two from the one to the other: ``2^-2 to 2^26``, ``none`` where there is none."""
    return "none" if ends is None else " to ".join(f"2^{round(math.log2(end))}" for end in ends)


def _rows(backward: Backward) -> list[str]:
    rows = backward.rows
    bad, classes = of(rows.bad, rows.total), _classes(rows)
    return [f"{bad}:", *(f"{text}," for text in classes[:-1]), classes[-1]] if classes else [bad]


def _classes(rows: GradientRows) -> list[str]:
    return [f"{count(getattr(rows, name))} {name}" for name in ("nonfinite", "vanished") if getattr(rows, name)]


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


def _parameters(backward: Backward) -> list[str]:
    """Return for each of gamma and beta how far its gradient is off, and how many of its numbers are not finite."""
    parts = []
    for name, each in backward.parameters.items():
        parts.append(f"{GREEK[name]} {figure(each.relative_rms)}")
        if each.nonfinite:
            parts += [f"({of(each.nonfinite, each.count)}", "nonfinite)"]
    return parts or [ABSENT]


GREEK = {"weight": "γ", "bias": "β"}


def facts(backward: Backward, noun: str) -> list[tuple[str, str]]:
    """Return all that is said of one backward pass but its steps, as titles and values; `noun` is what a row is."""
    rows, lost = backward.rows, backward.flushed
    tallies = [(name, getattr(backward, name)) for name in ("overflow", "underflow", "invalid", "absorbed")]
    return [
        ("run on", ", ".join(premise([backward]))),
        ("dx", f"{count(rows.total)} {plural(noun, rows.total)}: {', '.join(_classes(rows)) or 'all good'}"),
        (
            "flushed",
            f"{of(lost.count, lost.of)} ({figure(100 * lost.share)}%), {count(lost.ideal)} by their size alone",
        ),
        *((name, of(tally.count, tally.of)) for name, tally in tallies),
        ("error of dx", _error(backward.deviation.relative_rms, backward.deviation.ideal.relative_rms)),
        *((f"gradient of {GREEK[name]}", _parameter(each)) for name, each in backward.parameters.items()),
        ("headroom", " ".join(filter(None, _room(backward)))),
        ("safe loss scale", powers(backward.safe_loss_scale)),
    ]


def _parameter(each: ParameterGradient) -> str:
    """Return all that is said of the gradient of gamma or beta."""
    lost = [f"{count(getattr(each, name))} {name}" for name in ("nonfinite", "flushed") if getattr(each, name)]
    sums = f"{count(each.count)} {plural('sum', each.count)} over {count(each.elements)} elements in {each.format}"
    return ", ".join([sums, *lost, f"error {_error(each.relative_rms, each.ideal)}"])


def _error(relative_rms: float | None, ideal: float | None) -> str:
    return f"{figure(relative_rms)} relative rms, {multiple(relative_rms, ideal)}"


def _name(title: str) -> Column[Item]:
    return Column(title, lambda item: str(getattr(item.shown.result, title)))


def _line(title: str, cell: Cell) -> Column[Item]:
    return Column(title, lambda item: " ".join(filter(None, cell(item.backward))))


def _stack(title: str, *cells: Cell) -> Column[Item]:
    return Column(title, lambda item: "\n".join(part for cell in cells for part in cell(item.backward)))


_FIGURES = (
    _line("rows bad", _rows),
    _line("overflow", _overflow),
    _line("flushed", _flushed),
    _line("deviation", _deviation),
    _line("of ideal", _multiple),
    _line("of γ and β", _parameters),
    _line("headroom", _room),
    _line("safe loss scale", _safe),
)
_STACKS = (
    _stack("rows bad", _rows),
    _stack("overflow", _overflow),
    _stack("flushed", _flushed),
    _stack("deviation\nof γ and β", _deviation, _multiple, _parameters),
    _stack("headroom\n\nsafe loss scale", _room, _safe),
)


def layouts(items: Sequence[Item]) -> tuple[Layout[Item], ...]:
    """Return the layouts for these, the widest first; headroom is that of the loss scale."""
    modes = [_name("mode")] * (len({item.shown.result.mode for item in items}) > 1)
    layers: Column[Item] = Column("layers", lambda item: _layers(item.shown))
    told = [layers] * any(item.shown.layers for item in items)
    names = (*told, *map(_name, ("norm", "precision", "implementation")), *modes)
    return Layout((*names, *_FIGURES)), Layout(_STACKS, above=_above)


def _layers(shown: Shown) -> str:
    """Return which layers; the others parts of their name say whose the forward pass's figures are."""
    return " ".join(shown.layers[:1])


def _above(item: Item) -> str:
    result = item.shown.result
    return f"{_layers(item.shown)}: {kernel(result)}" if item.shown.layers else where(result)


# ------------------------------------------------------------------------------------------- layers as one


def merged(passes: Sequence[Backward]) -> Backward:
    """Return the backward passes of several layers as one: counts are sums, figures those of the worst."""
    if len(passes) == 1:
        return passes[0]
    tightest = min(passes, key=lambda each: math.inf if each.overflow_bits is None else each.overflow_bits)
    furthest = max(passes, key=lambda each: error_size(each.deviation.relative_rms))
    lost, total = (sum(getattr(each.flushed, name) for each in passes) for name in ("count", "of"))
    return replace(
        tightest,
        rows=GradientRows(**{n: sum(getattr(each.rows, n) for each in passes) for n in GradientRows.__slots__}),
        overflow=tally_sum(each.overflow for each in passes),
        underflow=tally_sum(each.underflow for each in passes),
        invalid=tally_sum(each.invalid for each in passes),
        absorbed=tally_sum(each.absorbed for each in passes),
        deviation=furthest.deviation,
        flushed=Flushed(
            count=lost,
            of=total,
            share=lost / total if total else 0.0,
            ideal=sum(each.flushed.ideal for each in passes),
        ),
        safe_loss_scale=common([each.safe_loss_scale for each in passes]),
        weight=_as_one([each.weight for each in passes]),
        bias=_as_one([each.bias for each in passes]),
    )


def _as_one(gradients: Sequence[ParameterGradient | None]) -> ParameterGradient | None:
    """Return the gradients of the gammas, or of the betas, of several layers as one."""
    every = [each for each in gradients if each is not None]
    if not every:
        return None
    worst = max(every, key=lambda each: error_size(each.relative_rms))
    count, nonfinite, flushed = (sum(getattr(each, n) for each in every) for n in ("count", "nonfinite", "flushed"))
    return replace(worst, count=count, nonfinite=nonfinite, flushed=flushed)


def error_size(relative_rms: float | None) -> float:
    """Return what orders deviations: NaN is the largest, none at all (nothing finite) the least."""
    return -math.inf if relative_rms is None else math.inf if math.isnan(relative_rms) else relative_rms


def tally_sum(tallies: Iterable[Tally]) -> Tally:
    """Return events of several layers: rows only where all know them."""
    every = list(tallies)
    rows = [tally.rows for tally in every if tally.rows is not None]
    total = sum(rows) if len(rows) == len(every) else None
    return Tally(count=sum(tally.count for tally in every), of=sum(tally.of for tally in every), rows=total)


def common(intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the factors that are safe for all; None where there are none."""
    known = [interval for interval in intervals if interval is not None]
    low, high = max((i[0] for i in known), default=0.0), min((i[1] for i in known), default=0.0)
    return (low, high) if len(known) == len(intervals) and low <= high else None
