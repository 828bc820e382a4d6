"""Norms that an exporter wrote out as many operators of an ONNX graph, recognised by their shape.

    c = Sub(x, ReduceMean(x))                         (c = x in root-mean-square norms)
    v = ReduceMean(Pow(c, 2) or Mul(c, c), axes)
    r = Sqrt(Add(v, eps))
    y = Div(c, r), or Mul(c, Reciprocal(r)), or Mul(c, Div(1, r)), or Mul(c, Pow(Add(v, eps), -1/2))
    z = Add(Mul(y, weight), bias)                     (a Reshape of y before that in group norms)
    z = Add(Mul(x, s), Sub(bias, Mul(mean, s))) with s = Mul(Reciprocal(r), weight), as TensorFlow writes it

Casts may stand between any two of them. The other pattern is torch's group norm: InstanceNormalization with a scale of
ones on (N, groups, -1), between two Reshapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.layers.contents import Omitted, Stated, Tensor
from normcheck.layers.readers.elements import shortest
from normcheck.layers.readers.onnx_norms import layer_name, with_parameters
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from normcheck.layers.readers.onnx_values import Graph

_UNFAMILIAR = "a mean of squares under a root looks like a norm, but what is done with it is not understood"


@dataclass(frozen=True, slots=True)
class _Affine:
    """What follows a normalised value: the gain, what is added to it before, the bias, and whether a Reshape came."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    offset: float = 0.0
    reshaped: bool = False


def written_out(graph: Graph, node: Any, index: int) -> Stated | Omitted | None:
    """Return the norm whose mean of squares is `node`, or why it is left out; None where it is none."""
    if node.op_type != "ReduceMean" or not node.input:
        return None
    centred = _squared(graph, node.input[0])
    if centred is None or (root := _root(graph, node.output[0])) is None:
        return None
    inverse, eps = root
    axes = _axes(graph, node)
    mean_of = _centred_on(graph, centred)
    output = _normalised(graph, inverse, centred)
    affine = _affine(graph, output) if output is not None else _factored(graph, inverse, mean_of)
    if affine is None or axes is None:
        return Omitted(layer_name(None, node, index), _UNFAMILIAR)
    name = layer_name(affine.weight, node, index)
    return _classified(graph, name, mean_of, mean_of or centred, axes, eps, affine)


def reshaped_group(graph: Graph, node: Any, index: int) -> Stated | None:
    """Return torch's group norm, where `node` is its InstanceNormalization; None where it is an instance norm."""
    if node.op_type != "InstanceNormalization" or len(node.input) < 3:
        return None
    before = graph.maker(node.input[0])
    scale, shift = graph.constant(node.input[1]), graph.constant(node.input[2])
    if before is None or before.op_type != "Reshape" or scale is None or shift is None:
        return None
    affine = _affine(graph, node.output[0])
    if not affine.reshaped or np.any(scale.load() != 1) or np.any(shift.load() != 0):
        return None
    eps = next((shortest(a.f) for a in node.attribute if a.name == "epsilon"), 1e-5)
    stated = Stated(
        name=layer_name(affine.weight, node, index),
        norm=norm_named("group"),
        how="InstanceNormalization between Reshapes, as torch exports a group norm",
        eps=eps,
        num_groups=math.prod(scale.shape),
        num_channels=graph.channels(before.input[0]),
    )
    return with_parameters(graph, stated, affine.weight, affine.bias)


# ------------------------------------------------------------------------------------------------ the statistic


def _squared(graph: Graph, value: str) -> str | None:
    """Return what a value is the square of."""
    node = graph.maker(value)
    if node is None or len(node.input) != 2:
        return None
    base, other = graph.origin(node.input[0]), graph.origin(node.input[1])
    if node.op_type == "Mul":
        return base if base == other else None
    return base if node.op_type == "Pow" and graph.scalar(node.input[1]) == 2 else None


def _centred_on(graph: Graph, value: str) -> str | None:
    """Return x where a value is x - mean(x)."""
    node = graph.maker(value)
    if node is None or node.op_type != "Sub" or len(node.input) != 2:
        return None
    x = graph.origin(node.input[0])
    return x if _is_mean(graph, node.input[1], x) else None


