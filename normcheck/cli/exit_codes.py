"""What the exit code says. The format of the report never changes it."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normcheck.results import Report


class ExitCode(IntEnum):
    """Exit codes of all commands; of several, 2 goes before 1."""

    CLEAN = 0
    FINDINGS = 1
    ERROR = 2
    NOTHING = 3
    INTERRUPTED = 130


class FailOn(StrEnum):
    """The least severe finding that makes a run fail."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
    NEVER = "never"


def exit_code(report: Report) -> ExitCode:
    """Return 2 where a file could not be read, 3 where a run has no results, 1 for `failures`, else 0."""
    from normcheck.render.counts import failures

    if report.unreadable:
        return ExitCode.ERROR
    if not report.results and report.command != "diff":
        return ExitCode.NOTHING
    return ExitCode.FINDINGS if failures(report) else ExitCode.CLEAN
