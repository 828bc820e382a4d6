"""What makes a report a gate: the least severe finding that fails it, and the baseline that it is held against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from normcheck.errors import UnreadableError

if TYPE_CHECKING:
    from normcheck.cli.exit_codes import FailOn
    from normcheck.results import Report


def read_baseline(path: str | None) -> tuple[str, Report] | None:
    """Return the path and the report in it; None for no path. Read before anything is computed.

    Raises:
        UnreadableError: no file, or no whole report of this format; the message says how to make one.
    """
    if path is None:
        return None
    if not Path(path).exists():
        raise UnreadableError(f"{path}: no such file: to make a baseline, run with --json {path} instead of --baseline")
    return path, read_report(path)


def read_report(path: str) -> Report:
    """Return the report in a file, to compare another one with.

    Raises:
        UnreadableError: no file, no report of this format, or one that lacks the findings of another; the message says
            which.
    """
    from normcheck.analysis.compare import whole
    from normcheck.render.json_report import from_json

    try:
        return whole(from_json(Path(path).read_bytes()), path)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableError(f"{path}: {error}") from error


def gated(report: Report, fail_on: FailOn, baseline: tuple[str, Report] | None) -> Report:
    """Return the report with what fails it and, against a baseline, only findings that are new or worse."""
    from normcheck.analysis.compare import against

    report = replace(report, fail_on=fail_on.value)
    return report if baseline is None else against(report, baseline[1], baseline[0])
