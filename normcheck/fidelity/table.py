"""What the suite found as a table for a terminal and as strict JSON, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from normcheck.fidelity.results import FORMAT, NAN_APART, Compared, Fidelity, RowRun
from normcheck.render import figures, layout
from normcheck.render.figures import ABSENT, count, figure
from normcheck.render.json_report import dumps, to_plain
from normcheck.render.layout import Column
from normcheck.render.places import counted

if TYPE_CHECKING:
    from normcheck.fidelity.results import Worst
    from normcheck.render.layout import Lines


def table(found: Fidelity, *, width: int, color: bool) -> str:
    """Return every kernel that was run, what could not be, and where kernels and rows part."""
    parts: list[Lines] = []
    if found.rows:
        parts.append(layout.table(found.rows, _LAYOUTS, width=width))
    parts += [layout.paragraph(text, width=width, hanging=2) for text in map(difference, found.rows) if text]
    parts += [
        layout.paragraph(f"{item.what}: {item.reason}", width=width, hanging=2, head=f"{item.project} not run:")
        for item in found.not_run
    ]
    parts.append(layout.paragraph(_summary(found), width=width))
    return layout.page(parts, color=color)


def dumped(found: Fidelity) -> str:
    """Return it as indented strict JSON: see `normcheck.render.json_report`."""
    return dumps(to_plain(found))


def loaded(text: str | bytes) -> Fidelity:
    """Return what `dumped` wrote; fields that this version does not know are ignored.

    Raises:
        ValueError: the text is no JSON, or no result of this format.
    """
    try:
        return msgspec.json.decode(text, type=Fidelity, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not what python -m normcheck.fidelity writes, of format {FORMAT}: {error}") from error


def percent(part: Compared | None) -> str:
    """Return the share of identical numbers."""
    if part is None or not part.numbers:
        return ABSENT
    return figures.percent(part.identical, part.numbers, digits=4)


def ulps(part: Compared | None) -> str:
    """Return the largest distance, of how many pairs one alone is NaN, and how many are zeros of opposite sign."""
    if part is None:
        return ABSENT
    nan = f" + {count(part.nan_apart)} NaN" if part.nan_apart else ""
    zeros = f" + {count(part.zero_signs)} -0" if part.zero_signs else ""
    return f"{count(part.max_ulps)}{nan}{zeros}"


def variety(row: RowRun) -> str:
    """Return what tells a kernel from others of its row and norm: mode, format of the parameters, variant."""
    mixed = "float32 parameters" if row.params == "float32" and row.precision != "fp32" else ""
    return ", ".join(filter(None, ("eval" if row.mode == "eval" else "", mixed, row.variant)))


def difference(row: RowRun) -> str:
    """Return where a kernel and its row part, in a line; empty where they do not."""
    parts = [_pair(worst, what) for worst, what in ((row.worst, "y"), (row.worst_statistic, "statistic")) if worst]
    missed = "" if row.outputs.share >= row.promised else f" below the {100 * row.promised:g} % promised;"
    named = ", ".join(filter(None, (f"{row.implementation} {row.norm} {row.precision} on {row.isa}", variety(row))))
    return f"{named}:{missed} {'; '.join(parts)}" if parts else ""


def _pair(worst: Worst, what: str) -> str:
    far = "just one is NaN" if worst.ulps == NAN_APART else f"{count(worst.ulps)} ulp"
    shape = ",".join(map(str, worst.shape))
    where = f"{what}[{','.join(map(str, worst.index))}]"
    x = "" if worst.x is None else f" of x {worst.x:.9g}"
    return (
        f"kernel {worst.kernel:.9g}, row {worst.row:.9g} ({far}) at {where}{x}, {worst.inputs}, shape {shape}, "
        f"{worst.call}"
    )


def _summary(found: Fidelity) -> str:
    if not found.rows:
        return "nothing was run"
    outputs = sum(row.outputs.numbers for row in found.rows)
    names = {row.implementation for row in found.rows}
    whole = sum(row.outputs.exact for row in found.rows)
    missed = sum(not row.kept for row in found.rows)
    end = "all promises kept" if not missed else f"{missed} below what was promised"
    return (
        f"{counted(len(found.rows), 'kernel')} of {counted(len(names), 'row')}, {figure(float(outputs))} outputs: "
        f"{whole} identical in every bit, {end}"
    )


def _kernel(row: RowRun) -> str:
    return "\n".join((f"{row.norm} {row.precision}", *filter(None, variety(row).split(", "))))


def _speed(row: RowRun) -> str:
    return figure(1e9 * row.row_seconds / max(row.outputs.numbers, 1))


_NAME: Column[RowRun] = Column("row", lambda r: r.implementation)
_SHARES: tuple[Column[RowRun], ...] = (
    Column("isa", lambda r: r.isa),
    Column("outputs", lambda r: count(r.outputs.numbers), right=True),
    Column("identical", lambda r: percent(r.outputs), right=True),
    Column("ulps", lambda r: ulps(r.outputs), right=True),
    Column("statistics\nidentical", lambda r: percent(r.statistics), right=True),
)
_LAYOUTS = (
    layout.Layout(
        (
            _NAME,
            Column("norm", lambda r: r.norm),
            Column("io", lambda r: r.precision),
            Column("variety", lambda r: variety(r) or ABSENT),
            *_SHARES,
            Column("ns an output\nrow", _speed, right=True),
        )
    ),
    layout.Layout((Column("norm", _kernel), *_SHARES), above=lambda r: r.implementation),
)
