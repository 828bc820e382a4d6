"""``normcheck simulate``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from normcheck.cli.deliver import ReportFormat, deliver, delivery
from normcheck.cli.exit_codes import ExitCode, FailOn, exit_code
from normcheck.cli.options import Debug, dimensions, names, real, whole
from normcheck.cli.terminal import progress, say


class Mode(StrEnum):
    """Whether a batch norm takes the batch's statistics or the running ones."""

    TRAIN = "train"
    EVAL = "eval"


class Constant(StrEnum):
    """Which constants scale a statistic to the standard deviation."""

    EXACT = "exact"
    PAPER = "paper"


_NORM, _INPUT, _ARITHMETIC, _REPORT = "The norm", "The input", "The arithmetic", "The report"

Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision", metavar="FORMAT,...", show_default="fp16", rich_help_panel=_ARITHMETIC,
        help="Formats of the elements; `normcheck formats` lists them.",
    ),
]  # fmt: skip
Norms = Annotated[
    list[str] | None,
    typer.Option(
        "--norm", metavar="NORM,...", show_default="batch-l2", rich_help_panel=_NORM,
        help="Norms; `normcheck norms` lists them.",
    ),
]  # fmt: skip
Implementations = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="by precision", rich_help_panel=_ARITHMETIC,
        help="How kernels compute; `normcheck implementations` lists them.",
    ),
]  # fmt: skip
Shape = Annotated[
    str,
    typer.Option(
        metavar="N,C,...",
        rich_help_panel=_INPUT,
        help="Dimensions: N,C,... or ...,D for layer and rms norms.",
    ),
]
NumGroups = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="G", show_default="32 or fewer", rich_help_panel=_NORM, help="Groups of a group norm."
    ),
]
Params = Annotated[
    str,
    typer.Option(
        metavar="PRESET", rich_help_panel=_ARITHMETIC,
        help="Format of gamma, beta and running statistics: half, autocast, half-except-norms, io, float32, stored.",
    ),
]  # fmt: skip
Rounding = Annotated[
    str,
    typer.Option(
        metavar="MODE", rich_help_panel=_ARITHMETIC,
        help="nearest-even, toward-zero, up, down or stochastic.",
    ),
]  # fmt: skip
Order = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER", show_default="the implementation's", rich_help_panel=_ARITHMETIC,
        help="How sums are associated: sequential, pairwise, lanes(8, serial), tree, blocks(64), kahan.",
    ),
]  # fmt: skip
Dist = Annotated[
    str,
    typer.Option(
        metavar="NAME", rich_help_panel=_INPUT,
        help="As 'student-t(df=4)'; `normcheck distributions` lists them.",
    ),
]  # fmt: skip
Eps = Annotated[
    float, typer.Option(parser=real, metavar="X", rich_help_panel=_NORM, help="Added to variance or statistic.")
]
EpsComparable = Annotated[
    bool,
    typer.Option(
        "--eps-comparable",
        rich_help_panel=_NORM,
        help="Add sqrt(eps) to statistics, as L2 adds eps to variances.",
    ),
]
Constants = Annotated[
    Constant,
    typer.Option(rich_help_panel=_NORM, help="Factor of statistics other than L2: exact for n, or the paper's."),
]
K = Annotated[
    int, typer.Option("--k", parser=whole, metavar="K", rich_help_panel=_NORM, help="Elements of a topk statistic.")
]
AsMode = Annotated[Mode, typer.Option(rich_help_panel=_NORM, help="Statistics of the batch, or running ones.")]
Mean = Annotated[
    float, typer.Option(parser=real, metavar="X", rich_help_panel=_INPUT, help="Added to the scaled noise.")
]
Std = Annotated[float, typer.Option(parser=real, metavar="X", rich_help_panel=_INPUT, help="Scale of the noise.")]
Seed = Annotated[int, typer.Option(parser=whole, metavar="N", rich_help_panel=_INPUT, help="Same seed, same report.")]
Ftz = Annotated[bool, typer.Option("--ftz", rich_help_panel=_ARITHMETIC, help="Flush subnormal results to zero.")]
Daz = Annotated[bool, typer.Option("--daz", rich_help_panel=_ARITHMETIC, help="Take subnormal operands as zero.")]
Format = Annotated[
    ReportFormat | None,
    typer.Option("--format", show_default="table", rich_help_panel=_REPORT, help="Report on standard output."),
]
JsonPath = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="PATH", rich_help_panel=_REPORT,
        help="Write a JSON report there too; - replaces the table on standard output.",
    ),
]  # fmt: skip
Steps = Annotated[bool, typer.Option("--steps", rich_help_panel=_REPORT, help="Show every step of every result.")]
Fail = Annotated[FailOn, typer.Option("--fail-on", rich_help_panel=_REPORT, help="Exit with 1 from this severity on.")]
Jobs = Annotated[int | None, typer.Option(parser=whole, metavar="N", show_default="all cores", help="Threads.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors on standard error.")]


def simulate(
    *,
    norm: Norms = None,
    eps: Eps = 1e-5,
    eps_comparable: EpsComparable = False,
    constant: Constants = Constant.EXACT,
    k: K = 10,
    num_groups: NumGroups = None,
    mode: AsMode = Mode.TRAIN,
    dist: Dist = "gaussian",
    mean: Mean = 0.0,
    std: Std = 1.0,
    seed: Seed = 0,
    shape: Shape = "32,64,28,28",
    precision: Precisions = None,
    implementation: Implementations = None,
    params: Params = "half",
    rounding: Rounding = "nearest-even",
    order: Order = None,
    ftz: Ftz = False,
    daz: Daz = False,
    form: Format = None,
    json_path: JsonPath = None,
    steps: Steps = False,
    fail_on: Fail = FailOn.ERROR,
    jobs: Jobs = None,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Run norms in low precision on synthetic input: what overflows, where, and how much room is left.

    Options that name several things repeat or take commas.

    Exit codes: 0 clean, 1 findings at or above --fail-on, 2 an error, 3 nothing was analysed.
    """
    to = delivery(form, json_path, steps=steps)
    precisions, norms, implementations = (
        names(precision, "fp16"),
        names(norm, "batch-l2"),
        names(implementation),
    )
    size = dimensions(shape)
    from normcheck.analysis.simulate import simulate as run
    from normcheck.arithmetic.kernels import are_compiled

    if not quiet and not are_compiled():
        say("compiling kernels for this machine; later runs load them")
    with progress(quiet=quiet) as tick:
        report = run(
            distribution=dist, mean=mean, std=std, seed=seed, precisions=precisions, norms=norms,
            implementations=implementations, shape=size, num_groups=num_groups, mode=mode.value, eps=eps,
            eps_comparable=eps_comparable, constant=constant.value, k=k, order=order, ftz=ftz, daz=daz,
            rounding=rounding,  # type: ignore[arg-type]  # any text: the engine says which it knows
            params=params, jobs=jobs, progress=tick,
        )  # fmt: skip
    deliver(report, to)
    code = exit_code(report, fail_on)
    if code is ExitCode.NOTHING:
        say(f"nothing was analysed: {'; '.join(skipped.reason for skipped in report.skipped)}")
    raise typer.Exit(code)
