"""Operands that are numbers of float32 and none of the result's format: the fast kernel equals the general one."""

from __future__ import annotations

import numpy as np
import pytest

from normcheck.arithmetic.elementwise import MIXED, elementwise
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import Rounding, round_to

FORMATS = ("fp16", "bf16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float6_e3m2fn", "e6m9")


def floats(rng, shape, spread):
    """Float32 numbers over a range of exponents, among them special ones."""
    bits = rng.integers(0, 2**23, shape, dtype=np.uint32) & rng.choice(np.uint32([0x7FFFFF, 0x7FE000, 0x700000]), shape)
    exponents = np.clip(127 + np.round(rng.normal(0, spread, shape)), 0, 254).astype(np.uint32) << np.uint32(23)
    sign = rng.integers(0, 2, shape, dtype=np.uint32) << np.uint32(31)
    x = (bits | exponents | sign).view(np.float32)
    special = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 2**-24, 2**-25, 2**-149, 3.4e38])
    return np.where(rng.random(shape) < 0.03, rng.choice(special, shape), x).astype(np.float32)


def run(operation, a, b, form, rounding, **how):
    events = no_events(len(a))
    out = elementwise(operation, (a, b), form, rounding, events, absorb=operation == "add", **how)
    return out, events


@pytest.mark.parametrize("operation", sorted(MIXED))
@pytest.mark.parametrize("name", FORMATS)
def test_the_fast_kernel_for_mixed_operands_gives_the_general_ones_bits_and_events(name, operation):
    form, rng = format_named(name), np.random.default_rng(7)
    for case in range(24):
        spread = (3, 12, 40)[case % 3]
        a = floats(rng, (3, 1500), spread)
        a = round_to(a, form).astype(np.float32) if case % 2 else a
        b = floats(rng, ((3, 1500), (3, 1), (1, 1500), (1, 1))[case % 4], spread)
        rounding = Rounding(ftz=case % 5 == 0)
        with np.errstate(all="ignore"):
            fast, counted = run(operation, a, b, form, rounding, fast=False, mixed=True)
            general, expected = run(operation, a, b, form, rounding, fast=False)
        assert fast.dtype == np.float32
        assert general.dtype == np.float64
        np.testing.assert_array_equal(fast, general)
        number = ~np.isnan(general)
        np.testing.assert_array_equal(np.signbit(fast)[number], np.signbit(general)[number])
        np.testing.assert_array_equal(counted.counts[:5], expected.counts[:5])
        np.testing.assert_array_equal(counted.extremes, expected.extremes)
        np.testing.assert_array_equal(counted.flags, expected.flags)


def test_products_that_float32_would_round_twice_are_rounded_once():
    rng = np.random.default_rng(1)
    a = rng.integers(1024, 2048, (1, 200_000)).astype(np.float32)
    b = (rng.integers(2**23, 2**24, a.shape) / 2**23).astype(np.float32)
    in_float32 = (a * b).astype(np.float16)
    once, _ = run("multiply", a, b, format_named("fp16"), Rounding(), fast=False, mixed=True)
    exact = (a.astype(np.float64) * b).astype(np.float16)  # the product is exact in float64
    assert (in_float32 != exact).any()
    np.testing.assert_array_equal(once, exact)
