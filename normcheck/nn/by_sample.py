"""Norms that need no batch, of any statistic: layer, RMS, group and instance norm, torch's own where that is l2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional

from normcheck.errors import UsageError
from normcheck.nn.batch import check_channels
from normcheck.nn.choice import ChosenNorm, refuse_one_element, under_autocast
from normcheck.nn.statistics import affine, normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.norms.constants import Kind
    from normcheck.norms.table import StatisticName


class _OverLast(ChosenNorm):
    """What layer and RMS norm share: one group is the last dimensions, gamma and beta are per element."""

    where = "layer"

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float,
        statistic: StatisticName | None,
        k: int,
        constant: Kind,
    ) -> None:
        super().__init__(eps, statistic, k, constant)
        given = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(given)

    def _by_rows(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        shape = self.normalized_shape
        if tuple(x.shape[-len(shape) :]) != shape:
            raise UsageError(f"expected an input of shape (..., {str(shape)[1:]}, received shape {list(x.shape)}")
        x = under_autocast(x)
        if x.numel() == 0:
            return affine(x, self.weight, self.bias)
        size = math.prod(shape)
        rows = (1, x.numel() // size, size)
        return normalized(x, self.weight, self.bias, rows, **(self.settings() | {"eps": eps}))[0]

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer."""
        shape = self.normalized_shape
        return super().normcheck_facts() | {"normalized_shape": shape, "num_channels": math.prod(shape)}


class LayerNorm(_OverLast):
    """Layer norm: y = (x - mean) / s * weight + bias, mean and s of one row over the last dimensions.

    For l2 it is torch's layer norm to the bit. Its state dict is torch's for every statistic: it has weight and bias
    alone, whose meaning is the same.

    Args:
        normalized_shape: the last dimensions. eps: added to the variance of l2, to other statistics themselves.
        elementwise_affine: whether there are weight and bias. bias: False for a weight alone.
        device, dtype: of the parameters.
        statistic: l2, l1, linf, topk, range. k: of topk. constant: ``exact`` or ``paper``.

    Raises:
        UsageError: a setting that cannot be; when run, an input that does not fit, n < k.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        statistic: StatisticName | None = None,
        k: int = 10,
        constant: Kind = "exact",
    ) -> None:
        super().__init__(normalized_shape, eps, statistic, k, constant)
        self.elementwise_affine = elementwise_affine
        factory = {"device": device, "dtype": dtype}
        self.add_affine(self.normalized_shape, elementwise_affine, elementwise_affine and bias, factory)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., *normalized_shape)."""
        if self.statistic == "l2":
            return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return self._by_rows(x, self.eps)

    def extra_repr(self) -> str:
        """Return torch's text and what torch has no word for."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}{self.chosen()}"
        )


class RMSNorm(_OverLast):
    """RMS norm: y = x / s * weight, s of one row over the last dimensions, not centred.

    For l2 it is torch's RMS norm to the bit. Its state dict is torch's for every statistic.

    Args:
        normalized_shape: the last dimensions.
        eps: added to the mean square of l2, to other statistics themselves; None for the machine epsilon of the type
            that is computed in, as in torch.
        elementwise_affine: whether there is a weight. device, dtype: of it.
        statistic: l2, l1, linf, topk, range. k: of topk. constant: ``exact`` or ``paper``.

    Raises:
        UsageError: a setting that cannot be; when run, an input that does not fit, n < k.
    """

    centred = False

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        statistic: StatisticName | None = None,
        k: int = 10,
        constant: Kind = "exact",
    ) -> None:
        super().__init__(normalized_shape, 0.0 if eps is None else eps, statistic, k, constant)
        self.eps: float | None = eps  # type: ignore[assignment]
        self.elementwise_affine = elementwise_affine
        self.add_affine(self.normalized_shape, elementwise_affine, False, {"device": device, "dtype": dtype})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (..., *normalized_shape)."""
        if self.statistic == "l2":
            return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        return self._by_rows(x, _machine_epsilon(x.dtype) if self.eps is None else self.eps)

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer; without an eps, the one of its weight's type."""
        dtype = torch.float32 if self.weight is None else self.weight.dtype
        return super().normcheck_facts() | {"eps": _machine_epsilon(dtype) if self.eps is None else self.eps}

    def extra_repr(self) -> str:
        """Return torch's text and what torch has no word for."""
        affine_text = f"elementwise_affine={self.elementwise_affine}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine_text}{self.chosen()}"


def _machine_epsilon(dtype: torch.dtype) -> float:
    return torch.finfo(torch.promote_types(dtype, torch.float32)).eps


