"""Which implementation computed an output, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.render.figures import ABSENT, count, figure
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column, Layout, Lines, inline, page, paragraph, table
from normcheck.render.places import counted

if TYPE_CHECKING:
    from normcheck.results.identification import Candidate, Identification, Parting

_MEANING = (
    "identical: elements of the same bits (NaN with NaN, 0 with -0). ulp: the largest distance, in numbers of the "
    "format. parts at: the first step whose result must have been another one, told from the rows that differ"
)

_PLACES = {
    "mean": "the mean",
    "variance": "the variance, or what follows from it up to 1/s",
    "normalize": "the elements' own steps: normalize, gain, bias or store",
}


def render(report: Identification, *, width: int, top: int, color: bool = False) -> str:
    """Return the nearest `top` implementations as a table, and what is told of the first."""
    shown = report.candidates[:top]
    rest = len(report.candidates) - len(shown)
    head = [f"{inline(report.input)} -> {inline(report.output)}", report.norm, report.precision]
    head += [f"parameters {report.params}", f"eps {figure(report.eps)}", "x".join(map(str, report.shape))]
    return page(
        [
            paragraph(head, width=width, hanging=2, head="identify"),
            table(shown, _LAYOUTS, width=width),
            paragraph(f"and {counted(rest, 'implementation')} farther off", width=width) if rest else [],
            _verdict(report, width),
            paragraph(_MEANING, width=width),
        ],
        color=color,
    )


def render_json(report: Identification) -> str:
    """Return what was found as one JSON object."""
    return dumps(to_plain(report))


def percent(share: float, *, whole: bool) -> str:
    """Return a share with digits enough that 100 % means all: ``99.998 %``."""
    if whole:
        return "100 %"
    digits = 2
    while float(text := f"{100 * share:.{digits}f}") >= 100:
        digits += 1
    return f"{text} %"


_COLUMNS: tuple[Column[Candidate], ...] = (
    Column("implementation", lambda row: row.implementation),
    Column("status", lambda row: row.status),
    Column("identical", lambda row: percent(row.share, whole=row.identical == row.compared), right=True),
    Column("ulp", lambda row: figure(row.max_ulp), right=True),
    Column("parts at", lambda row: ABSENT if row.parting is None else _place(row.parting)),
)
_LAYOUTS = [Layout(_COLUMNS), Layout(_COLUMNS[1:], above=lambda row: row.implementation)]


def _place(parting: Parting) -> str:
    return parting.step or ABSENT


def _verdict(report: Identification, width: int) -> Lines:
    """Return what the nearest implementation is to the kernel, and what sets it apart from the next."""
    first = report.candidates[0]
    if first.identical == first.compared:
        alike = [row.implementation for row in report.candidates if row.identical == row.compared]
        says = f"all {count(first.compared)} elements are those of {' and of '.join(alike)}"
    else:
        says = f"nearest: {first.implementation}, with {count(first.compared - first.identical)} of "
        says += f"{count(first.compared)} elements different"
    lines = paragraph(says, width=width)
    if first.parting is not None and first.parting.step is not None:
        told = first.parting
        counts = f"{told.by_mean} by another mean, {told.by_variance} by another variance, {told.by_elements} otherwise"
        lines += paragraph(
            f"it parts from the kernel at {_PLACES[told.step or '']}: of {counted(told.rows, 'row')} that differ, "
            f"{counts}",
            width=width,
        )
    if report.contrast is not None and report.contrast.step is not None:
        lines += paragraph(f"{report.contrast.implementation} parts from it at {report.contrast.step}", width=width)
    return lines
