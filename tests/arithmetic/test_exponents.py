from __future__ import annotations

import numpy as np
import pytest

from normcheck.arithmetic.exponents import LOWEST, NONFINITE, PLACES, ZEROS, count_exponents


def by_frexp(x):
    """Count exponents the slow way: frexp of every element in float64."""
    counts = np.zeros(PLACES, np.int64)
    for value in x.astype(np.float64).ravel():
        if value == 0:
            counts[ZEROS] += 1
        elif not np.isfinite(value):
            counts[NONFINITE] += 1
        else:
            counts[np.frexp(value)[1] - 1 - LOWEST] += 1
    return counts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_element_is_in_its_binade(dtype):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=2000) * 2.0 ** rng.integers(-140, 120, 2000)).astype(dtype)
    info = np.finfo(dtype)
    edges = np.array([0, -0.0, np.inf, -np.inf, np.nan, info.max, info.smallest_normal, info.smallest_subnormal, 1, -2])
    x = np.concatenate([x, edges.astype(dtype), -edges[5:8].astype(dtype), np.nextafter(dtype(1), dtype(0))[None]])
    assert (count_exponents(x) == by_frexp(x)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_shape_and_layout_counts_each_element_once(dtype):
    x = np.arange(24, dtype=dtype).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    assert (count_exponents(x) == by_frexp(x)).all()
    assert count_exponents(x[:0]).sum() == 0
