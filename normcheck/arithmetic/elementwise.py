"""One rounded operation over arrays of rows: choosing the carrier, broadcasting, calling the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcheck.arithmetic import general, kernels, scratch
from normcheck.arithmetic.rounding import Rounding, fast_constants, general_constants
from normcheck.errors import NormcheckError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.arithmetic.events import Events
    from normcheck.arithmetic.formats import Format

Array = np.ndarray[Any, np.dtype[Any]]
Operation = Literal["copy", "add", "subtract", "multiply", "divide", "absolute", "sqrt", "rsqrt", "fma"]
CODES: dict[Operation, int] = {
    "copy": kernels.COPY,
    "add": kernels.ADD,
    "subtract": kernels.SUBTRACT,
    "multiply": kernels.MULTIPLY,
    "divide": kernels.DIVIDE,
    "absolute": kernels.ABSOLUTE,
    "sqrt": kernels.SQRT,
    "rsqrt": kernels.RSQRT,
    "fma": kernels.FMA,
}
_FAST_CODES = frozenset({"copy", "add", "subtract", "multiply", "divide", "absolute"})
MIXED = frozenset({"add", "subtract", "multiply"})
"""Operations that the float32 carrier has for operands that are no numbers of the result's format."""
NOTHING = np.zeros((1, 1))
_NOTHING32 = np.zeros((1, 1), np.float32)
_NO_KEY = np.uint64(0)


def require_subnormals() -> None:
    """Refuse to compute in a thread whose processor flushes subnormals: figures would be wrong without a sign.

    Raises:
        NormcheckError: flush-to-zero is on, set by another library (torch.set_flush_denormal, -ffast-math).
    """
    if general.flushes_subnormals(2.0**-1022):
        raise NormcheckError(
            "this thread flushes subnormal numbers to zero (another library set the processor so, as "
            "torch.set_flush_denormal(True) does): switch that off before calling normcheck"
        )


def mix(seed: int, *parts: int) -> np.uint64:
    """Derive an independent key from a seed and integers (FNV-1a over 64-bit words, then a SplitMix64 finish)."""
    z = seed
    for part in parts:
        z = ((z ^ part) * 0x100000001B3 + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return np.uint64(z ^ (z >> 31))


def broadcast_shape(operands: Sequence[Array]) -> tuple[int, int]:
    """Shape of the result of an operation over (rows or 1, m or 1) arrays."""
    rows, m = operands[0].shape
    for other in operands[1:]:
        rows, m = max(rows, other.shape[0]), max(m, other.shape[1])
    return rows, m


def elementwise(
    operation: Operation,
    operands: tuple[Array, ...],
    form: Format,
    rounding: Rounding,
    events: Events,
    *,
    fast: bool,
    mixed: bool = False,
    key: int = 0,
    absorb: bool = False,
) -> Array:
    """Return the rounded operation over (rows, m) arrays; `operands[1:]` may have one row or one column.

    `fast`: compute on the float32 carrier, where the first operand is in it. The caller vouches that the operands are
    numbers of `form`, or that the operation only rounds. `mixed`: the same for one of `MIXED` on numbers of float32, of
    a format with at least two bits less. Operations, events and flags are added to `events`.
    """
    first = operands[0]
    rows, m = broadcast_shape(operands)
    absorb_code = np.bool_(absorb)
    events.operations += rows * m
    if (fast or mixed) and operation in _FAST_CODES and first.shape == (rows, m) and first.dtype == np.float32:
        b = operands[1].astype(np.float32, copy=False) if len(operands) > 1 else _NOTHING32
        out = scratch.empty((rows, m), np.float32)
        kernel = kernels.mixed_elementwise if mixed else kernels.fast_elementwise
        kernel(
            CODES[operation],
            first,
            b,
            out,
            fast_constants(form, rounding),
            events.counts,
            events.extremes,
            events.flags,
            absorb_code,
        )
        if not form.signed_zero:
            out += np.float32(0)
        return out
    wide: list[Array] = [o.astype(np.float64, copy=False) for o in operands]
    a, b, c = wide + [NOTHING] * (3 - len(operands))
    out = scratch.empty((rows, m), np.float64)
    general.general_elementwise(
        CODES[operation],
        a,
        b,
        c,
        out,
        general_constants(form, rounding),
        mix(rounding.seed, key) if rounding.mode == "stochastic" else _NO_KEY,
        events.counts,
        events.extremes,
        events.flags,
        absorb_code,
    )
    return out
