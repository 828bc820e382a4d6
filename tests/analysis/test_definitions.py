"""Every definition of docs/numerics.md, on cases worked out by hand, and recomputed in plain numpy."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from normcheck import emulate, simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis.assemble import Labels, assemble
from normcheck.analysis.study import BLOCK, Runner, Study
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import Order
from normcheck.arithmetic.rounding import Rounding
from normcheck.norms.constants import constant, effective_k
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.parameters import Parameters, storage_named
from normcheck.norms.table import grouping, norm_named
from normcheck.results import Rows, Tally

sys.path.append(str(Path(__file__).resolve().parents[1] / "arithmetic"))
import oracle  # lives beside the tests of arithmetic

PURE = IMPLEMENTATIONS["pure"]
SEQUENTIAL = IMPLEMENTATIONS["pure-sequential"]
FIGURES = (
    "max_abs", "mean_abs", "rms", "relative_rms", "max_ulp", "mean_ulp", "sqnr_db", "gain", "gain_sd", "offset",
    "noise",
)  # fmt: skip
GOOD = Rows(total=1, nonfinite=0, collapsed=0, amplified=0, shrunk=0)


@pytest.fixture(autouse=True)
def _no_search(monkeypatch):
    """The safe scale has tests of its own; without the search for it a result takes milliseconds."""
    monkeypatch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)


@dataclass(frozen=True)
class Given:
    """Rows as a source."""

    rows: np.ndarray

    def draw(self, _grouping, row_start, row_stop, start, stop):
        return self.rows[row_start:row_stop, start:stop]


def assess(
    rows, name="layer-l2", how=PURE, precision="fp16", *, eps=1e-5, weight=None, bias=None, running=None, params="half",
    kind="exact", k=10, assumed=False, mode="train", **rounding,
):  # fmt: skip
    """Return the result, and its findings, of a norm on rows (for batch norms, one row is one channel)."""
    rows = np.asarray(rows)
    rows = rows if rows.dtype == np.float32 else rows.astype(np.float64)
    norm, io, rounds = norm_named(name), format_named(precision), Rounding(**rounding)
    shape = rows.shape if norm.where != "batch" else (1, *rows.shape)
    group = grouping(norm, shape)
    vectors = [None if v is None else np.asarray(v, np.float64) for v in (weight, bias, *(running or (None, None)))]
    given = Parameters(*vectors)
    stored = given.cast(storage_named(params), io, rounds)
    k = effective_k(group.size, k) if norm.statistic.name == "topk" else 1
    scale = constant(norm.statistic.name, kind, group.size, k) if norm.has_constant else 1.0
    runner = Runner(how, how.machine(io, stored.form or io, rounds))
    study = Study(norm, group, io, Given(rows), eps, scale, k, given, stored, (runner,))
    has_constant = kind if norm.has_constant else None
    labels = Labels(None, io.label, mode, params, has_constant, k, "option", "rows of a test", assumed)
    ((result, findings, _),) = assemble(study, labels, rounds, jobs=1)
    return result, findings


def result_of(*args, **settings):
    return assess(*args, **settings)[0]


def step(result, name):
    return next(s for s in result.steps if s.step == name)


def counts(rows):
    return (rows.nonfinite, rows.collapsed, rows.amplified, rows.shrunk)


# ------------------------------------------------------------------------------------------------ row classes


def test_a_good_row():
    result = result_of([[1.0, -1.0, 2.0, -2.0]])
    assert result.rows == GOOD
    assert result.worst_rows == ()
    assert result.verdict == "ok"


def test_collapsed_by_an_infinite_statistic():
    # 300^2 = 90000 is beyond 65504: the variance is infinite, its reciprocal root 0, and every element 0
    result = result_of([[1.0, -1.0, 2.0, -2.0], [300.0, -300.0, 300.0, -300.0]])
    assert counts(result.rows) == (0, 1, 0, 0)
    (worst,) = result.worst_rows
    assert (worst.index, worst.kind, worst.s_emulated, worst.first_bad_step) == (1, "collapsed", math.inf, "square")
    assert worst.s == pytest.approx(math.sqrt(90000 + 1e-5), rel=1e-15)
    assert result.verdict == "unsafe"


def test_collapsed_is_to_be_equal_to_beta():
    weight, bias = [1.0, 2.0, 0.5, 1.0], [0.1, -3.0, 1000.25, 0.0]
    x = np.array([[300.0, -300.0, 300.0, -300.0]], np.float32)
    got = emulate(x, "layer-l2", precision="fp16", weight=weight, bias=bias)
    assert got.output[0].tolist() == np.float16(bias).tolist()
    assert counts(got.rows) == (0, 1, 0, 0)
    channels = emulate(x.reshape(4, 1), "batch-l2", precision="fp16", weight=[2.0], bias=[0.1])
    assert counts(channels.rows) == (0, 1, 0, 0)


def test_not_collapsed_where_beta_is_right():
    constant_row = np.full((1, 4), 3.0, np.float32)
    assert emulate(constant_row, "layer-l2", precision="fp16", bias=[1.0] * 4).rows == GOOD
    assert result_of(constant_row).rows == GOOD
    # gamma = 0: beta is right again; but the statistic is more than twice what it should be
    x = np.array([[300.0, -300.0]], np.float32)
    assert counts(emulate(x, "layer-l2", precision="fp16", weight=[0.0, 0.0], bias=[1.0, 1.0]).rows) == (0, 0, 0, 1)


def test_collapsed_by_a_reciprocal_that_is_flushed():
    # s = sqrt(pi / 2) 20000 = 25066, finite; 1 / s = 3.99e-5 lies below 2^-14 = 6.10e-5
    row = [[20000.0, -20000.0]]
    assert result_of(row, "layer-l1").rows == GOOD  # a subnormal reciprocal
    result = result_of(row, "layer-l1", ftz=True)
    assert counts(result.rows) == (0, 1, 0, 0)
    (worst,) = result.worst_rows
    assert worst.first_bad_step == "reciprocal"
    assert worst.s_emulated == pytest.approx(25066, rel=1e-3)
    assert worst.s == pytest.approx(25066.28, rel=1e-6)
    assert sum(s.overflow for s in result.steps) == 0


def test_collapsed_by_a_reciprocal_below_half_of_the_smallest_number():
    # float4: max |x| = 6, C = 0.886 becomes 1, eps 0; 1 / 6 is below half of 0.5
    result = result_of([[6.0, -6.0]], "layer-linf-uncentred", precision="float4_e2m1fn")
    assert counts(result.rows) == (0, 1, 0, 0)
    (worst,) = result.worst_rows
    assert (worst.s_emulated, worst.first_bad_step) == (6.0, "reciprocal")
    assert step(result, "reciprocal").underflow == 1


def test_amplified():
    # (1.2e-3)^2 = 1.44e-6, divided by 64 before it is added: below 2^-25, so the variance is 0 and s the root of eps
    row = np.float16(1.2e-3) * np.array([[1.0, -1.0] * 32])
    result = result_of(row, how=IMPLEMENTATIONS["pure-scaled"], eps=2.0**-24)
    assert counts(result.rows) == (0, 0, 1, 0)
    (worst,) = result.worst_rows
    assert worst.s_emulated == pytest.approx(2.0**-12, rel=1e-3)
    assert worst.s == pytest.approx(math.hypot(float(np.float16(1.2e-3)), 2.0**-12), rel=1e-12)
    assert worst.first_bad_step == "sum"
    assert result.statistic.flushed_rows == 1
    assert step(result, "sum").underflow == 64


def test_shrunk():
    result = result_of([[0.125, -0.125], [1.0, -1.0]], how=replace(PURE, eps_min=0.25))
    assert counts(result.rows) == (0, 0, 0, 1)  # sqrt(1/64 + 1/4) is over twice 1/8; sqrt(5/4) is not twice 1
    (worst,) = result.worst_rows
    assert (worst.index, worst.kind, worst.first_bad_step) == (0, "shrunk", None)
    assert worst.s_emulated == pytest.approx(math.sqrt(17 / 64), rel=1e-3)


def test_half_and_twice_are_allowed():
    # the clamp makes s exactly 2 where it should be 1; and 1 + 3 units more is too much
    assert result_of([[1.0, -1.0]], eps=0.0, how=replace(PURE, eps_min=3.0)).rows == GOOD
    assert counts(result_of([[1.0, -1.0]], eps=0.0, how=replace(PURE, eps_min=3.0625)).rows) == (0, 0, 0, 1)
    # running statistics as cast: the variance 4 as given, the one stored 1 (half of 2) and a little less than that
    coarse = replace(PURE, eps="float32")
    for stored, kinds in ((1.0, (0, 0, 0, 0)), (0.99, (0, 0, 1, 0))):
        eval_rows = {"eps": 0.0, "running": ([0.0], [4.0]), "mode": "eval"}
        result = with_stored_variance(stored, coarse, **eval_rows)
        assert counts(result.rows) == kinds


def with_stored_variance(stored, how, *, eps, running, mode):
    """Assess a batch norm whose running variance was stored wrongly."""
    del mode
    norm, io = norm_named("batch-l2"), format_named("fp16")
    group = grouping(norm, (1, 1, 4))
    given = Parameters(running_mean=np.array(running[0]), running_statistic=np.array(running[1]))
    kept = replace(given, running_statistic=np.array([stored]), form=io)
    study = Study(
        norm, group, io, Given(np.array([[1.0, -1.0, 2.0, -2.0]])), eps, 1.0, 1, given, kept,
        (Runner(how, how.machine(io, io, Rounding())),),
    )  # fmt: skip
    labels = Labels(None, "fp16", "eval", "half", None, None, "option", "rows of a test", assumed=False)
    ((result, _, _),) = assemble(study, labels, Rounding(), jobs=1)
    return result


def test_nonfinite():
    x = [[3.0, 3.0], [40000.0, 41000.0], [1.0, -1.0]]
    result = result_of(x, eps=0.0)
    assert counts(result.rows) == (2, 0, 0, 0)
    assert {w.index: w.first_bad_step for w in result.worst_rows} == {0: "reciprocal", 1: "sum-mean"}
    assert result.verdict == "unsafe"


def test_a_row_is_nonfinite_with_a_single_bad_element():
    # gamma 60000 takes only the first element beyond the largest number
    got = emulate(
        np.array([[3.0, -1.0, -1.0, -1.0]], np.float32), "layer-l2", precision="fp16", weight=[60000.0, 1, 1, 1]
    )
    assert np.isfinite(got.output).tolist() == [[False, True, True, True]]
    assert counts(got.rows) == (1, 0, 0, 0)


def test_the_first_class_that_matches_wins():
    # eps rounds to 0 and the squares are lost: s^ = 0 is less than s / 2, but the outputs are infinite
    result = result_of([[1e-4, -1e-4]], eps=1e-8)
    assert counts(result.rows) == (1, 0, 0, 0)
    assert result.worst_rows[0].s_emulated == 0.0
    # an infinite s^ is more than 2 s, but the row is collapsed
    assert counts(result_of([[300.0, -300.0]]).rows) == (0, 1, 0, 0)


def test_classes_are_added_up_over_blocks():
    rows = BLOCK // 1024 * 2 + 3
    x = np.random.default_rng(0).standard_normal((rows, 1024)).astype(np.float32)
    x[[0, rows // 2, rows - 1]] *= 1000
    x[5] = 1.0
    result = result_of(x, eps=0.0)
    assert result.rows == Rows(total=rows, nonfinite=1, collapsed=3, amplified=0, shrunk=0)
    assert [w.index for w in result.worst_rows] == [5, 0, rows // 2, rows - 1]


def test_the_worst_rows_are_ten_by_class_then_by_distance_then_by_index():
    sizes = np.array([2.0**-k for k in range(4, 16)])  # the further below the clamp, the worse
    x = sizes[:, None] * np.array([[1.0, -1.0]])
    x = np.concatenate([[[300.0, -300.0]], x, [[300.0, -300.0], [np.nan, 1.0]]])
    result = result_of(x, how=replace(PURE, eps_min=1.0))
    assert counts(result.rows) == (1, 2, 0, 12)
    assert [w.index for w in result.worst_rows] == [14, 0, 13, 12, 11, 10, 9, 8, 7, 6]
    kinds = [w.kind for w in result.worst_rows]
    assert kinds == ["nonfinite"] + ["collapsed"] * 2 + ["shrunk"] * 7


def test_the_first_bad_step_is_an_overflow_or_a_nan_before_any_underflow():
    # row 0: the 1e-4 underflows when squared, the 300 overflows; both in the step square. row 1: underflow alone
    x = [[300.0, 1e-4, -300.0, 1e-4], [1e-4, -1e-4, 1e-4, -1e-4]]
    result = result_of(x, eps=1e-8)
    assert [(w.index, w.first_bad_step) for w in result.worst_rows] == [(1, "reciprocal"), (0, "square")]


# -------------------------------------------------------------------------------------------------- deviation


def written_out(x, eps=1e-5, weight=None, bias=None):
    c = x - x.mean(axis=1, keepdims=True)
    z = c / np.sqrt((c * c).mean(axis=1, keepdims=True) + eps)
    y = z if weight is None else z * weight
    return y if bias is None else y + bias


def figures(y, computed, z, before, io):
    """Return the figures of a deviation by their definitions; z, before: exact and computed before the affine step."""
    form = oracle.target(io)
    e, (rows, n) = computed - y, y.shape
    at = np.maximum(np.abs(y), np.sqrt((y * y).mean(axis=1, keepdims=True)))
    ulps = np.abs(e) / np.exp2(np.maximum(np.floor(np.log2(at)), form.emin) - form.mantissa_bits)
    gains, offsets, noise = [], [], []
    for exact, got in zip(z, before, strict=True):
        alpha, delta = np.polyfit(exact, got - exact, 1)
        gains.append(alpha)
        offsets.append(n * delta**2)
        noise.append(np.sum((got - exact - alpha * exact - delta) ** 2))
    whole, relative = np.linalg.norm(z), np.linalg.norm(e) / np.linalg.norm(y)
    values = (
        np.max(np.abs(e)), np.mean(np.abs(e)), math.sqrt(np.mean(e * e)), relative, np.max(ulps), np.mean(ulps),
        -20 * math.log10(relative), np.mean(gains), np.std(gains), math.sqrt(sum(offsets)) / whole,
        math.sqrt(sum(noise)) / whole,
    )  # fmt: skip
    assert len(gains) == rows
    return dict(zip(FIGURES, map(float, values), strict=True))


def rounded_once(y, io):
    return oracle.select(oracle.between_codes(y, oracle.target(io)), oracle.target(io), "nearest-even", "ieee")[0]


def assert_figures(error, want):
    for name, value in want.items():
        assert getattr(error, name) == pytest.approx(value, rel=1e-6, abs=1e-11), name


@pytest.mark.parametrize("implementation", ["pure", "pure-scaled", "wide-sum", "wide"])
@pytest.mark.parametrize("io", ["float16", "bfloat16"])
def test_every_figure_is_its_definition(implementation, io):
    x = rounded_once(np.random.default_rng(1).standard_normal((9, 50)) * 3 + 1, io)
    x[4] = np.nan  # a row that is not finite is left out, of the ideal too
    got = emulate(x, "layer-l2", precision=format_named(io).label, implementation=implementation)
    rest = [0, 1, 2, 3, 5, 6, 7, 8]
    y, computed = written_out(x[rest]), got.output[rest].astype(np.float64)
    assert got.rows.nonfinite == 1
    assert_figures(got.deviation, figures(y, computed, y, computed, io))
    ideal = rounded_once(y, io)
    assert_figures(got.deviation.ideal, figures(y, ideal, y, ideal, io))


def test_rows_that_are_not_finite_are_left_out_of_the_ideal_too():
    x = np.array([[1.0, -3.0, 0.5], [40000.0, 41000.0, 39000.0]])
    got, alone = (emulate(rows, "layer-l2", precision="fp16").deviation for rows in (x, x[:1]))
    assert got == alone


def test_gain_and_offset_are_those_before_the_affine_step():
    x = rounded_once(np.random.default_rng(2).standard_normal((6, 40)) + 0.5, "float16")
    w, b = np.random.default_rng(3).standard_normal((2, 40)).astype(np.float16).astype(np.float64) * 3
    got = emulate(x, "layer-l2", precision="fp16", weight=w, bias=b)
    plain = emulate(x, "layer-l2", precision="fp16")
    z, before = written_out(x), plain.output.astype(np.float64)
    y, computed = written_out(x, weight=w, bias=b), got.output.astype(np.float64)
    assert_figures(got.deviation, figures(y, computed, z, before, "float16"))
    ideal_y, ideal_z = rounded_once(y, "float16"), rounded_once(z, "float16")
    assert_figures(got.deviation.ideal, figures(y, ideal_y, z, ideal_z, "float16"))


def test_deviation_by_hand():
    # c / s is exact: s = sqrt(1 + 3) = 2. gamma = 1/3 becomes 0.333251953125 in float16, so y = 1/6 is
    # 0.1666259765625: wrong by 2^-13 / 3, where an ulp is 2^-13
    got = emulate(np.array([[1.0, -1.0]]), "layer-l2", precision="fp16", eps=3.0, weight=[1 / 3, 1 / 3]).deviation
    e = 2.0**-13 / 3
    want = {"max_abs": e, "mean_abs": e, "rms": e, "relative_rms": 6 * e, "max_ulp": 1 / 3, "mean_ulp": 1 / 3}
    want |= {"sqnr_db": -20 * math.log10(6 * e), "gain": 0.0, "gain_sd": 0.0, "offset": 0.0, "noise": 0.0}
    assert_figures(got, want)
    assert_figures(got.ideal, want)  # 1/6 rounds to the same number


def test_a_pure_gain():
    # the clamp makes s = 2 of s = 1: y^ = y / 2
    got = result_of([[1.0, -1.0, 1.0, -1.0]], eps=0.0, how=replace(PURE, eps_min=3.0)).deviation
    want = {
        "gain": -0.5,
        "gain_sd": 0.0,
        "offset": 0.0,
        "noise": 0.0,
        "relative_rms": 0.5,
        "sqnr_db": 20 * math.log10(2),
    }
    assert_figures(got, want)
    # s = 2 of 1 in one row, and sqrt(64 + 3) -> 8.1875 of 8 in another
    got = result_of([[1.0, -1.0], [8.0, -8.0]], eps=0.0, how=replace(PURE, eps_min=3.0)).deviation
    second = float(np.float16(8 * np.float16(1 / np.sqrt(np.float16(67))))) - 1
    assert_figures(got, {"gain": (second - 0.5) / 2, "gain_sd": (second + 0.5) / 2, "noise": 0.0})


def test_a_pure_offset():
    # the running mean 10.3 is kept as 10.296875: every element comes out 0.003125 too large
    got = result_of([[11.0, 9.0]], "batch-l2", eps=0.0, running=([10.3], [1.0]), mode="eval").deviation
    norm = math.sqrt(0.7**2 + 1.3**2)
    want = {"offset": 0.003125 * math.sqrt(2) / norm, "gain": 0.0, "noise": 0.0, "max_abs": 0.003125}
    assert_figures(got, want)


def test_pure_noise():
    # y = +-1, +-1 exactly; gamma is 1 but for two elements that it moves apart: no gain, no offset
    x = np.array([[1.0, 1.0, -1.0, -1.0]])
    weight = [1.0 + 2.0**-12, 1.0 - 2.0**-12, 1.0, 1.0]  # as stored, 1
    got = emulate(x, "layer-l2", precision="fp16", eps=0.0, weight=weight).deviation
    assert_figures(got, {"max_abs": 2.0**-12, "relative_rms": 2.0**-12 / math.sqrt(2), "gain": 0.0, "noise": 0.0})
    # before the affine step nothing is wrong; without one, the same error is noise
    before = emulate(x + np.array([[2.0**-8, -(2.0**-8), 0, 0]]), "layer-l2", precision="fp16", eps=0.0).deviation
    assert before.noise <= before.relative_rms


def test_small_elements_are_measured_in_ulps_of_their_row():
    # exact y of the fourth element is 0; its error is counted in ulps at the row's rms, near 1, not at 0
    x = np.array([[3.0, -1.0, -2.0, 0.0]])
    running = {"running_mean": [2.0**-13], "running_var": [1.0], "mode": "eval", "eps": 0.0}
    got = emulate(x.T, "batch-l2", precision="fp16", params="half", **running).deviation
    # x - 2^-13 rounds to x: errors of 2^-13 everywhere but at 0, which is exact; ulps 2^-9, 2^-9, 2^-9 and 2^-9
    rms = math.sqrt(np.mean((x - 2.0**-13) ** 2))
    assert 1 < rms < 2
    assert got.max_ulp == pytest.approx(2.0**-13 / 2.0**-10, rel=1e-9)  # of -1, at the rms 1.87: ulp 2^-10
    assert got.mean_ulp == pytest.approx((2 * 2.0**-13 / 2.0**-9 + 2.0**-13 / 2.0**-10) / 4, rel=0.3)


def test_an_ulp_of_subnormal_numbers_is_their_distance():
    # y = x / sqrt(1e-5) is around 4e-5, below 2^-14: stored as a multiple of 2^-24
    x = np.float64(np.float16(np.random.default_rng(7).uniform(1e-7, 2e-7, (3, 16)) * np.resize([1, -1], 16)))
    got = emulate(x, "layer-l2", precision="fp16", implementation="wide")
    y, computed = written_out(x), got.output.astype(np.float64)
    assert np.max(np.abs(y)) < 2.0**-14
    assert_figures(got.deviation, figures(y, computed, y, computed, "float16"))
    assert 0.25 < got.deviation.max_ulp <= 0.51


def test_nothing_wrong_and_nothing_there():
    exact = emulate(np.array([[1.0, -1.0]]), "layer-l2", precision="fp16", eps=3.0).deviation
    assert (exact.max_abs, exact.relative_rms, exact.sqnr_db, exact.gain) == (0.0, 0.0, math.inf, 0.0)
    none = emulate(np.array([[40000.0, 41000.0]]), "layer-l2", precision="fp16").deviation
    assert {getattr(none, name) for name in FIGURES} == {None}
    assert {getattr(none.ideal, name) for name in FIGURES} == {None}
    flat = emulate(np.ones((1, 4)), "layer-l2", precision="fp16").deviation
    assert (flat.relative_rms, flat.gain, flat.offset, flat.noise) == (0.0, 0.0, 0.0, 0.0)


# ------------------------------------------------------------------------------- representation, scale ratio


def test_representation_is_the_effect_of_rounding_the_inputs_alone():
    x = np.random.default_rng(4).standard_normal((7, 30)) * 2 + 5
    moved, y = written_out(rounded_once(x, "float16")), written_out(x)
    for how in (PURE, IMPLEMENTATIONS["wide"]):
        got = result_of(x, how=how).representation
        assert got.max_abs == pytest.approx(np.max(np.abs(moved - y)), rel=1e-9)
        assert got.relative_rms == pytest.approx(np.linalg.norm(moved - y) / np.linalg.norm(y), rel=1e-9)
    held = result_of(rounded_once(x, "float16")).representation
    assert (held.max_abs, held.relative_rms) == (0.0, 0.0)


def test_deviation_does_not_include_it():
    # 1 + 2^-12 is stored as 1: the norm itself has nothing to answer for
    result = result_of([[1.0 + 2.0**-12, -1.0]], eps=3.0)
    assert result.deviation.max_abs == 0.0
    assert result.representation.max_abs == pytest.approx(2.0**-12 * 3 / 16, rel=1e-3)  # d(c / s) = dx / 2 * 3 / 8


def test_scale_ratio_is_of_each_row():
    x = (np.random.default_rng(5).standard_t(4, (40, 64)) + 1).astype(np.float32).astype(np.float64)
    sigma, c = x.std(axis=1), x - x.mean(axis=1, keepdims=True)
    size = np.sort(np.abs(c), axis=1)
    wanted = {
        "layer-l1": math.sqrt(math.pi / 2) * size.mean(axis=1),
        "layer-linf": constant("linf", "paper", 64) * size[:, -1],
        "layer-topk": constant("topk", "paper", 64, 3) * size[:, -3:].mean(axis=1),
        "layer-range": constant("range", "paper", 64) * np.ptp(c, axis=1),
    }
    for name, s in wanted.items():
        got = result_of(x, name, precision="fp32", kind="paper", k=3).scale_ratio
        assert got.mean == pytest.approx(np.mean(s / sigma), rel=1e-9), name
        assert got.cv == pytest.approx(np.std(s / sigma) / np.mean(s / sigma), rel=1e-9), name
    plain = math.sqrt(math.pi / 2) * np.abs(x).mean(axis=1) / np.sqrt((x * x).mean(axis=1))
    assert result_of(x, "layer-l1-uncentred", precision="fp32").scale_ratio.mean == pytest.approx(
        plain.mean(), rel=1e-9
    )
    for name in ("layer-l2", "rms"):
        assert (result_of(x, name).scale_ratio.mean, result_of(x, name).scale_ratio.cv) == (1.0, 0.0)


TABLE = {  # Hoffer et al.: s / sigma at n = 1024, paper's constants, in this order
    "gaussian": (1.000, 1.429, 1.196, 1.747),
    "relu-gaussian": (0.991, 2.025, 1.602, 1.496),
    "uniform": (1.085, 0.727, 0.721, 0.929),
    "laplace": (0.887, 2.196, 1.635, 2.589),
    "student-t(df=4)": (0.890, 3.092, 1.845, 3.374),
}
STATISTICS = ("l1", "linf", "topk", "range")


@pytest.mark.parametrize("distribution", TABLE)
def test_scale_ratios_of_the_papers_table(distribution):
    norms = [f"layer-{name}" for name in STATISTICS]
    ratios = {}
    for kind in ("paper", "exact"):
        report = simulate(
            distribution=distribution, norms=norms, precisions=["fp32"], implementations=["wide"], shape=(400, 1024),
            constant=kind, jobs=1,
        )  # fmt: skip
        ratios[kind] = [result.scale_ratio.mean for result in report.results]
    # the table divides by the true deviation, not by the row's own, which for t(4) is seldom near it: its tails have
    # no fourth moment
    tolerance = 0.12 if distribution.startswith("student") else 0.015
    assert ratios["paper"] == pytest.approx(TABLE[distribution], rel=tolerance)
    factor = [constant(s, "exact", 1024) / constant(s, "paper", 1024) for s in STATISTICS]
    assert ratios["exact"] == pytest.approx(np.multiply(ratios["paper"], factor).tolist(), rel=1e-6)
    if distribution == "gaussian":
        assert ratios["exact"] == pytest.approx([1.0] * 4, abs=0.012)


def test_scale_ratio_of_heavy_tails_over_the_rows_own_deviation():
    x = np.random.default_rng(6).standard_t(4, (2000, 1024))
    s = math.sqrt(math.pi / 2) * np.abs(x - x.mean(axis=1, keepdims=True)).mean(axis=1)
    got = simulate(
        distribution="student-t(df=4)", norms=["layer-l1"], precisions=["fp32"], implementations=["wide"],
        shape=(400, 1024), jobs=1,
    )  # fmt: skip
    want = s / x.std(axis=1)
    ratio = got.results[0].scale_ratio
    assert ratio.mean == pytest.approx(want.mean(), abs=5 * want.std() * math.sqrt(1 / 2000 + 1 / 400))
    assert ratio.cv == pytest.approx(want.std() / want.mean(), rel=0.25)


# ----------------------------------------------------------------------------------------- degrees, headroom

L2_DEGREES = {
    "load": 1, "sum-mean": 1, "count": 0, "mean": 1, "center": 1, "square": 2, "sum": 2, "variance": 2, "eps": None,
    "root": None, "reciprocal": None, "normalize": None, "store": None,
}  # fmt: skip
FREE = {"eps": 2, "root": 1, "reciprocal": -1, "normalize": 0, "store": 0}
"""Without eps."""


def degrees(result):
    return {s.step: s.degree for s in result.steps}


def test_degrees():
    row = [[1.0, -1.0, 3.0]]
    assert degrees(result_of(row)) == L2_DEGREES
    assert degrees(result_of(row, eps=0.0)) == L2_DEGREES | FREE
    assert degrees(result_of(row, eps=1e-9)) == L2_DEGREES | FREE  # it rounds to 0
    plain = {"load": 1, "sum-mean": 1, "count": 0, "mean": 1, "center": 1}
    end = {"eps": 1, "reciprocal": -1, "normalize": 0, "store": 0}
    l1 = {"absolute": 1, "sum": 1, "statistic": 1, "constant": 1}
    assert degrees(result_of(row, "layer-l1", eps=0.0)) == plain | l1 | end
    linf = {"absolute": 1, "maximum": 1, "constant": 1}
    assert degrees(result_of(row, "layer-linf", eps=0.0)) == plain | linf | end
    assert degrees(result_of(row, "layer-topk", eps=0.0)) == plain | l1 | {"topk": 1} | end
    assert (
        degrees(result_of(row, "layer-range", eps=0.0)) == plain | {"maximum": 1, "statistic": 1, "constant": 1} | end
    )
    affine = degrees(result_of(row, eps=0.0, weight=[2.0] * 3, bias=[1.0] * 3))
    assert affine == L2_DEGREES | FREE | {"gain": 0, "bias": 0}
    shown = {"eps": 2, "reciprocal": -1}
    forms = replace(PURE, root_form="rsqrt", normalize_form="shift")
    assert degrees(result_of(row, eps=0.0, how=forms)).items() >= (shown | {"fold": 0, "normalize": 0}).items()
    assert "root" not in degrees(result_of(row, eps=0.0, how=forms))
    fused = degrees(result_of(row, eps=0.0, how=replace(PURE, contracted=("sum",))))
    assert "square" not in fused
    assert fused["sum"] == 2


def test_degrees_of_running_statistics():
    got = degrees(result_of([[1.0, 3.0]], "batch-l2", running=([0.5], [2.0]), mode="eval"))
    assert got == {
        "load": 1, "eps": 0, "root": 0, "reciprocal": 0, "center": None, "normalize": None, "store": None,
    }  # fmt: skip
    weight = degrees(result_of([[1.0, 3.0]], "weight-l2", eps=0.0, weight=[1.0]))
    assert weight == {
        "load": 1, "square": 2, "sum": 2, "root": 1, "reciprocal": -1, "normalize": 0, "gain": 0, "store": 0,
    }  # fmt: skip


HEADROOM = {
    # squares 10^4, their sum 2 10^4: (1/2) log2(65520 / 20000)
    "sum of squares": ([[100.0, -100.0]], "layer-l2", "fp16", math.log2(65520 / 20000) / 2, "sum"),
    # sums of 64 over 2: the threshold of e4m3fn is 464
    "e4m3fn": ([[8.0, -8.0]], "layer-l2", "float8_e4m3fn", math.log2(464 / 128) / 2, "sum"),
    # |x| sum to 40000, degree 1
    "sum of magnitudes": ([[20000.0, -20000.0]], "layer-l1", "fp16", math.log2(65520 / 40000), "sum"),
    # the mean's own sum is the largest: 4 * 12000, where squares are small
    "sum of the mean": (
        [[12000.0, 12008.0, 12000.0, 12008.0]],
        "layer-l2",
        "fp16",
        math.log2(65520 / 48016),
        "sum-mean",
    ),
    # max |c| = 30000, which is what is loaded, centred and scaled by C = 0.886
    "largest": ([[30000.0, -30000.0]], "layer-linf", "fp16", math.log2(65520 / 30000), "load"),
    # bfloat16: the largest finite number is 3.39e38, half an ulp above it the threshold
    "bfloat16": ([[2.0**60, -(2.0**60)]], "layer-l2", "bf16", (128 - 121 + math.log2(1 - 2.0**-9)) / 2, "sum"),
    # squares of 300 overflow; with exponents unbounded their sum is 180000
    "after an overflow": ([[300.0, -300.0]], "layer-l2", "fp16", math.log2(65520 / 180000) / 2, "sum"),
    "far beyond": ([[60000.0, -60000.0]], "layer-l2", "fp16", math.log2(65520 / 7.2e9) / 2, "sum"),
}


@pytest.mark.parametrize(("row", "name", "precision", "bits", "where"), HEADROOM.values(), ids=HEADROOM)
def test_overflow_headroom(row, name, precision, bits, where):
    got = result_of(row, name, precision=precision).headroom
    assert got.overflow_step == where
    assert got.overflow_bits == pytest.approx(bits, abs=2e-3)


def test_overflow_headroom_is_of_the_worst_row_and_the_unbounded_run_of_the_same_order():
    x = np.ones((3, 8)) * np.array([[1.0], [10.0], [3.0]]) * np.array([[1.0, -1.0] * 4])
    assert result_of(x).headroom.overflow_bits == pytest.approx(math.log2(65520 / 800) / 2, abs=1e-9)
    x *= 40  # 400: 160000 a square, 1280000 the sum
    for how in (PURE, SEQUENTIAL):
        # each addition rounds as ever, at most by 2^-11
        assert result_of(x, how=how).headroom.overflow_bits == pytest.approx(math.log2(65520 / 1.28e6) / 2, abs=2e-3)
    mean = replace(PURE, order=Order("blocks", 4))
    got = result_of(x, how=mean).headroom  # squares, 160000; their means grow no further
    assert (got.overflow_step, got.overflow_bits) == ("square", pytest.approx(math.log2(65520 / 160000) / 2, abs=1e-9))


def test_headroom_of_a_row_with_nan_is_that_of_the_others():
    clean = result_of([[100.0, -100.0]]).headroom
    spoilt = result_of([[100.0, -100.0], [np.nan, 1.0]])
    assert spoilt.headroom == clean
    assert step(spoilt, "load").max_abs == 100.0


def test_overflow_headroom_is_null_where_nothing_grows():
    eight = result_of([[0.0, 0.0]], eps=1e-3).headroom
    assert (eight.overflow_bits, eight.overflow_step) == (None, None)


def test_underflow_headroom_is_that_of_the_statistic_before_eps():
    # variance 2^-10, smallest normal number 2^-14: two bits; |c| 2^-5 and C = sqrt(pi / 2): 9.3 bits
    got = result_of([[2.0**-5, -(2.0**-5)]]).headroom
    assert (got.underflow_bits, got.underflow_step) == (pytest.approx(2.0, abs=1e-12), "variance")
    got = result_of([[2.0**-5, -(2.0**-5)]], "layer-l1").headroom
    assert got.underflow_bits == pytest.approx(9 + math.log2(math.pi / 2) / 2, abs=1e-12)
    assert got.underflow_step == "constant"
    got = result_of([[1.0, -1.0], [2.0**-10, -(2.0**-10)]]).headroom  # the smallest row counts; 2^-20 is subnormal
    assert got.underflow_bits == pytest.approx(-3.0, abs=1e-12)
    wide = result_of([[2.0**-5, -(2.0**-5)]], how=IMPLEMENTATIONS["wide"]).headroom
    assert wide.underflow_bits == pytest.approx((126 - 10) / 2, abs=1e-12)
    flat = result_of([[1.0, 1.0]]).headroom
    assert (flat.underflow_bits, flat.underflow_step) == (None, None)


def test_flushed_squares_are_counted_but_bound_nothing():
    x = np.full((1, 64), 1e-4)
    x[0, ::2] *= -1
    x[0, 0] = 8.0
    result = result_of(x)
    assert step(result, "square").underflow == 0  # centred, no square is that small
    x[0, 0], x[0, 1] = 8.0, -8.0
    result = result_of(x)
    assert step(result, "square").underflow == 62
    assert result.headroom.underflow_bits == pytest.approx(math.log2(128 / 64 / 2.0**-14) / 2, abs=1e-3)


# -------------------------------------------------------------------------------- steps, tallies, statistic


def test_lost_mass_and_absorbed_terms():
    # one after the other onto 2048, where an ulp is 2: every 1 is lost. 4 of 2052
    row = [[2048.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]]
    result = result_of(row, "layer-l1-uncentred", how=SEQUENTIAL)
    total = step(result, "sum")
    assert total.lost_mass == pytest.approx(4 / 2052, rel=1e-12)  # the worst row
    assert (total.absorbed, total.operations) == (4, 10)
    assert result.absorbed == Tally(count=step(result, "eps").absorbed + 4, of=12, rows=None)
    assert step(result, "statistic").lost_mass is None
    # signs cancel in the sum but not in the magnitudes: 2050 is right, 2048, 2047, 2048, 2048, 2048, 2047 comes out
    mixed = result_of([[2048.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0]], "layer-l2", how=SEQUENTIAL)
    assert step(mixed, "sum-mean").lost_mass == pytest.approx(3 / 2054, rel=1e-12)
    infinite = result_of([[60000.0, 60000.0], [1.0, 1.0]], "layer-l1-uncentred")
    assert step(infinite, "sum").lost_mass == 0.0  # of the rows with a finite sum


def test_the_lost_mass_of_a_mean_of_means():
    # 1 / 2 + 2^-14 is 0.5 + 2^-14 / 2 in exact arithmetic; half of each term is added: 0.5 + 2^-15 rounds to 0.5
    row = [[1.0, 2.0**-14]]
    result = result_of(row, "layer-l1-uncentred", how=IMPLEMENTATIONS["pure-scaled"])
    assert step(result, "sum").lost_mass == pytest.approx(2.0**-14 / (1 + 2.0**-14), rel=1e-12)


def test_absorbed_is_a_part_of_the_additions():
    weight, bias = [1.0] * 8, [1e-4] * 8  # y + 1e-4 = y where |y| is at least 1/2 or so
    result = result_of(np.array([[1.0, -1.0] * 4] * 3), weight=weight, bias=bias)
    additions = ("sum-mean", "sum", "eps", "bias")
    assert step(result, "bias").absorbed == 24
    assert result.absorbed.count == sum(s.absorbed for s in result.steps)
    assert result.absorbed.of == sum(step(result, name).operations for name in additions)
    # where statistics are fixed, the bias is all that is added
    result = result_of([[1.0, -1.0] * 4], "batch-l2", bias=[1e-4], running=([0.0], [1.0]), mode="eval")
    assert result.absorbed == Tally(count=9, of=9, rows=None)


def test_cancelled_bits():
    # 1025 - 1024 = 1: of the 11 bits of 1025 ten are lost
    result = result_of([[1025.0, 1023.0]])
    assert step(result, "center").cancelled_bits == pytest.approx(math.log2(1025), rel=1e-12)
    assert step(result_of([[1.0, -1.0]]), "center").cancelled_bits == 0.0
    # E[x^2] - E[x]^2: 10200 - 10000 (101 and 99: 10201 -> 10200, 9801 -> 9800; 10000 -> 10000)
    one = result_of([[101.0, 99.0]], how=replace(PURE, variance="one-pass"))
    assert step(one, "variance").cancelled_bits == 0.0  # nothing is left: undefined, not infinite
    one = result_of([[110.0, 90.0]], how=replace(PURE, variance="one-pass"))  # 12096 + 8096, halved: 10096 less 10000
    assert step(one, "variance").cancelled_bits == pytest.approx(math.log2(10096 / 96), rel=1e-12)


def test_tallies_are_sums_over_steps_and_rows_are_counted_once():
    result = result_of([[300.0, -300.0], [1e-4, -1e-4], [40000.0, 41000.0], [1.0, -1.0]])
    for name in ("overflow", "underflow", "invalid"):
        tally = getattr(result, name)
        assert tally.count == sum(getattr(s, name) for s in result.steps), name
        assert tally.of == sum(s.operations for s in result.steps), name
    assert (result.overflow.count, result.overflow.rows) == (3, 2)  # two squares; and one sum of the third row
    assert (result.underflow.count, result.underflow.rows) == (2, 1)
    assert result.invalid.rows == 1
    assert step(result, "square").rows_affected == 2  # one by overflow, one by underflow


def test_the_largest_and_smallest_magnitude_before_rounding():
    result = result_of([[3.0, -1.0, -2.0, 0.0]])
    center, square = step(result, "center"), step(result, "square")
    assert (center.max_abs, center.min_abs) == (3.0, 1.0)
    assert (square.max_abs, square.min_abs) == (9.0, 1.0)
    load = step(result_of([[1.0 + 2.0**-12, -5.0]]), "load")
    assert (load.max_abs, load.min_abs) == (5.0, 1.0 + 2.0**-12)


def test_the_statistic_before_eps():
    x = [[2.0, 2.0], [1.0, -1.0], [1e-4, -1e-4], [3e-3, -3e-3]]
    figures = result_of(x, eps=1e-5).statistic
    assert (figures.zero_rows, figures.flushed_rows, figures.negative_rows) == (1, 1, 0)
    assert figures.max_relative_error == 1.0  # the flushed one
    tiny = float(np.float16(1e-4)) ** 2
    assert figures.eps_share_max == pytest.approx(1e-5 / tiny, rel=1e-12)
    assert figures.eps_dominated_rows == 2  # 1e-5 of 9e-6 is more than a tenth, too
    absolute = result_of(x, "layer-l1", eps=1e-5).statistic
    assert absolute.eps_share_max == pytest.approx(1e-5 / (math.sqrt(math.pi / 2) * float(np.float16(1e-4))), rel=1e-9)
    assert absolute.eps_dominated_rows == 0


def test_a_negative_variance_by_hand():
    # squares 10404 -> 10400 three times and 10506.25 -> 10504; 20800 and 20904 -> 20896; 41696 / 4 = 10424.
    # mean 102.125, its square 10429.5 -> 10432: variance -8 where 3/64 is right
    one_pass = replace(PURE, variance="one-pass")
    result = result_of([[102.0, 102.0, 102.0, 102.5]], how=one_pass)
    assert result.statistic.negative_rows == 1
    assert result.statistic.max_relative_error == pytest.approx((8 + 3 / 64) / (3 / 64), rel=1e-12)
    assert result.rows.nonfinite == 1
    assert result.worst_rows[0].first_bad_step == "root"
    # the same with 108 comes out at +8: the divisor is far too large
    result = result_of([[108.0, 108.0, 108.0, 108.5]], how=one_pass)
    assert (result.statistic.negative_rows, counts(result.rows)) == (0, (0, 0, 0, 1))
    assert result.worst_rows[0].s_emulated == pytest.approx(math.sqrt(8), rel=1e-3)


# ---------------------------------------------------------------------------------------------------- verdict


def test_verdict_ok_degraded_unsafe():
    assert result_of([[1.0, -1.0, 2.0]]).verdict == "ok"
    # 1.5 % of the sum's mass is lost, rows are good: degraded
    x = np.ones((1, 2049 + 32))
    result, findings = assess(x, "layer-l1-uncentred", how=SEQUENTIAL)
    assert (result.verdict, result.rows) == ("degraded", GOOD)
    assert "NC302" in {f.rule for f in findings}
    assert result_of([[300.0, -300.0]]).verdict == "unsafe"
    # any bad row, also where nothing overflowed: shrunk, collapsed by a flushed reciprocal, amplified
    assert result_of([[0.125, -0.125]], how=replace(PURE, eps_min=0.25)).verdict == "unsafe"
    assert result_of([[20000.0, -20000.0]], "layer-l1", ftz=True).verdict == "unsafe"
    small = np.float16(1.2e-3) * np.array([[1.0, -1.0] * 32])
    assert result_of(small, how=IMPLEMENTATIONS["pure-scaled"], eps=2.0**-24).verdict == "unsafe"
    assert result_of([[np.nan, 1.0]]).verdict == "unsafe"
    # little headroom and notes are no accuracy
    result, findings = assess([[100.0, -100.0]])
    assert {f.rule for f in findings} == {"NC103", "NC202"}
    assert result.verdict == "ok"


def test_an_overflow_that_saturates_reaches_the_output():
    # y = 9.95 is stored as 6, the largest number of float4: finite, in a good row, and wrong
    x = np.zeros((1, 100))
    x[0, 0] = 6.0
    result = result_of(x, how=IMPLEMENTATIONS["wide"], precision="float4_e2m1fn")
    assert step(result, "store").overflow == 1
    assert result.rows == GOOD
    assert result.verdict == "unsafe"


def test_an_overflow_beside_the_output_does_not_reach_it():
    # 1 / s = 10^6 is kept for the backward pass in float16, and is infinite there; y is as good as ever
    result = result_of([[1e-6, -1e-6]], precision="fp32", eps=0.0, how=replace(PURE, saved="float16"))
    assert step(result, "saved").overflow == 1
    assert result.rows == GOOD
    assert result.deviation.max_ulp <= 2
    assert result.verdict == "ok"
