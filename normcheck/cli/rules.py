"""``normcheck rules``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

if TYPE_CHECKING:
    from normcheck.analysis.rule import Rule
    from normcheck.render.lists import Entry

_COLUMNS = {"severity": "severity", "title": "what it finds", "fix": "how to fix it"}
_NARROW = ("severity", "title")
_NOTE = (
    "severity is the usual one: what rests on an assumed input alone is at most a warning. WHERE stands for the place "
    "of the norm, such as batch, FORMAT for that of the elements. A code shows why it matters: normcheck rules NC102"
)


def rules(name: Name = None, *, form: ListAs = ListFormat.TABLE, debug: Debug = False) -> None:  # noqa: ARG001
    """List the rules that make findings, or show all facts of one."""
    from normcheck.analysis.rules import RULES, rule_named
    from normcheck.render.lists import Listing

    if name is not None:
        show_page(_entry(rule_named(name)), form)
        return
    entries = tuple(map(_entry, RULES))
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


def _entry(rule: Rule) -> Entry:
    from normcheck.render.lists import Entry

    facts = {
        "title": rule.title,
        "severity": rule.severity,
        "why": rule.why,
        "fix": rule.fix.format(l1="WHERE-l1", precision="FORMAT"),
        "degrades": rule.accuracy,
        "documentation": rule.anchor,
    }
    return Entry(rule.code, facts)
