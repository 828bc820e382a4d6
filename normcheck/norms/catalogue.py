"""The catalogue: generic rows, rows of real kernels, and the aliases that pick among them.

Rows of kernels are data, TOML files in `normcheck/norms/catalogue`, one a project, read once when a name is first
asked for that the generic table does not have. A user's file is read by the same code.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from normcheck.errors import UsageError, unknown_name
from normcheck.norms.aliases import ALL, Alias, by_name, read_aliases
from normcheck.norms.evidence import FOLDER, digest, evidence
from normcheck.norms.implementations import IMPLEMENTATIONS, Implementation
from normcheck.norms.row_files import read_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ALIASES, _NOTES = "aliases.toml", "notes.toml"
_FIRST = "pytorch.toml"
"""Read before the others, in the order of their names: rows of models and runtimes are made of torch's."""
_LISTING = "normcheck implementations"


@functools.cache
def catalogue() -> Mapping[str, Implementation]:
    """Return all rows by name: the generic ones, then those of each project."""
    rows = dict(IMPLEMENTATIONS)
    for path in sorted(FOLDER.glob("*.toml"), key=lambda path: (path.name != _FIRST, path.name)):
        if path.name not in (_ALIASES, _NOTES):
            rows |= {row.name: row for row in read_rows(path.read_text(encoding="utf-8"), path.name, rows)}
    of_rows = {name: found for name, found in evidence().items() if name in rows and found.digest == digest(rows[name])}
    verified = [name for name, found in of_rows.items() if found.verifies]
    return rows | {name: replace(rows[name], status="verified") for name in verified}


@functools.cache
def aliases() -> tuple[Alias, ...]:
    """Return the aliases; the last one, ``all``, means every row."""
    rows = catalogue()
    text = (FOLDER / _ALIASES).read_text(encoding="utf-8")
    every = Alias(ALL, "every row that defines the norm and the precision", tuple(rows.values()), every=True)
    return (*read_aliases(text, _ALIASES, rows), every)


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of a library and is no kernel of a norm; reason: why it is none."""

    name: str
    project: str
    text: str
    citation: str
    reason: str


@functools.cache
def notes() -> tuple[Note, ...]:
    """Return what the catalogue knows and has no row for."""
    text = (FOLDER / _NOTES).read_text(encoding="utf-8")
    return tuple(Note(**entry) for entry in tomllib.loads(text)["note"])


def implementation_named(name: str) -> Implementation:
    """Return the row of that name.

    Raises:
        UsageError: no such row, or an alias, which is several.
    """
    choice = choice_named(name)
    if isinstance(choice, Alias):
        rows = ", ".join(row.name for row in choice.rows[:4])
        more = ", ..." if len(choice.rows) > 4 else ""
        raise UsageError(f"{choice.name} is an alias of several implementations; name one of them: {rows}{more}")
    return choice


def choice_named(name: str) -> Implementation | Alias:
    """Return the row or alias of that name.

    Raises:
        UsageError: no such implementation, or what the catalogue has a note of and no row for.
    """
    key = name.strip().lower()
    if key in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[key]
    rows = catalogue()
    if key in rows:
        return rows[key]
    for alias in aliases():
        if key in (alias.name, *alias.also):
            return alias
    note = next((note for note in notes() if note.name == key), None)
    if note is not None:
        raise UsageError(f"{note.name} is a note of the list and no implementation that can be run: {note.reason}")
    names = [*rows, *(name for alias in aliases() for name in (alias.name, *alias.also))]
    raise unknown_name("implementation", name, names, _LISTING)


def choices(names: str | Implementation | Sequence[str | Implementation]) -> tuple[Implementation | Alias, ...]:
    """Return what names, paths of TOML files (each stands for all its rows) or rows of one's own stand for, each once.

    Raises:
        UsageError: no such implementation, a file that cannot be read or defines none, or two unlike rows of one name.
    """
    listed = (names,) if isinstance(names, str | Implementation) else names
    out = tuple(dict.fromkeys(choice for one in listed for choice in _chosen(one)))
    by_name(choice for choice in out if isinstance(choice, Implementation))
    return out


def _chosen(one: str | Implementation) -> tuple[Implementation | Alias, ...]:
    if not isinstance(one, str):
        return (one,)
    return implementations_of_file(one.strip()) if one.strip().lower().endswith(".toml") else (choice_named(one),)


def names_of(chosen: str | Implementation | Sequence[str | Implementation]) -> tuple[str, ...]:
    """Return the names as they were given, of rows their own: what settings say was asked for."""
    listed = (chosen,) if isinstance(chosen, str | Implementation) else chosen
    return tuple(one if isinstance(one, str) else one.name for one in listed)


def implementations_of_file(path: str | Path) -> tuple[Implementation, ...]:
    """Return the rows that a user's TOML file defines.

    Raises:
        UsageError: it cannot be read, or what it says cannot be.
    """
    where = Path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: cannot be read as a TOML file of implementations: {error}") from None
    taken = [name for alias in aliases() for name in (alias.name, *alias.also)]
    return read_rows(text, str(where), catalogue(), taken)
