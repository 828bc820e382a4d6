"""Running averages of what a batch norm measures, and their keys in a state dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping


class RunningAverages(torch.nn.Module):
    """Buffers with averages over batches: running = (1 - m) running + m batch, in the type of the buffer.

    m is `momentum`, or 1 / number of batches where that is None. ``num_batches_tracked`` counts as in torch.
    """

    _version = 2  # as of torch's batch norms: state dicts of version 1 have no num_batches_tracked

    num_features: int
    running_mean: torch.Tensor | None
    num_batches_tracked: torch.Tensor | None
    momentum: float | None
    track_running_stats: bool

    def add_running(
        self, start: Mapping[str, float], momentum: float | None, track: bool, factory: Mapping[str, Any]
    ) -> None:
        """Register the buffers, one number a channel, or None for each where no running averages are kept."""
        self.momentum, self.track_running_stats = momentum, track
        self._start = dict(start)
        for name, value in start.items():
            self.register_buffer(name, torch.full((self.num_features,), value, **factory) if track else None)
        count = torch.tensor(0, dtype=torch.long, device=factory["device"]) if track else None
        self.register_buffer("num_batches_tracked", count)

    @property
    def foreign_keys(self) -> dict[str, str]:
        """Keys that a state dict of another kind of norm has, and what that is called."""
        return {}

    def count(self) -> None:
        """Count a batch in training."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)

    def update(self, batch: Mapping[str, torch.Tensor]) -> None:
        """Mix a batch's numbers into the averages in training, where there are any."""
        if not self.training or self.num_batches_tracked is None:
            return
        with torch.no_grad():
            for name, value in batch.items():
                running = getattr(self, name)
                factor = 1 / self.num_batches_tracked.to(value.dtype) if self.momentum is None else self.momentum
                running.copy_(running.to(value.dtype) * (1 - factor) + value * factor)

    def reset_running_stats(self) -> None:
        """Set the averages, and the count of batches, to what they were in the beginning."""
        if self.num_batches_tracked is not None:
            for name, value in self._start.items():
                getattr(self, name).fill_(value)
            self.num_batches_tracked.zero_()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Refuse another norm's statistics, also where `strict` is False; do without a count as torch does."""
        for key, norm in self.foreign_keys.items():
            if prefix + key in state_dict:
                error_msgs.append(
                    f"{prefix}{key} is a running statistic of {norm}, which {type(self).__name__} is not: build the "
                    f"norm with that statistic, or leave the key out and measure the statistics anew"
                )
                return
        version = local_metadata.get("version")
        count = prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.num_batches_tracked is not None and count not in state_dict:
            state_dict[count] = self.num_batches_tracked
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
