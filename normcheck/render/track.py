"""A series of checkpoints as text: a table of layers, worst first, then findings; as Markdown; as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render.figures import ABSENT, figure
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column, Layout, Lines, inline, pairs, paragraph, table
from normcheck.render.layout import pieces as laid_out
from normcheck.render.markdown_text import cell, code, prose
from normcheck.render.places import counted
from normcheck.results import SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from normcheck.results.track import Lost, Spread, TrackedLayer, TrackFinding, TrackReport

_SHOWN = 6
"""So many messages of a kind of finding are told; JSON has all."""
_SCOPES = {"channel": "each channel", "tensor": "as a whole", "none": "no", "unknown": "unknown"}
_LEGEND = (
    "norm: median of the channels, in the last checkpoint and over the first. eff. step: effective step size, "
    "lr/norm^2 for SGD and lr/norm for Adam and its kin, likewise; it says how fast directions move only where a "
    "weight is scale invariant. turned: median angle since the checkpoint before. update: that of one step over the "
    "weight. lost: share of weights that a step would leave as they are, were they kept in that format; ~ by an "
    "estimate of the step."
)


def pieces(report: TrackReport, *, width: int, color: bool = False, top: int | None = None) -> Iterator[str]:
    """Yield the report as a page for a terminal of so many columns; `top` is how many layers it shows at most."""
    shown = report.layers[:top]
    parts: list[Lines] = [pairs(_facts(report), width=width)]
    if shown:
        parts.append(table(shown, _layouts(report), width=width))
        if len(shown) < len(report.layers):
            parts.append(paragraph(f"{len(report.layers) - len(shown)} more layers are not shown", width=width))
        parts.append(paragraph(_LEGEND, width=width))
    parts += [_findings(report, width), _left_out(report, width), paragraph(verdict(report), width=width)]
    yield from laid_out(parts, color=color)


def json_pieces(report: TrackReport) -> Iterator[str]:
    """Yield the report as strict JSON."""
    yield dumps(to_plain(report))


def markdown_pieces(report: TrackReport, *, top: int | None = None) -> Iterator[str]:
    """Yield the report as Markdown."""
    yield f"## normcheck track: {verdict(report)}\n\n"
    yield from (f"* {name}: {prose(value)}\n" for name, value in _facts(report))
    columns = _wide(report)
    if report.layers:
        yield f"\n| {' | '.join(column.title for column in columns)} |\n|{'---|' * len(columns)}\n"
    for layer in report.layers[:top]:
        yield f"| {' | '.join(cell(column.cell(layer)) for column in columns)} |\n"
    for _, group in _grouped(report.findings):
        yield f"\n**{group[0].severity}: {group[0].kind}**\n\n"
        yield from (f"* {prose(text)}\n" for text in _messages(group))
        yield f"\nFix: {prose(group[0].fix)}\n"
    left = [*report.unreadable, *report.skipped]
    if left:
        yield "\n" + "".join(f"* {code(inline(item.name))}: {prose(item.reason)}\n" for item in left)


def failures(report: TrackReport) -> int:
    """Return how many findings fail the run."""
    if report.fail_on == "never":
        return 0
    failing = SEVERITIES[: SEVERITIES.index(report.fail_on) + 1]
    return sum(finding.severity in failing for finding in report.findings)


def verdict(report: TrackReport) -> str:
    """Return what became of the run, in a line."""
    if report.unreadable:
        outcome = f"failed: {counted(len(report.unreadable), 'checkpoint')} could not be read"
    elif not report.layers:
        outcome = "failed: no weight was followed"
    else:
        failed = failures(report)
        outcome = f"failed: {counted(failed, 'finding')} at or above {report.fail_on}" if failed else "passed"
    many = [counted(sum(f.severity == s for f in report.findings), s) for s in SEVERITIES]
    return f"{outcome}; {', '.join(many)}, {counted(len(report.layers), 'layer')}"


def _facts(report: TrackReport) -> list[tuple[str, str]]:
    checkpoints = report.checkpoints
    if not checkpoints:
        return []
    paths = list(dict.fromkeys([checkpoints[0].path, checkpoints[-1].path]))
    rates = list(dict.fromkeys(rate for checkpoint in checkpoints for rate in checkpoint.lr))
    optimizers = list(dict.fromkeys(c.optimizer for c in checkpoints if c.optimizer))
    sources = {point.update_from for layer in report.layers for point in layer.points} - {None}
    told = {"optimizer": "the optimizer's state", "difference": "the difference of checkpoints"}
    return [
        ("checkpoints", f"{len(checkpoints)}: {' to '.join(map(inline, paths))}"),
        ("optimizer", ", ".join(optimizers) or "unknown, SGD assumed"),
        ("lr", _few([figure(rate) for rate in rates]) or "unknown"),
        ("updates from", " and ".join(told[s] for s in sorted(filter(None, sources), reverse=True)) or "nowhere"),
    ]


def _few(texts: Sequence[str]) -> str:
    return ", ".join(texts) if len(texts) <= 4 else f"{texts[0]}, {texts[1]}, ... {texts[-1]}"


# ------------------------------------------------------------------------------------------------ the table


def _median(value: Spread | None) -> str:
    return figure(None if value is None else value.median)


def _norm(layer: TrackedLayer) -> str:
    return _median(layer.points[-1].channel_norms)


def _norm_ratio(layer: TrackedLayer) -> str:
    return figure(layer.drift.norm_ratio.median) if layer.drift else ABSENT


def _step(layer: TrackedLayer) -> str:
    return _median(layer.points[-1].effective_step)


def _step_ratio(layer: TrackedLayer) -> str:
    return figure(layer.drift.step_ratio.median) if layer.drift else ABSENT


def _turned(layer: TrackedLayer) -> str:
    angle = layer.points[-1].angle_degrees
    return ABSENT if angle is None else f"{figure(angle.median)}°"


def _update(layer: TrackedLayer) -> str:
    return figure(next((p.relative_update for p in reversed(layer.points) if p.update_from), None))


def _shares(layer: TrackedLayer) -> tuple[tuple[Lost, ...], bool]:
    point = next((p for p in reversed(layer.points) if p.lost), None)
    return (point.lost, point.estimated) if point else ((), False)


def _lost(index: int) -> Callable[[TrackedLayer], str]:
    def text(layer: TrackedLayer) -> str:
        shares, estimated = _shares(layer)
        if not shares or shares[index].share is None:
            return ABSENT
        return f"{'~' * estimated}{100 * (shares[index].share or 0):.3g} %"

    return text


def _stacked(*parts: Callable[[TrackedLayer], str]) -> Callable[[TrackedLayer], str]:
    return lambda layer: "\n".join(part(layer) for part in parts)


def _name(layer: TrackedLayer) -> str:
    return inline(layer.name)


def _precisions(report: TrackReport) -> list[str]:
    return list(report.settings["precision"])


def _wide(report: TrackReport) -> tuple[Column[TrackedLayer], ...]:
    return (
        Column("layer", _name),
        Column("channels", lambda layer: str(layer.channels), right=True),
        Column("scale invariant", lambda layer: _SCOPES[layer.scope]),
        Column("norm", _norm, right=True),
        Column("x first", _norm_ratio, right=True),
        Column("eff. step", _step, right=True),
        Column("x first", _step_ratio, right=True),
        Column("turned", _turned, right=True),
        Column("update", _update, right=True),
        *(Column(f"lost {name}", _lost(i), right=True) for i, name in enumerate(_precisions(report))),
    )


def _layouts(report: TrackReport) -> list[Layout[TrackedLayer]]:
    lost = tuple(Column(f"lost\n{name}", _lost(i), right=True) for i, name in enumerate(_precisions(report)))
    stacked: tuple[Column[TrackedLayer], ...] = (
        Column("norm\nx first", _stacked(_norm, _norm_ratio), right=True),
        Column("eff. step\nx first", _stacked(_step, _step_ratio), right=True),
        Column("turned\nupdate", _stacked(_turned, _update), right=True),
        *lost,
    )
    told: Column[TrackedLayer] = Column(
        "channels\nscale invariant", _stacked(lambda layer: str(layer.channels), lambda layer: _SCOPES[layer.scope])
    )
    return [
        Layout((*_wide(report), Column("because", lambda layer: layer.how, prose=True))),
        Layout(_wide(report)),
        Layout((told, *stacked), above=_name),
    ]


# ----------------------------------------------------------------------------------------------- the findings


def _grouped(findings: Sequence[TrackFinding]) -> Iterator[tuple[str, list[TrackFinding]]]:
    groups: dict[tuple[str, str], list[TrackFinding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    yield from ((kind, group) for (_, kind), group in groups.items())


def _messages(group: Sequence[TrackFinding]) -> Iterator[str]:
    for finding in group[:_SHOWN]:
        about = " ".join(inline(part) for part in (finding.layer, finding.precision) if part)
        about = about or inline(finding.checkpoint or "")
        rests = " (rests on an assumption)" if finding.assumed else ""
        yield f"{about}: {finding.message}{rests}" if about else f"{finding.message}{rests}"
    if len(group) > _SHOWN:
        yield f"and {len(group) - _SHOWN} more, which JSON has"


def _findings(report: TrackReport, width: int) -> Lines:
    lines: Lines = []
    for kind, group in _grouped(report.findings):
        lines += paragraph(kind, width=width, head=group[0].severity)
        for text in _messages(group):
            lines += paragraph(text, width=width, indent=2, hanging=2)
        lines += paragraph(f"fix: {group[0].fix}", width=width, indent=2, hanging=2)
    return lines


def _left_out(report: TrackReport, width: int) -> Lines:
    lines: Lines = []
    for word, items in (("unreadable", report.unreadable), ("skipped", report.skipped)):
        for item in items:
            reason = item.reason if item.reason.startswith(item.name) else f"{item.name}: {item.reason}"
            lines += paragraph(reason, width=width, hanging=2, head=word)
    return lines
