"""Recurrences of online moments: how an element is taken in and how two sets are merged, as flags for one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ByCount = Literal["divide", "reciprocal"]
"""Division by a count, or a product with its reciprocal."""
MergeMean = Literal["shift", "weighted", "scaled"]
Between = Literal["dd(Ac)", "(dA)(cd)", "(ddc)A", "(ddA)c", "(ddab)n", "(ddAB)r"]
Association = Literal["sets", "second"]


_Kind = Literal["add", "multiply", "fma", "divide"]
Counts = dict[_Kind, int]
"""Operations by kind."""


@dataclass(frozen=True, slots=True)
class Take:
    """How an element x is taken into a set of count i (x included), mean m and sum of squared deviations M.

    d = x - m; m += d / i; M += d * (x - m). With "reciprocal", m += d * (1 / i), 1 / i rounded beforehand.
    fused_mean, fused_sum: that multiplication and addition are one rounding.
    """

    mean: ByCount = "divide"
    fused_mean: bool = False
    fused_sum: bool = False

    @property
    def codes(self) -> tuple[int, ...]:
        """The flags as the kernel takes them."""
        return (int(self.mean == "reciprocal"), int(self.fused_mean), int(self.fused_sum))

    @property
    def operations(self) -> tuple[Counts, Counts]:
        """Those of one element: in the mean's format, and in the sum's."""
        if self.mean == "divide":
            mean: Counts = {"add": 3, "divide": 1}
        else:
            mean = _added(self.fused_mean, {"add": 2})
        return mean, _added(self.fused_sum, {})


@dataclass(frozen=True, slots=True)
class Merge:
    """How a set (count B, mean mB, sum MB) is merged into another (A, mA, MA); n = A + B, d = mB - mA.

    weight: b = B / n and a = A / n by division, or as products with r = 1 / n (r = 1 / max(1, n) in "scaled" ones).
    mean: "shift" mA + d b; "weighted" mA a + mB b; "scaled" (A mA + B mB) r. between: the product that is added to the
    sums, c for b, in its order of multiplication. fused_mean, fused_sum: the last multiplication and the addition are
    one rounding. association: "sets" (MA + MB) + product, "second" MA + (MB + product). skips_empty: a set of no
    elements changes nothing; elsewhere it goes through the same operations, so that 0 * inf is NaN there too. second:
    what is merged into is the set B (of "weighted" merges that do not skip).
    """

    weight: ByCount = "divide"
    mean: MergeMean = "shift"
    between: Between = "dd(Ac)"
    fused_mean: bool = False
    fused_sum: bool = False
    association: Association = "sets"
    skips_empty: bool = True
    second: bool = False

    @property
    def codes(self) -> tuple[int, ...]:
        """The flags as the kernel takes them."""
        return (
            int(self.weight == "reciprocal"),
            get_args(MergeMean).index(self.mean),
            get_args(Between).index(self.between),
            int(self.fused_mean),
            int(self.fused_sum),
            int(self.association == "second"),
            int(self.skips_empty),
            int(self.second),
        )

    @property
    def shares(self) -> Counts:
        """Operations of one merge that find the sets' shares in the whole."""
        if self.mean == "scaled":
            return {"divide": 1}
        count = 1 + (self.mean == "weighted")
        return {"divide": 1, "multiply": count} if self.weight == "reciprocal" else {"divide": count}

    @property
    def operations(self) -> tuple[Counts, Counts]:
        """Those of one merge: in the mean's format, and in the sum's."""
        mean: Counts = {"multiply": 0, **self.shares, "add": 1}
        mean["multiply"] += {"shift": 0, "weighted": 1, "scaled": 2}[self.mean]
        total: Counts = {"add": 1, "multiply": 3 if self.between in ("(ddab)n", "(ddAB)r") else 2}
        return _added(self.fused_mean, mean), _added(self.fused_sum, total)


def _added(fused: bool, counts: Counts) -> Counts:
    """The operations with one product added."""
    out = dict(counts)
    kinds: tuple[_Kind, ...] = ("fma",) if fused else ("multiply", "add")
    for kind in kinds:
        out[kind] = out.get(kind, 0) + 1
    return out


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A kernel's way to online moments: that of its vectors or threads, and that of the scalar code beside them."""

    title: str
    take: Take = Take()
    merge: Merge = Merge()
    tail_take: Take | None = None
    tail_merge: Merge | None = None

    @property
    def codes(self) -> tuple[int, ...]:
        """All flags: of take, merge, and their scalar flavours."""
        tail_take, tail_merge = self.tail_take or self.take, self.tail_merge or self.merge
        return self.take.codes + self.merge.codes + tail_take.codes + tail_merge.codes


_FUSED = Take("reciprocal", fused_mean=True, fused_sum=True)
_VECTORS = Merge(between="(dA)(cd)", fused_sum=True, skips_empty=False)
_SCALARS = Merge(between="(ddc)A", fused_mean=True, fused_sum=True, association="second", skips_empty=False)

RECURRENCES: dict[str, Recurrence] = {
    "chan": Recurrence("d = x - m; m += d / i; M += d (x - m); merges by Chan, Golub and LeVeque, nothing fused"),
    "aten-cpu": Recurrence(
        "torch CPU's RowwiseMoments: fused, with reciprocals of the counts; the scalar code divides, and fuses its "
        "merges only",
        _FUSED,
        _VECTORS,
        Take(),
        _SCALARS,
    ),
    "aten-cpu-half-tail": Recurrence(
        "as aten-cpu, for float16 on AVX2 and AVX-512: the scalar code fuses M too",
        _FUSED,
        _VECTORS,
        Take(fused_sum=True),
        _SCALARS,
    ),
    "aten-cpu-portable": Recurrence(
        "as aten-cpu, built for processors without fused multiply-add: nothing is fused",
        Take("reciprocal"),
        Merge(between="(dA)(cd)", skips_empty=False),
        Take(),
        Merge(between="(ddc)A", association="second", skips_empty=False),
    ),
    "aten-cuda": Recurrence(
        "torch CUDA's vectorised layer norm: reciprocals of the counts, weighted means, fused",
        _FUSED,
        Merge("reciprocal", "weighted", "(ddA)c", fused_mean=True, fused_sum=True, skips_empty=False, second=True),
    ),
    "welford-ops": Recurrence(
        "torch CUDA's WelfordOps: division by the count, shifted means, fused",
        Take(fused_sum=True),
        Merge(between="(ddA)c", fused_mean=True, fused_sum=True),
    ),
    "aten-cuda-batch": Recurrence(
        "torch CUDA's batch norm: division by the count, scaled means, fused",
        Take(fused_sum=True),
        Merge("reciprocal", "scaled", "(ddAB)r", fused_mean=True, fused_sum=True, association="second"),
    ),
    "apex": Recurrence(
        "apex's cuWelfordMuSigma2: true divisions, weighted means, fused",
        Take(fused_sum=True),
        Merge("divide", "weighted", "(ddab)n", fused_mean=True, fused_sum=True, skips_empty=False),
    ),
}
"""By name. ``aten-cuda``, ``welford-ops``, ``aten-cuda-batch`` and ``apex`` are fused as nvcc does by default."""
