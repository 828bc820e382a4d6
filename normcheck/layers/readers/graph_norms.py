"""Norms in a graph of torch.export: the norm operators, and RMS norms written out as x * rsqrt(mean(x^2) + eps)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from normcheck.layers.contents import ROLES, Stated
from normcheck.layers.operators import OPERATORS
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from normcheck.layers.contents import Tensor


class Name(msgspec.Struct):
    """A value of the graph."""

    name: str = ""


class Size(msgspec.Struct):
    """A size; None where it is symbolic."""

    as_int: int | None = None


class TensorMeta(msgspec.Struct):
    """Type, sizes and strides of a tensor."""

    dtype: int
    sizes: list[Size]
    strides: list[Size]
    storage_offset: Size
    layout: int


class Subgraph(msgspec.Struct):
    """A graph that is an argument of an operator, such as one under torch.no_grad."""

    graph: Graph


class Argument(msgspec.Struct):
    """One argument, of which one field is set."""

    as_tensor: Name | None = None
    as_tensors: list[Name] | None = None
    as_int: int | None = None
    as_float: float | str | None = None
    as_bool: bool | None = None
    as_ints: list[int] | None = None
    as_graph: Subgraph | None = None


class Input(msgspec.Struct):
    """A named argument."""

    name: str
    arg: Argument


class Metadata(msgspec.Struct):
    """Which module an operator was called from: ``key,path,class;key,path,class;...``."""

    nn_module_stack: str = ""


class Node(msgspec.Struct):
    """An operator with its arguments and results."""

    target: str
    inputs: list[Input]
    outputs: list[Argument]
    metadata: Metadata


class Graph(msgspec.Struct):
    """Operators in order, and what is known of each value."""

    inputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]


class Parameter(msgspec.Struct):
    """A value that is a weight: under which name."""

    arg: Name
    parameter_name: str = ""
    buffer_name: str = ""
    tensor_constant_name: str = ""


class InputSpec(msgspec.Struct):
    """What an input of the whole graph is."""

    parameter: Parameter | None = None
    buffer: Parameter | None = None
    tensor_constant: Parameter | None = None


class Signature(msgspec.Struct):
    """The inputs of the whole graph."""

    input_specs: list[InputSpec]


class GraphModule(msgspec.Struct):
    """A graph with its signature."""

    graph: Graph
    signature: Signature


class Program(msgspec.Struct):
    """What torch.export writes of a model, as far as it is needed."""

    graph_module: GraphModule


_TRANSPARENT = frozenset(
    {"to", "_to_copy", "type_as", "alias", "clone", "detach", "contiguous", "repeat", "expand", "view"}
)

_OPERANDS = 16
"""No operator that is looked at has more; one with a million would be walked again for each of its users."""


@dataclass(slots=True)
class _Scope:
    """One graph: which values are weights, which operator makes which value."""

    graph: Graph
    weights: dict[str, str]
    makers: dict[str, Node]

    def weight(self, value: str) -> str | None:
        """Return the name of the weight that a value is, seen through copies and casts."""
        return self.weights.get(self.origin(value))

    def origin(self, value: str) -> str:
        """Return the value that `value` is a copy, cast or view of."""
        for _ in range(16):
            node = self.makers.get(value)
            if node is None or _operator(node) not in _TRANSPARENT:
                break
            value = _tensor_of(node, 0)
        return value


def stated_norms(program: Program, tensors: Mapping[str, Tensor]) -> tuple[Stated, ...]:
    """Return all norms of a program, each with the names of its tensors; one that is called twice comes once."""
    module = program.graph_module
    specs = [s.parameter or s.buffer or s.tensor_constant for s in module.signature.input_specs]
    names = {s.arg.name: s.parameter_name or s.buffer_name or s.tensor_constant_name for s in specs if s is not None}
    weights = {value: name for value, name in names.items() if name in tensors}
    found: dict[tuple[str, str | None, str], Stated] = {}
    for scope in _scopes(module.graph, weights):
        for node in scope.graph.nodes:
            if (stated := _of_operator(scope, node) or _written_out(scope, node, tensors)) is not None:
                found.setdefault((stated.name, stated.weight, stated.norm.name), stated)
    return tuple(found.values())


def _scopes(graph: Graph, weights: dict[str, str]) -> Iterator[_Scope]:
    """Return the graph and all graphs within, whose inputs are operands of the operator that has them."""
    few = [node for node in graph.nodes if len(node.inputs) <= _OPERANDS]
    makers = {out.as_tensor.name: node for node in few for out in node.outputs if out.as_tensor is not None}
    scope = _Scope(graph, weights, makers)
    yield scope
    for node in graph.nodes:
        operands = [name for i in node.inputs for name in _names(i.arg)]
        for inner in (i.arg.as_graph for i in node.inputs if i.arg.as_graph is not None):
            inputs = [name for argument in inner.graph.inputs for name in _names(argument)]
            pairs = zip(inputs, operands, strict=False)
            own = {value: weight for value, operand in pairs if (weight := scope.weight(operand)) is not None}
            yield from _scopes(inner.graph, own)


def _names(argument: Argument) -> list[str]:
    if argument.as_tensor is not None:
        return [argument.as_tensor.name]
    return [name.name for name in argument.as_tensors or ()]


def _operator(node: Node) -> str:
    """Return the name of an operator of aten, without its overload."""
    namespace, _, rest = node.target.removeprefix("torch.ops.").partition(".")
    return rest.partition(".")[0] if namespace == "aten" else ""


def _tensor_of(node: Node, index: int) -> str:
    tensors = [i.arg.as_tensor.name for i in node.inputs if i.arg.as_tensor is not None]
    return tensors[index] if index < len(tensors) else ""


def _of_operator(scope: _Scope, node: Node) -> Stated | None:
    operator = OPERATORS.get(name := _operator(node))
    if operator is None:
        return None
    given = {i.name: i.arg for i in node.inputs}
    weight, bias, mean, var = (_weight(scope, given.get(role)) for role in ROLES)
    norm, groups = operator.norm, given.get("num_groups") or given.get("group")
    if norm == "batch-l2" and "instancenorm" in node.metadata.nn_module_stack.rpartition(";")[2].lower():
        norm = "instance-l2"  # which decompositions write as a batch norm of one sample
    sizes = _sizes(scope, given.get("input"))
    return Stated(
        name=_layer(node, weight or bias or mean),
        norm=norm_named(norm),
        how=f"operator aten.{name}",
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=var,
        eps=_float(given.get("eps"), operator.eps),
        momentum=_float(given.get("momentum"), None),
        num_groups=groups.as_int if groups is not None else None,
        num_channels=sizes[1] if norm in ("batch-l2", "instance-l2", "group-l2") and len(sizes) > 1 else None,
        normalized_shape=tuple(given["normalized_shape"].as_ints or ()) if "normalized_shape" in given else (),
        spatial=len(sizes) > 2 if norm == "batch-l2" and sizes else None,
    )


def _weight(scope: _Scope, argument: Argument | None) -> str | None:
    return None if argument is None or argument.as_tensor is None else scope.weight(argument.as_tensor.name)


def _sizes(scope: _Scope, argument: Argument | None) -> list[int | None]:
    if argument is None or argument.as_tensor is None:
        return []
    meta = scope.graph.tensor_values.get(argument.as_tensor.name)
    return [] if meta is None else [s.as_int for s in meta.sizes]


def _float(argument: Argument | None, default: float | None) -> float | None:
    if argument is None:
        return default
    value = argument.as_float if argument.as_float is not None else argument.as_int
    return float(value) if isinstance(value, int | float) else default


def _layer(node: Node, weight: str | None) -> str:
    """Return a layer's name: its weight's without the last part, else the module's that called the operator."""
    if weight is not None:
        return weight.rpartition(".")[0] or weight
    parts = node.metadata.nn_module_stack.rpartition(";")[2].split(",")
    return parts[1] if len(parts) > 2 and parts[1] else node.target.removeprefix("torch.ops.")


