"""Pages made of the hand-built report on a model, and their parts."""

from __future__ import annotations

import re

from hand_built_model import MODEL

from normcheck.render import table


def rendered(width=80, report=MODEL, **options):
    return table.render(report, width=width, **options)


def squeezed(text):
    return re.sub(r"\s+", "", text)


def uncolored(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def sections(text):
    return text.rstrip("\n").split("\n\n")


def section(start, report=MODEL, width=80, **options):
    """The only part of the page that begins so, its blanks squeezed."""
    (part,) = [part for part in sections(rendered(width, report, **options)) if part.startswith(start)]
    return squeezed(part)


def says(part, text):
    return squeezed(text) in part
