"""``normcheck track``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normcheck.cli.analyze import InputFile, Precisions, Top, Trust
from normcheck.cli.convert import Factory, Layers
from normcheck.cli.deliver import Delivery, ReportFormat, delivery
from normcheck.cli.exit_codes import ExitCode, FailOn
from normcheck.cli.files import check_writable, emit, write_bytes, write_whole
from normcheck.cli.options import (
    THE_REPORT,
    Debug,
    Fail,
    JsonPath,
    MarkdownPath,
    Quiet,
    ShownAs,
    names,
    path,
    whole,
)
from normcheck.cli.terminal import color, progress, say, width
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from normcheck.analysis.track_series import Snapshot
    from normcheck.render.plots import Kind
    from normcheck.results.track import Scope, TrackReport


class Update(StrEnum):
    """Where the update of a step is taken from."""

    AUTO = "auto"
    OPTIMIZER = "optimizer"
    DIFFERENCE = "difference"


THE_TRAINING = "The training"
Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CKPT...", show_default=False,
        help="Checkpoints of one run in the order of training, or a folder of them, taken in the order of its numbers.",
    ),
]  # fmt: skip
Rate = Annotated[
    str | None,
    typer.Option(
        "--lr", metavar="X|FILE", show_default="as the checkpoints state", rich_help_panel=THE_TRAINING,
        help="Learning rate: a number, one for each checkpoint by commas, or a file of such numbers.",
    ),
]  # fmt: skip
Optimizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default="as the checkpoints state, else sgd", rich_help_panel=THE_TRAINING,
        help="Of torch: sgd, adam, adamw, adamax, nadam, rmsprop, adagrad or rprop.",
    ),
]  # fmt: skip
UpdateFrom = Annotated[
    Update,
    typer.Option(
        rich_help_panel=THE_TRAINING,
        help="Take the update of a step from the optimizer's state, from the difference of checkpoints, or "
        "from the state where there is one.",
    ),
]
StepsBetween = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="N", show_default="as the checkpoints state", rich_help_panel=THE_TRAINING,
        help="Steps between two checkpoints; their difference over N stands for the update of a step.",
    ),
]  # fmt: skip
Shown = Annotated[
    ShownAs | None,
    typer.Option("--format", show_default="table", rich_help_panel=THE_REPORT, help="Report on standard output."),
]
Plot = Annotated[
    str | None,
    typer.Option(
        parser=path, metavar="FILE", rich_help_panel=THE_REPORT,
        help="Draw norms, effective step sizes and lost updates: .png, .svg or .pdf.",
    ),
]  # fmt: skip
Channels = Annotated[
    bool, typer.Option("--channels", rich_help_panel=THE_REPORT, help="JSON holds the norms of all channels.")
]


def track(
    checkpoints: Checkpoints,
    *,
    lr: Rate = None,
    optimizer: Optimizer = None,
    update: UpdateFrom = Update.AUTO,
    steps_between: StepsBetween = None,
    precision: Precisions = None,
    layer: Layers = None,
    model_factory: Factory = None,
    input_file: InputFile = None,
    trust: Trust = False,
    form: Shown = None,
    json_path: JsonPath = None,
    markdown: MarkdownPath = None,
    plot: Plot = None,
    channels: Channels = False,
    top: Top = None,
    fail_on: Fail = FailOn.ERROR,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Follow weights through checkpoints: norms, effective step sizes, updates too small for a format.

    Exit codes: 0 clean, 1 findings at or above --fail-on, 2 an error or a file that cannot be read, 3 no weight found.
    """
    from normcheck.analysis.track import track as run
    from normcheck.analysis.track_series import expanded

    paths = expanded(checkpoints)
    inputs = [*paths, input_file, lr]
    shown = ReportFormat(form.value) if form is not None else None
    to = delivery(shown, {"json": json_path, "markdown": markdown}, inputs=inputs, top=top)
    drawn = _drawn(plot, inputs)
    scopes = _scopes(model_factory, input_file)
    with progress("following", quiet=quiet) as tick:
        report = run(
            paths, rates=_rates(lr), optimizer=optimizer, precisions=names(precision) or ("fp16", "bf16"),
            layers=names(layer), update=update.value, steps_between=steps_between, scopes=scopes, channels=channels,
            trust=trust, fail_on=fail_on.value, progress=tick,
        )  # fmt: skip
    for item in report.unreadable:
        say(f"error: {item.reason}")
    _deliver(report, to)
    if plot is not None and drawn is not None and report.layers:
        from normcheck.render.track_plots import picture

        write_bytes(plot, [picture(report, drawn)])
    raise typer.Exit(_exit_code(report))


