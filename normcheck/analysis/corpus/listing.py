"""Cases as they are listed: what is written down of them, nothing run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from normcheck import __version__
from normcheck.results.cases import FORMAT, Corpus, FailureCase, Replay
from normcheck.results.report import Tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from normcheck.analysis.corpus.records import Input, Recipe, Record


def listed(records: Iterable[Record]) -> Corpus:
    """Return cases as they are written down, none of them run."""
    return corpus_of([case_of(record, [replay_of(each) for each in record.inputs]) for record in records])


def corpus_of(cases: Sequence[FailureCase]) -> Corpus:
    """Return cases as `normcheck cases` writes them."""
    return Corpus(format=FORMAT, tool=Tool(name="normcheck", version=__version__), cases=tuple(cases))


def case_of(record: Record, replays: Sequence[Replay]) -> FailureCase:
    """Return a case with its inputs, replayed or not."""
    return FailureCase(
        id=record.id,
        where=record.where,
        links=record.links,
        story=record.story,
        source=record.source,
        reconstruction=record.reconstruction,
        note=record.note,
        control=record.control,
        failed=tuple(dict.fromkeys(each.failed for each in record.inputs if each.failed)),
        right=tuple(dict.fromkeys(name for each in record.inputs for name in each.right)),
        replays=tuple(replays),
    )


def replay_of(each: Input, **ran: Any) -> Replay:
    """Return what is predicted for an input; ran: the fields of `Replay` that a run fills."""
    return Replay(
        input=described(each),
        norm=each.norm,
        shape=each.shape,
        eps=each.eps,
        signature=each.signature,
        rules=each.rules,
        **ran,
    )


def described(each: Input) -> str:
    """Return an input in words, without its shape."""
    return " ".join(filter(None, (each.words, _made(each.make))))


def _made(recipe: Recipe) -> str:
    if recipe.constant is not None:
        text = f"all {recipe.constant:g}"
    elif recipe.values:
        text = f"{len(recipe.values)} given values from {min(recipe.values):g} to {max(recipe.values):g}"
    elif recipe.step is not None:
        text = f"{recipe.start:g} + {recipe.step:g} i"
    else:
        text = f"{recipe.distribution}, mean {recipe.mean:g}, std {recipe.std:g}"
    if recipe.outlier_every:
        text += f", one in {recipe.outlier_every} {recipe.outlier:g}"
    return text
