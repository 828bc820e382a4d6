"""``normcheck analyze``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from normcheck.cli import completion
from normcheck.cli.deliver import deliver, delivery
from normcheck.cli.exit_codes import ExitCode, FailOn, exit_code
from normcheck.cli.gate import gated, read_baseline
from normcheck.cli.options import (
    THE_ARITHMETIC,
    THE_INPUT,
    THE_MODEL,
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
    path,
    whole,
)
from normcheck.cli.reproducer import reproduction
from normcheck.cli.terminal import progress, say
from normcheck.errors import UnreadableError, UsageError

if TYPE_CHECKING:
    from normcheck.results import Report

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL...", show_default=False,
        help="Checkpoints (.safetensors, .pt, .pth, .ckpt, .bin, .gguf), graphs (.onnx, .pt2, .jit), or directories.",
    ),
]  # fmt: skip
Factory = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODULE:NAME", rich_help_panel=THE_MODEL,
        help="Build the model by calling that function or class; MODEL may be left out. Runs its code.",
    ),
]  # fmt: skip
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="PATTERN=KIND,...", rich_help_panel=THE_MODEL,
        help="What layers are, as '*.norm=group(32)' or 'aux.*=none'; `normcheck norms` lists kinds.",
    ),
]  # fmt: skip
Epsilons = Annotated[
    list[str] | None,
    typer.Option(
        "--eps", metavar="[PATTERN=]X,...", rich_help_panel=THE_MODEL,
        help="Eps of layers: files of parameters alone do not hold it.",
    ),
]  # fmt: skip
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", metavar="PATTERN,...", rich_help_panel=THE_MODEL,
        help="Only these layers, with their facts and every step.",
    ),
]  # fmt: skip
Trust = Annotated[
    bool,
    typer.Option("--trust", rich_help_panel=THE_MODEL, help="Run code that files hold. Only for files of your own."),
]
Norms = Annotated[
    list[str] | None,
    typer.Option(
        "--norm", metavar="NORM,...", show_default="each layer's own", rich_help_panel=THE_NORM,
        autocompletion=completion.norms,
        help="Norms to try in place of the layers' own, besides it.",
    ),
]  # fmt: skip
AsMode = Annotated[
    Mode | None,
    typer.Option(
        show_default="both where they differ", rich_help_panel=THE_NORM,
        help="Statistics of the batch, or running ones.",
    ),
]  # fmt: skip
Activations = Annotated[
    str | None,
    typer.Option(
        parser=path, metavar="FILE", rich_help_panel=THE_INPUT,
        help="Recorded inputs of layers, by name: .safetensors, .npz or .pt.",
    ),
]  # fmt: skip
InputFile = Annotated[
    str | None,
    typer.Option(
        "--input",
        parser=path,
        metavar="FILE",
        rich_help_panel=THE_INPUT,
        help="Run the model of --model on this tensor.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(parser=whole, metavar="N", rich_help_panel=THE_INPUT, help="Samples in an assumed input.")
]
Spatial = Annotated[
    str, typer.Option(metavar="H,W", rich_help_panel=THE_INPUT, help="Positions of a channel in an assumed input.")
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision", metavar="FORMAT,...", show_default="fp16,bf16", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.precisions,
        help="Formats of the elements; `normcheck formats` lists them.",
    ),
]  # fmt: skip
Implementations = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="wide, and pure in brief", rich_help_panel=THE_ARITHMETIC,
        autocompletion=completion.implementations,
        help="How kernels compute: rows or aliases of `normcheck implementations`, all, or a TOML file.",
    ),
]  # fmt: skip
Top = Annotated[
    int | None,
    typer.Option(
        "--top", parser=whole, metavar="N", show_default="all", rich_help_panel=THE_REPORT, help="Rows of the table."
    ),
]


def analyze(
    models: Models = None,
    *,
    model_factory: Factory = None,
    kind: Kinds = None,
    eps: Epsilons = None,
    layer: Layers = None,
    trust: Trust = False,
    norm: Norms = None,
    mode: AsMode = None,
    constant: Constants = Constant.EXACT,
    k: K = 10,
    activations: Activations = None,
    input_file: InputFile = None,
    dist: Dist = "gaussian",
    mean: Mean = 0.0,
    std: Std = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    spatial: Spatial = "8,8",
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
    top: Top = None,
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
    """Check the normalization layers of models: which break in low precision, at which step, and what to change.

    Options that name several things repeat or take commas.

    Exit codes: 0 clean, 1 findings at or above --fail-on, 2 an error or a file that cannot be read, 3 no layer found.
    """
    paths = {"json": json_path, "sarif": sarif, "junit": junit, "html": html, "markdown": markdown}
    to = delivery(form, paths, inputs=[*(models or ()), activations, input_file, baseline, config], top=top)
    if not models and model_factory is None:
        raise UsageError("no model: give the path of a file or directory, or --model MODULE:NAME")
    patterns, positions = names(layer), dimensions(spatial, "--spatial", "8,8")
    precisions = names(precision) or ("fp16", "bf16")
    norms, implementations = names(norm), names(implementation)
    kinds, epsilons = names(kind), names(eps)
    levels, limits = assignments(severity, "--severity"), numbers(threshold, "--threshold")
    old = read_baseline(baseline)
    reproduced = reproduction(reproducer, reproducer_to)
    from normcheck.analysis.analyze import analyze as run
    from normcheck.arithmetic.kernels import are_compiled
    from normcheck.layers.discovery.discover import parse_eps, parse_kind
    from normcheck.render.places import whole

    if not quiet and not are_compiled():
        say("compiling kernels for this machine; later runs load them")
    with progress("analyzing", quiet=quiet) as tick:
        try:
            found = run(
                tuple(models or ()), activations=activations, model_factory=model_factory, input_file=input_file,
                precisions=precisions, norms=norms, implementations=implementations, params=params,
                mode=mode.value if mode else None, distribution=dist, mean=mean, std=std, seed=seed,
                batch_size=batch_size, spatial=positions, kinds=tuple(map(parse_kind, kinds)),
                eps=tuple(map(parse_eps, epsilons)), layers=patterns, trust=trust, constant=constant.value, k=k,
                rounding=rounding,  # type: ignore[arg-type]  # any text: the engine says which it knows
                order=order, simd=simd, ftz=ftz, daz=daz, backward=backward, loss_scale=loss_scale, grad_dist=grad_dist,
                grad_std=grad_std, select=names(select), ignore=names(ignore), severity=levels,
                thresholds=limits, jobs=jobs, progress=tick, say=None if quiet else say,
                watch=reproduced.watch if reproduced else None,
            )  # fmt: skip
        except UnreadableError as error:  # of all files: the report says so in every format
            if error.report is None:
                raise
            found = error.report
    for item in found.unreadable:
        say(f"error: {whole(item)}")
    report = gated(found, fail_on, old)
    deliver(report, replace(to, steps=bool(patterns)))
    if reproduced is not None:  # after the report, which must not be lost where nothing matches
        reproduced.write(found, quiet=quiet)
    code = exit_code(report)
    if code is ExitCode.NOTHING:
        say(f"nothing was analysed: {_why(report)}")
    raise typer.Exit(code)


_FEW = 3
"""So many reasons are told on standard error; the report has all."""


def _why(report: Report) -> str:
    """Return that there are no layers, and the first few things that were skipped."""
    from normcheck.render.places import whole

    reasons = [whole(item) for item in report.skipped[:_FEW]]
    more = len(report.skipped) - len(reasons)
    found = [] if report.layers else ["no normalization layers were found"]
    return "; ".join([*found, *reasons, *([f"and {more} more skipped"] if more else [])])
