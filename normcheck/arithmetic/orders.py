"""Orders of summation: how a sum of n terms is associated. Data only; `sums` and `schedules` carry them out."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from normcheck.errors import UsageError, unknown_name

Kind = Literal[
    "sequential",
    "pairwise",
    "lanes",
    "tree",
    "blocks",
    "kahan",
    "numpy",
    "cascade",
    "runs",
    "threads",
    "vertical",
    "channels",
    "block",
    "cub",
    "steps",
    "rowwise",
    "vectors",
    "eigen",
    "eigen-runs",
    "numpy-runs",
    "split",
    "split-squares",
    "ynn-rows",
    "ynn-columns",
    "ynn-groups",
]
Merge = Literal["tree", "serial"]
SIMD = -1
"""A width that stands for the float32 lanes of the host's vectors: ``simd`` in an order's text."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the elements of a row lie in memory, and who adds them.

    Attributes:
        run: spatial elements of each sample (batch norms) or of each channel (group and instance norms); 0 for rows
            that have none.
        channels_last: the row's elements are visited as (spatial, channel) instead of (channel, spatial).
        threads: threads that share the work.
    """

    run: int = 0
    channels_last: bool = False
    threads: int = 1


PLAIN = Layout()
"""Elements one after another, one thread."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a sum is associated.

    Attributes:
        kind: one of ``ORDERS``.
        width: lanes W, threads T of a block, or largest block B; 0 for the orders that have none, ``SIMD`` for the
            host's lanes.
        merge: how the partial sums of lanes are added up.
        vector: elements that a thread reads at once, or half-vectors that make up a vector of 16-bit elements.
    """

    kind: Kind
    width: int = 0
    merge: Merge = "tree"
    vector: int = 1

    @property
    def is_mean(self) -> bool:
        """Whether the order yields the mean itself: nothing grows with n, and n never appears as a number."""
        return self.kind == "blocks"

    @property
    def is_scheduled(self) -> bool:
        """Whether the order is a list of additions (`schedules`), with no kernel of its own."""
        return self.kind not in _WITH_KERNELS

    def resolved(self, lanes: int | None = None) -> Order:
        """The same with a width of ``simd`` replaced by `lanes`, the host's unless given.

        Orders of torch's kernels have 8 lanes where the host has 16: torch (2.13) builds its norms and sums for AVX2
        and runs them on AVX-512 as they are.
        """
        if self.width != SIMD:
            return self
        width = host_lanes() if lanes is None else lanes
        return dataclasses.replace(self, width=min(width, _TORCH_LANES) if self.kind in _TORCH else width)

    def __str__(self) -> str:
        width = ["simd" if self.width == SIMD else str(self.width)] * bool(self.width)
        inside = ", ".join(width + [str(self.vector)] * (self.vector > 1) + ["serial"] * (self.merge == "serial"))
        return f"{self.kind}({inside})" if inside else self.kind


ORDERS: dict[Kind, str] = {
    "sequential": "one accumulator, from zero, element after element",
    "pairwise": "neighbours are added, then neighbouring sums, level by level (Higham 1993)",
    "lanes": "element i goes to lane i mod W, each lane sequential from zero; lanes merged by a tree or serially",
    "tree": "element i and element i + h are added, h halving from the largest power of two below n",
    "blocks": "mean of means: blocks of at most B elements, each term divided by the block's length before a tree "
    "adds them, then the blocks' means in the same way until one is left",
    "kahan": "sequential with Kahan's compensation, every operation rounded",
    "numpy": "numpy along a contiguous axis: 8 accumulators over at most 128 elements, longer runs halved at a "
    "multiple of 8",
    "cascade": "torch's sum of a contiguous row: vectors of W lanes, in turn, go to 4 accumulators, each a cascade of "
    "4 levels; the elements left over are added first, then the lanes one by one",
    "runs": "torch's batch norm of 16-bit elements: W lanes that are kept from sample to sample take 2 W elements of a "
    "sample at a time, first half first; the rest of each sample goes to a scalar, the lanes at the end",
    "threads": "torch's batch norm on channels-last data: each thread adds a contiguous share of ceil(n / threads) "
    "elements, one by one (one thread all, where n is no more than threads); the threads' sums are added in the format "
    "of partial sums",
    "vertical": "torch's group norm on channels-last data: at each position, channel d of the group goes to lane d mod "
    "W; lanes merged by a tree or serially. W, 2: of 16-bit elements, channels d and d + W are added first",
    "channels": "torch's group norm on channels-last data of at least 1024 positions: a sum for each channel and "
    "thread over the positions, then those sums one by one, channel after channel",
    "block": "a CUDA block of T threads: vectors of V elements go to the threads in turn; a tree over the 32 lanes of "
    "each warp (lane i and i + 16, ..., i + 1), then one over the warps",
    "cub": "as block, but lane i and i + 1, i + 2, ..., i + 16 within warps, and the warps' sums one by one "
    "(cub::BlockReduce)",
    "steps": "every W elements are added by a tree, and the result to one accumulator in the format of partial sums; "
    "the elements left over one by one",
    "split": "tinygrad: sequential; from 32768 elements on, d contiguous pieces are each sequential, d the largest "
    "divisor of n from 8 to 256, and their sums are added one by one",
    "split-squares": "as split, but of up to 32 elements the first two are taken in the opposite order",
    "rowwise": "torch's RowwiseMoments, for online moments only: W lanes in chunks of 16 vectors, merged as a binary "
    "counter; the elements left over first, then the lanes one by one. W, 2: of 16-bit elements, whose vectors are two",
    "vectors": "W lanes over the whole vectors of W elements, merged by a tree, then the elements left over one by "
    "one. W, V: where V or more are left over, the products of the first V of them are rounded before they are added",
    "eigen": "Eigen's redux in packets of 4: two packets of lanes, in turn, then added; a packet left over, a tree "
    "over the 4 lanes, and the elements left over one by one",
    "eigen-runs": "Eigen's redux (the order eigen) of each sample, which is added to the total in the format of "
    "partial sums",
    "numpy-runs": "numpy's sum along a contiguous axis (the order numpy) of each sample, which is added to the total "
    "in the format of partial sums",
    "ynn-rows": "XLA's sum of contiguous rows of a large tensor (YNNPACK): vectors of W lanes in chains of 4, four of "
    "those, four again, so that 64 vectors make a block; blocks by Kahan's step; lanes merged by a tree",
    "ynn-columns": "XLA's sum of the columns of a large tensor (YNNPACK): chains of 4 elements, four of those to 16, "
    "sixteen of those to a block; blocks by Kahan's step",
    "ynn-groups": "XLA's group norm on channels-last data: at each position the group's channels in the order "
    "ynn-rows, position after position added to one accumulator",
}

DEFAULT_LANES, DEFAULT_BLOCK = 32, 64
_WITH_KERNELS = frozenset({"sequential", "pairwise", "lanes", "tree", "blocks", "kahan"})


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What an order takes: a width (its default; 0: none) from `least`, a merge, and how large a vector may be."""

    width: int = 0
    merge: bool = False
    vector: int = 1
    least: int = 2


