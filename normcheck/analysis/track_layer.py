"""One weight through all checkpoints: what is measured of it, with no more of it in memory than two checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.track_findings import HALF
from normcheck.analysis.track_updates import DEGREES, Counts, Step, counted, difference, kind_of, step_of
from normcheck.results.track import Channel, Drift, Lost, Point, Spread, TrackedLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.track_invariance import Invariance
    from normcheck.analysis.track_series import Snapshot
    from normcheck.arithmetic.formats import Format
    from normcheck.layers.contents import Array
    from normcheck.results.track import UpdateSource

_BLOCK = 1 << 20
"""Elements that are widened to float64 at a time."""
_WORST = 5
"""Channels of a layer that are named."""
_LOW, _HIGH = 5, 95
"""Per cent of the channels that a band leaves out below, and reaches up to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured of every layer.

    Attributes:
        formats: in which updates may be lost.
        rates: learning rate at each checkpoint, as given; None takes what each states.
        optimizer: as given; None takes what each states.
        update: where updates come from: "auto" takes the optimizer's state where it has one.
        steps: between each checkpoint and the one before; None where that is not known.
        channels: whether the norms of all channels are kept.
    """

    formats: tuple[Format, ...]
    rates: tuple[float, ...] | None
    optimizer: str | None
    update: str
    steps: tuple[int | None, ...]
    channels: bool


@dataclass(slots=True, eq=False)
class _Measured:
    """Numbers of one weight in one checkpoint, one a channel where they are arrays."""

    norms: Array
    angles: Array | None = None
    change: float | None = None
    update: float | None = None
    counts: list[Counts] = field(default_factory=list)


def spread(values: Array) -> Spread | None:
    """Return the numbers of all channels in short; None where none is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, median, high = np.percentile(finite, (_LOW, 50, _HIGH))
    return Spread(
        median=float(median),
        low=float(low),
        high=float(high),
        smallest=float(finite.min()),
        largest=float(finite.max()),
    )


def tracked(name: str, snapshots: Sequence[Snapshot], invariance: Invariance, wanted: Wanted) -> TrackedLayer:
    """Measure one weight in all checkpoints that have it, which all have it in one shape."""
    whole = invariance.scope == "tensor"
    stated = [kind for snapshot in snapshots if (kind := _kind(snapshot, name)) is not None]
    power = 1 + DEGREES.get(wanted.optimizer or next(reversed(stated), "sgd"), 1)
    follower = _Follower(name, wanted, power, whole=whole)
    held = [(index, snapshot) for index, snapshot in enumerate(snapshots) if name in snapshot.parameters]
    points, measured = zip(*(follower.at(index, snapshot) for index, snapshot in held), strict=True)
    last = held[-1][1].parameters[name]
    return TrackedLayer(
        name=name,
        shape=last.shape,
        channels=last.shape[0],
        stored=last.dtype,
        scope=invariance.scope,
        how=invariance.how,
        power=power,
        points=points,
        drift=_drift(points, measured, power, whole=whole),
        worst=_worst(points, measured, power, wanted, whole=whole),
    )


def _kind(snapshot: Snapshot, name: str) -> str | None:
    slot = snapshot.slots.get(name)
    return kind_of(slot) if slot is not None else None


