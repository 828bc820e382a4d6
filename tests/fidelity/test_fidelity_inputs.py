"""Trials: numbers that the formats hold, of the sizes that matter, the same for the same seed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.rounding import round_to
from normcheck.fidelity.inputs import FAMILIES, LARGEST, SPATIAL, WIDTHS, trials
from normcheck.fidelity.kernel import Kernel
from normcheck.norms.implementations import IMPLEMENTATIONS

WIDE = IMPLEMENTATIONS["wide"]


def kernel(**more):
    given = {"norm": "layer-l2", "precision": "fp16", "affine": ("none", "weight", "bias", "both"), **more}
    return Kernel(implementation="wide", run=lambda trial: trial, packages=(), **given)


def drawn(outputs=300_000, seed=0, **more):
    return list(trials(kernel(**more), WIDE, outputs, seed))


def numbers(trial):
    return [v for v in (trial.x, trial.residual) if v is not None], [
        v for v in (trial.weight, trial.bias, trial.running_mean, trial.running_var) if v is not None
    ]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("params", ["io", "float32"])
def test_all_numbers_are_of_the_formats(precision, params):
    form = format_named(precision)
    stored = form if params == "io" else format_named("fp32")
    for named in drawn(
        50_000, norm="batch-l2", precision=precision, params=params, shapes="images", running=True, residual=True
    ):
        elements, parameters = numbers(named.trial)
        assert all(v.dtype == np.float32 for v in (*elements, *parameters))
        assert all(np.array_equal(round_to(v, form), v, equal_nan=True) for v in elements)
        assert all(np.array_equal(round_to(v, stored), v, equal_nan=True) for v in parameters)


def test_the_same_seed_gives_the_same_trials_and_another_one_others():
    one, same, other = (drawn(20_000, seed) for seed in (3, 3, 4))
    assert [t.trial.x.tobytes() for t in one] == [t.trial.x.tobytes() for t in same]
    assert [t.trial.x.tobytes() for t in one] != [t.trial.x.tobytes() for t in other]


def test_every_family_and_every_width_comes_with_every_kind_of_parameters():
    found = drawn(3_000_000)
    assert {t.family for t in found} == set(FAMILIES)
    assert {t.trial.x.shape[-1] for t in found} == set(WIDTHS)
    assert {(t.trial.weight is None, t.trial.bias is None) for t in found} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert len({len(t.trial.x) for t in found}) > 50


def test_there_are_as_many_outputs_as_are_asked_for_in_pieces_that_fit_into_memory():
    found = drawn(2_000_000, norm="group-l2", shapes="images")
    sizes = [t.trial.x.size for t in found]
    assert 2_000_000 <= sum(sizes) < 2_000_000 + LARGEST
    assert max(sizes) <= 2 * LARGEST
    assert {math.prod(t.trial.x.shape[2:]) for t in found} > {1, 31, 1023, 1024, 1025}
    assert all(t.trial.x.shape[1] % t.trial.num_groups == 0 for t in found)


def test_special_values_are_there():
    values = np.concatenate([t.trial.x.reshape(-1) for t in drawn()])
    form = format_named("fp16")
    assert np.isnan(values).any()
    assert np.isposinf(values).any()
    assert (values == form.max_finite).any()
    assert (values == form.min_subnormal).any()
    assert (np.signbit(values) & (values == 0)).any()


def test_a_row_for_some_sizes_is_tried_on_those_alone():
    four = dataclasses.replace(WIDE, multiple_of=4)
    assert {t.trial.x.shape[-1] % 4 for t in trials(kernel(), four, 200_000, 0)} == {0}
    large = dataclasses.replace(WIDE, spatial_from=1024)
    images = kernel(norm="group-l2", shapes="images")
    assert {math.prod(t.trial.x.shape[2:]) >= 1024 for t in trials(images, large, 200_000, 0)} == {True}


def test_a_kernel_that_takes_nothing_ends_the_trials():
    assert drawn(fits=lambda _shape, _groups: False) == []


def test_the_sizes_stand_beside_every_boundary():
    pixels = {height * width for height, width in SPATIAL}
    for boundary in (8, 16, 32, 64, 128, 256):
        assert {boundary - 1, boundary, boundary + 1} <= set(WIDTHS)
        assert {boundary - 1, boundary} & pixels
    assert {1023, 1024, 1025} <= pixels
