"""Names that people know for the kernels of a stack: each picks a row for each norm, precision and size.

An alias is an ordered list of rows: the first that defines what is asked for is it. ``all`` means every row that does.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from normcheck.arithmetic.formats import Format
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.table import Grouping, Norm

ALL = "all"


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for several rows.

    Attributes:
        name, title: its name, and what it stands for.
        rows: in the order in which they are tried.
        also: other names for it.
        every: all of the rows that define what is asked for are meant, not the first alone.
    """

    name: str
    title: str
    rows: tuple[Implementation, ...]
    also: tuple[str, ...] = ()
    every: bool = False


def read_aliases(text: str, place: str, known: Mapping[str, Implementation]) -> tuple[Alias, ...]:
    """Return the aliases of a file, in its order.

    Raises:
        UsageError: a row that does not exist, or a name that is taken.
    """
    out: list[Alias] = []
    taken = {*known, ALL}
    for entry in tomllib.loads(text)["alias"]:
        alias = Alias(entry["name"], entry["title"], (), tuple(entry.get("also", ())))
        for name in (alias.name, *alias.also):
            if name in taken:
                raise UsageError(f"{place}: alias {name!r}: the name is taken")
            taken.add(name)
        for row in entry["rows"]:
            if row not in known:
                wrong = unknown_name("implementation", row, known, "normcheck implementations")
                raise UsageError(f"{place}: alias {alias.name!r}: {wrong}")
        out.append(Alias(alias.name, alias.title, tuple(known[row] for row in entry["rows"]), alias.also))
    return tuple(out)


def chosen_rows(
    chosen: Iterable[Implementation | Alias],
    norm: Norm,
    io: Format | None = None,
    param: Format | None = None,
    group: Grouping | None = None,
    mode: str | None = None,
) -> tuple[list[Implementation], list[tuple[str, str]]]:
    """Return the rows that run, and the name of each choice that has none, with the reason.

    norm, io, param, group, mode: what is asked for, as in `Implementation.refusal`. A row that several choices pick
    runs once. That ``all`` leaves rows out which define something else is not said.

    Raises:
        UsageError: two rows that run are unlike and of one name, by which results tell them apart.
    """
    rows: dict[str, Implementation] = {}
    without: list[tuple[str, str]] = []
    for choice in chosen:
        found = defining(choice, norm, io, param, group, mode)
        rows |= by_name([*rows.values(), *found])
        if not found:
            without.append((choice.name, refusal(choice, norm, io, param, group, mode)))
    return list(rows.values()), without


def by_name(rows: Iterable[Implementation]) -> dict[str, Implementation]:
    """Return rows by their names, in order.

    Raises:
        UsageError: two that are unlike have one name.
    """
    out: dict[str, Implementation] = {}
    for row in rows:
        if out.setdefault(row.name, row) != row:
            raise UsageError(f"implementation {row.name!r}: two different rows have this name; rename one of them")
    return out


def defining(
    choice: Implementation | Alias,
    norm: Norm,
    io: Format | None = None,
    param: Format | None = None,
    group: Grouping | None = None,
    mode: str | None = None,
) -> list[Implementation]:
    """Return the rows that a choice means for what is asked: one at most, unless it means all."""
    if not isinstance(choice, Alias):
        return [choice] if choice.defines(norm, io, param, group, mode) else []
    found = [row for row in choice.rows if row.defines(norm, io, param, group, mode)]
    return found if choice.every else found[:1]


def refusal(
    choice: Implementation | Alias,
    norm: Norm,
    io: Format | None = None,
    param: Format | None = None,
    group: Grouping | None = None,
    mode: str | None = None,
) -> str:
    """Return why a choice means no row for what is asked."""
    if not isinstance(choice, Alias):
        return choice.refusal(norm, io, param, group, mode)
    of_norm = [row for row in choice.rows if row.defines(norm)]
    if not of_norm:
        norms = dict.fromkeys(name for row in choice.rows for name in row.norms)
        return f"{choice.name} does not define {norm.name}, only {', '.join(norms)}"
    near = [row for row in of_norm if row.defines(norm, io)]
    if io is not None and not near:
        labels = dict.fromkeys(label for row in of_norm for label in row.precisions)
        return f"{choice.name} does not define {norm.name} in {io.label}, only in {', '.join(labels)}"
    return near[0].refusal(norm, io, param, group, mode)
