"""A result whose steps leave the range of their format on both sides, and the ranges of its formats."""

from __future__ import annotations

import dataclasses
from math import inf, nan

from hand_built import COLLAPSED, REPORT

from normcheck.results import Exponents, FormatFacts, Step

HALF = FormatFacts(
    name="float16",
    label="fp16",
    precision=11,
    min_subnormal=2.0**-24,
    min_normal=2.0**-14,
    max_finite=65504.0,
    overflow_threshold=65520.0,
)
DOUBLE = FormatFacts(
    name="float64",
    label="fp64",
    precision=53,
    min_subnormal=2.0**-1074,
    min_normal=2.0**-1022,
    max_finite=1.7976931348623157e308,
    overflow_threshold=inf,
)
EXPONENTS = Exponents(lowest=-7, counts=(1, 0, 24, 100, 800, 6400, 864), zeros=2, nonfinite=1)


def step(name: str, low: float, high: float, *, degree: int | None = 1, form: str = "float16") -> Step:
    return Step(step=name, format=form, degree=degree, operations=8192, min_abs=low, max_abs=high)


STEPS = (
    step("load", 2.0**-7, 1000.0),
    step("mean", 1.0, 1.0),
    step("square", 2.0**-26, 2.0**20, degree=2),
    step("sum", 65519.0, 65520.0, degree=2, form="float64"),
    step("variance", 2.0**-30, inf, degree=2),
    step("root", inf, inf),
    step("reciprocal", 0.0, 0.0, degree=-1),
    step("normalize", nan, nan, degree=None),
    step("gain", 2.0**-20, 2.0**-16, degree=None),
    step("store", 2.0**-30, 2.0**-26, form="e5m10"),
)
PICTURED = dataclasses.replace(COLLAPSED, steps=STEPS, input=dataclasses.replace(COLLAPSED.input, exponents=EXPONENTS))
WITH_RANGES = dataclasses.replace(REPORT, results=(PICTURED,), findings=(), formats=(HALF, DOUBLE))
