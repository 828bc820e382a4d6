"""`round_to` on all 2**32 float32 inputs: NaN payloads, both zeros and every subnormal included.

Rounding is a step function of the input's bits, so the expected output of a range of consecutive bit patterns is a
few runs of equal values: `np.repeat` writes it at the speed of memory. The steps come from the oracle's codes and
are first compared with numpy float16 and ml_dtypes on all 65536 high halves with the low halves where steps begin.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import oracle
import pytest

from normcheck.arithmetic.rounding import round_to

FORMATS = {
    "float16": (np.float16, "ieee"),
    "bfloat16": (ml_dtypes.bfloat16, "ieee"),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, "nan"),
    "float8_e5m2": (ml_dtypes.float8_e5m2, "ieee"),
}
SIGN, INFINITY, QUIET = np.uint32(1 << 31), 0x7F800000, np.uint32(0x7FC00000)
CHUNK = 1 << 22


def steps(name, mode="nearest-even", *, negative=False):
    """Return the first magnitude bits of each run of equal results, and the results' bits, of one sign."""
    form = oracle.target(name)
    _, policy = FORMATS[name]
    ladder = np.append(form.magnitudes, float(form.beyond))
    index = np.arange(1, len(ladder))
    away = mode == ("down" if negative else "up")
    turn = (ladder[:-1] + ladder[1:]) / 2 if mode == "nearest-even" else ladder[:-1] if away else ladder[1:]
    with np.errstate(over="ignore"):
        first = turn.astype(np.float32)
    assert np.array_equal(first[:-1], turn[:-1])  # the last may be 2**128: no float32 overflows there
    late = index % 2 == 1 if mode == "nearest-even" else np.full(index.shape, away)
    start = first.view(np.uint32) + late.astype(np.uint32)
    over = oracle.round_float(4 * (-ladder[-1] if negative else ladder[-1]), form, mode, policy)
    infinite = oracle.round_float(np.inf, form, mode, policy)
    starts = np.concatenate([[0], start, [INFINITY, INFINITY + 1]]).astype(np.int64)
    values = np.concatenate([ladder[:-1], [abs(over), abs(infinite), np.nan]]).astype(np.float32).view(np.uint32)
    assert (np.diff(starts) >= 0).all()
    return starts, np.where(values > INFINITY, QUIET, values) | SIGN * np.uint32(negative)


def low_halves():
    """Low halves around the places where a step may begin, for any number of dropped bits."""
    powers = np.array([1 << k for k in range(16)])
    return np.unique(
        np.concatenate([powers - 1, powers, powers + 1, 0x10000 - powers, [0x2FFF, 0x3000, 0x3001, 0xFFFF]])
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_steps_are_those_of_the_foreign_casts(name):
    dtype, _ = FORMATS[name]
    high = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    tables = [steps(name, negative=negative) for negative in (False, True)]
    for low in low_halves():
        bits = high | np.uint32(low)
        with np.errstate(all="ignore"):
            foreign = bits.view(np.float32).astype(dtype).astype(np.float32)
        place = [np.searchsorted(starts, bits & ~SIGN, side="right") - 1 for starts, _ in tables]
        expected = np.where(bits < SIGN, tables[0][1][place[0]], tables[1][1][place[1]]).view(np.float32)
        oracle.assert_same(expected, foreign, bits.view(np.float32), label=name)


def count_wrong(name, mode, start, tables):
    """Round the CHUNK bit patterns from `start` on; return how many results are not the expected ones."""
    bits = np.arange(start, start + CHUNK, dtype=np.uint32)
    starts, values = tables[start >> 31]
    edges = np.clip(starts - (start & 0x7FFFFFFF), 0, CHUNK)
    expected = np.repeat(values, np.diff(edges, append=CHUNK))
    got = round_to(bits.view(np.float32), name, rounding=mode, overflow=FORMATS[name][1])
    raw = got.view(np.uint32)
    if np.array_equal(raw, expected):
        return 0
    both_nan = np.isnan(got) & np.isnan(expected.view(np.float32))
    return int(np.count_nonzero((raw != expected) & ~both_nan))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FORMATS)
def test_every_float32(name):
    tables = [steps(name, negative=negative) for negative in (False, True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = pool.map(lambda start: count_wrong(name, "nearest-even", start, tables), range(0, 1 << 32, CHUNK))
        assert sum(wrong) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["toward-zero", "up", "down"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_one_chunk_in_32_in_directed_modes(name, mode):
    tables = [steps(name, mode, negative=negative) for negative in (False, True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        starts = range(0, 1 << 32, 33 * CHUNK)
        wrong = pool.map(lambda start: count_wrong(name, mode, start, tables), starts)
        assert sum(wrong) == 0
