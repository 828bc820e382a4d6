"""A zip archive of torch's, read without trust: an entry is not compressed, so it is a run of the file's bytes."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Self

from normcheck.layers.readers.unpickling import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

MAX_DIRECTORY = 32 << 20
"""Bytes of the archive's table of contents; torch needs about 100 for each tensor."""
MAX_TEXT = 64 << 20
"""Bytes of all entries that are read whole, uncompressed: descriptions, not weights."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_END = struct.Struct("<4s8xII2x")
_END_SIZE, _WIDE_END_SIZE = 22, 76
_MAX_COMMENT = 1 << 16


class Archive:
    """An open archive, without the folder that all of its entries lie in.

    Attributes:
        names: of all entries.

    Raises:
        MalformedError: it is no zip archive, is truncated, or claims what no archive of torch has.
    """

    def __init__(self, path: Path) -> None:
        _check_directory(path)
        self._file = path.open("rb")
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._entries = self._named()
            self.names = frozenset(self._entries)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
            self._file.close()
            raise MalformedError(f"its zip archive is broken or truncated: {error}") from None
        self._size = path.stat().st_size
        self._left = MAX_TEXT

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    def _named(self) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name, without the folder that torch puts all of them in."""
        infos = [i for i in self._zip.infolist() if not i.is_dir()]
        tops = {i.filename.partition("/")[0] for i in infos}
        cut = len(tops.pop()) + 1 if len(tops) == 1 and all("/" in i.filename for i in infos) else 0
        entries = {i.filename[cut:]: i for i in infos}
        if len(entries) != len(infos):
            raise MalformedError("its zip archive holds two entries of one name")
        return entries

    def run(self, name: str) -> tuple[int, int]:
        """Return offset and length in bytes of an entry that is stored as it is.

        Raises:
            MalformedError: it is compressed, encrypted, or reaches beyond the file.
        """
        info = self._entries[name]
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise MalformedError(f"entry {name!r} of its zip archive is compressed or encrypted, as torch never does")
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise MalformedError(f"entry {name!r} of its zip archive is not where the archive says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)
        if start + info.file_size > self._size:
            raise MalformedError(f"entry {name!r} of its zip archive reaches beyond the file; it is truncated")
        return start, info.file_size

    def read(self, name: str) -> bytes:
        """Return an entry, of at most `MAX_TEXT` bytes together, uncompressed and checked against its sum.

        Raises:
            MalformedError: it is larger, missing or broken.
        """
        info = self._entries.get(name)
        if info is None:
            raise MalformedError(f"its zip archive has no entry {name!r}")
        self._left -= info.file_size
        if self._left < 0:
            raise MalformedError(f"entry {name!r} of its zip archive claims {info.file_size:,} bytes, too many")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            raise MalformedError(f"entry {name!r} of its zip archive is broken: {error}") from None


def _check_directory(path: Path) -> None:
    """Refuse a table of contents that would not fit into memory, before it is read."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _END_SIZE - _MAX_COMMENT))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END_SIZE:
        raise MalformedError("its zip archive has no end; it is truncated")
    _, size, _ = _END.unpack_from(tail, at)
    wide = at - _WIDE_END_SIZE
    if wide >= 0 and tail.startswith(b"PK\6\6", wide):  # which zipfile believes before the other
        (size,) = struct.unpack_from("<Q", tail, wide + 40)
    if size > MAX_DIRECTORY:
        raise MalformedError(f"its zip archive claims a table of contents of {size:,} bytes")
