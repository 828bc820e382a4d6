"""Rounding: how a real number becomes one of a format's.

Mode, overflow policy and flushing belong to the conversion, not to the format. The kernels that do the work
are in `kernels`; this module holds the settings, the constants that they take, and the public `round_to`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from normcheck.arithmetic.formats import FLOAT32, FLOAT64, Format, OverflowPolicy, format_named, holds
from normcheck.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Mode = Literal["nearest-even", "toward-zero", "up", "down", "stochastic"]
MODES: tuple[Mode, ...] = get_args(Mode)
POLICIES: tuple[OverflowPolicy, ...] = get_args(OverflowPolicy)


@dataclass(frozen=True, slots=True)
class Rounding:
    """How every operation of a run rounds.

    Attributes:
        mode: to the nearest number with ties to the even one; towards zero, up or down; or stochastically, up
            with a probability equal to the fraction of the gap that is passed.
        overflow: policy beyond the largest finite number; None for each format's usual one.
        ftz: a subnormal result becomes a zero of its sign (decided after rounding).
        daz: a subnormal operand is taken as a zero of its sign.
        seed: key of the random bits of stochastic rounding.
    """

    mode: Mode = "nearest-even"
    overflow: OverflowPolicy | None = None
    ftz: bool = False
    daz: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("rounding mode", str(self.mode), MODES, "normcheck simulate --help")
        if self.overflow is not None and self.overflow not in POLICIES:
            raise unknown_name("overflow policy", str(self.overflow), POLICIES, "normcheck simulate --help")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"seed must be from 0 to 2**64 - 1, received {self.seed}")

    def policy(self, form: Format) -> OverflowPolicy:
        """The overflow policy in force for a format."""
        return self.overflow or form.overflow


NEAREST = Rounding()

_REMEMBERED = 1 << 10
"""Formats and roundings whose constants are kept: training under stochastic rounding has a seed for every call."""


@functools.lru_cache(maxsize=_REMEMBERED)
def carried_by_float32(form: Format, rounding: Rounding = NEAREST) -> bool:
    """Whether computing in float32 and rounding once more to `form` equals a single rounding of the exact result.

    True for + - x / under nearest-even when float32's 24 bits are at least 2 p + 2 (Figueroa 1995; Roux 2014) and
    products that end among the format's subnormals are still exact in float32: 2**emin shifted by 3 p - 1 bits
    must not fall below 2**-149. float16 and bfloat16 pass, tf32 does not. float32 itself runs natively.
    """
    if rounding.mode != "nearest-even" or rounding.daz:
        return False
    if form == FLOAT32:
        return True
    p = form.precision
    return 2 * p + 2 <= FLOAT32.precision and form.emin - 3 * p + 1 >= -149 and form.max_finite <= FLOAT32.max_finite


def overflow_result(form: Format, policy: OverflowPolicy) -> float:
    """What a positive overflow under nearest-even becomes."""
    if policy == "saturate":
        return form.max_finite
    return float("inf") if policy == "ieee" and form.infinities else float("nan")


@functools.lru_cache(maxsize=_REMEMBERED)
def fast_constants(form: Format, rounding: Rounding) -> NDArray[np.uint32]:
    """Constants of the float32-carried kernels, as bits: see `kernels.FAST`.

    [shift, half - 1, odd, mask, overflow, overflowed, normal, zero, subnormal, magic]: magnitudes from `overflow`
    become `overflowed`; below `normal` a magnitude is rounded by adding and subtracting `magic`; up to `zero` it
    becomes 0; up to `subnormal` the result is not normal.
    """
    shift = FLOAT32.precision - form.precision
    half = 2 ** (form.mantissa_bits and shift - 1) - 1 if shift else 0
    mask = (0xFFFFFFFF << shift) & 0xFFFFFFFF
    over = np.float32(np.inf) if form == FLOAT32 else np.float32(form.overflow_threshold)
    overflow_bits = _bits(over) + (0 if form.threshold_overflows or form == FLOAT32 else 1)
    half_ulp = form.min_subnormal / 2
    largest_below_normal = _last_below(form.min_normal - half_ulp)
    rounds_to_zero = _bits(np.float32(half_ulp)) if form != FLOAT32 else 0
    zero_bits = largest_below_normal if rounding.ftz else rounds_to_zero
    overflowed = np.float32(overflow_result(form, rounding.policy(form)))
    magic = np.float32(2.0 ** (form.emin + FLOAT32.precision - form.precision)) if shift else np.float32(0)
    values = [
        shift,
        half,
        1 if shift else 0,
        mask,
        overflow_bits,
        _bits(overflowed),
        _bits(np.float32(form.min_normal)),
        zero_bits,
        largest_below_normal,
        _bits(magic),
    ]
    return np.array(values, dtype=np.uint32)


def _bits(value: Any) -> int:
    return int(np.float32(value).view(np.uint32))


def _last_below(value: float) -> int:
    """Bits of the largest float32 strictly below a positive value that need not be a float32."""
    nearest = np.float32(value)
    return _bits(nearest) - (1 if float(nearest) >= value else 0)


MODE_CODES: dict[Mode, int] = {mode: code for code, mode in enumerate(MODES)}


@functools.lru_cache(maxsize=_REMEMBERED)
def general_constants(form: Format, rounding: Rounding) -> NDArray[np.float64]:
    """Constants of the float64-carried kernels: see `kernels.GENERAL`.

    [precision (0 where the format is float64 itself), emin, largest finite, smallest normal, mode, result of an
    overflow where the mode points outwards, where it points inwards, result of an infinity, ftz, daz, signed zero].
    """
    if form == FLOAT64 and rounding.mode != "nearest-even":
        raise UsageError(
            f"rounding {rounding.mode!r} cannot be had for float64 steps: float64 is what carries the emulation; "
            "use float32 or a narrower precision"
        )
    policy = rounding.policy(form)
    over = overflow_result(form, policy)
    inwards = float("nan") if policy == "nan" else form.max_finite
    return np.array(
        [
            0 if form == FLOAT64 else form.precision,
            form.emin,
            form.max_finite,
            form.min_normal,
            MODE_CODES[rounding.mode],
            over,
            inwards,
            over,
            rounding.ftz,
            rounding.daz,
            form.signed_zero,
        ],
        dtype=np.float64,
    )


def round_to(
    x: ArrayLike,
    format: str | Format,  # noqa: A002  # the field's word, and the contract's
    *,
    rounding: Mode = "nearest-even",
    overflow: OverflowPolicy | None = None,
    seed: int = 0,
    ftz: bool = False,
    daz: bool = False,
) -> NDArray[Any]:
    """Round every element of `x` once to a format.

    Args:
        x: float32 or float64 values of any shape (others are taken as float64).
        format: name or `Format` to round to, such as ``"fp16"``, ``"float8_e4m3fn"`` or ``"e5m10"``.
        rounding: one of ``MODES``.
        overflow: ``"ieee"``, ``"saturate"`` or ``"nan"``; None for the format's usual policy.
        seed: key of stochastic rounding: the same seed gives the same bits for the same array.
        ftz: flush subnormal results to zero. daz: take subnormal inputs as zero.

    Returns:
        The rounded values as float32 where `x` is float32 and float32 holds the format, else as float64.
        NaN stays NaN (in float4 and float6, which have no NaN, too); infinities follow the overflow policy; -0 stays
        -0 except in formats that have none.

    Raises:
        UsageError: unknown format, mode or policy, or a directed mode for float64.
    """
    from normcheck.arithmetic import operations  # noqa: PLC0415  # the tables need no numba

    form = format if isinstance(format, Format) else format_named(format)
    values = np.asarray(x)
    settings = Rounding(rounding, overflow, ftz, daz, seed)
    single = values.dtype.kind == "f" and values.dtype.itemsize == np.float32().itemsize
    with np.errstate(invalid="ignore"):  # casting a signalling NaN raises the flag; it is a NaN all the same
        out = operations.rounded(values.astype(np.float32 if single else np.float64, copy=False), form, settings)
        kind = np.float32 if single and holds(FLOAT32, form) else np.float64
        return out.astype(kind, copy=False)
