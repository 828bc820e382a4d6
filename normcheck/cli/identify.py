"""``normcheck identify``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from normcheck.cli import completion
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.files import emit
from normcheck.cli.options import (
    THE_ARITHMETIC,
    THE_INPUT,
    THE_NORM,
    THE_REPORT,
    Daz,
    Debug,
    Ftz,
    ListAs,
    ListFormat,
    Mode,
    Params,
    Quiet,
    Simd,
    names,
    path,
    real,
    whole,
)
from normcheck.cli.terminal import color, progress, width
from normcheck.errors import UsageError


def _array(option: str, text: str) -> Any:
    """An option that names an array."""
    return typer.Option(option, metavar="FILE[:NAME]", parser=path, rich_help_panel=THE_INPUT, help=text)


Input = Annotated[str, _array("--input", "What the kernel was given: .npy, .npz, .safetensors or .pt.")]
Output = Annotated[str, _array("--output", "What it gave.")]
Weight = Annotated[str | None, _array("--weight", "Its gamma.")]
Bias = Annotated[str | None, _array("--bias", "Its beta.")]
Residual = Annotated[str | None, _array("--residual", "What it added to the input first.")]
RunningMean = Annotated[str | None, _array("--running-mean", "Of a batch norm in evaluation.")]
RunningVar = Annotated[str | None, _array("--running-var", "Of a batch norm in evaluation.")]
Norm = Annotated[
    str,
    typer.Option(
        "--norm", metavar="NORM", rich_help_panel=THE_NORM, autocompletion=completion.norms, help="What it computes."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="FORMAT", show_default="the output's, or the half format that has all numbers",
        rich_help_panel=THE_ARITHMETIC, autocompletion=completion.precisions, help="Format of input and output.",
    ),
]  # fmt: skip
Eps = Annotated[float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_NORM, help="Its eps.")]
NumGroups = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="G", show_default="32 or fewer", rich_help_panel=THE_NORM, help="Groups of a group norm."
    ),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="all", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.implementations,
        help="Which to compare with: rows or aliases of `normcheck implementations`, all, or a TOML file.",
    ),
]  # fmt: skip
Threads = Annotated[
    int,
    typer.Option(
        parser=whole, metavar="N", rich_help_panel=THE_ARITHMETIC,
        help="Threads that the kernel ran on, where sums depend on them.",
    ),
]  # fmt: skip
AsMode = Annotated[Mode, typer.Option(rich_help_panel=THE_NORM, help="Statistics of the batch, or running ones.")]
Top = Annotated[int, typer.Option(parser=whole, metavar="N", rich_help_panel=THE_REPORT, help="Show the nearest N.")]
Least = Annotated[
    float,
    typer.Option(
        parser=real, metavar="SHARE", rich_help_panel=THE_REPORT, help="Exit with 1 where the nearest has fewer equal."
    ),
]


def identify(
    *,
    given: Input,
    output: Output,
    norm: Norm,
    weight: Weight = None,
    bias: Bias = None,
    residual: Residual = None,
    running_mean: RunningMean = None,
    running_var: RunningVar = None,
    eps: Eps = 1e-5,
    num_groups: NumGroups = None,
    mode: AsMode = Mode.TRAIN,
    precision: Precision = None,
    params: Params = "stored",
    implementation: Candidates = None,
    simd: Simd = None,
    threads: Threads = 1,
    ftz: Ftz = False,
    daz: Daz = False,
    top: Top = 5,
    least: Least = 0.0,
    form: ListAs = ListFormat.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Compare what a real kernel computed with the catalogue: which implementation is it, and where do they part.

    Exit codes: 0 compared, 1 the nearest has fewer identical elements than --least, 2 an error.
    """
    if top < 1:
        raise UsageError(f"--top {top}: give 1 or more")
    if not 0 <= least <= 1:
        raise UsageError(f"--least {least:g}: a share from 0 to 1")
    if threads < 1:
        raise UsageError(f"--threads {threads}: give 1 or more")
    from normcheck.analysis.identify import identify as run
    from normcheck.arithmetic.formats import format_named
    from normcheck.layers.arrays import read_array
    from normcheck.norms.table import norm_named

    kind = norm_named(norm)
    if precision is not None:
        format_named(precision)  # what is misspelt is said before the files are read
    x, y = read_array(given), read_array(output)
    arrays = {
        name: None if text is None else read_array(text).values
        for name, text in {
            "weight": weight, "bias": bias, "residual": residual,
            "running_mean": running_mean, "running_var": running_var,
        }.items()
    }  # fmt: skip
    io, why = (precision, "") if precision is not None else _told_format(x, y)
    groups = _groups(kind, num_groups, x.values.shape)
    facts: dict[str, Any] = {
        "input": given, "output": output, "norm": kind.name, "params": params, "eps": eps, "why": why,
        "num_groups": groups, "shape": x.values.shape,
    }  # fmt: skip
    further: dict[str, Any] = {
        "num_groups": num_groups, "mode": mode.value, "params": params, "eps": eps, "simd": simd,
        "threads": threads, "ftz": ftz, "daz": daz,
    }  # fmt: skip
    with progress("comparing", quiet=quiet) as tick:
        found = run(
            x.values, y.values, norm, precision=io, implementations=names(implementation), progress=tick,
            **(further | arrays),
        )  # fmt: skip
    _show(found, facts, io, form, top)
    best = found.candidates[0]
    raise typer.Exit(ExitCode.CLEAN if best.share >= least else ExitCode.FINDINGS)


def _told_format(x: Any, y: Any) -> tuple[str, str]:
    """Return the output's format, or the narrowest one of a wider file that has all numbers of both, and why."""
    from normcheck.analysis.bits import are_numbers_of
    from normcheck.arithmetic.formats import format_named

    # bfloat16 first: most of its numbers are float16's too, while few of float16's have no more than its 8 bits
    narrower = {"float32": ("bfloat16", "float16"), "float64": ("bfloat16", "float16", "float32")}
    for name in narrower.get(y.dtype, ()):
        form = format_named(name)
        if are_numbers_of(y.values, form) and are_numbers_of(x.values, form):
            return name, f"all numbers are {name}'s"
    return y.dtype, ""


def _groups(kind: Any, num_groups: int | None, shape: tuple[int, ...]) -> int | None:
    """Return how many groups a group norm has; None for other norms, and for shapes that are refused later."""
    from normcheck.norms.table import default_num_groups

    if kind.where != "group":
        return None
    return num_groups if num_groups is not None or 0 in (*shape[1:2], len(shape[1:])) else default_num_groups(shape[1])


def _show(found: Any, facts: dict[str, Any], io: str, form: ListFormat, top: int) -> None:
    from normcheck import __version__
    from normcheck.analysis.reporting import environment
    from normcheck.arithmetic.formats import format_named
    from normcheck.render import identification
    from normcheck.results import Tool
    from normcheck.results.identification import Identification

    report = Identification(
        format=1,
        tool=Tool(name="normcheck", version=__version__),
        environment=environment(None),
        precision=format_named(io).label,
        candidates=found.candidates,
        contrast=found.contrast,
        skipped=found.skipped,
        **facts,
    )
    if form is ListFormat.JSON:
        emit(identification.render_json(report), "utf-8")
    else:
        emit(identification.render(report, width=width(), top=top, color=color()))
