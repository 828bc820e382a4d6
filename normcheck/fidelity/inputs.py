"""Inputs for kernels: sizes around every vector and chunk boundary, and the numbers that kernels disagree on.

A trial is a function of the seed, the kernel and its index alone.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.emulate import arranged
from normcheck.arithmetic.formats import FLOAT32, format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.fidelity.kernel import Trial
from normcheck.norms.table import grouping, norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.arithmetic.formats import Format
    from normcheck.fidelity.kernel import Affine, Kernel
    from normcheck.norms.implementations import Implementation

Array = np.ndarray[Any, np.dtype[Any]]
Generator = np.random.Generator

WIDTHS = (
    *(1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65, 100, 127, 128, 129, 191, 255, 256, 257),
    *(300, 384, 511, 512, 513, 640, 768, 1000, 1023, 1024, 1025, 1536, 2047, 2048, 2049, 3001, 4095, 4096, 4097, 5000),
)
"""Elements of a row: around multiples of vectors of 4, 8 and 16 numbers, and of 16 such vectors."""

SPATIAL = (
    *((1, 1), (1, 2), (1, 3), (2, 2), (1, 5), (7, 1), (2, 4), (3, 3), (3, 5), (4, 4), (17, 1), (4, 6), (1, 31)),
    *((4, 8), (3, 11), (7, 7), (7, 9), (8, 8), (5, 13), (10, 10), (127, 1), (8, 16), (3, 43), (14, 14), (15, 17)),
    *((16, 16), (257, 1), (7, 73), (16, 32), (19, 27), (28, 28), (25, 40), (31, 33), (32, 32), (25, 41), (23, 89)),
    *((32, 64), (3, 683), (56, 56), (17, 241)),
)
"""Heights and widths of images: the same boundaries, and 1024, from which torch takes another kernel."""

CHANNELS = (
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    12,
    15,
    16,
    17,
    20,
    24,
    31,
    32,
    33,
    48,
    63,
    64,
    65,
    80,
    96,
    100,
    128,
    129,
    160,
    256,
)
LARGEST = 1 << 19
"""Elements of a trial: what bounds the memory."""
COMPILED = 60
"""Trials of a kernel that is compiled for each shape."""


@dataclass(frozen=True, slots=True)
class Named:
    """A trial, and which family its numbers are of."""

    family: str
    trial: Trial


# ------------------------------------------------------------------------------------------- families of numbers


def _normal(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Mean 0, deviation 1."""
    return rng.standard_normal((rows, size))


