"""What an optimizer's next step would add to a weight, by its state; and whether a format would notice.

    SGD      u = -lr * momentum_buffer
    RMSprop  u = -lr * momentum_buffer, with momentum
    Adam     u = -lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), v the largest so far with amsgrad
    AdamW    u = that of Adam - lr * weight_decay * w
    Adamax   u = -lr / (1 - beta1^t) * m / exp_inf

with the buffers as they are after the last step: the last update, at the learning rate that the file states. Other
optimizers, and these without their buffers, need the gradient, which no file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.track_series import steps_of
from normcheck.arithmetic.rounding import carried_by_float32, round_to

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from normcheck.arithmetic.formats import Format
    from normcheck.layers.contents import Array
    from normcheck.layers.readers.optimizer_state import Slot

DEGREES = {"sgd": 1, "adagrad": 0, "adam": 0, "adamw": 0, "adamax": 0, "nadam": 0, "rmsprop": 0, "rprop": 0}
"""By optimizer, the degree of its update in the gradients: as in `normcheck.optim`, by torch's names in lower case."""

_MARKS = {  # what only the groups of this optimizer have among their settings; the first that fits counts
    "sgd": ("nesterov", "dampening"),
    "rmsprop": ("alpha", "centered"),
    "adagrad": ("lr_decay", "initial_accumulator_value"),
    "nadam": ("momentum_decay",),
    "rprop": ("etas",),
    "adam": ("betas", "amsgrad"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """The update of one step: how to compute it for some rows of a weight, and whether it is only nearly that.

    Attributes:
        of: from rows of the weight and which rows these are, the update in float64.
        estimated: whether it is not exactly an update that the run made.
    """

    of: Callable[[Array, slice], Array]
    estimated: bool


def kind_of(slot: Slot) -> str | None:
    """Return which optimizer of torch has such settings and tensors; None where none of `DEGREES` does."""
    has = slot.settings.keys()
    kind = next((kind for kind, marks in _MARKS.items() if set(marks) <= has), None)
    if kind == "adam" and slot.settings.get("decoupled_weight_decay"):
        return "adamw"
    return "adamax" if kind is None and "exp_inf" in slot.tensors else kind


def step_of(slot: Slot, kind: str | None, lr: float | None, shape: tuple[int, ...]) -> Step | None:
    """Return the update that the state of one parameter gives; None where it does not.

    The state's tensors are loaded here, whole.
    """
    names = _TENSORS.get(kind or "", ())
    tensors = {name: slot.tensors[name] for name in names if name in slot.tensors}
    if kind is None or lr is None or len(tensors) < len(names) or not names:
        return None
    settings, rate = slot.settings, -lr  # with `maximize` too: the buffers hold negated gradients then
    if kind == "adam" and settings.get("amsgrad") and "max_exp_avg_sq" in slot.tensors:
        tensors["exp_avg_sq"] = slot.tensors["max_exp_avg_sq"]
    if any(tensor.shape != shape for tensor in tensors.values()):
        return None
    state = {name: tensor.load().reshape(shape[0], -1) for name, tensor in tensors.items()}
    if kind in ("sgd", "rmsprop"):
        buffer = state["momentum_buffer"]
        return Step(lambda _, rows: rate * buffer[rows].astype(np.float64), bool(settings.get("nesterov")))
    return _adaptive(kind, settings, rate, state, steps_of(slot))


_TENSORS = {
    "sgd": ("momentum_buffer",),
    "rmsprop": ("momentum_buffer",),
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "adamax": ("exp_avg", "exp_inf"),
}


def _adaptive(
    kind: str, settings: Mapping[str, Any], rate: float, state: Mapping[str, Array], steps: float | None
) -> Step | None:
    betas = settings.get("betas")
    if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        return None
    eps, decay = settings.get("eps", 0.0), settings.get("weight_decay", 0.0)
    if steps is None or steps < 1 or not (isinstance(eps, int | float) and isinstance(decay, int | float)):
        return None
    first, second = (1 - float(beta) ** steps for beta in betas)
    shrink = rate * decay if kind == "adamw" else 0.0

    def update(weight: Array, rows: slice) -> Array:
        moment = state["exp_avg"][rows].astype(np.float64) / first
        if kind == "adamax":
            divisor = state["exp_inf"][rows].astype(np.float64)
        else:
            divisor = np.sqrt(state["exp_avg_sq"][rows].astype(np.float64) / second) + eps
        found: Array = rate * moment / divisor + shrink * weight
        return found

    return Step(update, estimated=False)


def difference(before: Array, steps: int | None) -> Callable[[Array, slice], Array]:
    """Return the mean update of a step since a checkpoint, taken as one step apart where nothing says how many."""
    return lambda weight, rows: (weight - before[rows].astype(np.float64)) / (steps or 1)


@dataclass(frozen=True, slots=True)
class Counts:
    """By row: updates that are lost, that are counted, and weights that the format does not hold."""

    lost: Array
    of: Array
    beyond: Array


def counted(weight: Array, update: Array, form: Format) -> Counts:
    """Count the updates that change nothing where weights are kept in a format: round(w + u) = w.

    The weight is rounded to the format first, since there it would be one of its numbers: from there an update below
    half an ulp is lost, from elsewhere only on average. An update of 0 counts as none, and so does one of NaN. Weights
    that are not finite in the format are counted apart.

    Args:
        weight: (rows, n). update: the same, in float64. form: of the weights.
    """
    with np.errstate(all="ignore"):  # of diverged runs
        kept = round_to(weight, form).astype(np.float64)
        held = np.isfinite(kept)
        counts = held & (update != 0) & ~np.isnan(update)
        moved = round_to(_narrowed(kept + update, form), form)
    lost = counts & (moved == kept)
    return Counts(lost.sum(1), counts.sum(1), (~held).sum(1))


def _narrowed(exact: Array, form: Format) -> Array:
    """Return sums in float32, if rounding them from there to the format is as good and faster.

    Rounded to odd: towards zero, and with the last bit set wherever something is cut off, so that no tie of the
    narrower format comes to be that was none.
    """
    if not carried_by_float32(form) or form.precision == np.finfo(np.float32).nmant + 1:
        return exact
    near: Array = exact.astype(np.float32)
    bits = near.view(np.uint32)
    back = near.astype(np.float64)
    bits -= (np.abs(back) > np.abs(exact)).astype(np.uint32)
    bits |= (near.astype(np.float64) != exact).astype(np.uint32)
    return near
