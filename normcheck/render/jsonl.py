"""The report as JSON lines: each layer, result, finding and advice, then one summary line; `type` says which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.render.json_report import to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Report

_MANY = {"layers": "layer", "results": "result", "findings": "finding", "advice": "advice"}


def render(report: Report) -> str:
    """Return a line for each item of `_MANY`, then the summary line with everything else of the report."""
    return "".join(msgspec.json.encode(line).decode() + "\n" for line in _lines(to_plain(report)))


def _lines(plain: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for field, kind in _MANY.items():
        yield from ({"type": kind, **item} for item in plain[field])
    yield {"type": "summary", **{key: value for key, value in plain.items() if key not in _MANY}}
