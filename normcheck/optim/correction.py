"""Eq. 4: the learning rate, corrected per channel, that does without weight decay what weight decay did."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from normcheck.errors import UsageError
from normcheck.optim.directions import by_channel, channel_norms, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from normcheck.optim.recording import RecordedNorms

DEGREES: dict[type[torch.optim.Optimizer], int] = {
    torch.optim.SGD: 1,
    torch.optim.Adagrad: 0,
    torch.optim.Adam: 0,
    torch.optim.AdamW: 0,
    torch.optim.Adamax: 0,
    torch.optim.NAdam: 0,
    torch.optim.RMSprop: 0,
    torch.optim.Rprop: 0,
}
"""The degree of an optimizer's update in its gradients: with all of them c times as large, it is c^degree times as
large (apart from eps). An optimizer that has no such degree (RAdam, Adadelta, LBFGS) is not here."""

STABLE_GROWTH = 4.0
"""Empirical: the growth of a factor from one correction to the next beyond which it feeds on itself. The runs behind
it, and what the correction did in those that came to it and in those that did not, are in docs/optim.md."""


class UnstableCorrectionWarning(UserWarning):
    """A correction feeds on itself: the norms grow because the factors do, and the factors because the norms do."""


class CorrectedLearningRate:
    """Scales an optimizer's update of each channel by ‖w‖²/‖w_WD‖², so that w turns as in a run with weight decay.

        correction = CorrectedLearningRate(optimizer, weights, RecordedNorms.load("norms.safetensors"))
        ...
        optimizer.step()  # as before: whatever it does is corrected

    Norm matters, eq. 4: η_corr = η · ‖w‖²/‖w_WD‖² per output channel, w_WD the channel at the same step of a run with
    weight decay. What is scaled is what the wrapped step did, w_after − w_before, for these weights alone; learning
    rate schedules, gradient scaling and closures work as without. For an update of degree d in the gradient the factor
    is (‖w‖/‖w_WD‖)^(1 + d): the gradient of a scale-invariant weight goes with 1/‖w‖, an update with ‖w‖^−d, and the
    angle by which it turns w with ‖w‖^−(1 + d). That is eq. 4 for SGD, and ‖w‖/‖w_WD‖ for Adam and its kin.

    With momentum the whole update is scaled, remembered gradients included, which are as long as the norms of their
    own time made them. While ‖w‖ changes little within the memory of the momentum, that is right; where ‖w‖ grows
    beyond 1/momentum a step, remembered gradients are scaled up faster than they fade, and the run blows up.
    `hold_norms` keeps all of the momentum in the space of directions, by setting every channel back to the norm that
    it had before the step: one length, so that all remembered gradients are of one scale, and no growth to feed on.

    In float64 the turn is exact to rounding. An update that is lost in rounding stays lost: where weights are in
    float16 or bfloat16, correct the optimizer of float32 master weights. Factors and weights that are not finite stay
    so, as in any run that diverges. Memory: a copy of the corrected weights.

    Args:
        optimizer: any optimizer of torch, with weight_decay = 0 for these weights.
        named_parameters: the scale-invariant weights by name, pairs or a mapping.
        recorded: the norms of the run with weight decay.
        steps_per_record: steps between two records. The factors are computed when a record is reached and held until
            the next one: 1 is at every step, the steps of an epoch are the published once-an-epoch form, which lags
            behind, and which is stable only for small effective step sizes.
        hold_norms: whether to keep the norms as they are.
        degree: that of the optimizer's update in its gradients, 0 or 1; None looks it up in `DEGREES`.

    Raises:
        UsageError: the weights are not the optimizer's, not those that were recorded or have no directions, there is
            weight decay on them, `steps_per_record` is not positive, or the degree is not known.

    Warns:
        UnstableCorrectionWarning: once, when a factor has grown by more than `STABLE_GROWTH` from one correction to the
            next, or is NaN; not if norms are held, where nothing can grow.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor],
        recorded: RecordedNorms,
        *,
        steps_per_record: int = 1,
        hold_norms: bool = False,
        degree: int | None = None,
    ) -> None:
        self._weights = weights_of(named_parameters)
        _check(optimizer, self._weights)
        recorded.check(self._weights)
        if steps_per_record < 1:
            raise UsageError(f"steps_per_record: expected a positive number, received {steps_per_record}")
        self._recorded, self._steps_per_record, self._hold_norms = recorded, steps_per_record, hold_norms
        self._power = 1 + (degree_of(optimizer) if degree is None else degree)
        self._step, self._has_warned = 0, hold_norms
        self._factors: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._hooks = (
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        )

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factor of each channel in the last step, by the name of the weight; empty before the first step."""
        return dict(self._factors)

    def remove(self) -> None:
        """Let the optimizer step as it did without."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on later needs, beside the optimizer's own state."""
        return {"step": self._step, "factors": self.factors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._step = state["step"]
        self._factors = {name: state["factors"][name].to(self._weights[name].device) for name in state["factors"]}

    # ------------------------------------------------------------------------------------------------ the hooks

    def _before_step(self, *_: Any) -> None:
        if self._step % self._steps_per_record == 0:
            self._correct()
        self._before = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def _correct(self) -> None:
        """Compute the factors anew."""
        index = self._step // self._steps_per_record
        for name, weight in self._weights.items():
            wanted = self._recorded.row(name, index).to(weight.device)
            factor = (channel_norms(weight) / wanted) ** self._power
            if not self._has_warned and name in self._factors:
                self._watch(name, factor / self._factors[name])
            self._factors[name] = factor

    def _watch(self, name: str, growth: Tensor) -> None:
        stable = growth <= STABLE_GROWTH  # false for NaN
        if bool(stable.all()):
            return
        self._has_warned = True
        channel = int((~stable).int().argmax())
        warnings.warn(
            f"step {self._step + 1}: the correction of {name!r}, channel {channel}, has grown by a factor of "
            f"{float(growth[channel]):.3g} since the last one; beyond {STABLE_GROWTH:g} it feeds on itself and norms "
            "grow without bound: pass hold_norms=True, or a smaller learning rate",
            UnstableCorrectionWarning,
            stacklevel=2,
        )

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        for name, weight in self._weights.items():
            before, factor = self._before[name], by_channel(self._factors[name], weight)
            weight.copy_(before + factor * (weight - before))
            if self._hold_norms:
                weight.mul_(by_channel(channel_norms(before) / channel_norms(weight), weight))
        self._before = {}
        self._step += 1


def degree_of(optimizer: torch.optim.Optimizer) -> int:
    """The degree of an optimizer's update in its gradients, as `DEGREES` has it.

    Raises:
        UsageError: it is not there.
    """
    for kind in type(optimizer).__mro__:
        if kind in DEGREES:
            return DEGREES[kind]
    raise UsageError(
        f"the degree of {type(optimizer).__name__} is not known: pass degree=1 if its update is proportional to the "
        "gradients, as that of SGD, degree=0 if it does not depend on their size, as that of Adam"
    )


def _check(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> None:
    """Make sure that the optimizer has these weights and does not decay them."""
    decays = {id(p): group.get("weight_decay", 0) for group in optimizer.param_groups for p in group["params"]}
    for name, weight in weights.items():
        if id(weight) not in decays:
            raise UsageError(f"{name!r} is not among the optimizer's parameters: pass the tensors that it steps")
        if decays[id(weight)]:
            raise UsageError(
                f"{name!r} has weight_decay={decays[id(weight)]:g} in the optimizer: the correction stands in for "
                "weight decay; put these weights into a group with weight_decay=0"
            )
