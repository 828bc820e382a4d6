"""A kernel beside its row: the suite must find what is wrong, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from normcheck.analysis.emulate import emulate
from normcheck.arithmetic.orders import Order
from normcheck.errors import NormcheckError
from normcheck.fidelity.hosts import Host
from normcheck.fidelity.kernel import Kernel, Observed
from normcheck.fidelity.run import run
from normcheck.fidelity.table import difference
from normcheck.norms.implementations import IMPLEMENTATIONS

WIDE = IMPLEMENTATIONS["wide"]
HERE = Host("none", 1, "a processor")


def observed(trial, norm, precision, params):
    """The row `wide` as if it were a kernel."""
    found = emulate(
        trial.x,
        norm,
        precision=precision,
        implementation="wide",
        weight=trial.weight,
        bias=trial.bias,
        eps=trial.eps,
        num_groups=trial.num_groups,
        running_mean=trial.running_mean,
        running_var=trial.running_var,
        params=params,
    )
    kept = (found.mean, found.rstd, found.running_mean, found.running_var)
    return Observed(found.output, *(None if v is None else v.astype(np.float32) for v in kept))


def kernel(norm="layer-l2", precision="fp16", params="io", **more):
    return Kernel(
        implementation="wide",
        norm=norm,
        precision=precision,
        params=params,
        run=lambda trial: observed(trial, norm, precision, params),
        packages=("numpy",),
        **{"affine": ("none", "weight", "bias", "both"), **more},
    )


def ran(how=WIDE, outputs=60_000, **more):
    return run(kernel(**more), "itself", HERE, outputs=outputs, seed=0, how=how)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("norm", ["layer-l2", "rms", "group-l2", "batch-l2"])
def test_a_kernel_that_computes_as_its_row_is_identical_in_every_bit(norm, precision):
    images = {"shapes": "images", "running": norm == "batch-l2"} if norm in ("group-l2", "batch-l2") else {}
    found = ran(norm=norm, precision=precision, **images)
    assert found.outputs.numbers >= 60_000
    assert found.outputs.share == 1.0
    assert found.outputs.zero_signs == found.outputs.nan_apart == 0
    assert found.worst is None
    assert found.kept
    assert difference(found) == ""


def test_what_a_kernel_returns_besides_is_compared_too():
    found = ran(norm="batch-l2", shapes="images", running=True, params="float32", affine=("both",))
    assert found.mean.numbers == found.rstd.numbers > 0
    assert 0 < found.running.numbers < 2 * found.mean.numbers
    assert found.statistics.share == 1.0
    assert found.statistics.numbers == found.mean.numbers + found.rstd.numbers + found.running.numbers


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": Order("sequential")},
        {"variance": "one-pass"},
        {"division": "multiply"},
        {"root_form": "rsqrt"},
        {"normalize_form": "shift"},
        {"normalized": "io"},
        {"statistic": "io"},
        {"eps_rounded": "io"},
        {"weight_offset": 1.0},
    ],
    ids=str,
)
def test_a_row_with_one_wrong_field_is_found(wrong):
    found = ran(dataclasses.replace(WIDE, **wrong))
    assert found.outputs.share < 1.0
    assert found.worst is not None
    assert found.worst.kernel != found.worst.row


def test_the_line_on_the_difference_says_what_where_and_how_far():
    found = ran(dataclasses.replace(WIDE, weight_offset=1.0), affine=("weight",))
    assert not found.kept
    told = difference(found)
    assert told.startswith("wide layer-l2 fp16 on none: below the 99.9 % promised; kernel ")
    assert f"row {found.worst.row:.9g}" in told
    assert f"at y[{','.join(map(str, found.worst.index))}]" in told
    assert found.worst.inputs in told
    assert "weight" in told


def test_a_wrong_statistic_is_found_where_outputs_hide_it():
    found = ran(dataclasses.replace(WIDE, saved="io"))
    assert found.outputs.share == 1.0
    assert found.rstd.share < 1.0
    assert "statistic[" in difference(found)


def test_a_distance_beyond_the_promised_one_is_a_broken_promise_however_few_the_pairs():
    wrong = dataclasses.replace(WIDE, order=Order("sequential"))
    loose, strict = (ran(wrong, precision="fp32", least=0.0, most_ulps=most) for most in (None, 1))
    assert loose.kept
    assert not strict.kept


def test_a_kernel_without_any_size_that_it_takes_is_an_error():
    with pytest.raises(NormcheckError, match="takes none of the sizes"):
        ran(fits=lambda _shape, _groups: False)


def test_a_row_that_does_not_define_the_norm_is_an_error():
    with pytest.raises(NormcheckError, match="takes none of the sizes"):
        ran(dataclasses.replace(WIDE, norms=("rms",)))
