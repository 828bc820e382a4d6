"""No finding advises what is in use already, and every measure says what its rule found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_definitions import PURE, _no_search, assess  # its helper and fixture serve here too

from normcheck import simulate
from normcheck.analysis.parameter_facts import parameter_facts
from normcheck.analysis.rule import KEEP_DOUBLE, KEEP_PARAMETERS, Case
from normcheck.analysis.rules import findings_of
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import Order
from normcheck.arithmetic.rounding import Rounding
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import norm_named
from normcheck.results import Rows, WorstRow

assert _no_search  # an autouse fixture, by being here

PRECISIONS = ("fp16", "bf16", "fp32", "float8_e4m3fn", "float8_e5m2", "float64")
INPUTS = {
    "tiny": {"std": 1e-30, "eps": 0.0},
    "small": {"std": 1e-6, "eps": 1e-12},
    "large": {"std": 100.0},
    "huge": {"std": 1e25},
    "far from zero": {"mean": 3000.0},
    "away from zero": {"mean": 40.0},
    "flat": {"distribution": "constant", "eps": 1e-46},
}


@pytest.fixture(scope="module")
def findings():
    """Those of every implementation on inputs of every size, in formats of every range."""
    with pytest.MonkeyPatch.context() as patch:
        for search in ("safe_scale", "safe_magnitude"):
            patch.setattr(f"normcheck.analysis.assemble.{search}", lambda *_args: None)
        reports = [
            simulate(
                norms=["layer-l2", "layer-l1", "rms"], precisions=PRECISIONS, implementations=list(IMPLEMENTATIONS),
                shape=(2, 300), jobs=1, **settings,
            )
            for settings in INPUTS.values()
        ]  # fmt: skip
    return [finding for report in reports for finding in report.findings]


def test_there_are_findings_of_every_kind(findings):
    assert len({f.rule for f in findings}) >= 12
    assert {f.implementation for f in findings} == set(IMPLEMENTATIONS)


def test_no_fix_advises_the_implementation_in_use(findings):
    used = [f for f in findings if f"`{f.implementation}`" in f.fix and "is that of" not in f.fix]
    assert [f for f in used if "--norm" not in f.fix] == []  # another norm under the same implementation helps


def test_no_fix_advises_float32_where_it_is_the_format(findings):
    wide = [f for f in findings if f.precision in ("fp32", "float64") and f.rule not in ("NC303", "NC302")]
    assert wide
    assert [f for f in wide if "in float32" in f.fix or "or float32" in f.fix] == []
    exact = [f for f in wide if f.rule == "NC301" and f.implementation in ("pure", "wide", "wide-sum")]
    assert exact
    assert [f for f in exact if "use implementation" in f.fix] == []


def test_no_fix_advises_the_norm_in_use(findings):
    assert [f for f in findings if f"--norm {f.norm} " in f.fix] == []


def test_an_eps_is_advised_that_the_format_holds(findings):
    fixes = {f.precision: f.fix for f in findings if f.rule == "NC201" and f.implementation == "pure"}
    assert fixes["fp16"] == "use --eps 1e-4 or larger, or keep eps in float32"
    assert fixes["bf16"] == "use --eps 1e-37 or larger"
    assert fixes["float8_e4m3fn"] == "keep eps in float32"  # whose smallest normal number is 0.016


def of(case, rule):
    (found,) = [f for f in findings_of(case) if f.rule == rule]
    return found


@pytest.fixture(scope="module")
def good():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("normcheck.analysis.assemble.safe_scale", lambda *_args, **_settings: None)
        return assess([[1.0, -1.0, 2.0, -2.0]], eps=1e-3)[0]


@pytest.mark.parametrize(
    ("step", "said"), [("load", "store it in bfloat16"), ("gain", "this layer's output"), ("square", "`wide`")]
)
def test_the_remedy_is_that_of_the_step_that_overflows(good, step, said):
    worst = WorstRow(index=0, kind="nonfinite", s=1.0, s_emulated=1.0, first_bad_step=step)
    result = replace(good, rows=Rows(total=1, nonfinite=1, collapsed=0, amplified=0, shrunk=0), worst_rows=(worst,))
    assert said in of(Case(result, PURE, Rounding()), "NC101").fix


@pytest.mark.parametrize(
    ("order", "form", "said"),
    [
        (Order("sequential"), "float16", "in lanes, in a tree or as a mean of means"),
        (Order("lanes", 32), "float16", "as a mean of means (implementation `pure-scaled`), or accumulate in float32"),
        (Order("blocks", 64), "float16", "accumulate in float32"),
        (Order("lanes", 32), "float32", "--order 'blocks(64)'"),
    ],
)
def test_a_sum_is_to_be_formed_otherwise(good, order, form, said):
    steps = tuple(replace(s, lost_mass=0.5, format=form) if s.step == "sum" else s for s in good.steps)
    found = of(Case(replace(good, steps=steps), replace(PURE, order=order), Rounding()), "NC302")
    assert found.fix.endswith(said) or said in found.fix
    assert found.measure.name == "steps.sum.lost_mass"


def facts_of(form, momentum=None, **parameters):
    given = Parameters(**{name: np.array(values) for name, values in parameters.items()})
    stored = given.cast("io", format_named(form), Rounding())
    return parameter_facts(norm_named("batch-l2"), given, stored, eps=1e-5, momentum=momentum)


@pytest.mark.parametrize(("form", "fix"), [("fp16", KEEP_PARAMETERS), ("fp32", KEEP_DOUBLE)])
@pytest.mark.parametrize(("rule", "value"), [("NC104", 1e39), ("NC204", 1e-46)])
def test_parameters_go_to_the_next_wider_format(good, form, fix, rule, value):
    result = replace(good, parameters=facts_of(form, weight=[value]))
    assert of(Case(result, PURE, Rounding()), rule).fix == fix


MEASURES = {
    "beyond": ("NC104", {"weight": [1e6, 1.0]}, "parameters.beyond", 1.0, 0.0),
    "not finite": ("NC104", {"weight": [np.inf, 1.0]}, "parameters.nonfinite", 1.0, 0.0),
    "negative": ("NC104", {"running_mean": [0.0], "running_statistic": [-1.0]}, "parameters.negative", 1.0, 0.0),
    "flushed": ("NC204", {"weight": [1e-9, 1e-10, 1.0]}, "parameters.flushed", 2.0, 0.0),
}


@pytest.mark.parametrize(("rule", "parameters", "name", "value", "limit"), MEASURES.values(), ids=MEASURES)
def test_the_measure_of_parameters(good, rule, parameters, name, value, limit):
    case = Case(replace(good, parameters=facts_of("fp16", **parameters)), PURE, Rounding())
    measure = of(case, rule).measure
    assert (measure.name, measure.value, measure.limit, measure.worse) == (name, value, limit, "higher")


def test_the_measures_of_rounded_and_stalled_parameters(good):
    facts = facts_of("bf16", momentum=0.01, running_mean=[100.3], running_statistic=[1.0], weight=[1.0])
    found = findings_of(Case(replace(good, parameters=facts), PURE, Rounding()))
    measures = {f.measure.name: f.measure for f in found}
    assert measures["parameters.shift"].value == facts.shift > measures["parameters.shift"].limit == 0.05
    assert measures["parameters.mean_step"].value == facts.mean_step > 0.1
    assert measures["parameters.variance_step"].value == facts.variance_step > 0.1
    assert measures["parameters.shift"].unit == measures["parameters.mean_step"].unit == "deviations"


def test_the_measure_of_folded_parameters(good):
    facts = facts_of("fp16", running_mean=[0.0, 0.0], running_statistic=[0.0, 0.0], weight=[60000.0, 1.0])
    case = Case(replace(good, parameters=facts, mode="eval"), PURE, Rounding())
    measure = of(case, "NC104").measure
    assert (measure.name, measure.value, measure.unit) == ("parameters.folded_beyond", 1.0, "channels")


def test_the_measure_of_a_deviation_is_beside_the_limit_that_was_passed(good):
    ideal = replace(good.deviation.ideal, relative_rms=1e-4)
    for error, limit in ((2e-3, 16e-4), (0.2, 0.1)):
        result = replace(good, deviation=replace(good.deviation, relative_rms=error, ideal=ideal))
        measure = of(Case(result, PURE, Rounding()), "NC301").measure
        assert (measure.value, measure.limit, measure.unit) == (error, pytest.approx(limit), "ratio")


def test_amplified_rows_are_measured_where_none_is_flushed(good):
    rows = replace(good.rows, amplified=3)
    assert of(Case(replace(good, rows=rows), PURE, Rounding()), "NC203").measure.name == "rows.amplified"
    both = replace(good, rows=rows, statistic=replace(good.statistic, flushed_rows=2))
    assert of(Case(both, PURE, Rounding()), "NC203").measure.name == "statistic.flushed_rows"


def test_infinite_inputs_are_not_in_the_measure_of_non_finite_rows(good):
    rows = Rows(total=9, nonfinite=5, collapsed=0, amplified=0, shrunk=0, infinite_input=3)
    case = Case(replace(good, rows=rows), PURE, Rounding())
    assert of(case, "NC101").measure.value == 2.0
    assert of(case, "NC105").measure.value == 3.0
