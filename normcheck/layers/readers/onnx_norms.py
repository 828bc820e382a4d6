"""Norms that are one operator of an ONNX graph, and what their operands and attributes say."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normcheck.layers.contents import Omitted, Stated, Tensor
from normcheck.layers.readers.elements import shortest
from normcheck.layers.readers.onnx_values import flat, made
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from normcheck.layers.contents import Array
    from normcheck.layers.readers.onnx_values import Graph


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator computes, which operands are its parameters (0 for none), and eps where it states none."""

    norm: str
    weight: int = 1
    bias: int = 0
    eps: float = 1e-5


OPERATORS = {
    "BatchNormalization": Operator("batch", bias=2),
    "LayerNormalization": Operator("layer", bias=2),
    "InstanceNormalization": Operator("instance", bias=2),
    "GroupNormalization": Operator("group", bias=2),
    "RMSNormalization": Operator("rms"),
    "SimplifiedLayerNormalization": Operator("rms"),
    "SkipLayerNormalization": Operator("layer", weight=2, bias=3, eps=1e-12),
    "SkipSimplifiedLayerNormalization": Operator("rms", weight=2, eps=1e-12),
    "EmbedLayerNormalization": Operator("layer", weight=5, bias=6, eps=1e-12),
    "GroupNorm": Operator("group", bias=2),
    "SkipGroupNorm": Operator("group", bias=2),
}
"""Of ONNX and of ONNX Runtime."""

_MEAN_VARIANCE = "it adds its epsilon to the standard deviation, which no norm of normcheck does"
_ELEMENTWISE = {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "Dropout", "Gelu", "Elu", "Softplus", "Identity"}
_GENERATED = re.compile(r"^(onnx::|/|val_|_val_|const|\d+$)|_output_\d+$|^Constant", re.IGNORECASE)
_QUANTISED = re.compile(r"(_quantized|_DequantizeLinear_Output|:0)$")
_PARAMETER = re.compile(r"[._/](weight|gamma|scale)$")


def operator_norm(graph: Graph, node: Any, index: int, opset: int) -> Stated | Omitted | None:
    """Return the norm that a node is, or why it is left out; None where it is none.

    Args:
        graph: the graph that it stands in.
        node: the node. index: its number in the graph, for want of a name.
        opset: version of ONNX's own operators, on which the scale of GroupNormalization depends.
    """
    if node.op_type == "MeanVarianceNormalization":
        return Omitted(layer_name(None, node, index), _MEAN_VARIANCE)
    operator = OPERATORS.get(node.op_type)
    if operator is None or not node.input:
        return None
    settings = _attributes(graph, node)
    weight, bias = _operand(graph, node, operator.weight), _operand(graph, node, operator.bias)
    name = layer_name(weight, node, index)
    if (reason := _unfit(node, operator, settings, weight)) is not None:
        return Omitted(name, reason)
    stated = Stated(
        name=name,
        norm=norm_named(operator.norm),
        how=f"operator {node.op_type}",
        eps=float(settings.get("epsilon", operator.eps)),
        spatial=False if is_flat(graph, node.input[0]) else None,
    )
    if operator.norm == "batch":
        return _batch(graph, node, stated, settings, (weight, bias))
    if operator.norm == "group":
        return _group(graph, node, stated, settings, (weight, bias), opset)
    if operator.norm in {"layer", "rms"}:
        stated = replace(stated, normalized_shape=weight.shape if weight else (), spatial=None)
    return with_parameters(graph, stated, weight, bias)


def _unfit(node: Any, operator: Operator, settings: dict[str, Any], weight: Tensor | None) -> str | None:
    needed = len(node.input) > operator.weight and node.input[operator.weight]
    if weight is None:
        return "its weight is computed in the graph, or comes from outside" if needed else "it has no weight"
    if settings.get("spatial", 1) == 0:
        return "it normalises each activation on its own (spatial = 0)"
    return None


