"""The small JSON files beside weights: settings of the model, and the index of weights that are split into shards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.errors import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

MAX_CONFIG = 4 << 20
MAX_INDEX = 64 << 20
_CONFIGS = ("config.json", "params.json")


class _Index(msgspec.Struct):
    """``weight_map`` of an index: the shard of each tensor."""

    weight_map: dict[str, str]


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the settings beside the weights, empty where there are none.

    Raises:
        UnreadableError: the file is too large, no JSON, nested too deeply, or no object.
    """
    for filename in _CONFIGS:
        if (path := folder / filename).is_file():
            return _config(path, f"{name}/{filename}")
    return {}


def _config(path: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads(_text(path, name, MAX_CONFIG))
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{name}: is no JSON: {_short(error)}; fetch it again") from None
    if not isinstance(config, dict):
        raise UnreadableError(f"{name}: holds a {type(config).__name__} instead of an object; fetch it again")
    return config


def read_index(path: Path, name: str) -> dict[str, str]:
    """Return the shard of each tensor; a shard is the plain name of a file in the index's own directory.

    Raises:
        UnreadableError: it is no index, names no shard, or one that could lie elsewhere.
    """
    try:
        weight_map = msgspec.json.decode(_text(path, name, MAX_INDEX), type=_Index).weight_map
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UnreadableError(f"{name}: is no index of shards: {_short(error)}; fetch it again") from None
    if not weight_map:
        raise UnreadableError(f"{name}: its weight_map is empty; fetch it again")
    for shard in weight_map.values():
        if not _is_plain(shard):
            raise UnreadableError(
                f"{name}: names the shard {shard[:100]!a}, which is no file of its own directory; "
                "do not trust this model"
            )
    return weight_map


def _is_plain(shard: str) -> bool:
    """Whether a shard is a plain file name of weights, so that no index can lead elsewhere or back to itself."""
    climbs = any(c in shard for c in "/\\:\0") or shard.startswith(".")
    return not climbs and shard.isprintable() and shard.endswith((".safetensors", ".bin", ".pt", ".pth"))


def _text(path: Path, name: str, most: int) -> bytes:
    if (size := path.stat().st_size) > most:
        raise UnreadableError(f"{name}: has {size:,} bytes, too many for what it should be; fetch it again")
    with path.open("rb") as file:
        return file.read(size)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
