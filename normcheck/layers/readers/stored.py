"""Tensors of torch's archives as described there: which storage, from where, in which shape and strides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Tensor
from normcheck.layers.readers.elements import CODES, UNREAL, as_numbers, item_size, read_run
from normcheck.layers.readers.unpickling import Call, Global, MalformedError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

MAX_DIMENSIONS = 64
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements: `key` in its file, the type and number of elements, the first of them that is seen."""

    key: str
    dtype: str
    size: int
    first: int = 0

    @property
    def bytes(self) -> int:
        """The length of the whole run in the file."""
        return self.size * item_size(self.dtype)


@dataclass(frozen=True, slots=True)
class Strided:
    """A tensor in a storage: element i of dimension d lies `stride[d]` elements after element i - 1."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Odd:
    """A tensor whose elements are no plain numbers: sparse, quantised, meta."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the storages of one file lie: offsets and lengths in bytes by key, and their byte order."""

    path: Path
    name: str
    runs: Mapping[str, tuple[int, int]]
    order: str = "<"


def is_known(named: Global) -> bool:
    """Whether a global is one of torch's storages or dtypes, or a function that rebuilds a tensor."""
    return (
        str(named) in _REBUILDERS
        or (named.module in _STORAGE_MODULES and named.name in _STORAGES)
        or (named.module == "torch" and named.name in CODES)
    )


def storage_of(identity: Any) -> Storage:
    """Return the storage that a persistent id of torch names: ('storage', type, key, location, size[, view]).

    Raises:
        MalformedError: it names none.
    """
    if isinstance(identity, tuple) and len(identity) in (5, 6):
        word, kind, key, _, size, *view = identity
        known = isinstance(kind, Global) and kind.name in _STORAGES
        if word == "storage" and known and type(key) is str and type(size) is int and 0 <= size < 1 << 62:
            return Storage(key, _STORAGES[kind.name], size, _first_seen(view))
    raise MalformedError("its pickle names a storage in a way that torch does not")


def _first_seen(view: list[Any]) -> int:
    """Return where a view of a storage begins: files of the older format may say (key, first element, size)."""
    match view:
        case [(_, int(first), _)]:
            return first
    return 0


def rebuild(function: Global, arguments: tuple[Any, ...]) -> Any:
    """Return what a call in a torch pickle stands for: a tensor's description, a plain container, else a `Call`.

    Raises:
        MalformedError: the arguments are not those of the function.
    """
    rebuilder = _REBUILDERS.get(str(function))
    return Call(function, arguments) if rebuilder is None else rebuilder(*arguments)


def _sizes(values: Any) -> tuple[int, ...]:
    if isinstance(values, Call):  # torch.Size((…))
        (values,) = values.arguments
    if (
        not isinstance(values, tuple | list)
        or len(values) > MAX_DIMENSIONS
        or not all(type(v) is int and 0 <= v < 1 << 62 for v in values)
    ):
        raise MalformedError("a tensor's shape or strides are no sequence of sizes")
    return tuple(values)


