"""What stands under the result table: findings, what was skipped, what was not seen, and the verdict."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from normcheck.render.figures import bits, figure, of
from normcheck.render.layout import Lines, inline, paragraph
from normcheck.render.places import Shown, concerns, counted, distinct, plural, where
from normcheck.results import SEVERITIES, Finding, Report, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RULE_OF_THREE = 3.0
"""0 events in N independent samples bound the rate by 3/N with 95 % confidence: (1 - 3/N)^N = 0.05."""


def findings(report: Report, width: int) -> Lines:
    """Return the findings, the worst first: one paragraph a rule and remedy, equal messages folded."""
    lines: Lines = []
    for (_, rule, fix), group in groupby(sorted(report.findings, key=remedy), key=remedy):
        found = list(group)
        lines += paragraph(rule, width=width, head=found[0].severity)
        for text in _messages(found):
            lines += paragraph(text, width=width, indent=2, hanging=2)
        lines += paragraph(f"fix: {fix}", width=width, indent=2, hanging=2) if fix else []
    return lines


def remedy(finding: Finding) -> tuple[int, str, str]:
    """Return what findings are put together by: severity, the worst first, rule and fix."""
    return SEVERITIES.index(finding.severity), finding.rule, finding.fix


def _messages(found: list[Finding]) -> Iterator[str]:
    """Yield each message once, after everything that it holds for."""
    places: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        places.setdefault(told(finding), []).append(where(finding))
    for (step, message), names in places.items():
        yield f"{', '.join(distinct(names))}{step}: {message}"


def told(finding: Finding) -> tuple[str, str]:
    """Return at which step, where the message does not begin with it, and the message with what it rests on."""
    message = finding.message + (" (rests on an assumption)" if finding.assumed else "")
    return "" if finding.step and message.startswith(finding.step) else at(finding.step), message


def left_out(report: Report, width: int) -> Lines:
    """Return how many findings are not in the report: those deselected, and those that its baseline has."""
    ignored, known = report.summary.ignored, report.summary.known
    facts = [
        f"{counted(ignored, 'finding')} deselected (--select, --ignore)" if ignored else "",
        f"{counted(known, 'finding')} known from the baseline" if known else "",
    ]
    told = [fact for fact in facts if fact]
    return paragraph(f"not shown: {', '.join(told)}", width=width, hanging=2) if told else []


def skipped(report: Report, width: int) -> Lines:
    """Return what was asked for and not analysed, and why."""
    texts = [f"skipped {inline(item.name)}: {item.reason}" for item in report.skipped]
    return [line for text in texts for line in paragraph(text, width=width, hanging=2)]


def unseen(shown: list[Shown], width: int) -> Lines:
    """Return what "no overflow" is worth: the rule of three, for elements and for rows."""
    clean = (item for item in shown if not _overflows(item.result) and item.result.rows.total)
    texts = distinct(map(_bound, clean))
    return [line for text in texts for line in paragraph(text, width=width, hanging=2)]


def _overflows(result: Result) -> bool:
    """Whether a step of either pass overflowed."""
    return bool(result.overflow.count or (result.backward is not None and result.backward.overflow.count))


def _bound(shown: Shown) -> str:
    elements, rows = shown.result.input.elements, shown.result.rows.total
    seen = f"{elements} {plural('element', elements)} of {rows} {plural(shown.noun, rows)}"
    return (
        f"no overflow in {seen}: with 95% confidence it strikes at most "
        f"{figure(rule_of_three(elements))} of all elements (3/N) "
        f"and {figure(rule_of_three(rows))} of all {shown.noun}s"
    )


def rule_of_three(samples: int) -> float:
    """Return what share of all samples is hit at most, with 95 % confidence, where none of so many was."""
    return min(_RULE_OF_THREE / max(samples, 1), 1.0)


def verdict(report: Report, shown: list[Shown], width: int) -> Lines:
    """Return the verdict in a sentence: the worst result, what befell it at which step, and the remedy."""
    if not shown:
        return paragraph("nothing was analysed", width=width)
    worst = shown[0]
    found = found_on(worst.result, report.findings)
    text = f"{where(worst.result)}: {befell(worst, found)}; {fix_of(found, report)}"
    return paragraph(text, width=width, hanging=2, head=worst.result.verdict)


def found_on(result: Result, every: Iterable[Finding]) -> list[Finding]:
    """Return the findings on a result, the worst first."""
    return sorted((finding for finding in every if concerns(finding, result)), key=remedy)


def fix_of(found: list[Finding], report: Report) -> str:
    """Return the fix of the worst finding that has one; against a baseline what was known is not found."""
    nothing = "nothing that the baseline does not have" if report.summary.known else "nothing to change"
    return next((finding.fix for finding in found if finding.fix), nothing)


def befell(shown: Shown, found: list[Finding]) -> str:
    """Return the worst row of a result, or the worst rules that fired on it, and how much room it has."""
    result = shown.result
    if result.worst_rows:
        row = result.worst_rows[0]
        bad = f"{of(result.rows.bad, result.rows.total)} {plural(shown.noun, result.rows.total)} bad"
        return f"{bad}, the worst {shown.noun} {row.index}: {row.kind}{at(row.first_bad_step)}"
    worst = [f.rule + at(f.step) for f in found if f.severity == found[0].severity and result.verdict != "ok"]
    return ", ".join([*dict.fromkeys(worst), _room(result)])


def _room(result: Result) -> str:
    room = result.headroom
    if room.overflow_bits is None:
        return "no step overflows at any scale"
    return " ".join(["headroom", *bits(room.overflow_bits, room.overflow_step)])


def at(step: str | None) -> str:
    """Return at which step something is, with a blank before it; nothing where that is not known."""
    return f" at {step}" if step else ""
