"""Floating-point formats: independent facts in a table, everything else derived.

A format is a set of representable numbers. How a real becomes one of them (rounding mode, overflow policy,
flushing) belongs to the conversion: see `normcheck.arithmetic.rounding`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from normcheck.errors import UsageError, unknown_name

Nan = Literal["ieee", "all-ones", "negative-zero", "none"]
"""Which codes are NaN: the whole top exponent but infinity; the all-ones code; the code of -0; no code."""

OverflowPolicy = Literal["ieee", "saturate", "nan"]
"""What a conversion makes of a value beyond the largest finite number. ``ieee``: infinity, or the largest finite
number where the rounding mode points inwards; NaN in formats without infinities. ``saturate``: the largest finite
number, for infinities too. ``nan``: NaN, for infinities too."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes:
        name: the specification's name.
        exponent_bits, mantissa_bits: widths of the fields (mantissa without the implicit bit).
        bias: the exponent bias; IEEE's 2**(exponent_bits - 1) - 1 unless given.
        infinities: whether two codes are infinities.
        nan: which codes are NaN; ``"negative-zero"`` formats have no -0.
        overflow: the conversion's usual overflow policy.
        label: the short name used in reports.
        aliases: other names that are accepted.
        title: one line on what it is.
        source: the specification.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    infinities: bool
    nan: Nan
    overflow: OverflowPolicy
    label: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    source: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    @functools.cached_property
    def precision(self) -> int:
        """Significant bits p, the implicit one included."""
        return self.mantissa_bits + 1

    @functools.cached_property
    def emin(self) -> int:
        """Exponent of the smallest normal number, 2**emin."""
        return 1 - self.bias

    @functools.cached_property
    def emax(self) -> int:
        """Exponent of the largest finite number, in [2**emax, 2**(emax + 1))."""
        top: int = 2**self.exponent_bits - 1
        reserved = self.nan == "ieee" or (self.mantissa_bits == 0 and self.nan == "all-ones")
        return top - self.bias - (1 if reserved else 0)

    @functools.cached_property
    def max_finite(self) -> float:
        """The largest finite number."""
        ulp = 2.0 ** (self.emax - self.mantissa_bits)
        top = (2.0 - 2.0**-self.mantissa_bits) * 2.0**self.emax
        return top - ulp if self.nan == "all-ones" else top

    @functools.cached_property
    def min_normal(self) -> float:
        """The smallest positive normal number."""
        return 2.0**self.emin

    @functools.cached_property
    def min_subnormal(self) -> float:
        """The smallest positive number."""
        return 2.0 ** (self.emin - self.mantissa_bits)

    @functools.cached_property
    def roundoff(self) -> float:
        """Unit roundoff u = 2**-p: the largest relative error of one rounding to nearest."""
        return 2.0**-self.precision

    @functools.cached_property
    def overflow_threshold(self) -> float:
        """Magnitude from which rounding to nearest-even overflows: 65520 in float16, above 464 in float8_e4m3fn.

        Half an ulp above the largest finite number. Where that number is even (its last bit 0, as 448) the
        threshold itself still rounds down to it, and only magnitudes beyond overflow.
        """
        ulp = 2.0 ** (self.emax - self.mantissa_bits)
        return self.max_finite + ulp / 2

    @functools.cached_property
    def threshold_overflows(self) -> bool:
        """Whether the overflow threshold itself overflows (ties go to the even neighbour)."""
        return self.nan != "all-ones"

    @functools.cached_property
    def signed_zero(self) -> bool:
        """Whether -0 exists."""
        return self.nan != "negative-zero"

    @functools.cached_property
    def bits(self) -> int:
        """Bits of storage, the sign included (tf32 has 19 that count)."""
        return 1 + self.exponent_bits + self.mantissa_bits

    def __str__(self) -> str:
        return self.name


def _ieee(
    name: str,
    exponent_bits: int,
    mantissa_bits: int,
    label: str,
    title: str,
    source: str,
    aliases: tuple[str, ...] = (),
) -> Format:
    return Format(
        name=name,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=2 ** (exponent_bits - 1) - 1,
        infinities=True,
        nan="ieee",
        overflow="ieee",
        label=label,
        aliases=aliases,
        title=title,
        source=source,
    )


_OCP8 = "OCP 8-bit Floating Point Specification (OFP8) 1.0"
_FNUZ = "Graphcore, AMD and Qualcomm, 8-bit numerical formats for deep neural networks (arXiv 2206.02915)"
_MX = "OCP Microscaling Formats (MX) Specification 1.0"

