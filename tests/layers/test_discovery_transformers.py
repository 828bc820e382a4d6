"""Discovery on checkpoints of Hugging Face transformers: kinds, eps, zero-centred weights, from keys and config.

`transformers_checkpoints.json` holds what `save_pretrained` wrote for small models of transformers 5: names and shapes
of the tensors, and what the config says of norms. Where transformers is installed, its own modules are the oracle.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from normcheck.layers.contents import Contents, Tensor
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read

CHECKPOINTS = json.loads((Path(__file__).parent / "transformers_checkpoints.json").read_text(encoding="utf-8"))
RMS_1E6, GEMMA = ("rms", 1e-6, 0.0), ("rms", 1e-6, 1.0)
EXPECTED = {  # (kind, eps, what is added to the weight): how many
    "llama": {("rms", 1e-5, 0.0): 3},
    "bert": {("layer-l2", 1e-12, 0.0): 4},
    "gpt2": {("layer-l2", 1e-5, 0.0): 3},
    "vit": {("layer-l2", 1e-12, 0.0): 3},
    "t5": {RMS_1E6: 7},
    "gemma": {GEMMA: 3},
    "gemma2": {GEMMA: 5},
    "paligemma": {GEMMA: 3, ("layer-l2", 1e-6, 0.0): 3},
    "convnext": {("layer-l2", 1e-6, 0.0): 4, ("layer-l2", 1e-12, 0.0): 1},
    "resnet": {("batch-l2", 1e-5, 0.0): 6},
    "wav2vec2": {("layer-l2", 1e-5, 0.0): 4, ("group-l2", 1e-5, 0.0): 1, ("weight-l2", 0.0, 0.0): 1},
    "cohere": {("layer-l2", 1e-5, 0.0): 2},
    "nemotron": {("layer-l2", 1e-5, 1.0): 3},
    "mamba": {("rms", 1e-5, 0.0): 2},
}
EPS_ASSUMED = {"resnet"}
UNSURE = {"convnext": ["convnext.encoder.stages.1.downsampling_layer.0"]}


def contents(name):
    def tensor(key, shape):
        return Tensor(key, tuple(shape), "float32", key, lambda: np.ones(shape, np.float32))

    saved = CHECKPOINTS[name]
    tensors = {key: tensor(key, shape) for key, shape in saved["tensors"].items()}
    return Contents(path=name, reader="test", tensors=tensors, config=saved["config"])


def counted(layers):
    return Counter((layer.norm.name, layer.eps, layer.weight_offset) for layer in layers)


def test_every_checkpoint_has_its_expectation():
    assert set(CHECKPOINTS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_kinds_and_eps_are_right(name):
    found = discover(contents(name))
    assert counted(found.layers) == EXPECTED[name]
    assert found.omitted == ()
    assert [layer.name for layer in found.layers if not layer.sure] == UNSURE.get(name, [])
    sources = {layer.eps_source for layer in found.layers if not layer.norm.is_weight}
    assert sources == {"assumed" if name in EPS_ASSUMED else "config"}


def test_the_group_norm_of_wav2vec2_has_a_group_a_channel_and_its_weight_norm_the_last_dimension():
    layers = {layer.norm.where: layer for layer in discover(contents("wav2vec2")).layers}
    assert layers["group"].num_groups == layers["group"].channels == 16
    assert layers["group"].groups_assumed is False
    assert (layers["weight"].channels, layers["weight"].vector_size) == (4, 16 * 8)


def test_without_its_config_a_checkpoint_is_in_doubt_but_complete():
    for name, expected in EXPECTED.items():
        whole = contents(name)
        bare = discover(Contents(path=name, reader="test", tensors=whole.tensors))
        assert len(bare.layers) == sum(expected.values())
        alone = [layer for layer in bare.layers if layer.norm.where == "layer" and layer.parameters.bias is None]
        assert all(not layer.sure or "rms" in layer.name for layer in alone)


SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
LIVE = {
    "Llama": {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 3e-5},
    "Bert": {**SMALL, "max_position_embeddings": 8, "layer_norm_eps": 3e-9},
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 32, "layer_norm_epsilon": 3e-4},
    "ViT": {**SMALL, "image_size": 8, "patch_size": 4, "layer_norm_eps": 3e-7},
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 32},
    "Gemma": {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "rms_norm_eps": 3e-6},
}
KINDS = {"LayerNorm": "layer-l2", "LlamaRMSNorm": "rms", "T5LayerNorm": "rms", "GemmaRMSNorm": "rms"}


def modules_norms(model):
    """Kind, eps and offset of the norms among a model's modules."""
    for module in model.modules():
        kind = KINDS.get(type(module).__name__)
        if kind:
            eps = getattr(module, "eps", None) or module.variance_epsilon
            yield kind, eps, float("Gemma" in type(module).__name__)


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.filterwarnings("ignore")
def test_what_transformers_itself_saves_is_read_as_its_modules_are(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", exc_type=ImportError)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**LIVE[name]))
    model.save_pretrained(tmp_path)
    found = discover(read(tmp_path))
    expected = Counter(modules_norms(model))
    assert sum(expected.values()) >= 3
    assert counted(found.layers) == expected
    assert all(layer.sure and layer.eps_source == "config" for layer in found.layers)
