"""Samples of the tensors that pass through a norm, in bounded memory: whole rows of its statistic, never parts.

Tensors are kept as the bits that arrived, so bfloat16 and float8 cost what they cost in the model.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from normcheck.layers.contents import Array


_CHUNK = 1 << 18
"""Elements that are measured at a time: what is computed with takes little memory beside the tensor itself."""

_PINNED = 8
"""At most so many units are kept for their extremes, of each kind; and at most an eighth of what fits."""

_OVERHEAD = 16
"""Bytes of key and index beside each unit that is kept."""


class Tally:
    """What is known of all elements that were seen, kept or not.

    Attributes:
        elements: how many. nonfinite: how many of them are infinite or NaN.
        max_abs: the largest finite magnitude; 0 where there is none.
    """

    def __init__(self) -> None:
        self.elements = 0
        self.nonfinite = 0
        self.max_abs = 0.0

    def count(self, numbers: Array) -> Array:
        """Add elements; returns which are finite."""
        finite: Array = np.isfinite(numbers)
        self.elements += numbers.size
        self.nonfinite += numbers.size - int(np.count_nonzero(finite))
        self.max_abs = max(self.max_abs, float(np.max(np.abs(numbers), where=finite, initial=0.0)))
        return finite


class UnitSampler:
    """A sample of units: tokens (T, D...) of layer and RMS norms, samples (N, C, S) of instance and group norms.

    Kept are a uniform sample of all units and besides it, pinned, those with the largest magnitude, those whose
    statistic is smallest, and one that is not finite. Of units of different sizes only the largest are kept.

    Args:
        budget: bytes that may be kept.
        dtype: of the tensors.
        rows: how many rows of the statistic a unit holds: 1, the groups, or None for one a channel.
        centred: whether the statistic is of x - mean(x).
        random: decides which units are sampled.
    """

    def __init__(
        self, *, budget: int, dtype: torch.dtype, rows: int | None, centred: bool, random: np.random.Generator
    ) -> None:
        self.tally = Tally()
        self._budget, self._dtype, self._rows, self._centred, self._random = budget, dtype, rows, centred, random
        self._unit: tuple[int, ...] = ()
        self._sets: list[_Smallest] = []
        self._seen = 0

    @property
    def note(self) -> str | None:
        """Why nothing was kept; None where something was."""
        if self._sets or not self._unit:
            return None
        needed = math.prod(self._unit) * self._dtype.itemsize + _OVERHEAD
        return f"one unit of shape {self._unit} takes {needed} bytes, more than the budget of {self._budget}"

    def add(self, x: torch.Tensor) -> None:
        """Take in a tensor of units, the first dimension counting them."""
        bits = bits_of(x)
        kept = self._admits(bits.shape[1:])
        for start, chunk in _chunks(bits if kept else bits.reshape(-1)):
            numbers = numbers_of(chunk, self._dtype)
            finite = self.tally.count(numbers)
            if kept:
                self._offer(chunk, numbers, finite, self._seen + start)
        self._seen += len(bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `bits`."""
        return (len(self._order()), *self._unit)

    @property
    def pinned(self) -> tuple[int, ...]:
        """Which of the kept units are not part of the uniform sample alone."""
        pinned = np.unique(np.concatenate([np.empty(0, np.int64), *(one.indices for one in self._sets[1:])]))
        return tuple(np.searchsorted(self._order(), pinned).tolist())

    def bits(self) -> Array:
        """Return the kept units in the order in which they came."""
        order = self._order()
        bits = np.empty((len(order), *self._unit), _bits_type(self._dtype))
        for one in self._sets:
            bits[np.searchsorted(order, one.indices)] = one.units[: len(one.indices)]
        return bits

    def _order(self) -> NDArray[np.int64]:
        return np.unique(np.concatenate([np.empty(0, np.int64), *(one.indices for one in self._sets)]))

    def _admits(self, unit: tuple[int, ...]) -> bool:
        """Whether units of that shape are kept; a larger one than before takes the place of all."""
        if unit != self._unit and math.prod(unit) > math.prod(self._unit or (0,)):
            self._unit = unit
            capacities = _capacities(self._budget, math.prod(unit) * self._dtype.itemsize + _OVERHEAD)
            self._sets = [_Smallest(c, unit, _bits_type(self._dtype)) for c in capacities]
        return unit == self._unit and bool(self._sets)

    def _offer(self, bits: Array, numbers: Array, finite: Array, first: int) -> None:
        indices = np.arange(first, first + len(bits))
        is_finite = finite.reshape(len(bits), -1).all(axis=1)
        rows = self._unit[0] if self._rows is None else self._rows
        largest, spread = _extremes(numbers.reshape(len(bits), rows, -1), centred=self._centred)
        keys = (
            self._random.random(len(bits)),
            np.where(is_finite, -largest, 1.0),
            spread,  # NaN or infinite where the unit is not finite, and then never taken
            np.where(is_finite, np.inf, indices),
        )
        for one, key in zip(self._sets, keys, strict=True):
            one.offer(key, indices, bits)


