"""What a file holds, told from its first bytes and, of zip archives, from the names in them; and what its name says."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from normcheck.layers.readers.archive import Archive
from normcheck.layers.readers.unpickling import MalformedError

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = 1024


class Format(Enum):
    """Formats that are read."""

    TORCH_ZIP = "a PyTorch zip archive"
    TORCH_PICKLE = "a PyTorch pickle"
    TORCHSCRIPT = "a TorchScript archive"
    EXPORTED = "a torch.export archive"
    SAFETENSORS = "safetensors"
    NPZ = "an npz archive of numpy"
    ONNX = "an ONNX graph"
    GGUF = "GGUF"


_TORCH = frozenset({Format.TORCH_ZIP, Format.TORCH_PICKLE, Format.TORCHSCRIPT, Format.EXPORTED})
_NAMED = {  # what a name promises; a name that is not here promises nothing
    **dict.fromkeys(("pt", "pth", "bin", "ckpt", "tar", "pkl", "pickle", "jit", "ts", "torchscript", "pt2"), _TORCH),
    "safetensors": frozenset({Format.SAFETENSORS}),
    "npz": frozenset({Format.NPZ}),
    "onnx": frozenset({Format.ONNX}),
    "gguf": frozenset({Format.GGUF}),
}
_FOREIGN = (  # what is often found where a model should be, and what to do about it
    (b"version https://git-lfs", "the pointer of a file in Git LFS, not the file; fetch it with `git lfs pull`"),
    (b"<!doctype html", "a web page; the download failed, fetch the file again"),
    (b"<html", "a web page; the download failed, fetch the file again"),
    (b"<?xml", "XML; the download failed, fetch the file again"),
    (b"\x1f\x8b", "gzip data; unpack it with gunzip first"),
    (b"BZh", "bzip2 data; unpack it with bunzip2 first"),
    (b"\xfd7zXZ", "xz data; unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "zstd data; unpack it with unzstd first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"\x89HDF", "HDF5, as Keras writes it, which is not read; convert it to safetensors or npz"),
    (b"\x93NUMPY", "a single numpy array; save named arrays with numpy.savez"),
    (b"\x89PNG", "an image; give a model's file"),
    (b"\xff\xd8\xff", "an image; give a model's file"),
    (b"%PDF", "a PDF; give a model's file"),
    (b"\x7fELF", "a program; give a model's file"),
    (b"{", "JSON; give the file of the weights or the directory that holds both"),
    (b"[", "JSON; give the file of the weights or the directory that holds both"),
)


def format_of(path: Path) -> Format:
    """Return what a file holds.

    Raises:
        MalformedError: it is empty, truncated, or nothing that is read; the message says what to do.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise MalformedError("it is empty")
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _format_of_zip(path)
    if head.startswith((b"GGUF", b"FUGG")):
        return Format.GGUF
    if len(head) > 8 and head[8:9] == b"{":
        return Format.SAFETENSORS
    return _format_of_rest(path, head)


def _format_of_rest(path: Path, head: bytes) -> Format:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, meaning in _FOREIGN:
        if head.startswith(start) or (start.isascii() and text.startswith(start)):
            raise UnknownContentError(f"it holds {meaning}")
    if head[257:262] == b"ustar":
        raise UnknownContentError(
            "it holds a tar archive, as the first versions of torch wrote; save it again with torch"
        )
    if head.startswith(b"\x80") and head[1] in range(2, 6):
        return Format.TORCH_PICKLE
    if _looks_like_onnx(head):
        return Format.ONNX
    if path.suffix.lower().lstrip(".") == "safetensors":
        return Format.SAFETENSORS  # whose reader says what is wrong with it
    raise UnknownContentError("it holds nothing that is known; give a model's file")


class UnknownContentError(MalformedError):
    """A file is whole but no model; the message says what to do."""


def _looks_like_onnx(head: bytes) -> bool:
    """Whether a protobuf message begins as ONNX's ModelProto does: field 1, ir_version, a small integer."""
    return len(head) > 4 and head[0] == 0x08 and 0 < head[1] < 0x20 and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)


def _format_of_zip(path: Path) -> Format:
    with Archive(path) as archive:
        names = archive.names
    if "data.pkl" in names:
        return Format.TORCHSCRIPT if "constants.pkl" in names else Format.TORCH_ZIP
    if "archive_format" in names or any(n.startswith("serialized_exported_program") for n in names):
        return Format.EXPORTED
    if any(n.endswith(".npy") for n in names):
        return Format.NPZ
    if "config.json" in names and any(n.endswith(".h5") for n in names):
        raise UnknownContentError("it holds a Keras model, which is not read; convert it to npz or safetensors")
    raise UnknownContentError("it holds a zip archive that is no model; unpack it and give what is inside")


def mislabelled(filename: str, found: Format) -> str | None:
    """Return what is wrong with a file's name for what it holds, or None."""
    suffix = filename.rpartition(".")[2].lower() if "." in filename else ""
    promised = _NAMED.get(suffix)
    if promised is None or found in promised:
        return None
    right = "pt" if found in _TORCH else {Format.NPZ: "npz", Format.ONNX: "onnx", Format.GGUF: "gguf"}.get(found)
    return f"it is named .{suffix} but holds {found.value}; rename it to .{right or 'safetensors'} or fetch it again"
