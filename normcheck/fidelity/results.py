"""What a run of the suite found, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORMAT: Literal[1] = 1
"""Version of the JSON of a `Fidelity`: raised when a field is renamed or removed, not when one is added."""

NAN_APART = -1
"""Stands for the distance of a number from NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """The pair of numbers that lie furthest apart, the first of several.

    `inputs`: which family of inputs. `shape`: of the input. `index`: where in the array. `x`: the input there; None
    where the array has another shape than the input. `kernel`: what the kernel gave. `row`: what the row of the
    catalogue gives. `ulps`: their distance; -1 where just one of them is NaN. `call`: parameters, eps and threads, in
    words.
    """

    inputs: str
    shape: tuple[int, ...]
    index: tuple[int, ...]
    x: float | None
    kernel: float
    row: float
    ulps: int
    call: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Numbers of a kernel beside those of a row of the catalogue.

    `numbers`: how many were compared. `identical`: those of the same bits, with NaN beside NaN and 0 beside -0.
    `zero_signs`: how many of them are zeros of opposite sign. `nan_apart`: pairs of which one alone is NaN.
    `max_ulps`: the largest distance of two that are not NaN, in units of the last place of their format; infinity
    counts as the number after the largest.
    """

    numbers: int = 0
    identical: int = 0
    zero_signs: int = 0
    nan_apart: int = 0
    max_ulps: int = 0

    @property
    def share(self) -> float:
        """The identical ones, as a share of all; 1 where nothing was compared."""
        return self.identical / self.numbers if self.numbers else 1.0

    @property
    def exact(self) -> bool:
        """Whether all have the same bits, the signs of zeros included."""
        return self.identical == self.numbers and not self.zero_signs

    def __add__(self, other: Compared) -> Compared:
        """Both together."""
        return Compared(
            numbers=self.numbers + other.numbers,
            identical=self.identical + other.identical,
            zero_signs=self.zero_signs + other.zero_signs,
            nan_apart=self.nan_apart + other.nan_apart,
            max_ulps=max(self.max_ulps, other.max_ulps),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRun:
    """A kernel that was run, and how its row of the catalogue did.

    `implementation`: the row. `project`: the module of kernels. `norm`: such as ``layer-l2``. `precision`: of the
    elements. `params`: format of the parameters, ``io`` or ``float32``. `mode`: of batch norms. `variant`: which of
    several kernels of a row. `packages`: those that were run, with their versions. `isa`: the instruction set that the
    kernel used, in its own words. `lanes`: float32 numbers in a vector of it. `cpu`: the processor. `date`: day of the
    run. `seed`: of the inputs. `trials`: calls of the kernel. `outputs`: elements of the output. `mean`: the saved
    mean; None where the kernel gives none. `rstd`: the saved reciprocal of the deviation, likewise. `running`: running
    means and variances, likewise. `worst`: of the outputs; None where all are identical. `worst_statistic`: of the
    others. `promised`: the least share of identical outputs that is a success. `most_ulps`: the largest distance that
    is; None for any. `reason`: why the promise is below 99.9 %. `kernel_seconds`: spent in the kernel.
    `row_seconds`: in the emulation. `digest`: of the row as it was run, see `normcheck.norms.evidence.digest`; empty in
    results of earlier versions.
    """

    implementation: str
    project: str
    norm: str
    precision: str
    params: str
    mode: str
    variant: str
    packages: dict[str, str]
    isa: str
    lanes: int
    cpu: str
    date: str
    seed: int
    trials: int
    outputs: Compared
    mean: Compared | None
    rstd: Compared | None
    running: Compared | None
    worst: Worst | None
    worst_statistic: Worst | None
    promised: float
    most_ulps: int | None
    reason: str
    kernel_seconds: float
    row_seconds: float
    digest: str = ""

    @property
    def statistics(self) -> Compared | None:
        """Saved means, reciprocals and running statistics together; None where the kernel gives none."""
        given = [part for part in (self.mean, self.rstd, self.running) if part is not None]
        return sum(given, Compared()) if given else None

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        near = self.most_ulps is None or (self.outputs.max_ulps <= self.most_ulps and not self.outputs.nan_apart)
        return near and self.outputs.share >= self.promised

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this run from others: a later run of the same key takes its place."""
        what = (self.implementation, self.norm, self.precision, self.params, self.mode, self.variant, self.isa)
        return (self.project, *what, *sorted(self.packages))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """What could not be run.

    `project`: the module of kernels. `what`: the kernel, or all of them. `reason`: why.
    """

    project: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """What ``python -m normcheck.fidelity`` writes.

    `format`: version of this format. `version`: of normcheck. `python`: its version. `machine`: architecture and
    operating system. `rows`: what was run. `not_run`: what could not be.
    """

    format: Literal[1]
    version: str
    python: str
    machine: str
    rows: tuple[RowRun, ...]
    not_run: tuple[NotRun, ...]
