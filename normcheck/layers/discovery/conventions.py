"""What frameworks and model families call the parts of a norm, as data: leaf names, config keys, model types.

Names are compared in lower case, unless they stand in a regular expression. Model types are those of config.json.
"""

from __future__ import annotations

from typing import NamedTuple

WEIGHTS = ("weight", "gamma", "scale", "g")
"""Last parts of a key that name gamma. `scale` is flax's, `g` that of much code written by hand."""

BIASES = ("bias", "beta", "b")

STATISTICS = {
    "running_mean": "running_var",
    "moving_mean": "moving_variance",
    "moving_avg_mean": "moving_avg_var",
    "_mean": "_variance",
    "ema_mean": "ema_var",
    "mean_ema": "var_ema",
    "average_mean": "average_var",
    "mean": "var",
}
"""Last parts of keys that name running statistics: of torch, Keras, MindSpore and Paddle, Sonnet, flax."""

OTHER_STATISTICS = {f"running_{name}": f"batch-{name}" for name in ("l1", "linf", "topk", "range")}
"""Last parts of keys that stand in the variance's place and are none, with the norm that has them: `normcheck.nn`'s."""

MORE_VARIANCES = {"moving_mean": ("moving_var",), "running_mean": ("running_variance", *OTHER_STATISTICS)}
"""Other names of the variance beside the same mean: MXNet's, and of other statistics in its place."""

VAGUE_STATISTICS = ("mean",)
"""Names so common that they need weight and bias, flax's `batch_stats`, or a norm's name beside them."""

ROOT = "model"
"""The name of a norm that is a whole model, whose tensors' names have no module before them."""

JOINED = ("weight", "bias", "gamma", "beta", "running_mean", "running_var", "moving_mean", "moving_var")
"""Leaves that may also hang on by an underscore: ``bn0_gamma``."""

COLLECTIONS = ("params", "batch_stats")
"""First parts of keys under which flax keeps parameters and statistics of the same modules."""

OPERATORS = ("weight", "kernel", "w", "weight_v", "weight_orig")
"""Last parts of a key that name the weight of a linear layer or convolution."""

PARAMETRIZED = ("original1", "original", "qweight")
"""Last parts of keys, below the weight's own name, that have the weight's shape."""

PARTS = ("weight", "gamma", "kernel", "bias")
"""Last parts of a module's name that make it one tensor in several parts, such as a quantised weight and its scale."""

QUANTISED = ("qweight", "weight.qweight", "weight_packed", "weight.int_data", "weight.tensor_impl.int_data")
"""Last parts of keys that hold a weight in a quantised form."""

OPTIMIZER = frozenset(
    {"optimizer", "optimizers", "optimizer_state", "optimizer_states", "opt_state", "optim", "exp_avg", "exp_avg_sq"}
    | {"exp_avgs", "exp_avg_sqs", "momentum_buffer", "max_exp_avg_sq"}
)
"""Parts of keys under which an optimizer's state lies, of the same shapes as the parameters."""

NORM_WORDS = frozenset(
    {"norm", "norms", "ln", "lns", "bn", "gn", "rms", "layernorm", "layernorms", "batchnorm", "groupnorm"}
    | {"instancenorm", "rmsnorm", "normalization", "normalizer", "lnorm", "lrnorm", "layrnorm"}
)
"""Words of a module's name that make it look like a norm."""

KIND_WORDS = {
    "rms": "rms",
    "rmsnorm": "rms",
    "ln": "layer-l2",
    "lns": "layer-l2",
    "layernorm": "layer-l2",
    "layernorms": "layer-l2",
    "layer": "layer-l2",
    "layrnorm": "layer-l2",
    "gn": "group-l2",
    "groupnorm": "group-l2",
    "group": "group-l2",
    "instancenorm": "instance-l2",
    "instance": "instance-l2",
    "bn": "batch-l2",
    "batchnorm": "batch-l2",
    "batch": "batch-l2",
}
"""The kind that a word of a module's name hints at."""

