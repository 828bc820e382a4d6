"""The experiments by name and letter, and running them.

Importing this module loads neither torch nor what an experiment needs: a row names the module that holds its ``run``.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck import __version__
from normcheck.errors import unknown_name
from normcheck.paper.runs import Runs
from normcheck.results.experiment import FORMAT, Experiment, Reproduction
from normcheck.results.report import Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """An experiment: its letter, its name, which is that of its module too, one line on it, and what it may cost.

    `seconds`: of the full form on two cores, about; the share that it has of a progress bar.
    """

    letter: str
    name: str
    title: str
    seconds: float

    @property
    def module(self) -> str:
        """The module with ``run(*, quick: bool, runs: Runs) -> Experiment``."""
        return f"normcheck.paper.{self.name.replace('-', '_')}"


EXPERIMENTS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("a", "statistics", "L1, L-infinity and top-10 in place of L2, in float32", 140),
        Row("b", "half-precision", "L2 and L1 batch norm in emulated half precision", 235),
        Row("c", "weight-norm", "bounded weight norm against weight norm and batch norm", 240),
        Row("d", "weight-decay", "weight decay as a learning rate", 65),
        Row("e", "constants", "the constants of the statistics, on Gaussian and other inputs", 5),
    )
}


def experiments_named(names: Iterable[str]) -> tuple[Row, ...]:
    """Return the experiments of these names or letters, each once, in the order of the table; all for no names.

    Raises:
        UsageError: a name that no experiment has.
    """
    letters = {row.letter: row.name for row in EXPERIMENTS.values()}
    wanted = {letters.get(name, name) for name in names}
    for name in wanted:
        if name not in EXPERIMENTS:
            raise unknown_name("experiment", name, EXPERIMENTS, "normcheck reproduce --help")
    return tuple(row for row in EXPERIMENTS.values() if row.name in wanted or not wanted)


def reproduce(
    rows: Sequence[Row],
    *,
    quick: bool = False,
    jobs: int | None = None,
    tick: Callable[[float, str], None] | None = None,
    done: Callable[[Experiment], None] | None = None,
) -> Reproduction:
    """Run experiments one after the other.

    All random numbers come from fixed seeds, and every process computes with one thread: on one machine, with one set
    of library versions, the same figures each time, whatever `jobs` is.

    Args:
        rows: which, from `experiments_named`.
        quick: the short form, of fewer seeds and steps.
        jobs: processes at once; None for one a core.
        tick: called with the share that is done, from 0 to 1, and what is being done.
        done: called with each experiment when it has ended.

    Raises:
        UsageError: fewer than one process. NormcheckError: a process was lost.
    """
    with Runs(jobs) as runs:
        found = []
        for index, row in enumerate(rows):
            runs.watched = None if tick is None else _share(tick, rows, index)
            found.append(_timed(row, quick, runs))
            if done is not None:
                done(found[-1])
    return Reproduction(
        format=FORMAT,
        tool=Tool(name="normcheck", version=__version__),
        environment=_environment(runs.jobs),
        quick=quick,
        experiments=tuple(found),
    )


def _timed(row: Row, quick: bool, runs: Runs) -> Experiment:
    start = time.monotonic()
    experiment: Experiment = importlib.import_module(row.module).run(quick=quick, runs=runs)
    return dataclasses.replace(experiment, seconds=round(time.monotonic() - start, 1))


def _share(tick: Callable[[float, str], None], rows: Sequence[Row], index: int) -> Callable[[float, str], None]:
    """Return what tells `tick` of the whole when told of one experiment."""
    whole = sum(row.seconds for row in rows)
    before = sum(row.seconds for row in rows[:index])
    return lambda part, label: tick((before + part * rows[index].seconds) / whole, f"{rows[index].name}: {label}")


def _environment(jobs: int) -> dict[str, str]:
    import torch  # noqa: PLC0415  # only to name its version

    from normcheck.analysis.reporting import environment  # noqa: PLC0415  # loads numba

    return {key: str(value) for key, value in {**environment(jobs), "torch": torch.__version__}.items()}