FORMATS: tuple[Format, ...] = (
    _ieee("float64", 11, 52, "fp64", "IEEE binary64", "IEEE 754-2019", aliases=("double", "f64")),
    _ieee("float32", 8, 23, "fp32", "IEEE binary32", "IEEE 754-2019", aliases=("float", "single", "f32")),
    _ieee(
        "tf32",
        8,
        10,
        "tf32",
        "NVIDIA TensorFloat-32: float32's range, float16's precision",
        "NVIDIA Ampere architecture whitepaper",
    ),
    _ieee("bfloat16", 8, 7, "bf16", "the upper half of float32", "IEEE-like; Google Brain", aliases=("brain",)),
    _ieee("float16", 5, 10, "fp16", "IEEE binary16", "IEEE 754-2019", aliases=("half", "f16")),
    Format(
        name="float8_e4m3fn",
        exponent_bits=4,
        mantissa_bits=3,
        bias=7,
        infinities=False,
        nan="all-ones",
        overflow="nan",
        label="float8_e4m3fn",
        aliases=("e4m3fn", "fp8_e4m3fn"),
        title="OCP E4M3: no infinities, largest number 448 (the IEEE-like e4m3 ends at 240)",
        source=_OCP8,
    ),
    Format(
        name="float8_e5m2",
        exponent_bits=5,
        mantissa_bits=2,
        bias=15,
        infinities=True,
        nan="ieee",
        overflow="ieee",
        label="float8_e5m2",
        aliases=("fp8_e5m2",),
        title="OCP E5M2",
        source=_OCP8,
    ),
    Format(
        name="float8_e4m3fnuz",
        exponent_bits=4,
        mantissa_bits=3,
        bias=8,
        infinities=False,
        nan="negative-zero",
        overflow="nan",
        label="float8_e4m3fnuz",
        aliases=("e4m3fnuz", "fp8_e4m3fnuz"),
        title="E4M3 with bias 8, NaN in the place of -0, no infinities; largest number 240",
        source=_FNUZ,
    ),
    Format(
        name="float8_e5m2fnuz",
        exponent_bits=5,
        mantissa_bits=2,
        bias=16,
        infinities=False,
        nan="negative-zero",
        overflow="nan",
        label="float8_e5m2fnuz",
        aliases=("e5m2fnuz", "fp8_e5m2fnuz"),
        title="E5M2 with bias 16, NaN in the place of -0, no infinities; largest number 57344",
        source=_FNUZ,
    ),
    Format(
        name="float6_e2m3fn",
        exponent_bits=2,
        mantissa_bits=3,
        bias=1,
        infinities=False,
        nan="none",
        overflow="saturate",
        label="float6_e2m3fn",
        aliases=("e2m3fn", "fp6_e2m3fn"),
        title="OCP MX E2M3: no infinities, no NaN; largest number 7.5",
        source=_MX,
    ),
    Format(
        name="float6_e3m2fn",
        exponent_bits=3,
        mantissa_bits=2,
        bias=3,
        infinities=False,
        nan="none",
        overflow="saturate",
        label="float6_e3m2fn",
        aliases=("e3m2fn", "fp6_e3m2fn"),
        title="OCP MX E3M2: no infinities, no NaN; largest number 28",
        source=_MX,
    ),
    Format(
        name="float4_e2m1fn",
        exponent_bits=2,
        mantissa_bits=1,
        bias=1,
        infinities=False,
        nan="none",
        overflow="saturate",
        label="float4_e2m1fn",
        aliases=("e2m1fn", "fp4_e2m1fn"),
        title="OCP MX E2M1: no infinities, no NaN; largest number 6",
        source=_MX,
    ),
)

FLOAT64, FLOAT32 = FORMATS[0], FORMATS[1]

MAX_EXPONENT_BITS, MAX_MANTISSA_BITS = 9, 23
"""Limits of user formats: float64, which carries their arithmetic, must hold every product exactly (2 p <= 53
bits) and its range (products of two subnormals included) without underflow."""

_BY_NAME = {name: form for form in FORMATS for name in (form.name, form.label, *form.aliases)}
_USER = re.compile(r"e([0-9]{1,2})m([0-9]{1,2})")


@functools.cache
def format_named(name: str) -> Format:
    """Return the format of that name, label or alias, or the IEEE-like ``eXmY`` with X exponent and Y mantissa bits.

    Raises:
        UsageError: the name is unknown, or the widths cannot be emulated exactly.
    """
    key = name.strip().lower()
    if key in _BY_NAME:
        return _BY_NAME[key]
    match = _USER.fullmatch(key)
    if match is None:
        raise unknown_name("format", name, [*_BY_NAME, "e5m10"], "normcheck formats")
    exponent_bits, mantissa_bits = int(match[1]), int(match[2])
    if not (2 <= exponent_bits <= MAX_EXPONENT_BITS and 1 <= mantissa_bits <= MAX_MANTISSA_BITS):
        raise UsageError(
            f"format {name!r}: eXmY takes X from 2 to {MAX_EXPONENT_BITS} and Y from 1 to {MAX_MANTISSA_BITS} "
            f"(received {exponent_bits} and {mantissa_bits}); wider ones only as float64"
        )
    same = next(
        (
            f
            for f in FORMATS
            if f.nan == "ieee" and (f.exponent_bits, f.mantissa_bits) == (exponent_bits, mantissa_bits)
        ),
        None,
    )
    if same is not None:
        return same
    title = f"IEEE-like, {exponent_bits} exponent and {mantissa_bits} mantissa bits"
    return _ieee(key, exponent_bits, mantissa_bits, key, title, "user format")


def wider(a: Format, b: Format) -> Format:
    """Return the format with more significant bits, `a` where they have as many."""
    return b if b.precision > a.precision else a


def holds(outer: Format, inner: Format) -> bool:
    """Whether every finite number of `inner` is a number of `outer`."""
    return (
        outer.precision >= inner.precision
        and outer.max_finite >= inner.max_finite
        and outer.min_subnormal <= inner.min_subnormal
    )
