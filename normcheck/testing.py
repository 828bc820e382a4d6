"""For tests: an assertion that the normalization layers of a model survive low precision.

Needs no test runner; pytest hides its frame and shows its message.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from normcheck.analysis.analyze import analyze
from normcheck.analysis.compare import against
from normcheck.cli.gate import read_report
from normcheck.errors import UnreadableError, unknown_name
from normcheck.render import layer_findings
from normcheck.render.counts import failing
from normcheck.render.findings import remedy
from normcheck.render.folding import Names
from normcheck.render.layout import Lines, exact, page, paragraph
from normcheck.render.places import plural
from normcheck.results import SEVERITIES, Finding, FindingCounts, Report, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 72
"""Columns of the message: with what pytest puts before a line, 80."""

_NOTHING = "normcheck: nothing was analysed"

_MOST = 6
"""So many different findings are told in full: a log is read from its first lines."""


def assert_norms_safe(
    model_or_path: Any,
    *,
    precision: str | Sequence[str] = ("fp16",),
    fail_on: Severity = "error",
    baseline: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Report:
    """Analyze a model, and raise unless its normalization layers are safe.

    Not safe is also what says nothing: a model without normalization layers, and a file that cannot be read.

    Args:
        model_or_path: a checkpoint, a directory, several of them, or a live torch module.
        precision: formats of the elements.
        fail_on: the least severe finding that fails: "error", "warning" or "note".
        baseline: a JSON report; only findings that are new or worse than in it fail.
        options: of `normcheck.analyze`, such as `inputs`, `params`, `mode`, `ignore` or `thresholds`.

    Returns:
        The report, where nothing failed.

    Raises:
        AssertionError: not safe; the message has the findings, the worst first, and what to change.
        UsageError: a name, value or combination that cannot be used.
        UnreadableError: a baseline that is no report.
    """
    __tracebackhide__ = True
    if fail_on not in SEVERITIES:
        raise unknown_name("severity", fail_on, SEVERITIES, "normcheck analyze --help")
    old = None if baseline is None else (os.fspath(baseline), read_report(os.fspath(baseline)))
    try:
        report = analyze(model_or_path, precisions=precision, **options)
    except UnreadableError as error:
        raise AssertionError(_text([exact("\n".join([_NOTHING, *map(str, error.args)]))])) from None
    report = replace(report, fail_on=fail_on)
    if old is not None:
        report = against(report, old[1], old[0])
    found = [finding for finding in report.findings if finding.severity in failing(report)]
    if found or report.unreadable or not report.results:
        raise AssertionError(_message(report, found))
    return report


def _message(report: Report, found: list[Finding]) -> str:
    """Return what is wrong: a headline, the worst findings with their fixes, and what was left out."""
    names = Names(layer.name for layer in report.layers)
    remedies = sorted({remedy(finding) for finding in found})[:_MOST]
    told = [finding for finding in found if remedy(finding) in remedies]
    asked = tuple(result for result in report.results if result.asked)
    parts = [
        exact(_headline(report, found, names)),
        layer_findings.unreadable(report, _WIDTH),
        layer_findings.findings(replace(report, findings=tuple(told), results=asked, skipped=()), names, _WIDTH),
        _left_out(report, found, told),
        [] if report.results else layer_findings.skipped(report, _WIDTH),
    ]
    return _text(parts)


def _headline(report: Report, found: list[Finding], names: Names) -> str:
    models = ", ".join(report.settings["models"])
    if not report.results:
        why = "" if report.layers else ": no normalization layers were found"
        return f"{_NOTHING} in {models}{why}"
    if not found:
        return "normcheck: not everything could be analysed"
    layers = {layer.name for layer in report.layers} & {finding.layer for finding in found}
    known = f", new or worse than in {report.comparison.old}" if report.comparison else ""
    return f"normcheck: {_counts(found)} in {names.count(len(layers))} of {models}{known}"


def _left_out(report: Report, found: list[Finding], told: list[Finding]) -> Lines:
    """Return how many findings are not told, those of each rule, and how many did not fail."""
    hidden = Counter(finding.rule for finding in found if finding not in told)
    more = f"and {hidden.total()} more: {', '.join(f'{many} {rule}' for rule, many in sorted(hidden.items()))}"
    passed = [finding for finding in report.findings if finding not in found]
    texts = [more] if hidden else []
    texts += [f"not failing: {_counts(passed)}"] if passed else []
    return [line for text in texts for line in paragraph(text, width=_WIDTH, hanging=2)]


def _text(parts: Iterable[Lines]) -> str:
    return page(parts, color=False).rstrip("\n")


def _counts(found: Iterable[Finding]) -> str:
    """Return how many findings of each severity, the worst first: ``2 errors, 1 warning``."""
    counts = asdict(FindingCounts.of(found)).items()
    return ", ".join(f"{many} {plural(severity, many)}" for severity, many in counts if many)