def _is_mean(graph: Graph, value: str, x: str | None) -> bool:
    node = graph.maker(value)
    return node is not None and node.op_type == "ReduceMean" and graph.origin(node.input[0]) == x


def _axes(graph: Graph, node: Any) -> tuple[int, ...] | None:
    """Return the axes of a ReduceMean that keeps them, the last ones counted from the end where that can be known."""
    for attribute in node.attribute:
        if attribute.name == "keepdims" and attribute.i == 0:
            return None
    stated = [list(a.ints) for a in node.attribute if a.name == "axes"]
    axes = stated[0] if stated else graph.numbers(node.input[1]) if len(node.input) > 1 else None
    if not axes:
        return None
    shape = graph.shape(node.input[0]) or graph.shape(_centred_on(graph, _squared(graph, node.input[0]) or "") or "")
    rank = len(shape) if shape is not None else 0
    return tuple(sorted(int(axis) - rank if axis >= 0 and rank else int(axis) for axis in axes))


def _root(graph: Graph, variance: str) -> tuple[tuple[str, bool], float] | None:
    """Return sqrt(variance + eps), whether it is the reciprocal of that, and eps."""
    eps = 0.0
    for user in graph.users(variance):
        if user.op_type == "Add" and (other := graph.other(user, variance)) is not None:
            stated = graph.scalar(other)
            if stated is not None:
                variance, eps = user.output[0], stated
                break
    for user in graph.users(variance):
        if user.op_type == "Sqrt":
            return (user.output[0], False), eps
        if user.op_type == "Pow" and len(user.input) == 2 and graph.scalar(user.input[1]) == -0.5:
            return (user.output[0], True), eps
    return None


def _reciprocals(graph: Graph, root: tuple[str, bool]) -> list[str]:
    """Return the values that are one over the root."""
    value, reciprocal = root
    if reciprocal:
        return [value]
    return [
        user.output[0]
        for user in graph.users(value)
        if user.op_type == "Reciprocal" or (user.op_type == "Div" and graph.scalar(user.input[0]) == 1)
    ]


def _normalised(graph: Graph, root: tuple[str, bool], centred: str) -> str | None:
    """Return the value that is `centred` over the root."""
    value, reciprocal = root
    for user in [] if reciprocal else graph.users(value):
        by_root = user.op_type == "Div" and graph.origin(user.input[1]) == graph.origin(value)
        if by_root and _same(graph, user.input[0], centred):
            return str(user.output[0])
    for inverse in _reciprocals(graph, root):
        for user in graph.users(inverse):
            other = graph.other(user, inverse) if user.op_type == "Mul" else None
            if other is not None and _same(graph, other, centred):
                return str(user.output[0])
    return None


def _factored(graph: Graph, root: tuple[str, bool], x: str | None) -> _Affine | None:
    """Return weight and bias of x s + (bias - mean s), with s = weight over the root; None where that is not found."""
    for inverse in _reciprocals(graph, root) if x is not None else ():
        weight, offset, scaled = _gain(graph, inverse)
        products = {
            graph.origin(other): user.output[0]
            for user in graph.users(scaled)
            if user.op_type == "Mul" and (other := graph.other(user, scaled)) is not None
        }
        shifted = next((products[v] for v in products if _is_mean(graph, v, x)), None)
        if weight is None or x not in products or shifted is None:
            continue
        for user in graph.users(shifted):
            bias = graph.constant(user.input[0]) if user.op_type == "Sub" else None
            if bias is not None and any(graph.other(u, user.output[0]) for u in graph.users(products[x])):
                return _Affine(weight, bias, offset)
    return None


def _same(graph: Graph, value: str, centred: str) -> bool:
    """Whether two values are one, or each the same x - mean(x), which some exporters compute twice."""
    if graph.origin(value) == graph.origin(centred):
        return True
    x = _centred_on(graph, value)
    return x is not None and x == _centred_on(graph, centred)


# --------------------------------------------------------------------------------------------- gain, bias, kind


