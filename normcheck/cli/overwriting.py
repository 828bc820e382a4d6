"""Which files a report may replace: empty ones and other reports, and nothing that the run reads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from normcheck.cli.files import descriptor_of
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HEAD = 1000
"""Bytes that tell what a file is."""

_BEGINNINGS = {
    "json": re.compile(rb'\s*\{\s*"format"\s*:'),
    "sarif": re.compile(rb'\s*\{\s*"(\$schema|version|runs)"\s*:'),
    "junit": re.compile(rb"\s*(<\?xml[^>]*>)?\s*<testsuite"),
    "html": re.compile(rb"\s*<(!doctype\s+)?html", re.IGNORECASE),
    "markdown": re.compile(rb"## normcheck "),
}
"""How each output begins; that of another tool may begin so too, where it is of the same kind."""

_TEXTS = ("", ".md", ".markdown", ".txt")
"""Endings of files of prose."""


def check_replaceable(output: str, path: str, inputs: Iterable[str | None]) -> None:
    """Make sure that a report does not take the place of something else; `inputs` are paths that the run reads.

    What is there must be empty, or begin as that output does. Markdown may also replace other text, since a summary of
    a job has many authors.

    Raises:
        UsageError: it would; the message says what is there.
    """
    if descriptor_of(path) is not None:
        return
    if any(_is_same(path, source) for source in inputs if source):
        raise UsageError(f"--{output} {path}: this run reads that file: give another path, or it would be lost")
    target = Path(path)
    if not target.is_file() or _begins_as(output, _head(path)):
        return
    if output != "markdown" or target.suffix.lower() not in _TEXTS or not _is_text(_head(path)):
        raise UsageError(
            f"--{output} {path}: it exists and is no {output} report: give another path, or delete it first"
        )


def check_new(option: str, path: str, inputs: Sequence[str | None], *, overwrite: bool) -> None:
    """Make sure that a file takes the place of none, unless asked; `inputs` are what the run reads, asked or not.

    Raises:
        UsageError: it would; the message says what to do.
    """
    if any(_is_same(path, source) for source in inputs if source):
        raise UsageError(f"{option} {path}: this run reads that file: give another path, or it would be lost")
    above = Path(os.path.realpath(path)).parents
    if (within := next((s for s in inputs if s and Path(os.path.realpath(s)) in above), None)) is not None:
        raise UsageError(f"{option} {path}: this run reads the folder {within}: give a path outside of it")
    if not overwrite and descriptor_of(path) is None and os.path.lexists(path):
        raise UsageError(f"{option} {path}: it exists: give another path, or --overwrite")


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise UsageError(f"cannot write {path}: what is there cannot be read: {error.strerror}") from error


def _begins_as(output: str, head: bytes) -> bool:
    return not head or _BEGINNINGS[output].match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def _is_text(head: bytes) -> bool:
    """Whether it is UTF-8; the last character may be cut."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 3:
            return False
    return b"\0" not in head


def _is_same(path: str, source: str) -> bool:
    """Whether two paths are of one file, under whatever names; also of one that is not there."""
    if os.path.realpath(path) == os.path.realpath(source):
        return True
    try:
        return Path(path).samefile(source)
    except OSError:
        return False
