"""What a real kernel is to the suite: how to call it, and which row of the catalogue says how it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from normcheck.norms.implementations import Implementation

Array = np.ndarray[Any, np.dtype[Any]]
Affine = Literal["none", "weight", "bias", "both"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One call: numbers that the io format (the parameters' format) holds, as float32 arrays.

    x, residual: in torch's shape for the norm, (N, C, ...) or (..., D). running_mean, running_var: of batch norms,
    before the call. threads: how many the kernel may use.
    """

    x: Array
    eps: float
    weight: Array | None = None
    bias: Array | None = None
    num_groups: int | None = None
    residual: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel gave, as float32: the output in x's shape, and, where it returns them, one number a row."""

    y: Array
    mean: Array | None = None
    rstd: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that can be run here, for one norm, io format and format of the parameters.

    implementation: the row of the catalogue. params: ``io`` (parameters in the io format) or ``float32``. affine: the
    combinations of parameters that it takes. packages: distributions whose versions say what was run. mode: of batch
    norms. shapes: names of the families of shapes it is tried on (`normcheck.fidelity.inputs`): ``rows`` for (N, D),
    ``images`` for (N, C, H, W). options: further arguments of `normcheck.emulate`. least: the smallest share of
    identical outputs that is promised; most_ulps: the largest distance that is, where there is one; reason: why the
    share is below 99.9 %, where it is. running: whether it takes running statistics in train mode. threads: numbers of
    threads it is tried with. variant: what tells it from other kernels of the same row, norm, precision and parameters.
    fits: whether it takes an input of a shape with so many groups (None for norms without), where the row's own limits
    do not say. compiled: anew for each shape, so that fewer and larger trials are made. adapted: what becomes of the
    row where the kernel was built otherwise than the row says.
    """

    implementation: str
    norm: str
    precision: str
    run: Callable[[Trial], Observed] = field(repr=False, compare=False)
    packages: tuple[str, ...]
    params: Literal["io", "float32"] = "io"
    affine: tuple[Affine, ...] = ("none", "both")
    shapes: Literal["rows", "images"] = "rows"
    mode: Literal["train", "eval"] = "train"
    residual: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    eps: tuple[float, ...] = (1e-5,)
    reason: str = ""
    least: float = 0.999
    most_ulps: int | None = None
    running: bool = False
    threads: tuple[int, ...] = (1,)
    variant: str = ""
    fits: Callable[[tuple[int, ...], int | None], bool] | None = field(default=None, repr=False, compare=False)
    compiled: bool = False
    adapted: Callable[[Implementation], Implementation] | None = field(default=None, repr=False, compare=False)
