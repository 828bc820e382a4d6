"""Running totals of one result: blocks of rows are reduced to these and added up in order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis import deviation as dev
from normcheck.arithmetic.events import FLAG_INVALID, FLAG_OVERFLOW, FLAG_UNDERFLOW
from normcheck.results import ROW_KINDS, Deviation, Distance, Rows, Statistic, Step, Tally, WorstRow

if TYPE_CHECKING:
    from normcheck.arithmetic.emulated import StepRecord
    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]
WORST_KEPT = 10


@dataclass(slots=True)
class StepTotal:
    """Events of one step over all blocks so far; `largest` is U, the magnitude with unbounded exponents."""

    form: Format
    degree: int | None
    operations: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(6, np.int64))
    extremes: Array = field(default_factory=lambda: np.array([0.0, np.inf]))
    largest: float = 0.0
    lost_mass: float | None = None
    cancelled_bits: float = 0.0
    rows_affected: int = 0

    def add(self, record: StepRecord, largest: float) -> None:
        """Add a block's record."""
        events = record.events
        self.operations += events.operations
        self.counts += events.counts
        self.extremes[0] = max(self.extremes[0], events.extremes[0])
        self.extremes[1] = min(self.extremes[1], events.extremes[1])
        self.largest = max(self.largest, largest)
        self.cancelled_bits = max(self.cancelled_bits, events.cancelled_bits)
        self.rows_affected += int(np.count_nonzero(events.flags))
        if events.lost_mass is not None:
            self.lost_mass = events.lost_mass if self.lost_mass is None else max(self.lost_mass, events.lost_mass)

    def merge(self, other: StepTotal) -> None:
        """Add another block's total."""
        self.operations += other.operations
        self.counts = self.counts + other.counts
        self.extremes = np.array([max(self.extremes[0], other.extremes[0]), min(self.extremes[1], other.extremes[1])])
        self.largest = max(self.largest, other.largest)
        self.cancelled_bits = max(self.cancelled_bits, other.cancelled_bits)
        self.rows_affected += other.rows_affected
        known = [m for m in (self.lost_mass, other.lost_mass) if m is not None]
        self.lost_mass = max(known) if known else None

    def step(self, name: str) -> Step:
        """The step as it is reported."""
        overflow, underflow, subnormal, invalid, absorbed = (int(c) for c in self.counts[:5])
        least = float(self.extremes[1])
        return Step(
            step=name,
            format=self.form.name,
            degree=self.degree,
            operations=self.operations,
            overflow=overflow,
            underflow=underflow,
            subnormal=subnormal,
            invalid=invalid,
            absorbed=absorbed,
            cancelled_bits=self.cancelled_bits,
            rows_affected=self.rows_affected,
            lost_mass=self.lost_mass,
            max_abs=float(self.extremes[0]),
            min_abs=least if math.isfinite(least) else 0.0,
        )


