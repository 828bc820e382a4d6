"""Discovery on checkpoints that torch itself wrote: what its modules are is what is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from normcheck.arithmetic.formats import format_named
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read


def found(module, folder, dtype=None):
    torch.manual_seed(0)
    activations = {id(p) for m in module.modules() if isinstance(m, nn.PReLU) for p in m.parameters()}
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point() and id(tensor) not in activations:
            tensor.data.copy_(torch.rand_like(tensor) + 0.5)
    path = folder / "model.pt"
    torch.save((module.to(dtype) if dtype else module).state_dict(), path)
    return discover(read(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_model_cast_before_saving_has_its_parameters_in_that_format(dtype, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    (layer,) = found(model, tmp_path, dtype).layers
    assert layer.parameters.form is format_named(str(dtype).removeprefix("torch."))
    own = layer.parameters
    pairs = [
        (own.weight, model[1].weight),
        (own.bias, model[1].bias),
        (own.running_mean, model[1].running_mean),
        (own.running_statistic, model[1].running_var),
    ]
    for read_back, theirs in pairs:
        np.testing.assert_array_equal(read_back, theirs.detach().double().numpy())


@pytest.mark.parametrize(
    ("norm", "kind", "sure"),
    [
        (lambda: nn.BatchNorm2d(8), "batch-l2", True),
        (lambda: nn.SyncBatchNorm(8), "batch-l2", True),
        (lambda: nn.BatchNorm2d(8, affine=False), "batch-l2", True),
        (lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True), "batch-l2", True),
        (lambda: nn.InstanceNorm2d(8, affine=True), "group-l2", False),
        (lambda: nn.GroupNorm(4, 8), "group-l2", False),
        (lambda: nn.LayerNorm((8, 6, 6)), "layer-l2", True),
        (lambda: nn.LayerNorm((6, 8)), "layer-l2", True),
    ],
)
def test_a_norm_behind_a_convolution(norm, kind, sure, tmp_path):
    (layer,) = found(nn.Sequential(nn.Conv2d(3, 8, 3), norm(), nn.PReLU(8)), tmp_path).layers
    assert (layer.name, layer.norm.name, layer.sure) == ("1", kind, sure)


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        (lambda: nn.BatchNorm1d(8), "batch-l2"),
        (lambda: nn.LayerNorm(8), "layer-l2"),
        (lambda: nn.RMSNorm(8), "rms"),
    ],
)
def test_a_norm_behind_a_linear_layer(norm, kind, tmp_path):
    model = nn.Sequential(nn.Linear(3, 8), norm(), nn.Linear(8, 2))
    (layer,) = found(model, tmp_path).layers
    assert (layer.norm.name, layer.channels) == (kind, 8)
    assert layer.spatial is (False if kind == "batch-l2" else None)


def test_a_transformers_own_layers_are_layer_norms(tmp_path):
    layers = found(nn.TransformerEncoderLayer(8, 2, 16), tmp_path).layers
    assert [(layer.name, layer.norm.name, layer.sure) for layer in layers] == [
        ("norm1", "layer-l2", True),
        ("norm2", "layer-l2", True),
    ]


def test_what_is_no_norm_is_not_found(tmp_path):
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(8, 8),
            "conv": nn.Conv1d(8, 8, 3),
            "attention": nn.MultiheadAttention(8, 2),
            "lstm": nn.LSTM(8, 8, 2),
            "embedding": nn.Embedding(10, 8),
            "one": nn.PReLU(),
            "bilinear": nn.Bilinear(8, 8, 8),
            "local_response_norm": nn.LocalResponseNorm(2),
        }
    )
    assert found(model, tmp_path).layers == ()


@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("style", ["hooks", "parametrizations"])
def test_weight_norm_of_both_styles(style, dim, tmp_path):
    linear = nn.Conv1d(6, 4, 3)
    if style == "parametrizations":
        nn.utils.parametrizations.weight_norm(linear, dim=dim)
    else:
        with pytest.warns(FutureWarning, match="weight_norm"):
            nn.utils.weight_norm(linear, dim=dim)
    (layer,) = found(nn.Sequential(linear), tmp_path).layers
    out = 1 if dim is None else linear.weight.shape[dim]
    assert (layer.name, layer.norm.name) == ("0", "weight-l2")
    assert (layer.channels, layer.vector_size) == (out, 72 // out)
    v, g = layer.vectors().astype(np.float64), layer.parameters.weight
    weight = linear(torch.zeros(1, 6, 3)) is not None and linear.weight.detach().double()
    rows = weight.reshape(1, -1) if dim is None else weight.movedim(dim, 0).flatten(1)
    computed = g[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)
    np.testing.assert_allclose(computed, rows.numpy(), rtol=1e-6)


@pytest.mark.parametrize("style", ["hooks", "parametrizations"])
def test_spectral_norm_beside_norms_is_omitted(style, tmp_path):
    wrap = nn.utils.spectral_norm if style == "hooks" else nn.utils.parametrizations.spectral_norm
    result = found(nn.Sequential(wrap(nn.Linear(4, 8)), nn.BatchNorm1d(8), wrap(nn.Linear(8, 8))), tmp_path)
    assert [(layer.name, layer.norm.name, layer.spatial) for layer in result.layers] == [("1", "batch-l2", False)]
    assert [(o.name, "spectral norm" in o.reason) for o in result.omitted] == [("0", True), ("2", True)]


def test_other_parametrizations_are_no_weight_norm(tmp_path):
    result = found(nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), tmp_path)
    assert (result.layers, result.omitted) == ((), ())


def test_one_module_used_twice_is_one_layer(tmp_path):
    norm = nn.BatchNorm2d(8)
    (layer,) = found(nn.ModuleDict({"a": norm, "b": nn.Sequential(nn.Conv2d(8, 8, 3), norm)}), tmp_path).layers
    assert (layer.name, layer.aliases) == ("a", ("b.1",))


def test_an_average_of_a_model_beside_it_is_not_the_model(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model(torch.randn(4, 3, 8, 8))
    average = torch.optim.swa_utils.AveragedModel(model)
    model(torch.randn(4, 3, 8, 8))
    states = {f"net.{k}": v for k, v in model.state_dict().items()}
    states |= {f"ema.{k}": v for k, v in average.module.state_dict().items()}
    torch.save(states, tmp_path / "both.pt")
    layers = discover(read(tmp_path / "both.pt")).layers
    assert [(layer.name, layer.aliases) for layer in layers] == [("net.1", ()), ("ema.1", ())]
