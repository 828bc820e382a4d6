"""One kernel beside its row, on as many inputs as are asked for."""

from __future__ import annotations

import datetime as dt
import functools
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.errors import NormcheckError
from normcheck.fidelity.compare import Tally
from normcheck.fidelity.emulation import emulated
from normcheck.fidelity.inputs import trials
from normcheck.fidelity.results import RowRun, Worst
from normcheck.norms.catalogue import implementation_named
from normcheck.norms.evidence import digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.fidelity.hosts import Host
    from normcheck.fidelity.inputs import Named
    from normcheck.fidelity.kernel import Array, Kernel, Trial
    from normcheck.norms.implementations import Implementation


def run(
    kernel: Kernel,
    project: str,
    host: Host,
    *,
    outputs: int,
    seed: int,
    how: Implementation | None = None,
    tick: Callable[[float], None] | None = None,
) -> RowRun:
    """Run a kernel and its row on the same inputs and compare what they give, bit for bit.

    Args:
        kernel: what to run. project: the module that it is of. host: its instruction set.
        outputs: elements of the output to compare, at least. seed: of the inputs.
        how: the row, where it is not that of the catalogue. tick: called with the share that is done.

    Raises:
        NormcheckError: no row of that name, no size that it takes, or outputs of another shape.
    """
    row = implementation_named(kernel.implementation) if how is None else how
    if kernel.adapted is not None:
        row = kernel.adapted(row)
    run_ = _Run(kernel, row, host.lanes)
    for named in trials(kernel, row, outputs, seed):
        run_.take(named)
        if tick is not None:
            tick(min(run_.y.counts.numbers / outputs, 1.0))
    if not run_.trials:
        raise NormcheckError(f"{kernel.implementation}: it takes none of the sizes of the family {kernel.shapes!r}")
    return run_.result(project, host, seed)


class _Run:
    """The comparison of one kernel while it lasts."""

    def __init__(self, kernel: Kernel, how: Implementation, lanes: int) -> None:
        self.kernel, self.how, self.lanes = kernel, how, lanes
        self.io = format_named(kernel.precision)
        param = FLOAT32 if kernel.params == "float32" else self.io
        saved = how.format_of(how.saved, self.io, param) if how.saved is not None else FLOAT32
        self.y = Tally(how.format_of(how.store, self.io, param))
        self.mean, self.rstd, self.running = Tally(saved), Tally(saved), Tally(param)
        self.trials = 0
        self.kernel_seconds = self.row_seconds = 0.0

    def take(self, named: Named) -> None:
        """Run both on one trial."""
        start = time.perf_counter()
        observed = self.kernel.run(named.trial)
        between = time.perf_counter()
        row = emulated(self.kernel, self.how, named.trial, self.lanes)
        self.kernel_seconds += between - start
        self.row_seconds += time.perf_counter() - between
        self.trials += 1
        pairs = (
            (self.y, observed.y, row.y),
            (self.mean, observed.mean, row.mean),
            (self.rstd, observed.rstd, row.rstd),
            (self.running, observed.running_mean, row.running_mean),
            (self.running, observed.running_var, row.running_var),
        )
        for tally, theirs, ours in pairs:
            if theirs is not None and ours is not None:
                given = theirs if tally is self.y else theirs.reshape(-1)
                tally.add(given, ours, functools.partial(_described, named, given, ours))

    def result(self, project: str, host: Host, seed: int) -> RowRun:
        """Return what was found."""
        kernel = self.kernel
        rest = [tally for tally in (self.mean, self.rstd, self.running) if tally.counts.numbers]
        counts = [t.counts if t in rest else None for t in (self.mean, self.rstd, self.running)]
        return RowRun(
            implementation=kernel.implementation,
            project=project,
            norm=kernel.norm,
            precision=self.io.label,
            params=kernel.params,
            mode=kernel.mode,
            variant=kernel.variant,
            packages={name: version(name) for name in kernel.packages},
            isa=host.isa,
            lanes=host.lanes,
            cpu=host.cpu,
            date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
            seed=seed,
            trials=self.trials,
            outputs=self.y.counts,
            mean=counts[0],
            rstd=counts[1],
            running=counts[2],
            worst=self.y.worst,
            worst_statistic=next((t.worst for t in rest if t.worst is not None), None),
            promised=kernel.least,
            most_ulps=kernel.most_ulps,
            reason=kernel.reason,
            kernel_seconds=round(self.kernel_seconds, 3),
            row_seconds=round(self.row_seconds, 3),
            digest=digest(self.how),
        )


def _described(named: Named, kernel: Array, row: Array, index: int, ulps: int) -> Worst:
    """The pair at an index of the flattened arrays, and the call it is of."""
    trial = named.trial
    place = tuple(int(i) for i in np.unravel_index(index, kernel.shape))
    return Worst(
        inputs=named.family,
        shape=trial.x.shape,
        index=place,
        x=float(trial.x[place]) if kernel.shape == trial.x.shape else None,
        kernel=float(kernel[place]),
        row=float(row[place]),
        ulps=ulps,
        call=_call(trial),
    )


def _call(trial: Trial) -> str:
    given = [name for name in ("weight", "bias", "residual", "running_mean") if getattr(trial, name) is not None]
    parts = [f"eps {trial.eps:g}", *given]
    if trial.num_groups is not None:
        parts.append(f"{trial.num_groups} groups")
    if trial.threads != 1:
        parts.append(f"{trial.threads} threads")
    return ", ".join(parts)
