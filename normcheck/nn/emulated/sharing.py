"""Gradients of gamma and beta as vectors: of rows that own theirs one after another, of rows that share them summed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.parameter_gradients import Gathering

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.parameter_gradients import Name, Part
    from normcheck.analysis.study import Study
    from normcheck.arithmetic.emulated import StepRecord

Array = np.ndarray[Any, np.dtype[Any]]


def joined(study: Study, name: Name, parts: Sequence[Part]) -> tuple[Array | None, dict[str, StepRecord]]:
    """Return the gradient of a parameter from what the blocks of rows give of it, in order, and the events of its sums.

    As the analysis sums it: see `Gathering`.
    """
    if not parts:
        return None, {}
    if parts[0].is_own:
        return np.concatenate([part.values for part in parts]), {}
    (runner,) = study.runners
    plan = Gathering.of(study, runner, name, measured=False)
    a, total = plan.begun(plan.machine, parts[0].like)
    for part in parts:
        total.add(part.values)
    return total.finish().data[:, 0], a.steps
