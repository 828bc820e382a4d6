"""Norm scheduling: a learning rate that stays as it is, and norms that do what its schedule did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from normcheck.errors import UsageError
from normcheck.optim.directions import by_channel, channel_norms, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from normcheck.optim.recording import RecordedNorms


class NormScheduler:
    """Sets the norms of scale-invariant weights once an epoch, in place of a learning rate schedule and weight decay.

        scheduler = NormScheduler(weights, recorded, lambda epoch: 10 ** (epoch // 20))
        for epoch in range(80):
            scheduler.apply(epoch)
            ...  # an epoch with the learning rate that the other run began with, and without weight decay

    Norm matters, norm scheduling: the effective step size is η/‖w‖², so with η frozen ‖w‖ · √10 acts as η/10. Channels
    are set to ‖w_WD(epoch)‖ · divisor(epoch)^(1/(1 + degree)), w_WD the channel at the start of that epoch of a run
    with weight decay and a schedule; the authors' code has √10^(epoch // 20). Directions are left as they are. Within
    an epoch norms move freely. An optimizer's memory is not rescaled: for some 1/(1 − momentum) steps after a jump of
    the norms by a, remembered gradients weigh a times as much as they should.

    Args:
        named_parameters: the scale-invariant weights by name, pairs or a mapping.
        recorded: norms of a run with weight decay, a record an epoch (`RecordedNorms.every` makes that of one a step).
        divisor: by how much the schedule that is replaced has divided the learning rate at an epoch, from 0 on.
        degree: that of the optimizer's update in its gradients: 1 for SGD; 0 for Adam, of which ‖w‖ · 10 acts as η/10.

    Raises:
        UsageError: these are not the weights that were recorded, or they have no directions.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor],
        recorded: RecordedNorms,
        divisor: Callable[[int], float],
        *,
        degree: int = 1,
    ) -> None:
        self._weights = weights_of(named_parameters)
        recorded.check(self._weights)
        self._recorded, self._divisor, self._power = recorded, divisor, 1 / (1 + degree)

    @torch.no_grad()
    def apply(self, epoch: int) -> None:
        """Set the norms to those of an epoch, counted from 0. A channel that has become zero becomes NaN.

        Raises:
            UsageError: the epoch was not recorded, or its divisor is not positive.
        """
        divisor = self._divisor(epoch)
        if not divisor > 0:
            raise UsageError(f"epoch {epoch}: expected a positive divisor of the learning rate, received {divisor:g}")
        for name, weight in self._weights.items():
            wanted = self._recorded.row(name, epoch).to(weight.device) * divisor**self._power
            weight.mul_(by_channel(wanted / channel_norms(weight), weight))
