"""Kernels of other libraries, where they are installed: a few rows each, each row gives every bit."""

from __future__ import annotations

import importlib

import pytest

from normcheck.arithmetic.formats import format_named
from normcheck.fidelity.hosts import host, widest
from normcheck.fidelity.projects import PROJECTS
from normcheck.fidelity.run import run
from normcheck.fidelity.suite import run_suite
from normcheck.fidelity.table import difference
from normcheck.fidelity.worker import described
from normcheck.norms.catalogue import implementation_named
from normcheck.norms.table import norm_named

ROWS = {
    "transformers": ["hf-llama-rmsnorm", "hf-gemma-rmsnorm", "hf-t5-layernorm"],
    "onnx-reference": ["onnx-reference-layernorm", "onnx-reference-rmsnorm"],
    "onnxruntime": ["ort-cpu-skiplayernorm", "ort-cpu-instancenorm", "ort-cpu-layernorm-scalar"],
    "mlx": ["mlx-fast-layernorm-cpu", "mlx-fast-rmsnorm-cpu", "mlx-groupnorm-pytorch-compatible-cpu"],
}
OUTPUTS = 2000


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_a_library_give_every_bit_of_its_kernels(name):
    project = PROJECTS[name]
    for package in project.packages:
        pytest.importorskip(package)
    kernels = [k for k in project.kernels() if k.implementation in ROWS[name]]
    assert {k.implementation for k in kernels} == set(ROWS[name])
    for kernel in kernels:
        found = run(kernel, name, host(by_torch=project.by_torch), outputs=OUTPUTS, seed=2)
        assert difference(found) == "", described(kernel)
        assert found.kept


def test_flaxs_rows_of_16_bit_elements_keep_their_promise():
    pytest.importorskip("flax")
    if widest() != "AVX512":
        pytest.skip("XLA adds in another order on narrower vectors")
    wanted = {"flax-layernorm", "flax-groupnorm-jit", "flax-batchnorm-no-fp32"}
    kernels = [k for k in PROJECTS["flax"].kernels() if k.implementation in wanted and k.params == "io"]
    assert {(k.implementation, k.precision) for k in kernels} == {
        *((name, "fp16") for name in wanted), ("flax-layernorm", "bf16"), ("flax-batchnorm-no-fp32", "bf16")
    }  # fmt: skip
    for kernel in kernels:
        found = run(kernel, "flax", host(by_torch=False), outputs=OUTPUTS, seed=2)
        assert found.promised == 0.999
        assert found.kept, described(kernel)


def test_a_library_with_its_own_settings_runs_in_a_process_of_its_own():
    pytest.importorskip("keras")
    found = run_suite([PROJECTS["keras-torch"]], rows=["keras3-layernorm-torch"], outputs=OUTPUTS)
    assert found.not_run == ()
    assert {row.implementation for row in found.rows} == {"keras3-layernorm-torch"}
    assert all(row.kept for row in found.rows)


def test_the_rows_of_gpu_kernels_exist_and_define_what_they_are_run_with(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    kernels = PROJECTS["cuda"].kernels()
    assert len(kernels) >= 18
    for kernel in kernels:
        row = implementation_named(kernel.implementation)
        assert row.defines(norm_named(kernel.norm), format_named(kernel.precision), format_named(kernel.precision))


def test_gpu_kernels_are_left_out_where_there_is_no_gpu():
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert PROJECTS["cuda"].kernels() == ()
