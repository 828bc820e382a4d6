"""`normcheck.simulate`: what it must show, with its figures; and what it must refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from normcheck import UsageError, simulate
from normcheck.analysis import assemble as assembling
from normcheck.analysis import study
from normcheck.render import json_report
from normcheck.results import Rows

BOTH = ("batch-l2", "batch-l1")
SMALL = (8, 4, 8, 8)


@pytest.fixture
def no_search(monkeypatch):
    """Leave the search for the safe scale out, where it would take longer than all the rest."""
    monkeypatch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)


def run(**settings):
    return simulate(**{"jobs": 1, "shape": SMALL} | settings)


def by_name(report):
    return {(result.norm, result.implementation): result for result in report.results}


def found(report, rule, **fields):
    """Return the findings of a rule whose fields have these values."""
    return [f for f in report.findings if f.rule == rule and all(getattr(f, k) == v for k, v in fields.items())]


def step(result, name):
    return next(s for s in result.steps if s.step == name)


def all_good(result):
    return result.rows == Rows(total=result.shape.groups, nonfinite=0, collapsed=0, amplified=0, shrunk=0)


def json(report):
    return json_report.render(replace(report, environment={}))


# ------------------------------------------------------------------------------------- the paper's contrast


@pytest.fixture(scope="module")
def contrast():
    return run(norms=BOTH, implementations=["pure", "wide-sum", "wide"], shape=(8, 16, 8, 8), std=100.0)


@pytest.mark.parametrize("implementation", ["pure", "wide-sum"])
def test_l2_collapses_at_std_100(contrast, implementation):
    result = by_name(contrast)["batch-l2", implementation]
    assert (result.shape.groups, result.shape.size) == (16, 512)
    assert result.rows == Rows(total=16, nonfinite=0, collapsed=16, amplified=0, shrunk=0)
    assert result.verdict == "unsafe"
    assert {worst.first_bad_step for worst in result.worst_rows} == {"square"}
    square = step(result, "square")
    # P(|x| > 255.97) = 1.05 %; the standard deviation of the share in 8192 squares is 0.11 %
    assert square.overflow / square.operations == pytest.approx(0.0105, abs=0.0034)
    assert square.rows_affected == 16
    (finding,) = found(contrast, "NC102", norm="batch-l2", implementation=implementation)
    assert (finding.severity, finding.step) == ("error", "square")
    assert "16 of 16 rows" in finding.message
    assert f"{square.overflow} of 8192" in finding.message
    assert not found(contrast, "NC101")


def test_l1_survives_with_about_half_a_bit(contrast):
    result = by_name(contrast)["batch-l1", "pure"]
    assert all_good(result)
    assert result.headroom.overflow_step == "sum"
    assert result.headroom.overflow_bits == pytest.approx(0.6, abs=0.08)
    assert math.log2(result.safe_scale[1]) == pytest.approx(result.headroom.overflow_bits, abs=0.1)
    (finding,) = found(contrast, "NC103", norm="batch-l1", implementation="pure")
    assert (finding.severity, finding.step) == ("warning", "sum")
    assert result.overflow.count == 0
    assert result.deviation.relative_rms < 0.002


@pytest.mark.parametrize("norm", BOTH)
def test_wide_is_clean(contrast, norm):
    result = by_name(contrast)[norm, "wide"]
    assert all_good(result)
    assert result.verdict == "ok"
    assert result.deviation.relative_rms < 1.1 * result.deviation.ideal.relative_rms
    assert not [f for f in contrast.findings if (f.norm, f.implementation) == (norm, "wide")]


def test_at_std_20_l2_overflows_in_the_sum_and_l1_has_a_bit_left():
    report = run(norms=BOTH, implementations=["pure"], shape=(8, 16, 16, 16), std=20.0)
    l2, l1 = report.results
    assert (l2.shape.size, l2.rows.collapsed) == (2048, 16)
    assert (step(l2, "square").overflow, step(l2, "sum").overflow > 0) == (0, True)
    assert {worst.first_bad_step for worst in l2.worst_rows} == {"sum"}
    assert found(report, "NC102")[0].step == "sum"
    assert all_good(l1)
    assert l1.headroom.overflow_bits == pytest.approx(1.0, abs=0.08)
    assert step(l1, "sum").max_abs == pytest.approx(33632, rel=0.02)  # worked out beforehand


@pytest.mark.usefixtures("no_search")
def test_n_is_infinite_for_pure_and_never_appears_in_pure_scaled():
    report = run(norms=BOTH, implementations=["pure", "pure-scaled"], shape=(8, 16, 112, 112), std=20.0)
    results = by_name(report)
    assert results["batch-l2", "pure"].shape.size == 100352
    for norm in BOTH:
        (finding,) = found(report, "NC106", norm=norm, implementation="pure")
        assert (finding.severity, finding.step) == ("error", "count")
        assert "100352" in finding.message
        assert results[norm, "pure"].rows.bad == 16
        assert all_good(results[norm, "pure-scaled"])
        assert results[norm, "pure-scaled"].verdict == "ok"
    assert not found(report, "NC106", implementation="pure-scaled")
    assert results["batch-l2", "pure-scaled"].headroom.overflow_bits == pytest.approx(1.4, abs=0.2)  # about 1.5
    assert results["batch-l1", "pure-scaled"].headroom.overflow_bits == pytest.approx(9.2, abs=0.3)  # about 9


@pytest.mark.usefixtures("no_search")
def test_beyond_that_pure_scaled_l2_collapses_and_l1_does_not():
    report = run(norms=BOTH, implementations=["pure-scaled"], shape=(8, 16, 112, 112), std=100.0)
    l2, l1 = report.results
    assert l2.rows.collapsed == 16
    assert all_good(l1)
    assert found(report, "NC102", norm="batch-l2", step="square")
    assert not found(report, "NC102", norm="batch-l1")


@pytest.mark.usefixtures("no_search")
def test_at_std_300_wide_sums_do_not_help_l2():
    (result,) = run(implementations=["wide-sum"], shape=(8, 16, 112, 112), std=300.0).results
    assert (result.rows.total, result.rows.collapsed) == (16, 16)


# -------------------------------------------------------------------------------------------- stagnating sums


@pytest.fixture(scope="module")
def stagnation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembling, "safe_scale", lambda *_args, **_settings: None)
        return run(norms=BOTH, implementations=["pure-sequential", "pure", "pure-scaled", "wide"], shape=(8, 4, 64, 64))


def test_sequential_sums_of_float16_stagnate_and_l1_is_the_worse(stagnation):
    l2, l1 = (by_name(stagnation)[norm, "pure-sequential"] for norm in BOTH)
    assert l2.shape.size == 32768
    assert step(l2, "sum").max_abs == pytest.approx(16.4e3, rel=0.02)  # where 32.8k is right
    assert step(l1, "sum").max_abs == pytest.approx(8.2e3, rel=0.02)  # where 26.1k is right
    assert step(l2, "sum").lost_mass == pytest.approx(1 - 16.4 / 32.8, abs=0.02)
    assert step(l1, "sum").lost_mass == pytest.approx(1 - 8.2 / 26.1, abs=0.01)
    assert step(l1, "sum").lost_mass > step(l2, "sum").lost_mass
    assert step(l1, "sum").absorbed > 100_000
    for norm, lost in (("batch-l2", "50"), ("batch-l1", "68")):
        (finding,) = found(stagnation, "NC302", norm=norm, implementation="pure-sequential")
        assert (finding.severity, finding.step) == ("error", "sum")
        assert f"loses {lost}" in finding.message
    assert l2.rows.bad == 0  # s is 0.71 of what it should be
    assert l1.rows.amplified == 4  # 0.31
    assert (l2.verdict, l1.verdict) == ("degraded", "unsafe")


def test_the_default_order_does_not_stagnate(stagnation):
    # 32 lanes of 1024 squares each lose a little over 1 %, in one direction: the threshold of the warning
    for norm in BOTH:
        assert step(by_name(stagnation)[norm, "pure"], "sum").lost_mass < 0.015
        assert not found(stagnation, "NC302", norm=norm, implementation="pure", severity="error")
        for implementation in ("pure-scaled", "wide"):
            assert not found(stagnation, "NC302", norm=norm, implementation=implementation)


# -------------------------------------------------------------------------------------------------------- eps


def test_eps_that_rounds_to_zero():
    report = run(eps=1e-8)
    assert {f.implementation for f in found(report, "NC201", severity="warning", step="eps")} == {"pure", "pure-scaled"}
    assert not found(report, "NC202")
    assert "1e-08" in found(report, "NC201")[0].message


def test_eps_that_is_subnormal_is_a_note_and_zero_when_flushed():
    report = run(eps=1e-5)
    assert {f.implementation for f in found(report, "NC202", severity="note", step="eps")} == {"pure", "pure-scaled"}
    assert not found(report, "NC201")
    flushed = run(eps=1e-5, ftz=True)
    assert {f.implementation for f in found(flushed, "NC201", step="eps")} == {"pure", "pure-scaled"}
    assert "flushed" in found(flushed, "NC201")[0].message
    assert not found(flushed, "NC202")


def test_comparable_eps_is_the_same_floor():
    report = run(norms=["batch-l2", "batch-l1", "batch-linf"], implementations=["pure"], eps_comparable=True)
    assert [result.eps for result in report.results] == [1e-5, math.sqrt(1e-5), math.sqrt(1e-5)]
    assert [result.eps_on for result in report.results] == ["variance", "statistic", "statistic"]
    assert [result.eps for result in run(norms=BOTH, implementations=["pure"]).results] == [1e-5, 1e-5]


# ------------------------------------------------------------------------------------------------- the input


def test_outliers_overflow_in_a_share_of_the_channels():
    report = run(distribution="outlier(fraction=0.001, scale=1000)", shape=(8, 64, 16, 16), implementations=["pure"])
    (result,) = report.results
    square = step(result, "square")
    # about 2 outliers among the 2048 elements of a channel, each beyond 256 with probability 0.80
    assert square.overflow == pytest.approx(131072 * 0.001 * 0.798, rel=0.3)
    assert result.rows.collapsed / 64 == pytest.approx(1 - math.exp(-2048 * 0.001 * 0.798), abs=0.16)
    assert square.rows_affected >= result.rows.collapsed  # in a few rows a square underflows
    assert result.overflow.rows == result.rows.collapsed
    assert f"{result.rows.collapsed} of 64 rows" in found(report, "NC102")[0].message
    assert found(report, "NC102")[0].step == "square"


def test_outliers_of_channels_overflow_in_those_channels():
    report = run(
        distribution="outlier(fraction=0.05, scale=1000, of=channels)", shape=(8, 64, 16, 16), implementations=["pure"]
    )
    assert report.results[0].rows == Rows(total=64, nonfinite=0, collapsed=3, amplified=0, shrunk=0)


def test_every_norm_and_precision_sees_the_same_values():
    norms = ["batch-l2", "batch-l1", "instance-l2", "layer-l2"]
    report = run(norms=norms, precisions=["fp32", "fp64"], implementations=["wide"], mean=3.0, std=2.0)
    loads = {(step(r, "load").max_abs, step(r, "load").min_abs, step(r, "load").operations) for r in report.results}
    assert len(loads) == 1
    assert loads.pop()[2] == math.prod(SMALL)
    coarse = run(precisions=["fp16", "bf16", "float8_e4m3fn"], implementations=["wide"], mean=3.0, std=2.0)
    largest = [step(r, "load").max_abs for r in (*report.results[:1], *coarse.results)]
    assert len(set(largest)) == 1  # before rounding


def test_what_a_result_says_of_its_settings():
    (result,) = run(
        distribution="student-t(df=5)", norms=["batch-topk"], implementations=["pure"], constant="paper", k=7, mean=1.0,
        std=2.0, params="autocast",
    ).results  # fmt: skip
    assert (result.norm, result.precision, result.implementation, result.mode) == (
        "batch-topk",
        "fp16",
        "pure",
        "train",
    )
    assert (result.constant, result.k, result.params, result.layer) == ("paper", 7, "autocast", None)
    assert (result.shape.groups, result.shape.size) == (4, 512)
    assert (result.input.rows, result.input.elements, result.input.assumed) == (4, 2048, False)
    assert result.input.source == "student-t(df=5, mean=1, std=2)"
    assert (result.eps, result.eps_source) == (1e-5, "option")
    (plain,) = run(implementations=["pure"]).results
    assert (plain.constant, plain.k) == (None, None)


def test_groups_rows_and_sizes():
    sizes = {}
    for norm in ("batch-l2", "layer-l2", "instance-l2", "group-l2", "weight-l2"):
        (result,) = run(norms=[norm], implementations=["wide"], shape=(6, 8, 5, 3), num_groups=4).results
        sizes[norm] = (result.shape.groups, result.shape.size)
    assert sizes == {
        "batch-l2": (8, 90), "layer-l2": (240, 3), "instance-l2": (48, 15), "group-l2": (24, 30), "weight-l2": (6, 120),
    }  # fmt: skip
    (result,) = run(norms=["group-l2"], implementations=["wide"], shape=(2, 48, 4)).results
    assert result.shape.groups == 2 * 24  # the largest divisor of 48 up to 32


@pytest.mark.parametrize(
    ("distribution", "mean", "variance"),
    [
        ("gaussian", 0.0, 1.0),
        ("uniform", 0.0, 1.0),
        ("relu-gaussian", 1 / math.sqrt(2 * math.pi), 0.5 - 1 / (2 * math.pi)),
        ("outlier(fraction=0.01, scale=10)", 0.0, 1 + 0.01 * 99),
        ("lognormal(sigma=0.5)", math.exp(0.125), (math.exp(0.25) - 1) * math.exp(0.25)),
    ],
)
@pytest.mark.usefixtures("no_search")
def test_evaluation_uses_the_distributions_own_mean_and_deviation(distribution, mean, variance):
    wanted = {"distribution": distribution, "mode": "eval", "implementations": ["wide"], "precisions": ["fp32"]}
    (result,) = run(std=3.0, mean=2.0, eps=1e-3, **wanted).results
    assert result.mode == "eval"
    assert result.statistic.eps_share_max == pytest.approx(1e-3 / (9 * variance), rel=1e-3)
    (absolute,) = run(norms=["batch-l1"], eps=1e-3, **wanted).results
    assert absolute.statistic.eps_share_max == pytest.approx(1e-3 / math.sqrt(variance), rel=1e-3)
    if mean:  # nothing is negative and the largest is far out: centring takes the mean from it
        moved = step(result, "load").max_abs - step(result, "center").max_abs
        assert moved == pytest.approx(2 + 3 * mean, rel=1e-3)


def test_evaluation_knows_neither_sums_nor_degrees():
    (result,) = run(mode="eval", implementations=["pure"]).results
    assert [s.step for s in result.steps] == ["load", "eps", "root", "reciprocal", "center", "normalize", "store"]
    assert all_good(result)


def test_rows_without_variance():
    report = run(distribution="constant", mean=3.0, implementations=["pure", "wide"], eps=1e-8)
    pure, wide = report.results
    assert (pure.rows.nonfinite, pure.statistic.zero_rows) == (4, 4)
    assert all_good(wide)
    (finding,) = found(report, "NC201")
    assert finding.severity == "error"
    assert "4 of 4 rows" in finding.message


@pytest.mark.parametrize(
    "settings",
    [
        {"distribution": "constant"},
        {"distribution": "relu-gaussian", "norms": ["batch-l1"], "shape": (8, 2, 64, 64), "implementations": ["pure"]},
        {"distribution": "relu-gaussian", "precisions": ["fp64"]},
        {"distribution": "student-t(df=0.1)", "precisions": ["fp32"]},
        {"distribution": "constant", "mean": 1e300},
        {"std": 1e38, "precisions": ["fp32"]},
        {"std": 1e-45, "precisions": ["fp16", "bf16"]},
    ],
    ids=str,
)
def test_extreme_inputs_end_without_a_warning(settings):
    report = run(**settings)  # numpy's warnings are errors here
    assert report.results
    json(report)


# ------------------------------------------------------------------------------------------------ precisions


@pytest.fixture(scope="module")
def default():
    return simulate(precisions=["fp16", "bf16", "fp32"], shape=(32, 64, 28, 28), jobs=2)


def test_the_default_run_has_no_error(default):
    assert default.summary.findings.error == 0
    assert all(all_good(result) for result in default.results)
    assert default.command == "simulate"
    assert default.format == 1


def test_the_implementations_that_run_unless_told(default):
    ran = [(result.precision, result.implementation) for result in default.results]
    assert ran == [
        ("fp16", "pure"), ("fp16", "pure-scaled"), ("fp16", "wide"), ("bf16", "wide"),
        ("fp32", "pure"), ("fp32", "pure-scaled"), ("fp32", "wide"),
    ]  # fmt: skip


def test_finer_formats_deviate_less(default):
    wide = {r.precision: r.deviation.relative_rms for r in default.results if r.implementation == "wide"}
    assert wide["bf16"] / wide["fp16"] == pytest.approx(8, rel=0.1)
    assert wide["fp16"] / wide["fp32"] > 1000
    roundoff = {"fp16": 2.0**-11, "bf16": 2.0**-8}
    for precision, unit in roundoff.items():
        # nearest rounding of numbers that are evenly spread over a binade: unit / (2 sqrt 3) and a little more
        assert wide[precision] / unit == pytest.approx(0.42, abs=0.03)


@pytest.mark.parametrize(
    ("name", "implementations"),
    [
        ("float8_e4m3fn", ["wide"]), ("float8_e5m2", ["wide"]), ("float4_e2m1fn", ["wide"]), ("e4m3", ["wide"]),
        ("tf32", ["pure", "pure-scaled", "wide"]), ("fp64", ["pure", "pure-scaled", "wide"]), ("HALF", None),
        ("e5m10", None), ("e8m7", ["wide"]), ("e6m9", ["wide"]), ("e6m10", ["pure", "pure-scaled", "wide"]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_search")
def test_every_precision_works(name, implementations):
    report = run(precisions=[name])
    ran = [result.implementation for result in report.results]
    assert ran == (implementations or ["pure", "pure-scaled", "wide"])
    assert all(all_good(result) for result in report.results)
    assert report.summary.findings.error == 0


@pytest.mark.usefixtures("no_search")
def test_float64_is_not_blamed_for_differing_from_a_reference_in_float64():
    report = run(precisions=["fp64"], norms=BOTH)
    assert not found(report, "NC301")
    assert {result.verdict for result in report.results} == {"ok"}


@pytest.mark.usefixtures("no_search")
def test_the_same_format_by_another_name_is_the_same():
    assert run(precisions=["e5m10"]).results == run(precisions=["float16"]).results
    assert len(run(precisions=["fp16", "half", "e5m10"], implementations=["pure"]).results) == 1


@pytest.mark.usefixtures("no_search")
def test_every_norm_runs_in_every_generic_implementation():
    from normcheck.norms.implementations import IMPLEMENTATIONS
    from normcheck.norms.table import NORMS

    report = run(norms=list(NORMS), implementations=list(IMPLEMENTATIONS), shape=(4, 6, 5, 7))
    assert len(report.results) == len(NORMS) * len(IMPLEMENTATIONS)
    assert report.skipped == ()
    for result in report.results:
        assert all_good(result), (result.norm, result.implementation)
        assert result.deviation.relative_rms < 0.004, (result.norm, result.implementation)


# -------------------------------------------------------------------------------------------- the same again


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut inputs into many blocks, so that threads have something to share."""
    monkeypatch.setattr(study, "BLOCK", 4096)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "settings",
    [{}, {"distribution": "laplace"}, {"ftz": True, "eps": 1e-8}, {"rounding": "stochastic", "shape": (4, 8, 8, 16)}],
    ids=str,
)
def test_the_same_seed_gives_the_same_bytes_whatever_jobs_is(settings):
    wanted = {"norms": BOTH, "implementations": ["pure", "wide"], "shape": (8, 16, 16, 16), "seed": 5, **settings}
    one, two = (json(run(**wanted, jobs=jobs)) for jobs in (1, 2))
    assert one == two


