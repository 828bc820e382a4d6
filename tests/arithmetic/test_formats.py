"""The format table against the specifications' figures and the enumerated codes."""

from __future__ import annotations

import dataclasses
import math

import oracle
import pytest

from normcheck.arithmetic.formats import FORMATS, format_named, holds, wider
from normcheck.errors import UsageError

USER = ("e2m1", "e3m2", "e4m3", "e3m4", "e5m1", "e6m9", "e9m4", "e9m23", "e2m23", "e8m15")
NAMES = (*oracle.SPECIFIED, *USER)


def test_the_table_holds_the_specified_formats_and_no_others():
    assert {form.name for form in FORMATS} == set(oracle.SPECIFIED)


@pytest.mark.parametrize("name", NAMES)
def test_derived_facts_are_those_of_the_codes(name):
    form, model = format_named(name), oracle.target(name)
    assert form.bits == model.bits
    assert form.precision == model.mantissa_bits + 1
    assert form.emin == model.emin
    assert form.max_finite == model.largest
    assert 2**form.emax <= model.largest < 2 ** (form.emax + 1)
    assert form.min_normal == model.smallest_normal == model.magnitude(2**model.mantissa_bits)
    assert form.min_subnormal == model.magnitude(1)
    assert form.roundoff == 2.0**-form.precision
    assert form.infinities == model.infinities
    assert form.signed_zero == (model.nan != "negative-zero")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "float64"])
def test_the_overflow_threshold_is_where_rounding_to_nearest_leaves_the_finite_numbers(name):
    form, model = format_named(name), oracle.target(name)
    threshold = form.overflow_threshold
    at = oracle.round_float(threshold, model)
    assert math.isfinite(at) != form.threshold_overflows
    assert oracle.round_float(math.nextafter(threshold, 0), model) == form.max_finite
    assert not math.isfinite(oracle.round_float(math.nextafter(threshold, math.inf), model))


def test_published_figures():
    largest = {
        "float16": 65504,
        "float8_e4m3fn": 448,
        "e4m3": 240,
        "float8_e5m2": 57344,
        "float8_e4m3fnuz": 240,
        "float8_e5m2fnuz": 57344,
        "float6_e2m3fn": 7.5,
        "float6_e3m2fn": 28,
        "float4_e2m1fn": 6,
    }
    assert {name: format_named(name).max_finite for name in largest} == largest
    assert format_named("fp16").overflow_threshold == 65520
    assert format_named("e4m3fn").overflow_threshold == 464
    assert not format_named("e4m3fn").threshold_overflows


@pytest.mark.parametrize(
    ("alias", "name"),
    [("e5m10", "float16"), ("e8m7", "bfloat16"), ("e8m10", "tf32"), ("e5m2", "float8_e5m2")],
)
def test_user_names_of_specified_formats_are_those_formats(alias, name):
    assert format_named(alias) is format_named(name)


def test_every_name_label_and_alias_finds_its_format():
    for form in FORMATS:
        for name in (form.name, form.label, *form.aliases, form.name.upper(), f" {form.name} "):
            assert format_named(name) is form


@pytest.mark.parametrize("name", ["fp17", "", "e1m3", "e10m3", "e5m0", "e5m24", "e5", "m3", "e-5m2", "e5m2x", "float8"])
def test_other_names_are_usage_errors_that_repeat_what_was_received(name):
    with pytest.raises(UsageError, match=name or "format"):
        format_named(name)


@pytest.mark.parametrize("inner", [name for name in NAMES if oracle.target(name).bits <= 16])
@pytest.mark.parametrize("outer", ["float32", "bfloat16", "float16", "float8_e5m2", "e9m4"])
def test_holds_says_whether_every_finite_number_is_a_number_of_the_other(inner, outer):
    model = oracle.target(outer)
    expected = all(oracle.round_float(float(x), model) == x for x in oracle.target(inner).magnitudes)
    assert holds(format_named(outer), format_named(inner)) == expected


def test_wider_prefers_precision_and_then_the_first():
    fp16, bf16, tf32 = map(format_named, ("fp16", "bf16", "tf32"))
    assert wider(fp16, bf16) is wider(bf16, fp16) is fp16
    assert wider(fp16, tf32) is fp16
    assert wider(tf32, fp16) is tf32


def test_formats_are_frozen_and_print_their_names():
    form = format_named("fp16")
    assert str(form) == "float16"
    with pytest.raises(dataclasses.FrozenInstanceError):
        form.bias = 1
