"""``python -m normcheck.fidelity``: the catalogue's rows beside the real kernels that are installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.files import STDOUT, check_writable, emit, write_whole
from normcheck.cli.options import Quiet, path, real, whole
from normcheck.cli.overwriting import check_replaceable
from normcheck.cli.terminal import color, progress, say, width
from normcheck.errors import NormcheckError, UsageError, unknown_name
from normcheck.fidelity.keeping import keep, kept_results, results
from normcheck.fidelity.projects import PROJECTS, projects_named
from normcheck.fidelity.results import RowRun
from normcheck.fidelity.suite import kept, run_suite
from normcheck.fidelity.table import dumped, percent, table, ulps, variety
from normcheck.fidelity.worker import described
from normcheck.norms.catalogue import catalogue
from normcheck.norms.evidence import VERIFIED_OUTPUTS

if TYPE_CHECKING:
    from normcheck.fidelity.results import Fidelity
    from normcheck.fidelity.suite import Found

QUICK_OUTPUTS = 1e5
PROMISED_OUTPUTS = 1e7
"""Outputs of each row that results of torch on the CPU are kept of, over its instruction sets."""

_UsageFault: Any = typer.BadParameter.__mro__[2]
"""What Typer raises for every error in usage."""

Rows = Annotated[list[str] | None, typer.Option("--row", metavar="NAME", help="Rows of the catalogue alone; repeat.")]
Projects = Annotated[
    list[str] | None,
    typer.Option("--project", metavar="PROJECT", help=f"Kernels of a project alone; repeat: {', '.join(PROJECTS)}."),
]
Isas = Annotated[
    list[str] | None,
    typer.Option(
        "--isa", metavar="ISA", help="Instruction sets of torch, such as avx2; all that are here if left out."
    ),
]
Outputs = Annotated[
    float,
    typer.Option(
        parser=real,
        metavar="N",
        show_default="1e7",
        help="Outputs to compare for each row and instruction set, shared out among the row's kernels.",
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help=f"As --outputs {QUICK_OUTPUTS:g}: for each row, shared out among its kernels.")
]
Json = Annotated[str | None, typer.Option("--json", parser=path, metavar="PATH", help="Write JSON; - for stdout.")]
Write = Annotated[
    bool,
    typer.Option("--write", help="Keep the results in docs/fidelity and in the catalogue."),
]
Seed = Annotated[int, typer.Option(parser=whole, metavar="N", help="Of the inputs.")]
Jobs = Annotated[int | None, typer.Option(parser=whole, metavar="N", show_default="all cores", help="Processes.")]

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def fidelity(
    *,
    row: Rows = None,
    project: Projects = None,
    isa: Isas = None,
    outputs: Outputs = PROMISED_OUTPUTS,
    quick: Quick = False,
    json: Json = None,
    write: Write = False,
    seed: Seed = 0,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> int:
    """Run the real kernels that are installed beside the catalogue's rows, and compare them bit for bit.

    Exit codes: 0 every promised share was kept, 1 one was missed, 2 an error, 3 nothing was run.
    """
    chosen = projects_named(_split(project))
    if not 1 <= outputs <= 1e12:
        raise UsageError(f"--outputs must be from 1 to 1e12, received {outputs:g}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, received {jobs}")
    if write:
        _check_kept(outputs, quick=quick)
    wanted = _rows_named(_split(row))
    if json is not None and json != STDOUT:
        check_replaceable("json", json, [str(kept_results())])
        check_writable(json)
    with progress("fidelity", quiet=quiet) as tick:
        found = run_suite(
            chosen,
            rows=wanted,
            isas=_split(isa),
            outputs=int(QUICK_OUTPUTS if quick else outputs),
            seed=seed,
            jobs=jobs,
            tick=tick,
            done=None if quiet else _ended,
        )
    _check_rows(wanted, found)
    if write:
        _keep(found, complete=not wanted and not isa)
    if json is not None and json != STDOUT:
        write_whole(json, dumped(found))
    _show(found, as_json=json == STDOUT)
    if not found.rows:
        return ExitCode.NOTHING
    return ExitCode.CLEAN if kept(found.rows) else ExitCode.FINDINGS


def _show(found: Fidelity, *, as_json: bool) -> None:
    if as_json:
        emit(dumped(found), "utf-8")
    else:
        emit(table(found, width=width(), color=color()))


def _ended(found: Found) -> None:
    """Say on standard error what has ended."""
    if not isinstance(found, RowRun):
        say(f"{found.project}: {found.what} not run: {found.reason}")
        return
    what = (found.implementation, found.norm, found.precision, variety(found), found.isa)
    seconds = found.kernel_seconds + found.row_seconds
    say(
        f"{' '.join(filter(None, what))}: {percent(found.outputs)} identical, {ulps(found.outputs)} ulp, statistics "
        f"{percent(found.statistics)}, {seconds:.0f} s"
    )


def _check_kept(outputs: float, *, quick: bool) -> None:
    """Refuse, before anything is run, what is not to be kept, and files that cannot be."""
    if quick:
        raise UsageError("--write keeps full runs: leave --quick out, or --write")
    if outputs < VERIFIED_OUTPUTS:
        raise UsageError(f"--write needs --outputs of at least {VERIFIED_OUTPUTS:g}, received {outputs:g}")
    results()
    check_writable(str(kept_results()))


def _keep(found: Fidelity, *, complete: bool) -> None:
    for run in keep(found, complete=complete):
        say(f"{described(run)} on {run.isa}: not kept, since the run before compared more than twice as many outputs")


def _rows_named(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as the catalogue has them."""
    rows = catalogue()
    for name in names:
        if name.lower() not in rows:
            raise unknown_name("implementation", name, rows, "normcheck implementations")
    return tuple(name.lower() for name in names)


def _check_rows(rows: tuple[str, ...], found: Fidelity) -> None:
    there = {row.implementation for row in found.rows}
    told = " ".join(item.what for item in found.not_run)
    for name in rows:
        if name not in there and name not in told:
            say(f"no kernel that was run has the row {name}: `normcheck implementations` lists rows")


def _split(given: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for text in given or () for name in text.split(",") if name.strip())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command and exit; errors become one line on standard error."""
    try:
        code = app(arguments, prog_name="python -m normcheck.fidelity", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        code = ExitCode.INTERRUPTED
    except NormcheckError as error:
        say(f"error: {error}")
        code = ExitCode.ERROR
    except _UsageFault as error:
        say(f"error: {error.format_message()}; `python -m normcheck.fidelity --help` shows what can be given")
        code = ExitCode.ERROR
    sys.exit(int(code or 0))


if __name__ == "__main__":
    main()
