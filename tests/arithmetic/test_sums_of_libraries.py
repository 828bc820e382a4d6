"""Orders of numpy, Eigen and ONNX Runtime, against numpy itself and against models that add whole packets."""

from __future__ import annotations

import numpy as np
import pytest

from normcheck.arithmetic import summation as summations
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import Layout, order_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.errors import UsageError

SIZES = (*range(1, 41), 63, 64, 127, 128, 129, 136, 257, 1000)


def total(x, order, form="fp32", *, y=None, layout=None, partial=None, fast=True):
    """The rows' sums, as one part."""
    x = np.asarray(x, np.float32 if y is None else np.float64)
    out = summations.summation(
        *x.shape,
        order_named(order),
        format_named(form),
        Rounding(),
        no_events(len(x)),
        fast=fast and y is None,
        layout=layout or Layout(),
        partial=None if partial is None else format_named(partial),
    )
    out.add(x, y)
    return out.finish()[:, 0].astype(np.float32)


def same(got, want):
    """Bit for bit, zeros by their signs."""
    np.testing.assert_array_equal(
        np.asarray(got, np.float32).view(np.uint32), np.asarray(want, np.float32).view(np.uint32)
    )


def numbers(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 7, shape)).astype(np.float32)


def eigen(x):
    """Eigen's redux of one row, a packet of 4 at a time."""
    packets, rest = x[: x.size // 4 * 4].reshape(-1, 4), x[x.size // 4 * 4 :]
    if not len(packets):
        out, rest = x[0], x[1:]
    else:
        even, odd = packets[0], packets[1] if len(packets) > 1 else None
        for place in range(2, len(packets) - 1, 2):
            even, odd = even + packets[place], odd + packets[place + 1]
        even = even if odd is None else even + odd
        if odd is not None and len(packets) % 2:
            even = even + packets[-1]
        out = (even[0] + even[2]) + (even[1] + even[3])
    for value in rest:
        out = out + value
    return out


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("n", SIZES)
def test_eigens_sums_are_made_of_two_packets(n, fast):
    x = numbers(3, n, seed=n)
    same(total(x, "eigen", fast=fast), [eigen(row) for row in x])


def test_eigens_order_is_its_own():
    x = numbers(50, 45)
    sums = [
        total(x, order).tolist() for order in ("eigen", "lanes(8)", "lanes(4)", "numpy", "vectors(8)", "sequential")
    ]
    assert all(sums.count(each) == 1 for each in sums)


@pytest.mark.parametrize("run", [1, 3, 4, 8, 13, 24])
def test_eigens_sums_of_samples_are_added_one_by_one(run):
    x = numbers(4, 5 * run, seed=run)
    want = np.zeros(4, np.float32)
    for sample in x.reshape(4, 5, run).transpose(1, 0, 2):
        want = want + np.array([eigen(row) for row in sample], np.float32)
    same(total(x, "eigen-runs", layout=Layout(run)), want)
    same(total(x, "eigen-runs"), [eigen(row) for row in x])  # a row without samples is one


def test_samples_are_added_in_the_format_of_partial_sums():
    x = numbers(6, 60)
    want = np.zeros(6, np.float16)
    for start in range(0, 60, 12):
        sums = np.array([eigen(row) for row in x[:, start : start + 12]], np.float64)
        want = (want.astype(np.float64) + sums).astype(np.float16)
    got = total(x, "eigen-runs", layout=Layout(12), partial="fp16", fast=False)
    same(got, want)
    assert (got != total(x, "eigen-runs", layout=Layout(12))).all()


@pytest.mark.parametrize("spatial", [1, 3, 7, 8, 9, 100, 128, 129, 300])
def test_a_channel_is_summed_by_numpy_image_by_image(spatial):
    images = numbers(4, 3, spatial, seed=spatial)
    rows = np.ascontiguousarray(images.transpose(1, 0, 2)).reshape(3, -1)
    same(total(rows, "numpy-runs", layout=Layout(spatial)), images.sum(axis=(0, 2)))


@pytest.mark.parametrize("n", [1, 5, 8, 17, 130, 300])
@pytest.mark.parametrize("order", ["numpy", "numpy-runs"])
def test_numpys_sum_of_negative_zeros_is_positive(order, n):
    x = np.full((2, n), -0.0, np.float32)
    same(total(x, order), x.sum(axis=1))
    assert not np.signbit(total(x, order)).any()


def vectors(x, y, width, rounded):
    """Lanes, a tree, then what is left over, in float16 with products unrounded but for those that are not fused."""
    lanes, whole = [0.0] * width, len(x) // width * width
    for place in range(whole):
        lanes[place % width] = float(np.float16(lanes[place % width] + x[place] * y[place]))
    while whole and len(lanes) > 1:
        h = len(lanes) // 2
        lanes = [float(np.float16(lanes[i] + lanes[i + h])) for i in range(h)]
    out, left = lanes[0], len(x) - whole
    for place in range(whole, len(x)):
        product = x[place] * y[place]
        if rounded and left >= rounded and place < whole + rounded:
            product = float(np.float16(product))
        out = float(np.float16(out + product))
    return out


@pytest.mark.parametrize("rounded", [0, 4])
@pytest.mark.parametrize("width", [4, 8])
def test_vectors_come_before_what_is_left_over(width, rounded):
    rng = np.random.default_rng(width + rounded)
    for n in range(1, 35):
        x, y = (np.float16(1.0 + rng.random((8, n))).astype(np.float64) for _ in range(2))
        want = [vectors(a.tolist(), b.tolist(), width, rounded) for a, b in zip(x, y, strict=True)]
        order = f"vectors({width}, {rounded})" if rounded else f"vectors({width})"
        same(total(x, order, "fp16", y=y), want)


def test_products_of_the_first_elements_left_over_are_rounded_where_there_are_enough():
    squares = np.float64(1 + 2.0**-12) ** 2  # needs 25 bits
    x = np.array([[2.0**-13] + [0.0] * 7 + [1 + 2.0**-12] + [0.0] * 3])
    assert total(x, "vectors(8)", y=x) == np.float32(2.0**-26 + squares)
    assert total(x, "vectors(8, 4)", y=x) == np.float32(2.0**-26 + np.float64(np.float32(squares)))
    assert total(x, "vectors(8)", y=x) != total(x, "vectors(8, 4)", y=x)
    few = x[:, :11]  # three are left over
    assert total(few, "vectors(8)", y=few) == total(few, "vectors(8, 4)", y=few)


@pytest.mark.parametrize("text", ["vectors(8)", "vectors(4)", "vectors(8, 4)", "eigen", "eigen-runs", "numpy-runs"])
def test_library_orders_print_as_they_are_written(text):
    assert str(order_named(text)) == text
    assert order_named(f" {text.upper()} ") == order_named(text)


@pytest.mark.parametrize(
    "text", ["eigen(4)", "eigen-", "-runs", "eigen--runs", "numpy-runs(8)", "vectors(8, 33)", "vectors(1)"]
)
def test_library_orders_take_nothing_else(text):
    with pytest.raises(UsageError, match="order"):
        order_named(text)


def test_a_row_is_a_whole_number_of_samples():
    with pytest.raises(UsageError, match="no whole number of runs of 7"):
        total(numbers(1, 20), "eigen-runs", layout=Layout(7))
