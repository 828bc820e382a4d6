"""`read`: what a path holds, decided by its content, and who reads it."""

from __future__ import annotations

import os
import re
import stat
import warnings
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from normcheck.errors import NormcheckError, UnreadableError
from normcheck.layers.contents import Contents, Omitted
from normcheck.layers.readers import directory
from normcheck.layers.readers.hub import read_config
from normcheck.layers.readers.pytorch import RefusedError
from normcheck.layers.readers.sniffing import Format, UnknownContentError, format_of, mislabelled
from normcheck.layers.readers.unpickling import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_HUB_WEIGHTS = re.compile(r"^(model|pytorch_model|diffusion_pytorch_model)\b.*\.(safetensors|bin)$")


def read(path: str | os.PathLike[str], *, trust: bool = False) -> Contents:
    """Describe what a model's file or directory holds; its tensors are read later, one by one.

    Args:
        path: a file of torch, TorchScript, torch.export, safetensors, npz, ONNX or GGUF, or a directory of such.
        trust: run the code of files of torch.save that cannot be read without; others are read as ever.

    Raises:
        UnreadableError: there is nothing, or nothing that can be read; one line names the file and says what to do.
    """
    name = os.fspath(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _guarded(name, lambda: _read(Path(name), name, trust=trust))


def _guarded(name: str, action: Callable[[], _T]) -> _T:
    """Turn whatever goes wrong into one line that names the file."""
    try:
        return action()
    except UnreadableError as error:
        raise UnreadableError(*map(_line, error.args)) from error.__cause__
    except NormcheckError:
        raise
    except UnknownContentError as error:
        raise UnreadableError(_line(f"{name}: {error}")) from None
    except MalformedError as error:
        raise UnreadableError(_line(f"{name}: {error}; fetch or save it again")) from None
    except RecursionError:
        raise UnreadableError(_line(f"{name}: is nested too deeply for a model; fetch or save it again")) from None
    except MemoryError:
        raise UnreadableError(_line(f"{name}: asks for more memory than there is; fetch or save it again")) from None
    except OSError as error:
        raise UnreadableError(_line(f"{name}: cannot be read: {error.strerror or error}; check the file")) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableError(_line(f"{name}: is broken: {reason}; fetch or save it again")) from error


def _line(text: object) -> str:
    """Return `text` as one line of bounded length, without anything that a terminal would obey."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(text)[:10_000].split()))
    return line if len(line) <= 1000 else f"{line[:1000]} …"


def _with_guarded_loads(contents: Contents) -> Contents:
    """Guard the loading of each tensor as reading is; what is wrong with it names its file and it."""
    tensors = contents.tensors.items()
    guarded = {key: replace(t, load=partial(_guarded, f"{contents.path}: {key}", t.load)) for key, t in tensors}
    return replace(contents, tensors=guarded)


def _read(path: Path, name: str, *, trust: bool) -> Contents:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError(f"{name}: there is no such file or directory; check the path") from None
    if stat.S_ISDIR(mode):
        return directory.read(path, name, lambda file, named: _read_named(file, named, trust=trust))
    return _with_config(_read_file(path, name, trust=trust), path)


def _read_named(path: Path, name: str, *, trust: bool) -> Contents:
    """Read a file of a directory; what is wrong with it names it and not the directory."""
    return _guarded(name, lambda: _read_file(path, name, trust=trust))


def _with_config(contents: Contents, path: Path) -> Contents:
    """Add the settings that lie beside a file of weights which is named as the hub names them."""
    if contents.config or not _HUB_WEIGHTS.match(path.name):
        return contents
    try:
        return replace(contents, config=read_config(path.parent, str(path.parent)))
    except UnreadableError as error:
        return replace(contents, omitted=(*contents.omitted, Omitted("config.json", str(error))))


def _read_file(path: Path, name: str, *, trust: bool) -> Contents:
    return _with_guarded_loads(_described(path, name, trust=trust))


def _described(path: Path, name: str, *, trust: bool) -> Contents:
    if not stat.S_ISREG(path.stat().st_mode):
        raise UnreadableError(f"{name}: it is neither a file nor a directory; give a model's file")
    found = format_of(path)
    if (complaint := mislabelled(path.name, found)) is not None:
        raise UnreadableError(f"{name}: {complaint}")
    module, function = _READERS[found]
    reader: Callable[[Path, str], Contents] = getattr(import_module(f"{__package__}.{module}"), function)
    try:
        return reader(path, name)
    except RefusedError:
        if not trust:
            raise
    from normcheck.layers.readers import trusted  # noqa: PLC0415 - it needs the parts of a live model

    return trusted.read(path, name)


_READERS = {  # module and function, imported when a file needs them: some load heavy libraries
    Format.TORCH_ZIP: ("pytorch", "read_zip"),
    Format.TORCH_PICKLE: ("pytorch", "read_pickle"),
    Format.TORCHSCRIPT: ("torchscript", "read"),
    Format.EXPORTED: ("exported", "read"),
    Format.SAFETENSORS: ("safetensors_file", "read"),
    Format.NPZ: ("npz", "read"),
    Format.ONNX: ("onnx_graph", "read"),
    Format.GGUF: ("gguf_file", "read"),
}
