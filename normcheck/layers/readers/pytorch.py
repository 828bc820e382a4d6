"""Checkpoints of torch.save, zip archives and the older plain pickles, read without torch and without running them.

What `torch.load(weights_only=True)` accepts is accepted, and nothing else. It is not used itself because it reads the
older files into memory whole, can be made to take all memory or time by a small file, and, in versions of torch before
2.10, to run code.
"""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING, Any, Literal

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Contents
from normcheck.layers.readers.archive import Archive
from normcheck.layers.readers.names import named_tensors, settings
from normcheck.layers.readers.stored import Odd, Place, Storage, Strided, is_known, rebuild, storage_of, tensor_of
from normcheck.layers.readers.unpickling import Machine, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from normcheck.layers.readers.unpickling import Global

_TYPE = re.compile(
    r"torch\.(qint\d+|quint\d+(x\d)?|u?int[1-7]|bits\d+(x\d)?|bfloat16|cfloat|"
    r"((cuda|sparse|cuda\.sparse)\.)?(Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Tensor)$"
)
MAGIC = 0x1950A86A20F9469CFC6C
_HEADER, _KEYS = 1000, 1_000_000  # operations of the small pickles around the checkpoint's
_PLAIN = frozenset(  # what torch.load(weights_only=True) knows besides tensors
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Buffer",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.TypedStorage",
        "torch.per_channel_affine",
        "torch.per_channel_affine_float_qparams",
        "torch.per_channel_symmetric",
        "torch.per_tensor_affine",
        "torch.per_tensor_symmetric",
    }
)


class RefusedError(UnreadableError):
    """A file holds objects of classes that only their own code can load."""


def read_zip(path: Path, name: str) -> Contents:
    """Describe a zip archive that torch.save wrote.

    Raises:
        MalformedError: it breaks its format.
        RefusedError: it holds objects of classes that only their own code can load.
    """
    with Archive(path) as archive:
        loaded = _checkpoint(Machine(rebuild, _persistent), io.BytesIO(archive.read("data.pkl")), name)
        return _contents(loaded, place_of(archive, "data/", path, name), "PyTorch zip archive")


def read_pickle(path: Path, name: str) -> Contents:
    """Describe a file of the format that torch.save wrote before version 1.6: pickles, then the storages.

    Raises:
        MalformedError: it breaks its format.
        RefusedError: it holds objects of classes that only their own code can load.
    """
    with path.open("rb") as file:
        order = _legacy_order(file)
        storages: dict[str, Storage] = {}
        loaded = _checkpoint(Machine(rebuild, lambda identity: _remembered(identity, storages)), file, name)
        place = Place(path, name, _legacy_runs(file, storages), order)
    return _contents(loaded, place, "PyTorch pickle")


def _checkpoint(machine: Machine, stream: BinaryIO, name: str) -> Any:
    """Run a checkpoint's pickle; what it names comes before what is wrong with it."""
    try:
        loaded = machine.run(stream)
    except MalformedError:
        _refuse(machine, name)
        raise
    _refuse(machine, name)
    return loaded


def _refuse(machine: Machine, name: str) -> None:
    if refused := listed(g for g in machine.globals if not is_plain(g)):
        raise RefusedError(
            f"{name}: refused, because it holds {refused}, which only the file's own code can load; "
            "save the state dict alone, or run its code with --trust if you trust where it comes from"
        )


def is_plain(named: Global) -> bool:
    """Whether torch.load(weights_only=True) would accept a class or function."""
    return is_known(named) or str(named) in _PLAIN or _TYPE.match(str(named)) is not None


def listed(refused: Iterable[Global]) -> str:
    """Return the first classes by name and how many more there are; empty where there are none."""
    # classes of torch's own are in every module: the others say more
    ordered = sorted(refused, key=lambda g: g.module.startswith("torch."))
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ascii(str(g)[:100])[1:-1] for g in ordered[:3]) + more


def _contents(loaded: Any, place: Place, reader: str) -> Contents:
    tensors, omitted = named_tensors(
        loaded, lambda v: isinstance(v, Strided | Odd), lambda v, name: tensor_of(v, name, place)
    )
    return Contents(path=place.name, reader=reader, tensors=tensors, config=settings(loaded), omitted=omitted)


def _persistent(identity: Any) -> Any:
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
        return identity[1]  # a class, beside its source text
    return storage_of(identity)


def _remembered(identity: Any, storages: dict[str, Storage]) -> Any:
    storage = _persistent(identity)
    if isinstance(storage, Storage):
        known = storages.setdefault(storage.key, storage)
        if (known.dtype, known.size) != (storage.dtype, storage.size):
            raise MalformedError(f"its pickle describes storage {storage.key!r} in two ways")
    return storage


def place_of(archive: Archive, folder: str, path: Path, name: str) -> Place:
    """Return where the storages of a folder lie in the archive's file."""
    runs = {n.removeprefix(folder): archive.run(n) for n in archive.names if n.startswith(folder)}
    order = ">" if "byteorder" in archive.names and archive.read("byteorder") == b"big" else "<"
    return Place(path, name, runs, order)


def _legacy_order(file: BinaryIO) -> Literal["<", ">"]:
    """Read the three pickles that come before the checkpoint; return the byte order of its elements."""
    if Machine(limit=_HEADER).run(file) != MAGIC:
        raise MalformedError("it is a pickle, but not one of torch.save")
    _version, system = Machine(limit=_HEADER).run(file), Machine(limit=_HEADER).run(file)
    if not isinstance(system, dict):
        raise MalformedError("what its pickle says of the system is broken")
    return "<" if system.get("little_endian", True) else ">"


def _legacy_runs(file: BinaryIO, storages: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Find the storages behind the pickles: for each key, in order, an 8-byte count and then the elements."""
    keys, runs = Machine(limit=_KEYS).run(file), {}
    if not isinstance(keys, list):
        raise MalformedError("its list of storages is missing")
    at = file.tell()
    end = file.seek(0, 2)
    for key in keys:
        storage = storages.get(key) if type(key) is str else None
        if storage is None or at + 8 + storage.bytes > end:
            raise MalformedError(f"storage {key!r} of its list is not in the file; it is truncated")
        file.seek(at)
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.size:
            raise MalformedError(f"storage {key!r} has {count:,} elements instead of {storage.size:,}")
        runs[key] = (at + 8, storage.bytes)
        at += 8 + storage.bytes
    return runs