def _scaled(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Each row of its own scale, from 2^-8 to 2^8, and a small mean."""
    scale = np.exp2(rng.uniform(-8, 8, (rows, 1)))
    return (rng.standard_normal((rows, size)) + rng.normal(0, 1, (rows, 1))) * scale


def _large_mean(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Rows of deviation 1 whose mean is 10, 30, 100, 300, 1000, 3000 or -10000."""
    mean = rng.choice([10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, -1e4], (rows, 1))
    out: Array = rng.standard_normal((rows, size)) + mean
    return out


def _outliers(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """One element in a thousand is a hundred times as large."""
    x = rng.standard_normal((rows, size))
    out: Array = np.where(rng.random((rows, size)) < 1e-3, 100.0 * x, x)
    return out


def _heavy(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Student's t distribution with two degrees of freedom."""
    return rng.standard_t(2, (rows, size))


def _whole(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Small whole numbers: sums are exact, quotients and roots often ties."""
    return rng.integers(-4, 5, (rows, size)).astype(np.float64)


def _tiny(rng: Generator, rows: int, size: int, io: Format) -> Array:
    """Subnormal numbers, and some normal ones just above."""
    return rng.standard_normal((rows, size)) * io.min_normal * np.exp2(rng.uniform(-6, 4, (rows, 1)))


def _huge(rng: Generator, rows: int, size: int, io: Format) -> Array:
    """Rows of which the largest possible magnitude is the format's, or up to 2^11 times smaller."""
    return rng.uniform(-1, 1, (rows, size)) * io.max_finite * np.exp2(-rng.integers(0, 12, (rows, 1)))


def _boundary(rng: Generator, rows: int, size: int, io: Format) -> Array:
    """Powers of two near 1 or of the whole range, or the largest, the smallest normal and the smallest number."""
    low, high = math.log2(io.min_subnormal), math.floor(math.log2(io.max_finite))
    middle = np.exp2(rng.integers(-8, 9, (rows, size)).astype(np.float64))
    wide = np.exp2(rng.integers(int(low), high + 1, (rows, size)).astype(np.float64))
    ends = rng.choice([io.max_finite, io.min_normal, io.min_subnormal, 1.0], (rows, size))
    kind = rng.integers(0, 3, (rows, 1))
    out: Array = np.where(kind == 0, middle, np.where(kind == 1, wide, ends))
    signed: Array = out * rng.choice([-1.0, 1.0], (rows, size))
    return signed


def _nonfinite(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Rows of which half hold infinities or NaN."""
    x = rng.standard_normal((rows, size))
    special = rng.choice([np.inf, -np.inf, np.nan], (rows, size))
    there = (rng.random((rows, size)) < 2.0 / size) & (rng.random((rows, 1)) < 0.5)
    out: Array = np.where(there, special, x)
    return out


def _constant(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Rows of one number; in half of them about one element is larger by a thousandth."""
    value = rng.choice([0.1, 1.0, 527.0, 1e3, -3e3], (rows, 1)) * rng.uniform(0.5, 2, (rows, 1))
    nearly = value * (1 + 1e-3 * (rng.random((rows, size)) < 1.0 / size))
    return np.where(rng.random((rows, 1)) < 0.5, value, nearly)


def _zeros(rng: Generator, rows: int, size: int, _io: Format) -> Array:
    """Zeros of both signs; in half of the rows some elements are not 0."""
    zero = rng.choice([0.0, -0.0], (rows, size))
    some = (rng.random((rows, size)) < 0.1) & (rng.random((rows, 1)) < 0.5)
    return np.where(some, rng.standard_normal((rows, size)), zero)


FAMILIES: dict[str, Callable[[Generator, int, int, Format], Array]] = {
    "normal": _normal,
    "scaled rows": _scaled,
    "large mean": _large_mean,
    "outliers": _outliers,
    "heavy tails": _heavy,
    "whole numbers": _whole,
    "subnormal": _tiny,
    "near the limit": _huge,
    "boundary values": _boundary,
    "infinities and NaN": _nonfinite,
    "constant rows": _constant,
    "zeros": _zeros,
}
"""(generator, rows, elements of a row, io format) -> numbers, rounded to the format afterwards."""


# --------------------------------------------------------------------------------------------------------- trials


def trials(kernel: Kernel, how: Implementation, outputs: int, seed: int) -> Iterator[Named]:
    """Yield trials of at least so many outputs together; each pair of size and family comes about once.

    Of kernels that are compiled for each shape, as many pairs come as there are `COMPILED` trials.
    """
    rng = np.random.default_rng([seed, zlib.crc32(_told(kernel).encode())])
    sizes = range(len(WIDTHS if kernel.shapes == "rows" else SPATIAL))
    pairs = [(size, family) for size in sizes for family in FAMILIES if _taken(kernel, how, size)]
    if not pairs:
        return
    wanted = COMPILED if kernel.compiled else len(pairs)
    budget = min(max(outputs // wanted, 1024), LARGEST // 4)
    done = misses = 0
    while done < outputs and misses < len(pairs):
        for index in rng.permutation(len(pairs)):
            size, family = pairs[index]
            found = _trial(kernel, how, rng, size, family, int(budget * np.exp2(rng.uniform(-2, 1.6))))
            misses = misses + 1 if found is None else 0
            if found is not None:
                done += found.x.size
                yield Named(family, found)
            if done >= outputs:
                return


def _told(kernel: Kernel) -> str:
    """What tells a kernel from others."""
    k = kernel
    return f"{k.implementation} {k.norm} {k.precision} {k.params} {k.mode} {k.variant}"


def _taken(kernel: Kernel, how: Implementation, size: int) -> bool:
    """Whether the row is for kernels of that size."""
    spatial = 1 if kernel.shapes == "rows" else math.prod(SPATIAL[size])
    width = WIDTHS[size] if kernel.shapes == "rows" else how.multiple_of
    return (
        width % how.multiple_of == 0
        and spatial >= how.spatial_from
        and (not how.spatial_below or spatial < how.spatial_below)
    )


def _trial(kernel: Kernel, how: Implementation, rng: Generator, size: int, family: str, budget: int) -> Trial | None:
    """One call: a shape of about `budget` elements that the kernel takes, and numbers of the family."""
    norm, io = norm_named(kernel.norm), format_named(kernel.precision)
    shape, groups = _shape(kernel, rng, size, budget)
    group = grouping(norm, shape, groups)
    param = FLOAT32 if kernel.params == "float32" else io
    if not how.defines(norm, io, param, group, kernel.mode):
        return None
    if kernel.fits is not None and not kernel.fits(shape, groups):
        return None
    if kernel.mode == "train" and norm.where in ("batch", "instance") and group.size == 1:
        return None  # torch refuses one value a channel in training
    rows = FAMILIES[family](rng, group.groups, group.size, io)
    residual = None
    if kernel.residual:
        residual = _stored(rng.standard_normal(shape) * np.exp2(rng.uniform(-3, 3)), io)
    affine: Affine = kernel.affine[int(rng.integers(len(kernel.affine)))]
    running = _running(rng, group.channels, param, family) if _has_running(kernel, rng) else (None, None)
    return Trial(
        x=arranged(_stored(rows, io), group, shape),
        eps=float(kernel.eps[int(rng.integers(len(kernel.eps)))]),
        weight=_gamma(rng, group.channels, param) if affine in ("weight", "both") else None,
        bias=_stored(rng.standard_normal(group.channels), param) if affine in ("bias", "both") else None,
        num_groups=groups,
        residual=residual,
        running_mean=running[0],
        running_var=running[1],
        threads=int(kernel.threads[int(rng.integers(len(kernel.threads)))]),
    )


def _shape(kernel: Kernel, rng: Generator, size: int, budget: int) -> tuple[tuple[int, ...], int | None]:
    """A shape of about so many elements with the size of that index, and the number of groups of group norms."""
    if kernel.shapes == "rows":
        width = WIDTHS[size]
        return (max(1, min(budget, LARGEST) // width), width), None
    height, width = SPATIAL[size]
    fitting = [c for c in CHANNELS if c * height * width <= max(2 * budget, 4096)] or [CHANNELS[0]]
    channels = int(rng.choice(fitting))
    batch = int(rng.integers(1, 2 + max(0, budget // (channels * height * width))))
    groups = None
    if norm_named(kernel.norm).where == "group":
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    return (batch, channels, height, width), groups


def _has_running(kernel: Kernel, rng: Generator) -> bool:
    return kernel.mode == "eval" or (kernel.running and rng.random() < 0.5)


def _running(rng: Generator, channels: int, param: Format, family: str) -> tuple[Array, Array]:
    """Running means and variances as an earlier batch of the family may have left them."""
    mean = rng.standard_normal(channels) * (100.0 if family == "large mean" else 1.0)
    variance = np.exp2(rng.uniform(-12, 6, channels))
    variance[rng.random(channels) < 0.05] = 0.0
    return _stored(mean, param), _stored(variance, param)


def _gamma(rng: Generator, channels: int, param: Format) -> Array:
    """Gains as trained nets have them: around 1, some large, small, negative or 0."""
    gamma = 1.0 + 0.5 * rng.standard_normal(channels)
    gamma[rng.random(channels) < 0.02] = 0.0
    gamma[rng.random(channels) < 0.02] *= 64.0
    return _stored(gamma, param)


def _stored(x: Array, form: Format) -> Array:
    """The numbers rounded to a format, without overflow, as float32."""
    finite = np.clip(x, -form.max_finite, form.max_finite)
    with np.errstate(all="ignore"):
        rounded: Array = round_to(np.where(np.isinf(x), x, finite), form).astype(np.float32)
    return rounded