def _exit_code(report: TrackReport) -> ExitCode:
    from normcheck.render.track import failures

    if report.unreadable:
        return ExitCode.ERROR
    if not report.layers:
        say("nothing was followed: no floating-point weight of two dimensions or more was found")
        return ExitCode.NOTHING
    return ExitCode.FINDINGS if failures(report) else ExitCode.CLEAN


def _deliver(report: TrackReport, to: Delivery) -> None:
    """Write the files first: a reader of standard output that goes away must not cost them."""
    for output, target in to.files:
        write_whole(target, _pieces(report, output, to))
    emit(_pieces(report, to.stdout, to), None if to.stdout == ReportFormat.TABLE else "utf-8")


def _pieces(report: TrackReport, output: str, to: Delivery) -> Iterator[str]:
    from normcheck.render import strip
    from normcheck.render import track as renderer

    if output == ReportFormat.JSON:
        return renderer.json_pieces(report)
    if output == ReportFormat.MARKDOWN:
        return renderer.markdown_pieces(report, top=to.top)
    pieces = renderer.pieces(report, width=width(), color=color(), top=to.top)
    return (strip.legible(piece, sys.stdout.encoding) for piece in pieces)


def _drawn(plot: str | None, inputs: Sequence[str | None]) -> Kind | None:
    """Return which kind of picture is asked for, once it is known that it can be written.

    Raises:
        UsageError: it cannot, its ending is none of a picture's, or what is there is no picture of ours.
    """
    if plot is None:
        return None
    from normcheck.render.plots import is_ours, kind_of

    kind = kind_of(plot)
    check_writable(plot)
    target = Path(plot)
    if any(source and Path(source).exists() and target.exists() and target.samefile(source) for source in inputs):
        raise UsageError(f"--plot {plot}: this run reads that file: give another path, or it would be lost")
    if target.is_file() and not is_ours(target.read_bytes(), kind):
        raise UsageError(f"--plot {plot}: it exists and normcheck did not draw it: give another path, or delete it")
    return kind


def _rates(text: str | None) -> tuple[float, ...] | None:
    """Return the learning rates that --lr names: numbers, or a file of them.

    Raises:
        UsageError: neither.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        pass
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        raise UsageError(f"--lr {text}: neither a number, nor numbers by commas, nor a file of numbers") from None
    try:
        listed = json.loads(content) if content.lstrip().startswith("[") else content.replace(",", " ").split()
        found = tuple(map(float, listed))
    except (ValueError, TypeError, RecursionError):
        raise UsageError(f"--lr {text}: it holds something else than numbers; write one for each checkpoint") from None
    if not found:
        raise UsageError(f"--lr {text}: it is empty; write one number for each checkpoint")
    return found


def _scopes(
    factory: str | None, input_file: str | None
) -> Callable[[Snapshot], Mapping[str, tuple[Scope, str]]] | None:
    """Return what runs the model on the input, to find what of its weights is scale invariant.

    Raises:
        UsageError: one of the two without the other.
    """
    if (factory is None) != (input_file is None):
        raise UsageError("--model and --input go together: weights are scaled and the model is run on that input")
    if factory is None or input_file is None:
        return None

    def run(snapshot: Snapshot) -> Mapping[str, tuple[Scope, str]]:
        from normcheck.layers.live.factory import load_inputs, load_model, load_weights
        from normcheck.optim import scale_invariance

        module = load_model(factory)
        load_weights(module, snapshot.contents)
        positional, named = load_inputs(input_file)
        if named:
            raise UsageError(f"--input {input_file}: give positional tensors; it holds {', '.join(named)}")
        found = scale_invariance(module.train(), *positional)
        return {
            name: (one.scope or "none", "its weights were scaled and the model run, in training mode")
            for name, one in found.items()
        }

    return run
