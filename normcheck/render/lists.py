"""Lists of what exists (formats, norms, implementations, distributions), and one page for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normcheck.render.figures import ABSENT, figure, number
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column, Layout, Lines, page, pairs, paragraph, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHORT = 8
"""Figures of up to as many characters are written with all their digits in a list; pages always do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One named thing and its facts, in the order in which they are shown."""

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The entries of one kind.

    Attributes:
        entries: what there is.
        columns: facts that make columns, and their titles (line feeds stack); the last one may be wrapped.
        narrow: the columns that stay where the width is short.
        above: where even these do not fit, the name stands on a line of its own.
        note: what to know besides.
    """

    entries: tuple[Entry, ...]
    columns: Mapping[str, str]
    narrow: tuple[str, ...]
    above: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page: its title, and facts, or sentences that are numbered."""

    title: str
    facts: Mapping[str, Any] | None = None
    sentences: tuple[str, ...] = ()


def render(listing: Listing, *, width: int, color: bool = False) -> str:
    """Return the list as a table."""
    wide = tuple(listing.columns)
    layouts = [_layout(listing, keys) for keys in (wide, listing.narrow)]
    if listing.above:
        layouts.append(Layout(layouts[1].columns[1:], above=lambda entry: entry.name))
    note = paragraph(listing.note, width=width) if listing.note else []
    return page([table(listing.entries, layouts, width=width), note], color=color)


def render_page(entry: Entry, *, width: int, color: bool = False) -> str:
    """Return all facts of one entry."""
    facts = [
        ("name", entry.name),
        *((_titled(key), _full(value)) for key, value in entry.facts.items()),
    ]
    return page([pairs(facts, width=width)], color=color)


def render_sections(entry: Entry, sections: Sequence[Section], *, width: int, color: bool = False) -> str:
    """Return the facts of one entry, and under them the sections of its page."""
    facts = [("name", entry.name), *((_titled(key), _full(value)) for key, value in entry.facts.items())]
    return page([pairs(facts, width=width), *(_section(section, width) for section in sections)], color=color)


def _section(section: Section, width: int) -> Lines:
    if section.facts is not None:
        lines = pairs([(_titled(key), _full(value)) for key, value in section.facts.items()], width=width)
    else:
        digits = len(str(len(section.sentences)))
        lines = [
            line
            for number, sentence in enumerate(section.sentences, 1)
            for line in paragraph(f"{number:>{digits}}. {sentence}", width=width, hanging=digits + 2)
        ]
    return [*paragraph("", width=width, head=section.title), *lines] if lines else []


def _titled(key: str) -> str:
    return key.replace("_", " ")


def render_json(*entries: Entry, one: bool = False) -> str:
    """Return the entries as a JSON array, or one of them as an object."""
    plain = [to_plain({"name": entry.name, **entry.facts}) for entry in entries]
    return dumps(plain[0] if one else plain)


def _layout(listing: Listing, keys: tuple[str, ...]) -> Layout[Entry]:
    names: Column[Entry] = Column("name", lambda entry: entry.name)
    return Layout((names, *(_column(listing, key, prose=key == keys[-1]) for key in keys)))


def _column(listing: Listing, key: str, *, prose: bool) -> Column[Entry]:
    figures = all(type(entry.facts[key]) in (int, float) for entry in listing.entries)
    return Column(listing.columns[key], lambda entry: _brief(entry.facts[key]), right=figures, prose=prose)


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return number(value) if len(number(value)) <= _SHORT else figure(value)
    return _full(value)


def _full(value: Any) -> str:
    """Return a fact as text, numbers with all their digits."""
    match value:
        case None | "" | () | []:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case dict():
            return ", ".join(f"{key} {_full(item)}" for key, item in value.items() if item is not None)
        case list() | tuple():
            separator = "\n" if isinstance(value[0], dict) else ", "
            return separator.join(map(_full, value))
        case _:
            return str(value)
