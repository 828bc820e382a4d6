"""NumPy archives (.npz): a zip file with one .npy member an array, each a header before the elements."""

from __future__ import annotations

import functools
import io
import lzma
import math
import tokenize
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Array, Contents, Omitted, Tensor
from normcheck.layers.readers.elements import widened
from normcheck.layers.readers.names import renamed_tensors

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIX = ".npy"
_HEADER_BYTES = 2**14
"""No header of an array of numbers is longer; one that claims to be would only be inflated for nothing."""
_BOMB_BYTES, _BOMB_RATIO = 2**28, 100
"""Members that inflate to more bytes and by more than this are made to fill memory, not to hold parameters."""

_DAMAGE = (  # what zipfile and numpy raise on archives that are damaged, encrypted, or made to be hostile
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError, RecursionError, MemoryError),
    *(RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
_PARSERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_NO_NUMBERS = {
    "O": "an array of Python objects, which cannot be read without running code from the file",
    "V": "raw bytes or records; bfloat16 and float8 have no name in this format: save them as float32",
    "c": "complex numbers",
    "U": "text",
    "S": "text",
    "M": "dates",
    "m": "durations",
}


def read(path: Path, name: str) -> Contents:
    """Read the headers of a NumPy archive; elements are read when a tensor is loaded.

    Nothing is unpickled: arrays of objects are left out, as is all that is not numbers. The file stays open as long
    as its tensors live.

    Raises:
        UnreadableError: it cannot be opened, is no zip archive of arrays, is damaged, or a header claims more
            elements than its member holds.
    """
    archive = _open(path, name)
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    if members and not any(member.filename.endswith(_SUFFIX) for member in members):
        raise UnreadableError(f"{name}: a zip archive without arrays (.npy); give the file that holds the model")
    tensors: dict[str, Tensor] = {}
    omitted: list[Omitted] = []
    for member in members:
        found = _member(archive, path, name, member)
        if isinstance(found, Tensor):
            tensors[found.name] = found
        else:
            omitted.append(found)
    named, training = renamed_tensors(tensors)
    return Contents(path=name, reader="NumPy archive", tensors=named, omitted=(*training, *omitted))


def _open(path: Path, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise _damaged(name, error) from error


def _damaged(where: str, error: Exception) -> UnreadableError:
    why = " ".join(str(error).split()) or type(error).__name__
    return UnreadableError(f"{where}: not a complete NumPy archive ({why}); save or download it again")


def _member(archive: zipfile.ZipFile, path: Path, name: str, member: zipfile.ZipInfo) -> Tensor | Omitted:
    key = member.filename.removesuffix(_SUFFIX)
    if key == member.filename:
        return Omitted(key, f"no array but a file of {member.file_size} bytes")
    where = f"{name}: array {key!r}"
    try:
        shape, dtype, begin = _header(archive, member)
    except (OSError, *_DAMAGE) as error:
        raise _damaged(where, error) from error
    if dtype.kind in _NO_NUMBERS:
        return Omitted(key, _NO_NUMBERS[dtype.kind])
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > member.file_size - begin:
        raise UnreadableError(
            f"{where}: its header says {needed} bytes (shape {shape}), the archive holds {member.file_size - begin}; "
            "save or download it again"
        )
    load = functools.partial(_load, archive, member, where)
    return Tensor(name=key, shape=shape, dtype=dtype.name, storage=(str(path), key), load=load)


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return an array's shape and type, and where in its member the elements begin."""
    with archive.open(member) as file:
        start = io.BytesIO(file.read(_HEADER_BYTES))
    version = npy.read_magic(start)
    if version not in {*_PARSERS, (3, 0)}:
        raise ValueError(f"format version {version[0]}.{version[1]} is unknown")
    if version == (3, 0):  # written for records with names beyond Latin-1, and for nothing else
        return (), np.dtype("V1"), start.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers written by Python 2
        shape, _, dtype = _PARSERS[version](start)
    return shape, dtype, start.tell()


def _load(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Array:
    if member.file_size > max(_BOMB_BYTES, _BOMB_RATIO * member.compress_size):
        raise UnreadableError(
            f"{where}: {member.compress_size} bytes that inflate to {member.file_size}: not the parameters of a norm; "
            "save it uncompressed if it is meant to be so"
        )
    try:
        with archive.open(member) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers written by Python 2
            stored: Array = npy.read_array(file, allow_pickle=False)
    except (OSError, *_DAMAGE) as error:
        raise _damaged(where, error) from error
    return widened(stored)