class _Follower:
    """Measures one weight, checkpoint by checkpoint, and keeps it of the last one alone."""

    def __init__(self, name: str, wanted: Wanted, power: int, *, whole: bool) -> None:
        self._name, self._wanted, self._power, self._whole = name, wanted, power, whole
        self._before: Array | None = None
        self._place = -1

    def at(self, index: int, snapshot: Snapshot) -> tuple[Point, _Measured]:
        """Measure the weight in a checkpoint that has it."""
        tensor, rate = snapshot.parameters[self._name], self._rate(index, snapshot)
        weight = tensor.load().reshape(tensor.shape[0], -1)
        step, source = self._step(index, snapshot, rate)
        found = _measure(weight, self._before, step, self._wanted.formats)
        self._before, self._place = weight, index
        return self._point(index, found, rate, source, estimated=step is not None and step.estimated), found

    def _rate(self, index: int, snapshot: Snapshot) -> float | None:
        if self._wanted.rates is not None:
            return self._wanted.rates[index]
        slot = snapshot.slots.get(self._name)
        stated = slot.settings.get("lr") if slot is not None else None
        if isinstance(stated, int | float):
            return float(stated)
        return snapshot.rates[0] if len(snapshot.rates) == 1 else None

    def _step(self, index: int, snapshot: Snapshot, rate: float | None) -> tuple[Step | None, UpdateSource | None]:
        """The update of one step, and where it comes from."""
        slot, source = snapshot.slots.get(self._name), self._wanted.update
        if slot is not None and source != "difference":
            kind = self._wanted.optimizer or kind_of(slot)
            stated = step_of(slot, kind, rate, snapshot.parameters[self._name].shape)
            if stated is not None:
                return stated, "optimizer"
        if self._before is None or source == "optimizer":
            return None, None
        steps = self._steps(index)
        return Step(difference(self._before, steps), estimated=steps != 1), "difference"

    def _steps(self, index: int) -> int | None:
        """Steps since the last checkpoint that had the weight, over those between that lack it."""
        between = [n for n in self._wanted.steps[self._place + 1 : index + 1] if n is not None]
        return sum(between) if len(between) == index - self._place else None

    def _point(
        self, index: int, found: _Measured, rate: float | None, source: UpdateSource | None, *, estimated: bool
    ) -> Point:
        with np.errstate(all="ignore"):  # of channels that are 0, and of weights of diverged runs
            total = float(np.sqrt(np.sum(found.norms**2)))
            lengths = np.array([total]) if self._whole else found.norms
            effective = None if rate is None else spread(rate / lengths**self._power)
        return Point(
            checkpoint=index,
            norm=total,
            channel_norms=spread(found.norms),
            zero_channels=int((found.norms == 0).sum()),
            nonfinite_channels=int((~np.isfinite(found.norms)).sum()),
            lr=rate,
            effective_step=effective,
            angle_degrees=None if found.angles is None else spread(found.angles),
            relative_change=found.change,
            update_from=source,
            estimated=estimated,
            relative_update=found.update,
            lost=tuple(_lost(c, form) for c, form in zip(found.counts, self._wanted.formats, strict=False)),
            norms_of_channels=tuple(map(float, found.norms)) if self._wanted.channels else None,
        )


def _measure(weight: Array, before: Array | None, step: Step | None, formats: Sequence[Format]) -> _Measured:
    channels, size = weight.shape
    norms, old_norms, angles, changes, updates = (np.zeros(channels) for _ in range(5))
    counts: list[list[Counts]] = [[] for _ in formats]
    height = max(1, _BLOCK // size)
    with np.errstate(all="ignore"):  # weights of diverged runs
        for start in range(0, channels, height):
            rows = slice(start, start + height)
            wide = weight[rows].astype(np.float64)
            norms[rows] = _lengths(wide)
            if before is not None:
                old = before[rows].astype(np.float64)
                old_norms[rows], changes[rows], angles[rows] = _lengths(old), _lengths(wide - old), _angles(old, wide)
            if step is not None:
                update = step.of(wide, rows)
                updates[rows] = _lengths(update)
                for found, form in zip(counts, formats, strict=True):
                    found.append(counted(weight[rows], update, form))
        return _Measured(
            norms=norms,
            angles=None if before is None else angles,
            change=None if before is None else _over(changes, old_norms),
            update=None if step is None else _over(updates, norms),
            counts=[_joined(parts) for parts in counts if parts],
        )


def _joined(parts: list[Counts]) -> Counts:
    return Counts(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("lost", "of", "beyond")))


def _lengths(rows: Array) -> Array:
    """‖w‖₂ of every row, in float64."""
    lengths: Array = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths


