"""The orders of XLA's large sums on a CPU, against XLA itself on vectors of 16 numbers, where JAX is installed."""

from __future__ import annotations

import numpy as np
import pytest

from normcheck.arithmetic import summation as summations
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import Layout, order_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.fidelity.hosts import widest

FROM = 4096
"""Elements from which XLA leaves a sum to YNNPACK."""


@pytest.fixture(scope="module")
def jnp():
    if widest() != "AVX512":
        pytest.skip("XLA adds in another order on narrower vectors")
    return pytest.importorskip("jax.numpy")


def total(rows, order, layout=None):
    """The engine's sums of the rows."""
    out = summations.summation(
        *rows.shape, order_named(order), format_named("fp32"), Rounding(), no_events(len(rows)), fast=True,
        layout=layout or Layout(),
    )  # fmt: skip
    out.add(np.ascontiguousarray(rows))
    return out.finish()[:, 0].astype(np.float32)


def same(got, want):
    """Bit for bit, zeros by their signs."""
    np.testing.assert_array_equal(got.view(np.uint32), np.asarray(want).view(np.uint32))


def numbers(rows, n):
    """Rows that round at every step, one of negative zeros, one whose sum overflows, one with an infinity."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((rows, n)) * 2.0 ** rng.integers(-6, 7, (rows, n)) + rng.normal(0, 4, (rows, 1))
    x[0] = -0.0
    x[1] = 2.0**127
    x[2, n // 2] = np.inf
    return x.astype(np.float32)


@pytest.mark.parametrize("n", [5, 16, 63, 100, 1000, 1024, 1025, 2049, 5000])
def test_rows_are_added_in_vectors_and_blocks(jnp, n):
    x = numbers(max(4, -(-FROM // n)), n)
    same(total(x, "ynn-rows(16)"), jnp.sum(jnp.asarray(x), axis=1))


@pytest.mark.parametrize(("n", "columns"), [(20, 300), (255, 17), (256, 16), (257, 33), (1025, 5), (6000, 4)])
def test_columns_are_added_in_chains_of_four(jnp, n, columns):
    x = numbers(columns, n)
    same(total(x, "ynn-columns"), jnp.sum(jnp.asarray(np.ascontiguousarray(x.T)), axis=0))


@pytest.mark.parametrize(("positions", "groups", "channels"), [(300, 4, 1), (12, 4, 3), (9, 8, 20), (3, 8, 1100)])
def test_groups_are_added_position_by_position(jnp, positions, groups, channels):
    samples = -(-FROM // (positions * groups * channels))
    x = numbers(samples * groups, channels * positions)
    laid = x.reshape(samples, groups, channels, positions).transpose(0, 3, 1, 2)[:, None]
    want = jnp.sum(jnp.asarray(np.ascontiguousarray(laid)), axis=(1, 2, 4))
    same(total(x, "ynn-groups(16)", Layout(positions, channels_last=True)), np.asarray(want).reshape(-1))
