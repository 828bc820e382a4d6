"""``normcheck diff``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from normcheck.cli.deliver import deliver, delivery
from normcheck.cli.exit_codes import ExitCode, FailOn
from normcheck.cli.gate import read_report
from normcheck.cli.options import Debug, Fail, Format, HtmlPath, JsonPath, JunitPath, MarkdownPath, SarifPath

if TYPE_CHECKING:
    from normcheck.results import Report

Old = Annotated[str, typer.Argument(metavar="OLD.json", help="An earlier report.")]
New = Annotated[str, typer.Argument(metavar="NEW.json", help="A later one.")]


def diff(
    old: Old,
    new: New,
    *,
    form: Format = None,
    json_path: JsonPath = None,
    sarif: SarifPath = None,
    junit: JunitPath = None,
    html: HtmlPath = None,
    markdown: MarkdownPath = None,
    fail_on: Fail = FailOn.NOTE,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Compare two JSON reports: what got worse, what got better, with the figures that moved.

    Exit codes: 0 nothing got worse, 1 something did that is at or above --fail-on, 2 an error or no report.
    """
    paths = {"json": json_path, "sarif": sarif, "junit": junit, "html": html, "markdown": markdown}
    to = delivery(form, paths)
    before, after = read_report(old), read_report(new)
    from normcheck.analysis.compare import difference

    report = replace(difference(before, after, old, new), fail_on=fail_on.value)
    deliver(report, to)
    raise typer.Exit(_code(report))


def _code(report: Report) -> ExitCode:
    """Return 1 for a regression at or above `fail_on`, also where a verdict is all that tells; else 0."""
    from normcheck.results import SEVERITIES

    if report.comparison is None or report.fail_on == "never":
        return ExitCode.CLEAN
    failing = SEVERITIES[: SEVERITIES.index(report.fail_on) + 1]
    worse = any(change.severity in failing for change in report.comparison.regressions)
    return ExitCode.FINDINGS if worse else ExitCode.CLEAN
