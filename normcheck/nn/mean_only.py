"""Mean-only batch norm, y = x - mean + bias: what stands beside bounded weight norm, which sets the scale."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import torch

from normcheck.nn.batch import channel_rows, check_channels, running_key
from normcheck.nn.running import RunningAverages
from normcheck.nn.statistics import computing_type
from normcheck.norms.table import StatisticName


class MeanOnlyBatchNorm(RunningAverages):
    """Mean-only batch norm: y = x - mean + bias, mean of one channel over the batch; nothing is divided by.

    Its state dict is torch's without ``weight`` and ``running_var``; one that has a running statistic is refused. One
    element a channel is allowed: there is no variance that could vanish.

    Args:
        num_features: channels C of (N, C, ...).
        momentum: weight of the batch in the running mean; None for the mean over all batches.
        bias: whether there is one. track_running_stats: whether there is a running mean.
        device, dtype: of parameters and buffers.

    Raises:
        UsageError: when run, an input that does not fit.

    Source: Salimans and Kingma, "Weight Normalization" (arXiv 1602.07868), section 4.
    """

    bias: torch.nn.Parameter | None
    dimensions: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        momentum: float | None = 0.1,
        bias: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        factory = {"device": device, "dtype": dtype}
        self.register_parameter("bias", torch.nn.Parameter(torch.zeros(num_features, **factory)) if bias else None)
        self.add_running({"running_mean": 0.0}, momentum, track_running_stats, factory)

    @property
    def foreign_keys(self) -> dict[str, str]:
        """The running statistics of batch norms that divide."""
        return {running_key(s): "a batch norm that divides by a statistic" for s in get_args(StatisticName)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Centre (N, C, ...)."""
        check_channels(x, self.num_features, self.dimensions)
        self.count()
        per_channel = (1, -1, *(1,) * (x.ndim - 2))
        wide = x.to(computing_type(x))
        if self.training or self.running_mean is None:
            mean = wide.reshape(channel_rows(x)).mean((0, 2)) if x.numel() else wide.new_zeros(self.num_features)
            if x.numel():
                self.update({"running_mean": mean})
        else:
            mean = self.running_mean.to(wide.dtype)
        shift = -mean if self.bias is None else self.bias.to(wide.dtype) - mean
        return (wide + shift.reshape(per_channel)).to(x.dtype)

    def reset_parameters(self) -> None:
        """Set bias and running mean to 0."""
        self.reset_running_stats()
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def normcheck_facts(self) -> None:
        """Return nothing: it divides by no statistic, and `normcheck.analyze` has nothing to check."""

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, momentum={self.momentum}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class MeanOnlyBatchNorm1d(MeanOnlyBatchNorm):
    """Mean-only batch norm of (N, C) or (N, C, L); arguments as of `MeanOnlyBatchNorm`."""

    dimensions = (2, 3)


class MeanOnlyBatchNorm2d(MeanOnlyBatchNorm):
    """Mean-only batch norm of (N, C, H, W); arguments as of `MeanOnlyBatchNorm`."""

    dimensions = (4,)


class MeanOnlyBatchNorm3d(MeanOnlyBatchNorm):
    """Mean-only batch norm of (N, C, D, H, W); arguments as of `MeanOnlyBatchNorm`."""

    dimensions = (5,)
