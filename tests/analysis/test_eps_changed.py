"""NC206 and the figures behind it: eps as a kernel really adds it, against eps as given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from test_definitions import _no_search, assess  # its helper and fixture serve here too

from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.results.result import Statistic

assert _no_search  # an autouse fixture, by being here

WIDE = IMPLEMENTATIONS["wide"]
ROWS = np.array([[0.25, -0.25, 0.25, -0.25], [0.5, -0.5, 0.5, -0.5]])
"""Variances 1/16 and 1/4."""


def said(findings, rule="NC206"):
    return [(finding.severity, finding.message) for finding in findings if finding.rule == rule]


def test_the_figures_of_a_clamped_eps_are_those_of_the_row_where_it_matters_most():
    result, _ = assess(ROWS, eps=2.0**-20, how=replace(WIDE, eps_min=2.0**-6))
    figures = result.statistic
    assert figures.effective_eps == 2.0**-6
    assert figures.eps_effect == pytest.approx(math.sqrt((1 / 16 + 2.0**-6) / (1 / 16 + 2.0**-20)) - 1, rel=1e-12)


def test_where_eps_is_added_to_the_statistic_its_effect_needs_no_root():
    result, _ = assess(ROWS, "layer-linf", eps=2.0**-20, how=replace(WIDE, eps_min=2.0**-6), kind="paper")
    s = 0.25 * (1 + math.sqrt(math.pi * math.log(4))) / (2 * math.sqrt(2 * math.log(4)))
    assert result.statistic.eps_effect == pytest.approx((s + 2.0**-6) / (s + 2.0**-20) - 1, rel=1e-6)


def test_of_rows_divided_by_their_largest_element_eps_grows_with_its_square():
    rows = np.array([[8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [4.0] * 8])
    result, findings = assess(rows, "rms", eps=2.0**-6, how=replace(WIDE, rescale="max"))
    assert result.statistic.effective_eps == 64 * 2.0**-6
    v = (64 + 7) / 8
    assert result.statistic.eps_effect == pytest.approx(math.sqrt((v + 1) / (v + 2.0**-6)) - 1, rel=1e-12)
    ((severity, message),) = said(findings)
    assert severity == "warning"
    assert "eps 0.015625 is 1 in effect (eps times the square of the row's largest element)" in message


@pytest.mark.parametrize(
    ("eps", "precision", "shown"),
    [
        (1e-7, "fp16", "1.19e-07"),  # two of the smallest numbers of float16
        (1e-5, "e5m2", "1.53e-05"),  # one of those of e5m2
    ],
)
def test_an_eps_that_its_format_changes_much_is_a_note(eps, precision, shown):
    _, findings = assess([[1.0, -1.0, 2.0, -2.0]], eps=eps, precision=precision)
    ((severity, message),) = said(findings)
    assert severity == "note"
    assert f"eps {eps:g} is {shown} in effect (rounded to float" in message


@pytest.mark.parametrize(("factor", "fires"), [(1.09, False), (1.11, True)])
def test_the_threshold_is_a_tenth_of_eps(factor, fires):
    _, findings = assess(ROWS, eps=1e-4, how=replace(WIDE, eps_min=factor * 1e-4))
    assert bool(said(findings)) == fires


@pytest.mark.parametrize(("eps_min", "severity"), [(0.0012, "note"), (0.0014, "warning")])
def test_it_is_a_warning_from_one_percent_of_the_divisor_on(eps_min, severity):
    _, findings = assess(ROWS, eps=1e-6, how=replace(WIDE, eps_min=eps_min))  # 1 % of sqrt(1/16): 1.26e-3
    ((found, _),) = said(findings)
    assert found == severity


def test_an_eps_that_is_lost_altogether_is_left_to_nc201():
    _, findings = assess(ROWS, eps=1e-12)
    assert said(findings) == []
    assert said(findings, "NC201") == [("warning", "eps 1e-12 rounds to 0 in float16")]


def test_an_eps_rounded_before_it_is_added_wide_is_lost_too_and_the_format_that_lost_it_is_named():
    row = replace(WIDE, eps_rounded="io")
    _, findings = assess([[0.0] * 4], eps=1e-12, how=row)
    ((severity, message),) = said(findings, "NC201")
    assert severity == "error"
    assert message == "eps 1e-12 rounds to 0 in float16, and 1 of 1 rows have no variance: 0/0"
    _, clamped = assess([[0.0] * 4], eps=1e-12, how=replace(row, eps_min=1e-5))
    assert said(clamped, "NC201") == []


def test_as_given_nothing_changes_and_without_eps_there_is_nothing_to_say():
    result, findings = assess(ROWS, eps=1e-5, how=WIDE)
    assert said(findings) == []
    assert result.statistic.effective_eps == np.float32(1e-5)
    assert result.statistic.eps_effect < 1e-9
    assert assess(ROWS, "weight-l2", weight=[1.0, 1.0])[0].statistic.effective_eps is None
    assert Statistic.__dataclass_fields__["effective_eps"].default is None
