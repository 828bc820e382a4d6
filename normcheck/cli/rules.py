"""``normcheck rules``."""

from __future__ import annotations

import re
import textwrap
from dataclasses import asdict, astuple
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
    "of the norm, such as batch, FORMAT for that of the elements. A code shows when it fires, why that matters and an "
    "example: normcheck rules NC102. Thresholds, for --threshold NAME=X: "
)
_LINE = 62
"""Characters of a command's line that leave room for the titles of the facts at 80 columns."""
_GLUE = "\x1f"
"""Stands for a blank at which no line may break."""


def rules(name: Name = None, *, form: ListAs = ListFormat.TABLE, debug: Debug = False) -> None:  # noqa: ARG001
    """List the rules that make findings, or show all facts of one."""
    from normcheck.analysis.rules import RULES, rule_named
    from normcheck.analysis.thresholds import DEFAULTS
    from normcheck.render.lists import Listing

    folds = form is ListFormat.TABLE
    if name is not None:
        show_page(_entry(rule_named(name), folds=folds), form)
        return
    entries = tuple(_entry(rule, folds=folds) for rule in RULES)
    thresholds = ", ".join(f"{name} {value:g}" for name, value in asdict(DEFAULTS).items())
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=f"{_NOTE}{thresholds}"), form)


def _entry(rule: Rule, *, folds: bool) -> Entry:
    """All facts of a rule. folds: break long commands as a shell takes them."""
    from normcheck.analysis.rule import PLACEHOLDERS
    from normcheck.analysis.thresholds import DEFAULTS
    from normcheck.render.lists import Entry

    fold = _folded if folds else str
    published, thresholds = rule.published, {name: getattr(DEFAULTS, name) for name in rule.thresholds}
    facts = {
        "title": rule.title,
        "severity": rule.severity,
        "detects": rule.detects,
        "why": rule.why,
        "published": "\n".join(filter(None, astuple(published))) if folds else asdict(published),
        "fix": rule.fix.format(**PLACEHOLDERS),
        "fires_on": fold(rule.bad),
        "silent_on": fold(rule.good),
        "thresholds": (thresholds or None) if folds else thresholds,
        "measures": rule.figures,
        "degrades": rule.accuracy,
        "documentation": rule.anchor,
    }
    return Entry(rule.code, facts)


def _folded(command: str) -> str:
    r"""Return a command in lines that end in ``\`` but for the last, options beside their values; quotes stay whole."""
    if '"' in command:
        return command.replace(" && ", " && \\\n")
    glued = re.sub(r"(--\S+) (?!-)", rf"\1{_GLUE}", command)
    lines = textwrap.wrap(glued, _LINE, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return " \\\n".join(lines).replace(_GLUE, " ")
