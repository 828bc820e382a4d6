"""``normcheck implementations``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

if TYPE_CHECKING:
    from normcheck.norms.implementations import Implementation
    from normcheck.render.lists import Entry

_COLUMNS = {"status": "status", "sum": "sum in", "order": "order", "title": "what it is"}
_NARROW = ("status", "title")
_NOTE = (
    "io is the precision that is asked for, wide the wider of it and float32, param that of the parameters. "
    "A name shows the format, order and algorithm of every step: normcheck implementations pure"
)


def implementations(
    name: Name = None,
    *,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the implementations, or show every step of one."""
    from normcheck.norms.implementations import IMPLEMENTATIONS, implementation_named
    from normcheck.render.lists import Listing

    if name is not None:
        show_page(_entry(implementation_named(name)), form)
        return
    entries = tuple(map(_entry, IMPLEMENTATIONS.values()))
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


def _entry(row: Implementation) -> Entry:
    from normcheck.render.lists import Entry

    return Entry(row.name, {f.name: _fact(getattr(row, f.name)) for f in fields(row) if f.name != "name"})


def _fact(value: Any) -> Any:
    """Return a field as JSON has it: orders of summation as their text."""
    return value if value is None or isinstance(value, str | int | float | tuple) else str(value)