_ARGUMENTS: dict[str, _Arguments] = {
    "lanes": _Arguments(DEFAULT_LANES, merge=True),
    "blocks": _Arguments(DEFAULT_BLOCK),
    "cascade": _Arguments(SIMD, vector=2, least=1),
    "runs": _Arguments(SIMD),
    "vertical": _Arguments(SIMD, merge=True, vector=2),
    "block": _Arguments(128, vector=32),
    "cub": _Arguments(128, vector=32),
    "steps": _Arguments(SIMD),
    "rowwise": _Arguments(SIMD, vector=2),
    "vectors": _Arguments(8, vector=32),
    "ynn-rows": _Arguments(16),
    "ynn-groups": _Arguments(16),
}
_WARPED = ("block", "cub")
_TORCH, _TORCH_LANES = ("cascade", "runs", "vertical", "rowwise"), 8
"""Orders of torch's CPU kernels, and the most lanes that they use."""
_MOST = 4096
_TEXT = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:\(([^()]*)\))?")


def order_named(text: str) -> Order:
    """Parse an order's text, such as ``sequential``, ``lanes(8, serial)``, ``cascade(simd)`` or ``block(128, 4)``.

    Raises:
        UsageError: unknown name, or arguments that the order does not take.
    """
    match = _TEXT.fullmatch(text.strip().lower())
    if match is None or match[1] not in ORDERS:
        raise unknown_name("order", text, ORDERS, "normcheck orders")
    kind: Kind = match[1]
    takes = _ARGUMENTS.get(kind, _Arguments())
    words = [word.strip() for word in (match[2] or "").split(",") if word.strip()]
    merges = [word for word in words if word in get_args(Merge)]
    numbers = [_number(word, text) for word in words if word not in merges]
    if len(numbers) > bool(takes.width) + (takes.vector > 1) or len(merges) > takes.merge:
        raise UsageError(f"order {text!r}: {kind} takes {_taken(takes)}")
    width = numbers[0] if numbers else takes.width
    vector = numbers[1] if len(numbers) > 1 else 1
    _check(text, kind, takes, width, vector)
    return Order(kind, width, "serial" if "serial" in merges else "tree", vector)


