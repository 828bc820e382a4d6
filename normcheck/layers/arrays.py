"""One array of a file, as it was given on a command line: ``FILE``, or ``FILE:NAME`` of a file that has several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError
from normcheck.layers.readers import read

if TYPE_CHECKING:
    from normcheck.layers.contents import Tensor

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
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableError(f"{path}: not a file of arrays; give one of {', '.join(SUFFIXES)}")
    if not Path(path).exists():
        raise UnreadableError(f"{path}: there is no such file or directory; check the path")
    if suffix == ".npy":
        if name is not None:
            raise UnreadableError(f"{text}: a .npy file holds one array without a name; give {path} alone")
        return _npy(path)
    tensors = _tensors(path)
    if not tensors and suffix in (".pt", ".pth"):
        return _bare(path)
    if name is None and len(tensors) != 1:
        raise UnreadableError(f"{path}: holds {len(tensors)} arrays; name one, as {path}:{next(iter(tensors), 'x')}")
    if name is not None and name not in tensors:
        raise UnreadableError(f"{path}: no array {name!r}; it has {', '.join(list(tensors)[:8]) or 'none'}")
    tensor = tensors[name] if name is not None else next(iter(tensors.values()))
    if not tensor.is_floating:
        raise UnreadableError(f"{path}: {tensor.name} holds {tensor.dtype}, no floating-point numbers")
    return Numbers(tensor.load(), tensor.dtype)


def _tensors(path: str) -> dict[str, Tensor]:
    try:
        return dict(read(path).tensors)
    except UnreadableError as error:
        if "--trust" not in str(error):
            raise
        holds = str(error).partition(", which only")[0]  # --trust is an option of other commands
        raise UnreadableError(f"{holds}; save the tensors alone, as torch.save(dict of tensors, {path})") from error


def _bare(path: str) -> Numbers:
    """A file of torch.save that holds one tensor, or a list of one: no state dict."""
    import torch  # noqa: PLC0415 - loaded for such files only

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        raise UnreadableError(f"{path}: cannot be read as a tensor; save it again with torch.save") from error
    if isinstance(loaded, list | tuple) and len(loaded) == 1:
        loaded = loaded[0]
    if not isinstance(loaded, torch.Tensor):
        raise UnreadableError(f"{path}: holds a {type(loaded).__name__}; save a tensor, or a dict of tensors")
    name = str(loaded.dtype).removeprefix("torch.")
    if not loaded.is_floating_point():
        raise UnreadableError(f"{path}: holds {name}, no floating-point numbers")
    return Numbers(loaded.detach().to(torch.float64 if name == "float64" else torch.float32).numpy(), name)


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
    if values.dtype.kind == "V" and values.dtype.names is None:
        raise UnreadableError(
            f"{path}: holds raw values of {values.dtype.itemsize} bytes, as bfloat16 arrays of ml_dtypes are saved; "
            "save array.astype(numpy.float32): that the numbers are bfloat16's is then seen"
        )
    if values.dtype.kind != "f":
        raise UnreadableError(f"{path}: holds {values.dtype}, no floating-point numbers")
    name = values.dtype.name
    return Numbers(values.astype(np.float32 if name in ("float16", "float32") else np.float64), name)
