"""Where a report goes: one to standard output, and one to a file if asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from normcheck.cli.files import STDOUT, check_writable, emit, write_whole
from normcheck.cli.terminal import color, width
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from normcheck.results import Report


class ReportFormat(StrEnum):
    """How a report is shown on standard output."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What goes where.

    Attributes:
        stdout: the format on standard output.
        json_path: where a JSON report goes besides; None for nowhere.
        steps: whether the table shows the steps of each result.
        top: how many rows a model's table shows at most; None for all.
    """

    stdout: ReportFormat
    json_path: str | None
    steps: bool = False
    top: int | None = None


def delivery(
    stdout: ReportFormat | None, json_path: str | None, *, steps: bool = False, top: int | None = None
) -> Delivery:
    """Return what the options ask for, once it is known that it can be done.

    Raises:
        UsageError: the options contradict each other, or the file cannot be written.
    """
    if json_path == STDOUT:
        if stdout is not None:
            raise UsageError(f"--format {stdout.value} and --json - both write to standard output: give one of them")
        stdout, json_path = ReportFormat.JSON, None
    if steps and stdout not in (None, ReportFormat.TABLE):
        raise UsageError("--steps is for the table: JSON reports always hold all steps; leave it out")
    if top is not None and top < 1:
        raise UsageError(f"--top {top}: give 1 or more, or leave it out to see all rows")
    if json_path is not None:
        check_writable(json_path)
    return Delivery(stdout or ReportFormat.TABLE, json_path, steps, top)


def deliver(report: Report, to: Delivery) -> None:
    """Write the file first: a reader of standard output that goes away must not cost it."""
    from normcheck.render import json_report

    if to.json_path is not None:
        write_whole(to.json_path, json_report.render(report))
    emit(_rendered(report, to), None if to.stdout is ReportFormat.TABLE else "utf-8")


def _rendered(report: Report, to: Delivery) -> str:
    from normcheck.render import json_report, jsonl, table

    match to.stdout:
        case ReportFormat.TABLE:
            return table.render(
                report, width=width(), color=color(), row_noun=_row_noun, with_steps=to.steps, top=to.top
            )
        case ReportFormat.JSON:
            return json_report.render(report)
        case ReportFormat.JSONL:
            return jsonl.render(report)


def _row_noun(norm: str) -> str:
    from normcheck.norms.table import norm_named

    return norm_named(norm).row_noun