NEEDS_NORM = frozenset({"layer", "group", "instance", "batch"})
"""Words of `KIND_WORDS` that hint at a kind only just before one of the next."""

NORM_ITSELF = frozenset({"norm", "norms", "normalization"})

WRAPPED_BLOCKS = "transformer_blocks"
"""A module of convolutional models whose neighbour `norm` is a group norm, whatever else stands beside it."""

PER_HEAD = frozenset({"q", "k", "query", "key"})
"""Words of a module's name that make a weight of two dimensions one of heads, (heads, size of a head)."""

OTHER_LEAVES = {
    "alpha": "a scalar alpha beside weight and bias: dynamic tanh, which has no statistic",
    "v": "a vector v beside weight and bias: EvoNorm, which is none of the norms here",
}
"""Last parts of keys beside weight and bias that make a module something else than a norm of the table; why."""

NO_NORM_WORDS = frozenset(
    {"prelu", "relu", "act", "activation", "ls", "ls1", "ls2", "layerscale", "scale", "scaling", "temperature", "logit"}
    | {"embed", "embedding", "embeddings", "pos", "position", "token", "tokens", "alpha", "gate", "grn"}
)
"""Words of a module's name whose 1-D weight is no norm's: activations, LayerScale, embeddings, gates."""

OTHER_NORMS = {
    "grn": "global response normalization, which divides by a mean over channels of norms over positions",
    "actnorm": "an affine map of fixed scale, which divides by no statistic of its input",
}
"""Words of a module's name that say it is called a norm and is none of the table's; why."""

EPS_KEYS = {
    "rms": (
        *("rms_norm_eps", "rms_norm_epsilon", "rmsnorm_eps", "rmsnorm_epsilon", "rms_eps", "layer_norm_rms_epsilon"),
        *("norm_eps", "norm_epsilon", "layer_norm_epsilon", "layer_norm_eps", "layernorm_epsilon", "layernorm_eps"),
    ),
    "layer": (
        *("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "layernorm_eps", "ln_eps", "ln_epsilon"),
        *("norm_eps", "norm_epsilon"),
    ),
    "batch": ("batch_norm_eps", "batch_norm_epsilon", "batchnorm_eps", "bn_eps", "bn_epsilon"),
    "group": ("group_norm_eps", "group_norm_epsilon", "groupnorm_eps", "gn_eps", "norm_eps", "norm_epsilon"),
    "instance": ("instance_norm_eps", "instance_norm_epsilon", "in_eps"),
}
"""Keys of a config that hold eps, the first that is there counts; by the norm's `where`, and rms."""

RMS_KEYS = EPS_KEYS["rms"][:6]
LAYER_KEYS = EPS_KEYS["layer"][:6]
"""Of these, the keys that say which norm the model has."""

GROUP_KEYS = ("norm_num_groups", "num_norm_groups", "group_norm_num_groups", "norm_groups", "num_groups", "gn_groups")
"""Keys of a config that hold the number of groups of group norms."""

MOMENTUM_KEYS = ("batch_norm_momentum", "bn_momentum", "batchnorm_momentum", "norm_momentum")

DEFAULT_EPS = {"rms": 1e-6}
"""eps where nothing says it, by norm: the usual one of RMSNorm; 1e-5, torch's, for all others."""

SUBMODELS = {
    "vision": ("vision", "visual", "image", "vit"),
    "text": ("text", "language", "llm"),
    "audio": ("audio", "speech"),
    "language": ("language", "text", "llm"),
    "llm": ("llm", "language"),
}
"""What parts of a layer's name begin with, where a nested config (``vision_config``) is its own; else the stem."""

MAIN_SUBMODELS = ("text_config", "language_config", "llm_config")
"""Nested configs that hold for layers that no other nested config claims."""

RMS_MODELS = frozenset(
    {"t5", "mt5", "umt5", "byt5", "myt5", "longt5", "switch_transformers", "pop2piano", "udop", "pix2struct"}
    | {"mamba", "mamba2", "falcon_mamba", "nemotron_h", "kosmos_2_5_vision_model", "deimv2"}
)
"""Model types whose norms without bias are RMSNorm though config.json calls eps that of layer norm."""

LAYER_MODELS = frozenset({"cohere", "cohere2", "mpt", "dbrx", "modernbert", "modernbert-decoder", "moonshine", "esmc"})
"""Model types whose norms without bias are LayerNorm."""

ZERO_CENTRED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text", "recurrent_gemma", "vaultgemma"), ()),
    **dict.fromkeys(("t5gemma", "t5_gemma_module", "t5gemma2", "t5gemma2_text", "t5gemma2_decoder"), ()),
    **dict.fromkeys(("t5gemma2_encoder", "minimax_m3_vl", "minimax_m3_vl_text", "step3p5", "step3p7"), ()),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), ("*linear_attn.norm",)
    ),
    "muse_glimmer_text": ("norm", "*.norm"),
    "muse_spark_text": ("norm", "*.norm", "*.post_attention_layernorm"),
    **dict.fromkeys(("nemotron", "videoprism", "videoprism_text_model", "videoprism_vision_model"), ()),
}
"""Model types whose norms multiply by 1 + weight, each with patterns of the layers that do not."""

