"""A row of the catalogue on a trial: the same call as the kernel's, through `normcheck.emulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normcheck.analysis.emulate import emulate
from normcheck.fidelity.kernel import Observed

if TYPE_CHECKING:
    from normcheck.fidelity.kernel import Array, Kernel, Trial
    from normcheck.norms.implementations import Implementation


def emulated(kernel: Kernel, how: Implementation, trial: Trial, lanes: int) -> Observed:
    """Return what the row says that the kernel gives, on vectors of so many float32 numbers.

    Raises:
        UsageError: a row that does not fit the trial.
    """
    found = emulate(
        trial.x,
        kernel.norm,
        precision=kernel.precision,
        implementation=how,
        weight=trial.weight,
        bias=trial.bias,
        eps=trial.eps,
        num_groups=trial.num_groups,
        running_mean=trial.running_mean,
        running_var=trial.running_var,
        residual=trial.residual,
        mode=kernel.mode,
        params=kernel.params,
        threads=trial.threads,
        **{"simd": lanes, **kernel.options},
    )
    return Observed(
        found.output.astype(np.float32, copy=False),
        _single(found.mean),
        _single(found.rstd),
        _single(found.running_mean),
        _single(found.running_var),
    )


def _single(x: Array | None) -> Array | None:
    if x is None:
        return None
    with np.errstate(all="ignore"):
        return x.astype(np.float32)
