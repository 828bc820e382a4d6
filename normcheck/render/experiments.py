"""Experiments on the paper's claims as a table, as Markdown and as strict JSON, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgspec

from normcheck.render import layout
from normcheck.render.figures import of
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.markdown_text import cell, prose
from normcheck.results.experiment import FORMAT, HeatMap, Reproduction, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from normcheck.render.layout import Lines
    from normcheck.results.experiment import Claim, Curves, Experiment

STANDINGS: tuple[Standing, ...] = get_args(Standing)

_QUICK = "quick form: fewer seeds and steps than the full one, which decides more and may decide otherwise"
_NO_FIGURE = "none: worked out here"


def table(found: Reproduction, *, width: int, color: bool) -> Iterator[str]:
    """Yield the table for a terminal: every claim with the published figure and ours, and how it stands."""
    return layout.pieces(_parts(found, width), color=color)


def markdown(found: Reproduction) -> Iterator[str]:
    """Yield the same as Markdown."""
    yield f"## normcheck reproduce\n\n{prose(_counted(found))}\n"
    if found.quick:
        yield f"\n{prose(_QUICK)}\n"
    for experiment in found.experiments:
        yield f"\n### {prose(experiment.name)}: {prose(experiment.title)}\n\n{prose(experiment.setup)}\n"
        yield f"\n{claims_table(experiment)}\n"
        yield from (f"\n{prose(_map_line(each))}\n" for each in experiment.maps)


def json_pieces(found: Reproduction) -> Iterator[str]:
    """Yield it as indented strict JSON, one object: see `normcheck.render.json_report`."""
    yield dumps(to_plain(found))


def from_json(text: str | bytes) -> Reproduction:
    """Return what `json_pieces` wrote; fields that this version does not know are ignored.

    Raises:
        ValueError: the text is no JSON, or no reproduction of this format.
    """
    try:
        return msgspec.json.decode(text, type=Reproduction, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not what normcheck reproduce writes, of format {FORMAT}: {error}") from error


def claims_table(experiment: Experiment) -> str:
    """Return the claims of an experiment as a table in Markdown, without a final line feed."""
    head = ("claim", "published", "measured here", "standing"), ("---",) * 4
    rows = [map(cell, (c.claim, _published(c), _measured(c), c.standing)) for c in experiment.claims]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))


def picture_name(experiment: Experiment, plot: Curves | HeatMap) -> str:
    """Return the name of the file of a plot."""
    return f"{experiment.name}-{plot.name}.png"


def _published(claim: Claim) -> str:
    return _NO_FIGURE if claim.published is None else claim.published


def _measured(claim: Claim) -> str:
    """Return what was measured, the criterion, and the reason where there is one, a line each."""
    reason = f"\nreason: {claim.reason}" if claim.reason else ""
    return f"{claim.measured}\ncriterion: {claim.by}{reason}"


def _counted(found: Reproduction) -> str:
    """Return how many claims stand how, in a sentence."""
    standings = [claim.standing for experiment in found.experiments for claim in experiment.claims]
    each = ", ".join(f"{standings.count(standing)} {standing}" for standing in STANDINGS)
    return f"of {len(standings)} claims {each}"


def _parts(found: Reproduction, width: int) -> Iterator[Lines]:
    for experiment in found.experiments:
        yield layout.paragraph(
            f"{experiment.title} ({experiment.seconds:.0f} s)", width=width, head=f"{experiment.name}:"
        )
        yield layout.paragraph(experiment.setup, width=width)
        yield from (_claim(claim, width) for claim in experiment.claims)
        yield [line for each in experiment.maps for line in layout.paragraph(_map_line(each), width=width, hanging=2)]
    if found.quick:
        yield layout.paragraph(_QUICK, width=width)
    yield _summary(found, width)


def _claim(claim: Claim, width: int) -> Lines:
    items = [
        ("claim", claim.claim),
        ("paper", _published(claim)),
        ("ours", claim.measured),
        ("standing", claim.standing),
        ("criterion", claim.by),
        ("reason", claim.reason),
    ]
    return layout.pairs([item for item in items if item[1]], width=width)


def _map_line(found: HeatMap) -> str:
    """Return what a map comes to: where it fails, whether the simulator said so, and where it did not."""
    failing, agreeing = sum(c.fails for c in found.cells), sum(c.agrees for c in found.cells)
    steps = sorted({c.step for c in found.cells if c.fails and c.step is not None})
    named = f", at {', '.join(steps)}" if steps else ""
    other = [f"{c.x:g}, {c.y:g}" for c in found.cells if not c.agrees]
    apart = f"; not at ({'), ('.join(other)})" if other else ""
    size = len(found.cells)
    return f"{found.title}: fails in {of(failing, size)} cells{named}; simulated alike in {of(agreeing, size)}{apart}"


def _summary(found: Reproduction, width: int) -> Lines:
    """Return the counts, a row for each experiment and one for all."""
    columns: list[layout.Column[tuple[str, Iterable[Claim]]]] = [layout.Column("experiment", lambda row: row[0])]
    columns += [_counts(standing) for standing in STANDINGS]
    rows: list[tuple[str, Iterable[Claim]]] = [(e.name, e.claims) for e in found.experiments]
    everything = [claim for experiment in found.experiments for claim in experiment.claims]
    if len(rows) > 1:
        rows.append(("all", everything))
    return layout.table(rows, [layout.Layout(tuple(columns))], width=width)


def _counts(standing: Standing) -> layout.Column[tuple[str, Iterable[Claim]]]:
    return layout.Column(
        standing.replace(" at ", "\nat "), lambda row: str(sum(c.standing == standing for c in row[1])), right=True
    )
