"""From results and findings to a report."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcheck import __version__
from normcheck.analysis.rules import facts_of
from normcheck.arithmetic.formats import format_named
from normcheck.results import (
    FORMAT,
    Advice,
    Finding,
    FindingCounts,
    FormatFacts,
    LayerFacts,
    Report,
    Result,
    Skipped,
    Summary,
    Tool,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.arithmetic.formats import Format


def report_of(
    command: Literal["simulate", "analyze"],
    settings: dict[str, Any],
    jobs: int | None,
    *,
    results: Sequence[Result],
    findings: Sequence[Finding],
    skipped: Sequence[Skipped],
    layers: Sequence[LayerFacts] = (),
    advice: Sequence[Advice] = (),
    unreadable: Sequence[Skipped] = (),
    ignored: int = 0,
) -> Report:
    """Return the report of a command, with its counts and the environment it ran in."""
    return Report(
        format=FORMAT,
        tool=Tool(name="normcheck", version=__version__),
        command=command,
        settings={name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
        environment=environment(jobs),
        results=tuple(results),
        findings=tuple(findings),
        skipped=tuple(skipped),
        summary=Summary(layers=len(layers), results=len(results), findings=FindingCounts.of(findings), ignored=ignored),
        layers=tuple(layers),
        advice=tuple(advice),
        unreadable=tuple(unreadable),
        rules=facts_of(),
        formats=_formats(results),
    )


def _formats(results: Sequence[Result]) -> tuple[FormatFacts, ...]:
    """Return the formats of elements and steps, in the order in which they occur."""
    names = dict.fromkeys(name for r in results for name in (r.precision, *(step.format for step in r.steps)))
    return tuple(dict.fromkeys(_format_facts(format_named(name)) for name in names))


def _format_facts(form: Format) -> FormatFacts:
    return FormatFacts(
        name=form.name,
        label=form.label,
        precision=form.precision,
        min_subnormal=form.min_subnormal,
        min_normal=form.min_normal,
        max_finite=form.max_finite,
        overflow_threshold=form.overflow_threshold,
    )


def environment(jobs: int | None) -> dict[str, Any]:
    """Versions and machine: everything of a report that may differ between two runs of the same input."""
    import numba  # noqa: PLC0415  # only to name its version
    import scipy  # noqa: PLC0415  # the same

    return {
        "python": platform.python_version(),
        "platform": sys.platform,
        "machine": platform.machine(),
        "processors": os.cpu_count() or 1,
        "jobs": jobs or os.cpu_count() or 1,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scipy": scipy.__version__,
    }
