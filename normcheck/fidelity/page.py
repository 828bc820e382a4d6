"""What docs/fidelity.md says, from the results that are kept: tables as titles and rows of cells."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from normcheck.fidelity.hosts import LANES
from normcheck.fidelity.inputs import FAMILIES
from normcheck.fidelity.keeping import evidence_of
from normcheck.fidelity.projects import PROJECTS
from normcheck.fidelity.results import Compared
from normcheck.fidelity.table import difference, percent, ulps
from normcheck.fidelity.worker import ALL_KERNELS
from normcheck.norms.evidence import VERIFIED_SHARE
from normcheck.render.figures import ABSENT, count, figure
from normcheck.render.places import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.fidelity.results import Fidelity, RowRun

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def summary(found: Fidelity) -> str:
    """Return in a paragraph what was compared, where and when."""
    outputs = sum((row.outputs for row in found.rows), Compared())
    names = {row.implementation for row in found.rows}
    whole = sum(row.outputs.exact for row in found.rows)
    verified = sum(evidence.verifies for evidence in evidence_of(found).values())
    days = sorted({row.date for row in found.rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    sets = ", ".join(dict.fromkeys(row.isa for row in sorted(found.rows, key=lambda row: -row.lanes)))
    cpus = ", ".join(sorted({row.cpu for row in found.rows}))
    return (
        f"{counted(len(names), 'row')} of the catalogue beside {counted(len(found.rows), 'kernel')}: "
        f"{figure(float(outputs.numbers))} outputs, {percent(outputs)} of them identical; "
        f"{counted(whole, 'kernel')} identical in every bit; {counted(verified, 'row')} verified. "
        f"Run {when} on {cpus} ({found.machine}; {sets}), Python {found.python}."
    )


def tables(found: Fidelity) -> Iterator[tuple[str, str, Table]]:
    """Yield each project's title, the versions that were run, and its table.

    A line is a row, a norm and a precision; instruction sets have lines of their own where not all is identical.
    """
    titles = ("row", "norm", "io", "parameters and modes", "ISA", "outputs", "identical", "largest ulp", "statistics")
    for project in PROJECTS.values():
        runs = [row for row in found.rows if row.project == project.name]
        if not runs:
            continue
        groups: dict[tuple[str, str, str], list[RowRun]] = {}
        for row in sorted(runs, key=lambda row: (row.implementation, row.norm, row.precision, -row.lanes)):
            groups.setdefault((row.implementation, row.norm, row.precision), []).append(row)
        versions = {name: version for row in runs for name, version in row.packages.items()}
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield project.title, told, (titles, [_line(part) for rows in groups.values() for part in _parts(rows)])


def _parts(runs: list[RowRun]) -> list[list[RowRun]]:
    """All together where all is identical, else those of each instruction set."""
    if all(row.outputs.exact and (row.statistics is None or row.statistics.exact) for row in runs):
        return [runs]
    return [[row for row in runs if row.isa == isa] for isa in dict.fromkeys(row.isa for row in runs)]


def _line(runs: list[RowRun]) -> tuple[str, ...]:
    first = runs[0]
    outputs = sum((row.outputs for row in runs), Compared())
    given = [row.statistics for row in runs if row.statistics is not None]
    varieties = dict.fromkeys(
        ", ".join(filter(None, (_storage(row), row.mode if row.mode == "eval" else "", row.variant))) for row in runs
    )
    return (
        f"`{first.implementation}`",
        f"`{first.norm}`",
        first.precision,
        "; ".join(varieties),
        ", ".join(dict.fromkeys(row.isa for row in runs)),
        count(outputs.numbers),
        percent(outputs),
        ulps(outputs),
        percent(sum(given, Compared())) if given else ABSENT,
    )


def _storage(row: RowRun) -> str:
    return "fp32" if row.params == "float32" or row.precision == "fp32" else row.precision


def below(found: Fidelity) -> list[tuple[str, list[str]]]:
    """Return the reasons why less than the share of a verified row is identical, each with the worst of its kernels."""
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        if row.outputs.share < VERIFIED_SHARE:
            reasons.setdefault(row.reason or "Not explained", []).append(difference(row))
    return list(reasons.items())


def not_run(found: Fidelity) -> Table:
    """Return what could not be run and why, and the projects and instruction sets that no result is of."""
    rows: list[tuple[str, ...]] = []
    rows += [
        (PROJECTS[i.project].title if i.project in PROJECTS else i.project, i.what, i.reason) for i in found.not_run
    ]
    seen = {row.project for row in found.rows} | {item.project for item in found.not_run}
    rows += [(row.title, ALL_KERNELS, "no run is kept") for row in PROJECTS.values() if row.name not in seen]
    sets = {row.isa for row in found.rows}
    rows += [("all", f"instruction set {isa}", "no processor of it") for isa in LANES if isa not in sets]
    return ("project", "what", "why"), rows


def families() -> Table:
    """Return the families of inputs."""
    return ("inputs", "what they are"), [
        (name, " ".join((inspect.getdoc(function) or "").split())) for name, function in FAMILIES.items()
    ]
