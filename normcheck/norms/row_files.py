"""Files of implementations: TOML tables into `Implementation`, checked field by field, ours and users' alike.

A file has one table ``[[implementation]]`` for each row, and above them what all of its rows share (``project``,
``platform``, ``status``). A table has a name and the fields of `Implementation`; orders of summation and formats are
given by their names. ``base`` names a row whose fields it takes where it gives none of its own; of what identifies a
row (its name, title, project, platform, status, citation and approximation) nothing is taken over.
"""

from __future__ import annotations

import re
import tomllib
from collections import ChainMap
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args

from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import order_named
from normcheck.arithmetic.recurrences import RECURRENCES
from normcheck.errors import UsageError, unknown_name
from normcheck.norms import implementations as table
from normcheck.norms.contradictions import contradiction
from normcheck.norms.implementations import Implementation
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from normcheck.arithmetic.orders import Order

ROLES = ("io", "wide", "param", "promoted")
"""Formats by what they are in a run; anything else is a format's own name."""

SHARED = ("project", "platform", "status")
"""What may stand above the tables, for all of them."""

_IDENTITY = ("name", "title", "project", "platform", "status", "citation", "approximation")
_LISTING = "normcheck implementations"
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")


def read_rows(
    text: str, place: str, known: Mapping[str, Implementation], aliases: Collection[str] = ()
) -> tuple[Implementation, ...]:
    """Return the rows of a file, in its order.

    Args:
        text: the file. place: what it is called in errors.
        known: the rows that ``base`` may name besides those above it, and whose names are taken.
        aliases: names that stand for several rows, which are taken too.

    Raises:
        UsageError: it is no TOML, or a row cannot be: the file, the row, the field, what was received, what it can be.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place}: not TOML: {error}") from None
    tables = document.pop("implementation", None)
    if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables) or not tables:
        raise UsageError(f"{place}: no [[implementation]] table; each row is one, with a name and its fields")
    for key in document:
        if key not in SHARED:
            raise UsageError(
                f"{place}: {key!r} stands above the tables, where {', '.join(SHARED)} can; "
                "a row's fields go below its [[implementation]]"
            )
    rows: dict[str, Implementation] = {}
    every = ChainMap(rows, dict(known))
    for number, entry in enumerate(tables, 1):
        named = entry.get("name")
        where = f"implementation {named!r}" if isinstance(named, str) else f"implementation {number}"
        try:
            row = _row(document | entry, every, aliases)
        except UsageError as error:
            raise UsageError(f"{place}: {where}: {error}") from None
        rows[row.name] = row
    return tuple(rows.values())


def _row(entry: Mapping[str, Any], known: Mapping[str, Implementation], aliases: Collection[str]) -> Implementation:
    given = {key: _value(key, value) for key, value in entry.items() if key != "base"}
    name = given.get("name")
    if name is None:
        raise UsageError("name: missing; give it one, such as 'my-kernel-fp16'")
    if name in known:
        raise UsageError(f"name: {name!r} is taken by another row; give it a name of its own")
    if name in aliases:
        raise UsageError(f"name: {name!r} is taken by an alias of several rows; give it a name of its own")
    base = known["pure"]
    if "base" in entry:
        base = _base(entry["base"], known)
    plain = Implementation(name=name, title="")
    identity = {key: getattr(plain, key) for key in _IDENTITY if key != "name"}
    row = replace(base, **identity | given)
    wrong = contradiction(row, given)
    if wrong:
        raise UsageError(wrong)
    return row


def _base(value: Any, known: Mapping[str, Implementation]) -> Implementation:
    if not isinstance(value, str):
        raise UsageError(f"base: give the name of a row, received {value!r}")
    if value not in known:
        raise UsageError(f"base: {unknown_name('implementation', value, known, _LISTING)}")
    return known[value]


def _value(key: str, value: Any) -> Any:
    """Return a field's value as `Implementation` has it."""
    if key not in _READERS:
        raise unknown_name("field", key, [*_READERS, "base"], f"{_LISTING} wide")
    try:
        return _READERS[key](value)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"give {what}, received {value!r}")
    return value


def _name(value: Any) -> str:
    text: str = _typed(value, str, "a name")
    if not _NAME.fullmatch(text):
        raise UsageError(f"received {text!r}: a name has small letters, digits, '-', '.', '_' and '+', and no blanks")
    if text == "all":
        raise UsageError("received 'all', which means every row; give another name")
    return text


def _text(value: Any) -> str:
    text: str = _typed(value, str, "text")
    return " ".join(text.split())


def _status(value: Any) -> str:
    if value == "verified":
        raise UsageError("received 'verified', which a row becomes by a run of the fidelity suite and not by its file")
    return _choice(tuple(status for status in get_args(table.Status) if status != "verified"))(value)


def _choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise UsageError(f"it can be {', '.join(choices)}, received {value!r}")
        return value

    return read


def _role(value: Any) -> str:
    text: str = _typed(value, str, f"a format: {', '.join(ROLES)}, or a format's name")
    if text in ROLES:
        return text
    try:
        return format_named(text).name
    except UsageError as error:
        raise UsageError(f"{error}; {', '.join(ROLES)} name formats of the run") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(f"give a finite number from 0, received {value!r}")
    return float(value)


def _count(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"give a whole number from {least}, received {value!r}")
        return value

    return read


def _several(read: Callable[[Any], str]) -> Callable[[Any], tuple[str, ...]]:
    def read_all(value: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(read, _typed(value, list, "a list of names in brackets"))))

    return read_all


def _flag(value: Any) -> bool:
    flag: bool = _typed(value, bool, "true or false")
    return flag


def _order(value: Any) -> Order:
    return order_named(_text_of(value, "an order of summation such as 'lanes(32)'"))


def _text_of(value: Any, what: str) -> str:
    text: str = _typed(value, str, what)
    return text


_SPECIAL: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "status": _status,
    "norms": _several(lambda value: norm_named(_text_of(value, "the name of a norm")).name),
    "precisions": _several(lambda value: format_named(_text_of(value, "the name of a format")).label),
    "parameters": _several(_choice(("io", "float32"))),
    "modes": _several(_choice(("train", "eval"))),
    "contracted": _several(_choice(table.CONTRACTED)),
    "multiple_of": _count(1),
    "chunk": _count(1),
    "recurrence": _choice(tuple(RECURRENCES)),
}
_SPECIAL |= dict.fromkeys(("title", "citation", "project", "platform", "approximation"), _text)
_BY_TYPE: dict[str, Callable[[Any], Any]] = {
    "str": _role,
    "int": _count(0),
    "float": _number,
    "bool": _flag,
    "Order": _order,
}


def _reader(key: str, kind: str) -> Callable[[Any], Any]:
    """Return what reads a field: by its name, its type, or the names that its type holds."""
    kind = kind.removesuffix(" | None")
    return _SPECIAL.get(key) or _BY_TYPE.get(kind) or _choice(get_args(getattr(table, kind)))


_READERS = {field.name: _reader(field.name, str(field.type)) for field in fields(Implementation)}
