"""One array of a file, as it was given on a command line: ``FILE``, or ``FILE:NAME`` of a file that has several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.readers import read

Array = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """An array, as float32 where that holds its format, else float64, and the name of that format."""

    values: Array
    dtype: str


def read_array(text: str) -> Numbers:
    """Read the array that ``FILE`` or ``FILE:NAME`` means; nothing in the file is executed.

    Raises:
        UnreadableError: no such file, none of these formats, no such array, several without a name, or no
            floating-point numbers.
    """
    path, name = _split(text)
    if Path(path).suffix.lower() == ".npy":
        return _npy(path)
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UnreadableError(f"{path}: not a file of arrays; give one of {', '.join(SUFFIXES)}")
    tensors = read(path).tensors
    if name is None and len(tensors) != 1:
        raise UnreadableError(f"{path}: holds {len(tensors)} arrays; name one, as {path}:{next(iter(tensors), 'x')}")
    if name is not None and name not in tensors:
        raise UnreadableError(f"{path}: no array {name!r}; it has {', '.join(list(tensors)[:8]) or 'none'}")
    tensor = tensors[name] if name is not None else next(iter(tensors.values()))
    if not tensor.is_floating:
        raise UnreadableError(f"{path}: {tensor.name} holds {tensor.dtype}, no floating-point numbers")
    return Numbers(tensor.load(), tensor.dtype)


def _split(text: str) -> tuple[str, str | None]:
    """Path and name: the colon after the suffix; one in a path before it, or of a drive, is none."""
    for suffix in SUFFIXES:
        path, found, name = text.rpartition(f"{suffix}:")
        if found:
            return path + suffix, name
    return text, None


def _npy(path: str) -> Numbers:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableError(f"{path}: cannot be read as a NumPy array ({error})") from error
    if values.dtype.kind != "f":
        raise UnreadableError(f"{path}: holds {values.dtype}, no floating-point numbers")
    name = values.dtype.name
    return Numbers(values.astype(np.float32 if name in ("float16", "float32") else np.float64), name)
