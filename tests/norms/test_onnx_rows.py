"""Rows of ONNX Runtime and of ONNX's reference evaluator: which is picked, and numpy's own operations beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from normcheck import emulate
from normcheck.arithmetic.formats import format_named
from normcheck.errors import UsageError
from normcheck.norms.aliases import defining
from normcheck.norms.catalogue import catalogue, choice_named
from normcheck.norms.implementations import IMPLEMENTATIONS
from normcheck.norms.row_files import read_rows
from normcheck.norms.table import grouping, norm_named
from normcheck.norms.wording import glossary, in_words

EPS = 1e-3
WIDE_EPS = np.full(1, EPS, np.float32)
"""As the reference evaluator has it: what it is added to becomes float32."""
IMAGES = (2, 8, 3, 4)
PICKED = [
    ("layer-l2", "fp32", (4, 7), "ort-cpu-layernorm-scalar", "onnx-reference-layernorm"),
    ("layer-l2", "fp32", (4, 8), "ort-cpu-layernorm", "onnx-reference-layernorm"),
    ("layer-l2", "fp16", (4, 15), "ort-cpu-layernorm-scalar", "onnx-reference-layernorm"),
    ("layer-l2", "fp16", (4, 16), "ort-cpu-layernorm-half", "onnx-reference-layernorm"),
    ("layer-l2", "bf16", (4, 64), "ort-cpu-layernorm-scalar", "onnx-reference-layernorm-bf16"),
    ("rms", "fp32", (4, 15), "ort-cpu-simplified-layernorm-scalar", "onnx-reference-rmsnorm"),
    ("rms", "fp32", (4, 16), "ort-cpu-simplified-layernorm", "onnx-reference-rmsnorm"),
    ("rms", "fp16", (4, 16), "ort-cpu-simplified-layernorm", "onnx-reference-rmsnorm"),
    ("rms", "bf16", (4, 64), "ort-cpu-simplified-layernorm-scalar", "onnx-reference-rmsnorm-bf16"),
    ("instance-l2", "fp16", IMAGES, "ort-cpu-instancenorm", "onnx-reference-instancenorm"),
    ("instance-l2", "bf16", IMAGES, None, "onnx-reference-instancenorm-bf16"),
    ("group-l2", "fp32", IMAGES, "ort-cpu-groupnorm", "onnx-reference-groupnorm"),
    ("group-l2", "bf16", IMAGES, None, "onnx-reference-groupnorm"),
    ("batch-l2", "fp16", IMAGES, "ort-cpu-batchnorm-train", "onnx-reference-batchnorm"),
    ("batch-l2", "bf16", IMAGES, None, "onnx-reference-batchnorm-bf16"),
]


def of(norm, precision, shape, alias):
    """The name of the row that an alias means."""
    what, io = norm_named(norm), format_named(precision)
    group = grouping(what, shape, 2 if norm == "group-l2" else None)
    found = defining(choice_named(alias), what, io, io, group, "train" if norm == "batch-l2" else None)
    return found[0].name if found else None


@pytest.mark.parametrize(("norm", "precision", "shape", "runtime", "reference"), PICKED)
def test_the_aliases_pick_by_norm_precision_and_size(norm, precision, shape, runtime, reference):
    assert of(norm, precision, shape, "onnxruntime-cpu") == runtime
    assert of(norm, precision, shape, "onnx-reference") == reference


def half(x):
    return np.asarray(x, np.float16)


def values(*shape, mean=3.0):
    return half(np.random.default_rng(4).standard_normal(shape) * 2 + mean)


def run(name, norm, x, **settings):
    settings = {"precision": "fp16", "eps": EPS, **settings}
    return emulate(x.astype(np.float32), norm, implementation=name, **settings)


def same(got, want):
    np.testing.assert_array_equal(half(got).view(np.uint16), want.view(np.uint16))


def test_the_reference_layer_norm_is_these_operations_of_numpy():
    x = values(40, 300)
    mean = half(np.sum(x, axis=1, keepdims=True) / half(300))
    d = x - mean
    variance = half(np.sum(d * d, axis=1, keepdims=True) / half(300))
    want = half(d * np.reciprocal(np.sqrt(variance + WIDE_EPS)))
    got = run("onnx-reference-layernorm", "layer-l2", x)
    same(got.output, want)
    assert not np.array_equal(got.output, run("wide", "layer-l2", x).output)


def test_the_reference_rms_norm_is_these_operations_of_numpy():
    x = values(40, 300)
    square = np.mean(x * x, axis=1, keepdims=True)
    want = half(x * (np.float32(1) / np.sqrt(square + WIDE_EPS)))
    same(run("onnx-reference-rmsnorm", "rms", x).output, want)


@pytest.mark.parametrize(("norm", "axes"), [("instance-l2", (2, 3)), ("batch-l2", (0, 2, 3))])
def test_the_reference_norms_of_images_have_two_means_in_float16(norm, axes):
    x, gamma, beta = values(6, 8, 9, 11, mean=100.0), half(np.arange(8) / 4 + 0.5), half(np.arange(8) / 2 - 2)
    mean, variance = np.mean(x, axis=axes, keepdims=True), np.var(x, axis=axes, keepdims=True)
    scale, shift = gamma[:, None, None], beta[:, None, None]
    want = half(scale * (x - mean) / np.sqrt(variance + WIDE_EPS) + shift)
    name = f"onnx-reference-{norm.split('-')[0]}norm"
    affine = {"weight": gamma.astype(np.float32), "bias": beta.astype(np.float32)}
    same(run(name, norm, x, **affine).output, want)
    one = dataclasses.replace(catalogue()[name], own_mean=False)
    assert (half(run(one, norm, x, **affine).output) != want).any()


def test_a_second_mean_is_of_two_passes_alone():
    text = '[[implementation]]\nname = "mine"\nown_mean = true\nvariance = "one-pass"\n'
    with pytest.raises(UsageError, match="own_mean: is of variance = 'two-pass', which is 'one-pass'"):
        read_rows(text, "mine.toml", IMPLEMENTATIONS)
    (row,) = read_rows(text.replace("one-pass", "two-pass"), "mine.toml", IMPLEMENTATIONS)
    assert row.own_mean


def test_a_second_mean_and_formats_of_partial_sums_are_told():
    row = catalogue()["onnx-reference-batchnorm"]
    words = " ".join(in_words(row))
    assert "numpy-runs, partial sums merged in float32" in words
    assert "Second mean, of the mean square alone" in words
    assert "squares of x - second mean" in words
    assert "numpy-runs, partial sums merged in the io format" in words
    assert set(glossary(row)) == {"numpy-runs"}
    assert "second mean" not in " ".join(in_words(catalogue()["ort-cpu-instancenorm"]))
