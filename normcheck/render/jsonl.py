"""The report as JSON lines: each layer, result, finding and advice, then one summary line; `type` says which.

Where it was compared with an older one, each change is a line too; `asked` says whether it is about what was asked for.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from normcheck.render.json_report import encoded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from normcheck.results import Change, Comparison, Report

_MANY = {"layers": "layer", "results": "result", "findings": "finding", "advice": "advice"}
_CHANGES = ("regressions", "improvements", "unasked")


def render(report: Report) -> str:
    """Return a line for each item of `_MANY` and each change, then one with everything else of the report."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, line by line."""
    for field, kind in _MANY.items():
        yield from (_line(kind, item) for item in getattr(report, field))
    yield from _changes(report.comparison)
    rest = _without(report, _MANY)
    if report.comparison is not None:
        rest["comparison"] = _without(report.comparison, _CHANGES)
    yield _line("summary", rest)


def _changes(comparison: Comparison | None) -> Iterator[str]:
    for field in _CHANGES:
        for change in getattr(comparison, field, ()):
            yield _line("change", {"asked": field != "unasked", **_without(change)})


def _without(item: Report | Comparison | Change, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of an object but for those that have lines of their own."""
    return {field.name: getattr(item, field.name) for field in fields(item) if field.name not in left_out}


def _line(kind: str, item: Any) -> str:
    """Return the object of an item, its kind before its first field."""
    return f'{{"type":"{kind}",{encoded(item)[1:].decode()}\n'