class TensorSampler:
    """The tensor (N, C, ...) of the one call with the largest magnitude, for batch norms.

    A non-finite magnitude is the largest. A tensor beyond the budget is thinned out: each channel keeps elements at an
    equal distance, its smallest and its largest among them, and they come as one sample (1, C, P), or as (P, C).

    Args:
        budget: bytes that may be kept.
        dtype: of the tensors.
    """

    def __init__(self, *, budget: int, dtype: torch.dtype) -> None:
        self.tally = Tally()
        self.thinned = False
        self.note: str | None = None
        self._budget, self._dtype = budget, dtype
        self._largest = -1.0
        self._bits: Array = np.empty((0,), _bits_type(dtype))

    def add(self, x: torch.Tensor) -> None:
        """Take in the tensor of one call."""
        bits = bits_of(x)
        largest = 0.0
        for _, chunk in _chunks(bits.reshape(-1)):
            numbers = numbers_of(chunk, self._dtype)
            finite = self.tally.count(numbers)
            largest = max(largest, float(np.max(np.abs(numbers))) if finite.all() else np.inf)
        if largest > self._largest:
            self._largest = largest
            self._keep(bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `bits`."""
        shape: tuple[int, ...] = self._bits.shape
        return shape

    @property
    def pinned(self) -> tuple[int, ...]:
        """Empty: what is kept is one tensor."""
        return ()

    def bits(self) -> Array:
        """Return the kept tensor."""
        return self._bits

    def _keep(self, bits: Array) -> None:
        per_channel = self._budget // (bits.shape[1] * bits.itemsize)
        self.thinned, self.note = bits.nbytes > self._budget, None
        if not self.thinned:
            self._bits = bits.copy()
        elif per_channel >= 2:
            self._bits = self._thin(bits, per_channel)
        else:
            self._bits = bits[:0].copy()
            self.note = f"two elements of each of {bits.shape[1]} channels are more than the budget of {self._budget}"

    def _thin(self, bits: Array, count: int) -> Array:
        channels, size = bits.shape[1], bits.size // bits.shape[1]
        positions = np.arange(count) * size // count
        kept = np.empty((channels, count), bits.dtype)
        for c in range(channels):
            channel = np.ascontiguousarray(bits[:, c]).reshape(-1)
            kept[c] = channel[_with_extremes(numbers_of(channel, self._dtype), positions)]
        return np.ascontiguousarray(kept.T) if bits.ndim == 2 else kept[None]


class _Smallest:
    """The `capacity` units with the smallest keys; of equal keys the first to come."""

    def __init__(self, capacity: int, unit: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.capacity = capacity
        self.indices = np.empty(0, np.int64)
        self.units: Array = np.empty((capacity, *unit), dtype)  # pages are taken as they are written
        self._keys = np.empty(0)

    def offer(self, keys: Array, indices: Array, units: Array) -> None:
        """Take those of `units` that belong to the smallest; infinite keys and NaN never do."""
        held = len(self._keys)
        limit = np.inf if held < self.capacity else np.max(self._keys, initial=-np.inf)
        candidates = np.flatnonzero(keys < limit)
        merged = np.concatenate([self._keys, keys[candidates]])
        chosen = np.argsort(merged, kind="stable")[: self.capacity]
        coming = np.sort(chosen[chosen >= held]) - held
        if not coming.size:
            return
        leaving = np.setdiff1d(np.arange(held), chosen)
        slots = np.concatenate([leaving, np.arange(held, held + len(coming) - len(leaving))])
        taken = candidates[coming]
        more = np.zeros(len(coming) - len(leaving), np.int64)
        self._keys, self.indices = np.concatenate([self._keys, more]), np.concatenate([self.indices, more])
        self._keys[slots], self.indices[slots], self.units[slots] = keys[taken], indices[taken], units[taken]


def seeded(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one layer: they depend on the seed and the layer's name alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def bits_of(x: torch.Tensor) -> Array:
    """Return a tensor's elements as unsigned integers of their size; no copy where it is contiguous and on the CPU."""
    import torch  # noqa: PLC0415 - torch is loaded where there is a tensor, not with this module

    types = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    with torch.no_grad():
        bits: Array = x.detach().cpu().contiguous().view(types[x.dtype.itemsize]).numpy()
    return bits.view(_bits_type(x.dtype))


def tensor_of(bits: Array, dtype: torch.dtype) -> torch.Tensor:
    """Return bits as the tensor that they were."""
    import torch  # noqa: PLC0415 - see `bits_of`

    signed = bits if bits.itemsize == 1 else bits.view(f"i{bits.itemsize}")
    return torch.from_numpy(np.ascontiguousarray(signed)).view(dtype)


def numbers_of(bits: Array, dtype: torch.dtype) -> Array:
    """Return bits as float32 numbers, those of float64 tensors as float64."""
    import torch  # noqa: PLC0415 - see `bits_of`

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    numbers: Array = tensor_of(bits, dtype).to(wide).numpy()
    return numbers


def _bits_type(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _chunks(bits: Array) -> Iterator[tuple[int, Array]]:
    step = max(1, _CHUNK * len(bits) // max(1, bits.size))
    for start in range(0, len(bits), step):
        yield start, bits[start : start + step]


def _capacities(budget: int, unit_bytes: int) -> list[int]:
    """How many units are kept at random, for their magnitude, for their small statistic, for not being finite."""
    units = budget // unit_bytes
    if units < 1:
        return []
    if units < 4:
        return [max(0, units - 2), 1, int(units > 1), 0]
    pinned = min(_PINNED, max(1, units // 8))
    return [units - 2 * pinned - 1, pinned, pinned, 1]


def _extremes(rows: Array, *, centred: bool) -> tuple[Array, Array]:
    """For units of rows of elements: the largest magnitude, and the smallest deviation (root mean square) of a row."""
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float64)
        spread = wide.std(axis=2) if centred else np.sqrt(np.square(wide).mean(axis=2))
    return np.abs(rows).max(axis=(1, 2)), spread.min(axis=1)


def _with_extremes(numbers: Array, positions: Array) -> Array:
    """The positions with those of the smallest and the largest element in the place of the nearest ones."""
    chosen = positions.copy()
    low, high = (int(np.argmin(numbers)), int(np.argmax(numbers)))
    nearest = int(np.argmin(np.abs(chosen - low)))
    chosen[nearest] = low
    if high not in chosen:
        distance = np.abs(chosen - high)
        distance[nearest] = np.iinfo(distance.dtype).max
        chosen[int(np.argmin(distance))] = high
    return np.sort(chosen)
