"""Comparison bit for bit: distances in numbers of the format."""

import numpy as np
import pytest

from normcheck.analysis.bits import agreement, are_numbers_of, places
from normcheck.arithmetic.formats import format_named

FP16 = format_named("fp16")


def test_numbers_of_float16_are_numbered_by_their_codes() -> None:
    codes = np.arange(0x7C01, dtype=np.uint16)  # 0 to infinity
    values = codes.view(np.float16).astype(np.float64)
    assert np.array_equal(places(values, FP16), codes)
    assert np.array_equal(places(-values, FP16), -codes.astype(np.float64))


def test_numbers_of_bfloat16_and_float32_are_numbered_by_their_codes() -> None:
    codes = np.arange(0x7F81, dtype=np.uint32)
    assert np.array_equal(places((codes << 16).view(np.float32).astype(np.float64), format_named("bf16")), codes)
    some = np.random.default_rng(0).integers(0, 0x7F800001, 10_000).astype(np.uint32)
    assert np.array_equal(places(some.view(np.float32).astype(np.float64), format_named("fp32")), some)


@pytest.mark.parametrize(
    ("a", "b", "identical", "ulp"),
    [
        ([1.0, 2.0], [1.0, 2.0], 2, 0.0),
        ([1.0, 2.0], [1.0 + 2**-10, 2.0], 1, 1.0),
        ([np.nan, 1.0], [np.nan, 1.0], 2, 0.0),
        ([np.nan, 1.0], [0.0, 1.0], 1, np.inf),
        ([np.inf], [65504.0], 0, 1.0),
        ([np.inf], [-np.inf], 0, np.inf),
        ([2**-24], [-(2**-24)], 0, 2.0),
    ],
)
def test_agreement_counts_identical_elements_and_the_largest_distance(
    a: list[float], b: list[float], identical: int, ulp: float
) -> None:
    found = agreement(np.array(a), np.array(b), FP16)
    assert (found.compared, found.identical, found.max_ulp) == (len(a), identical, ulp)


def test_zeros_of_either_sign_are_identical_and_counted() -> None:
    found = agreement(np.array([0.0, -0.0]), np.array([-0.0, -0.0]), FP16)
    assert (found.identical, found.zero_signs, found.at) == (2, 1, None)


def test_the_share_and_the_place_are_of_the_farthest_pair() -> None:
    found = agreement(np.array([1.0, 1.0, 1.0]), np.array([1.0 + 2**-10, 1.0, 1.5]), FP16)
    assert (found.compared, found.identical, found.max_ulp, found.at) == (3, 1, 512.0, 2)
    assert found.share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("values", "name", "wanted"),
    [
        ([0.0, -0.0, 1.5, 65504.0, np.inf, np.nan], "fp16", True),
        ([65520.0], "fp16", False),
        ([2.0**-24], "fp16", True),
        ([2.0**-25], "fp16", False),
        ([1 + 2.0**-7, 2.0**100], "bf16", True),
        ([1 + 2.0**-8], "bf16", False),
        ([], "fp16", True),
    ],
)
def test_numbers_of_a_format_are_told_from_others(values: list[float], name: str, wanted: bool) -> None:
    assert are_numbers_of(np.array(values), format_named(name)) is wanted
