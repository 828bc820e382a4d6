"""Options that commands share, and how their text is taken apart."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

N = TypeVar("N", int, float)


class ListFormat(StrEnum):
    """How lists are shown."""

    TABLE = "table"
    JSON = "json"


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Name = Annotated[str | None, typer.Argument(help="Show all facts of this one.", show_default=False)]
ListAs = Annotated[ListFormat, typer.Option("--format", help="How to print it.")]

_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


def names(values: Iterable[str] | None, default: str | None = None) -> tuple[str, ...]:
    """Return the names in an option that repeats or takes commas; commas within parentheses do not split.

    ``["fp16,bf16", "lanes(8, serial)"]`` holds three names. Without any, the `default` is the one.

    Raises:
        UsageError: an empty name, as in ``fp16,,bf16``.
    """
    found = [part.strip() for value in values or () for part in _COMMA_OUTSIDE_PARENTHESES.split(value)]
    if "" in found:
        received = " ".join(repr(value) for value in values or ())
        raise UsageError(f"an empty name in {received}: separate names by single commas")
    return tuple(dict.fromkeys(found)) or ((default,) if default is not None else ())


def dimensions(text: str) -> tuple[int, ...]:
    """Return the dimensions in ``32,64,28,28``.

    Raises:
        UsageError: not whole numbers separated by commas.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--shape {text!r}: write whole numbers separated by commas, as in 32,64,28,28") from None


def whole(text: str) -> int:
    """Return a whole number.

    Raises:
        typer.BadParameter: it is none.
    """
    return _number(int, text, "a whole number")


def real(text: str) -> float:
    """Return a number.

    Raises:
        typer.BadParameter: it is none.
    """
    return _number(float, text, "a number")


def _number(kind: Callable[[str], N], text: str, what: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {what}") from None