ZERO_CENTRED_LAYER_NORMS = frozenset({"nemotron", "videoprism", "videoprism_text_model", "videoprism_vision_model"})
"""Of `ZERO_CENTRED`, the model types in which those are LayerNorm; RMSNorm in all others."""

_LATENT_ATTENTION = (("*.q_a_layernorm", 1e-6), ("*.kv_a_layernorm", 1e-6), ("*.indexer.k_norm", 1e-6))
_ALL_1E_5 = (("*", 1e-5),)
_ALL_1E_6 = (("*", 1e-6),)

FIXED_EPS: dict[str, tuple[tuple[str, float], ...]] = {
    **dict.fromkeys(("biogpt", "cvt", "glpn", "perceiver", "pixtral", "segformer"), _ALL_1E_5),
    **dict.fromkeys(("convnext", "convnextv2"), (("*embeddings.layernorm", 1e-6), ("*encoder.*", 1e-6))),
    **dict.fromkeys(("distilbert", "lxmert"), (("*", 1e-12),)),
    **dict.fromkeys(("mobilenet_v1", "mobilenet_v2"), (("*", 1e-3),)),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "kimi_linear"), _LATENT_ATTENTION),
    **dict.fromkeys(("glm_moe_dsa", "longcat_flash", "minicpm3", "mistral4", "youtu"), _LATENT_ATTENTION),
    **dict.fromkeys(("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), (("*visual.*", 1e-6),)),
    **dict.fromkeys(("qwen3_vl_vision", "qwen3_vl_moe_vision", "qwen3_5_vision", "qwen3_5_moe_vision"), _ALL_1E_6),
}
"""eps of model types whose code sets it, whatever the config says; by patterns of layers, the first that matches."""


class Special(NamedTuple):
    """A kind that nothing but the model type, or another text of the config, gives away.

    Attributes:
        key, value: what the config has.
        pattern: of the layers' names.
        kind: what they are. groups: of group norms; 0 for one group a channel.
        eps: where the code sets it, whatever the config says.
    """

    key: str
    value: str
    pattern: str
    kind: str
    groups: int
    eps: float | None


SPECIAL = (
    Special("feat_extract_norm", "group", "*conv_layers.0.layer_norm", "group-l2", 0, 1e-5),
    Special("model_type", "mobilevitv2", "*layernorm*", "group-l2", 1, None),
    Special("model_type", "poolformer", "*", "group-l2", 1, 1e-5),
    Special("model_type", "moonshine", "*encoder.groupnorm", "group-l2", 1, 1e-5),
)
