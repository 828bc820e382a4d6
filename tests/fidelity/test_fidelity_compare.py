"""Counting identical bits, and the pair that lies furthest apart."""

from __future__ import annotations

import numpy as np
import pytest

from normcheck.arithmetic.formats import format_named
from normcheck.errors import NormcheckError
from normcheck.fidelity.compare import Tally
from normcheck.fidelity.results import NAN_APART, Compared, Worst

INF, NAN = float("inf"), float("nan")


def tally(*pairs, precision="fp16"):
    found = Tally(format_named(precision))
    for kernel, row in pairs:
        a, b = np.array(kernel, np.float32), np.array(row, np.float32)

        def describe(index, ulps, a=a, b=b):
            return Worst(
                inputs="",
                shape=(),
                index=(index,),
                x=None,
                kernel=float(a[index]),
                row=float(b[index]),
                ulps=ulps,
                call="",
            )

        found.add(a, b, describe)
    return found


def test_nan_beside_nan_and_zeros_of_either_sign_are_identical_and_the_zeros_counted():
    found = tally(([NAN, 0.0, 1.0], [-NAN, -0.0, 1.0]))
    assert found.counts == Compared(numbers=3, identical=3, zero_signs=1)
    assert found.worst is None


@pytest.mark.parametrize(
    ("precision", "kernel", "row", "ulps"),
    [
        ("fp16", 1.0, 1.0 + 2**-10, 1),
        ("fp16", 1.0, 1.0 - 2**-11, 1),
        ("fp16", 65504.0, INF, 1),
        ("fp16", -(2.0**-24), 2.0**-24, 2),
        ("bf16", 1.0, 1.0 + 2**-7, 1),
        ("fp32", 1.0, np.nextafter(np.float32(1), np.float32(2)), 1),
        ("fp32", 1.0, 2.0, 2**23),
    ],
)
def test_distances_are_counted_in_numbers_of_the_format(precision, kernel, row, ulps):
    assert tally(([kernel], [row]), precision=precision).counts.max_ulps == ulps


def test_the_worst_pair_of_all_calls_is_kept_the_first_of_several():
    one = 2.0**-10
    found = tally(([1.0, 1.0], [1.0, 1 + one]), ([1.0, 1.0], [1 + 3 * one, 1 - 3 * one / 2]), ([2.0], [2.0]))
    assert found.worst.row == 1 + 3 * one
    assert found.worst.ulps == 3
    assert (found.counts.numbers, found.counts.identical) == (5, 2)


def test_a_pair_of_which_one_is_nan_is_worse_than_any_other_and_has_no_distance():
    found = tally(([1.0, NAN, 5.0], [1.0, 3.0, NAN]), ([1.0], [2.0]))
    assert found.counts.nan_apart == 2
    assert found.counts.max_ulps == 1024
    assert found.worst.ulps == NAN_APART
    assert found.worst.row == 3.0


def test_other_shapes_are_refused():
    with pytest.raises(NormcheckError, match=r"shape \(2,\)"):
        tally(([1.0, 2.0], [1.0]))
