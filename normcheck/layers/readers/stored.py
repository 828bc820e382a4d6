"""Tensors of torch's archives as described there: which storage, from where, in which shape and strides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.contents import FLOATING, Array, Tensor
from normcheck.layers.readers.unpickling import Call, Global, MalformedError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

MAX_DIMENSIONS = 64
_CODES = {  # as numpy reads the elements; bfloat16 and float8 as the bits that they are
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "float8_e4m3fn": "u1",
    "float8_e5m2": "u1",
    "float8_e4m3fnuz": "u1",
    "float8_e5m2fnuz": "u1",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
    "complex128": "c16",
    "complex64": "c8",
    "complex32": "V4",
    "float8_e8m0fnu": "u1",
    "float4_e2m1fn_x2": "u1",
}
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


def item_size(dtype: str) -> int:
    """Bytes of an element."""
    return np.dtype(_CODES[dtype]).itemsize


def is_known(named: Global) -> bool:
    """Whether a global is one of torch's storages or dtypes, or a function that rebuilds a tensor."""
    return (
        str(named) in _REBUILDERS
        or (named.module in _STORAGE_MODULES and named.name in _STORAGES)
        or (named.module == "torch" and named.name in _CODES)
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
    if dtype not in _CODES or not isinstance(storage, Storage):
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
    if math.prod(described.shape) > storage.size:
        return unloadable(name, described.shape, f"expanded {described.dtype}", identity, place.name)
    return Tensor(name, described.shape, described.dtype, identity, lambda: _load(described, start, name, place))


def unloadable(name: str, shape: tuple[int, ...], dtype: str, storage: Hashable, path: str) -> Tensor:
    """Return a tensor whose elements are no plain numbers: to load it is an error."""

    def load() -> Array:
        raise UnreadableError(f"{path}: {name} is {dtype}, which is no tensor of plain numbers")

    return Tensor(name, shape, dtype, storage, load)


def _load(tensor: Strided, start: int, name: str, place: Place) -> Array:
    """Read the elements from the first to the last and pick the tensor's own by its strides."""
    span, size = _span(tensor), item_size(tensor.dtype)
    code = np.dtype(place.order + _CODES[tensor.dtype])
    at = start + (tensor.storage.first + tensor.offset) * size
    try:
        flat = np.fromfile(place.path, code, span, offset=at)
        if flat.size != span:
            raise UnreadableError(f"{place.name}: {name} is cut off; the file has changed or is truncated")
        steps = tuple(s * size for s in tensor.stride)
        return as_numbers(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps), tensor.dtype)
    except (OSError, MemoryError, ValueError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise UnreadableError(f"{place.name}: {name} cannot be read: {reason}".replace("\n", " ")) from error


def as_numbers(values: Array, dtype: str) -> Array:
    """Return stored elements as float32 where that holds `dtype`, else as float64; bits become numbers.

    Raises:
        MalformedError: complex numbers, and types without numbers of their own.
    """
    if dtype == "bfloat16":
        return np.left_shift(values.astype(np.uint32), 16).view(np.float32)
    if dtype in FLOATING and dtype.startswith("float8"):
        return _from_float8(values, dtype)
    if values.dtype.kind not in "fiu" or dtype not in _CODES or dtype in ("float8_e8m0fnu", "float4_e2m1fn_x2"):
        raise MalformedError(f"{dtype} elements are no plain numbers")
    return values.astype(np.float64 if dtype in ("float64", "int64", "int32", "uint64", "uint32") else np.float32)


def _from_float8(values: Array, dtype: str) -> Array:
    import torch  # noqa: PLC0415 - heavy, and needed for these types alone

    bits = torch.from_numpy(np.ascontiguousarray(values))
    result: Array = bits.view(getattr(torch, dtype)).to(torch.float32).numpy()
    return result
