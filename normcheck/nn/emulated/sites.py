"""The norms of a module, each with the implementation that it is to run under, and the study that a call of it is."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.formats import FLOAT32, FLOAT64
from normcheck.errors import NormcheckError, UsageError
from normcheck.layers.live.modules import norms_of
from normcheck.layers.sources import Given
from normcheck.nn.running import RunningAverages
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.catalogue import choices
from normcheck.norms.constants import scale_of
from normcheck.norms.implementations import Implementation
from normcheck.norms.parameters import Parameters, check_lengths
from normcheck.norms.table import Grouping, grouping, norm_named

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.rounding import Rounding
    from normcheck.layers.contents import Stated
    from normcheck.layers.live.modules import FoundNorm
    from normcheck.norms.aliases import Alias
    from normcheck.norms.constants import Kind
    from normcheck.norms.table import Norm

Array = np.ndarray[Any, np.dtype[Any]]
Choice = str | Implementation | None
"""An implementation or its name; None for a norm that is left as it is."""

_DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class Setting:
    """What all norms of a run share; storage: whether parameters are numbers of the precision (``io``) or as stored."""

    io: Format
    rounding: Rounding
    constant: Kind
    halved: bool


@dataclass(slots=True, eq=False)
class Site:
    """A norm of a module: how it is recognised, where it is in order, and what it runs under.

    chosen: what a call picks its row from, by its size, mode and parameters. implementation: the row of the last call;
    before the first, one that defines the norm and the formats.
    """

    found: FoundNorm
    place: int
    chosen: tuple[Implementation | Alias, ...]
    implementation: Implementation
    rows: dict[tuple[Format, Format, int, int, str], Implementation] = field(default_factory=dict)
    runners: dict[tuple[str, Format, Rounding, int], Runner] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its dotted name, as `normcheck.analyze` has it."""
        return self.found.stated.name

    @property
    def norm(self) -> Norm:
        """Which norm it is."""
        return self.found.stated.norm

    def parameter(self, role: str) -> torch.Tensor | None:
        """Its tensor of that role as it is now; None where it has none."""
        name = getattr(self.found.stated, role)
        return None if name is None else getattr(self.found.module, name.rpartition(".")[2])

    @property
    def updates(self) -> bool:
        """Whether a call in the module's present mode mixes the batch's statistics into running ones."""
        module: Any = self.found.module
        keeps = isinstance(module, torch.nn.modules.batchnorm._NormBase | RunningAverages)  # noqa: SLF001 - see `live`
        return keeps and module.training and module.track_running_stats and self.parameter("running_var") is not None

    @property
    def is_fixed(self) -> bool:
        """Whether a call in the module's present mode divides by running statistics."""
        module: Any = self.found.module
        keeps = isinstance(module, torch.nn.modules.batchnorm._NormBase | RunningAverages)  # noqa: SLF001 - see `live`
        return self.parameter("running_var") is not None and not (keeps and module.training)

    def study(self, x: Array, setting: Setting, rounding: Rounding) -> Study:
        """Return what a call on `x` is; `x` in the shape that `arranged` gives.

        Raises:
            UsageError: a shape or setting that the norm cannot have.
        """
        stated = self.found.stated
        group = grouping(self.norm, x.shape, stated.num_groups)
        if stated.num_channels not in (None, group.channels):
            raise UsageError(f"expected {stated.num_channels} channels, received {group.channels}")
        if group.size == 1 and self.norm.centred and not self.is_fixed:
            raise UsageError("expected more than 1 value in each group, whose deviation is 0 otherwise")
        stored = self._parameters()
        check_lengths(stored, group, self.norm)
        given = stored
        if setting.halved:
            stored = stored.cast("io", setting.io, rounding)
        scale, k = scale_of(self.norm, self.constant(setting.constant), group.size, self.k)
        return Study(
            norm=self.norm,
            grouping=group,
            io=setting.io,
            source=Given.of(x, group),
            eps=self.eps,
            scale=scale,
            k=k or 1,
            parameters=given,
            stored=stored,
            runners=(self._runner(setting.io, stored.form or FLOAT32, rounding, group),),
            momentum=self._momentum if self.updates else None,
            weight_offset=stated.weight_offset,
        )

    @property
    def _momentum(self) -> float:
        """Weight of the batch: as torch has it, the mean over all batches for None, and nothing in instance norms."""
        module: Any = self.found.module
        if module.momentum is not None:
            return float(module.momentum)
        return 1.0 / (1.0 + float(module.num_batches_tracked)) if self.norm.where == "batch" else 0.0

    def _runner(self, io: Format, param: Format, rounding: Rounding, group: Grouping) -> Runner:
        """The implementation with its machine; the table of formats is resolved once for all random streams."""
        plain = replace(rounding, seed=0)
        row = self.implementation = self._row(io, param, group)
        known = self.runners.get((row.name, param, plain, group.run))
        if known is None:
            machine = row.machine(io, param, plain, group=group)
            known = self.runners[row.name, param, plain, group.run] = Runner(row, machine)
        if rounding.seed == 0:
            return known
        return Runner(known.implementation, replace(known.machine, rounding=rounding))

    def _row(self, io: Format, param: Format, group: Grouping) -> Implementation:
        """The row that a call in the module's present mode runs under.

        Raises:
            UsageError: none is for that size or mode.
        """
        mode = "eval" if self.is_fixed else "train"
        key = (io, param, group.size, group.run, mode)
        if key not in self.rows:
            defined, without = chosen_rows(self.chosen, self.norm, io, param, group, mode)
            if not defined:
                raise UsageError(f"implementation: {without[0][1]}; give this layer another one")
            self.rows[key] = defined[0]
        return self.rows[key]

    def _parameters(self) -> Parameters:
        """Gamma, beta and, where the call takes them, running statistics, in the format of their tensors."""
        running = self.is_fixed or self.updates
        roles = ("weight", "bias", *(("running_mean", "running_var") if running else ()))
        tensors = {role: self.parameter(role) for role in roles}
        wide = any(t is not None and t.dtype == torch.float64 for t in tensors.values())
        values = {role: None if t is None else _vector(t) for role, t in tensors.items()}
        return Parameters(
            weight=values["weight"],
            bias=values["bias"],
            running_mean=values.get("running_mean"),
            running_statistic=values.get("running_var"),
            form=FLOAT64 if wide else FLOAT32,
        )

    @property
    def eps(self) -> float:
        """The module's eps as it is now, which may have been set since it was recognised."""
        own = getattr(self.found.module, "eps", None)
        return float(own if isinstance(own, float | int) else (self.found.stated.eps or 0.0))

    @property
    def k(self) -> int:
        """K of topk."""
        own = getattr(self.found.module, "k", None)
        return own if isinstance(own, int) else _DEFAULT_K

    def constant(self, default: Kind) -> Kind:
        """Which constant the statistic has: the module's own, where it says."""
        own = getattr(self.found.module, "constant", None)
        return own if own in ("exact", "paper") else default

    def masters(self, given: Parameters, tensors: Mapping[str, torch.Tensor]) -> Parameters:
        """The parameters with gamma and beta as they are among some tensors, where these have them."""
        stated = self.found.stated
        weight, bias = (tensors.get(name or "") for name in (stated.weight, stated.bias))
        return replace(
            given,
            weight=given.weight if weight is None else _vector(weight),
            bias=given.bias if bias is None else _vector(bias),
        )

    def arranged(self, x: torch.Tensor) -> torch.Tensor:
        """The input in the shape that the engine takes: (tokens, D), or (N, C, ...)."""
        stated = self.found.stated
        if self.norm.where == "layer":
            x = x.movedim(1, -1) if self.found.channels_first and x.ndim > 2 else x
            shape = stated.normalized_shape or tuple(x.shape[-1:])
            if tuple(x.shape[-len(shape) :]) != tuple(shape):
                raise UsageError(f"expected an input of shape (..., {str(shape)[1:]}, received {list(x.shape)}")
            return x.reshape(-1, math.prod(shape))
        without_batch = getattr(self.found.module, "_get_no_batch_dim", None)
        return x.unsqueeze(0) if without_batch is not None and x.ndim == without_batch() else x

    def restored(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The output in the shape of the input as it came."""
        if self.norm.where == "layer" and self.found.channels_first and x.ndim > 2:
            return y.reshape(x.movedim(1, -1).shape).movedim(-1, 1)
        return y.reshape(x.shape)


def _vector(tensor: torch.Tensor) -> Array:
    """The numbers of a parameter, float64.

    Raises:
        UsageError: it is in a half precision already.
    """
    if tensor.dtype not in (torch.float32, torch.float64):
        raise UsageError(
            f"its parameters are {_named(tensor.dtype)}; give a module in float32 (module.float()): the precision is "
            "what EmulatedPrecision emulates"
        )
    values: Array = tensor.detach().to("cpu", torch.float64).reshape(-1).numpy()
    return values.copy()


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sites_of(
    module: torch.nn.Module,
    chosen: Choice | Mapping[str, Choice],
    io: Format | None = None,
    param: Format | None = None,
) -> list[Site]:
    """Return the norms of a module that are emulated, in order.

    Args:
        module: the module.
        chosen: the implementation of all norms, or a mapping from patterns of layer names, or names of norms, to one;
            the first key that fits a layer decides, and None leaves it as it is.
        io, param: formats of the elements and of the parameters. Each call picks its row, by its size and mode too.

    Raises:
        UsageError: an unknown implementation, a key that fits no norm, a norm that no key fits or that its
            implementation does not define.
    """
    found, _ = norms_of(module)
    rows = chosen if isinstance(chosen, Mapping) else {"*": chosen}
    resolved = {key: None if row is None else choices(row) for key, row in rows.items()}
    names = ", ".join(f"{one.stated.name} ({one.stated.norm.name})" for one in found)
    if isinstance(chosen, Mapping):
        for key in resolved:
            if not any(_fits(key, one) for one in found):
                raise UsageError(f"implementation: {key!r} fits no norm of the module; it has {names or 'none'}")
    out = []
    for place, one in enumerate(found):
        fitting = [row for key, row in resolved.items() if _fits(key, one)]
        if not fitting:
            what = f"{one.stated.name} ({one.stated.norm.name})"
            raise UsageError(f"implementation: no key fits {what}; add one, or '*' for all others")
        row = fitting[0]
        if row is None:
            continue
        defined, without = chosen_rows(row, one.stated.norm, io, param)
        if not defined:
            raise UsageError(f"implementation: layer {one.stated.name}: {without[0][1]}; give this layer another one")
        out.append(Site(one, place, row, defined[0]))
    return out


def _fits(key: str, one: FoundNorm) -> bool:
    """Whether a key of a mapping is a pattern of the layer's name, or a name of its norm."""
    stated: Stated = one.stated
    if key == stated.name or fnmatch.fnmatchcase(stated.name, key):
        return True
    try:
        return norm_named(key) == stated.norm
    except NormcheckError:
        return False
