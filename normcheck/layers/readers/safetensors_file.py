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

import numpy as np
from safetensors import SafetensorError, safe_open

from normcheck.arithmetic.formats import Format, format_named
from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Contents, Tensor
from normcheck.layers.readers.names import named_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LENGTH_BYTES = 8
_METADATA = "__metadata__"

_TYPES: dict[str, tuple[str, str]] = {  # the file's word: ours, and how numpy reads the bytes
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "F8_E4M3": ("float8_e4m3fn", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "u1"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "u1"),
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "i1"),
    "U64": ("uint64", "<u8"),
    "U32": ("uint32", "<u4"),
    "U16": ("uint16", "<u2"),
    "U8": ("uint8", "u1"),
    "BOOL": ("bool", "?"),
}


def read(path: Path, name: str) -> Contents:
    """Read the header of a safetensors file; elements are read when a tensor is loaded.

    Settings in ``__metadata__`` become the config: strings, those that hold a JSON object as nested mappings. An
    entry that names a tensor left out because it shares its memory with another (as `safetensors.torch.save_model`
    writes) becomes a tensor with the storage of that other.

    Raises:
        UnreadableError: it cannot be opened, or is no complete safetensors file.
    """
    header, begin = _header(path, name)
    metadata: dict[str, str] = header.pop(_METADATA, None) or {}
    tensors = {key: _tensor(path, name, begin, key, key, entry) for key, entry in header.items()}
    shared = {alias: key for alias, key in metadata.items() if key in header and alias not in header}
    tensors |= {alias: _tensor(path, name, begin, alias, key, header[key]) for alias, key in shared.items()}
    config = {key: _setting(value) for key, value in metadata.items() if key not in shared}
    named, omitted = named_tensors(tensors, lambda value: isinstance(value, Tensor), _renamed)
    return Contents(path=name, reader="safetensors", tensors=named, config=config, omitted=omitted)


def _renamed(tensor: Tensor, name: str) -> Tensor:
    return replace(tensor, name=name)


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


def _tensor(path: Path, name: str, begin: int, own: str, key: str, entry: Mapping[str, Any]) -> Tensor:
    """Return tensor `own`, whose elements are those of entry `key`; the two differ for aliases."""
    word = entry["dtype"]
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = _TYPES[word][0] if word in _TYPES else word.lower()
    load = functools.partial(_load, path, f"{name}: tensor {key!r}", word, shape, begin + start, end - start)
    return Tensor(name=own, shape=shape, dtype=dtype, storage=(str(path), key), load=load)


def _load(path: Path, where: str, word: str, shape: tuple[int, ...], start: int, size: int) -> Array:
    if word not in _TYPES:
        raise UnreadableError(f"{where} has elements of type {word}, which are no plain numbers")
    dtype, stored = _TYPES[word]
    item = np.dtype(stored)
    count = math.prod(shape)
    if count * item.itemsize != size:
        raise UnreadableError(f"{where} has {size} bytes for {count} elements of type {word}; save the file again")
    try:
        raw = np.fromfile(path, item, count, offset=start)
    except OSError as error:
        raise UnreadableError(f"{where} cannot be read: {error.strerror or error}") from error
    if raw.size != count:
        raise UnreadableError(f"{where} ends after {raw.size} of {count} elements: the file changed while it was read")
    try:
        return _numbers(raw, dtype).reshape(shape)
    except ValueError as error:  # no elements, and dimensions beyond any array's
        raise UnreadableError(f"{where} claims a shape of {shape}; save the file again") from error


def _numbers(raw: Array, dtype: str) -> Array:
    """Return elements of type `dtype` as float32, or as float64 where float32 does not hold them all; exactly."""
    if dtype.startswith("float8"):
        return _values(format_named(dtype))[raw]
    if dtype == "bfloat16":
        numbers: Array = (raw.astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(invalid="ignore"):  # signalling NaNs
            numbers = raw.astype(np.float64 if dtype == "float64" or _is_wide(raw.dtype) else np.float32)
    numbers[np.isnan(numbers)] = np.nan  # quiet: the next conversion need not warn either
    return numbers


def _is_wide(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize > 2


@functools.cache
def _values(form: Format) -> Array:
    """Return the numbers that the 256 codes of an 8-bit format stand for."""
    codes = np.arange(256)
    fraction = codes & (2**form.mantissa_bits - 1)
    exponent = (codes & 127) >> form.mantissa_bits
    significand = fraction + np.where(exponent > 0, 2**form.mantissa_bits, 0)
    values: Array = np.ldexp(significand.astype(np.float32), np.maximum(exponent, 1) - form.bias - form.mantissa_bits)
    beyond = values > form.max_finite
    values[beyond] = np.where(form.infinities & (fraction[beyond] == 0), np.inf, np.nan)
    values[128:] = -values[128:]
    if form.nan == "negative-zero":
        values[128] = np.nan
    return values


def _setting(value: str) -> Any:
    """Return a JSON object as a mapping, and any other string as it is."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if isinstance(parsed, dict) else value
