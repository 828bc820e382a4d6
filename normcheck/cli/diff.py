"""``normcheck diff``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from normcheck.cli.deliver import deliver, delivery
from normcheck.cli.exit_codes import FailOn, exit_code
from normcheck.cli.gate import read_report
from normcheck.cli.options import Debug, Fail, Format, HtmlPath, JsonPath, JunitPath, MarkdownPath, SarifPath

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
    to = delivery(form, paths, inputs=[old, new])
    before, after = read_report(old), read_report(new)
    from normcheck.analysis.compare import difference

    report = replace(difference(before, after, old, new), fail_on=fail_on.value)
    deliver(report, to)
    raise typer.Exit(exit_code(report))
