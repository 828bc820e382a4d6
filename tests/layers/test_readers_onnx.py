"""ONNX models: every operator that is a norm, norms written out as operators, and hostile models in one line."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="ONNX models need normcheck[onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after the check above
from onnx.reference import ReferenceEvaluator  # noqa: E402

from normcheck.errors import UnreadableError  # noqa: E402
from normcheck.layers.readers import onnx_graph  # noqa: E402

RNG = np.random.default_rng(0)
C = 8
X = RNG.standard_normal((2, C, 3, 5)).astype(np.float32) * 3 + 1


def values(size, seed):
    return np.random.default_rng(seed).uniform(0.5, 2, size).astype(np.float32)


PARAMETERS = {name: values(C, i) for i, name in enumerate(("n.weight", "n.bias", "n.running_mean", "n.running_var"))}
W, B, M, V = PARAMETERS


def model(nodes, initial=None, *, shape=(2, C, 3, 5), opset=17, functions=(), domains=(), info=(), kind=1):
    """Return a model from X, of `shape` (None: unstated), to Y."""
    initial = PARAMETERS if initial is None else initial
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", kind, shape)],
        [helper.make_tensor_value_info("Y", kind, None)],
        [t if isinstance(t, TensorProto) else numpy_helper.from_array(t, name) for name, t in initial.items()],
        value_info=list(info),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def read(tmp_path, made):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return onnx_graph.read(path, "m.onnx")


def node(op, inputs, outputs=("Y",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), **attributes)


def parameter(contents, name):
    return None if name is None else contents.tensors[name].load().astype(np.float64)


def by_hand(contents, x, axis=1):
    """Return what the one stated norm makes of x, written out in numpy; `axis` is that of the channels."""
    (stated,) = contents.stated
    x = x.astype(np.float64)
    over = {
        "batch-l2": (0, 2, 3),
        "instance-l2": (2, 3),
        "layer-l2": tuple(range(-len(stated.normalized_shape), 0)),
        "rms": (-1,),
        "group-l2": (2, 3, 4),
    }[stated.norm.name]
    if axis == 1 and stated.norm.where == "layer" and len(stated.normalized_shape) == 1:
        over = (1,)
    grouped = x.reshape(len(x), stated.num_groups, -1, *x.shape[2:]) if stated.num_groups else x
    mean = 0 if stated.norm.name == "rms" else grouped.mean(over, keepdims=True)
    square = ((grouped - mean) ** 2).mean(over, keepdims=True)
    y = ((grouped - mean) / np.sqrt(square + stated.eps)).reshape(x.shape)
    weight, bias = parameter(contents, stated.weight), parameter(contents, stated.bias)
    wide = (-1, *(1 for _ in x.shape[2:])) if axis == 1 else np.shape(weight)
    y = y if weight is None else y * (weight.reshape(wide) + stated.weight_offset)
    return y if bias is None else y + bias.reshape(wide)


def runs_to(made, x):
    return ReferenceEvaluator(made).run(None, {"X": x})[0]


# --------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize("training", [0, 1])
def test_batch_normalization(tmp_path, training):
    outputs = ("Y", "mean", "var") if training else ("Y",)
    made = model(
        [node("BatchNormalization", ["X", W, B, M, V], outputs, epsilon=1e-3, momentum=0.99, training_mode=training)]
    )
    contents = read(tmp_path, made)
    (stated,) = contents.stated
    assert (stated.name, stated.norm.name, stated.how) == ("n", "batch-l2", "operator BatchNormalization")
    assert (stated.weight, stated.bias, stated.running_mean, stated.running_var) == (W, B, M, V)
    assert (stated.eps, stated.momentum, stated.spatial) == (1e-3, 0.01, None)
    for name, array in PARAMETERS.items():
        tensor = contents.tensors[name]
        assert (tensor.dtype, tensor.shape) == ("float32", (C,))
        np.testing.assert_array_equal(tensor.load(), array)


def test_defaults_are_onnx_own(tmp_path):
    (batch,) = read(tmp_path, model([node("BatchNormalization", ["X", W, B, M, V])])).stated
    (layer,) = read(tmp_path, model([node("LayerNormalization", ["X", W])], shape=(2, 3, C))).stated
    (skip,) = read(
        tmp_path,
        model([node("SkipLayerNormalization", ["X", "X", W, B], domain="com.microsoft")], domains=["com.microsoft"]),
    ).stated
    assert (batch.eps, batch.momentum) == (1e-5, 0.1)
    assert (layer.eps, layer.bias) == (1e-5, None)
    assert (skip.eps, skip.norm.name, skip.weight, skip.bias) == (1e-12, "layer-l2", W, B)


@pytest.mark.parametrize(
    ("made", "axis"),
    [
        (model([node("InstanceNormalization", ["X", W, B], epsilon=1e-2)]), 1),
        (model([node("GroupNormalization", ["X", W, B], num_groups=4, epsilon=1e-2)], opset=21), 1),
        (model([node("LayerNormalization", ["X", W, B], epsilon=1e-2)], shape=(2, 3, C)), -1),
        (model([node("RMSNormalization", ["X", W], epsilon=1e-2)], shape=(2, 3, C), opset=23), -1),
        (
            model(
                [node("LayerNormalization", ["X", "w2"], axis=-2, epsilon=1e-2)],
                {"w2": values((3, C), 9)},
                shape=(2, 3, C),
            ),
            -1,
        ),
    ],
    ids=["instance", "group", "layer", "rms", "layer over two dimensions"],
)
def test_what_is_stated_computes_what_the_operator_does(tmp_path, made, axis):
    x = X if axis == 1 else np.ascontiguousarray(X.transpose(0, 2, 3, 1)[:, :, 0])
    contents = read(tmp_path, made)
    assert contents.stated[0].eps == 1e-2
    np.testing.assert_allclose(by_hand(contents, x, axis), runs_to(made, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "inputs", "norm", "bias"),
    [
        ("SimplifiedLayerNormalization", ["X", W], "rms", None),
        ("SkipSimplifiedLayerNormalization", ["X", "X", W], "rms", None),
        ("SkipLayerNormalization", ["X", "X", W], "layer-l2", None),
        ("EmbedLayerNormalization", ["X", "", "e", "e", "", W, B], "layer-l2", B),
        ("GroupNorm", ["X", W, B], "group-l2", B),
        ("SkipGroupNorm", ["X", W, B, "X"], "group-l2", B),
    ],
)
def test_operators_of_onnx_runtime(tmp_path, op, inputs, norm, bias):
    made = model(
        [node(op, inputs, domain="com.microsoft", epsilon=1e-6, groups=2)],
        PARAMETERS | {"e": np.zeros((4, C), np.float32)},
        domains=["com.microsoft"],
    )
    (stated,) = read(tmp_path, made).stated
    assert (stated.name, stated.norm.name, stated.weight, stated.bias, stated.eps) == ("n", norm, W, bias, 1e-6)
    assert stated.num_groups == (2 if norm == "group-l2" else None)
    assert stated.normalized_shape == (() if norm == "group-l2" else (C,))


def test_before_opset_21_a_group_norm_has_one_weight_a_group(tmp_path):
    initial = {"g.weight": np.float32([1, 2]), "g.bias": np.float32([3, 4])}
    nodes = [node("GroupNormalization", ["X", "g.weight", "g.bias"], num_groups=2)]
    contents = read(tmp_path, model(nodes, initial, opset=18))
    (stated,) = contents.stated
    assert (stated.name, stated.num_groups) == ("g", 2)
    assert parameter(contents, stated.weight).tolist() == [1] * 4 + [2] * 4
    assert parameter(contents, stated.bias).tolist() == [3] * 4 + [4] * 4
    contents = read(tmp_path, model(nodes, initial, opset=18, shape=None))
    assert (contents.stated, [o.name for o in contents.omitted]) == ((), ["g"])
    assert "how many channels" in contents.omitted[0].reason


def test_what_cannot_be_analysed_is_left_out_with_its_reason(tmp_path):
    contents = read(
        tmp_path,
        model(
            [
                node("MeanVarianceNormalization", ["X"], ["a"], name="mvn"),
                node("Relu", [W], ["w"]),
                node("InstanceNormalization", ["a", "w", B], ["b"], name="computed"),
                node("LayerNormalization", ["b", "X"], ["Y"], name="from outside"),
            ]
        ),
    )
    assert contents.stated == ()
    assert [(o.name, o.reason.split(",")[0]) for o in contents.omitted] == [
        ("mvn", "it adds its epsilon to the standard deviation"),
        ("computed", "its weight is computed in the graph"),
        ("from outside", "its weight is computed in the graph"),
    ]


@pytest.mark.parametrize("inferred", [True, False])
def test_a_norm_after_a_linear_layer_sees_no_space(tmp_path, monkeypatch, inferred):
    if not inferred:
        monkeypatch.setattr(onnx_graph, "_MAX_INFERRED_BYTES", 0)
    batch = ["BatchNormalization", ["r", W, B, M, V]]
    gemm = [node("Gemm", ["X", "k"], ["h"]), node("Relu", ["h"], ["r"]), node(*batch)]
    conv = [node("Conv", ["X", "k"], ["r"]), node(*batch)]
    unknown = [node("Mystery", ["X"], ["r"], domain="d"), node(*batch)]
    two, four = ({"k": np.ones(s, np.float32)} | PARAMETERS for s in ((C, C), (C, C, 1, 1)))
    assert read(tmp_path, model(gemm, two, shape=None)).stated[0].spatial is False
    assert read(tmp_path, model(gemm, two, shape=(2, C))).stated[0].spatial is False
    assert read(tmp_path, model(conv, four)).stated[0].spatial is None
    assert read(tmp_path, model(unknown, domains=["d"])).stated[0].spatial is None


# -------------------------------------------------------------------------------------------------- parameters


def test_parameters_are_found_behind_casts_shapes_constants_and_quantisation(tmp_path):
    half = values(C, 1).astype(np.float16)
    codes, scale = np.arange(C, dtype=np.uint8) + 100, np.float32(0.25)
    nodes = [
        node("Cast", ["half"], ["w1"], to=TensorProto.FLOAT),
        node("LayerNormalization", ["X", "w1"], ["a"]),
        node("DequantizeLinear", ["q.weight_quantized", "scale", "zero"], ["q.weight_DequantizeLinear_Output"]),
        node("LayerNormalization", ["a", "q.weight_DequantizeLinear_Output"], ["b"]),
        node("Constant", [], ["w3"], value=numpy_helper.from_array(values(C, 3))),
        node("LayerNormalization", ["b", "w3"], ["c"]),
        node("Reshape", ["square", "minus"], ["w4"]),  # its shape is inferred
        node("LayerNormalization", ["c", "w4"], ["d"]),
        node("Constant", [], ["w5"], value_floats=[1.5] * C),
        node("LayerNormalization", ["d", "w5"], ["Y"], name="/blocks.1/norm/LayerNormalization"),
    ]
    initial = {
        "half": half,
        "q.weight_quantized": codes,
        "scale": scale,
        "zero": np.uint8(100),
        "square": values((2, C // 2), 4),
        "minus": np.array([-1]),
    }
    contents = read(tmp_path, model(nodes, initial, shape=(2, 3, C)))
    expected = [half.astype(np.float32), np.arange(C) * 0.25, values(C, 3), values((2, C // 2), 4).ravel(), [1.5] * C]
    assert [s.name for s in contents.stated] == ["half", "q", "w3", "square", "w5"]
    for stated, array in zip(contents.stated, expected, strict=True):
        np.testing.assert_array_equal(parameter(contents, stated.weight), array)
        assert contents.tensors[stated.weight].shape == (C,)
    assert contents.tensors["half"].dtype == "float16"
    assert contents.tensors["q.weight_quantized"].dtype == "uint8"


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        *[("FLOAT", "float32"), ("DOUBLE", "float64"), ("FLOAT16", "float16"), ("BFLOAT16", "bfloat16")],
        *[("FLOAT8E4M3FN", "float8_e4m3fn"), ("FLOAT8E5M2", "float8_e5m2")],
        *[("FLOAT8E4M3FNUZ", "float8_e4m3fnuz"), ("FLOAT8E5M2FNUZ", "float8_e5m2fnuz")],
        *[("INT8", "int8"), ("INT64", "int64"), ("UINT4", "uint4"), ("BOOL", "bool")],
    ],
)
def test_every_type_of_constant_is_read_exactly(tmp_path, word, ours):
    numbers = [0, 1, 1] if word == "BOOL" else [0, 1, 6] if "INT" in word else [0.5, -1.5, 3.0]
    made = helper.make_tensor("t", getattr(TensorProto, word), [3], numbers)
    tensor = read(tmp_path, model([], {"t": made})).tensors["t"]
    assert (tensor.dtype, tensor.shape) == (ours, (3,))
    assert tensor.is_floating == ("FLOAT" in word or word == "DOUBLE")
    assert tensor.load().dtype == (np.float64 if word in {"DOUBLE", "INT64"} else np.float32)
    assert tensor.load().tolist() == numbers


def test_names_come_from_weights_then_nodes_then_operators(tmp_path):
    def layer(weight, name="", before="X", after="Y"):
        return node("LayerNormalization", [before, weight], [after], name=name)

    initial = {
        k: values(C, i) for i, k in enumerate(("a/LayerNorm/gamma:0", "onnx::Mul_12", "onnx::Mul_13", "b.scale"))
    }
    nodes = [
        layer("a/LayerNorm/gamma:0", "node", after="1"),
        layer("onnx::Mul_12", "/layers.0/norm/LayerNormalization", "1", "2"),
        layer("onnx::Mul_13", "", "2", "3"),
        layer("b.scale", "", "3"),
    ]
    found = read(tmp_path, model(nodes, initial, shape=(2, C))).stated
    assert [s.name for s in found] == ["a/LayerNorm", "layers.0.norm", "LayerNormalization_2", "b"]


def test_a_norm_used_twice_is_one_and_equal_weights_of_two_are_two(tmp_path):
    nodes = [
        node("Identity", ["a.weight"], ["b.weight"]),
        node("LayerNormalization", ["X", "a.weight"], ["1"]),
        node("LayerNormalization", ["1", "a.weight"], ["2"]),
        node("LayerNormalization", ["2", "b.weight"]),
    ]
    contents = read(tmp_path, model(nodes, {"a.weight": values(C, 0)}, shape=(2, C)))
    assert [(s.name, s.weight) for s in contents.stated] == [("a", "a.weight"), ("b", "b.weight")]
    assert contents.tensors["a.weight"].storage == contents.tensors["b.weight"].storage
    np.testing.assert_array_equal(contents.tensors["b.weight"].load(), values(C, 0))


# ------------------------------------------------------------------------------------------------- written out


def written_out(*, centred, square, divide, cast=False, twice=False, axes=(-1,), opset=17, offset=False, extra=()):
    """Return the nodes of a layer norm or a root mean square norm in one of the ways exporters write them."""
    axes_of = {"axes": list(axes)} if opset < 18 else {}
    more = [] if opset < 18 else ["axes"]
    x, nodes = ("x32", [node("Cast", ["X"], ["x32"], to=1)]) if cast else ("X", [])
    c = x
    if centred:
        nodes += [node("ReduceMean", [x, *more], ["mean"], **axes_of), node("Sub", [x, "mean"], ["c"])]
        c = "c"
    nodes.append(node("Pow", [c, "two"], ["sq"]) if square == "Pow" else node("Mul", [c, c], ["sq"]))
    nodes += [node("ReduceMean", ["sq", *more], ["v"], name="/blocks.0/norm/ReduceMean_1", **axes_of)]
    nodes += [node("Add", ["eps", "v"], ["ve"])]
    if twice:
        nodes.append(node("Sub", [x, "mean"], ["c again"]))
        c = "c again"
    nodes += {
        "Div": [node("Sqrt", ["ve"], ["r"]), node("Div", [c, "r"], ["y"])],
        "Reciprocal": [node("Sqrt", ["ve"], ["r"]), node("Reciprocal", ["r"], ["i"]), node("Mul", [c, "i"], ["y"])],
        "one over": [node("Sqrt", ["ve"], ["r"]), node("Div", ["one", "r"], ["i"]), node("Mul", ["i", c], ["y"])],
        "Pow": [node("Pow", ["ve", "minus half"], ["i"]), node("Mul", [c, "i"], ["y"])],
    }[divide]
    if cast:
        nodes.append(node("Cast", ["y"], ["y16"], to=10))
    gain = "gain" if offset else W
    nodes += [node("Add", ["one", W], ["gain"])] if offset else []
    nodes += [*extra, node("Mul", [gain, "reshaped" if extra else "y16" if cast else "y"], ["z" if centred else "Y"])]
    nodes += [node("Add", ["z", B])] if centred else []
    return nodes


SCALARS = {
    "two": np.float32(2),
    "one": np.float32(1),
    "eps": np.float32(1e-2),
    "minus half": np.float32(-0.5),
    "axes": np.array([-1]),
}


@pytest.mark.parametrize("divide", ["Div", "Reciprocal", "one over", "Pow"])
@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("opset", [11, 18])
def test_norms_written_out_are_recognised(tmp_path, centred, square, divide, opset):
    nodes = written_out(centred=centred, square=square, divide=divide, opset=opset)
    made = model(nodes, PARAMETERS | SCALARS, shape=("N", "T", "D"), opset=opset)
    contents = read(tmp_path, made)
    (stated,) = contents.stated
    assert (stated.name, stated.norm.name, stated.normalized_shape) == ("n", "layer-l2" if centred else "rms", (C,))
    assert (stated.weight, stated.bias, stated.eps) == (W, B if centred else None, 1e-2)
    assert contents.omitted == ()
    x = np.ascontiguousarray(X.transpose(0, 2, 3, 1)[:, :, 0])
    np.testing.assert_allclose(by_hand(contents, x, -1), runs_to(made, x), rtol=1e-5, atol=1e-6)


def test_casts_repeated_centring_and_zero_centred_weights_are_seen_through(tmp_path):
    half = {name: array.astype(np.float16) for name, array in PARAMETERS.items()}
    nodes = written_out(centred=True, square="Pow", divide="Div", cast=True, twice=True)
    contents = read(tmp_path, model(nodes, half | SCALARS, shape=("N", "D"), kind=TensorProto.FLOAT16))
    (stated,) = contents.stated
    assert (stated.norm.name, stated.weight, contents.tensors[W].dtype) == ("layer-l2", W, "float16")

    made = model(
        written_out(centred=False, square="Mul", divide="Reciprocal", offset=True), PARAMETERS | SCALARS, shape=None
    )
    contents = read(tmp_path, made)
    assert (contents.stated[0].weight, contents.stated[0].weight_offset) == (W, 1.0)
    np.testing.assert_allclose(by_hand(contents, X[:, :, 0, 0], -1), runs_to(made, X[:, :, 0, 0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("axes", "norm", "shape"), [((1,), "layer-l2", (C,)), ((2, 3), "instance-l2", ()), ((-2, -1), "instance-l2", ())]
)
@pytest.mark.parametrize("stated_shape", [(2, C, 3, 5), None])
@pytest.mark.parametrize("unsqueezed", [False, True])
def test_axes_and_the_shape_of_the_gain_tell_what_is_normalised(tmp_path, axes, norm, shape, stated_shape, unsqueezed):
    nodes = written_out(centred=True, square="Pow", divide="Div", axes=axes)
    tall = {name: array.reshape(C, 1, 1) for name, array in PARAMETERS.items()}
    if unsqueezed:
        for each in nodes:
            each.input[:] = [f"tall {value}" if value in PARAMETERS else value for value in each.input]
        nodes = [node("Unsqueeze", [w, "where"], [f"tall {w}"]) for w in (W, B)] + nodes
        tall = PARAMETERS | {"where": np.array([1, 2])}
    made = model(nodes, tall | SCALARS, shape=stated_shape)
    contents = read(tmp_path, made)
    (stated,) = contents.stated
    assert (stated.norm.name, stated.normalized_shape) == (norm, shape)
    assert contents.tensors[W].shape == (C,)
    np.testing.assert_allclose(by_hand(contents, X), runs_to(made, X), rtol=1e-5, atol=1e-5)


def test_a_group_norm_written_out_is_recognised(tmp_path):
    tall = {name: array.reshape(C, 1, 1) for name, array in PARAMETERS.items()}
    back = [node("Reshape", ["y", "whole"], ["reshaped"])]
    nodes = written_out(centred=True, square="Pow", divide="Div", extra=back)
    for each in nodes:
        for i, value in enumerate(each.input):
            if value == "X":
                each.input[i] = "grouped"
    nodes.insert(0, node("Reshape", ["X", "split"], ["grouped"]))
    shapes = {"split": np.array([0, 4, -1]), "whole": np.array([2, C, 3, 5])}
    made = model(nodes, tall | SCALARS | shapes)
    contents = read(tmp_path, made)
    (stated,) = contents.stated
    assert (stated.norm.name, stated.num_groups, stated.weight, stated.bias) == ("group-l2", 4, W, B)
    np.testing.assert_allclose(by_hand(contents, X), runs_to(made, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reciprocal", [True, False])
def test_a_layer_norm_as_tensorflow_writes_it_is_recognised(tmp_path, reciprocal):
    nodes = [
        node("ReduceMean", ["X"], ["mean"], axes=[-1]),
        node("Sub", ["X", "mean"], ["c"]),
        node("Mul", ["c", "c"], ["sq"]),
        node("ReduceMean", ["sq"], ["v"], axes=[-1], name="bert/norm/moments/variance"),
        node("Add", ["v", "eps"], ["ve"]),
        node("Sqrt", ["ve"], ["r"]),
        node("Reciprocal", ["r"], ["i"]) if reciprocal else node("Div", ["one", "r"], ["i"]),
        node("Mul", ["i", W], ["s"]),
        node("Mul", ["mean", "s"], ["ms"]),
        node("Sub", [B, "ms"], ["shift"]),
        node("Mul", ["X", "s"], ["xs"]),
        node("Add", ["xs", "shift"]),
    ]
    made = model(nodes, PARAMETERS | SCALARS, shape=("N", "T", "D"))
    contents = read(tmp_path, made)
    (stated,) = contents.stated
    assert (stated.name, stated.norm.name, stated.weight, stated.bias) == ("n", "layer-l2", W, B)
    x = np.ascontiguousarray(X.transpose(0, 2, 3, 1)[:, :, 0])
    np.testing.assert_allclose(by_hand(contents, x, -1), runs_to(made, x), rtol=1e-4, atol=1e-5)
    unlike = [each for each in nodes if each.op_type != "Add" or "ve" in each.output]
    assert read(tmp_path, model(unlike, PARAMETERS | SCALARS, shape=("N", "T", "D"))).stated == ()
    nodes[-2].input[0] = "v"
    contents = read(tmp_path, model(nodes, PARAMETERS | SCALARS, shape=("N", "T", "D")))
    assert (contents.stated, [o.name for o in contents.omitted]) == ((), ["bert/norm/moments/variance"])


def test_what_is_added_later_is_no_bias(tmp_path):
    nodes = written_out(centred=True, square="Pow", divide="Div")
    nodes[-1].input[1] = "positions"
    initial = PARAMETERS | SCALARS | {"positions": values((3, C), 6)}
    (stated,) = read(tmp_path, model(nodes, initial, shape=(2, 3, C))).stated
    assert (stated.weight, stated.bias) == (W, None)


def test_an_instance_norm_between_reshapes_with_a_gain_of_its_own_stays_one(tmp_path):
    shapes = {"split": np.array([0, 4, -1]), "whole": np.array([2, C, 3, 5])}
    nodes = [
        node("Reshape", ["X", "split"], ["grouped"]),
        node("InstanceNormalization", ["grouped", "ones", "zeros"], ["y"]),
        node("Reshape", ["y", "whole"], ["back"]),
        node("Mul", ["back", "tall"]),
    ]
    plain = shapes | {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32), "tall": values((C, 1, 1), 3)}
    for own, norm in (
        ({}, "group-l2"),
        ({"ones": values(4, 1)}, "instance-l2"),
        ({"zeros": values(4, 1)}, "instance-l2"),
    ):
        (stated,) = read(tmp_path, model(nodes, plain | own)).stated
        assert stated.norm.name == norm


def test_what_only_resembles_a_norm_is_none_or_said(tmp_path):
    power = [node("Mul", ["X", "X"], ["sq"]), node("ReduceMean", ["sq"], ["v"], axes=[-1]), node("Exp", ["v"])]
    assert (read(tmp_path, model(power)).stated, read(tmp_path, model(power)).omitted) == ((), ())
    cube = written_out(centred=True, square="Pow", divide="Div")
    made = model(cube, PARAMETERS | SCALARS | {"two": np.float32(3)}, shape=(2, C))
    assert (read(tmp_path, made).stated, read(tmp_path, made).omitted) == ((), ())
    late = [*power[:2], node("Sqrt", ["v"], ["s"]), node("Add", ["s", "eps"], ["r"]), node("Div", ["X", "r"])]
    contents = read(tmp_path, model(late, SCALARS))
    assert contents.stated == ()
    assert ["looks like a norm" in o.reason for o in contents.omitted] == [True]
    bare = written_out(centred=True, square="Mul", divide="Div")[:-2]
    contents = read(tmp_path, model(bare, SCALARS, shape=None))
    assert [o.name for o in contents.omitted] == ["blocks.0.norm"]
    (stated,) = read(tmp_path, model(bare, SCALARS, shape=(2, 3, C))).stated
    assert (stated.weight, stated.normalized_shape) == (None, (C,))


def test_torchs_own_exports_are_understood(tmp_path):
    import torch

    class Rms(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(16))

        def forward(self, x):
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    nn = torch.nn
    layers = {
        "conv": nn.Conv2d(3, 8, 3),
        "group": nn.GroupNorm(4, 8, eps=1e-4),
        "instance": nn.InstanceNorm2d(8, affine=True, eps=1e-3),
        "batch": nn.BatchNorm2d(8, momentum=0.2),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "linear": nn.Linear(8, 16),
        "batch1": nn.BatchNorm1d(16),
        "layer": nn.LayerNorm(16, eps=1e-6),
        "rms": Rms(),
    }
    torch.manual_seed(0)
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    for parameters in net.parameters():
        nn.init.uniform_(parameters, 0.5, 2)
    expected = [
        ("group", "group-l2", 1e-4, None, 4, None),
        ("instance", "instance-l2", 1e-3, None, None, None),
        ("batch", "batch-l2", 1e-5, 0.2, None, None),
        ("batch1", "batch-l2", 1e-5, 0.1, None, False),
        ("layer", "layer-l2", 1e-6, None, None, None),
        ("rms", "rms", 1e-6, None, None, None),
    ]
    for opset in (13, 17):  # the layer norm is written out in the first
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                *(net.eval(), torch.randn(2, 3, 9, 9), tmp_path / "m.onnx"),
                dynamo=False,
                opset_version=opset,
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        contents = onnx_graph.read(tmp_path / "m.onnx", "m")
        assert [(s.name, s.norm.name, s.eps, s.momentum, s.num_groups, s.spatial) for s in contents.stated] == expected
        assert contents.omitted == ()
        for stated in contents.stated:
            state = net.get_submodule(stated.name).state_dict()
            for role in ("weight", "bias", "running_mean", "running_var"):
                ours = parameter(contents, getattr(stated, role))
                assert (ours is None) == (role not in state)
                if ours is not None:
                    np.testing.assert_array_equal(ours, state[role].numpy())


# ----------------------------------------------------------------------------------------- subgraphs, functions


def test_norms_in_subgraphs_use_constants_of_both(tmp_path):
    def branch(name, weight, initial):
        nodes = [node("InstanceNormalization", ["X", weight, B], [f"{name} out"])]
        out = [helper.make_tensor_value_info(f"{name} out", 1, None)]
        return helper.make_graph(nodes, name, [], out, initial)

    own = numpy_helper.from_array(values(C, 7), "own.weight")
    clash = numpy_helper.from_array(values(C, 8), W)
    nodes = [
        node("Constant", [], ["cond"], value=numpy_helper.from_array(np.array(True))),
        node("InstanceNormalization", ["X", W, B], ["Z"]),
        node("If", ["cond"], then_branch=branch("a", "own.weight", [own]), else_branch=branch("b", W, [clash])),
    ]
    contents = read(tmp_path, model(nodes))
    assert [(s.name, s.bias) for s in contents.stated] == [("n", B), ("n#2", B), ("own", B)]
    for stated, seed in zip(contents.stated, (0, 8, 7), strict=True):
        np.testing.assert_array_equal(parameter(contents, stated.weight), values(C, seed))


def function(name, calls, domain="d"):
    """Return a function of x and w that calls others; it ends in a layer norm."""
    nodes = [helper.make_node(c, ["x", "w"], [f"{c}{i}"], domain=domain) for i, c in enumerate(calls)]
    nodes.append(helper.make_node("LayerNormalization", ["x", "w"], ["y"]))
    return helper.make_function(
        domain, name, ["x", "w"], ["y"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    )


def test_norms_in_functions_get_the_callers_weights(tmp_path):
    nodes = [node("F", ["X", W], ["h"], domain="d"), node("F", ["h", "o.weight"], domain="d")]
    initial = PARAMETERS | {"o.weight": values(C, 9)}
    contents = read(tmp_path, model(nodes, initial, functions=[function("F", [])], domains=["d"]))
    assert [(s.name, s.weight) for s in contents.stated] == [("n", W), ("o", "o.weight")]


def test_functions_that_never_end_are_refused(tmp_path):
    call = [node("F0", ["X", W], domain="d")]
    circle = [function("F0", ["F1"]), function("F1", ["F0"])]
    with pytest.raises(UnreadableError, match="calls itself"):
        read(tmp_path, model(call, functions=circle, domains=["d"]))
    bomb = [function(f"F{i}", [f"F{i + 1}"] * 10 if i < 30 else []) for i in range(31)]
    with pytest.raises(UnreadableError, match=r"a graph of \S+ nodes"):
        read(tmp_path, model(call, functions=bomb, domains=["d"]))


# ------------------------------------------------------------------------------------- external data, hostility


def external(location, offset=0, length=4 * C, dims=(C,)):
    tensor = TensorProto(name=W, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return model([node("LayerNormalization", ["X", W])], {W: tensor}, shape=(2, C))


def test_data_beside_the_model_is_read_when_it_is_loaded(tmp_path):
    contents = read(tmp_path, external("weights.bin", 16))
    with pytest.raises(UnreadableError, match=r"^m.onnx: constant 'n.weight' lies in 'weights.bin', which is missing"):
        contents.tensors[W].load()
    (tmp_path / "weights.bin").write_bytes(bytes(16) + values(C, 5).tobytes())
    np.testing.assert_array_equal(contents.tensors[W].load(), values(C, 5))
    (tmp_path / "weights.bin").write_bytes(bytes(20))
    with pytest.raises(UnreadableError, match=r"is cut off: 'weights.bin' has 4 bytes of 32 from 16"):
        contents.tensors[W].load()


def test_data_outside_the_models_directory_is_refused(tmp_path):
    inside, outside = tmp_path / "model", tmp_path / "secret.bin"
    inside.mkdir()
    outside.write_bytes(bytes(4 * C))
    (inside / "link.bin").symlink_to(outside)
    (inside / "sub").mkdir()
    (inside / "beside.bin").write_bytes(bytes(4 * C))
    for location in ("../secret.bin", str(outside), "link.bin", "sub/../../secret.bin", "sub/../beside.bin"):
        tensor = read(inside, external(location)).tensors[W]
        with pytest.raises(UnreadableError, match=r"outside the model's directory; refused$"):
            tensor.load()


def test_links_of_a_cache_to_files_that_lie_together_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "1").write_bytes(external("weights.bin").SerializeToString())
    (blobs / "2").write_bytes(values(C, 5).tobytes())
    (snapshot / "m.onnx").symlink_to(blobs / "1")
    (snapshot / "weights.bin").symlink_to(blobs / "2")
    contents = onnx_graph.read(snapshot / "m.onnx", "m")
    np.testing.assert_array_equal(contents.tensors[W].load(), values(C, 5))


def test_constants_that_lie_are_one_line(tmp_path):
    short = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=bytes(8))
    tensor = read(tmp_path, model([], {"t": short})).tensors["t"]
    with pytest.raises(UnreadableError, match=r"^m.onnx: constant 't' cannot be read") as caught:
        tensor.load()
    assert "\n" not in str(caught.value)
    for dims, kind in (([-1], 1), ([2**62, 2**62], 1), ([1], 99)):
        bad = TensorProto(name="t", data_type=kind, dims=dims, raw_data=bytes(8))
        with pytest.raises(UnreadableError, match=r"^m.onnx: constant 't' "):
            read(tmp_path, model([], {"t": bad}))


def test_values_in_circles_end(tmp_path):
    nodes = [node("Identity", ["a"], ["b"]), node("Identity", ["b"], ["a"]), node("LayerNormalization", ["a", "b"])]
    nodes += [node("Mul", ["a", "a"], ["s"]), node("ReduceMean", ["s"], ["v"]), node("Sqrt", ["v"], ["v2"])]
    contents = read(tmp_path, model(nodes, {}))
    assert contents.stated == ()
    assert len(contents.omitted) == 2


def test_many_uses_and_many_equal_names_take_little_time(tmp_path):
    loops = [node("Identity", [f"i{k % 9}"], [f"i{(k * 7 + k // 9) % 9}"]) for k in range(81)]
    nodes = [*loops, node("ReduceMean", ["i0"], ["v"]), node("Mul", ["i1", "i1"], ["i0"])]
    nodes += [node("LayerNormalization", ["X", f"onnx::{k}"], name="same") for k in range(5000)]
    initial = {f"onnx::{k}": np.ones(1, np.float32) for k in range(5000)}
    contents = read(tmp_path, model(nodes, initial, shape=(2, 1)))
    assert len({s.name for s in contents.stated}) == 5000


def test_a_broken_file_is_one_line(tmp_path):
    whole = model([node("LayerNormalization", ["X", W])]).SerializeToString()
    path = tmp_path / "m.onnx"
    for data in (b"", whole[:-3], b"\xff" * 100, b"PK\3\4", b"\x3a" * 10_000):
        path.write_bytes(data)
        with pytest.raises(UnreadableError, match=r"^m: not a complete ONNX model \(") as caught:
            onnx_graph.read(path, "m")
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(UnreadableError, match=r"^m: cannot be opened: "):
            onnx_graph.read(missing, "m")


def test_any_flipped_byte_gives_contents_or_one_line(tmp_path):
    whole = model(written_out(centred=True, square="Pow", divide="Div"), PARAMETERS | SCALARS).SerializeToString()
    path = tmp_path / "m.onnx"
    refused = 0
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << index % 8)]) + whole[index + 1 :])
        try:
            for tensor in onnx_graph.read(path, "m").tensors.values():
                tensor.load()
        except UnreadableError:
            refused += 1
    assert 0 < refused < len(whole)


def test_a_missing_library_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnreadableError, match=r"^m: .*pip install 'normcheck\[onnx\]'$"):
        onnx_graph.read(tmp_path / "m.onnx", "m")


def test_neither_torch_nor_the_large_weights_are_loaded(tmp_path):
    big = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[2**28], data_location=TensorProto.EXTERNAL)
    big.external_data.add(key="location", value="big.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("LayerNormalization", ["X", W])], PARAMETERS | {"big": big}).SerializeToString())
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(2**30)
    program = f"""
import resource, sys
from pathlib import Path
import onnx
from normcheck.layers.readers import onnx_graph
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
contents = onnx_graph.read(Path({str(path)!r}), "m")
assert contents.tensors["big"].shape == (2**28,)
assert contents.tensors[contents.stated[0].weight].load().shape == ({C},)
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1024 if sys.platform == "linux" else 1) < 2**25
