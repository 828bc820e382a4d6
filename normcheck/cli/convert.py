"""``normcheck convert``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from normcheck.cli import completion
from normcheck.cli.analyze import Trust
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.files import check_writable, emit, write_bytes
from normcheck.cli.options import (
    THE_INPUT,
    THE_MODEL,
    THE_NORM,
    THE_REPORT,
    Constant,
    Constants,
    Debug,
    K,
    Quiet,
    ShownAs,
    names,
    path,
    whole,
)
from normcheck.cli.overwriting import check_new
from normcheck.cli.terminal import color, progress, say, width
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from normcheck.nn.convert_checkpoint import Converted
    from normcheck.results.conversion import ConversionReport

SUFFIX = ".safetensors"


Checkpoint = Annotated[
    str, typer.Argument(metavar="CKPT", parser=path, help="Checkpoint: a file or directory that `analyze` reads.")
]
To = Annotated[
    str,
    typer.Option(
        "--to", metavar="NORM", rich_help_panel=THE_NORM, autocompletion=completion.norms, show_default=False,
        help="As batch-l1, layer-linf, layer-l1-uncentred (of RMS norms), group-topk.",
    ),
]  # fmt: skip
Out = Annotated[
    str,
    typer.Option(
        "--out", metavar="NEW.safetensors", parser=path, rich_help_panel=THE_REPORT, show_default=False,
        help="File to write the converted state dict to.",
    ),
]  # fmt: skip
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=THE_REPORT, help="Replace that file where it exists.")
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODULE:NAME", rich_help_panel=THE_MODEL,
        help="Build the model by calling that function or class, and load CKPT into it. Runs its code.",
    ),
]  # fmt: skip
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", metavar="PATTERN,...", show_default="all", rich_help_panel=THE_MODEL, help="Only these layers."
    ),
]
Eps = Annotated[
    str,
    typer.Option(
        "--eps", metavar="comparable|same|X", rich_help_panel=THE_NORM,
        help="Eps of the new norms: the same floor under the deviation, the same number, or a number.",
    ),
]  # fmt: skip
InputFile = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="FILE", parser=path, rich_help_panel=THE_INPUT,
        help="Run both models on these tensors, and report what changed; an array `labels` gives the accuracy.",
    ),
]  # fmt: skip
Calibrate = Annotated[
    list[str] | None,
    typer.Option(
        "--calibrate", metavar="FILE,...", show_default="the input", rich_help_panel=THE_INPUT,
        help="Measure running statistics of batch norms on these.",
    ),
]  # fmt: skip
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="FILE", parser=path, rich_help_panel=THE_INPUT, help="The class of each sample of --input."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", parser=whole, metavar="N", show_default="all of a file", rich_help_panel=THE_INPUT,
        help="Samples to run at once.",
    ),
]  # fmt: skip
Format = Annotated[ShownAs, typer.Option("--format", rich_help_panel=THE_REPORT, help="Report on standard output.")]


def convert(
    checkpoint: Checkpoint,
    *,
    to: To,
    out: Out,
    overwrite: Overwrite = False,
    model_factory: Factory = None,
    layer: Layers = None,
    trust: Trust = False,
    constant: Constants = Constant.EXACT,
    k: K = 10,
    eps: Eps = "comparable",
    input_file: InputFile = None,
    calibrate: Calibrate = None,
    labels: Labels = None,
    batch_size: BatchSize = None,
    form: Format = ShownAs.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Replace the norms of a checkpoint by those of another statistic, and report what that changes.

    The running statistics of batch norms are measured on data; the report has the change of each layer's output, the
    most changed first.

    Exit codes: 0 converted, 2 an error: then no file is written.
    """
    calibration = names(calibrate)
    _check_options(model_factory, input_file, [*calibration, *([labels] if labels else [])], batch_size)
    if not out.endswith(SUFFIX):
        raise UsageError(f"--out {out}: the file is a safetensors file; give a path that ends in {SUFFIX}")
    check_writable(out)
    check_new("--out", out, [checkpoint, input_file, labels, *calibration], overwrite=overwrite)
    from normcheck.nn.convert import settings_for
    from normcheck.nn.convert_checkpoint import convert_alone, convert_with_model

    settings = settings_for(to, constant=constant.value, k=k, eps=_eps(eps), layers=names(layer))
    if model_factory is None or input_file is None:
        done = convert_alone(checkpoint, settings, trust=trust)
    else:
        with progress("calibrating", quiet=quiet) as tick:
            done = convert_with_model(
                checkpoint, settings, model_factory, input_file=input_file, calibration_files=calibration,
                labels_file=labels, batch_size=batch_size, trust=trust, tick=tick,
            )  # fmt: skip
    write_bytes(out, [done.data])
    if done.warning and not quiet:
        say(f"warning: {done.warning}")
    facts = {"checkpoint": checkpoint, "out": out, "model": model_factory, "input": input_file}
    _show(_report(done, settings.norm, facts), form)
    raise typer.Exit(ExitCode.CLEAN)


def _check_options(model: str | None, input_file: str | None, others: list[str], batch_size: int | None) -> None:
    """Refuse options that contradict each other."""
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: give 1 or more, or leave it out to run all samples at once")
    if model is None and (input_file is not None or others):
        raise UsageError("--input, --calibrate and --labels are for a model that can be run: give --model MODULE:NAME")
    if model is not None and input_file is None:
        raise UsageError(f"--model {model}: give --input FILE, on which statistics and changes are measured")


def _eps(text: str) -> Any:
    if text in ("comparable", "same"):
        return text
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--eps {text!r}: give comparable, same or a number") from None


def _report(done: Converted, to: str, facts: dict[str, Any]) -> ConversionReport:
    from normcheck import __version__
    from normcheck.analysis.reporting import environment
    from normcheck.results import Tool
    from normcheck.results.conversion import ConversionReport

    return ConversionReport(
        format=1,
        tool=Tool(name="normcheck", version=__version__),
        environment=environment(None),
        to=to,
        calibrated_on=done.calibrated_on,
        conversion=done.conversion,
        **facts,
    )


def _show(report: ConversionReport, form: ShownAs) -> None:
    from normcheck.render import conversion

    if form is ShownAs.JSON:
        emit(conversion.render_json(report), "utf-8")
    elif form is ShownAs.MARKDOWN:
        emit(conversion.render_markdown(report), "utf-8")
    else:
        emit(conversion.render(report, width=width(), color=color()))
