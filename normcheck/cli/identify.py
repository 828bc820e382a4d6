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
    Debug,
    Implementations,
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
        "--precision", metavar="FORMAT", show_default="the output's", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.precisions, help="Format of input and output.",
    ),
]  # fmt: skip
Eps = Annotated[float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_NORM, help="Its eps.")]
NumGroups = Annotated[
    int | None, typer.Option(parser=whole, metavar="G", rich_help_panel=THE_NORM, help="Groups of a group norm.")
]
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
    params: Params = "half",
    implementation: Implementations = None,
    simd: Simd = None,
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
    from normcheck.analysis.identify import identify as run
    from normcheck.layers.arrays import read_array

    x, y = read_array(given), read_array(output)
    arrays = {
        name: None if text is None else read_array(text).values
        for name, text in {
            "weight": weight, "bias": bias, "residual": residual,
            "running_mean": running_mean, "running_var": running_var,
        }.items()
    }  # fmt: skip
    facts: dict[str, Any] = {"input": given, "output": output, "norm": norm, "params": params, "eps": eps}
    further: dict[str, Any] = {"num_groups": num_groups, "mode": mode.value, "params": params, "eps": eps, "simd": simd}
    io = precision or y.dtype
    with progress("comparing", quiet=quiet) as tick:
        found = run(
            x.values, y.values, norm, precision=io, implementations=names(implementation), progress=tick,
            **(further | arrays),
        )  # fmt: skip
    _show(found, facts | {"shape": x.values.shape}, io, form, top)
    best = found.candidates[0]
    raise typer.Exit(ExitCode.CLEAN if best.share >= least else ExitCode.FINDINGS)


def _show(found: Any, facts: dict[str, Any], io: str, form: ListFormat, top: int) -> None:
    from normcheck import __version__
    from normcheck.analysis.reporting import environment
    from normcheck.arithmetic.formats import format_named
    from normcheck.norms.table import norm_named
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
        **(facts | {"norm": norm_named(facts["norm"]).name}),
    )
    if form is ListFormat.JSON:
        emit(identification.render_json(report), "utf-8")
    else:
        emit(identification.render(report, width=width(), top=top, color=color()))
