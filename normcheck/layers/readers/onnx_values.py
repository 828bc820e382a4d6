"""The values of an ONNX graph: who makes and who uses each, which are constant, and the constants' elements."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Tensor
from normcheck.layers.readers.elements import shortest, widened

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from types import ModuleType

_DTYPES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT8E4M3FN": "float8_e4m3fn",
    "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E4M3FNUZ": "float8_e4m3fnuz",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz",
}
_NO_NUMBERS = {"UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128"}
_UNCHANGED = {"Identity", "Cast"}
_REARRANGED = {"Squeeze", "Unsqueeze", "Reshape", "Flatten"}
_DEPTH = 16
"""Of chains of operators that change no value: longer ones, and circles, are no model's."""


@dataclass(frozen=True, slots=True)
class Source:
    """The file: its library, where it lies, its name in messages, and all constants met so far by name.

    `names` are those of tensors by what they were called and stored as, `taken` counts the later ones of each name.
    """

    onnx: ModuleType
    path: Path
    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[tuple[str, Hashable], str] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)

    def register(self, tensor: Tensor) -> str:
        """Keep `tensor` and return its name: its own, or a numbered one where another tensor has it already."""
        key = tensor.name, tensor.storage
        if key not in self.names:
            self.names[key] = self.unique(tensor.name)
        name = self.names[key]
        self.tensors[name] = tensor if name == tensor.name else replace(tensor, name=name)
        return name

    def unique(self, name: str) -> str:
        """Return `name` with a number, where a constant has it already."""
        numbered = name
        while numbered in self.tensors:
            self.taken[name] += 1
            numbered = f"{name}#{self.taken[name] + 1}"
        return numbered

    def tensor(self, proto: Any, name: str) -> Tensor | None:
        """Return a constant as a tensor called `name`, not read yet; None where its elements are no numbers."""
        try:
            kind = self.onnx.TensorProto.DataType.Name(proto.data_type)
        except ValueError as error:
            raise UnreadableError(f"{self.name}: constant {name!r} has type {proto.data_type}, unknown") from error
        if kind in _NO_NUMBERS:
            return None
        shape = tuple(proto.dims)
        if min(shape, default=0) < 0 or math.prod(size or 1 for size in shape) > 2**60:
            raise UnreadableError(f"{self.name}: constant {name!r} claims a shape of {shape}; export the model again")
        load = functools.partial(_load, self, proto, f"{self.name}: constant {name!r}", shape)
        dtype = _DTYPES.get(kind, kind.lower())
        return Tensor(name=name, shape=shape, dtype=dtype, storage=(str(self.path), id(proto)), load=load)


