"""Whatever a file holds under norms' names, discovery returns layers that fit together, or says why not."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normcheck.layers.contents import Contents, Tensor
from normcheck.layers.discovery.discover import discover
from normcheck.norms.parameters import check_lengths
from normcheck.norms.table import grouping

PARAMETRIZED = [f"parametrizations.weight.{leaf}" for leaf in ("original", "original0", "original1", "0.rho", "0.p")]
LEAVES = st.sampled_from(
    [
        *("weight", "bias", "gamma", "beta", "g", "scale", "running_mean", "running_var", "mean", "var", "alpha", "v"),
        *("weight_g", "weight_v", "weight_orig", "weight_u", "weight.qweight", "weight.scale", "kernel", "moving_mean"),
        *PARAMETRIZED,
    ]
)
MODULES = st.sampled_from(
    ["", "a", "a.norm", "a.0", "a.1", "1", "bn", "params.bn", "batch_stats.bn", "conv", "a/ln", "x.gn", "optimizer.0"]
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=4).map(tuple)
USUAL = st.sampled_from([(8,), (1,), (2, 3), (1, 8, 1, 1), (4, 4), (4, 2, 3), ()])
TYPES = st.sampled_from(["float32", "float16", "bfloat16", "float64", "int8", "q4_k"])
VALUES = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan, math.inf, 1e300])
KEYS = st.sampled_from(["layer_norm_eps", "rms_norm_eps", "norm_num_groups", "model_type", "feat_extract_norm"])
SETTINGS = st.sampled_from([1e-5, 0, -1, True, None, "gemma", "nemotron", "group", 8, 3, [1], math.nan, 10**400])
CONFIGS = st.recursive(
    st.dictionaries(KEYS, SETTINGS, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(["text_config", "encoder", "other"]), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def files(draw):
    """Modules whose tensors mostly have one shape and type, some of them another."""
    tensors = {}
    for module in draw(st.lists(MODULES, min_size=1, max_size=4, unique=True)):
        usual, values = draw(USUAL), draw(VALUES)
        for leaf in draw(st.lists(LEAVES, min_size=1, max_size=5, unique=True)):
            odd = draw(st.integers(0, 9)) == 0
            shape, dtype = (draw(SHAPES), draw(TYPES)) if odd else (_fitting(leaf, usual), "float32")
            key = f"{module}.{leaf}" if module else leaf
            tensors[key] = _tensor(key, shape, dtype, values)
    return Contents(path="any", reader="test", tensors=tensors, config=draw(CONFIGS))


def _fitting(leaf, usual):
    if leaf.endswith((".rho", ".p")):
        return ()
    is_g = leaf.endswith(("_g", "original0"))
    return (*usual[:1], *(1,) * (len(usual) - 1)) if is_g else usual


def _tensor(key, shape, dtype, value):
    return Tensor(key, shape, dtype, key, lambda: np.full(shape, value, np.float64))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files())
def test_layers_fit_together_whatever_the_file_holds(contents):
    found = discover(contents)
    for layer in found.layers:
        assert layer.name
        assert layer.channels >= 1
        assert 0 <= layer.eps < 1e3
        assert layer.norm.name not in layer.might_be
        assert layer.sure == (not layer.might_be)
        if layer.norm.is_weight:
            shape = layer.vectors().shape
            assert shape == (layer.channels, layer.vector_size)
        else:
            shape = (2, layer.channels) if layer.norm.where == "layer" else (2, layer.channels, 3)
        check_lengths(layer.parameters, grouping(layer.norm, shape, layer.num_groups), layer.norm)
        if layer.norm.where == "layer":
            assert math.prod(layer.normalized_shape) == layer.channels
    assert all(omitted.name and omitted.reason for omitted in found.omitted)