@dataclass(slots=True)
class ErrorTotal:
    """Sums over rows from which a `Distance` follows."""

    elements: int = 0
    rows: int = 0
    ee: float = 0.0
    abs_e: float = 0.0
    yy: float = 0.0
    ulps: float = 0.0
    max_e: float = 0.0
    max_ulps: float = 0.0
    gain: float = 0.0
    gain_squared: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    fit_yy: float = 0.0

    def add(self, sums: Array, fit: Array, n: int) -> None:
        """Add rows' sums (rows, COLUMNS); `fit` holds the sums before the affine step."""
        if not len(sums):
            return
        self.elements += n * len(sums)
        self.rows += len(sums)
        self.ee += float(sums[:, dev.EE].sum())
        self.abs_e += float(sums[:, dev.ABS_E].sum())
        self.yy += float(sums[:, dev.YY].sum())
        self.ulps += float(sums[:, dev.ULPS].sum())
        self.max_e = max(self.max_e, float(sums[:, dev.MAX_E].max()))
        self.max_ulps = max(self.max_ulps, float(sums[:, dev.MAX_ULPS].max()))
        gain, offset, noise = fitted(fit, n)
        self.gain += float(gain.sum())
        self.gain_squared += float((gain * gain).sum())
        self.offset += float((n * offset * offset).sum())
        self.noise += float(noise.sum())
        self.fit_yy += float(fit[:, dev.YY].sum())

    def merge(self, other: ErrorTotal) -> None:
        """Add another block's sums."""
        for name in self.__slots__:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name.startswith("max") else mine + theirs)

    def figures(self) -> dict[str, float | None]:
        """The fields of `results.Distance`; all None where no row was finite."""
        if not self.rows:
            return dict.fromkeys(Distance.__dataclass_fields__)
        relative = _ratio(math.sqrt(self.ee), math.sqrt(self.yy))
        mean_gain = self.gain / self.rows
        spread = max(self.gain_squared / self.rows - mean_gain**2, 0.0)
        scale = math.sqrt(self.fit_yy)
        return {
            "max_abs": self.max_e,
            "mean_abs": self.abs_e / self.elements,
            "rms": math.sqrt(self.ee / self.elements),
            "relative_rms": relative,
            "max_ulp": self.max_ulps,
            "mean_ulp": self.ulps / self.elements,
            "sqnr_db": -20.0 * math.log10(relative) if relative else math.inf,
            "gain": mean_gain,
            "gain_sd": math.sqrt(spread),
            "offset": _ratio(math.sqrt(self.offset), scale),
            "noise": _ratio(math.sqrt(self.noise), scale),
        }


def _ratio(a: float, b: float) -> float:
    return a / b if b else (0.0 if a == 0 else math.inf)


