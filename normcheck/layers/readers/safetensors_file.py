"""safetensors files: an eight-byte length, a JSON header with each tensor's type, shape and place, then the bytes.

The safetensors library checks the header: that it is complete, and that the tensors fill the file without gaps or
overlaps. The elements are read with numpy, one tensor at a time, because the library hands bfloat16 and the 8-bit
formats to deep-learning frameworks only, and importing one costs more time and memory than all norms of a model.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Contents, Tensor
from normcheck.layers.readers import converted
from normcheck.layers.readers.elements import CODES, as_numbers, item_size, read_run
from normcheck.layers.readers.names import renamed_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LENGTH_BYTES = 8
_METADATA = "__metadata__"

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Names of types by the file's words for them."""


def read(path: Path, name: str) -> Contents:
    """Read the header of a safetensors file; elements are read when a tensor is loaded.

    Settings in ``__metadata__`` become the config: strings, those that hold a JSON object as nested mappings. An
    entry that names a tensor left out because it shares its memory with another (as `safetensors.torch.save_model`
    writes) becomes a tensor with the storage of that other. What `normcheck convert` wrote of the norms is taken.

    Raises:
        UnreadableError: it cannot be opened, or is no complete safetensors file.
    """
    metadata, tensors = entries(path, name)
    shared = {alias: key for alias, key in metadata.items() if key in tensors and alias not in tensors}
    tensors |= {alias: replace(tensors[key], name=alias) for alias, key in shared.items()}
    config = {key: _setting(value) for key, value in metadata.items() if key not in shared}
    config.pop(converted.METADATA, None)
    named, omitted = renamed_tensors(tensors)
    stated, ignored = converted.stated_in(metadata, named)
    omitted += ignored
    return Contents(path=name, reader="safetensors", tensors=named, config=config, stated=stated, omitted=omitted)


def entries(path: Path, name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file as they stand there.

    Raises:
        UnreadableError: see `read`.
    """
    header, begin = _header(path, name)
    metadata: dict[str, str] = header.pop(_METADATA, None) or {}
    return metadata, {key: _tensor(path, name, begin, key, entry) for key, entry in header.items()}


def _header(path: Path, name: str) -> tuple[dict[str, Any], int]:
    """Return the checked header, and where in the file the elements begin."""
    try:
        with safe_open(path, framework="numpy"):
            pass  # opening it is what checks it
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header: dict[str, Any] = json.loads(file.read(length))
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UnreadableError(
            f"{name}: not a complete safetensors file ({reason}); save or download it again"
        ) from error
    return header, _LENGTH_BYTES + length


def _tensor(path: Path, name: str, begin: int, key: str, entry: Mapping[str, Any]) -> Tensor:
    word = entry["dtype"]
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = _TYPES.get(word, word.lower())
    load = functools.partial(_load, path, f"{name}: tensor {key!r}", word, shape, begin + start, end - start)
    return Tensor(name=key, shape=shape, dtype=dtype, storage=(str(path), key), load=load)


def _load(path: Path, where: str, word: str, shape: tuple[int, ...], start: int, size: int) -> Array:
    if word not in _TYPES:
        raise UnreadableError(f"{where} has elements of type {word}, which are no plain numbers")
    dtype, count = _TYPES[word], math.prod(shape)
    if count * item_size(dtype) != size:
        raise UnreadableError(f"{where} has {size} bytes for {count} elements of type {word}; save the file again")
    stored = read_run(path, where, f"<{CODES[dtype]}", count, start)
    try:
        return as_numbers(stored, dtype).reshape(shape)
    except ValueError as error:  # no elements, and dimensions beyond any array's
        raise UnreadableError(f"{where} claims a shape of {shape}; save the file again") from error


def _setting(value: str) -> Any:
    """Return a JSON object as a mapping, and any other string as it is."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, dict) else value
