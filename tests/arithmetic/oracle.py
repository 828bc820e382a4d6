"""An independent model of low-precision arithmetic, in exact rationals. It imports nothing of normcheck.

Two models, so that each checks the other:

* scalar: `round_exact` and `apply` follow the definitions word by word, in `fractions.Fraction`;
* arrays: `Brackets` say for many exact values at once between which two neighbours each lies and on which side of
  their midpoint. They come either from the enumerated codes of a format (`between_codes`) or from integer division
  of exact ratios (`between_ratios`); `select` then applies rounding mode, overflow policy and flushing.

An exact value is a `Fraction`, or a float where it has no Fraction: a zero (which has a sign), infinity or NaN.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np

MODES = ("nearest-even", "toward-zero", "up", "down")
"""The deterministic modes; ``stochastic`` is tested by its own bounds."""
POLICIES = ("ieee", "saturate", "nan")
FLUSHES = tuple({"ftz": ftz, "daz": daz} for ftz, daz in product((False, True), repeat=2))
BINARY = ("add", "subtract", "multiply", "divide")
NAN = math.nan
ROOT_BITS = 240
"""Bits of a square root before its sticky bit: far more than any format here can see."""


@functools.cache
def power(exponent):
    """Return 2**exponent exactly."""
    return Fraction(2) ** exponent


@dataclass(frozen=True)
class Target:
    """A format by the widths of its fields, its bias and the codes that are no finite numbers."""

    exponent_bits: int
    mantissa_bits: int
    bias: int
    nan: str
    infinities: bool

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def emin(self):
        return 1 - self.bias

    @functools.cached_property
    def largest_code(self):
        """The code of the largest finite number: codes of positive numbers are in the order of their values."""
        codes = 2 ** (self.exponent_bits + self.mantissa_bits)
        if self.nan == "ieee":
            return codes - 2**self.mantissa_bits - 1
        return codes - 2 if self.nan == "all-ones" else codes - 1

    def magnitude(self, code):
        """Return the exact value of a positive code, as if no code were infinity or NaN."""
        exponent, mantissa = divmod(code, 2**self.mantissa_bits)
        if exponent == 0:
            return mantissa * power(self.emin - self.mantissa_bits)
        return (2**self.mantissa_bits + mantissa) * power(exponent - self.bias - self.mantissa_bits)

    @functools.cached_property
    def largest(self):
        return self.magnitude(self.largest_code)

    @functools.cached_property
    def beyond(self):
        """What would be the next number after the largest: values are rounded as if it existed, then overflow."""
        return self.magnitude(self.largest_code + 1)

    @functools.cached_property
    def smallest_normal(self):
        return power(self.emin)

    @functools.cached_property
    def magnitudes(self):
        """All non-negative finite numbers, ascending: entry i is code i. For formats of at most 16 bits or so."""
        code = np.arange(self.largest_code + 1)
        exponent, mantissa = np.divmod(code, 2**self.mantissa_bits)
        integer = np.where(exponent == 0, mantissa, 2**self.mantissa_bits + mantissa)
        return np.ldexp(integer.astype(np.float64), np.maximum(exponent, 1) - self.bias - self.mantissa_bits)

    @functools.cached_property
    def numbers(self):
        """All the format's values: finite numbers of both signs, infinities and NaN where it has them."""
        signed = np.concatenate([self.magnitudes, -self.magnitudes])
        if self.nan == "negative-zero":
            signed = signed[~((signed == 0) & np.signbit(signed))]
        specials = [math.inf, -math.inf] * self.infinities + [NAN] * (self.nan != "none")
        return np.concatenate([signed, np.array(specials)])


def ieee(exponent_bits, mantissa_bits):
    return Target(exponent_bits, mantissa_bits, 2 ** (exponent_bits - 1) - 1, "ieee", infinities=True)