class Graph:
    """A graph, or a subgraph of one, which also sees the values of those around it."""

    def __init__(self, source: Source, proto: Any, outer: Graph | None = None) -> None:
        self.source = source
        self.outer = outer
        self.nodes: list[Any] = list(proto.node)
        self.inputs = {value.name for value in proto.input}
        self._check_names(proto)
        self._makers = {output: node for node in self.nodes for output in node.output if output}
        self._users: defaultdict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for value in dict.fromkeys(node.input):
                self._users[value].append(node)
        self._shapes = {v.name: _shape(v) for v in (*proto.input, *proto.value_info, *proto.output)}
        self._constants: dict[str, Tensor | None] = {
            initial.name: source.tensor(initial, initial.name) for initial in proto.initializer
        }
        for tensor in self._constants.values():
            if tensor is not None:
                source.register(tensor)

    def _check_names(self, proto: Any) -> None:
        """Refuse names that are no text: protobuf hands them out as bytes."""
        named = [n.name for items in (self.nodes, proto.initializer, proto.value_info) for n in items]
        named += [name for node in self.nodes for name in (node.op_type, node.domain, *node.input, *node.output)]
        named += [attribute.name for node in self.nodes for attribute in node.attribute]
        wrong = next((name for name in (*named, *self.inputs) if not isinstance(name, str)), None)
        if wrong is not None:
            raise UnreadableError(
                f"{self.source.name}: a name in its graph is no text: {wrong!r}; export the model again"
            )

    def maker(self, value: str) -> Any | None:
        """Return the node that makes a value, whatever only passes it on left out; None where none does."""
        return self._makers.get(self.origin(value))

    def origin(self, value: str) -> str:
        """Return the value that `value` is, possibly in another format."""
        for _ in range(_DEPTH):
            node = self._makers.get(value)
            if node is None or node.op_type not in _UNCHANGED or not node.input:
                break
            value = node.input[0]
        return value

    def users(self, value: str) -> Iterator[Any]:
        """Yield the nodes that use a value, possibly in another format."""
        waiting = [value]
        seen = {value}
        while waiting:
            for node in self._users.get(waiting.pop(), ()):
                if node.op_type not in _UNCHANGED:
                    yield node
                elif node.output and node.output[0] not in seen:
                    seen.add(node.output[0])
                    waiting.append(node.output[0])

    def other(self, node: Any, value: str) -> str | None:
        """Return the other operand of a node with two; None where `value` is both, or neither."""
        if len(node.input) != 2:
            return None
        others = [operand for operand in node.input if self.origin(operand) != self.origin(value)]
        return others[0] if len(others) == 1 else None

    def shape(self, value: str) -> tuple[int | None, ...] | None:
        """Return the shape that the file states for a value, None for sizes that it leaves open."""
        stated = self._shapes.get(value) or self._shapes.get(self.origin(value))
        return stated if stated is not None or self.outer is None else self.outer.shape(value)

    def channels(self, value: str) -> int | None:
        """Return the second size of a value; None where the file does not state it."""
        shape = self.shape(value)
        return shape[1] if shape is not None and len(shape) > 1 else None

    def constant(self, value: str, depth: int = _DEPTH) -> Tensor | None:
        """Return the constant that a value is, possibly in another format or shape, or once dequantised."""
        if value in self._constants:
            return self._constants[value]
        node = self._makers.get(value)
        if node is None:
            return None if self.outer is None or value in self.inputs else self.outer.constant(value, depth)
        found: Tensor | None = None
        if node.op_type == "Constant":
            found = self._of_node(node, value)
        elif depth and node.input and node.op_type in _UNCHANGED | _REARRANGED:
            found = self.constant(node.input[0], depth - 1)
            if found is not None and node.op_type == "Identity":
                found = replace(found, name=value)  # exporters store equal parameters of two layers once
            elif found is not None and node.op_type in _REARRANGED:
                found = self._rearranged(found, value)
        elif depth and node.op_type == "DequantizeLinear":
            found = self._dequantised(node, value, depth - 1)
        self._constants[value] = found
        return found

    def numbers(self, value: str) -> list[float] | None:
        """Return the elements of a small constant: an epsilon, axes, a shape; None where it is none."""
        tensor = self.constant(value)
        if tensor is None or math.prod(tensor.shape) > _DEPTH:
            return None
        return [float(x) for x in tensor.load().ravel()]

    def scalar(self, value: str) -> float | None:
        """Return a constant of one element, as the shortest decimal that its format reads as the same number."""
        tensor, numbers = self.constant(value), self.numbers(value)
        if tensor is None or numbers is None or len(numbers) != 1:
            return None
        return numbers[0] if tensor.dtype == "float64" else shortest(numbers[0])

    def _rearranged(self, tensor: Tensor, value: str) -> Tensor:
        """Return a constant in the shape of `value`, where the graph states that."""
        shape = tuple(size for size in self.shape(value) or () if size is not None)
        if math.prod(shape) != math.prod(tensor.shape):
            return tensor
        return replace(tensor, shape=shape, load=lambda: tensor.load().reshape(shape))

    def _of_node(self, node: Any, name: str) -> Tensor | None:
        for attribute in node.attribute:
            if attribute.name == "value":
                return self.source.tensor(attribute.t, name)
            if attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
                stated = self.source.onnx.helper.get_attribute_value(attribute)
                data = np.asarray(stated, np.float32 if "float" in attribute.name else np.float64)
                return made(name, data.shape, (self.source.name, id(node)), functools.partial(np.array, data))
        return None

    def _dequantised(self, node: Any, name: str, depth: int) -> Tensor | None:
        parts = [self.constant(value, depth) for value in node.input if value]
        codes, scale, *zero = parts if len(parts) in {2, 3} else (None, None)
        if codes is None or scale is None or None in zero or len(codes.shape) > 1:
            return None

        def load() -> Array:
            steps = codes.load().astype(np.float64) - (zero[0].load() if zero and zero[0] is not None else 0)
            return (steps * scale.load()).astype(np.float32).reshape(codes.shape)

        return made(name, codes.shape, (self.source.name, id(node)), load)


def made(name: str, shape: tuple[int, ...], storage: Any, load: Any) -> Tensor:
    """Return a float32 tensor that is computed, not stored."""
    return Tensor(name=name, shape=shape, dtype="float32", storage=storage, load=load)


def flat(tensor: Tensor) -> Tensor:
    """Return a tensor with all elements in one dimension."""
    if len(tensor.shape) == 1:
        return tensor
    return replace(tensor, shape=(math.prod(tensor.shape),), load=lambda: tensor.load().ravel())


def _shape(value: Any) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _load(source: Source, proto: Any, where: str, shape: tuple[int, ...]) -> Array:
    try:
        if proto.data_location == source.onnx.TensorProto.EXTERNAL:
            raw = _external(source, proto, where)
            proto = source.onnx.TensorProto(data_type=proto.data_type, dims=shape, raw_data=raw)
        stored = source.onnx.numpy_helper.to_array(proto)
        return widened(stored)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError) as error:
        why = " ".join(str(error).split())
        raise UnreadableError(f"{where} cannot be read ({why}); export the model again") from error


def _external(source: Source, proto: Any, where: str) -> bytes:
    """Return the bytes of a constant that lies in a file beside the model's."""
    stated = {entry.key: entry.value for entry in proto.external_data}
    location, offset = stated["location"], int(stated.get("offset", 0))
    path = source.path.parent / location
    homes = (source.path.parent.resolve(), source.path.resolve().parent)  # two where caches link to their files
    if not any(path.resolve().is_relative_to(home) for home in homes) or ".." in Path(location).parts:
        raise UnreadableError(f"{where} is said to lie in {location!r}, outside the model's directory; refused")
    if not path.is_file():
        raise UnreadableError(f"{where} lies in {location!r}, which is missing; put it beside the model")
    held = path.stat().st_size - offset
    length = int(stated.get("length", held))
    if offset < 0 or not 0 <= length <= held:
        raise UnreadableError(f"{where} is cut off: {location!r} has {held} bytes of {length} from {offset}")
    return np.fromfile(path, np.uint8, length, offset=offset).tobytes()
