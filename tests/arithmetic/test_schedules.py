"""Orders that are schedules, against slow models written from their descriptions, one pair of numbers at a time."""

from __future__ import annotations

import functools
import itertools
import math
import os
import platform
import subprocess
import sys

import numpy as np
import oracle
import pytest
from oracle import target
from test_sums import EVENTS, Model, overflow_setting, terms

from normcheck.arithmetic import summation as summations
from normcheck.arithmetic.events import FLAG_NAMES, no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.operations import summed
from normcheck.arithmetic.orders import ORDERS, SIMD, Layout, Order, host_lanes, order_named
from normcheck.arithmetic.rounding import Rounding
from normcheck.arithmetic.sum_schedules import SUMS, sum_schedule
from normcheck.errors import UsageError

# ------------------------------------------------------------------------------------------------- the models


def chain(model, x, total=0.0):
    """The terms added one after another to a total."""
    for term in x:
        total = model.add(total, term)
    return total


def halves(model, x):
    """Element i and i + h, h halving, of a power of two of them."""
    while len(x) > 1:
        h = len(x) // 2
        x = [model.add(x[i], x[i + h]) for i in range(h)]
    return x[0]


def cascade_levels(model, x):
    """Four levels, each folded into the next after as many additions as a level takes."""
    size = len(x)
    power = max(4, (math.ceil(math.log2(size)) if size > 1 else 0) // 4)
    levels, done = [0.0] * 4, 0
    while done + 2**power <= size:
        levels[0] = chain(model, x[done : done + 2**power], levels[0])
        done += 2**power
        for level in (1, 2, 3):
            levels[level], levels[level - 1] = model.add(levels[level], levels[level - 1]), 0.0
            if (done >> (level * power)) % 2**power:
                break
    levels[0] = chain(model, x[done:], levels[0])
    return chain(model, levels[1:], levels[0])


def cascade_row(model, x):
    rows = len(x) // 4
    sums = [cascade_levels(model, x[row : 4 * rows : 4]) for row in range(4)]
    sums[0] = chain(model, x[4 * rows :], sums[0])
    return chain(model, sums[1:], sums[0])


def cascade(model, x, width):
    if len(x) < width:
        return model.add(0.0, cascade_row(model, x))
    whole = len(x) // width * width
    lanes = [cascade_row(model, x[lane:whole:width]) for lane in range(width)]
    return chain(model, lanes, chain(model, x[whole:]))


def numpy_pairwise(model, x, *, first=True):
    if len(x) < 8:
        return chain(model, x)
    if len(x) > 128:
        half = len(x) // 2 // 8 * 8
        return model.add(numpy_pairwise(model, x[:half], first=first), numpy_pairwise(model, x[half:], first=False))
    whole = len(x) // 8 * 8
    r = [chain(model, x[k:whole:8]) if first else chain(model, x[k + 8 : whole : 8], x[k]) for k in range(8)]
    a, b = (model.add(model.add(r[k], r[k + 1]), model.add(r[k + 2], r[k + 3])) for k in (0, 4))
    return chain(model, x[whole:], model.add(a, b))


def runs(model, x, width, run):
    lanes, scalar = [0.0] * width, 0.0
    for start in range(0, len(x), run):
        sample = x[start : start + run]
        whole = run // (2 * width) * 2 * width
        for place in range(whole):
            lanes[place % width] = model.add(lanes[place % width], sample[place])
        scalar = chain(model, sample[whole:], scalar)
    return model.add(scalar, chain(model, lanes[1:], lanes[0]))


def vertical(model, x, width, run, *, paired):
    channels = len(x) // run
    lanes = [0.0] * width
    for position in range(run):
        row = [x[channel * run + position] for channel in range(channels)]
        for start in range(0, channels, width * (1 + paired)):
            for lane, low in enumerate(row[start : start + width]):
                high = start + width + lane
                term = model.add(low, row[high]) if paired and high < channels else low
                lanes[lane] = model.add(lanes[lane], term)
    return halves(model, lanes)


def channels(model, x, run, threads):
    share = -(-run // min(threads, run))
    parts = []
    for channel in range(len(x) // run):
        row = x[channel * run : (channel + 1) * run]
        parts += [chain(model, row[start : start + share]) for start in range(0, run, share)]
    return chain(model, parts[1:], parts[0])


def by_threads(model, x, threads, vector):
    sums = [0.0] * threads
    for place, term in enumerate(x):
        sums[place // vector % threads] = model.add(sums[place // vector % threads], term)
    return sums


def block(model, x, threads, vector):
    sums = by_threads(model, x, threads, vector)
    warps = [halves(model, sums[start : start + 32]) for start in range(0, threads, 32)]
    return halves(model, warps)


def cub(model, x, threads, vector):
    sums, warps = by_threads(model, x, threads, vector), []
    for start in range(0, threads, 32):
        lanes = sums[start : start + 32]
        while len(lanes) > 1:
            lanes = [model.add(lanes[i], lanes[i + 1]) for i in range(0, len(lanes), 2)]
        warps += lanes
    return chain(model, warps[1:], warps[0])


def split_squares(model, x):
    return chain(model, [x[1], x[0], *x[2:]] if 1 < len(x) <= 32 else x)


def threads_of_one_format(model, x, threads):
    share = len(x) if len(x) <= threads else -(-len(x) // threads)
    parts = [chain(model, x[start : start + share]) for start in range(0, len(x), share)]
    return chain(model, parts[1:], parts[0])


def ynn_column(model, x):
    """Blocks of 256 out of groups of 16 out of chains of 4."""
    blocks = [x[at : at + 256] for at in range(0, len(x), 256)]
    sums = []
    for block in blocks:
        groups = [block[at : at + 16] for at in range(0, len(block), 16)]
        sums.append(chain(model, [chain(model, fours(model, group)) for group in groups]))
    return compensated(model, sums, whole=len(x) % 256 == 0)


def fours(model, x):
    return [chain(model, x[at : at + 4]) for at in range(0, len(x), 4)]


def ynn_row(model, x, width):
    """Lane by lane as a column, of blocks of 64 vectors; chains of a group that is not whole go into the block."""
    lanes = min(width, len(x))
    totals = [
        compensated(model, blocks_of_lane(model, x, width, lane), len(x) % (64 * width) == 0) for lane in range(lanes)
    ]
    return model.tree(totals)


def blocks_of_lane(model, x, width, lane):
    sums = []
    for start in range(0, len(x), 64 * width):
        block, total = x[start : start + 64 * width], 0.0
        for at in range(0, len(block), 16 * width):
            group = block[at : at + 16 * width]
            chains = [chain(model, group[k + lane : k + 4 * width : width]) for k in range(0, len(group), 4 * width)]
            total = chain(model, [chain(model, chains)] if len(group) == 16 * width else chains, total)
        sums.append(total)
    return sums


def compensated(model, sums, whole):
    """Kahan's sum of blocks; a last one that is not whole enters with the compensation, which is then spent."""
    total = compensation = 0.0
    for block in sums if whole else sums[:-1]:
        y = model.operate("subtract", block, compensation)
        after = model.operate("add", total, y)
        left = model.operate("subtract", model.operate("subtract", after, total), y)
        same = after == total and left == compensation
        model.counts["absorbed"] += block != 0 and same and math.isfinite(total)
        total, compensation = after, left if math.isfinite(after) else 0.0
    if whole:
        return less(model, total, compensation)
    return model.add(total, less(model, sums[-1], compensation) if len(sums) > 1 else sums[-1])


def less(model, total, term):
    """A subtraction that counts as an addition of the negative term."""
    return model.add(total, -term)


def ynn_group(model, x, width, run):
    """Position by position; a group of one channel is a column."""
    if len(x) == run:
        return ynn_column(model, x)
    return chain(model, [ynn_row(model, x[position::run], width) for position in range(run)])


_LAST = functools.partial(Layout, channels_last=True)
CASES = {
    "cascade(4)": (lambda m, x: cascade(m, x, 4), Layout(), (1, 3, 4, 5, 31, 64, 67, 260, 1100)),
    "cascade(1)": (lambda m, x: cascade(m, x, 1), Layout(), (1, 3, 4, 67, 300)),
    "numpy": (numpy_pairwise, Layout(), (1, 7, 8, 9, 15, 64, 127, 128, 129, 130, 300, 521)),
    "runs(4)": (lambda m, x: runs(m, x, 4, 11), Layout(run=11), (11, 22, 55)),
    "threads": (lambda m, x: threads_of_one_format(m, x, 3), Layout(threads=3), (1, 3, 4, 5, 10, 31)),
    "vertical(4)": (lambda m, x: vertical(m, x, 4, 5, paired=False), _LAST(5), (5, 10, 35, 60)),
    "vertical(4, 2)": (lambda m, x: vertical(m, x, 4, 3, paired=True), _LAST(3), (3, 12, 18, 45, 57)),
    "channels": (lambda m, x: channels(m, x, 10, 4), _LAST(10, threads=4), (10, 20, 50)),
    "block(64, 4)": (lambda m, x: block(m, x, 64, 4), Layout(), (1, 4, 63, 256, 700)),
    "block(16)": (lambda m, x: block(m, x, 16, 1), Layout(), (1, 15, 33, 70)),
    "cub(64, 2)": (lambda m, x: cub(m, x, 64, 2), Layout(), (1, 63, 129, 300)),
    "cub(8)": (lambda m, x: cub(m, x, 8, 1), Layout(), (1, 8, 33)),
    "ynn-rows(2)": (lambda m, x: ynn_row(m, x, 2), Layout(), (1, 9, 32, 33, 128, 300, 512)),
    "ynn-rows(16)": (lambda m, x: ynn_row(m, x, 16), Layout(), (5, 255, 256, 1023, 1024, 1100)),
    "ynn-columns": (ynn_column, Layout(), (1, 5, 16, 63, 255, 256, 257, 600)),
    "ynn-groups(4)": (lambda m, x: ynn_group(m, x, 4, 3), _LAST(3), (3, 6, 30, 240, 810)),
    "split": (chain, Layout(), (1, 2, 9)),
    "split-squares": (split_squares, Layout(), (1, 2, 3, 32, 33)),
}
SETTINGS = (("float16", {}), ("float32", {}), ("float8_e5m2", {"rounding": "down"}), ("bfloat16", {"ftz": True}))


def total(x, order, name, layout, *, parts=(), fast=None, y=None, partial=None, **settings):
    """The sums as the engine makes them, and their events."""
    form, events = format_named(name), no_events(len(x))
    renamed = {("mode" if key == "rounding" else key): value for key, value in settings.items()}
    quick = not settings.get("ftz") and settings.get("rounding") is None if fast is None else fast
    out = summations.summation(
        len(x), x.shape[1], order_named(order), form, Rounding(**renamed), events, fast=quick, layout=layout,
        partial=None if partial is None else format_named(partial),
    )  # fmt: skip
    bounds = [0, *parts, x.shape[1]]
    for start, stop in itertools.pairwise(bounds):
        out.add(x[:, start:stop], None if y is None else y[:, start:stop])
    return out.finish()[:, 0], events, out.result_form.name


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
@pytest.mark.parametrize("order", CASES)
def test_scheduled_sums_and_their_events_are_the_models(order, name, settings):
    rule, layout, lengths = CASES[order]
    form, rng = target(name), np.random.default_rng(90)
    settings = overflow_setting(name, settings)
    for index, n in enumerate(lengths):
        kind = ("normal", "positive", "wild", "tiny", "huge", "sparse")[index % 6]
        x = terms(form, rng, 2, n, kind)
        models = [Model(form, settings) for _ in x]
        expected = [rule(model, row) for model, row in zip(models, x.tolist(), strict=True)]
        result, events, _ = total(x, order, name, layout, **settings)
        label = f"{order} {name} {kind} n={n}"
        oracle.assert_same(result, expected, label=label)
        if not order.startswith(("numpy", "vertical(4, 2)")):  # those load terms, which is no operation
            counts = {event: getattr(events, event) for event in EVENTS}
            assert counts == {event: sum(model.counts[event] for model in models) for event in EVENTS}, label
            for event in FLAG_NAMES:
                affected = [bool(model.counts[event]) for model in models]
                assert ((events.flags & FLAG_NAMES[event]) > 0).tolist() == affected, (label, event)


@pytest.mark.parametrize("order", CASES)
def test_a_row_in_parts_has_the_sum_of_the_whole(order):
    _, layout, lengths = CASES[order]
    n = max(lengths)
    x = terms(target("float16"), np.random.default_rng(91), 3, n, "wild")
    whole = total(x, order, "float16", layout)
    parts = sorted({1, n // 3, n // 2, n - 1} - {0, n})
    again = total(x, order, "float16", layout, parts=parts)
    oracle.assert_same(again[0], whole[0].tolist(), label=order)
    assert [getattr(again[1], event) for event in EVENTS] == [getattr(whole[1], event) for event in EVENTS]
    assert again[1].lost_mass == whole[1].lost_mass


@pytest.mark.parametrize("order", CASES)
def test_the_kernel_of_many_rows_and_that_of_any_format_agree(order):
    _, layout, lengths = CASES[order]
    form = target("float16")
    for kind in ("normal", "huge", "tiny"):
        x = terms(form, np.random.default_rng(92), 130, max(lengths), kind)
        x[5, 0], x[6, 0], x[7, :] = np.inf, np.nan, 0.0
        quick, slow = (total(x, order, "float16", layout, fast=fast) for fast in (True, False))
        oracle.assert_same(quick[0], slow[0].tolist(), label=f"{order} {kind}")
        assert [getattr(quick[1], event) for event in EVENTS] == [getattr(slow[1], event) for event in EVENTS], kind
        assert quick[1].flags.tolist() == slow[1].flags.tolist()
        assert quick[1].extremes.tolist() == slow[1].extremes.tolist()


def test_products_enter_a_schedule_by_fused_multiply_add():
    form, rng = target("float16"), np.random.default_rng(93)
    x, y = terms(form, rng, 2, 40, "normal"), terms(form, rng, 2, 40, "normal")
    for order in ("cub(8)", "cascade(4)", "split"):
        model = Model(form, {})
        model.add = lambda whole, term, model=model: (
            model.operate("fma", *term, whole) if isinstance(term, tuple) else Model.add(model, whole, term)
        )
        rule, layout, _ = CASES[order]
        expected = [rule(model, list(zip(a, b, strict=True))) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        result, _, _ = total(x, order, "float16", layout, y=y)
        oracle.assert_same(result, expected, label=order)


def test_partial_sums_are_added_in_their_own_format():
    x = np.full((1, 48), 1.0 + 2.0**-10)
    result, events, form = total(x, "threads", "float16", Layout(threads=3), partial="float32")
    share = 16.015625  # of 16 terms in float16
    assert (result[0], form, events.operations) == (3 * share, "float32", 50)
    result, _, form = total(x[:, :44], "steps(8)", "float16", Layout(), partial="float64")
    assert (result[0], form) == (5 * 8.0078125 + 4 * (1.0 + 2.0**-10), "float64")
    result, _, form = total(x, "threads", "float16", Layout(threads=1), partial="float32")
    assert form == "float16"  # of one thread's sum there is nothing to merge


def test_rows_that_are_visited_position_by_position():
    x = terms(target("float16"), np.random.default_rng(94), 2, 60, "wild")
    by_position = x.reshape(2, 12, 5).transpose(0, 2, 1).reshape(2, 60)
    laid = Layout(5, channels_last=True)
    for order in ("sequential", "lanes(8, serial)", "tree", "cascade(4)", "kahan"):
        turned, events, _ = total(x, order, "float16", laid, parts=(16,))
        plain, seen, _ = total(by_position, order, "float16", Layout())
        assert turned.tolist() == plain.tolist()
        assert events.lost_mass == seen.lost_mass


def test_a_long_schedule_of_many_pieces():
    n = 1 << 16
    x = np.ones((1, n))
    x[0, 0] = 2.0**24
    assert total(x, "split", "float32", Layout())[0][0] == 2.0**24 + n - 256  # the first of 256 pieces absorbs its 255
    assert sum_schedule(n, Order("split"), Layout()).accumulators == 256


# ---------------------------------------------------------------------------------------------- text and widths


@pytest.mark.parametrize("kind", ORDERS)
def test_an_orders_text_is_read_back(kind):
    order = order_named(kind)
    assert order_named(str(order)) == order
    assert order.kind == kind


@pytest.mark.parametrize(
    "text", ["block(128, 4)", "ynn-rows(16)", "vertical(8, 2, serial)", "rowwise(simd, 2)", "cascade(simd)"]
)
def test_arguments_survive_the_text(text):
    assert str(order_named(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cascade(8, 3)", "vector must be from 1 to 2"),
        ("block(100)", "power of two"),
        ("ynn-rows(1)", "from 2 to 4096"),
        ("cascade(0)", "from 1 to 4096"),
        ("ynn-columns(8)", "takes no arguments"),
        ("numpy(8)", "takes no arguments"),
        ("threads(serial)", "takes no arguments"),
        ("cascade(8, tree)", "takes a width, a vector, and no more"),
        ("rowwise(x)", "received 'x'"),
        ("block(8192)", "from 2 to 4096"),
        ("rowise", "unknown order"),
    ],
)
def test_what_an_order_cannot_take_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        order_named(text)


def test_an_order_of_moments_adds_no_terms():
    with pytest.raises(UsageError, match=r"rowwise.*online moments"):
        summed(np.ones((1, 4)), format="fp32", order="rowwise(8)")
    assert set(SUMS) | {"rowwise"} | {"pairwise", "lanes", "tree", "blocks", "kahan"} == set(ORDERS)


def test_rows_of_broken_runs_are_refused():
    with pytest.raises(UsageError, match="10 elements are no whole number of runs of 4"):
        total(np.ones((1, 10)), "vertical(8)", "float32", Layout(4, channels_last=True))


def test_the_hosts_lanes_stand_for_simd():
    assert order_named("lanes(simd)").resolved(4) == Order("lanes", 4)
    assert order_named("lanes(simd)").resolved() == Order("lanes", host_lanes())
    assert order_named("lanes(3)").resolved(4) == Order("lanes", 3)
    assert order_named("cascade").resolved(16) == Order("cascade", 8)  # torch builds these for AVX2
    assert order_named("rowwise(16)").resolved(4) == Order("rowwise", 16)
    assert Order("steps", SIMD).resolved(16) == Order("steps", 16)


@pytest.mark.parametrize(("asked", "lanes"), [("avx2", "8"), ("default", "8"), ("avx512", "16")])
def test_the_hosts_lanes_are_as_torch_is_told_and_cost_no_import_of_it(asked, lanes):
    script = (
        "import sys; from normcheck.arithmetic.orders import host_lanes; lanes = host_lanes();"
        "print(lanes, 'torch' in sys.modules, 'numba' in sys.modules)"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": asked}
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    expected = "4" if platform.machine().lower() in {"arm64", "aarch64"} else lanes
    assert out.stdout.split() == [expected, "False", "False"]
