"""Archives of torch.export, described from their JSON graph and raw weights; nothing of them is run.

`torch.export.load` is not used, since it evaluates the graph's symbolic sizes, which are text, and unpickles what the
archive says. Fields that are not needed are not even decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Contents, Omitted, Tensor
from normcheck.layers.readers.archive import Archive
from normcheck.layers.readers.directory import merged
from normcheck.layers.readers.elements import item_size
from normcheck.layers.readers.graph_norms import Program, Size, TensorMeta, stated_norms
from normcheck.layers.readers.stored import Odd, Place, Storage, strided, tensor_of
from normcheck.layers.readers.unpickling import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

_TYPES = {  # the archive's numbers for types of elements
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_T = TypeVar("_T")
_STRIDED = 7
_MODELS = "models/"
_OLD = "serialized_exported_program.json"


class _Payload(msgspec.Struct):
    """Where a tensor's elements lie; pickled ones have no description."""

    path_name: str
    use_pickle: bool = False
    tensor_meta: TensorMeta | None = None


class _Payloads(msgspec.Struct):
    """All tensors by their fully qualified names."""

    config: dict[str, _Payload]


def read(path: Path, name: str) -> Contents:
    """Describe an archive of torch.export.

    Raises:
        MalformedError: it breaks its format.
        UnreadableError: it holds no graph, or is of the format before torch 2.8.
    """
    with Archive(path) as archive:
        models = sorted(n for n in archive.names if n.startswith(_MODELS) and n.endswith(".json"))
        if not models:
            what = (
                "is of an older format; load it with torch.export and save it again"
                if _OLD in archive.names
                else ("holds compiled code and no graph; give the model before it was compiled")
            )
            raise UnreadableError(f"{name}: this torch.export archive {what}")
        parts = {_stem(m): _model(archive, m, path, name) for m in models}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return merged(name, "torch.export archive", {f"{stem}.": part for stem, part in parts.items()}, nested=True)


def _stem(model: str) -> str:
    return model.removeprefix(_MODELS).removesuffix(".json")


def _model(archive: Archive, model: str, path: Path, name: str) -> Contents:
    program = _decoded(archive, model, Program)
    tensors, omitted = {}, []
    for folder in ("weights", "constants"):
        config = f"data/{folder}/{_stem(model)}_{folder}_config.json"
        if config in archive.names:
            for key, payload in _decoded(archive, config, _Payloads).config.items():
                found = _tensor(archive, f"data/{folder}/{payload.path_name}", key, payload, Place(path, name, {}))
                if isinstance(found, Tensor):
                    tensors[key] = found
                else:
                    omitted.append(found)
    stated = stated_norms(program, tensors)
    return Contents(path=name, reader="torch.export archive", tensors=tensors, stated=stated, omitted=tuple(omitted))


def _decoded(archive: Archive, entry: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(archive.read(entry), type=kind)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"entry {entry!r} of its archive is not as torch.export writes it: {error}") from None


def _tensor(archive: Archive, entry: str, key: str, payload: _Payload, place: Place) -> Tensor | Omitted:
    meta = payload.tensor_meta
    if payload.use_pickle or meta is None:
        return Omitted(key, "it is pickled, as custom objects and subclasses of tensors are")
    dtype, shape = _TYPES.get(meta.dtype, f"type {meta.dtype}"), _sizes(meta.sizes)
    if meta.layout != _STRIDED or dtype.startswith("type "):
        return tensor_of(Odd(dtype if meta.layout == _STRIDED else f"sparse {dtype}", shape), key, place)
    if entry not in archive.names:
        raise MalformedError(f"entry {entry!r} of its zip archive is missing, which holds {key}")
    run = archive.run(entry)
    offset = meta.storage_offset.as_int or 0
    tensor = strided(Storage(entry, dtype, run[1] // item_size(dtype)), offset, shape, _sizes(meta.strides))
    return tensor_of(tensor, key, Place(place.path, place.name, {entry: run}))


def _sizes(sizes: list[Size]) -> tuple[int, ...]:
    if any(s.as_int is None or not 0 <= s.as_int < 1 << 62 for s in sizes):
        raise MalformedError("a weight's shape or strides are no sequence of sizes")
    return tuple(s.as_int or 0 for s in sizes)