def _rebuilt(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Strided | Odd:
    """Describe what `_rebuild_tensor_v2` makes, whose last argument may say that the elements are to be negated."""
    flags = rest[2] if len(rest) > 2 else None
    if isinstance(flags, dict) and any(flags.values()):
        return Odd("lazily negated or conjugated", _sizes(size))
    return strided(storage, offset, size, stride)


def strided(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Strided:
    """Return the tensor that lies so in a storage.

    Raises:
        MalformedError: these are no offset, shape and strides, or reach beyond the storage.
    """
    if not isinstance(storage, Storage):
        raise MalformedError("a tensor has no storage")
    return _checked(Strided(storage, storage.dtype, offset, _sizes(size), _sizes(stride)))


def _strided_of_type(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, *rest: Any) -> Any:
    """Describe what `_rebuild_tensor_v3` makes: the storage is untyped, the type comes beside it."""
    dtype = rest[0].name if rest and isinstance(rest[0], Global) else None
    if dtype not in CODES or not isinstance(storage, Storage):
        return Odd(f"{dtype}", _sizes(size))
    typed = Storage(storage.key, dtype, storage.bytes // item_size(dtype), storage.first // item_size(dtype))
    return _checked(Strided(typed, dtype, offset, _sizes(size), _sizes(stride)))


def _checked(tensor: Strided) -> Strided:
    if type(tensor.offset) is not int or tensor.offset < 0 or len(tensor.shape) != len(tensor.stride):
        raise MalformedError("a tensor's offset, shape and strides do not fit each other")
    end = tensor.storage.first + tensor.offset + _span(tensor)
    if tensor.storage.first < 0 or end > tensor.storage.size:
        raise MalformedError(f"a tensor of shape {tensor.shape} reaches to element {end:,} of {tensor.storage.size:,}")
    return tensor


def _span(tensor: Strided) -> int:
    """Elements of the storage from the tensor's first to its last."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True))


def _first(data: Any, *_: Any) -> Any:
    return data


def _of_subclass(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    nested = str(function) == "torch._tensor._rebuild_from_type_v2"
    if nested or not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise MalformedError("a tensor of a subclass is described in a way that torch does not")
    return rebuild(function, arguments)


def _quantised(storage: Any, _offset: Any, size: Any, *_: Any) -> Odd:
    return Odd(f"quantized {storage.dtype}" if isinstance(storage, Storage) else "quantized", _sizes(size))


def _sparse(_layout: Any, data: Any, *_: Any) -> Odd:
    shapes = [part for part in data if isinstance(part, tuple | Call)] if isinstance(data, tuple) else []
    return Odd("sparse", _sizes(shapes[-1]) if shapes else ())


def _meta(_dtype: Any, size: Any, *_: Any) -> Odd:
    return Odd("meta", _sizes(size))


def _nested(*_: Any) -> Odd:
    return Odd("nested", ())


def _wrapped(_class: Any, _dtype: Any, size: Any, *_: Any) -> Odd:
    return Odd("tensor subclass", _sizes(size))


def _mapping(items: Any = (), *_: Any) -> Any:
    if isinstance(items, dict):
        return items
    pairs = (pair for pair in items if isinstance(pair, list | tuple) and len(pair) == 2)
    return {key: value for key, value in pairs if type(key) is str}


_REBUILDERS: dict[str, Any] = {
    "torch._utils._rebuild_tensor": strided,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_tensor_v3": _strided_of_type,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_wrapper_subclass": _wrapped,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
}


def tensor_of(described: Strided | Odd, name: str, place: Place) -> Tensor:
    """Return a tensor that is read when it is asked for.

    Raises:
        MalformedError: its storage is not in the file.
    """
    if isinstance(described, Odd):
        return unloadable(name, described.shape, described.dtype, ("odd", id(described)), place.name)
    storage = described.storage
    if storage.key not in place.runs:
        raise MalformedError(f"storage {storage.key!r} of {name} is missing")
    start, length = place.runs[storage.key]
    if storage.bytes > length:
        raise MalformedError(f"storage {storage.key!r} of {name} has {length:,} bytes instead of {storage.bytes:,}")
    at = storage.first + described.offset
    identity = (str(place.path), start, at, described.dtype, described.shape, described.stride)
    expanded = math.prod(described.shape) > storage.size
    if expanded or described.dtype in UNREAL:
        return unloadable(name, described.shape, "expanded " * expanded + described.dtype, identity, place.name)
    return Tensor(name, described.shape, described.dtype, identity, lambda: _load(described, start, name, place))


def unloadable(name: str, shape: tuple[int, ...], dtype: str, storage: Hashable, path: str) -> Tensor:
    """Return a tensor whose elements are no plain numbers: to load it is an error."""

    def load() -> Array:
        raise UnreadableError(f"{path}: {name} is {dtype}, which is no tensor of plain numbers")

    return Tensor(name, shape, dtype, storage, load)


def _load(tensor: Strided, start: int, name: str, place: Place) -> Array:
    """Read the elements from the first to the last and pick the tensor's own by its strides."""
    size, where = item_size(tensor.dtype), f"{place.name}: {name}"
    at = start + (tensor.storage.first + tensor.offset) * size
    flat = read_run(place.path, where, place.order + CODES[tensor.dtype], _span(tensor), at)
    steps = tuple(s * size for s in tensor.stride)
    return as_numbers(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps), tensor.dtype)
