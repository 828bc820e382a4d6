"""Files that appear whole or not at all, and reports on standard output."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from normcheck.errors import NormcheckError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

STDOUT = "-"
"""The path that means standard output."""

_DESCRIPTORS = re.compile(r"/dev/(?:(stdout)|(stderr)|fd/(\d+))|/proc/self/fd/(\d+)")


def descriptor_of(path: str) -> int | None:
    """Return the open file that a path such as ``/dev/stdout`` or ``/dev/fd/63`` stands for; None for other paths."""
    found = _DESCRIPTORS.fullmatch(path)
    if found is None:
        return None
    out, err, *numbers = found.groups()
    return 1 if out else 2 if err else int(next(number for number in numbers if number))


def check_writable(path: str) -> None:
    """Make sure, before anything is computed, that `write_whole` can write there; leaves nothing behind.

    Raises:
        UsageError: it cannot; the message says why.
    """
    target = _target(path)
    try:
        if (descriptor := descriptor_of(path)) is not None:
            os.fstat(descriptor)
            return
        if target.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory; give the path of a file")
        if not target.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no directory {target.parent}; create it first")
        if _is_replaceable(target):
            os.close(_created(probe := _temporary(target)))
            probe.unlink()
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageError(f"cannot write {path}: it is write-protected")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def write_whole(path: str, pieces: Iterable[str]) -> None:
    """Write the pieces of a text into a file, in UTF-8, as `write_bytes` does."""
    write_bytes(path, (piece.encode() for piece in pieces))


def write_bytes(path: str, pieces: Iterable[bytes]) -> None:
    """Write the pieces of something into a file that is there completely or, whatever happens meanwhile, as before.

    They go into a temporary file in the same directory, to the disk, which then takes the file's name.
    Links are followed; what is no regular file (a pipe, a device) is written to in place, and what is open already,
    such as /dev/stdout, from where it stands.

    Raises:
        NormcheckError: it cannot be written; nothing is left behind.
    """
    target = _target(path)
    try:
        if (descriptor := descriptor_of(path)) is not None:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.writelines(pieces)
        elif _is_replaceable(target):
            _replace(target, pieces)
        else:
            with target.open("wb") as file:
                file.writelines(pieces)
    except OSError as error:
        raise NormcheckError(f"cannot write {path}: {error.strerror}") from error


def emit(pieces: Iterable[str], encoding: str | None = None) -> None:
    """Write a report to standard output; a reader that has gone away is none of the report's business.

    Characters that the encoding (the terminal's, unless given) does not have are escaped.

    Raises:
        NormcheckError: standard output cannot be written to, as on a full disk.
    """
    try:
        sys.stdout.flush()
        for piece in (pieces,) if isinstance(pieces, str) else pieces:
            sys.stdout.buffer.write(piece.encode(encoding or sys.stdout.encoding, "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # What is still buffered would fail again at exit, noisily.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise NormcheckError(f"cannot write to standard output: {error.strerror}") from error


def _target(path: str) -> Path:
    return Path(os.path.realpath(path))


def _is_replaceable(target: Path) -> bool:
    return target.is_file() or not target.exists()


def _temporary(target: Path) -> Path:
    return target.with_name(f".normcheck-{secrets.token_hex(8)}.tmp")


def _created(path: Path) -> int:
    """Create a file that did not exist, with the permissions that the user's mask gives new files."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _replace(target: Path, pieces: Iterable[bytes]) -> None:
    temporary = _temporary(target)
    descriptor = _created(temporary)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
