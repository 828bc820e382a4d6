"""From results and findings to a report."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcheck import __version__
from normcheck.results import FORMAT, Advice, Finding, FindingCounts, LayerFacts, Report, Result, Skipped, Summary, Tool

if TYPE_CHECKING:
    from collections.abc import Sequence


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
) -> Report:
    """Return the report of a command, with its counts and the environment it ran in."""
    counts = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "note")}
    return Report(
        format=FORMAT,
        tool=Tool(name="normcheck", version=__version__),
        command=command,
        settings={name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
        environment=environment(jobs),
        results=tuple(results),
        findings=tuple(findings),
        skipped=tuple(skipped),
        summary=Summary(layers=len(layers), results=len(results), findings=FindingCounts(**counts)),
        layers=tuple(layers),
        advice=tuple(advice),
        unreadable=tuple(unreadable),
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