@pytest.mark.usefixtures("no_search")
def test_nor_do_they_depend_on_jobs_in_blocks_of_the_usual_size():
    shape = (2, 4, 512, 256)
    assert math.prod(shape) > study.BLOCK
    for wanted in ({"implementations": ["pure"]}, {"implementations": ["wide-sum"], "rounding": "stochastic"}):
        one, two, other = (
            json(run(**wanted, shape=shape, jobs=jobs, seed=seed)) for jobs, seed in ((1, 5), (2, 5), (2, 6))
        )
        assert one == two
        assert one != other


def test_another_seed_is_another_tensor():
    one, again, other = (run(seed=seed, implementations=["pure"]) for seed in (1, 1, 2))
    assert json(one) == json(again)
    assert one.results[0].deviation != other.results[0].deviation


@pytest.mark.usefixtures("no_search")
def test_a_result_does_not_depend_on_its_company():
    alone = run(norms=["batch-l1"], implementations=["wide"], precisions=["bf16"]).results[0]
    report = run(norms=BOTH, implementations=["pure", "wide"], precisions=["fp16", "bf16"])
    assert alone in report.results
    shorter = run(norms=["batch-l1"], implementations=["wide"], precisions=["bf16"], shape=(8, 2, 8, 8)).results[0]
    assert shorter != alone


