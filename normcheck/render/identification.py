"""Which implementation computed an output, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render.figures import ABSENT, count, figure, percent
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column, Layout, Lines, inline, page, paragraph, table
from normcheck.render.places import counted

if TYPE_CHECKING:
    from normcheck.results import Skipped
    from normcheck.results.identification import Candidate, Identification, Parting

_MEANING = (
    "identical: elements of the same bits (NaN with NaN, 0 with -0). ulp: the largest distance, in numbers of the "
    "format. parts at: where most of the rows looked at part; empty where none was looked at"
)
FITS = 0.5
"""Share of identical elements below which no row is called the nearest: arguments are wrong sooner than a kernel."""
FEW = 3
"""Names that a sentence lists; the table above it has them all."""
_CHECK = "--norm, --eps, --weight, --bias, --precision, --num-groups and --params"

_PLACES = {
    "mean": "the mean",
    "variance": "the variance, or what follows from it up to 1/s",
    "normalize": "the elements' own steps: normalize, gain, bias or store",
}


def render(report: Identification, *, width: int, top: int, color: bool = False) -> str:
    """Return the nearest `top` implementations, and all others that are identical, and what is told of the first."""
    shown = [row for place, row in enumerate(report.candidates) if place < top or _identical(row)]
    rest = len(report.candidates) - len(shown)
    return page(
        [
            paragraph(_head(report), width=width, hanging=2, head="identify"),
            table(shown, _LAYOUTS, width=width),
            paragraph(f"and {counted(rest, 'implementation')} farther off", width=width) if rest else [],
            _sampled(report, width),
            [line for one in report.skipped for line in _skipped(one, width)],
            _verdict(report, width),
            paragraph(_MEANING, width=width),
        ],
        color=color,
    )


def _skipped(one: Skipped, width: int) -> Lines:
    says = one.reason if one.reason.startswith(one.name) else f"{one.name}: {one.reason}"
    return paragraph(f"not tried: {inline(says)}", width=width, hanging=2)


def _head(report: Identification) -> list[str]:
    precision = f"{report.precision} ({report.why})" if report.why else report.precision
    head = [f"{inline(report.input)} -> {inline(report.output)}", report.norm, precision]
    head += [f"parameters {report.params}", f"eps {figure(report.eps)}", "x".join(map(str, report.shape))]
    return head if report.num_groups is None else [*head, counted(report.num_groups, "group")]


def _identical(row: Candidate) -> bool:
    return row.identical == row.compared


def _sampled(report: Identification, width: int) -> Lines:
    """Return which rows were not compared on the whole output."""
    part = [row for row in report.candidates if row.compared < report.candidates[0].compared]
    if not part:
        return []
    whole = len(report.candidates) - len(part)
    return paragraph(
        f"the first {counted(whole, 'implementation')}: compared on all {count(report.candidates[0].compared)} "
        f"elements; the others on {count(part[0].compared)} of them",
        width=width,
    )


def render_json(report: Identification) -> str:
    """Return what was found as one JSON object."""
    return dumps(to_plain(report))


def _place(row: Candidate) -> str:
    if _identical(row):
        return ABSENT
    return "" if row.parting is None else row.parting.step or ""


_COLUMNS: tuple[Column[Candidate], ...] = (
    Column("implementation", lambda row: row.implementation),
    Column("status", lambda row: row.status),
    Column("identical", lambda row: percent(row.identical, row.compared), right=True),
    Column("ulp", lambda row: figure(row.max_ulp), right=True),
    Column("parts at", _place),
)
_LAYOUTS = [Layout(_COLUMNS), Layout(_COLUMNS[1:], above=lambda row: row.implementation)]


def _verdict(report: Identification, width: int) -> Lines:
    """Return what the nearest implementation is to the kernel, and what sets it apart from the next."""
    first = report.candidates[0]
    if first.share < FITS:
        return paragraph(
            f"none fits: {first.implementation} comes nearest, with {percent(first.identical, first.compared)} of the "
            f"elements identical; check {_CHECK}",
            width=width,
        )
    lines = paragraph(_nearest(report), width=width)
    if first.parting is not None and first.parting.step is not None:
        lines += paragraph(_parts(first, first.parting), width=width)
    if report.contrast is not None and report.contrast.step is not None:
        both = f"{first.implementation} and {report.contrast.implementation}"
        lines += paragraph(f"{both} part first at {report.contrast.step}", width=width)
    return lines


def _nearest(report: Identification) -> str:
    first = report.candidates[0]
    if not _identical(first):
        differ = count(first.compared - first.identical)
        return f"nearest: {first.implementation}, with {differ} of {count(first.compared)} elements different"
    alike = [row.implementation for row in report.candidates if _identical(row) and row.compared == first.compared]
    several = f"{count(len(alike))} implementations, which this input does not tell apart"
    return (
        f"all {count(first.compared)} elements are those of {several if len(alike) > FEW else ' and of '.join(alike)}"
    )


def _parts(row: Candidate, told: Parting) -> str:
    """Return where a row and the kernel part, with the counts that say so."""
    differ = f"{counted(told.rows, 'row')} that {'differs' if told.rows == 1 else 'differ'}"
    return (
        f"{row.implementation} and the kernel part at {_PLACES[told.step or '']}: of {differ}, {told.by_mean} by "
        f"another mean, {told.by_variance} by another variance, {told.by_elements} otherwise"
    )