def _number(word: str, text: str) -> int:
    if word == "simd":
        return SIMD
    if not word.isdecimal():
        raise UsageError(f"order {text!r}: expected a number, simd, tree or serial, received {word!r}")
    return int(word)


def _taken(takes: _Arguments) -> str:
    """What an order takes, in words."""
    if not takes.width:
        return "no arguments"
    parts = ["a width"] + ["a vector"] * (takes.vector > 1) + ["tree or serial"] * takes.merge
    return ", ".join(parts) + ", and no more"


def _check(text: str, kind: str, takes: _Arguments, width: int, vector: int) -> None:
    if takes.width and width != SIMD and not takes.least <= width <= _MOST:
        raise UsageError(f"order {text!r}: the width must be from {takes.least} to {_MOST}, received {width}")
    if not 1 <= vector <= takes.vector:
        raise UsageError(f"order {text!r}: the vector must be from 1 to {takes.vector}, received {vector}")
    if kind in _WARPED and width & (width - 1):
        raise UsageError(f"order {text!r}: a block has a power of two of threads, received {width}")


_CAPABILITIES = {"avx512": 16, "avx2": 8, "default": 8}


@functools.cache
def host_lanes() -> int:
    """Return how many float32 lanes torch's vectors have on this machine: 16 with AVX-512, 4 on ARM, else 8.

    Where the processor has no vectors that torch knows, its portable ones stand for 8 lanes. The environment
    variable ``ATEN_CPU_CAPABILITY`` (``avx512``, ``avx2``, ``default``) overrides the processor, as it does in torch.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return 4
    asked = _CAPABILITIES.get(os.environ.get("ATEN_CPU_CAPABILITY", "").lower())
    if asked is not None:
        return asked
    import numpy as np  # noqa: PLC0415  # asked once, where the machine's vectors matter

    config: Any = np.show_config(mode="dicts")  # numpy has asked the processor
    extensions = config.get("SIMD Extensions", {})
    known = {*extensions.get("baseline", ()), *extensions.get("found", ())}
    return 16 if known & {"AVX512_SKX", "X86_V4"} else 8  # the same set before and since numpy 2.4


def check_lanes(simd: int | None) -> None:
    """Refuse a number of float32 lanes that no vectors have.

    Raises:
        UsageError: not a power of two from 1 to 64.
    """
    if simd is not None and (simd not in range(1, 65) or simd & (simd - 1)):
        raise UsageError(
            f"simd {simd}: vectors have 4 (NEON), 8 (AVX2) or 16 (AVX-512) lanes of float32; give such a number"
        )