def _written_out(scope: _Scope, node: Node, tensors: Mapping[str, Tensor]) -> Stated | None:
    """Return the RMS norm whose last step is `node`: (x * rsqrt(mean(x^2) + eps)) * weight, or * (1 + weight)."""
    if _operator(node) != "mul":
        return None
    sides = [_tensor_of(node, 0), _tensor_of(node, 1)]
    for normalised, gain in (sides, sides[::-1]):
        weight, offset = _gain(scope, gain)
        eps = _eps_of_rms(scope, normalised) if weight is not None else None
        if weight is not None and eps is not None:
            return Stated(
                name=weight.rpartition(".")[0] or weight,
                norm=norm_named("rms"),
                how="operators x * rsqrt(mean(x^2) + eps)",
                weight=weight,
                eps=eps,
                normalized_shape=tensors[weight].shape,
                weight_offset=offset,
            )
    return None


def _gain(scope: _Scope, value: str) -> tuple[str | None, float]:
    """Return the weight that a value is, and what was added to it."""
    value = scope.origin(value)
    node = scope.makers.get(value)
    if node is not None and _operator(node) == "add":
        offset = _added(node)
        return (None, 0.0) if offset is None else (scope.weight(_tensor_of(node, 0)), offset)
    return scope.weights.get(value), 0.0


def _eps_of_rms(scope: _Scope, value: str) -> float | None:
    """Return eps where `value` is x * rsqrt(mean(x^2) + eps) or x / sqrt(mean(x^2) + eps), else None."""
    for step, root in (("mul", "rsqrt"), ("div", "sqrt")):
        if (last := _maker(scope, value, step)) is None:
            continue
        for side in (0, 1):
            made = _maker(scope, _tensor_of(last, side), root)
            total = _maker(scope, _tensor_of(made, 0), "add") if made is not None else None
            mean = _maker(scope, _tensor_of(total, 0), "mean") if total is not None else None
            if total is not None and mean is not None and _is_square(scope, _tensor_of(mean, 0)):
                return _added(total)
    return None


def _is_square(scope: _Scope, value: str) -> bool:
    power, product = _maker(scope, value, "pow"), _maker(scope, value, "mul")
    if power is not None:
        return any(_float(i.arg, None) == 2 for i in power.inputs if i.name == "exponent")
    same = product is not None and scope.origin(_tensor_of(product, 0)) == scope.origin(_tensor_of(product, 1))
    return same or _maker(scope, value, "square") is not None


def _added(total: Node) -> float | None:
    return next((_float(i.arg, None) for i in total.inputs if i.name == "other"), None)


def _maker(scope: _Scope, value: str, operator: str) -> Node | None:
    node = scope.makers.get(scope.origin(value))
    return node if node is not None and _operator(node) == operator else None