SPECIFIED = {
    "float64": ieee(11, 52),
    "float32": ieee(8, 23),
    "tf32": ieee(8, 10),
    "bfloat16": ieee(8, 7),
    "float16": ieee(5, 10),
    "float8_e4m3fn": Target(4, 3, 7, "all-ones", infinities=False),
    "float8_e5m2": ieee(5, 2),
    "float8_e4m3fnuz": Target(4, 3, 8, "negative-zero", infinities=False),
    "float8_e5m2fnuz": Target(5, 2, 16, "negative-zero", infinities=False),
    "float6_e2m3fn": Target(2, 3, 1, "none", infinities=False),
    "float6_e3m2fn": Target(3, 2, 3, "none", infinities=False),
    "float4_e2m1fn": Target(2, 1, 1, "none", infinities=False),
}
"""The specifications' own figures, written down a second time."""


@functools.cache
def target(name):
    """Return the model of a specified format, or of the IEEE-like ``eXmY``."""
    if name in SPECIFIED:
        return SPECIFIED[name]
    return ieee(*map(int, re.fullmatch(r"e(\d+)m(\d+)", name).groups()))


# ---------------------------------------------------------------------------------------------- scalars


def exact(x):
    """Return the exact value of a float: a Fraction, or the float itself where it is a zero, infinity or NaN."""
    return Fraction(x) if math.isfinite(x) and x != 0 else float(x)


def negative(value):
    return value < 0 if isinstance(value, Fraction) else math.copysign(1.0, value) < 0


def flushed(x, form):
    """Return the operand as daz sees it: a zero with its sign where it is subnormal in the format."""
    return math.copysign(0.0, x) if 0 < abs(x) < form.smallest_normal else x


def round_exact(value, form, mode="nearest-even", overflow="ieee", *, ftz=False, random=Fraction(0)):
    """Round an exact value to a format, once.

    Args:
        value: a Fraction, or a float that is a zero, infinity or NaN.
        form: the Target.
        mode: one of MODES or ``stochastic``.
        overflow: one of POLICIES.
        ftz: whether a subnormal result becomes a zero with its sign.
        random: for ``stochastic``, a fraction in [0, 1): the magnitude is rounded up where it lies above `random`.
    """
    if not isinstance(value, Fraction):
        return _round_special(value, form, overflow)
    sign = -1 if value < 0 else 1
    size = unbounded(value, form, mode, random=random)
    if size > form.largest:
        inwards = mode == "toward-zero" or (mode == "up" and sign < 0) or (mode == "down" and sign > 0)
        return _overflowed(sign, form, overflow, inwards=inwards)
    if ftz and size < form.smallest_normal:
        size = 0
    if size == 0:
        return 0.0 if form.nan == "negative-zero" else math.copysign(0.0, sign)
    return sign * float(size)


def unbounded(value, form, mode, *, random=Fraction(0)):
    """Return the magnitude of a Fraction that is not 0, rounded as if there were no largest number."""
    up_is_away, size = value > 0, abs(value)
    quantum = power(max(_exponent(size), form.emin) - form.mantissa_bits)
    steps, rest = divmod(size, quantum)
    rest /= quantum
    away = {
        "nearest-even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and steps % 2 == 1),
        "toward-zero": False,
        "up": rest > 0 and up_is_away,
        "down": rest > 0 and not up_is_away,
        "stochastic": rest > random,
    }[mode]
    return (steps + away) * quantum


def overflows(value, form, mode="nearest-even"):
    """Return whether an exact value rounds to a magnitude beyond the largest finite number."""
    return isinstance(value, Fraction) and unbounded(value, form, mode) > form.largest


def _exponent(size):
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    return exponent if size >= power(exponent) else exponent - 1


def _overflowed(sign, form, overflow, *, inwards):
    if overflow == "saturate" or (overflow == "ieee" and inwards):
        return sign * float(form.largest)
    return sign * math.inf if overflow == "ieee" and form.infinities else NAN


def _round_special(value, form, overflow):
    if value == 0:
        return 0.0 if form.nan == "negative-zero" else value
    if math.isinf(value):
        return _overflowed(1 if value > 0 else -1, form, overflow, inwards=False)
    return NAN