def fitted(sums: Array, n: int) -> tuple[Array, Array, Array]:
    """Least squares of e = (alpha - 1) y + delta for each row: alpha - 1, delta, and the residual's sum of squares.

    A row whose y does not vary has alpha = 1: its error is all offset.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # exact rows may be infinite where the computed ones are clipped
        return _fitted(sums, n)


def _fitted(sums: Array, n: int) -> tuple[Array, Array, Array]:
    y, e = sums[:, dev.Y], sums[:, dev.E]
    spread = sums[:, dev.YY] - y * y / n
    together = sums[:, dev.YE] - y * e / n
    varies = spread > 1e-12 * sums[:, dev.YY]
    gain = np.divide(together, spread, out=np.zeros_like(y), where=varies)
    offset = (e - gain * y) / n
    residual = sums[:, dev.EE] - e * e / n - gain * together
    return gain, offset, np.maximum(residual, 0.0)


@dataclass(frozen=True, slots=True)
class Extent:
    """How near one block of rows is to trouble: what the search for the safe scale begins with."""

    overflow_bits: float
    least_statistic: float
    error: float


@dataclass(slots=True)
class Totals:
    """All that one result needs of its rows."""

    n: int
    steps: dict[str, StepTotal] = field(default_factory=dict)
    kinds: Array = field(default_factory=lambda: np.zeros(1 + len(ROW_KINDS), np.int64))
    worst: list[WorstRow] = field(default_factory=list)
    error: ErrorTotal = field(default_factory=ErrorTotal)
    ideal: ErrorTotal = field(default_factory=ErrorTotal)
    flagged: Array = field(default_factory=lambda: np.zeros(3, np.int64))
    infinite_input: int = 0
    zero_rows: int = 0
    flushed_rows: int = 0
    negative_rows: int = 0
    max_relative_error: float = 0.0
    eps_share_max: float = 0.0
    eps_dominated_rows: int = 0
    effective_eps: float | None = None
    eps_effect: float = 0.0
    least_statistic: float = math.inf
    extents: list[Extent] = field(default_factory=list)
    statistic_form: Format | None = None
    statistic_degree: int | None = None

    def merge(self, other: Totals) -> None:
        """Add the next block's totals; blocks must come in order, for the same bits every time."""
        for name, total in other.steps.items():
            if name in self.steps:
                self.steps[name].merge(total)
            else:
                self.steps[name] = total
        self.kinds = self.kinds + other.kinds
        self.extents = self.extents + other.extents
        self.flagged = self.flagged + other.flagged
        self.worst = worst_of(self.worst + other.worst)
        self.error.merge(other.error)
        self.ideal.merge(other.ideal)
        for name in ("infinite_input", "zero_rows", "flushed_rows", "negative_rows", "eps_dominated_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.max_relative_error = max(self.max_relative_error, other.max_relative_error)
        self.eps_share_max = max(self.eps_share_max, other.eps_share_max)
        if self.effective_eps is None or other.eps_effect > self.eps_effect:
            self.effective_eps, self.eps_effect = other.effective_eps, other.eps_effect
        self.least_statistic = min(self.least_statistic, other.least_statistic)
        self.statistic_form, self.statistic_degree = other.statistic_form, other.statistic_degree

    def take_steps(self, records: dict[str, StepRecord], unbounded: dict[str, StepRecord] | None) -> None:
        """Add a block's steps; magnitudes with unbounded exponents come from the second run, where there was one."""
        self.take_sums(records, unbounded)
        flags = np.bitwise_or.reduce(np.stack([r.events.flags for r in records.values()]), axis=0)
        for place, bit in enumerate((FLAG_OVERFLOW, FLAG_UNDERFLOW, FLAG_INVALID)):
            self.flagged[place] += int(np.count_nonzero(flags & bit))

    def take_sums(self, records: dict[str, StepRecord], unbounded: dict[str, StepRecord] | None) -> None:
        """Add steps that belong to no row of a block: sums over rows."""
        for name, record in records.items():
            total = self.steps.setdefault(name, StepTotal(record.form, record.degree))
            source = unbounded[name] if unbounded is not None and name in unbounded else record
            total.add(record, float(source.events.extremes[0]))

    @property
    def overflows(self) -> int:
        """Overflows in all steps."""
        return sum(int(total.counts[0]) for total in self.steps.values())

    def rows(self) -> Rows:
        """Row classes, as they are reported."""
        _, nonfinite, collapsed, amplified, shrunk = (int(k) for k in self.kinds)
        return Rows(
            total=int(self.kinds.sum()),
            nonfinite=nonfinite,
            collapsed=collapsed,
            amplified=amplified,
            shrunk=shrunk,
            infinite_input=self.infinite_input,
        )

    def deviation(self) -> Deviation:
        """Errors, and beside them the ideal."""
        return Deviation(**self.error.figures(), ideal=Distance(**self.ideal.figures()))

    def statistic(self) -> Statistic:
        """The statistic before eps, emulated against exact."""
        names = Statistic.__dataclass_fields__
        return Statistic(**{name: getattr(self, name) for name in names})

    def tallies(self) -> dict[str, Tally]:
        """Events over all steps."""
        operations = sum(t.operations for t in self.steps.values())
        sums = sum(t.operations for name, t in self.steps.items() if t.lost_mass is not None or name in ("eps", "bias"))
        counts = sum((t.counts for t in self.steps.values()), np.zeros(6, np.int64))
        overflow, underflow, invalid = (int(f) for f in self.flagged)
        return {
            "overflow": Tally(count=int(counts[0]), of=operations, rows=overflow),
            "underflow": Tally(count=int(counts[1]), of=operations, rows=underflow),
            "invalid": Tally(count=int(counts[3]), of=operations, rows=invalid),
            "absorbed": Tally(count=int(counts[4]), of=sums, rows=None),
        }


def worst_of(rows: list[WorstRow]) -> list[WorstRow]:
    """The worst few of some bad rows, worst first."""
    return sorted(rows, key=_badness)[:WORST_KEPT]


def _badness(row: WorstRow) -> tuple[int, float, int]:
    """Worst first: by class, then by how far the statistic is off, then by index."""
    ratio = row.s_emulated / row.s if row.s else math.inf
    distance = abs(math.log2(ratio)) if math.isfinite(ratio) and ratio > 0 else math.inf
    return ROW_KINDS.index(row.kind), -distance, row.index
