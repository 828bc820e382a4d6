"""Recorded activations in a file: one tensor a norm layer, read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Stated, Tensor
from normcheck.layers.readers import read
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    import numpy as np

    from normcheck.layers.contents import Omitted

    Array = np.ndarray[Any, np.dtype[Any]]

METADATA = "normcheck"
"""Key of the metadata of a safetensors file under which `normcheck.record` writes what it knows of the layers."""

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLayer:
    """What was seen of one norm layer while it was recorded.

    Attributes:
        norm: its name, such as ``batch-l2``. how: what says so.
        functional: whether it is a call of a norm function outside a norm module.
        calls, elements: how often it ran, and on how many elements together.
        max_abs: largest finite magnitude of all elements. nonfinite: share of infinite and NaN elements of all.
        dtype: of what arrived, a format's name; None where nothing did.
        shape: of what was kept: (N, C, S) or (N, C) of batch, instance and group norms, (tokens, D...) of layer norms.
        pinned: positions in its first dimension that were kept for their extremes; the others are a uniform sample.
        thinned: whether only some elements of each channel of a batch norm were kept.
        note: what was not kept, and why; None where there is nothing to say.
        weight, bias, running_mean, running_var, eps, momentum, num_groups, num_channels, normalized_shape,
        weight_offset, spatial: as of `Stated`.
    """

    norm: str
    how: str
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
    weight: str | None = None
    bias: str | None = None
    running_mean: str | None = None
    running_var: str | None = None
    eps: float | None = None
    momentum: float | None = None
    num_groups: int | None = None
    num_channels: int | None = None
    normalized_shape: tuple[int, ...] = ()
    weight_offset: float = 0.0
    spatial: bool | None = None

    def stated(self, name: str) -> Stated:
        """Return the layer as a norm of a module: what functional norms, which no module shows, are analysed as."""
        facts: dict[str, Any] = {field: getattr(self, field) for field in STATED_FIELDS}
        return Stated(name=name, norm=norm_named(self.norm), **facts)


STATED_FIELDS = (
    "how",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "eps",
    "momentum",
    "num_groups",
    "num_channels",
    "normalized_shape",
    "weight_offset",
    "spatial",
)
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
    if Path(path).suffix.lower() == ".safetensors" and (text := _metadata(path)) is not None:
        layers, omitted = _decoded(path, text), ()
        tensors = _recorded_tensors(path, layers)
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


def _metadata(path: str) -> str | None:
    """What `normcheck.record` wrote beside the tensors; None where it did not write the file."""
    from safetensors import safe_open  # noqa: PLC0415 - only where there is a file of that format

    with safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get(METADATA)


def _decoded(path: str, text: str) -> dict[str, RecordedLayer]:
    try:
        return msgspec.json.decode(text, type=dict[str, RecordedLayer])
    except msgspec.MsgspecError as error:
        raise UnreadableError(f"{path}: the metadata {METADATA!r} is damaged ({error}); record it again") from error


def _recorded_tensors(path: str, layers: Mapping[str, RecordedLayer]) -> dict[str, Tensor]:
    """The tensors by the very names of the layers: a reader of models strips wrappers and leaves out optimizers."""
    from safetensors import safe_open  # noqa: PLC0415 - see `_metadata`

    with safe_open(path, framework="numpy") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    unknown = [name for name in shapes if name not in layers or layers[name].dtype is None]
    if unknown:
        raise UnreadableError(f"{path}: the metadata {METADATA!r} does not tell of {unknown[0]!r}; record it again")
    return {name: _recorded_tensor(path, name, shape, str(layers[name].dtype)) for name, shape in shapes.items()}


def _recorded_tensor(path: str, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    def load() -> Array:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - see `_metadata`

        plain = dtype in ("float16", "float32", "float64")  # numpy has no others; torch is loaded for those
        try:
            with safe_open(path, framework="numpy" if plain else "pt") as file:
                tensor = file.get_tensor(name)
        except (SafetensorError, OSError, TypeError, AttributeError) as error:
            raise UnreadableError(f"{path}: tensor {name!r} cannot be read: {error}") from error
        numbers: Array = tensor if plain else tensor.float().numpy()
        return numbers if dtype == "float64" else numbers.astype("float32", copy=False)

    return Tensor(name=name, shape=shape, dtype=dtype, storage=(path, name), load=load)
