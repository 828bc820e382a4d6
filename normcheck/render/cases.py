"""Published failures, listed or replayed, as a table and as strict JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render import layout
from normcheck.render.figures import ABSENT, figure, of
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.places import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.render.layout import Column, Lines
    from normcheck.results.cases import Corpus, FailureCase, Figure, Replay, Side

_KINDS = {
    "published": "published",
    "found": "found by running the kernel",
    "reconstructed": "reconstructed from published facts",
}
"""Where inputs are from, in words."""

FLAGGED = (
    "flagged: with a signature, an error of any rule, or a warning of a rule by which some failure here is predicted; "
    "a warning of another rule, such as NC301's, does not flag"
)
"""What it is that a control, and an implementation that is right, must not be."""

_NOTE = (
    "input: published with the failure, found by running the kernel, or reconstructed from published facts; a control "
    "must not be flagged. To replay one: normcheck cases K1; all: normcheck cases --all"
)


def listing(corpus: Corpus, *, width: int, color: bool) -> Iterator[str]:
    """Yield the cases, a line each: how it fails, where the input is from, what is said of it, and where it was."""
    columns: tuple[Column[FailureCase], ...] = (
        layout.Column("id", lambda case: case.id),
        layout.Column("signature", lambda case: " ".join(case.signatures) or ABSENT),
        layout.Column("input", source),
        layout.Column("normcheck\nsays", lambda case: " ".join(case.rules) or "nothing"),
        layout.Column("where", lambda case: case.where, prose=True),
    )
    table = layout.table(corpus.cases, [layout.Layout(columns)], width=width)
    return layout.pieces(
        [
            table,
            layout.paragraph(_counted(corpus), width=width),
            [*layout.paragraph(_NOTE, width=width), *layout.paragraph(FLAGGED, width=width, hanging=2)],
        ],
        color=color,
    )


def replays(corpus: Corpus, *, width: int, color: bool) -> Iterator[str]:
    """Yield what became of each case: its story, each input under each implementation, and whether all is predicted."""
    return layout.pieces(_parts(corpus, width), color=color)


def json_pieces(corpus: Corpus) -> Iterator[str]:
    """Yield the cases as indented strict JSON, one object: see `normcheck.render.json_report`."""
    yield dumps(to_plain(corpus))


def source(case: FailureCase) -> str:
    """Return where the input of a case is from, in a word."""
    return "control" if case.control else case.source


def predicted(role: str, replay: Replay) -> str:
    """Return what is predicted of an implementation on an input, in words: it fails, survives, or is right.

    One that failed on other inputs, and of which nothing is predicted on this one, survives it.
    """
    if role == "right":
        return "is right"
    return "fails" if replay.signature else "survives"


def counts(corpus: Corpus) -> dict[str, tuple[int, int]]:
    """Return how many cases of each source there are, and how many of them hold; controls last."""
    groups = {words: corpus.of(name) for name, words in _KINDS.items()}  # type: ignore[arg-type]  # the literals
    groups["controls"] = corpus.controls
    return {words: (len(cases), sum(case.holds for case in cases)) for words, cases in groups.items()}


def _counted(corpus: Corpus) -> str:
    each = [f"{number} {words}" for words, (number, _) in counts(corpus).items() if number]
    return f"{counted(len(corpus.cases), 'case')}: {', '.join(each)}"


def _parts(corpus: Corpus, width: int) -> Iterator[Lines]:
    for case in corpus.cases:
        yield layout.paragraph(case.where, width=width, head=f"{case.id}:")
        yield layout.pairs([item for item in _facts(case) if item[1]], width=width)
        for replay in case.replays:
            yield from _replay(replay, width)
    yield _summary(corpus, width)
    yield layout.paragraph(FLAGGED, width=width, hanging=2)


def _facts(case: FailureCase) -> list[tuple[str, str]]:
    made = case.reconstruction if case.source == "reconstructed" else ""
    kind = "must not be flagged" if case.control else _KINDS[case.source]
    return [
        ("what happened" if not case.control else "control", " ".join(case.story.split())),
        ("published at", "\n".join(case.links)),
        ("input", ": ".join(filter(None, (kind, " ".join(made.split()))))),
        ("note", " ".join(case.note.split())),
    ]


def _replay(replay: Replay, width: int) -> Iterator[Lines]:
    shape = " x ".join(map(str, replay.shape))
    yield layout.paragraph(f"{replay.input}; {shape}, eps {figure(replay.eps)}", width=width, head=f"{replay.norm}:")
    yield layout.table(replay.sides, _layouts(replay), width=width)
    yield [line for side in replay.sides if side.role == "failed" for line in _said(side, width)]
    yield [
        line for each in replay.figures for line in layout.paragraph(_compared(each, replay), width=width, hanging=2)
    ]
    yield [
        line for text in replay.problems for line in layout.paragraph(text, width=width, hanging=2, head="unpredicted:")
    ]


def _layouts(replay: Replay) -> Sequence[layout.Layout[Side]]:
    name: Column[Side] = layout.Column("implementation", lambda side: side.implementation)
    rest: tuple[Column[Side], ...] = (
        layout.Column("predicted", lambda side: predicted(side.role, replay)),
        layout.Column("precision", lambda side: side.precision),
        layout.Column("verdict", lambda side: side.verdict),
        layout.Column("signature", lambda side: side.signature or ABSENT),
        layout.Column("rows bad", lambda side: of(side.bad_rows, side.rows), right=True),
        layout.Column("output\nstd", lambda side: figure(side.output_std), right=True),
        layout.Column("output\nmax", lambda side: figure(side.output_max), right=True),
    )
    codes: Column[Side] = layout.Column("rules", _codes)
    return [
        layout.Layout((name, *rest, codes)),
        layout.Layout((*rest, codes), above=lambda side: side.implementation),
        layout.Layout(rest, above=lambda side: f"{side.implementation}: {_codes(side)}"),
    ]


def _codes(side: Side) -> str:
    return " ".join(dict.fromkeys(flag.rule for flag in side.flags)) or ABSENT


def _said(side: Side, width: int) -> Lines:
    """Return what is said of the implementation that failed, a finding each."""
    lines = [
        layout.paragraph(f"{flag.rule}: {flag.message}", width=width, hanging=2, head=flag.severity)
        for flag in side.flags
    ]
    return [line for each in lines for line in each]


def _compared(each: Figure, replay: Replay) -> str:
    whose = f"{each.name} of the one that {predicted(each.side, replay)}"
    return f"{whose}: expected {each.expected}; here {each.measured:.6g}"


def _summary(corpus: Corpus, width: int) -> Lines:
    rows = [(words, number, right) for words, (number, right) in counts(corpus).items() if number]
    columns: tuple[Column[tuple[str, int, int]], ...] = (
        layout.Column("input", lambda row: row[0]),
        layout.Column("cases", lambda row: str(row[1]), right=True),
        layout.Column("as predicted", lambda row: str(row[2]), right=True),
    )
    return layout.table(rows, [layout.Layout(columns)], width=width)
