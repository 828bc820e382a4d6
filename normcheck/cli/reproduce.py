"""``normcheck reproduce``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from normcheck.cli import completion
from normcheck.cli.files import check_writable, emit, write_bytes, write_whole
from normcheck.cli.options import Debug, Quiet, ShownAs, path, whole
from normcheck.cli.terminal import color, progress, say, width
from normcheck.errors import NormcheckError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.paper.experiments import Row
    from normcheck.results.experiment import Experiment, Reproduction

REPORT = "reproduce.json"
"""The file of the folder that holds everything as data."""


Experiments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT", show_default=False, autocompletion=completion.experiments,
        help="statistics (a), half-precision (b), weight-norm (c), weight-decay (d), constants (e); all if left out.",
    ),
]  # fmt: skip
Quick = Annotated[bool, typer.Option("--quick", help="A short form of fewer seeds and steps, which decides less.")]
Out = Annotated[
    str,
    typer.Option("--out", parser=path, metavar="DIR", help=f"Folder for {REPORT} and a PNG of each plot."),
]
Shown = Annotated[ShownAs, typer.Option("--format", help="Report on standard output.")]
Jobs = Annotated[int | None, typer.Option(parser=whole, metavar="N", show_default="all cores", help="Processes.")]


def reproduce(
    experiments: Experiments = None,
    *,
    quick: Quick = False,
    out: Out = "normcheck-paper",
    form: Shown = ShownAs.TABLE,
    jobs: Jobs = None,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Run the claims of "Norm matters" (arXiv 1803.01814) as experiments, and say what became of each.

    They train small networks on digits that come with normcheck, with fixed seeds.

    Exit codes: 0 whatever became of the claims, 2 an error.
    """
    from normcheck.paper.experiments import experiments_named
    from normcheck.paper.experiments import reproduce as run

    rows = experiments_named(experiments or ())
    check_folder(out, rows, quick=quick)
    with progress("reproduce", quiet=quiet) as tick:
        found = run(rows, quick=quick, jobs=jobs, tick=tick, done=None if quiet else _ended)
    write_folder(out, found)
    emit(_pieces(found, form), None if form is ShownAs.TABLE else "utf-8")


def _ended(experiment: Experiment) -> None:
    right = sum(claim.standing == "reproduced" for claim in experiment.claims)
    say(f"{experiment.name}: {right} of {len(experiment.claims)} claims reproduced, {experiment.seconds:.0f} s")


def _pieces(found: Reproduction, form: ShownAs) -> Iterator[str]:
    from normcheck.render import experiments

    match form:
        case ShownAs.TABLE:
            return experiments.table(found, width=width(), color=color())
        case ShownAs.JSON:
            return experiments.json_pieces(found)
        case ShownAs.MARKDOWN:
            return experiments.markdown(found)


def check_folder(out: str, rows: Sequence[Row], *, quick: bool) -> None:
    """Make sure, before anything is computed, that `write_folder` can write there, and over nothing but its own.

    An earlier result may be replaced by one that holds as much: the same experiments or more, and no short form in
    the place of a full one.

    Raises:
        UsageError: it cannot, or there is something else.
    """
    folder = Path(out)
    if not os.path.lexists(folder):
        above = next(parent for parent in folder.absolute().parents if parent.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise UsageError(f"--out {out}: nothing can be made in {above}; give another folder")
        return
    if not folder.is_dir():
        raise UsageError(f"--out {out}: it is no folder; give another path")
    check_writable(str(folder / REPORT))
    _check_report(folder / REPORT, {row.name for row in rows}, quick=quick)
    _check_pictures(folder, rows)


def _check_report(report: Path, names: set[str], *, quick: bool) -> None:
    from normcheck.render.experiments import from_json

    if not report.exists() or report.stat().st_size == 0:
        return
    try:
        before = from_json(report.read_bytes())
    except (OSError, ValueError):
        raise UsageError(
            f"--out {report.parent}: its {REPORT} is not from normcheck reproduce: give another folder, or delete it"
        ) from None
    lost = sorted({experiment.name for experiment in before.experiments} - names)
    if lost:
        raise UsageError(
            f"--out {report.parent}: its {REPORT} holds {', '.join(lost)} too, which would be lost: give another "
            f"folder, or delete it"
        )
    if quick and not before.quick:
        raise UsageError(
            f"--out {report.parent}: its {REPORT} is of the full form, which --quick would replace: give another "
            f"folder, or delete it"
        )


def _check_pictures(folder: Path, rows: Sequence[Row]) -> None:
    from normcheck.render.plots import is_ours

    for found in (found for row in rows for found in sorted(folder.glob(f"{row.name}-*.png"))):
        try:
            ours = is_ours(found.read_bytes(), "png")
        except OSError:
            ours = False
        if not ours:
            raise UsageError(f"--out {folder}: {found.name} is not from normcheck: give another folder, or delete it")


def write_folder(out: str, found: Reproduction) -> None:
    """Write the plots, then the report, each whole or not at all; all are drawn before the first is written.

    Raises:
        NormcheckError: a file cannot be written.
    """
    from normcheck.render.experiment_plots import pictures
    from normcheck.render.experiments import json_pieces

    drawn = [picture for experiment in found.experiments for picture in pictures(experiment)]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NormcheckError(f"cannot make the folder {out}: {error.strerror}") from error
    for name, content in drawn:
        write_bytes(str(folder / name), [content])
    write_whole(str(folder / REPORT), json_pieces(found))
