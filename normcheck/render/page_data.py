"""The data of a page, for its own script: one object for the table, and a line of JSON for each thing looked at singly.

Text is made visible, figures have four significant digits, and those that are
not finite are strings. What could end a script, or begin a comment in one, is escaped.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from markupsafe import Markup

from normcheck.render import gradients, page_text
from normcheck.render.figures import bits, count, figure, interval, number, of, times
from normcheck.render.groups import findings_of, grouped
from normcheck.render.layer_facts import cast, facts_of
from normcheck.render.layout import inline, printable
from normcheck.render.places import concerns, plural, worst_first
from normcheck.render.strip import edges
from normcheck.render.views import condition
from normcheck.results import ROW_KINDS, VERDICTS, Distance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from normcheck.render.groups import Group
    from normcheck.results import Finding, FormatFacts, Report, Result, Step

_DEVIATIONS = tuple(Distance.__slots__)
_EVENTS = ("overflow", "underflow", "subnormal", "invalid", "absorbed", "rows affected", "cancelled bits")
"""What is counted in a step, in the order of `_step`."""

_FACTS = (
    "input",
    "rows",
    "eps",
    "constant",
    "parameters",
    "overflow",
    "underflow",
    "invalid",
    "absorbed",
    "headroom",
    "underflow room",
    "safe scale",
    "safe |x|",
    "statistic",
    "eps share",
    "representation",
    "scale ratio",
)


class Block(NamedTuple):
    """Data under a name: lines of JSON."""

    name: str
    lines: Iterator[Markup]


class Order:
    """The results, the worst first; the findings in groups, and one after the other; and which are about which."""

    def __init__(self, report: Report) -> None:
        self.results = worst_first(report.results)
        self.groups = grouped(report)
        self.findings = findings_of(self.groups)
        about: dict[tuple[str | None, str], list[int]] = defaultdict(list)
        for index, finding in enumerate(self.findings):
            about[finding.layer, finding.norm].append(index)
        self.of_result = [
            tuple(i for i in about.get((r.layer, r.norm), ()) if concerns(self.findings[i], r)) for r in self.results
        ]


def blocks(report: Report, order: Order) -> Iterator[Block]:
    """Yield the blocks of data; their lines are made one by one."""
    yield Block("table", iter([_json(_table(report, order))]))
    yield Block("results", _results(order))
    yield Block("layers", (_json(facts_of(layer, ())) for layer in report.layers))
    yield Block("findings", (_json(_finding(f, group)) for group in order.groups for f in group.findings))
    yield Block("changes", map(_json, page_text.changed(report.comparison)))


# ------------------------------------------------------------------------------------------------ the table


def _table(report: Report, order: Order) -> dict[str, Any]:
    """Return what the table is made of, column by column: strings by their place among the different ones."""
    results = order.results
    layers: dict[str, int] = {}
    for index, layer in enumerate(report.layers):
        layers.setdefault(layer.name, index)
    return {
        "count": len(results),
        "text": {
            "verdict": {"values": VERDICTS, "at": [VERDICTS.index(result.verdict) for result in results]},
            "layer": _coded(result.layer or "" for result in results),
            **{name: _coded(getattr(r, name) for r in results) for name in ("norm", "precision", "implementation")},
            "mode": _coded(result.mode for result in results),
            "rules": _coded(_rules(order.findings[i] for i in indices) for indices in order.of_result),
            "headroom_step": _coded(result.headroom.overflow_step or "" for result in results),
        },
        "figures": {
            "bad": [result.rows.bad for result in results],
            "rows": [result.rows.total for result in results],
            "overflow": [result.overflow.count for result in results],
            "operations": [result.overflow.of for result in results],
            "deviation": [_short(result.deviation.relative_rms) for result in results],
            "multiple": [_short(times(r.deviation.relative_rms, r.deviation.ideal.relative_rms)) for r in results],
            "headroom": [_short(result.headroom.overflow_bits) for result in results],
            "low": [_safe(result, 0) for result in results],
            "high": [_safe(result, 1) for result in results],
        },
        "unasked": [index for index, result in enumerate(results) if not result.asked],
        "layer_of": [layers.get(result.layer or "", -1) for result in results],
        "formats": list(map(_format, report.formats)),
        "facts": _FACTS,
        "deviations": _DEVIATIONS,
        "events": _EVENTS,
        "rule_titles": {rule.code: rule.title for rule in report.rules},
    }


def _format(form: FormatFacts) -> dict[str, Any]:
    """Return the range of a format as exponents of 2."""
    return {"name": inline(form.name), "label": inline(form.label), "ends": edges(form)}


def _coded(values: Iterable[str]) -> dict[str, Any]:
    places: dict[str, int] = {}
    at = [places.setdefault(value, len(places)) for value in values]
    return {"values": list(map(inline, places)), "at": at}


def _rules(found: Iterable[Finding]) -> str:
    """Return the rules that fired, the worst first, each with its severity: ``error NC102|note NC202``."""
    return "|".join(dict.fromkeys(f"{finding.severity} {finding.rule}" for finding in found))


def _safe(result: Result, end: int) -> float | str | None:
    """Return an end of the safe scale; "none" where there is none, nothing where nobody looked for it."""
    if result.safe_scale is None:
        return "none" if result.asked else None
    return _short(result.safe_scale[end])


# ------------------------------------------------------------------------------------------------- details


def _results(order: Order) -> Iterator[Markup]:
    """Yield what is shown of a result when it is opened."""
    for result, indices in zip(order.results, order.of_result, strict=True):
        yield _json(_detail(result, indices))


def _detail(result: Result, findings: Sequence[int]) -> dict[str, Any]:
    exponents, room = result.input.exponents, result.headroom
    return {
        "facts": _facts(result),
        "exponents": exponents and [exponents.lowest, exponents.counts, exponents.zeros, exponents.nonfinite],
        "steps": [_step(step) for step in result.steps],
        "headroom": [_short(room.overflow_bits), room.overflow_step and inline(room.overflow_step)],
        "deviation": [_short(getattr(result.deviation, name)) for name in _DEVIATIONS],
        "ideal": [_short(getattr(result.deviation.ideal, name)) for name in _DEVIATIONS],
        "worst": [
            [row.index, row.kind, _short(row.s), _short(row.s_emulated), inline(row.first_bad_step or "")]
            for row in result.worst_rows
        ],
        "noun": result.shape.row,
        "findings": findings,
        **_gradient(result),
    }


def _gradient(result: Result) -> dict[str, Any]:
    """Return what is shown of the backward pass; nothing where there is none."""
    if result.backward is None:
        return {}
    facts, steps = gradients.facts(result.backward, result.shape.row), result.backward.steps
    return {"backward": {"facts": facts, "steps": [_step(step) for step in steps]}}


def _step(step: Step) -> list[Any]:
    """Return a step: name, format, degree, operations, largest, smallest, lost mass, events up to the last there is."""
    head = [step.step, step.format, step.degree, step.operations]
    sizes = [_short(step.max_abs), _short(step.min_abs), _short(step.lost_mass)]
    events = [
        *(step.overflow, step.underflow, step.subnormal, step.invalid, step.absorbed, step.rows_affected),
        _short(step.cancelled_bits),
    ]
    while events and events[-1] == 0:
        events.pop()
    return head + sizes + events


def _facts(result: Result) -> list[str]:
    """Return the facts named by `_FACTS`; empty where there is nothing to say."""
    rows, room, statistic, source = result.rows, result.headroom, result.statistic, result.input
    nouns = plural(result.shape.row, rows.total)
    bad = [f"{count(n)} {name}" for name in ROW_KINDS if (n := getattr(rows, name))]
    odd = [
        f"{count(n)} {name}" for name in ("zero", "flushed", "negative") if (n := getattr(statistic, f"{name}_rows"))
    ]
    constant = f"{result.constant}" + (f", k = {result.k}" if result.k is not None else "")
    return [
        f"{source.source}{' (assumed)' * source.assumed}, {count(source.elements)} elements",
        f"{count(rows.total)} {nouns} of {count(result.shape.size)} elements: {', '.join(bad) or 'all good'}",
        f"{number(result.eps)} on the {result.eps_on} ({result.eps_source})",
        constant if result.constant else "",
        f"{result.params}" + (f"; {cast(result.parameters)}" if result.parameters else ""),
        *(_tally(result, name) for name in ("overflow", "underflow", "invalid", "absorbed")),
        _room(room.overflow_bits, room.overflow_step),
        _room(room.underflow_bits, room.underflow_step),
        interval(result.safe_scale) if result.asked or result.safe_scale else "",
        f"no input with |x| up to {figure(result.safe_magnitude)} overflows"
        if result.safe_magnitude is not None
        else "",
        ", ".join(
            [f"off by up to {figure(statistic.max_relative_error)} of itself", *(f"{text} rows" for text in odd)]
        ),
        f"up to {figure(statistic.eps_share_max)} of what it is added to",
        f"rounding the input alone: {figure(result.representation.relative_rms)} rms of the output",
        f"statistic over deviation: {figure(result.scale_ratio.mean)} (cv {figure(result.scale_ratio.cv)})",
    ]


def _room(left: float | None, step: str | None) -> str:
    return "" if left is None else " ".join(bits(left, step))


def _tally(result: Result, name: str) -> str:
    """Return events of operations, and in how many rows where that is known."""
    tally = getattr(result, name)
    rows = (
        f" in {count(tally.rows)} {plural(result.shape.row, tally.rows)}"
        if tally.count and tally.rows is not None
        else ""
    )
    return of(tally.count, tally.of) + rows


def _finding(finding: Finding, group: Group) -> list[str]:
    """Return a finding, and on which condition it holds; nothing where that is what was asked for."""
    line = page_text.item_of(finding)
    only = "" if group.asked else condition([finding])
    return [finding.severity, line.where, line.text, finding.rule, finding.fix, only]


# ---------------------------------------------------------------------------------------------------- JSON


def _short(value: float | None) -> float | str | None:
    """Return a figure with four significant digits; integers whole, what is not finite as a string."""
    if value is None or isinstance(value, int):
        return value
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 10**15 else short


def _json(data: Any) -> Markup:
    """Return data as one line of JSON in which nothing is markup, in whatever state a parser is."""
    text = _encoded(data)
    if text is None or "\\" in text or not text.isprintable():  # seldom: something needs to be made visible
        text = _encoded(_visible(data)) or ""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  # nothing of it can be markup any more


def _encoded(data: Any) -> str | None:
    """Return data as JSON; None where text of it is no Unicode."""
    try:
        return msgspec.json.encode(data).decode()
    except UnicodeEncodeError:
        return None


def _visible(data: Any) -> Any:
    """Return data with control characters, bidi marks and lone surrogates in all its text escaped."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, dict):
        return {printable(key): _visible(value) for key, value in data.items()}
    return list(map(_visible, data)) if isinstance(data, list | tuple) else data
