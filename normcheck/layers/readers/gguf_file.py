"""GGUF files, of llama.cpp: metadata, then each tensor's type, shape and place, then the elements.

The header is walked here, because the gguf library believes every count and length that a file claims, and keeps an
object for each word of the vocabulary (seconds, and hundreds of megabytes). The types, their sizes and the decoding of
quantised elements are the library's.
"""

from __future__ import annotations

import functools
import math
import os
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Contents, Omitted, Stated, Tensor
from normcheck.layers.readers.elements import CODES, as_numbers, read_run, shortest
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType
    from typing import BinaryIO

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"

# Far beyond every model, and little enough to walk in seconds: files that claim more are hostile or damaged.
_MAX_TENSORS, _MAX_SETTINGS, _MAX_WORDS = 2**20, 2**16, 2**22
_MAX_DIMENSIONS, _MAX_ELEMENTS, _MAX_NAME, _MAX_TEXT = 8, 2**60, 2**16, 2**20

_PLAIN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}

_RMS_EPS, _LAYER_EPS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_GROUP_EPS, _GROUPS = "attention.group_norm_epsilon", "attention.group_norm_groups"
_COMMON_NAMES = {
    _RMS_EPS: "rms_norm_eps",
    _LAYER_EPS: "layer_norm_eps",
    _GROUP_EPS: "group_norm_eps",
    _GROUPS: "num_groups",
}
_GROUP_NORM = re.compile(r"posnet\.\d+\.(?:norm|attn_norm)\d*$")  # of vocoders, the only ones that GGUF has keys for
_NORM = re.compile(r"norm|(?:^|[._])ln\d*$")


@dataclass(frozen=True, slots=True)
class _Info:
    """A tensor's entry in the header; `offset` counts from the end of the header."""

    name: str
    dims: tuple[int, ...]
    code: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Header:
    """All that stands before the elements: `order` is struct's sign for the byte order, `begin` where they start."""

    settings: dict[str, Any]
    infos: tuple[_Info, ...]
    order: str
    begin: int
    size: int