@pytest.mark.usefixtures("no_search")
def test_names_given_twice_count_once():
    report = run(
        norms=["batch-l2", "batchnorm", "batch-l2"], precisions=["fp16", "float16"], implementations=["pure"] * 2
    )
    assert len(report.results) == 1


def test_progress_goes_up_to_one():
    seen = []
    run(norms=BOTH, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_the_summary_counts():
    report = run(norms=BOTH, eps=1e-8, std=300.0)
    severities = [f.severity for f in report.findings]
    counts = report.summary.findings
    assert (counts.error, counts.warning, counts.note) == tuple(map(severities.count, ("error", "warning", "note")))
    assert report.summary.results == len(report.results)
    assert report.summary.layers == 0


# ------------------------------------------------------------------------------------------------- refusals


WRONG = {
    "precision": ({"precisions": ["fp17"]}, "fp17"),
    "precision too wide": ({"precisions": ["e11m30"]}, "e11m30"),
    "no precision": ({"precisions": []}, "precision"),
    "norm": ({"norms": ["batch-l3"]}, r"batch-l3.*batch-l"),
    "no norm": ({"norms": []}, "norm"),
    "implementation": ({"implementations": ["pur"]}, r"pur.*pure"),
    "distribution": ({"distribution": "nosuch(a=1)"}, "nosuch"),
    "distribution's parameter": ({"distribution": "gaussian(df=4)"}, "df"),
    "parameter out of range": ({"distribution": "outlier(fraction=2)"}, r"fraction.*2"),
    "unparsable distribution": ({"distribution": "gaussian((1)"}, "gaussian"),
    "empty dimension": ({"shape": (0, 3)}, "0,3"),
    "negative dimension": ({"shape": (4, -3)}, "4,-3"),
    "no dimension": ({"shape": ()}, "shape"),
    "too few dimensions": ({"shape": (32,)}, r"32.*batch-l2"),
    "groups that do not divide": ({"norms": ["group-l2"], "shape": (2, 12, 4), "num_groups": 5}, r"12.*5"),
    "no groups": ({"norms": ["group-l2"], "shape": (2, 12, 4), "num_groups": 0}, "0"),
    "single elements": ({"shape": (1, 64)}, r"n = 1\b"),
    "single elements of a layer": ({"norms": ["layer-l2"], "shape": (64, 1)}, r"n = 1\b"),
    "the largest of one": ({"norms": ["layer-linf-uncentred"], "shape": (64, 1)}, r"n = 1\b"),
    "mode": ({"mode": "test"}, "test"),
    "evaluation of a layer norm": ({"mode": "eval", "norms": ["layer-l2"]}, r"eval.*layer-l2"),
    "evaluation of one of two": ({"mode": "eval", "norms": ["batch-l2", "group-l1"]}, r"eval.*group-l1"),
    "negative eps": ({"eps": -1e-5}, "-1e-05"),
    "eps no number": ({"eps": math.nan}, "eps"),
    "infinite eps": ({"eps": math.inf}, "eps"),
    "constant": ({"constant": "papers"}, r"papers.*paper"),
    "k": ({"norms": ["batch-topk"], "k": 0}, r"k .*0"),
    "jobs": ({"jobs": 0}, "jobs"),
    "negative std": ({"std": -1.0}, r"std.*-1"),
    "std no number": ({"std": math.nan}, "std"),
    "mean no number": ({"mean": math.inf}, "mean"),
    "seed": ({"seed": -1}, r"seed.*-1"),
    "seed too large": ({"seed": 2**64}, "seed"),
    "rounding": ({"rounding": "nearest"}, r"nearest.*nearest-even"),
    "rounding that float64 cannot have": ({"rounding": "up", "precisions": ["fp64"]}, r"up.*float64"),
    "stochastic rounding of float64": ({"rounding": "stochastic", "precisions": ["fp64"]}, r"stochastic.*float64"),
    "order": ({"order": "lane"}, r"lane.*lanes"),
    "order's width": ({"order": "lanes(1)"}, r"lanes\(1\).*2"),
    "an order without a width": ({"order": "tree(4)"}, r"tree\(4\)"),
    "params": ({"params": "fp16"}, "fp16"),
    "weights of zero": ({"norms": ["weight-l2"], "std": 0.0}, r"weight-l2.*zero"),
    "bounded weights of zero": ({"norms": ["bounded-weight-l1"], "std": 0.0}, r"bounded-weight-l1.*zero"),
    "weights of a constant zero": ({"norms": ["weight-l2"], "distribution": "constant"}, r"weight-l2.*zero"),
}


@pytest.mark.parametrize(("settings", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_run_is_refused_in_one_clear_line(settings, says):
    with pytest.raises(UsageError, match=says) as caught:
        run(**settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20


def test_wide_float64_rounds_to_nearest_alone_but_float32_any_way():
    for mode in ("up", "down", "toward-zero", "stochastic"):
        (result,) = run(rounding=mode, precisions=["fp32"], implementations=["wide"]).results
        assert all_good(result)
    assert np.isfinite(result.deviation.relative_rms)
