"""``normcheck simulate``."""

from __future__ import annotations

from typing import Annotated

import typer

from normcheck.cli import completion
from normcheck.cli.deliver import deliver, delivery
from normcheck.cli.exit_codes import ExitCode, FailOn, exit_code
from normcheck.cli.gate import gated, read_baseline
from normcheck.cli.options import (
    THE_ARITHMETIC,
    THE_INPUT,
    THE_NORM,
    THE_REPORT,
    Backward,
    Baseline,
    ConfigFile,
    Constant,
    Constants,
    Daz,
    Debug,
    Dist,
    Fail,
    Format,
    Ftz,
    GradDist,
    GradStd,
    HtmlPath,
    Ignore,
    Implementations,
    Isolated,
    Jobs,
    JsonPath,
    JunitPath,
    K,
    LossScale,
    MarkdownPath,
    Mean,
    Mode,
    Order,
    Params,
    Quiet,
    Reproducer,
    ReproducerTo,
    Rounding,
    SarifPath,
    Seed,
    Select,
    Severities,
    ShowSettings,
    Simd,
    Std,
    Thresholds,
    assignments,
    dimensions,
    names,
    numbers,
    real,
    whole,
)
from normcheck.cli.reproducer import reproduction
from normcheck.cli.terminal import progress, say

Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision", metavar="FORMAT,...", show_default="fp16", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.precisions,
        help="Formats of the elements; `normcheck formats` lists them.",
    ),
]  # fmt: skip
Norms = Annotated[
    list[str] | None,
    typer.Option(
        "--norm", metavar="NORM,...", show_default="batch-l2", rich_help_panel=THE_NORM,
        autocompletion=completion.norms,
        help="Norms; `normcheck norms` lists them.",
    ),
]  # fmt: skip
Shape = Annotated[
    str,
    typer.Option(
        metavar="N,C,...",
        rich_help_panel=THE_INPUT,
        help="Dimensions: N,C,... or ...,D for layer and rms norms.",
    ),
]
NumGroups = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="G", show_default="32 or fewer", rich_help_panel=THE_NORM, help="Groups of a group norm."
    ),
]
Eps = Annotated[
    float, typer.Option(parser=real, metavar="X", rich_help_panel=THE_NORM, help="Added to variance or statistic.")
]
EpsComparable = Annotated[
    bool,
    typer.Option(
        "--eps-comparable",
        rich_help_panel=THE_NORM,
        help="Add sqrt(eps) to statistics, as L2 adds eps to variances.",
    ),
]
AsMode = Annotated[Mode, typer.Option(rich_help_panel=THE_NORM, help="Statistics of the batch, or running ones.")]
Steps = Annotated[bool, typer.Option("--steps", rich_help_panel=THE_REPORT, help="Show every step of every result.")]


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
    backward: Backward = False,
    loss_scale: LossScale = 1.0,
    grad_dist: GradDist = "gaussian",
    grad_std: GradStd = 1.0,
    rounding: Rounding = "nearest-even",
    order: Order = None,
    simd: Simd = None,
    ftz: Ftz = False,
    daz: Daz = False,
    form: Format = None,
    json_path: JsonPath = None,
    sarif: SarifPath = None,
    junit: JunitPath = None,
    html: HtmlPath = None,
    markdown: MarkdownPath = None,
    reproducer: Reproducer = None,
    reproducer_to: ReproducerTo = None,
    steps: Steps = False,
    fail_on: Fail = FailOn.ERROR,
    select: Select = None,
    ignore: Ignore = None,
    severity: Severities = None,
    threshold: Thresholds = None,
    baseline: Baseline = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    config: ConfigFile = None,
    isolated: Isolated = False,  # noqa: ARG001 - these two are read before the command runs
    show_settings: ShowSettings = False,  # noqa: ARG001
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Run norms in low precision on synthetic input: what overflows, where, and how much room is left.

    Options that name several things repeat or take commas.

    Exit codes: 0 clean, 1 findings at or above --fail-on, 2 an error, 3 nothing was analysed.
    """
    paths = {"json": json_path, "sarif": sarif, "junit": junit, "html": html, "markdown": markdown}
    to = delivery(form, paths, inputs=[baseline, config], steps=steps)
    precisions, norms, implementations = (
        names(precision, "fp16"),
        names(norm, "batch-l2"),
        names(implementation),
    )
    size = dimensions(shape)
    levels, limits = assignments(severity, "--severity"), numbers(threshold, "--threshold")
    old = read_baseline(baseline)
    reproduced = reproduction(reproducer, reproducer_to)
    from normcheck.analysis.simulate import simulate as run
    from normcheck.arithmetic.kernels import are_compiled

    if not quiet and not are_compiled():
        say("compiling kernels for this machine; later runs load them")
    with progress("simulating", quiet=quiet) as tick:
        found = run(
            distribution=dist, mean=mean, std=std, seed=seed, precisions=precisions, norms=norms,
            implementations=implementations, shape=size, num_groups=num_groups, mode=mode.value, eps=eps,
            eps_comparable=eps_comparable, constant=constant.value, k=k, order=order, simd=simd, ftz=ftz, daz=daz,
            rounding=rounding,  # type: ignore[arg-type]  # any text: the engine says which it knows
            params=params, backward=backward, loss_scale=loss_scale, grad_dist=grad_dist, grad_std=grad_std,
            select=names(select), ignore=names(ignore), severity=levels, thresholds=limits,
            jobs=jobs, progress=tick, watch=reproduced.watch if reproduced else None,
        )  # fmt: skip
    report = gated(found, fail_on, old)
    deliver(report, to)
    if reproduced is not None:  # after the report, which must not be lost where nothing matches
        reproduced.write(found, quiet=quiet)
    code = exit_code(report)
    if code is ExitCode.NOTHING:
        say(f"nothing was analysed: {'; '.join(skipped.reason for skipped in report.skipped)}")
    raise typer.Exit(code)
