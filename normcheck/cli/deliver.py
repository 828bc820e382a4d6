"""Where a report goes: one to standard output, and others to files."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from normcheck.cli.files import STDOUT, check_writable, emit, write_whole
from normcheck.cli.overwriting import check_replaceable
from normcheck.cli.terminal import color, width
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from normcheck.results import Report


class ReportFormat(StrEnum):
    """How a report is shown on standard output."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"
    GITHUB = "github"


OUTPUTS = {
    "json": "normcheck.render.json_report",
    "jsonl": "normcheck.render.jsonl",
    "markdown": "normcheck.render.markdown",
    "github": "normcheck.render.github",
    "sarif": "normcheck.render.sarif",
    "junit": "normcheck.render.junit",
    "html": "normcheck.render.html",
}
"""The module of each output but the table: its ``pieces(report)`` yields the text of the whole, piece by piece."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What goes where.

    Attributes:
        stdout: the output on standard output, ``"table"`` or one of `OUTPUTS`.
        files: the path of each output that goes into a file besides.
        steps: whether the table shows the steps of each result.
        top: how many rows a model's table shows at most; None for all.
    """

    stdout: str
    files: tuple[tuple[str, str], ...] = ()
    steps: bool = False
    top: int | None = None


def delivery(
    stdout: ReportFormat | None,
    paths: Mapping[str, str | None],
    *,
    inputs: Sequence[str | None] = (),
    steps: bool = False,
    top: int | None = None,
) -> Delivery:
    """Return what the options ask for, once it is known that it can be done.

    Args:
        stdout: what --format says. paths: what the option of each output says. inputs: paths of what the run reads.
        steps, top: of the table.

    Raises:
        UsageError: the options contradict each other, or a file cannot be written, or would replace what is no report.
    """
    given = {output: path for output, path in paths.items() if path is not None}
    shown = _on_stdout(stdout, [output for output, path in given.items() if path == STDOUT])
    files = tuple((output, path) for output, path in given.items() if path != STDOUT)
    if steps and shown != ReportFormat.TABLE:
        raise UsageError("--steps is for the table: JSON reports always hold all steps; leave it out")
    if top is not None and top < 1:
        raise UsageError(f"--top {top}: give 1 or more, or leave it out to see all rows")
    for output, path in files:
        check_writable(path)
        check_replaceable(output, path, inputs)
    _check_different(files)
    return Delivery(shown, files, steps, top)


def _on_stdout(stdout: ReportFormat | None, dashes: list[str]) -> str:
    """Return the output that goes to standard output."""
    asked = [f"--format {stdout.value}"] if stdout is not None else []
    asked += [f"--{output} -" for output in dashes]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} all write to standard output: give one of them")
    return dashes[0] if dashes else (stdout or ReportFormat.TABLE).value


def _check_different(files: tuple[tuple[str, str], ...]) -> None:
    import os

    taken: dict[str, str] = {}
    for output, path in files:
        other = taken.setdefault(os.path.realpath(path), output)
        if other != output and not path.startswith("/dev/"):
            raise UsageError(f"--{other} and --{output} both write {path}: give each a file of its own")


def deliver(report: Report, to: Delivery) -> None:
    """Write the files first: a reader of standard output that goes away must not cost them."""
    for output, path in to.files:
        write_whole(path, _pieces(output, report))
    if to.stdout == ReportFormat.TABLE and report.unreadable and not (report.layers or report.skipped):
        return  # nothing could be read: standard error has said so, and the table has no more to say
    emit(_shown(report, to), None if to.stdout == ReportFormat.TABLE else "utf-8")


def _shown(report: Report, to: Delivery) -> Iterator[str]:
    if to.stdout != ReportFormat.TABLE:
        return _pieces(to.stdout, report)
    from normcheck.render import strip, table

    pieces = table.pieces(report, width=width(), color=color(), with_steps=to.steps, top=to.top)
    return (strip.legible(piece, sys.stdout.encoding) for piece in pieces)


def _pieces(output: str, report: Report) -> Iterator[str]:
    pieces: Iterator[str] = importlib.import_module(OUTPUTS[output]).pieces(report)
    return pieces
