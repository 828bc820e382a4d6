"""``normcheck cases``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from normcheck.cli import completion
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.files import emit
from normcheck.cli.options import Debug, ListAs, ListFormat, Quiet
from normcheck.cli.terminal import color, progress, width
from normcheck.errors import UsageError, unknown_name
from normcheck.results.cases import Signature

if TYPE_CHECKING:
    from normcheck.results.cases import Corpus

SIGNATURES: tuple[str, ...] = tuple(filter(None, get_args(Signature)))
"""What --signature takes."""


def _signature(text: str) -> str:
    """Return the signature of that name, in any case, and without the arrow that a shell would take for its own."""
    wanted = {_bare(name): name for name in SIGNATURES}
    try:
        return wanted[_bare(text)]
    except KeyError:
        raise unknown_name("signature", text, SIGNATURES, "normcheck cases --help") from None


def _bare(name: str) -> str:
    return name.strip().lower().replace(">", "").replace("-", "")


Ids = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID", show_default=False, autocompletion=completion.cases,
        help="Cases to replay, such as K1; without any, all are listed.",
    ),
]  # fmt: skip
All = Annotated[bool, typer.Option("--all", help="Replay all of them.")]
OfSignature = Annotated[
    str | None,
    typer.Option(
        "--signature", parser=_signature, metavar="SIGNATURE", autocompletion=completion.signatures,
        help=f"Only cases that fail so: {', '.join(SIGNATURES)}; quoted, or as OVF-0.",
    ),
]  # fmt: skip


def cases(
    ids: Ids = None,
    *,
    all_of_them: All = False,
    signature: OfSignature = None,
    form: ListAs = ListFormat.TABLE,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 - read where errors are shown
) -> None:
    """Replay published failures of norms, under the kernel that had them and under those that are right.

    Exit codes: 0 all is as predicted, or listed; 1 something is not; 2 an error.
    """
    from normcheck.analysis.corpus.records import records_named

    if ids and all_of_them:
        raise UsageError(f"--all replays every case: leave out {', '.join(ids)}, or --all")
    records = records_named(ids or (), signature)
    if not records:
        raise UsageError(f"none of {', '.join(ids or ())} fails as {signature}; `normcheck cases` lists how they do")
    replays = bool(ids) or all_of_them
    if replays:
        from normcheck.analysis.corpus.replay import replayed

        with progress("cases", quiet=quiet) as tick:
            corpus = replayed(records, tick)
    else:
        from normcheck.analysis.corpus.listing import listed

        corpus = listed(records)
    _show(corpus, form, replays=replays)
    if not all(case.holds for case in corpus.cases):
        raise typer.Exit(ExitCode.FINDINGS)


def _show(corpus: Corpus, form: ListFormat, *, replays: bool) -> None:
    from normcheck.render import cases as shown

    if form is ListFormat.JSON:
        emit(shown.json_pieces(corpus), "utf-8")
        return
    show = shown.replays if replays else shown.listing
    emit(show(corpus, width=width(), color=color()))
