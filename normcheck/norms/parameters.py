"""Parameters of a norm: gamma, beta and running statistics, in a format of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from normcheck.arithmetic.formats import FLOAT32, FLOAT64, Format
from normcheck.arithmetic.rounding import Rounding, round_to
from normcheck.arithmetic.values import PART, Elements, PerRow
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from normcheck.norms.table import Grouping, Norm

Array = np.ndarray[Any, np.dtype[Any]]
Storage = Literal["io", "float32", "stored"]

PARAMS: dict[str, Storage] = {
    "io": "io",
    "float32": "float32",
    "stored": "stored",
    "half": "io",
    "autocast": "float32",
    "half-except-norms": "float32",
}
"""Where gamma, beta and running statistics live: a preset's name, and the format it means. `half`: a model cast with
.half(), parameters in the io format. `autocast`, `half-except-norms`: parameters kept in float32. `stored`: as is."""


class Values(TypedDict):
    """The parts of a `forward.Problem` that parameters make."""

    weight: PerRow | Elements | None
    bias: PerRow | Elements | None
    running_mean: PerRow | None
    running_statistic: PerRow | None


@dataclass(frozen=True, eq=False)
class Parameters:
    """gamma, beta (None: 1 and 0) and, in eval mode, running statistics; float64 vectors, and their format.

    weight, bias: per channel, or per element for layer norms; per output channel for weight norm; one number for
    bounded weight norm (rho). running_statistic: the variance for l2, else the statistic itself. form: the format
    they are numbers of; None where they are taken as exact.
    """

    weight: Array | None = None
    bias: Array | None = None
    running_mean: Array | None = None
    running_statistic: Array | None = None
    form: Format | None = None

    def cast(self, storage: Storage, io: Format, rounding: Rounding) -> Parameters:
        """The parameters as that storage keeps them (rounded to nearest: a cast, not an operation of the norm)."""
        if storage == "stored":
            return replace(self, form=self.form or self._narrowest())
        form = io if storage == "io" else FLOAT32

        def cast(x: Array | None) -> Array | None:
            return None if x is None else round_to(x, form, overflow=rounding.overflow, ftz=rounding.ftz)

        fields = ("weight", "bias", "running_mean", "running_statistic")
        return Parameters(**{name: cast(getattr(self, name)) for name in fields}, form=form)

    def _narrowest(self) -> Format:
        """float32 where all given numbers are numbers of it, else float64."""
        given = [x for x in (self.weight, self.bias, self.running_mean, self.running_statistic) if x is not None]
        return FLOAT32 if all(np.array_equal(x, x.astype(np.float32), equal_nan=True) for x in given) else FLOAT64

    def values(self, norm: Norm, grouping: Grouping, row_start: int, row_stop: int, form: Format | None) -> Values:
        """The parameters of rows [row_start, row_stop) as values of the arithmetic."""

        def affine(x: Array | None) -> PerRow | Elements | None:
            return None if x is None else _spread(x, norm, grouping, row_start, row_stop, form)

        def per_row(x: Array | None) -> PerRow | None:
            if x is None:
                return None
            return PerRow(x[np.arange(row_start, row_stop) % len(x)].reshape(-1, 1), form, 0)

        return Values(
            weight=affine(self.weight),
            bias=affine(self.bias),
            running_mean=per_row(self.running_mean),
            running_statistic=per_row(self.running_statistic),
        )


def _spread(
    x: Array, norm: Norm, grouping: Grouping, row_start: int, row_stop: int, form: Format | None
) -> PerRow | Elements:
    rows = np.arange(row_start, row_stop)
    if grouping.channel_of == "element":
        return Elements.of(x.reshape(1, -1), form, 0)
    if grouping.channel_of != "group" or norm.is_weight:
        return PerRow(x[rows % len(x)].reshape(-1, 1), form, 0)
    per_group = grouping.channels // grouping.groups_per_sample
    spatial = grouping.size // per_group

    def compute(index: int, _first: bool) -> Array:
        j = np.arange(index * PART, min(grouping.size, (index + 1) * PART))
        channel = (rows % grouping.groups_per_sample)[:, None] * per_group + j[None, :] // spatial
        return np.ascontiguousarray(x[channel])

    return Elements(compute, -(-grouping.size // PART), form, 0)


def check_lengths(parameters: Parameters, grouping: Grouping, norm: Norm) -> None:
    """Refuse parameters whose length is not the number of channels (elements, for layer norms).

    Raises:
        UsageError: which one, its length, and the length wanted.
    """
    wanted = 1 if norm.where == "bounded-weight" else grouping.channels
    for name in ("weight", "bias", "running_mean", "running_statistic"):
        x = getattr(parameters, name)
        if x is not None and x.shape != (wanted,):
            raise UsageError(f"{name} of {norm.name}: expected {wanted} numbers, received shape {tuple(x.shape)}")


def storage_form(storage: Storage, io: Format) -> Format | None:
    """Return the format that a storage means for an io format; None for ``stored``, where the numbers decide."""
    return {"io": io, "float32": FLOAT32}.get(storage)


def storage_named(name: str) -> Storage:
    """Return where parameters live under a preset's name.

    Raises:
        UsageError: no such preset.
    """
    try:
        return PARAMS[name.strip().lower()]
    except KeyError:
        raise UsageError(f"unknown parameter preset {name!r}: it can be {', '.join(PARAMS)}") from None
