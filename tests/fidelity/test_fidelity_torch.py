"""torch's own norms on this machine's CPU, whatever its vectors: each row of the catalogue gives every bit of them."""

from __future__ import annotations

import pytest

from normcheck.fidelity.hosts import host
from normcheck.fidelity.kernels.torch_cpu import kernels
from normcheck.fidelity.run import run
from normcheck.fidelity.table import difference
from normcheck.fidelity.worker import described
from normcheck.norms.catalogue import catalogue

KERNELS = kernels()
OUTPUTS = 20_000
"""A quick check: `python -m normcheck.fidelity` takes as many as are asked for."""


@pytest.mark.parametrize("kernel", KERNELS, ids=described)
def test_every_output_and_statistic_is_identical(kernel):
    found = run(kernel, "torch-cpu", host(by_torch=True), outputs=OUTPUTS, seed=1)
    assert difference(found) == ""
    assert found.outputs.share == 1.0
    assert found.outputs.zero_signs == 0
    assert found.outputs.numbers >= OUTPUTS
    assert found.kept
    if kernel.norm in ("layer-l2", "group-l2") or (kernel.norm == "batch-l2" and kernel.mode == "train"):
        assert found.mean.numbers == found.rstd.numbers > 0
        assert found.statistics.share == 1.0


def test_every_norm_comes_in_every_element_type_and_memory_format():
    assert {(k.norm, k.precision, k.params) for k in KERNELS} >= {
        (norm, precision, params)
        for norm in ("layer-l2", "group-l2", "batch-l2", "instance-l2")
        for precision, params in (("fp32", "io"), *((p, s) for p in ("fp16", "bf16") for s in ("io", "float32")))
    }
    assert {k.precision for k in KERNELS if k.norm == "rms"} == {"fp32", "fp16", "bf16"}
    assert {k.variant for k in KERNELS if k.norm == "batch-l2"} == {"contiguous", "channels-last", "two dimensions"}


def test_every_row_of_torch_on_the_cpu_that_is_current_is_run():
    rows = {name for name in catalogue() if name.startswith("torch-cpu-") and "legacy" not in name}
    assert rows == {k.implementation for k in KERNELS if k.implementation.startswith("torch-cpu-")}


def test_no_two_kernels_are_told_apart_by_nothing():
    assert len({described(kernel) for kernel in KERNELS}) == len(KERNELS)


def test_more_is_promised_than_of_others():
    assert {(k.least, k.most_ulps) for k in KERNELS} == {(0.9999, 1)}
