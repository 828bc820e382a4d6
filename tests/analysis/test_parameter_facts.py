"""What a format does to parameters, on numbers small enough to follow by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from normcheck.analysis.parameter_facts import parameter_facts
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import NEAREST
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import norm_named


def facts_of(*, precision="fp16", norm="batch-l2", eps=1e-5, weight_offset=0.0, momentum=None, **vectors):
    given = Parameters(**{name: np.asarray(values, np.float64) for name, values in vectors.items()})
    stored = given.cast("io", format_named(precision), NEAREST)
    return parameter_facts(norm_named(norm), given, stored, eps=eps, weight_offset=weight_offset, momentum=momentum)


def test_no_parameters_give_no_facts():
    assert facts_of() is None


def test_parameters_that_the_format_holds_are_left_as_they_are():
    facts = facts_of(weight=[1.0, 2.0], bias=[0.0, -1.0], running_mean=[0.5, 3.0], running_statistic=[1.0, 4.0])
    assert (facts.format, facts.of, facts.weights) == ("float16", 8, 2)
    assert (facts.beyond, facts.flushed, facts.nonfinite, facts.scale_change, facts.shift) == (0, 0, 0, 0.0, 0.0)
    assert facts.worst is None


@pytest.mark.parametrize(("variance", "beyond"), [(65519.0, 0), (65520.0, 1), (2.7e8, 1)])
def test_a_running_variance_is_beyond_float16_from_the_rounding_threshold_on(variance, beyond):
    facts = facts_of(running_mean=[0.0, 0.0], running_statistic=[1.0, variance])
    assert (facts.beyond, facts.beyond_running_var) == (beyond, beyond)
    assert facts.worst == 1


def test_nothing_of_that_is_beyond_bfloat16():
    facts = facts_of(precision="bf16", running_mean=[1.2e4], running_statistic=[2.7e8])
    assert facts.beyond == 0
    assert facts.scale_change < 2.0**-8


def test_a_gamma_below_half_the_least_subnormal_is_flushed_and_0_is_not():
    facts = facts_of(norm="layer-l2", weight=[0.0, 2.0**-26, 2.0**-24, 1.0])
    assert (facts.flushed, facts.weights) == (1, 4)


def test_a_gamma_that_the_norm_adds_1_to_is_not_lost_for_being_flushed():
    assert facts_of(norm="rms", weight=[2.0**-26], weight_offset=1.0).flushed == 0


def test_the_change_of_the_scale_is_that_of_gamma_over_the_deviation():
    # float8_e4m3fn holds neither 1.1 (1.125) nor 0.3 (0.3125)
    facts = facts_of(precision="float8_e4m3fn", eps=0.0, weight=[1.1], running_mean=[0.0], running_statistic=[0.3])
    assert facts.scale_change == pytest.approx(1.125 / math.sqrt(0.3125) / (1.1 / math.sqrt(0.3)) - 1)


def test_a_tiny_variance_is_judged_beside_eps():
    facts = facts_of(eps=1e-3, running_mean=[0.0], running_statistic=[5.6e-45], weight=[1.0])
    assert facts.scale_change == 0.0


def test_the_shift_is_counted_in_deviations():
    # 2049 lies between two numbers of float16 that are 2 apart: half of that is 1
    facts = facts_of(eps=0.0, running_mean=[2049.0], running_statistic=[100.0])
    assert facts.shift == pytest.approx(0.1)
    assert facts.worst == 0


def test_scales_and_shifts_of_folded_norms_are_counted():
    # scales 1 / 1e-5, 1e-4 / 1e4 and 1; the shift of the last is -70000
    facts = facts_of(
        eps=0.0,
        weight=[1.0, 1e-4, 1.0],
        bias=[0.0, 0.0, 0.0],
        running_mean=[0.0, 0.0, 7e4],
        running_statistic=[1e-10, 1e8, 1.0],
    )
    assert (facts.folded_beyond, facts.folded_flushed) == (2, 1)
    assert facts_of(norm="layer-l2", weight=[1e9]).folded_beyond == 0


def test_infinities_of_the_file_are_counted_and_compared_with_nothing():
    facts = facts_of(weight=[1.0, math.nan], running_mean=[0.0, 0.0], running_statistic=[math.inf, 1.0])
    assert (facts.nonfinite, facts.beyond) == (2, 0)
    assert facts.scale_change is None


def test_the_least_change_that_running_statistics_follow():
    # at 20 bfloat16's numbers are 2^-3 apart: half of that, over the momentum, in deviations of 1
    facts = facts_of(precision="bf16", eps=0.0, momentum=0.1, running_mean=[20.0], running_statistic=[1.0])
    assert facts.mean_step == pytest.approx(2.0**-4 / 0.1)
    assert facts.variance_step == pytest.approx(2.0**-8 / 0.1)


def test_without_updates_there_are_no_least_changes():
    facts = facts_of(running_mean=[20.0], running_statistic=[1.0])
    assert (facts.mean_step, facts.variance_step) == (None, None)
