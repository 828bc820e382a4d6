"""Options that commands share, and how their text is taken apart."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from normcheck.cli.deliver import ReportFormat
from normcheck.cli.exit_codes import FailOn
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

N = TypeVar("N", int, float)


class ListFormat(StrEnum):
    """How lists are shown."""

    TABLE = "table"
    JSON = "json"


class Mode(StrEnum):
    """Whether a batch norm takes the batch's statistics or the running ones."""

    TRAIN = "train"
    EVAL = "eval"


class Constant(StrEnum):
    """Which constants scale a statistic to the standard deviation."""

    EXACT = "exact"
    PAPER = "paper"


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


THE_MODEL, THE_NORM, THE_INPUT = "The model", "The norm", "The input"
THE_ARITHMETIC, THE_REPORT = "The arithmetic", "The report"
"""Panels of the help."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Name = Annotated[str | None, typer.Argument(help="Show all facts of this one.", show_default=False)]
ListAs = Annotated[ListFormat, typer.Option("--format", help="How to print it.")]
Implementations = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="by precision", rich_help_panel=THE_ARITHMETIC,
        help="How kernels compute; `normcheck implementations` lists them.",
    ),
]  # fmt: skip
Params = Annotated[
    str,
    typer.Option(
        metavar="PRESET", rich_help_panel=THE_ARITHMETIC,
        help="Format of gamma, beta and running statistics: half, autocast, half-except-norms, io, float32, stored.",
    ),
]  # fmt: skip
Rounding = Annotated[
    str,
    typer.Option(
        metavar="MODE", rich_help_panel=THE_ARITHMETIC,
        help="nearest-even, toward-zero, up, down or stochastic.",
    ),
]  # fmt: skip
Order = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER", show_default="the implementation's", rich_help_panel=THE_ARITHMETIC,
        help="How sums are associated: sequential, pairwise, lanes(8, serial), tree, blocks(64), kahan.",
    ),
]  # fmt: skip
Dist = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=THE_INPUT,
        help="As 'student-t(df=4)'; `normcheck distributions` lists them.",
    ),
]  # fmt: skip
Constants = Annotated[
    Constant,
    typer.Option(rich_help_panel=THE_NORM, help="Factor of statistics other than L2: exact for n, or the paper's."),
]
K = Annotated[
    int, typer.Option("--k", parser=whole, metavar="K", rich_help_panel=THE_NORM, help="Elements of a topk statistic.")
]
Mean = Annotated[
    float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_INPUT, help="Added to the scaled noise.")
]
Std = Annotated[float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_INPUT, help="Scale of the noise.")]
Seed = Annotated[
    int, typer.Option(parser=whole, metavar="N", rich_help_panel=THE_INPUT, help="Same seed, same report.")
]
Ftz = Annotated[bool, typer.Option("--ftz", rich_help_panel=THE_ARITHMETIC, help="Flush subnormal results to zero.")]
Daz = Annotated[bool, typer.Option("--daz", rich_help_panel=THE_ARITHMETIC, help="Take subnormal operands as zero.")]
Format = Annotated[
    ReportFormat | None,
    typer.Option("--format", show_default="table", rich_help_panel=THE_REPORT, help="Report on standard output."),
]
JsonPath = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="PATH", rich_help_panel=THE_REPORT,
        help="Write a JSON report there too; - replaces the table on standard output.",
    ),
]  # fmt: skip
Fail = Annotated[
    FailOn, typer.Option("--fail-on", rich_help_panel=THE_REPORT, help="Exit with 1 from this severity on.")
]
Jobs = Annotated[int | None, typer.Option(parser=whole, metavar="N", show_default="all cores", help="Threads.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors on standard error.")]

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


def dimensions(text: str, option: str = "--shape", example: str = "32,64,28,28") -> tuple[int, ...]:
    """Return the dimensions in ``32,64,28,28``; `option` and `example` are for the error.

    Raises:
        UsageError: not whole numbers separated by commas.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r}: write whole numbers separated by commas, as in {example}") from None