class _Cursor:
    """Reads a file front to back, and never more than it holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.order = "<"

    def take(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self._check(count)
        self._file.seek(count, os.SEEK_CUR)

    def number(self, code: str) -> Any:
        return struct.unpack(self.order + code, self.take(struct.calcsize("=" + code)))[0]

    def text(self, limit: int) -> str:
        length = self.number("Q")
        if length > limit:
            raise ValueError(f"a name at byte {self.position} claims {length} bytes")
        return self.take(length).decode()

    @property
    def position(self) -> int:
        return self._file.tell()

    def _check(self, count: int) -> None:
        if count > self.size - self.position:
            raise ValueError(f"it has {self.size} bytes and says that {count} follow byte {self.position}")


def read(path: Path, name: str) -> Contents:
    """Read the header of a GGUF file; elements are read, and quantised ones decoded, when a tensor is loaded.

    The config has all settings but arrays under ``gguf``, and what they say of the model under the names that other
    configs use: ``model_type``, ``rms_norm_eps``, ``layer_norm_eps``, ``group_norm_eps``, ``num_groups``. Where an eps
    among them tells what the norms are, all one-dimensional tensors named as norms are stated. llama.cpp's converter
    stores zero-centred weights (Gemma) with the 1 already added, so that no weight has an offset.

    Raises:
        UnreadableError: it cannot be opened, is damaged or cut off, claims counts or lengths beyond any model's, or
            the gguf package is not installed.
    """
    gguf = _library(name)
    try:
        with path.open("rb") as file:
            header = _walk(_Cursor(file))
        tensors = {info.name: _tensor(gguf, path, name, header, info) for info in header.infos}
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except (ValueError, struct.error) as error:
        why = " ".join(str(error).split())
        raise UnreadableError(f"{name}: not a complete GGUF file ({why}); convert or download it again") from error
    config = _config(header.settings)
    stated, omitted = _norms(config, tensors)
    return Contents(
        path=name,
        reader="GGUF",
        tensors=tensors,
        config=config,
        stated=stated,
        omitted=(*_missing_parts(header.settings, name), *omitted),
    )


def _library(name: str) -> ModuleType:
    try:
        import gguf  # noqa: PLC0415 - optional, and needed for these files alone
        import gguf.quants  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableError(
            f"{name}: a GGUF file, which the gguf package is needed for; pip install 'normcheck[gguf]'"
        ) from error
    return gguf


# ------------------------------------------------------------------------------------------------------- header


def _walk(cursor: _Cursor) -> _Header:
    if cursor.take(len(_MAGIC)) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = cursor.number("I")
    if version % 2**16 == 0:
        cursor.order = ">"
        version = int.from_bytes(struct.pack("<I", version), "big")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}; versions 2 and 3 can be read")
    tensors, count = cursor.number("Q"), cursor.number("Q")
    if tensors > _MAX_TENSORS or count > _MAX_SETTINGS:
        raise ValueError(f"it claims {tensors} tensors and {count} settings")
    settings = _settings(cursor, count)
    infos = tuple(_info(cursor) for _ in range(tensors))
    if len({info.name for info in infos}) < len(infos):
        raise ValueError("two tensors have one name")
    alignment = settings.get(_ALIGNMENT, 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment!r}, no power of two")
    begin = -(-cursor.position // alignment) * alignment
    return _Header(settings, infos, cursor.order, begin, cursor.size)


def _settings(cursor: _Cursor, count: int) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    words = 0
    for _ in range(count):
        key = cursor.text(_MAX_NAME)
        code = cursor.number("I")
        if code == _ARRAY:
            words = _skip_array(cursor, words)
        else:
            settings[key] = _value(cursor, code)
    return settings


def _value(cursor: _Cursor, code: int) -> Any:
    if code == _STRING:
        return cursor.text(_MAX_TEXT)
    if code not in _SCALARS:
        raise ValueError(f"a setting has type {code}, which does not exist")
    value = cursor.number(_SCALARS[code])
    return shortest(value) if _SCALARS[code] == "f" else value


def _skip_array(cursor: _Cursor, words: int) -> int:
    """Pass over an array; return the number of strings seen so far, `words` before it."""
    code: int = cursor.number("I")
    count: int = cursor.number("Q")
    if code in _SCALARS:
        cursor.skip(count * struct.calcsize("=" + _SCALARS[code]))
        return words
    if code != _STRING or words + count > _MAX_WORDS:
        raise ValueError(f"an array claims {count} elements of type {code}")
    for _ in range(count):
        cursor.skip(cursor.number("Q"))
    return words + count


def _info(cursor: _Cursor) -> _Info:
    name = cursor.text(_MAX_NAME)
    rank = cursor.number("I")
    if rank > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} claims {rank} dimensions")
    dims = tuple(cursor.number("Q") for _ in range(rank))
    return _Info(name, dims, cursor.number("I"), cursor.number("Q"))


# ------------------------------------------------------------------------------------------------------ tensors


def _tensor(gguf: ModuleType, path: Path, name: str, header: _Header, info: _Info) -> Tensor:
    try:
        kind = gguf.GGMLQuantizationType(info.code)
    except ValueError:
        raise ValueError(f"tensor {info.name!r} has type {info.code}, which this gguf package does not know") from None
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    elements = math.prod(info.dims)
    row = info.dims[0] if info.dims else 1
    if row % block:
        raise ValueError(f"tensor {info.name!r} has rows of {row}, not whole blocks of {block}")
    if math.prod(size or 1 for size in info.dims) > _MAX_ELEMENTS:
        raise ValueError(f"tensor {info.name!r} claims a shape of {info.dims}")
    size = elements // block * block_bytes
    start = header.begin + info.offset
    if start + size > header.size:
        raise ValueError(f"tensor {info.name!r} ends at byte {start + size}, the file at byte {header.size}")
    shape = info.dims[::-1]  # GGUF has the fastest dimension first
    where = f"{name}: tensor {info.name!r}"
    load = functools.partial(_load, gguf, path, where, kind, shape, header.order, start, size)
    dtype = _PLAIN.get(kind.name, kind.name.lower())
    return Tensor(name=info.name, shape=shape, dtype=dtype, storage=(str(path), start, info.name), load=load)


def _load(
    gguf: ModuleType, path: Path, where: str, kind: Any, shape: tuple[int, ...], order: str, start: int, size: int
) -> Array:
    raw = read_run(path, where, "u1", size, start)
    if kind.name in _PLAIN:
        dtype = _PLAIN[kind.name]
        return as_numbers(raw.view(order + CODES[dtype]), dtype).reshape(shape)
    if order == ">":
        raise UnreadableError(f"{where} is {kind.name} in a big-endian file, which cannot be decoded")
    try:
        decoded: Array = gguf.quants.dequantize(raw.reshape(gguf.quant_shape_to_byte_shape(shape, kind)), kind)
    except (NotImplementedError, ValueError) as error:
        raise UnreadableError(f"{where} is {kind.name}, which this gguf package does not decode") from error
    return decoded.astype(np.float32, copy=False)


# ----------------------------------------------------------------------------------------------------- meanings


def _config(settings: dict[str, Any]) -> dict[str, Any]:
    architecture = settings.get("general.architecture")
    config: dict[str, Any] = {"gguf": settings}
    if isinstance(architecture, str):
        config["model_type"] = architecture
        config |= {
            ours: settings[f"{architecture}.{key}"]
            for key, ours in _COMMON_NAMES.items()
            if f"{architecture}.{key}" in settings
        }
    return config


def _missing_parts(settings: dict[str, Any], name: str) -> tuple[Omitted, ...]:
    parts = settings.get("split.count", 1)
    if not isinstance(parts, int) or parts <= 1:
        return ()
    return (Omitted(name, f"one of {parts} files that make up the model; give them all to see all its norms"),)


def _norms(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[tuple[Stated, ...], tuple[Omitted, ...]]:
    """Return the norms that the settings and the tensors' names describe, and those that they do not."""
    if "rms_norm_eps" not in config and "layer_norm_eps" not in config:
        return (), ()
    stated: list[Stated] = []
    omitted: list[Omitted] = []
    for key, tensor in tensors.items():
        layer = key.removesuffix(".weight")
        if layer == key or not _NORM.search(layer):
            continue
        if "norm" not in layer:
            omitted.append(Omitted(layer, "the file does not say which kind of norm it is, nor its eps"))
        elif len(tensor.shape) != 1:
            omitted.append(Omitted(layer, f"a weight of shape {tensor.shape}: one norm a head, each with its own"))
        else:
            stated.append(_stated(layer, config, tensors))
    return tuple(stated), tuple(omitted)


def _stated(layer: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> Stated:
    bias = f"{layer}.bias" if f"{layer}.bias" in tensors else None
    is_group = _GROUP_NORM.search(layer) and "group_norm_eps" in config
    # where both epsilons are there, llama.cpp's graphs use the root mean square for norms without a bias
    is_rms = "rms_norm_eps" in config and (bias is None or "layer_norm_eps" not in config)
    kind, key = ("rms", "rms_norm_eps") if is_rms else ("layer", "layer_norm_eps")
    if is_group:
        kind, key = "group", "group_norm_eps"
    weight = f"{layer}.weight"
    groups = config.get("num_groups")
    return Stated(
        name=layer,
        norm=norm_named(kind),
        how=f"GGUF metadata of architecture {config['model_type']}: {key}",
        weight=weight,
        bias=bias,
        eps=_number(config[key]),
        num_groups=groups if is_group and isinstance(groups, int) else None,
        normalized_shape=() if is_group else tensors[weight].shape,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