def _affine(graph: Graph, value: str) -> _Affine:
    reshaped = False
    users = list(graph.users(value))
    if len(users) == 1 and users[0].op_type == "Reshape" and graph.origin(users[0].input[0]) == graph.origin(value):
        value, reshaped = users[0].output[0], True
    weight, offset, value = _gain(graph, value)
    bias = None
    if weight is not None:
        for user in graph.users(value):
            other = graph.other(user, value) if user.op_type == "Add" else None
            tensor = None if other is None else graph.constant(other)
            if tensor is not None and math.prod(tensor.shape) == math.prod(weight.shape):
                bias = tensor
    return _Affine(weight, bias, offset, reshaped)


def _gain(graph: Graph, value: str) -> tuple[Tensor | None, float, str]:
    """Return the constant that a value is multiplied with, what is added to that before, and the product."""
    for user in graph.users(value):
        other = graph.other(user, value) if user.op_type == "Mul" else None
        if other is None:
            continue
        tensor, offset = graph.constant(other), 0.0
        if tensor is None:
            tensor, offset = _with_offset(graph, other)
        if tensor is not None and math.prod(tensor.shape) > 1:
            return tensor, offset, user.output[0]
    return None, 0.0, value


def _with_offset(graph: Graph, value: str) -> tuple[Tensor | None, float]:
    """Return a zero-centred weight and its offset, where a value is 1 + weight."""
    node = graph.maker(value)
    if node is None or node.op_type != "Add" or len(node.input) != 2:
        return None, 0.0
    for one, weight in (node.input, reversed(node.input)):
        offset = graph.scalar(one)
        if offset is not None:
            return graph.constant(weight), offset
    return None, 0.0


def _classified(
    graph: Graph, name: str, mean_of: str | None, x: str, axes: tuple[int, ...], eps: float, affine: _Affine
) -> Stated | Omitted:
    """Return the norm over `axes`: which one it is shows in the gain's shape, (D,) or (C, 1, 1), and in a Reshape."""
    gain = affine.weight.shape if affine.weight is not None else ()
    lasting = tuple(range(-len(axes), 0))
    shape = graph.shape(x)
    where, dims = "layer", _layer_shape(gain, axes, shape)
    if affine.reshaped and len(gain) > 1:
        where = "group"
    elif len(gain) > len(axes) and axes in {lasting, tuple(range(2, 2 + len(axes)))} and set(gain[1:]) == {1}:
        where = "instance"
    elif 0 in axes or (shape is not None and axes[0] == -len(shape)):
        return Omitted(name, "it normalises over the batch, with no running statistics in the graph")
    elif dims is None:
        return Omitted(name, "it has no weight, and the graph does not say how large it is")
    if where != "layer" and mean_of is None:
        return Omitted(name, "a root-mean-square norm over groups of channels or over space")
    is_layer = where == "layer"
    stated = Stated(
        name=name,
        norm=norm_named("rms" if mean_of is None else where),
        how="operators of the graph: " + ("mean, " if mean_of is not None else "") + "mean of squares, root, quotient",
        eps=eps,
        num_groups=_groups(graph, x) if where == "group" else None,
        normalized_shape=(dims or ()) if is_layer else (),
        weight_offset=affine.offset,
    )
    return with_parameters(graph, stated, affine.weight, affine.bias)


def _layer_shape(
    gain: tuple[int, ...], axes: tuple[int, ...], shape: tuple[int | None, ...] | None
) -> tuple[int, ...] | None:
    """Return the dimensions that a layer norm normalises; a single one may be the channels of (N, C, H, W)."""
    sizes = tuple(size for size in gain if size != 1)
    if gain:
        return sizes if len(axes) == 1 and len(sizes) == 1 else gain[-len(axes) :]
    known = tuple(shape[axis] for axis in axes) if shape is not None and max(map(abs, axes)) <= len(shape) else ()
    return tuple(size for size in known if size) if known and all(known) else None


def _groups(graph: Graph, x: str) -> int | None:
    node = graph.maker(x)
    target = graph.numbers(node.input[1]) if node is not None and node.op_type == "Reshape" else None
    return int(target[1]) if target is not None and len(target) > 2 and target[1] > 0 else None