def round_float(x, form, mode="nearest-even", overflow="ieee", *, ftz=False, daz=False, random=Fraction(0)):
    """Round a float to a format, the operand flushed first under daz."""
    return round_exact(exact(flushed(x, form) if daz else x), form, mode, overflow, ftz=ftz, random=random)


def apply(operation, *operands, mode="nearest-even"):
    """Return the exact result of an operation on floats; the mode decides only the sign of exact zero sums."""
    if any(math.isnan(x) for x in operands):
        return NAN
    values = [exact(x) for x in operands]
    return {
        "add": lambda a, b: _add(a, b, mode),
        "subtract": lambda a, b: _add(a, -b, mode),
        "multiply": _multiply,
        "divide": _divide,
        "sqrt": _sqrt,
        "rsqrt": _rsqrt,
        "absolute": abs,
        "copy": lambda a: a,
        "fma": lambda a, b, c: _add(_multiply(a, b), c, mode),
    }[operation](*values)


def calculate(operation, *operands, form, mode="nearest-even", overflow="ieee", ftz=False, daz=False):
    """Return an operation's result, its exact value rounded once to the format."""
    if daz:
        operands = [flushed(x, form) for x in operands]
    return round_exact(apply(operation, *operands, mode=mode), form, mode, overflow, ftz=ftz)


def _special(value):
    return not isinstance(value, Fraction)


def _finite(value):
    return isinstance(value, Fraction) or math.isfinite(value)


def _add(a, b, mode):
    if not (_finite(a) and _finite(b)):
        return (0.0 if _finite(a) else a) + (0.0 if _finite(b) else b)
    if a == 0 and b == 0 and negative(a) == negative(b):
        return a
    total = Fraction(a) + Fraction(b)
    return total or (-0.0 if mode == "down" else 0.0)


def _multiply(a, b):
    if _special(a) or _special(b):
        return _sign(a) * _sign(b) * _size(a) * _size(b)
    return a * b


def _divide(a, b):
    if not (_special(a) or _special(b)):
        return a / b
    sign, p, q = _sign(a) * _sign(b), _size(a), _size(b)
    if (p == 0 and q == 0) or (math.isinf(p) and math.isinf(q)):
        return NAN
    return sign * (math.inf if q == 0 or math.isinf(p) else 0.0)


def _sign(value):
    return -1.0 if negative(value) else 1.0


def _size(value):
    """Return the magnitude of a zero or an infinity, 1 for a number: products with specials need no more."""
    return abs(value) if _special(value) else 1.0


def _rsqrt(a):
    if a == 0:
        return math.copysign(math.inf, a)
    return NAN if a == -math.inf else _sqrt(_divide(Fraction(1), a))


