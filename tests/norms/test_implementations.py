"""The rows of the table: which run unless told, and that those made for one defect have it and nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from normcheck import emulate
from normcheck.analysis.plans import default_rows
from normcheck.arithmetic.formats import FORMATS, format_named
from normcheck.norms.implementations import IMPLEMENTATIONS, default_implementations

WIDE = ("wide", "wide-one-pass", "wide-saved-io")
NORMS = ("batch-l2", "layer-l2")


def rows_for(norm, values):
    """Rows as the norm takes them: channels of a batch, or tokens."""
    return values.T.copy() if norm == "batch-l2" else values


def run(norm, values, implementation, **settings):
    return emulate(rows_for(norm, np.asarray(values, np.float32)), norm, implementation=implementation, **settings)


def test_no_default_names_a_row_made_for_a_defect():
    for form in FORMATS:
        assert set(default_implementations(form)) <= {"pure", "pure-scaled", "wide"}
        assert {row.name for row in default_rows(form)[0]} <= {"pure", "wide"}
    assert default_implementations(format_named("fp16")) == ("pure", "pure-scaled", "wide")
    assert default_implementations(format_named("float8_e4m3fn")) == ("wide",)


def test_every_row_is_generic_and_says_what_it_is():
    for name, row in IMPLEMENTATIONS.items():
        assert (row.name, row.status, row.citation) == (name, "generic", "")
        assert row.title
    assert len({row.title for row in IMPLEMENTATIONS.values()}) == len(IMPLEMENTATIONS)


@pytest.mark.parametrize("norm", NORMS)
def test_one_pass_cancels_where_the_mean_is_large(norm):
    # E[x^2] is 9e6, whose ulp in float32 is 1; the variance is 0.01
    values = np.random.default_rng(0).standard_normal((4, 256)) * 0.1 + 3000.0
    settings = {"precision": "fp32", "eps": 1e-5}
    one, two = run(norm, values, "wide-one-pass", **settings), run(norm, values, "wide", **settings)
    assert two.statistic.negative_rows == 0
    assert two.statistic.max_relative_error < 1e-3
    assert one.statistic.negative_rows or one.statistic.max_relative_error > 0.5
    assert one.rows.bad == 4


@pytest.mark.parametrize("norm", NORMS)
def test_one_pass_is_as_right_as_two_where_the_mean_is_small(norm):
    values = np.random.default_rng(1).standard_normal((4, 256))
    one, two = (run(norm, values, name, precision="fp16") for name in ("wide-one-pass", "wide"))
    assert one.rows.bad == 0
    assert np.abs(one.output - two.output).max() <= 2.0**-9  # an ulp of float16 in [2, 4)
    assert one.deviation.relative_rms == pytest.approx(two.deviation.relative_rms, rel=0.01)


def test_a_negative_variance_is_not_clamped():
    # ONNX Runtime 1.19 gave NaN for 256 times 1234.0 (issue 21935), adding one after the other
    values = np.full((1, 256), 1234.0)
    got = run("layer-l2", values, "wide-one-pass", precision="fp32", order="sequential")
    assert got.statistic.negative_rows == 1
    assert np.isnan(got.output).all()
    two = run("layer-l2", values, "wide", precision="fp32", order="sequential")
    assert two.statistic.negative_rows == 0
    assert np.isfinite(two.output).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_what_is_saved_changes_nothing_but_its_own_step(norm, precision):
    values = np.random.default_rng(2).standard_normal((4, 64)) * 3 + 1
    saving, wide = (
        run(norm, values, "wide-saved-io", precision=precision),
        run(norm, values, "wide", precision=precision),
    )
    assert np.array_equal(saving.output, wide.output)
    assert [s for s in saving.steps if s.step != "saved"] == list(wide.steps)
    (step,) = [s for s in saving.steps if s.step == "saved"]
    assert step.format == format_named(precision).name
    assert step.operations == (0 if precision == "fp32" else 8)  # a mean and a reciprocal for each of four rows
    assert step.overflow == 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_saved_reciprocal_overflows_in_float16_alone(norm):
    flat = np.ones((2, 64))
    settings = {"eps": 1e-10}  # 1 / sqrt(eps) = 1e5
    for precision, overflows in (("fp16", 2), ("bf16", 0), ("fp32", 0)):
        got = run(norm, flat, "wide-saved-io", precision=precision, **settings)
        (step,) = [s for s in got.steps if s.step == "saved"]
        assert step.overflow == overflows
        assert not got.output.any()


def test_a_statistic_is_clipped_to_the_io_format_whatever_elements_are_loaded_in():
    values = np.array([[-1000.0, 1000.0, -1000.0, 1000.0]])
    wide = IMPLEMENTATIONS["wide"]
    for load in ("io", "wide"):
        row = dataclasses.replace(wide, name="mine", clip=True, load=load)
        got = run("layer-l2", values, row, precision="fp16", eps=0.0)
        assert got.output[0, 1] == pytest.approx(1000 / 65504**0.5, rel=1e-3)
    assert run("layer-l2", values, "wide", precision="fp16", eps=0.0).output[0, 1] == 1.0


def test_uncentred_norms_save_the_reciprocal_alone():
    got = emulate(np.ones((3, 8), np.float32), "rms", precision="fp16", implementation="wide-saved-io")
    (step,) = [s for s in got.steps if s.step == "saved"]
    assert step.operations == 3


@pytest.mark.parametrize("name", WIDE)
def test_the_other_statistics_are_those_of_wide(name):
    values = np.random.default_rng(3).standard_normal((4, 64)) + 2
    for norm in ("batch-l1", "layer-linf", "layer-range"):
        assert np.array_equal(
            run(norm, values, name, precision="fp16").output, run(norm, values, "wide", precision="fp16").output
        )