class GroupNorm(ChosenNorm):
    """Group norm: y = (x - mean) / s * weight + bias, mean and s of one group of channels of one sample.

    For l2 it is torch's group norm to the bit. Its state dict is torch's for every statistic.

    Args:
        num_groups: groups, a divisor of `num_channels`. num_channels: C of (N, C, ...).
        eps: added to the variance of l2, to other statistics themselves.
        affine: whether there are weight and bias. device, dtype: of them. bias: False for a weight alone.
        statistic: l2, l1, linf, topk, range. k: of topk. constant: ``exact`` or ``paper``.

    Raises:
        UsageError: a setting that cannot be; when run, an input that does not fit, n < k.
    """

    where = "group"

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        statistic: StatisticName | None = None,
        k: int = 10,
        constant: Kind = "exact",
    ) -> None:
        super().__init__(eps, statistic, k, constant)
        if num_groups < 1 or num_channels % num_groups:
            raise UsageError(f"num_channels must be a multiple of num_groups, received {num_channels} and {num_groups}")
        self.num_groups, self.num_channels, self.affine = num_groups, num_channels, affine
        self.add_affine((num_channels,), affine, affine and bias, {"device": device, "dtype": dtype})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...)."""
        if self.statistic == "l2":
            return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        check_channels(x, self.num_channels, (x.ndim,) if x.ndim > 1 else (2,))
        return by_group(self, under_autocast(x), self.num_groups, "value per group")

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer."""
        return super().normcheck_facts() | {"num_groups": self.num_groups, "num_channels": self.num_channels}

    def extra_repr(self) -> str:
        """Return torch's text and what torch has no word for."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}{self.chosen()}"
        )


class InstanceNorm(ChosenNorm):
    """Instance norm: y = (x - mean) / s * weight + bias, mean and s of one channel of one sample.

    For l2 it is torch's instance norm to the bit. Its state dict is torch's for every statistic. It keeps no running
    averages, as torch's does not unless told to.

    Args:
        num_features: channels C of (N, C, ...). eps: added to the variance of l2, to other statistics themselves.
        momentum: without effect. track_running_stats: True is refused.
        affine: whether there are weight and bias, by default not, as in torch. device, dtype: of them.
        bias: False for a weight alone.
        statistic: l2, l1, linf, topk, range. k: of topk. constant: ``exact`` or ``paper``.

    Raises:
        UsageError: a setting that cannot be; when run, an input that does not fit, one element a channel, n < k.
    """

    where = "instance"
    dimensions: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        statistic: StatisticName | None = None,
        k: int = 10,
        constant: Kind = "exact",
    ) -> None:
        super().__init__(eps, statistic, k, constant)
        if track_running_stats:
            raise UsageError("instance norm with running statistics: these modules keep none; use torch's own for l2")
        self.num_features, self.momentum, self.affine = num_features, momentum, affine
        self.add_affine((num_features,), affine, affine and bias, {"device": device, "dtype": dtype})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...)."""
        check_channels(x, self.num_features, self.dimensions)
        if self.statistic == "l2" and x.numel():  # torch fails on an empty batch
            return functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return by_group(self, x, self.num_features, "spatial element")

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer."""
        return super().normcheck_facts() | {"num_channels": self.num_features, "spatial": True}

    def extra_repr(self) -> str:
        """Return torch's text and what torch has no word for."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats=False{self.chosen()}"
        )


class InstanceNorm1d(InstanceNorm):
    """Instance norm of (N, C, L); arguments as of `InstanceNorm`."""

    dimensions = (3,)


class InstanceNorm2d(InstanceNorm):
    """Instance norm of (N, C, H, W); arguments as of `InstanceNorm`."""

    dimensions = (4,)


class InstanceNorm3d(InstanceNorm):
    """Instance norm of (N, C, D, H, W); arguments as of `InstanceNorm`."""

    dimensions = (5,)


def by_group(module: ChosenNorm, x: torch.Tensor, groups: int, what: str) -> torch.Tensor:
    """Normalise (N, C, ...) over groups of the channels of each sample, with gamma and beta per channel.

    Raises:
        UsageError: one element a group; see `normalized`.
    """
    per_channel = (-1, *(1,) * (x.ndim - 2))
    weight, bias = (None if p is None else p.reshape(per_channel) for p in (module.weight, module.bias))
    if x.numel() == 0:
        return affine(x, weight, bias)
    size = x.shape[1] // groups * math.prod(x.shape[2:])
    refuse_one_element(size, x.shape, what)
    return normalized(x, weight, bias, (1, x.shape[0] * groups, size), **module.settings())[0]
