"""What a model holds, before anything of it is read: what readers hand to discovery."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from normcheck.norms.table import Norm

Array = np.ndarray[Any, np.dtype[Any]]
Role = Literal["weight", "bias", "running_mean", "running_var"]

ROLES: tuple[Role, ...] = ("weight", "bias", "running_mean", "running_var")
"""What a norm's tensors are to it; batch and instance norms alone have running statistics."""

FLOATING = frozenset(
    {
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
    }
)
"""Types of tensors whose elements are numbers as they stand; all others are indices, flags or quantised."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor that has not been read.

    Attributes:
        name: dotted key, as the file has it but for containers and wrappers (``state_dict.``, ``module.``).
        shape: its dimensions.
        dtype: a format's name (`FLOATING`), or the file's own word for what is no plain number: int8, q4_k.
        storage: equal for tensors that are the same memory of the same file, or the same object.
        load: reads it, as float32 where that holds `dtype`, else float64; nothing else of the file is read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Hashable
    load: Callable[[], Array] = field(repr=False)

    @property
    def is_floating(self) -> bool:
        """Whether its elements are numbers as they stand."""
        return self.dtype in FLOATING


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NormFacts:
    """What a file, a module or a call says of a norm.

    Attributes:
        how: what says so, in words: ``operator aten.layer_norm``, ``module torch.nn.GroupNorm``.
        weight, bias, running_mean, running_var: names of tensors in `Contents.tensors`; None where it has none.
        eps, momentum, num_groups: as stated; None where not. num_channels: of norms without parameters.
        normalized_shape: of layer norms; empty for all others.
        weight_offset: what the norm adds to its weight (1 for zero-centred weights).
        spatial: False where the norm is known to see (N, C) only, True where (N, C, ...); None where that is unknown.
    """

    how: str
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Stated(NormFacts):
    """A norm that the file or module itself describes, as an operator of a graph or as a module with its class.

    Attributes:
        name: the layer's name.
        norm: what it is.
    """

    name: str
    norm: Norm


@dataclass(frozen=True, slots=True)
class Omitted:
    """Something that is not analysed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contents:
    """What one file, directory or module holds.

    Attributes:
        path: as the user gave it.
        reader: what it turned out to be: ``safetensors``, ``PyTorch zip archive``, ``ONNX graph``, ``module``.
        tensors: all tensors by name; those of an optimizer's state are not among them.
        config: settings of the model that came with it, as nested mappings: config.json, hyper-parameters, GGUF's
            metadata; empty where none did.
        stated: norms that it describes itself; where there are any, they are all that discovery returns, but for
            reparametrised weights.
        omitted: what the reader left out, and why.
        trusted: whether code from the file was run, because the user asked for it.
    """

    path: str
    reader: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    stated: tuple[Stated, ...] = ()
    omitted: tuple[Omitted, ...] = ()
    trusted: bool = False
