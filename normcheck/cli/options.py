"""Options that commands share, and how their text is taken apart."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from normcheck.cli import completion
from normcheck.cli.deliver import ReportFormat
from normcheck.cli.exit_codes import FailOn
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

N = TypeVar("N", int, float)


class ShownAs(StrEnum):
    """How `convert`, `track` and `reproduce` show their reports on standard output."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


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


EMPTY_PATH = "the path is empty, as that of a variable that is not set"
"""What is said of it, whatever the option."""


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


def path(text: str) -> str:
    """Return the path of a file.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not text:
        raise typer.BadParameter(EMPTY_PATH)
    return text


def _number(kind: Callable[[str], N], text: str, what: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {what}") from None


PATHS = ("PATH", "FILE", "REPORT.json")
"""What stands in the help for the path of a file."""

THE_MODEL, THE_NORM, THE_INPUT = "The model", "The norm", "The input"
THE_ARITHMETIC, THE_RULES, THE_REPORT = "The arithmetic", "The rules", "The report"
THE_GRADIENT = "The gradient"
"""Panels of the help."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Name = Annotated[
    str | None,
    typer.Argument(
        help="Show all facts of this one.", show_default=False, autocompletion=completion.entries,
    ),
]  # fmt: skip
ListAs = Annotated[ListFormat, typer.Option("--format", help="How to print it.")]
Implementations = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="by precision", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.implementations,
        help="How kernels compute: rows or aliases of `normcheck implementations`, all, or a TOML file.",
    ),
]  # fmt: skip
Simd = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="LANES", show_default="this machine's", rich_help_panel=THE_ARITHMETIC,
        help="float32 lanes of CPU vectors, where sums depend on them: 4 NEON, 8 AVX2, 16 AVX-512.",
    ),
]  # fmt: skip
Params = Annotated[
    str,
    typer.Option(
        metavar="PRESET", rich_help_panel=THE_ARITHMETIC, autocompletion=completion.params,
        help="Format of gamma, beta and running statistics: half, autocast, half-except-norms, io, float32, stored.",
    ),
]  # fmt: skip
Rounding = Annotated[
    str,
    typer.Option(
        metavar="MODE", rich_help_panel=THE_ARITHMETIC, autocompletion=completion.roundings,
        help="nearest-even, toward-zero, up, down or stochastic.",
    ),
]  # fmt: skip
Order = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER", show_default="the implementation's", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.orders,
        help="How sums are associated, as 'lanes(8, serial)'; `normcheck orders` lists them. Welford rows ignore it.",
    ),
]  # fmt: skip
Dist = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=THE_INPUT, autocompletion=completion.distributions,
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
Backward = Annotated[bool, typer.Option("--backward", rich_help_panel=THE_GRADIENT, help="Run the backward pass too.")]
LossScale = Annotated[
    float,
    typer.Option(
        parser=real, metavar="X", rich_help_panel=THE_GRADIENT, help="Factor of the gradient before it is stored."
    ),
]
GradDist = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=THE_GRADIENT, autocompletion=completion.distributions,
        help="Distribution of the gradient that arrives at the output, with the next seed.",
    ),
]  # fmt: skip
GradStd = Annotated[
    float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_GRADIENT, help="Scale of that gradient.")
]
Format = Annotated[
    ReportFormat | None,
    typer.Option("--format", show_default="table", rich_help_panel=THE_REPORT, help="Report on standard output."),
]
JsonPath = Annotated[
    str | None,
    typer.Option(
        "--json", parser=path, metavar="PATH", rich_help_panel=THE_REPORT,
        help="Write a JSON report there too; - replaces the table on standard output.",
    ),
]  # fmt: skip
SarifPath = Annotated[
    str | None,
    typer.Option(
        "--sarif", parser=path, metavar="PATH", rich_help_panel=THE_REPORT, help="SARIF 2.1.0, for code scanning."
    ),
]
JunitPath = Annotated[
    str | None,
    typer.Option(
        "--junit", parser=path, metavar="PATH", rich_help_panel=THE_REPORT, help="JUnit XML: a test for each layer."
    ),
]
HtmlPath = Annotated[
    str | None,
    typer.Option("--html", parser=path, metavar="PATH", rich_help_panel=THE_REPORT, help="A page to look at."),
]
MarkdownPath = Annotated[
    str | None,
    typer.Option(
        "--markdown", parser=path, metavar="PATH", rich_help_panel=THE_REPORT, help="Markdown, for a summary of a job."
    ),
]
Reproducer = Annotated[
    str | None,
    typer.Option(
        "--reproducer", metavar="FINDING|LAYER", rich_help_panel=THE_REPORT,
        help="Write a torch script and its data that show a finding (NC102, NC102:LAYER) or the worst of a layer.",
    ),
]  # fmt: skip
ReproducerTo = Annotated[
    str | None,
    typer.Option(
        "--reproducer-to", parser=path, metavar="PATH", show_default="named after the result",
        rich_help_panel=THE_REPORT,
        help="Path of that script, PATH.py; its data goes beside it, into PATH.npz.",
    ),
]  # fmt: skip
Baseline = Annotated[
    str | None,
    typer.Option(
        parser=path, metavar="REPORT.json", rich_help_panel=THE_RULES,
        help="Only what is new or worse than in that report.",
    ),
]  # fmt: skip
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select", metavar="CODE,...", show_default="all", rich_help_panel=THE_RULES,
        autocompletion=completion.selectors,
        help="Rules in force: codes, their beginnings (NC3), or CODE:PATTERN for some layers.",
    ),
]  # fmt: skip
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="CODE,...", rich_help_panel=THE_RULES, autocompletion=completion.selectors,
        help="Rules not in force, likewise.",
    ),
]  # fmt: skip
Severities = Annotated[
    list[str] | None,
    typer.Option(
        "--severity", metavar="CODE=LEVEL,...", rich_help_panel=THE_RULES, autocompletion=completion.severities,
        help="Give findings of rules another level: error, warning or note.",
    ),
]  # fmt: skip
Thresholds = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold", metavar="[PATTERN:]NAME=X,...", rich_help_panel=THE_RULES, autocompletion=completion.thresholds,
        help="When rules fire, as headroom_bits=2; with a pattern, on some layers.",
    ),
]  # fmt: skip
ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", show_default="the nearest one",
        help="Take settings from this file, not from a normcheck.toml or pyproject.toml at or above this folder.",
    ),
]  # fmt: skip
Isolated = Annotated[bool, typer.Option("--isolated", help="Take no settings from files or from NORMCHECK_ variables.")]
ShowSettings = Annotated[
    bool, typer.Option("--show-settings", help="Show each setting and what set it, and do nothing else.")
]
Fail = Annotated[
    FailOn, typer.Option("--fail-on", rich_help_panel=THE_RULES, help="Exit with 1 from this severity on.")
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


def assignments(values: Iterable[str] | None, option: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs in an option of ``NAME=VALUE`` that repeats or takes commas; the last ``=`` parts them.

    Raises:
        UsageError: no ``=``.
    """
    pairs = [text.rpartition("=") for text in names(values)]
    for before, equals, after in pairs:
        if not equals or not before.strip() or not after.strip():
            raise UsageError(f"{option} {before}{equals}{after}: write NAME=VALUE")
    return tuple((before.strip(), after.strip()) for before, _, after in pairs)


def numbers(values: Iterable[str] | None, option: str) -> tuple[tuple[str, float], ...]:
    """Return the pairs in an option of ``NAME=NUMBER``.

    Raises:
        UsageError: no ``=``, or no number after it.
    """
    out = []
    for name, text in assignments(values, option):
        try:
            out.append((name, float(text)))
        except ValueError:
            raise UsageError(f"{option} {name}={text}: {text!r} is not a number") from None
    return tuple(out)