def _angles(old: Array, new: Array) -> Array:
    """Degrees between the directions of every row before and after, right for small ones too; NaN without direction.

    2 atan2(‖a - b‖, ‖a + b‖) for unit vectors a and b: an arc cosine would lose angles below 1e-6 degrees.
    """
    a, b = (rows / _lengths(rows)[:, None] for rows in (old, new))
    angles: Array = np.degrees(2 * np.arctan2(_lengths(a - b), _lengths(a + b)))
    return angles


def _over(lengths: Array, of: Array) -> float | None:
    whole, base = (float(np.sqrt(np.sum(each**2))) for each in (lengths, of))
    return whole / base if base > 0 and math.isfinite(whole / base) else None


def _lost(counts: Counts, form: Format) -> Lost:
    lost, of = int(counts.lost.sum()), int(counts.of.sum())
    return Lost(
        precision=form.label,
        lost=lost,
        of=of,
        share=lost / of if of else None,
        beyond=int(counts.beyond.sum()),
        channels=int((counts.lost > HALF * counts.of).sum()),
    )


def _ratios(points: Sequence[Point], measured: Sequence[_Measured], power: int, *, whole: bool) -> tuple[Array, Array]:
    """By channel, norm and effective step size, last over first; NaN where a channel has no direction in either."""
    first, last = measured[0].norms, measured[-1].norms
    rates = points[0].lr, points[-1].lr
    by_rate = rates[1] / rates[0] if rates[0] and rates[1] is not None else 1.0
    with np.errstate(all="ignore"):
        good = (first > 0) & (last > 0) & np.isfinite(first) & np.isfinite(last)
        norms = np.where(good, last / first, np.nan)
        base = np.full_like(norms, points[-1].norm / points[0].norm) if whole and points[0].norm else norms
        return norms, by_rate / np.where(good, base, np.nan) ** power


def _drift(points: Sequence[Point], measured: Sequence[_Measured], power: int, *, whole: bool) -> Drift | None:
    if len(points) < 2:
        return None
    norms, steps = (spread(ratios) for ratios in _ratios(points, measured, power, whole=whole))
    if norms is None or steps is None:
        return None
    return Drift(norm_ratio=norms, step_ratio=steps, trend=_trend(points, power))


def _trend(points: Sequence[Point], power: int) -> float:
    """The factor a checkpoint by which the effective step size goes, by least squares on its logarithm.

    Without learning rates, at a constant one; checkpoints where it is 0 or not finite are left out.
    """
    rated = all(point.lr is not None for point in points)
    places, logs = [], []
    for point in points:
        of = point.effective_step if rated else point.channel_norms
        if of is not None and 0 < of.median < math.inf:
            places.append(float(point.checkpoint))
            logs.append(math.log(of.median) if rated else -power * math.log(of.median))
    if len(places) < 2:
        return 1.0
    return math.exp(float(np.polyfit(places, logs, 1)[0]))


def _worst(
    points: Sequence[Point], measured: Sequence[_Measured], power: int, wanted: Wanted, *, whole: bool
) -> tuple[Channel, ...]:
    counts = next((m.counts for m in reversed(measured) if m.counts), [])
    with np.errstate(all="ignore"):
        shares = [np.where(c.of > 0, c.lost / c.of, np.nan) for c in counts]
        steps = _ratios(points, measured, power, whole=whole)[1]
        drifted = np.nan_to_num(np.abs(np.log(steps)), nan=0.0, posinf=np.inf)
    most = np.nan_to_num(np.fmax.reduce(shares), nan=-1.0) if shares else np.zeros(len(steps))
    order: Any = np.lexsort((-drifted, -most))[:_WORST]
    return tuple(
        Channel(
            index=int(c),
            norm=float(measured[-1].norms[c]),
            step_ratio=float(steps[c]) if np.isfinite(steps[c]) and len(points) > 1 else None,
            lost={
                form.label: None if np.isnan(share[c]) else float(share[c])
                for form, share in zip(wanted.formats, shares, strict=False)
            },
        )
        for c in order
    )
