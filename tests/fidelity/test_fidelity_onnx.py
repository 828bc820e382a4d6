"""ONNX Runtime's CPU kernels and ONNX's reference evaluator: each row of the catalogue gives every bit of them."""

from __future__ import annotations

import dataclasses
import importlib

import pytest

from normcheck.fidelity.hosts import host, widest
from normcheck.fidelity.run import run
from normcheck.fidelity.table import difference
from normcheck.fidelity.worker import described
from normcheck.norms.catalogue import catalogue, implementation_named

pytest.importorskip("onnx", minversion="1.23")
pytest.importorskip("ml_dtypes")
pytest.importorskip("numpy", minversion="2")  # whose scalars have a format of their own

OUTPUTS = 20_000
"""A quick check: `python -m normcheck.fidelity` takes as many as are asked for."""


def kernels_of(module):
    return importlib.import_module(f"normcheck.fidelity.kernels.{module}").kernels()


def runtime_kernels():
    """Those of ONNX Runtime, where it is installed and has the vectors that its rows are of."""
    if widest() not in ("AVX2", "AVX512"):
        return ()
    try:
        return kernels_of("onnxruntime")
    except ImportError:
        return ()


REFERENCE, RUNTIME = kernels_of("onnx_reference"), runtime_kernels()


@pytest.mark.parametrize("kernel", [*REFERENCE, *RUNTIME], ids=described)
def test_every_output_and_statistic_is_identical(kernel):
    found = run(kernel, "onnx", host(by_torch=False), outputs=OUTPUTS, seed=2)
    assert difference(found) == ""
    assert found.outputs.share == 1.0
    assert found.outputs.zero_signs == 0
    assert found.outputs.numbers >= OUTPUTS
    assert found.kept
    if kernel.mode == "train" and kernel.norm == "batch-l2":
        assert found.running.share == 1.0


def test_every_row_of_the_reference_evaluator_is_run():
    rows = {name for name in catalogue() if name.startswith("onnx-reference-")}
    assert rows == {kernel.implementation for kernel in REFERENCE}


@pytest.mark.skipif(not RUNTIME, reason="no ONNX Runtime, or no AVX2")
def test_every_current_row_of_onnx_runtime_on_the_cpu_is_run():
    rows = {name for name in catalogue() if name.startswith("ort-cpu-") and not name.endswith("-1pass")}
    assert rows == {kernel.implementation for kernel in RUNTIME}


WRONG = [
    ("onnx-reference-layernorm", "fp16", {"total": None}),
    ("onnx-reference-instancenorm", "fp16", {"own_mean": False}),
    ("onnx-reference-batchnorm", "fp16", {"mean_partial": None}),
    ("onnx-reference-batchnorm", "fp16", {"partial": None}),
]


@pytest.mark.parametrize(("name", "precision", "wrong"), WRONG, ids=str)
def test_a_field_less_and_the_reference_evaluator_differs(name, precision, wrong):
    (kernel,) = (k for k in REFERENCE if (k.implementation, k.precision, k.mode) == (name, precision, "train"))
    how = dataclasses.replace(implementation_named(name), **wrong)
    assert run(kernel, "onnx", host(by_torch=False), outputs=OUTPUTS, seed=2, how=how).outputs.share < 0.999
