"""Directories: Hugging Face layouts, sharded or not, diffusers' folders of components, or plain files side by side."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError
from normcheck.layers.contents import ROLES, Contents, Omitted, Stated, Tensor
from normcheck.layers.readers.hub import read_config, read_index
from normcheck.layers.readers.names import without_wrappers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    ReadFile = Callable[[Path, str], Contents]

MAX_ENTRIES = 20_000
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".onnx", ".gguf", ".pt2", ".jit", ".ts", ".tar")
_TRAINING = re.compile(r"^(training_args\.bin|(optimizer|scheduler|scaler|rng_state\w*|trainer_state)\.(pt|pth|bin))$")
_SHARD = re.compile(r"^(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.(?P<kind>safetensors|bin)$")
_HUB_PICKLE = re.compile(r"^(pytorch_model|diffusion_pytorch_model|model)\b.*\.bin(\.index\.json)?$")


@dataclass(slots=True)
class _Choice:
    """The files of a directory that are read, for each the tensors that an index promises of it, and the rest."""

    files: dict[str, set[str]] = field(default_factory=dict)
    omitted: list[Omitted] = field(default_factory=list)

    def omit(self, names: Iterable[str], reason: str) -> None:
        """Leave files out."""
        self.omitted += [Omitted(name, reason) for name in names]


def read(path: Path, name: str, read_file: ReadFile) -> Contents:
    """Describe the weights in a directory, or in its components where it has none itself.

    Args:
        path: the directory.
        name: as the user gave it.
        read_file: reads one file.

    Raises:
        UnreadableError: it has no weights, or a file of them is missing or cannot be read.
    """
    name = name.rstrip("/") or name
    names = _entries(path, name)
    if _weights(names) or _indexes(names):
        contents = _read_folder(path, name, names, read_file)
        beside = [n for n in names if n.endswith("/") and _weights(_entries(path / n, f"{name}/{n[:-1]}"))]
        left = tuple(Omitted(n, "a folder beside the model's own files; give it by itself") for n in beside)
        return replace(contents, omitted=(*contents.omitted, *left))
    folders = {n[:-1]: _entries(path / n, f"{name}/{n[:-1]}") for n in names if n.endswith("/")}
    found = {n: inside for n, inside in folders.items() if _weights(inside) or _indexes(inside)}
    if not found:
        raise UnreadableError(f"{name}: a directory without model files ({', '.join(_WEIGHTS[:6])}, …); give a file")
    parts = {f"{n}.": _read_folder(path / n, f"{name}/{n}", inside, read_file) for n, inside in found.items()}
    return merged(name, "directory of components", parts, nested=True)


def weights_in(path: Path) -> list[str]:
    """Return the names of a folder's own files of weights, sorted; those of the training's state are not among them.

    Raises:
        UnreadableError: it has more entries than any model's.
    """
    return _weights(_entries(path, str(path)))


def _entries(path: Path, name: str) -> list[str]:
    """Return the names in a directory but for hidden ones, those of directories with a slash behind."""
    names: list[str] = []
    for entry in path.iterdir():
        if len(names) == MAX_ENTRIES:
            raise UnreadableError(f"{name}: a directory of more than {MAX_ENTRIES:,} entries; give the model's own")
        if not entry.name.startswith("."):
            names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    return sorted(names)


def _weights(names: list[str]) -> list[str]:
    return [n for n in names if n.lower().endswith(_WEIGHTS) and not _TRAINING.match(n)]


def _indexes(names: list[str]) -> list[str]:
    return [n for n in names if n.endswith((".safetensors.index.json", ".bin.index.json"))]


def _read_folder(path: Path, name: str, names: list[str], read_file: ReadFile) -> Contents:
    choice = _chosen(path, name, names)
    choice.omit((n for n in names if _TRAINING.match(n)), "state of the training, not of the model")
    parts = {}
    for file, promised in choice.files.items():
        if not (path / file).exists():
            raise UnreadableError(f"{name}/{file}: this shard of the model is missing; fetch it")
        part = read_file(path / file, f"{name}/{file}")
        _check_promised(promised, part, f"{name}/{file}")
        parts[f"{file}:"] = part
    joined = merged(name, "", parts, nested=False)
    kinds = sorted({part.reader for part in parts.values()})
    return replace(
        joined,
        reader=f"directory of {len(parts)} × {kinds[0]}" if len(kinds) == 1 else f"directory of {', '.join(kinds)}",
        config=read_config(path, name) or joined.config,
        omitted=(*joined.omitted, *choice.omitted),
    )


def _check_promised(promised: set[str], part: Contents, name: str) -> None:
    missing = sorted(n for n in promised if not {n, without_wrappers(n)} & part.tensors.keys())
    if missing:
        raise UnreadableError(
            f"{name}: lacks {len(missing)} tensors that the index promises, {missing[0][:100]!a} first; fetch it"
        )


def _chosen(path: Path, name: str, names: list[str]) -> _Choice:
    """Choose each weight once: an index before its shards, safetensors before pickles, plain files before variants."""
    choice, weights = _Choice(), _weights(names)
    indexes = _indexes(names)
    for kind in (".safetensors", ".bin"):
        if index := min((i for i in indexes if i.endswith(f"{kind}.index.json")), key=len, default=None):
            for tensor, shard in read_index(path / index, f"{name}/{index}").items():
                choice.files.setdefault(shard, set()).add(tensor)
            choice.omit((n for n in weights if n not in choice.files), f"{index} does not name it")
            return choice
        if any(n.endswith(kind) for n in weights):
            break
    choice.omit(duplicates := _duplicates(weights), "the same weights are read from another file")
    kept = [n for n in weights if n not in duplicates]
    _check_complete(kept, name)
    choice.files = {n: set() for n in kept}
    return choice


def _duplicates(names: list[str]) -> list[str]:
    """Return files that repeat others: pickles beside safetensors, ``a.fp16.bin`` beside ``a.bin``."""
    stems = {n.rpartition(".")[0] for n in names if n.endswith(".safetensors")}
    present = set(names)

    def repeats(name: str) -> bool:
        stem, _, suffix = name.rpartition(".")
        plain = f"{stem.rpartition('.')[0]}.{suffix}"
        if suffix != "safetensors" and stems and (stem in stems or _HUB_PICKLE.match(name)):
            return True
        return plain in present and plain != name

    return [n for n in names if repeats(n)]


def _check_complete(names: list[str], name: str) -> None:
    """Refuse shards of which some are missing, where no index names them."""
    present = set(names)
    models = {(m["stem"], int(m["count"]), m["kind"]): None for m in map(_SHARD.match, names) if m is not None}
    for stem, count, kind in models:
        for number in range(1, min(count, MAX_ENTRIES) + 1):
            shard = f"{stem}-{number:05}-of-{count:05}.{kind}"
            if shard not in present:
                raise UnreadableError(f"{name}/{shard}: this shard of the model is missing; fetch it")


def merged(name: str, reader: str, parts: dict[str, Contents], *, nested: bool) -> Contents:
    """Join what several files hold.

    Args:
        name: of the whole.
        reader: what the whole is.
        parts: by the prefix of their tensors' and layers' names.
        nested: whether the prefixes belong to the names; else they are used only where names collide.
    """
    total = sum(len(p.tensors) for p in parts.values())
    prefixed = nested or total > len({t for p in parts.values() for t in p.tensors})
    tensors: dict[str, Tensor] = {}
    stated: list[Stated] = []
    config: dict[str, Any] = {}
    for prefix, part in parts.items():
        own = prefix if prefixed else ""
        tensors |= {own + n: replace(t, name=own + n) for n, t in part.tensors.items()}
        stated += [_renamed(s, own) for s in part.stated]
        config |= {prefix.rstrip(".:"): part.config} if prefixed and part.config else part.config
    omitted = tuple(replace(o, name=f"{prefix}{o.name}") for prefix, part in parts.items() for o in part.omitted)
    trusted = any(part.trusted for part in parts.values())
    return Contents(
        path=name,
        reader=reader,
        tensors=tensors,
        config=config,
        stated=tuple(stated),
        omitted=omitted,
        trusted=trusted,
    )


def _renamed(stated: Stated, prefix: str) -> Stated:
    roles = {role: getattr(stated, role) for role in ROLES}
    own = {role: prefix + tensor for role, tensor in roles.items() if tensor is not None}
    return replace(stated, name=prefix + stated.name, **own)
