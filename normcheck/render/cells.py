"""The columns of the result table, in four layouts from one line a result to stacked cells under its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from normcheck.render.figures import bits, count, figure, interval, multiple, of
from normcheck.render.layout import Column, Layout
from normcheck.render.places import Shown, plural, where
from normcheck.results import ROW_KINDS

if TYPE_CHECKING:
    from normcheck.results import Tally

Cell = Callable[[Shown], list[str]]
"""The parts of a cell: joined by blanks on one line, or stacked where the width is short."""


def _verdict(shown: Shown) -> list[str]:
    return [shown.result.verdict]


def _rows(shown: Shown) -> list[str]:
    rows = shown.result.rows
    bad = of(rows.bad, rows.total)
    classes = [f"{count(getattr(rows, name))} {name}" for name in ROW_KINDS if getattr(rows, name)]
    return [f"{bad}:", *(f"{text}," for text in classes[:-1]), classes[-1]] if classes else [bad]


def _overflow(shown: Shown) -> list[str]:
    return _tally(shown.result.overflow, shown)


def _underflow(shown: Shown) -> list[str]:
    return _tally(shown.result.underflow, shown)


def _tally(tally: Tally, shown: Shown) -> list[str]:
    """Return events of operations, and in how many rows, where there were any and rows are known."""
    events, total = of(tally.count, tally.of), shown.result.rows.total
    if not tally.count or tally.rows is None:
        return [events]
    return [events, f"in {of(tally.rows, total)}", plural(shown.noun, total)]


def _deviation(shown: Shown) -> list[str]:
    return [figure(shown.result.deviation.relative_rms)]


def _multiple(shown: Shown) -> list[str]:
    deviation = shown.result.deviation
    return [multiple(deviation.relative_rms, deviation.ideal.relative_rms)]


def _gain(shown: Shown) -> list[str]:
    return [figure(shown.result.deviation.gain)]


def _noise(shown: Shown) -> list[str]:
    return [figure(shown.result.deviation.noise)]


def _headroom(shown: Shown) -> list[str]:
    return bits(shown.result.headroom.overflow_bits, shown.result.headroom.overflow_step)


def _underflow_room(shown: Shown) -> list[str]:
    return bits(shown.result.headroom.underflow_bits, shown.result.headroom.underflow_step)


def _scale(shown: Shown) -> list[str]:
    return [interval(shown.result.safe_scale)]


def _layers(shown: Shown) -> list[str]:
    return [*shown.layers]


def _rules(shown: Shown) -> list[str]:
    return [*shown.rules]


def _bound(shown: Shown) -> list[str]:
    bound = shown.result.safe_magnitude
    return [] if bound is None else [f"|x| <= {figure(bound)}"]


def _name(title: str, field: str) -> Column[Shown]:
    return Column(title, lambda shown: getattr(shown.result, field) or "")


def _line(title: str, cell: Cell) -> Column[Shown]:
    return Column(title, lambda shown: " ".join(filter(None, cell(shown))))


def _stack(title: str, *cells: Cell) -> Column[Shown]:
    return Column(title, lambda shown: "\n".join(part for cell in cells for part in cell(shown)))


_VERDICT = _name("verdict", "verdict")
_NAMES = (_name("norm", "norm"), _name("precision", "precision"), _name("implementation", "implementation"))

_LINES = (
    _line("rows bad", _rows),
    _line("overflow", _overflow),
    _line("underflow", _underflow),
    _line("deviation", _deviation),
    _line("of ideal", _multiple),
    _line("gain", _gain),
    _line("noise", _noise),
    _line("headroom", _headroom),
    _line("underflow room", _underflow_room),
    _line("safe scale", _scale),
)
_STACKS = (
    _stack("rows bad", _rows),
    _stack("overflow", _overflow),
    _stack("underflow", _underflow),
    _stack("deviation", _deviation, _multiple),
    _stack("gain\nnoise", _gain, _noise),
    _stack("headroom", _headroom),
    _stack("underflow room", _underflow_room),
    _stack("safe scale", _scale),
)
_NARROW = (
    _stack("verdict\nrows bad", _verdict, _rows),
    _stack("overflow", _overflow),
    _stack("underflow", _underflow),
    _stack("deviation", _deviation, _multiple),
    _stack("headroom\n\nsafe scale", _headroom, _scale),
)

_OF_LAYERS = (
    _stack("rows bad", _rows),
    _stack("overflow", _overflow),
    _stack("underflow", _underflow),
    _stack("deviation", _deviation, _multiple),
    _stack("headroom", _headroom),
    _stack("safe scale\nand |x|", _scale, _bound),
)
_OF_LAYERS_NARROW = (
    _stack("rows bad", _rows),
    _stack("overflow", _overflow),
    _stack("deviation", _deviation, _multiple),
    _stack("headroom\nsafe scale\nand |x|", _headroom, _scale, _bound),
)


def layouts(shown: list[Shown]) -> list[Layout[Shown]]:
    """Return the layouts for these results, the widest first."""
    layers, modes = ({getattr(item.result, field) for item in shown} for field in ("layer", "mode"))
    told = [*([_name("layer", "layer")] * (layers != {None})), *([_name("mode", "mode")] * (len(modes) > 1))]
    return [
        Layout((_VERDICT, *told, *_NAMES, *_LINES)),
        Layout((_VERDICT, *told, *_NAMES, *_STACKS)),
        Layout((_VERDICT, *_STACKS), above=_above),
        Layout(_NARROW, above=_above),
    ]


def layouts_of_layers(shown: list[Shown]) -> list[Layout[Shown]]:
    """Return the layouts for the folded layers of a model, the widest first."""
    modes = [_name("mode", "mode")] * (len({item.result.mode for item in shown}) > 1)
    verdict = _stack("verdict\nrules", _verdict, _rules)

    def above(item: Shown) -> str:
        mode = f" {item.result.mode}" * bool(modes)
        named = (item.result.norm, item.result.precision, item.result.implementation)
        return f"{phrase(item.layers)}: {' '.join(named)}{mode}"

    layers: Column[Shown] = Column("layers", lambda item: phrase(item.layers))
    return [
        Layout((_VERDICT, _line("rules", _rules), layers, *_NAMES, *modes, *_LINES, _line("safe |x|", _bound))),
        Layout((_VERDICT, _stack("rules", _rules), _stack("layers", _layers), *_NAMES, *modes, *_OF_LAYERS)),
        Layout((verdict, *_OF_LAYERS), above=above),
        Layout((verdict, *_OF_LAYERS_NARROW), above=above),
        Layout((_stack("verdict\nrules\nrows bad", _verdict, _rules, _rows), *_OF_LAYERS_NARROW[1:]), above=above),
    ]


def phrase(layers: tuple[str, ...]) -> str:
    """Return which layers, and in brackets how many and which are the worst."""
    names, *notes = layers
    return f"{names} ({'; '.join(notes)})" if notes else names


def _above(shown: Shown) -> str:
    return where(shown.result)
