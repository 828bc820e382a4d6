"""Batch norms of any statistic: torch's own where that is l2, the same arguments and state dict otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import torch

from normcheck.errors import UsageError
from normcheck.nn.choice import ChosenNorm, refuse_one_element
from normcheck.nn.running import RunningAverages
from normcheck.nn.statistics import affine, normalized, with_given
from normcheck.norms.table import StatisticName

if TYPE_CHECKING:
    from normcheck.nn.statistics import Rows
    from normcheck.norms.constants import Kind


class BatchNorm(RunningAverages, ChosenNorm):
    """Batch norm: y = (x - mean) / s * weight + bias, mean and s of one channel over the batch.

    For l2 it is torch's batch norm to the bit, and its state dict is torch's. For all others the running average of
    the statistic, with its constant and without eps, is ``running_l1``, ``running_linf``, ``running_topk`` or
    ``running_range`` in place of ``running_var``: it is no variance. A state dict of another statistic is refused.

    It is no subclass of torch's batch norm, since what fuses or converts those takes their statistic for a variance.

    Args:
        num_features: channels C of (N, C, ...). eps: added to the variance of l2, to other statistics themselves.
        momentum: weight of the batch in the running averages; None for the mean over all batches.
        affine: whether there are weight and bias. track_running_stats: whether there are running averages.
        device, dtype: of parameters and buffers. bias: False for a weight alone.
        statistic: l2, l1, linf, topk, range; None for what the class is named for, or l2.
        k: of topk. constant: ``exact`` or ``paper``.

    Raises:
        UsageError: a setting that cannot be; when run, an input that does not fit, one element a channel, n < k.
    """

    where = "batch"
    running_var: torch.Tensor | None
    dimensions: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        statistic: StatisticName | None = None,
        k: int = 10,
        constant: Kind = "exact",
    ) -> None:
        super().__init__(eps, statistic, k, constant)
        self.num_features = num_features
        self.affine = affine
        factory = {"device": device, "dtype": dtype}
        self.add_affine((num_features,), affine, affine and bias, factory)
        self.add_running({"running_mean": 0.0, self.running_key: 1.0}, momentum, track_running_stats, factory)

    @property
    def running_key(self) -> str:
        """The name of the buffer with the running statistic."""
        return running_key(self.statistic)

    @property
    def foreign_keys(self) -> dict[str, str]:
        """The running statistics of other batch norms, which a state dict may bring."""
        return {running_key(s): f"batch-{s}" for s in get_args(StatisticName) if s != self.statistic}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C, ...)."""
        check_channels(x, self.num_features, self.dimensions)
        self.count()
        own = self.training or self.running_mean is None
        if self.statistic == "l2":
            return self._by_torch(x, own)
        per_channel = (1, -1, *(1,) * (x.ndim - 2))
        weight, bias = (None if p is None else p.reshape(per_channel) for p in (self.weight, self.bias))
        running = getattr(self, self.running_key)
        if own or self.running_mean is None:
            return self._by_batch(x, weight, bias)
        s = running.to(torch.promote_types(running.dtype, torch.float32)) + self.eps
        return with_given(x, weight, bias, self.running_mean.reshape(per_channel), s.reshape(per_channel))

    def _by_torch(self, x: torch.Tensor, own: bool) -> torch.Tensor:
        kept = not self.training or self.track_running_stats
        mean, variance = (self.running_mean, self.running_var) if kept else (None, None)
        factor = self.momentum or 0.0
        if self.momentum is None and self.training and self.num_batches_tracked is not None:
            factor = 1.0 / float(self.num_batches_tracked)
        return torch.nn.functional.batch_norm(x, mean, variance, self.weight, self.bias, own, factor, self.eps)

    def _by_batch(self, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
        rows = channel_rows(x)
        refuse_one_element(rows[0] * rows[2], x.shape, "value per channel")
        if x.numel() == 0:
            return affine(x, weight, bias)
        out, mean, statistic = normalized(x, weight, bias, rows, **self.settings())
        self.update({"running_mean": mean.reshape(-1), self.running_key: statistic.reshape(-1)})
        return out

    def reset_parameters(self) -> None:
        """Set weight, bias and running averages to what they were in the beginning."""
        self.reset_running_stats()
        super().reset_parameters()

    def normcheck_facts(self) -> dict[str, Any]:
        """Return what `normcheck.analyze` is told of this layer."""
        return super().normcheck_facts() | {
            "running_mean": "running_mean",
            "running_var": self.running_key,
            "momentum": self.momentum,
            "num_channels": self.num_features,
            "spatial": None if min(self.dimensions) == 2 else True,
        }

    def extra_repr(self) -> str:
        """Return torch's text and what torch has no word for."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}{self.chosen()}"
        )


def running_key(statistic: StatisticName) -> str:
    """Return the key of a batch norm's running statistic: torch's for l2, for others one that says which it is."""
    return "running_var" if statistic == "l2" else f"running_{statistic}"


def check_channels(x: torch.Tensor, channels: int, dimensions: tuple[int, ...]) -> None:
    """Refuse an input that is not (N, C, ...).

    Raises:
        UsageError: a wrong number of dimensions or channels.
    """
    if x.ndim not in dimensions:
        wanted = " or ".join(f"{d}D" for d in dimensions)
        raise UsageError(f"expected {wanted} input (got {x.ndim}D input)")
    if x.shape[1] != channels:
        raise UsageError(f"expected {channels} channels in dimension 1, received an input of shape {list(x.shape)}")


def channel_rows(x: torch.Tensor) -> Rows:
    """Return how (N, C, ...) falls into channels."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


class BatchNorm1d(BatchNorm):
    """Batch norm of (N, C) or (N, C, L); arguments as of `BatchNorm`."""

    dimensions = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch norm of (N, C, H, W); arguments as of `BatchNorm`."""

    dimensions = (4,)


class BatchNorm3d(BatchNorm):
    """Batch norm of (N, C, D, H, W); arguments as of `BatchNorm`."""

    dimensions = (5,)


class L1BatchNorm1d(BatchNorm1d):
    """`BatchNorm1d` of l1."""

    named_for = "l1"


class L1BatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` of l1."""

    named_for = "l1"


class L1BatchNorm3d(BatchNorm3d):
    """`BatchNorm3d` of l1."""

    named_for = "l1"


class LinfBatchNorm1d(BatchNorm1d):
    """`BatchNorm1d` of linf."""

    named_for = "linf"


class LinfBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` of linf."""

    named_for = "linf"


class LinfBatchNorm3d(BatchNorm3d):
    """`BatchNorm3d` of linf."""

    named_for = "linf"


class TopKBatchNorm1d(BatchNorm1d):
    """`BatchNorm1d` of topk."""

    named_for = "topk"


class TopKBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` of topk."""

    named_for = "topk"


class TopKBatchNorm3d(BatchNorm3d):
    """`BatchNorm3d` of topk."""

    named_for = "topk"


class RangeBatchNorm1d(BatchNorm1d):
    """`BatchNorm1d` of range."""

    named_for = "range"


class RangeBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` of range."""

    named_for = "range"


class RangeBatchNorm3d(BatchNorm3d):
    """`BatchNorm3d` of range."""

    named_for = "range"
