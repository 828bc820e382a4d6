"""Recorded activations in a file: one tensor a norm layer, read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.errors import UnreadableError
from normcheck.layers.contents import NormFacts, Stated, Tensor
from normcheck.layers.readers import read
from normcheck.layers.readers.safetensors_file import entries
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from normcheck.layers.contents import Array, Omitted

METADATA = "normcheck"
"""Key of the metadata of a safetensors file under which `normcheck.record` writes what it knows of the layers."""

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLayer(NormFacts):
    """What was seen of one norm layer while it was recorded, besides the facts that it has as any norm.

    Attributes:
        norm: its name, such as ``batch-l2``.
        functional: whether it is a call of a norm function outside a norm module.
        calls, elements: how often it ran, and on how many elements together.
        max_abs: largest finite magnitude of all elements. nonfinite: share of infinite and NaN elements of all.
        dtype: of what arrived, a format's name; None where nothing did.
        shape: of what was kept: (N, C, S) or (N, C) of batch, instance and group norms, (tokens, D...) of layer norms.
        pinned: positions in its first dimension that were kept for their extremes; the others are a uniform sample.
        thinned: whether only some elements of each channel of a batch norm were kept.
        note: what was not kept, and why; None where there is nothing to say.
    """

    norm: str
    functional: bool
    calls: int
    elements: int
    max_abs: float
    nonfinite: float
    dtype: str | None = None
    shape: tuple[int, ...] = ()
    pinned: tuple[int, ...] = ()
    thinned: bool = False
    note: str | None = None

    def stated(self, name: str) -> Stated:
        """Return the layer as a norm of a module: what functional norms, which no module shows, are analysed as."""
        facts: dict[str, Any] = {field: getattr(self, field) for field in STATED_FIELDS}
        return Stated(name=name, norm=norm_named(self.norm), **facts)


STATED_FIELDS = tuple(field.name for field in fields(NormFacts))
"""The fields that `RecordedLayer` and `Stated` have in common, the norm aside."""


@dataclass(frozen=True, slots=True, eq=False)
class Activations(Mapping[str, "Array"]):
    """Tensors by names of layers; each is read when it is asked for, and not kept.

    Attributes:
        path: the file.
        layers: what `normcheck.record` wrote of each layer, those that never ran included; empty where something else
            wrote the file.
        omitted: what in the file was not taken for activations, and why; nothing in a file of `normcheck.record`.
    """

    path: str
    layers: Mapping[str, RecordedLayer]
    omitted: tuple[Omitted, ...]
    _tensors: Mapping[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by its layer's name."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """The format of each tensor, by its layer's name."""
        return {name: tensor.dtype for name, tensor in self._tensors.items()}

    def load(self, name: str) -> Array:
        """Read one tensor, as float32 where that holds its format, else float64; KeyError where there is none."""
        return self._tensors[name].load()

    def __getitem__(self, name: str) -> Array:
        return self.load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def read_activations(path: str) -> Activations:
    """Open a file of activations: ``normcheck.record``'s, or a mapping from layers' names to tensors by hand.

    Shapes are torch's for the norm: (N, C, ...) for batch, instance and group, (..., D) for layer and RMS norms.
    Whether the names are those of layers is not looked at here.

    Args:
        path: a .safetensors, .npz, .pt or .pth file.

    Raises:
        UnreadableError: no such file, none of these formats, damaged, nothing in it, or a tensor that is empty, has no
            dimension or holds no floating-point numbers.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UnreadableError(f"{path}: not a file of activations; give one of {', '.join(SUFFIXES)}")
    contents = read(path)
    layers, tensors, omitted = {}, contents.tensors, contents.omitted
    if Path(path).suffix.lower() == ".safetensors":
        # by the very names of the layers: a reader of models strips wrappers and leaves out optimizers
        metadata, recorded = entries(Path(path), path)
        if METADATA in metadata:
            layers, tensors, omitted = _decoded(path, metadata[METADATA]), recorded, ()
            _check_known(path, tensors, layers)
    if not tensors:
        raise UnreadableError(f"{path}: there are no activations in it; write one tensor for each layer, by its name")
    for tensor in tensors.values():
        _check(path, tensor)
    return Activations(path, layers, omitted, tensors)


def _check(path: str, tensor: Tensor) -> None:
    if not tensor.is_floating:
        raise UnreadableError(f"{path}: {tensor.name} holds {tensor.dtype}; activations are floating-point numbers")
    if not tensor.shape or 0 in tensor.shape:
        raise UnreadableError(f"{path}: {tensor.name} has shape {tensor.shape}: there is nothing to normalise in it")


def _decoded(path: str, text: str) -> dict[str, RecordedLayer]:
    try:
        return msgspec.json.decode(text, type=dict[str, RecordedLayer])
    except msgspec.MsgspecError as error:
        raise UnreadableError(f"{path}: the metadata {METADATA!r} is damaged ({error}); record it again") from error


def _check_known(path: str, tensors: Mapping[str, Tensor], layers: Mapping[str, RecordedLayer]) -> None:
    unknown = [name for name in tensors if name not in layers or layers[name].dtype is None]
    if unknown:
        raise UnreadableError(f"{path}: the metadata {METADATA!r} does not tell of {unknown[0]!r}; record it again")