def _sqrt(a):
    if _special(a):
        return NAN if a == -math.inf else a
    if a < 0:
        return NAN
    n, d = a.numerator, a.denominator
    shift = max(0, ROOT_BITS - (n.bit_length() - d.bit_length()) // 2)
    root = math.isqrt((n << 2 * shift) // d)
    inexact = root * root * d != n << 2 * shift
    return Fraction(2 * root + inexact, 2 ** (shift + 1))


# ----------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True)
class Brackets:
    """For each exact value: the format's neighbours around its magnitude, as if the exponent were unbounded above.

    Attributes:
        negative: its sign.
        low, high: the neighbours' magnitudes, low <= magnitude < high.
        side: 0 the value is `low`; 1 below, 2 on, 3 above the midpoint.
        odd: whether the code of `low` is odd.
        special: NaN for ordinary values; the zero or infinity where the value is one; see `is_special`.
        is_special: whether the value is a zero, infinity or NaN.
    """

    negative: np.ndarray
    low: np.ndarray
    high: np.ndarray
    side: np.ndarray
    odd: np.ndarray
    special: np.ndarray
    is_special: np.ndarray


def widened(x):
    """Return an array as float64; signaling NaNs become quiet ones without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(x).astype(np.float64)


def between_codes(x, form):
    """Bracket float64 numbers between the enumerated codes: comparisons only, so nothing is ever rounded."""
    x = widened(x)
    ladder = np.append(form.magnitudes, [float(form.beyond), math.inf])
    middle = np.append((ladder[:-2] + ladder[1:-1]) / 2, [math.inf, math.inf])  # exact: one bit more than a code
    size = np.abs(x)
    is_special = ~np.isfinite(x) | (x == 0)
    index = np.minimum(np.searchsorted(ladder, np.where(is_special, 0.0, size), side="right") - 1, len(ladder) - 2)
    low, half = ladder[index], middle[index]
    side = np.select([size == low, size < half, size == half], [0, 1, 2], 3).astype(np.int8)
    return Brackets(
        np.signbit(x), low, ladder[index + 1], side, index % 2 == 1, np.where(is_special, x, 1.0), is_special
    )


def between_ratios(values, form):
    """Bracket exact values between multiples of the format's quantum, by integer division."""
    rows = [_between(value, form.emin, form.mantissa_bits) for value in values]
    neg, low, high, side, odd, special, is_special = (np.array(column) for column in zip(*rows, strict=True))
    return Brackets(neg, low, high, side.astype(np.int8), odd, special, is_special)


def _between(value, emin, mantissa_bits):
    if not isinstance(value, Fraction):
        return negative(value), 0.0, 0.0, 0, False, value, True
    n, d = abs(value.numerator), value.denominator
    exponent = n.bit_length() - d.bit_length()
    if (n < d << exponent) if exponent >= 0 else (n << -exponent < d):
        exponent -= 1
    q = max(exponent, emin) - mantissa_bits
    if q < 0:
        n <<= -q
    else:
        d <<= q
    steps, rest = divmod(n, d)
    side = 0 if rest == 0 else 2 + (2 * rest > d) - (2 * rest < d)
    return value < 0, _ldexp(steps, q), _ldexp(steps + 1, q), side, steps % 2 == 1, 1.0, False


def _ldexp(steps, q):
    return math.ldexp(steps, q) if steps.bit_length() + q <= 1024 else math.inf


def select(brackets, form, mode, overflow, *, ftz=False):
    """Apply mode, policy and flushing to bracketed values; return the results and which of them overflowed."""
    neg = brackets.negative
    up = {
        "nearest-even": (brackets.side == 3) | ((brackets.side == 2) & brackets.odd),
        "toward-zero": np.zeros(neg.shape, bool),
        "up": (brackets.side > 0) & ~neg,
        "down": (brackets.side > 0) & neg,
    }[mode]
    return finish(brackets, np.where(up, brackets.high, brackets.low), form, mode, overflow, ftz=ftz)


def finish(brackets, size, form, mode, overflow, *, ftz=False):
    """Turn chosen magnitudes into results: overflow, flushing, signs, specials."""
    neg = brackets.negative
    over = (size > float(form.largest)) & ~brackets.is_special
    inwards = {"toward-zero": np.ones(neg.shape, bool), "up": neg, "down": ~neg}.get(mode, np.zeros(neg.shape, bool))
    outside = math.inf if form.infinities else NAN
    largest = float(form.largest)
    if overflow == "ieee":
        size = np.where(over, np.where(inwards, largest, outside), size)
    else:
        size = np.where(over, largest if overflow == "saturate" else NAN, size)
    if ftz:
        size = np.where(size < float(form.smallest_normal), 0.0, size)
    infinity = largest if overflow == "saturate" else (outside if overflow == "ieee" else NAN)
    special = np.where(np.isinf(brackets.special), np.copysign(infinity, brackets.special), brackets.special)
    result = np.where(brackets.is_special, special, np.where(neg, -size, size))
    if form.nan == "negative-zero":
        result = np.where(result == 0, 0.0, result)
    return result, over


def flush_operands(x, form):
    """Return the operands as daz sees them."""
    return np.where(np.abs(x) < float(form.smallest_normal), np.copysign(0.0, x), x)


# ------------------------------------------------------------------------------------------- comparison


def agree(got, expected):
    """Return where two arrays hold the same values: NaN as NaN, zeros by their sign."""
    return (np.isnan(got) & np.isnan(expected)) | ((got == expected) & (np.signbit(got) == np.signbit(expected)))


def assert_same(got, expected, *context, label=""):
    """Fail with the first few differences, showing the inputs that led to them in hexadecimal.

    Args:
        got, expected: arrays.
        context: the operand arrays.
        label: what was computed.
    """
    got, expected = widened(got), widened(expected)
    assert got.shape == expected.shape, (label, got.shape, expected.shape)
    wrong = np.flatnonzero(~agree(got, expected))
    if len(wrong):
        lines = [
            f"{', '.join(float(x[i]).hex() for x in context)}: got {float(got[i]).hex()} ({got[i]}), "
            f"expected {float(expected[i]).hex()} ({expected[i]})"
            for i in wrong[:5]
        ]
        raise AssertionError(f"{label}: {len(wrong)} of {got.size} differ\n" + "\n".join(lines))


# ------------------------------------------------------------------------------------------------ probes

FLOAT32_NANS = np.array(
    [
        0x7F800001,
        0x7F801000,
        0x7F80FFFF,
        0x7F810000,
        0x7FA00000,
        0x7FBFFFFF,
        0x7FC00000,
        0x7FFFFFFF,
        0x7FFF0000,
    ],
    np.uint32,
)
FLOAT32_NANS = np.concatenate([FLOAT32_NANS, FLOAT32_NANS | np.uint32(0x80000000)]).view(np.float32)
FLOAT64_NANS = np.array([0x7FF0000000000001, 0x7FF0000020000000, 0x7FF8000000000000, 0x7FFFFFFFFFFFFFFF], np.uint64)
FLOAT64_NANS = np.concatenate([FLOAT64_NANS, FLOAT64_NANS | np.uint64(1 << 63)]).view(np.float64)


def landmarks(form):
    """Return the positive numbers, midpoints and thresholds of a format: where rounding changes its mind."""
    ladder = np.append(form.magnitudes, float(form.beyond))
    far = float(form.beyond) * np.array([1.0, 1.5, 2.0, 4.0])
    return np.unique(np.concatenate([ladder, (ladder[:-1] + ladder[1:]) / 2, far, ladder[1:3] / 4, ladder[1:2] / 1024]))


def float32_probes(form, seed=0):
    """Return float32 numbers of both signs: landmarks, their neighbours, subnormals, extremes, random bits, NaNs."""
    points = landmarks(form)
    points = points[points <= float(np.finfo(np.float32).max)].astype(np.float32)
    below = np.nextafter(points, np.float32(-1))
    above = np.nextafter(points[:-1], np.float32(math.inf))
    tiny = np.arange(1, 64, dtype=np.uint32).view(np.float32)
    edges = np.array([0x007FFFFF, 0x00800000, 0x00800001, 0x7F7FFFFF, 0x7F7FFFFE, 0x7F800000], np.uint32).view(
        np.float32
    )
    noise = np.random.default_rng(seed).integers(0, 2**31, 4096, dtype=np.uint32).view(np.float32)
    positive = np.concatenate([points, below, above, tiny, edges, noise])
    return np.concatenate([positive, -positive, FLOAT32_NANS])


def float64_probes(form, seed=0):
    """Return float64 numbers: landmarks and their float64 neighbours, which float32 cannot tell apart, and extremes."""
    points = landmarks(form)
    below, above = np.nextafter(points, -1), np.nextafter(points, math.inf)
    edges = np.array([5e-324, 1e-310, 2.3e-308, 1e-160, 1e160, 1.7976931348623157e308, math.inf])
    noise = np.random.default_rng(seed).integers(0, 2**63, 4096, dtype=np.uint64).view(np.float64)
    positive = np.concatenate([points, below, above, edges, noise])
    return np.concatenate([positive, -positive, FLOAT64_NANS])
