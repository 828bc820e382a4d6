"""The command ``normcheck``: one line for an error, exit codes of their own for what went wrong."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from normcheck.cli.analyze import analyze
from normcheck.cli.cases import cases
from normcheck.cli.configured import Configured
from normcheck.cli.convert import convert
from normcheck.cli.diff import diff
from normcheck.cli.distributions import distributions
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.formats import formats
from normcheck.cli.identify import identify
from normcheck.cli.implementations import implementations
from normcheck.cli.norms import norms
from normcheck.cli.options import Debug
from normcheck.cli.orders import orders
from normcheck.cli.reproduce import reproduce
from normcheck.cli.rules import rules
from normcheck.cli.schema import schema
from normcheck.cli.simulate import simulate
from normcheck.cli.terminal import say
from normcheck.cli.track import track
from normcheck.errors import NormcheckError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(name="normcheck", pretty_exceptions_enable=False)
for _run in (analyze, simulate):
    app.command(cls=Configured)(_run)
_LISTS = (formats, norms, implementations, orders, distributions, rules)
for _command in (convert, diff, identify, *_LISTS, schema, cases, reproduce, track):
    app.command()(_command)

_TyperError = typer.BadParameter.__mro__[2]
"""What Typer raises for every error in usage: public only as the base of ``BadParameter``'s base."""


def _version(value: bool) -> None:
    if value:
        from normcheck import __version__

        typer.echo(f"normcheck {__version__}")
        raise typer.Exit


@app.callback()
def normcheck(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Which normalization layer breaks in low precision, at which step, and with how much room left.

    Exit codes: 0 clean, 1 findings at or above --fail-on, 2 an error, 3 nothing was analysed.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    received = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(received))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code; errors become one line on standard error."""
    try:
        code = app(arguments, prog_name="normcheck", standalone_mode=False) or ExitCode.CLEAN
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: an error is one line, not a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        for line in _explained(error, arguments):
            say(f"error: {line}")
        return ExitCode.ERROR
    if code == ExitCode.INTERRUPTED:  # Typer turns the interrupt into this code itself
        say("interrupted")
    if code == ExitCode.FINDINGS and not isinstance(code, ExitCode):  # Typer's own: it knows no such shell
        return ExitCode.ERROR
    return int(code)


def _explained(error: Exception, arguments: Sequence[str]) -> list[str]:
    """Return what went wrong, and what to do: one line, but for files one each."""
    if isinstance(error, UnreadableError):
        return list(map(str, error.args))
    if isinstance(error, NormcheckError):
        return [str(error)]
    if isinstance(error, _TyperError):
        return [_usage(error, arguments)]
    return [f"internal error: {type(error).__name__}: {error}; --debug shows the traceback"]


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """Return Typer's message with the command whose help says what is allowed: not every error knows it."""
    group: Any = typer.main.get_command(app)
    named = [name for name in arguments[:1] if name in group.commands]
    command = error.ctx.command_path if getattr(error, "ctx", None) else " ".join(["normcheck", *named])
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message}; `{command} --help` shows what can be given"
