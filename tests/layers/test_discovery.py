"""Discovery on hand-made contents: every kind of norm from structure and evidence, and what is left out, with why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from normcheck.arithmetic.formats import format_named
from normcheck.errors import UsageError
from normcheck.layers.contents import Contents, Stated, Tensor
from normcheck.layers.discovery.candidates import LARGEST
from normcheck.layers.discovery.discover import discover, parse_eps, parse_kind
from normcheck.norms.table import norm_named


def tensor(name, shape, *, dtype="float32", values=None, storage=None, seed=0):
    """A tensor of random values (or `values`) that counts how often it is read."""

    def load():
        reads.append(name)
        if values is not None:
            return np.broadcast_to(np.asarray(values, np.float32), shape).copy()
        return np.random.default_rng([seed, *name.encode()]).normal(1.0, 0.1, shape).astype(np.float32)

    return Tensor(name, tuple(shape), dtype, storage or name, load)


reads: list[str] = []


@pytest.fixture(autouse=True)
def _forget_reads():
    reads.clear()


def contents(shapes, *, config=None, stated=(), **options):
    """Contents of tensors by name: a shape, or a whole tensor."""
    tensors = {n: s if isinstance(s, Tensor) else tensor(n, s, **options) for n, s in shapes.items()}
    return Contents(path="model", reader="test", tensors=tensors, config=config or {}, stated=tuple(stated))


def batch_norm(name, channels, **options):
    roles = ("weight", "bias", "running_mean", "running_var")
    own = {f"{name}.{role}": tensor(f"{name}.{role}", (channels,), **options) for role in roles}
    return own | {f"{name}.num_batches_tracked": tensor(f"{name}.num_batches_tracked", (), dtype="int64")}


def affine(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape}


def only(shapes, *, config=None, **options):
    """The one layer that is found."""
    (layer,) = discover(contents(shapes, config=config), **options).layers
    return layer


# ------------------------------------------------------------------------------------------- running statistics


@pytest.mark.parametrize(
    "keys",
    [
        ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"),
        ("bn.gamma", "bn.beta", "bn.moving_mean", "bn.moving_variance"),
        ("bn/gamma:0", "bn/beta:0", "bn/moving_mean:0", "bn/moving_variance:0"),
        ("bn_gamma", "bn_beta", "bn_moving_mean", "bn_moving_var"),
        ("bn.weight", "bn.bias", "bn._mean", "bn._variance"),
        ("params.bn.scale", "params.bn.bias", "batch_stats.bn.mean", "batch_stats.bn.var"),
    ],
)
def test_running_statistics_make_a_batch_norm_under_every_frameworks_names(keys):
    layer = only(dict.fromkeys(keys, (8,)))
    assert (layer.name, layer.norm.name, layer.sure, layer.channels) == ("bn", "batch-l2", True, 8)
    loaded = layer.parameters
    for key, own in zip(keys, (loaded.weight, loaded.bias, loaded.running_mean, loaded.running_statistic), strict=True):
        np.testing.assert_array_equal(own, tensor(key, (8,)).load().astype(np.float64))
        assert own.dtype == np.float64


def test_statistics_alone_are_a_batch_norm_without_gain_and_bias():
    layer = only({"bn.running_mean": (4,), "bn.running_var": (4,)})
    assert layer.norm.name == "batch-l2"
    assert layer.parameters.weight is None
    assert layer.parameters.bias is None
    assert layer.parameters.running_mean.shape == (4,)


@pytest.mark.parametrize("role", ["weight", "bias"])
def test_a_batch_norm_may_have_a_gain_or_a_bias_alone(role):
    layer = only({f"bn.{role}": (4,), "bn.running_mean": (4,), "bn.running_var": (4,)})
    assert (layer.parameters.weight is not None, layer.parameters.bias is not None) == (
        role == "weight",
        role == "bias",
    )


def test_a_file_of_one_bare_norm_has_a_layer_with_a_name():
    layer = only({"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)})
    assert (layer.name, layer.norm.name) == ("model", "batch-l2")


def test_mean_and_var_alone_are_no_norm_unless_the_name_says_so():
    assert discover(contents({"image.mean": (3,), "image.var": (3,)})).layers == ()
    assert only({"obs_norm.mean": (3,), "obs_norm.var": (3,)}).norm.name == "batch-l2"


def test_statistics_of_unequal_shapes_are_no_norm():
    assert discover(contents({"x.running_mean": (3,), "x.running_var": (4,)})).layers == ()
    assert discover(contents({"x.running_mean": (3, 2), "x.running_var": (3, 2)})).layers == ()


def test_a_weight_that_does_not_fit_the_statistics_is_said():
    found = discover(contents({**batch_norm("bn", 4), "bn.weight": (5,), "bn.bias": (5,)}))
    assert found.layers == ()
    assert [o.name for o in found.omitted] == ["bn"]
    assert "(4,)" in found.omitted[0].reason


def test_instance_norm_with_running_statistics_is_batch_norm_in_doubt():
    layer = only(batch_norm("enc.instance_norm", 4))
    assert (layer.norm.name, layer.sure, layer.might_be) == ("batch-l2", False, ("instance-l2",))


def test_a_batch_norm_behind_a_linear_layer_sees_no_positions():
    rows = {"net.0.weight": (8, 3), **batch_norm("net.1", 8), "net.3.weight": (4, 8, 3, 3), **batch_norm("net.4", 4)}
    one, two = discover(contents(rows)).layers
    assert (one.spatial, two.spatial) == (False, None)
    assert only({"fc1.weight": (8, 3), **batch_norm("bn1", 8)}).spatial is False
    assert only({"attention.q.weight": (8, 8), **batch_norm("norm.bn", 8)}).spatial is None


def test_empty_and_single_channels_do_not_crash():
    empty = discover(contents(batch_norm("bn", 0)))
    assert [layer.channels for layer in empty.layers] == []
    assert [o.name for o in empty.omitted] == ["bn"]
    assert only(batch_norm("bn", 1)).channels == 1


# ------------------------------------------------------------------------------------- weight and bias


def test_weight_and_bias_of_two_dimensions_are_a_layer_norm_over_both():
    layer = only(affine("norm", 1, 264))
    assert (layer.norm.name, layer.sure) == ("layer-l2", True)
    assert (layer.normalized_shape, layer.channels) == ((1, 264), 264)
    assert layer.parameters.bias.shape == (264,)


def test_beside_linear_layers_it_is_a_layer_norm_whatever_it_is_called():
    layer = only({"block.0.weight": (16, 8), **affine("block.1", 16)})
    assert (layer.norm.name, layer.sure, layer.normalized_shape) == ("layer-l2", True, (16,))
    named_batch = only({"lin.weight": (16, 8), **affine("bn1", 16)})
    assert (named_batch.norm.name, named_batch.sure, named_batch.might_be) == (
        "layer-l2",
        False,
        ("batch-l2", "group-l2", "instance-l2"),
    )


def test_beside_convolutions_it_stays_open_and_says_so():
    layer = only({"net.0.weight": (48, 3, 3, 3), **affine("net.1", 48)})
    assert (layer.norm.name, layer.sure, set(layer.might_be)) == ("group-l2", False, {"instance-l2", "layer-l2"})
    assert (layer.num_groups, layer.groups_assumed) == (24, True)
    assert "convolutions" in layer.how


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("group_norm", "group-l2"),
        ("gn1", "group-l2"),
        ("instance_norm", "instance-l2"),
        ("LayerNorm", "layer-l2"),
        ("norm_layer", "group-l2"),
    ],
)
def test_among_convolutions_a_name_decides_but_is_not_sure(name, kind):
    layer = only({"conv.weight": (32, 32, 3, 3), **affine(name, 32)})
    assert (layer.norm.name, layer.sure) == (kind, False)
    assert kind not in layer.might_be


def test_beside_depthwise_convolutions_alone_it_is_rather_a_layer_norm():
    shapes = {"b.dw.weight": (32, 1, 7, 7), **affine("b.norm", 32), "b.pw.weight": (128, 32, 1, 1)}
    layer = only(shapes)
    assert (layer.norm.name, layer.sure) == ("layer-l2", False)


@pytest.mark.parametrize(
    ("beside", "kind", "sure"),
    [
        ({"b.dw.weight": (32, 1, 7, 7), "b.conv.weight": (32, 32, 3, 3)}, "group-l2", False),
        ({"b.conv1.weight": (32, 32, 3, 3), "b.time.weight": (32, 8)}, "group-l2", False),
        ({"b.conv.weight": (32, 8, 3, 3), "b.fc1.weight": (64, 32), "b.fc2.weight": (32, 64)}, "layer-l2", False),
        ({"b.conv.weight": (32, 8, 3, 3), "b.inner.fc.weight": (64, 32)}, "group-l2", False),
        ({"b.patch_embed.weight": (32, 8, 3, 3)}, "layer-l2", True),
        ({"b.proj.weight": (32, 3, 16, 16)}, "layer-l2", True),
        ({"b.proj.weight": (32, 3, 7, 7)}, "group-l2", False),
        ({"b.conv.kernel": (3, 3, 8, 32)}, "group-l2", False),
        ({"b.fc.kernel": (8, 32)}, "layer-l2", True),
        ({"b.fc.parametrizations.weight.original": (32, 8)}, "layer-l2", True),
        ({"b.fc.weight.qweight": (32, 8)}, "layer-l2", True),
        ({"b.transformer_blocks.0.fc.weight": (32, 32), "conv_in.weight": (32, 3, 3, 3)}, "group-l2", False),
    ],
)
def test_what_stands_beside_weight_and_bias_decides(beside, kind, sure):
    layer = only({**beside, **affine("b.norm", 32)})
    assert (layer.norm.name, layer.sure, layer.normalized_shape) == (kind, sure, (32,) if kind == "layer-l2" else ())


def test_operators_are_looked_for_in_enclosing_modules_but_not_far():
    assert only({"a.fc.weight": (8, 8), **affine("a.b.c.norm", 8)}).sure
    assert not only({"a.fc.weight": (8, 8), **affine("a.b.c.d.norm", 8)}).sure


def test_a_norm_just_behind_a_convolution_is_in_doubt_though_the_config_has_layer_norms():
    config = {"layer_norm_eps": 1e-12}
    behind = only({"input_proj.0.weight": (32, 8, 1, 1), **affine("input_proj.1", 32)}, config=config)
    assert (behind.norm.name, behind.sure) == ("group-l2", False)
    before = only({"down.1.weight": (64, 32, 2, 2), **affine("down.0", 32)}, config=config)
    assert (before.norm.name, before.sure) == ("layer-l2", False)


def test_a_channels_first_layer_norm_is_over_its_channels_alone():
    layer = only(affine("layer_norm", 8, 1, 1))
    assert (layer.norm.name, layer.normalized_shape) == ("layer-l2", (8,))


def test_a_batch_norms_linear_layer_may_be_stored_transposed_and_must_fit():
    stored = {"net.0.weight": (8, 24), "net.0.bias": (24,)}
    assert only({**stored, **batch_norm("net.1", 24)}).spatial is False
    assert only({"x.weight": (4, 4, 3), "net.0.weight": (16, 8), **batch_norm("net.1", 8)}).spatial is None


def test_the_number_of_groups_comes_from_the_config():
    shapes = {"conv.weight": (32, 32, 3, 3), **affine("norm1", 32)}
    layer = only(shapes, config={"norm_num_groups": 8, "norm_eps": 1e-6})
    assert (layer.norm.name, layer.num_groups, layer.groups_assumed, layer.sure) == ("group-l2", 8, False, True)
    assert (layer.eps, layer.eps_source) == (1e-6, "config")
    odd = only(shapes, config={"norm_num_groups": 7})
    assert (odd.num_groups, odd.groups_assumed) == (32, True)


def test_a_unets_norm_before_its_transformer_blocks_is_a_group_norm():
    shapes = {
        "conv_in.weight": (64, 4, 3, 3),
        **affine("down.attentions.0.norm", 64),
        "down.attentions.0.proj_in.weight": (64, 64),
        **affine("down.attentions.0.transformer_blocks.0.norm1", 64),
        "down.attentions.0.transformer_blocks.0.attn1.to_q.weight": (64, 64),
    }
    first, second = discover(contents(shapes, config={"norm_num_groups": 16})).layers
    assert (first.norm.name, first.num_groups, first.sure) == ("group-l2", 16, True)
    assert second.norm.name == "layer-l2"


def test_wav2vecs_layer_norm_that_is_a_group_norm_is_known():
    name = "feature_extractor.conv_layers.0.layer_norm"
    shapes = {"feature_extractor.conv_layers.0.conv.weight": (512, 1, 10), **affine(name, 512)}
    layer = only(shapes, config={"feat_extract_norm": "group", "layer_norm_eps": 1e-12})
    assert (layer.norm.name, layer.num_groups, layer.eps) == ("group-l2", 512, 1e-5)


@pytest.mark.parametrize(
    ("shapes", "word"),
    [
        ({**affine("norm", 8), "norm.alpha": (1,)}, "tanh"),
        ({**affine("bn", 8), "bn.v": (8,)}, "EvoNorm"),
        (affine("mlp.grn", 1, 1, 1, 8), "response"),
        (affine("mlp.x", 1, 1, 1, 8), "response"),
        (affine("attn.q_norm", 4, 8), "head"),
        ({"attn.k_norm.weight": (4, 8)}, "head"),
        ({"attn.norm.weight": (4, 8)}, "(4, 8)"),
        ({"attn.norm.weight": (1,)}, "single"),
    ],
)
def test_what_is_called_a_norm_and_is_none_of_ours_is_left_out_with_the_reason(shapes, word):
    found = discover(contents(shapes))
    assert found.layers == ()
    assert word in found.omitted[0].reason


def test_layers_that_are_no_norms_are_not_mentioned():
    shapes = {
        "fc.weight": (8, 4),
        "fc.bias": (8,),
        "conv.weight": (8, 4, 3),
        "conv.bias": (8,),
        "emb.weight": (100, 8),
        "lstm.weight_ih_l0": (32, 8),
        "lstm.bias_ih_l0": (32,),
        **affine("affine.act", 1),
    }
    found = discover(contents(shapes))
    assert (found.layers, found.omitted) == ((), ())


# ---------------------------------------------------------------------------------------------- weight alone


def test_a_weight_alone_named_like_a_norm_is_rms_norm_in_doubt():
    layer = only({"q.weight": (8, 8), "input_layernorm.weight": (8,)})
    assert (layer.norm.name, layer.sure, layer.might_be) == ("rms", False, ("layer-l2",))
    assert (layer.eps, layer.eps_source) == (1e-6, "assumed")
    assert only({"rmsnorm.weight": (8,)}).sure


@pytest.mark.parametrize(
    ("config", "kind", "sure"),
    [
        ({"rms_norm_eps": 1e-5}, "rms", True),
        ({"model_type": "cohere", "layer_norm_eps": 1e-5}, "layer-l2", True),
        ({"model_type": "t5", "layer_norm_epsilon": 1e-5}, "rms", True),
        ({"layer_norm_eps": 1e-5}, "layer-l2", False),
    ],
)
def test_the_config_tells_rms_norm_from_layer_norm_without_bias(config, kind, sure):
    layer = only({"q.weight": (8, 8), "norm.weight": (8,)}, config=config)
    assert (layer.norm.name, layer.sure) == (kind, sure)
    assert (layer.eps, layer.eps_source) == (1e-5, "config")


def test_a_nameless_weight_is_a_norms_only_with_values_near_one_beside_its_width():
    near_one = {"net.0.weight": (8, 4), "net.1.weight": (8,)}
    assert only(near_one).norm.name == "rms"
    for far in (0.25, 5.0, math.nan):
        other = {"net.0.weight": (8, 4), "net.1.weight": tensor("net.1.weight", (8,), values=far)}
        assert discover(contents(other)).layers == ()
    assert discover(contents({"net.0.weight": (8, 4), "net.1.weight": (5,)})).layers == ()


@pytest.mark.parametrize("key", ["blk.ls1.gamma", "blk.gamma", "act.weight", "blk.layer_scale.weight", "logit.scale"])
def test_layer_scale_prelu_and_logit_scales_are_left_out_unmentioned(key):
    found = discover(contents({"blk.fc.weight": (8, 8), "fc.weight": (8, 8), key: (8,)}))
    assert (found.layers, found.omitted) == ((), ())


@pytest.mark.parametrize("key", ["blk.norm.g", "blk.norm.gamma", "blk.norm.scale", "blk.norm_weight", "blk.ln.weight"])
def test_a_gain_under_other_names_is_found(key):
    assert only({"blk.fc.weight": (8, 8), key: (8,)}).norm.name == "rms"


# --------------------------------------------------------------------------------------------- zero-centred weights


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text", "recurrent_gemma", "t5gemma", "qwen3_next"])
def test_zero_centred_weights_are_known_by_model_type(model_type):
    layer = only({"norm.weight": (8,)}, config={"model_type": model_type, "rms_norm_eps": 1e-6})
    assert (layer.norm.name, layer.weight_offset, layer.sure) == ("rms", 1.0, True)
    assert "1 + weight" in layer.how


@pytest.mark.parametrize("model_type", ["llama", "gemma3n_text", "gemma4_text"])
def test_other_model_types_are_not_zero_centred(model_type):
    layer = only({"norm.weight": (8,)}, config={"model_type": model_type, "rms_norm_eps": 1e-6})
    assert layer.weight_offset == 0.0


def test_only_the_language_model_of_a_paligemma_is_zero_centred():
    shapes = {
        "language_model.model.norm.weight": (8,),
        **affine("vision_tower.vision_model.post_layernorm", 8),
    }
    text, vision = {"model_type": "gemma", "rms_norm_eps": 1e-6}, {"model_type": "siglip_vision_model"}
    config = {"model_type": "paligemma", "text_config": text, "vision_config": {**vision, "layer_norm_eps": 1e-4}}
    rms, layer = discover(contents(shapes, config=config)).layers
    assert (rms.norm.name, rms.weight_offset, rms.eps) == ("rms", 1.0, 1e-6)
    assert (layer.norm.name, layer.weight_offset, layer.eps) == ("layer-l2", 0.0, 1e-4)


def test_the_gated_norm_of_qwen3_next_is_not_zero_centred():
    config = {"model_type": "qwen3_next", "rms_norm_eps": 1e-6}
    assert only({"model.layers.0.linear_attn.norm.weight": (8,)}, config=config).weight_offset == 0.0


# ------------------------------------------------------------------------------------------ reparametrised weights

V = (6, 4, 3)


@pytest.mark.parametrize(
    ("g", "v"), [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_weight_norm_has_its_vectors_along_the_kept_dimension(g, v, axis):
    shape = tuple(d if i == axis else 1 for i, d in enumerate(V))
    layer = only({f"conv.{g}": shape, f"conv.{v}": V, "conv.bias": (6,)})
    assert (layer.name, layer.norm.name, layer.channels, layer.sure) == ("conv", "weight-l2", V[axis], True)
    assert layer.vector_size == math.prod(V) // V[axis]
    assert reads == [f"conv.{g}"], "v is read when it is asked for"
    whole = tensor(f"conv.{v}", V).load()
    np.testing.assert_array_equal(layer.vectors(), np.moveaxis(whole, axis, 0).reshape(V[axis], -1))
    assert layer.vectors().dtype == np.float32
    np.testing.assert_array_equal(layer.parameters.weight, tensor(f"conv.{g}", shape).load().reshape(-1))


def test_a_scalar_g_normalises_the_weight_as_one_vector():
    layer = only({"conv.weight_g": (), "conv.weight_v": V})
    assert (layer.channels, layer.vector_size) == (1, 72)
    assert layer.vectors().shape == (1, 72)


def test_weight_norm_of_other_parameters_is_named_after_them():
    layer = only({"rnn.weight_hh_l0_g": (16, 1), "rnn.weight_hh_l0_v": (16, 4)})
    assert layer.name == "rnn.weight_hh_l0"


def test_a_g_that_does_not_fit_v_is_omitted():
    found = discover(contents({"conv.weight_g": (5, 1, 1), "conv.weight_v": V}))
    assert found.layers == ()
    assert "(5, 1, 1)" in found.omitted[0].reason


@pytest.mark.parametrize(
    "keys",
    [
        ("weight_orig", "weight_u"),
        ("weight_orig", "weight_u", "weight_v"),
        ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
    ],
)
def test_spectral_norm_is_not_weight_norm(keys):
    spectral = {f"conv.{key}": V if "orig" in key else (6,) for key in keys}
    found = discover(contents({**spectral, **batch_norm("bn", 6)}))
    assert [layer.norm.name for layer in found.layers] == ["batch-l2"]
    assert [(o.name, "spectral" in o.reason) for o in found.omitted] == [("conv", True)]


@pytest.mark.parametrize(("p", "kind"), [(None, "l2"), (1.0, "l1"), (2.0, "l2"), (math.inf, "linf")])
def test_bounded_weight_norm_is_known_by_its_rho(p, kind):
    root = "fc.parametrizations.weight"
    shapes = {f"{root}.original": (6, 4), f"{root}.0.rho": ()}
    if p is not None:
        shapes[f"{root}.0.p"] = tensor(f"{root}.0.p", (), values=p)
    layer = only(shapes)
    assert (layer.name, layer.norm.name) == ("fc", f"bounded-weight-{kind}")
    assert (layer.channels, layer.vector_size, layer.vectors().shape) == (6, 4, (6, 4))
    assert layer.parameters.weight.shape == (1,)


@pytest.mark.parametrize("wrong", [{"0.rho": (6, 1)}, {"0.p": (0,)}, {"original": ()}])
def test_bounded_weight_norm_of_shapes_that_do_not_fit_is_omitted(wrong):
    shapes = {"original": (6, 4), "0.rho": (), **wrong}
    found = discover(contents({f"fc.parametrizations.weight.{key}": shape for key, shape in shapes.items()}))
    assert found.layers == ()
    assert [o.name for o in found.omitted] == ["fc"]


def test_weights_that_share_one_rho_are_layers_of_their_own():
    rho = tensor("rho", ())
    shapes = {}
    for name in ("a", "b"):
        root = f"{name}.parametrizations.weight"
        shapes |= {f"{root}.original": (6, 4), f"{root}.0.rho": Tensor(f"{root}.0.rho", (), "float32", "rho", rho.load)}
    assert [layer.name for layer in discover(contents(shapes)).layers] == ["a", "b"]


def test_unrelated_tensors_called_g_and_v_are_not_mentioned():
    found = discover(contents({"attention_g": (3, 3), "attention_v": (6, 4)}))
    assert (found.layers, found.omitted) == ((), ())


def test_bounded_weight_norm_of_another_power_is_omitted():
    root = "fc.parametrizations.weight"
    three = tensor(f"{root}.0.p", (), values=3.0)
    found = discover(contents({f"{root}.original": (6, 4), f"{root}.0.rho": (), f"{root}.0.p": three}))
    assert found.layers == ()
    assert "p = 3" in found.omitted[0].reason


# -------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn"])
def test_parameters_keep_the_format_that_they_are_stored_in(dtype):
    layer = only(batch_norm("bn", 4, dtype=dtype))
    assert layer.parameters.form is format_named(dtype)


def test_of_several_formats_the_one_that_holds_all_counts():
    mixed = batch_norm("bn", 4, dtype="float16")
    mixed["bn.running_var"] = tensor("bn.running_var", (4,))
    assert only(mixed).parameters.form is format_named("float32")
    mixed["bn.running_var"] = tensor("bn.running_var", (4,), dtype="bfloat16")
    assert only(mixed).parameters.form is format_named("float32")


@pytest.mark.parametrize(
    "shapes",
    [
        {"norm.weight.qweight": ("int8", (8,)), "norm.weight.scale": ("float32", (1,))},
        {"norm.weight": ("int8", (8,)), "norm.bias": ("float32", (8,))},
        {"norm.weight": ("q8_0", (8,))},
        {"norm.qweight": ("int32", (8,)), "norm.scales": ("float16", (1,))},
    ],
)
def test_quantised_norms_are_omitted_with_the_type(shapes):
    found = discover(contents({k: tensor(k, s, dtype=d) for k, (d, s) in shapes.items()}))
    assert found.layers == ()
    ((omitted),) = found.omitted
    assert (omitted.name, "quantised" in omitted.reason) == ("norm", True)
    assert next(iter(shapes.values()))[0] in omitted.reason


def test_quantised_linear_layers_are_not_mentioned():
    keys = {
        "fc.weight.qweight": ("int8", (8, 8)),
        "fc.weight.scale": ("float32", (8, 1)),
        "fc.qweight": ("int32", (8, 8)),
    }
    found = discover(contents({k: tensor(k, s, dtype=d) for k, (d, s) in keys.items()}))
    assert (found.layers, found.omitted) == ((), ())


def test_integers_under_the_name_of_a_weight_are_not_mentioned():
    found = discover(contents({"positions.weight": tensor("positions.weight", (8,), dtype="int64")}))
    assert (found.layers, found.omitted) == ((), ())


def test_an_optimizers_state_is_left_out_once():
    state = {f"opt_state.0.mu.bn.{leaf}": (8,) for leaf in ("scale", "bias")}
    found = discover(contents({**batch_norm("bn", 8), **state}))
    assert [layer.name for layer in found.layers] == ["bn"]
    assert [(o.name, o.reason[:9]) for o in found.omitted] == [("opt_state", "2 tensors")]


def test_an_absurdly_large_norm_is_omitted_unread():
    found = discover(contents({"norm.weight": (LARGEST + 1,), "norm.bias": (LARGEST + 1,)}))
    assert found.layers == ()
    assert str(LARGEST + 1) in found.omitted[0].reason
    assert reads == []


def test_only_the_norms_own_tensors_are_read():
    discover(contents({"conv.weight": (8, 3, 3, 3), **batch_norm("bn", 8), "fc.weight": (8, 8), "fc.bias": (8,)}))
    assert set(reads) == {f"bn.{role}" for role in ("weight", "bias", "running_mean", "running_var")}


def test_layers_come_in_the_order_of_the_file():
    shapes = {**affine("c.norm", 4), "b.weight_g": (4, 1), "b.weight_v": (4, 4), **batch_norm("a", 4)}
    assert [layer.name for layer in discover(contents(shapes)).layers] == ["c.norm", "b", "a"]


# ------------------------------------------------------------------------------------------------ one module twice


def shared(name, like):
    """The tensors of another module under the name of this one."""
    keys = {key: f"{name}.{key.rpartition('.')[2]}" for key in like}
    return {keys[key]: Tensor(keys[key], t.shape, t.dtype, t.storage, t.load) for key, t in like.items()}


def test_one_module_under_two_names_is_one_layer():
    one = batch_norm("a.1", 8)
    layer = only({**one, **shared("b.1", one), **shared("c.1", one)})
    assert (layer.name, layer.aliases) == ("a.1", ("b.1", "c.1"))


def test_shared_weights_with_statistics_of_their_own_are_two_layers():
    one, two = batch_norm("a", 8), batch_norm("b", 8)
    for role in ("weight", "bias"):
        two[f"b.{role}"] = Tensor(f"b.{role}", (8,), "float32", one[f"a.{role}"].storage, one[f"a.{role}"].load)
    assert len(discover(contents({**one, **two})).layers) == 2


def test_trained_copies_of_one_module_are_one_layer():
    one = batch_norm("a", 8)
    two = {k: Tensor(k, t.shape, t.dtype, f"own {k}", t.load) for k, t in shared("b", one).items()}
    layer = only({**one, **two})
    assert layer.aliases == ("b",)


def test_untrained_modules_that_look_alike_are_two_layers():
    def untrained(name):
        values = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        return {f"{name}.{role}": tensor(f"{name}.{role}", (8,), values=v) for role, v in values.items()}

    assert len(discover(contents({**untrained("a"), **untrained("b")})).layers) == 2


# -------------------------------------------------------------------------------------------------- eps, momentum


def test_eps_is_torchs_default_where_nothing_says_it():
    assert (only(batch_norm("bn", 4)).eps, only(batch_norm("bn", 4)).eps_source) == (1e-5, "assumed")


@pytest.mark.parametrize(
    ("shapes", "config", "eps"),
    [
        (batch_norm("bn", 4), {"batch_norm_eps": 1e-3, "layer_norm_eps": 1e-12}, 1e-3),
        (affine("layer_norm", 4), {"batch_norm_eps": 1e-3, "layer_norm_eps": 1e-12}, 1e-12),
        (affine("ln", 4), {"layernorm_epsilon": 1e-7}, 1e-7),
        (affine("group_norm", 4), {"num_groups": 2, "group_norm_eps": 1e-4}, 1e-4),
        ({"norm.weight": (4,)}, {"norm_eps": 1e-4}, 1e-4),
        (affine("ln", 4), {"hyper_parameters": {"layer_norm_eps": 1e-4}}, 1e-4),
        ({"blk.0.attn_norm.weight": (4,)}, {"llama.attention.layer_norm_rms_epsilon": 1e-4}, 1e-4),
    ],
)
def test_eps_comes_from_the_config_by_kind(shapes, config, eps):
    layer = only(shapes, config=config)
    assert (layer.eps, layer.eps_source) == (eps, "config")


@pytest.mark.parametrize("value", ["1e-5", True, -1.0, math.nan, math.inf, None, [1e-5]])
def test_what_is_no_number_is_no_eps(value):
    assert only(affine("ln", 4), config={"layer_norm_eps": value}).eps_source == "assumed"


def test_nested_configs_hold_for_their_own_part_of_the_model():
    names = ("vision_model.ln", "text_model.ln", "audio_tower.ln", "decoder.ln", "other.ln")
    config = {
        "vision_config": {"layer_norm_eps": 1e-1},
        "text_config": {"layer_norm_eps": 1e-2},
        "audio_config": {"layer_norm_eps": 1e-3},
        "decoder": {"layer_norm_eps": 1e-4},
    }
    shapes = {key: shape for name in names for key, shape in affine(name, 4).items()}
    layers = discover(contents(shapes, config=config)).layers
    assert [layer.eps for layer in layers] == [1e-1, 1e-2, 1e-3, 1e-4, 1e-2]


def test_a_part_of_the_model_with_a_config_of_its_own_takes_nothing_from_the_others():
    config = {"vision_config": {"hidden_size": 4}, "text_config": {"layer_norm_eps": 1e-2}}
    assert only(affine("vision_model.ln", 4), config=config).eps_source == "assumed"
    assert only(affine("layers.0.ln", 4), config=config).eps == 1e-2


def test_the_first_part_of_a_name_that_tells_chooses_the_nested_config():
    config = {"encoder": {"layer_norm_eps": 1e-1}, "decoder": {"layer_norm_eps": 1e-2}}
    names = ("encoder.encoder.ln", "decoder.bert.encoder.ln")
    shapes = {key: shape for name in names for key, shape in affine(name, 4).items()}
    assert [layer.eps for layer in discover(contents(shapes, config=config)).layers] == [1e-1, 1e-2]


def test_a_config_that_contains_itself_does_no_harm():
    config = {"layer_norm_eps": 1e-3, "large": 10**400}
    config["self"] = config
    assert only(affine("ln", 4), config=config).eps == 1e-3


def test_eps_that_a_model_types_code_sets_goes_before_its_config():
    config = {"model_type": "convnext", "layer_norm_eps": 1e-12}
    names = ("convnext.embeddings.layernorm", "convnext.encoder.stages.0.layers.0.layernorm", "convnext.layernorm")
    shapes = {key: shape for name in names for key, shape in affine(name, 4).items()}
    assert [layer.eps for layer in discover(contents(shapes, config=config)).layers] == [1e-6, 1e-6, 1e-12]


def test_momentum_comes_from_the_config_or_is_unknown():
    assert only(batch_norm("bn", 4)).momentum is None
    assert only(batch_norm("bn", 4), config={"batch_norm_momentum": 0.03}).momentum == 0.03


# ---------------------------------------------------------------------------------------------------- stated norms


def stated(name="gn", norm="group", **facts):
    return Stated(name=name, norm=norm_named(norm), how="module torch.nn.GroupNorm", **facts)


def test_stated_norms_are_all_that_is_returned_but_for_reparametrised_weights():
    shapes = {**affine("gn", 8), **batch_norm("bn", 8), "conv.weight_g": (4, 1), "conv.weight_v": (4, 4)}
    one = stated(weight="gn.weight", bias="gn.bias", eps=1e-3, num_groups=4)
    group, weight = discover(contents(shapes, stated=[one])).layers
    assert (group.name, group.norm.name, group.how, group.sure) == ("gn", "group-l2", "module torch.nn.GroupNorm", True)
    assert (group.eps, group.eps_source, group.num_groups, group.groups_assumed) == (1e-3, "module", 4, False)
    assert weight.norm.name == "weight-l2"


def test_stated_statistics_momentum_and_offset_are_kept():
    shapes = batch_norm("bn", 8)
    names = {"running_mean": "bn.running_mean", "running_var": "bn.running_var"}
    one = stated("bn", "batch-l1", **names, momentum=0.2, spatial=False, weight_offset=1.0)
    (layer,) = discover(contents(shapes, stated=[one], config={"batch_norm_eps": 1e-4})).layers
    assert (layer.norm.name, layer.momentum, layer.spatial, layer.weight_offset) == ("batch-l1", 0.2, False, 1.0)
    assert (layer.eps, layer.eps_source) == (1e-4, "config")
    assert layer.parameters.running_statistic.shape == (8,)
    assert layer.parameters.weight is None


def test_a_stated_norm_without_parameters_has_the_channels_it_states():
    (layer,) = discover(contents({}, stated=[stated("in", "instance", num_channels=6)])).layers
    assert (layer.channels, layer.parameters.form) == (6, None)
    (layer,) = discover(contents({}, stated=[stated("ln", "layer", normalized_shape=(4, 5))])).layers
    assert (layer.channels, layer.normalized_shape) == (20, (4, 5))


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"weight": "gone"}, "gone"),
        ({"weight": "gn.weight", "bias": "short"}, "(3,)"),
        ({"weight": "gn.weight", "num_groups": 3}, "3 groups"),
        ({"weight": "whole"}, "int8"),
        ({}, "channels"),
    ],
)
def test_a_stated_norm_that_does_not_fit_is_omitted_with_the_reason(facts, word):
    shapes = {**affine("gn", 8), "short": (3,), "whole": tensor("whole", (8,), dtype="int8")}
    found = discover(contents(shapes, stated=[stated(**facts)]))
    assert found.layers == ()
    assert [o.name for o in found.omitted] == ["gn"]
    assert word in found.omitted[0].reason


# --------------------------------------------------------------------------------------------------------- options


def test_a_kind_that_the_user_gives_is_sure_and_has_its_own_eps():
    shapes = {"conv.weight": (32, 32, 3, 3), **affine("a.norm", 32), **affine("b.norm", 32)}
    config = {"layer_norm_eps": 1e-12, "group_norm_eps": 1e-3}
    one, two = discover(contents(shapes, config=config), kinds=[("a.*", "group(8)")]).layers
    assert (one.norm.name, one.num_groups, one.groups_assumed, one.sure) == ("group-l2", 8, False, True)
    assert (one.how, one.eps, one.might_be, one.normalized_shape) == ("option --kind", 1e-3, (), ())
    assert two.how != "option --kind"


def test_of_several_kinds_the_last_that_matches_counts():
    shapes = {**affine("a", 32), **affine("b", 32)}
    one, two = discover(contents(shapes), kinds=[("*", "instance"), ("b", "batch-l1")]).layers
    assert (one.norm.name, two.norm.name) == ("instance-l2", "batch-l1")


def test_statistics_go_with_a_kind_that_has_none_and_stay_with_one_that_has():
    plain = only(batch_norm("bn", 4), kinds=[("bn", "layer")])
    assert plain.parameters.running_mean is None
    assert plain.normalized_shape == (4,)
    assert only(batch_norm("bn", 4), kinds=[("bn", "batch-range")]).parameters.running_statistic is not None


def test_the_kind_none_leaves_a_layer_out_and_says_so():
    found = discover(contents({**batch_norm("a", 4), **batch_norm("b", 4)}), kinds=[("a", "none")])
    assert [layer.name for layer in found.layers] == ["b"]
    assert [(o.name, o.reason) for o in found.omitted] == [("a", "left out by option --kind")]


def test_a_kind_may_make_a_norm_of_what_was_left_out():
    shapes = {"act.weight": (8,)}
    assert discover(contents(shapes)).layers == ()
    assert only(shapes, kinds=[("act", "rms")]).norm.name == "rms"


def test_a_pattern_that_matches_layers_means_nothing_that_was_left_out():
    shapes = {**batch_norm("a.bn", 8), "a.act.weight": (8,)}
    assert [layer.name for layer in discover(contents(shapes), kinds=[("a.*", "batch-l1")]).layers] == ["a.bn"]


def test_patterns_match_aliases():
    one = batch_norm("a.1", 8)
    layer = only({**one, **shared("b.1", one)}, kinds=[("b.*", "batch-l1")])
    assert (layer.name, layer.norm.name) == ("a.1", "batch-l1")


def test_a_stated_kind_can_be_overridden_and_its_eps_stays():
    one = stated(weight="gn.weight", bias="gn.bias", eps=1e-3)
    (layer,) = discover(contents(affine("gn", 8), stated=[one]), kinds=[("gn", "layer")]).layers
    assert (layer.norm.name, layer.eps, layer.eps_source) == ("layer-l2", 1e-3, "module")


def test_what_is_known_of_a_kind_is_kept_where_the_kind_is():
    one = stated(weight="gn.weight", bias="gn.bias", num_groups=4)
    (layer,) = discover(contents(affine("gn", 8), stated=[one]), kinds=[("gn", "group-l1")]).layers
    assert (layer.norm.name, layer.num_groups, layer.groups_assumed) == ("group-l1", 4, False)
    gemma = {"model_type": "gemma", "rms_norm_eps": 1e-6}
    assert only({"norm.weight": (8,)}, config=gemma, kinds=[("norm", "rms")]).weight_offset == 1.0
    assert only({"norm.weight": (8,)}, config=gemma, kinds=[("norm", "layer")]).weight_offset == 0.0


def test_eps_of_the_user_goes_before_all_others():
    shapes = {**affine("a.ln", 4), **affine("b.ln", 4)}
    config = {"layer_norm_eps": 1e-12}
    one, two = discover(contents(shapes, config=config), eps=[(None, 1e-3), ("b.*", 1e-2)]).layers
    assert [(one.eps, one.eps_source), (two.eps, two.eps_source)] == [(1e-3, "option"), (1e-2, "option")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": [("nothing.*", "layer")]}, ["nothing.*", "bn1", "and 2 more"]),
        ({"eps": [("nothing.*", 1e-3)]}, ["nothing.*", "bn1"]),
        ({"kinds": [("*", "bach")]}, ["bach", "batch"]),
        ({"kinds": [("*", "layer(3)")]}, ["layer(3)"]),
        ({"kinds": [("*", "group(0)")]}, ["group(0)"]),
        ({"kinds": [("*", "group(3)")]}, ["4 channels", "3 groups"]),
        ({"kinds": [("*", "weight-l2")]}, ["bn1", "weight-l2"]),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_what_was_received(options, words):
    shapes = {k: t for i in range(1, 6) for k, t in batch_norm(f"bn{i}", 4, seed=i).items()}
    with pytest.raises(UsageError) as error:
        discover(contents(shapes), **options)
    assert all(word in str(error.value) for word in words)


def test_a_weight_norm_cannot_become_another_norm_but_can_be_left_out():
    shapes = {"conv.weight_g": (4, 1), "conv.weight_v": (4, 4)}
    with pytest.raises(UsageError, match="conv cannot be layer-l2"):
        discover(contents(shapes), kinds=[("conv", "layer")])
    assert discover(contents(shapes), kinds=[("conv", "none")]).layers == ()
    assert only(shapes, kinds=[("conv", "weight-l1")]).norm.name == "weight-l1"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("a.*=layer", ("a.*", "layer")), (" a = group(8) ", ("a", "group(8)")), ("x=none", ("x", "none"))],
)
def test_kinds_are_parsed(text, parsed):
    assert parse_kind(text) == parsed


@pytest.mark.parametrize("text", ["layer", "=layer", "a=", "a=bach", "a=layer(2)"])
def test_kinds_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError):
        parse_kind(text)


@pytest.mark.parametrize(
    ("text", "parsed"), [("1e-3", (None, 1e-3)), ("*.bn1=1e-3", ("*.bn1", 1e-3)), ("0", (None, 0.0))]
)
def test_eps_is_parsed(text, parsed):
    assert parse_eps(text) == parsed


@pytest.mark.parametrize("text", ["", "x", "a=", "=1e-3", "a=b", "nan", "inf", "-1e-5"])
def test_eps_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="expected X or PATTERN=X"):
        parse_eps(text)


def test_the_stem_of_a_convolutional_model_is_no_linear_layer():
    tensors = {"embedder.embedder.convolution.weight": (64, 3, 7, 7)}
    stem = {
        f"embedder.embedder.normalization.{leaf}": (64,) for leaf in ("weight", "bias", "running_mean", "running_var")
    }
    assert only(tensors | stem).spatial is None