def _operand(graph: Graph, node: Any, position: int) -> Tensor | None:
    if not 0 < position < len(node.input) or not node.input[position]:
        return None
    return graph.constant(node.input[position])


def _batch(
    graph: Graph, node: Any, stated: Stated, settings: dict[str, Any], parameters: tuple[Tensor | None, Tensor | None]
) -> Stated:
    mean, variance = _operand(graph, node, 3), _operand(graph, node, 4)
    register = graph.source.register
    old_share = float(settings.get("momentum", 0.9))  # of the running statistics: normcheck's is the batch's
    return replace(
        with_parameters(graph, stated, *parameters),
        running_mean=None if mean is None else register(flat(mean)),
        running_var=None if variance is None else register(flat(variance)),
        momentum=round(1 - old_share, 9),
    )


def _group(
    graph: Graph,
    node: Any,
    stated: Stated,
    settings: dict[str, Any],
    parameters: tuple[Tensor | None, Tensor | None],
    opset: int,
) -> Stated | Omitted:
    groups = settings.get("num_groups", settings.get("groups"))
    if not isinstance(groups, int) or groups < 1:
        return Omitted(stated.name, "it does not say how many groups it has")
    stated = replace(stated, num_groups=groups)
    if node.op_type != "GroupNormalization" or opset >= 21:
        return with_parameters(graph, stated, *parameters)
    channels = graph.channels(node.input[0])
    if not channels or channels % groups:
        return Omitted(stated.name, "its weight has one element a group, and the graph does not say how many channels")
    weight, bias = (None if p is None else _repeated(p, channels // groups) for p in parameters)
    return with_parameters(graph, stated, weight, bias)


def _repeated(tensor: Tensor, times: int) -> Tensor:
    """Return a parameter of one element a group as one of one element a channel."""

    def load() -> Array:
        return tensor.load().ravel().repeat(times)

    name = f"{tensor.name} (per channel)"
    return made(name, (math.prod(tensor.shape) * times,), (tensor.storage, times), load)


def with_parameters(graph: Graph, stated: Stated, weight: Tensor | None, bias: Tensor | None) -> Stated:
    """Return a norm with its weight and bias, in one dimension unless it is a layer norm over several."""
    if len(stated.normalized_shape) < 2:
        weight, bias = (None if p is None else flat(p) for p in (weight, bias))
    register = graph.source.register
    return replace(
        stated,
        weight=None if weight is None else register(weight),
        bias=None if bias is None else register(bias),
    )


def is_flat(graph: Graph, value: str) -> bool:
    """Whether a value is known to be (N, C)."""
    for _ in range(8):
        shape, node = graph.shape(value), graph.maker(value)
        if shape is not None:
            return len(shape) == 2
        if node is None or node.op_type == "Gemm" or node.op_type not in _ELEMENTWISE or not node.input:
            return node is not None and node.op_type == "Gemm"
        value = node.input[0]
    return False


def _attributes(graph: Graph, node: Any) -> dict[str, Any]:
    """Return a node's numbers by name, floats as the decimals that were meant."""
    kinds = graph.source.onnx.AttributeProto
    numbers: dict[str, Any] = {a.name: shortest(a.f) for a in node.attribute if a.type == kinds.FLOAT}
    return numbers | {a.name: a.i for a in node.attribute if a.type == kinds.INT}


def layer_name(weight: Tensor | None, node: Any, index: int) -> str:
    """Return a norm's name: of its weight as the model called it, else of its node, else of its operator."""
    if weight is not None:
        name = weight.name.removesuffix(" (per channel)")
        while _QUANTISED.search(name):
            name = _QUANTISED.sub("", name)
        if not _GENERATED.search(name):
            return _PARAMETER.sub("", name)
    if not node.name:
        return f"{node.op_type}_{index}"
    scope, _, operator = node.name.rpartition("/")
    if scope.strip("/") and operator.startswith(node.op_type):  # torch: /layers.0/norm/LayerNormalization
        return str(scope.strip("/").replace("/", "."))
    return str(node.name)
