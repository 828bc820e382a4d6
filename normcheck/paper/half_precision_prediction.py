"""What the simulator says of a net before it is trained, from the recorded input of its norm on the first batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normcheck.analysis.emulate import emulate

if TYPE_CHECKING:
    import numpy as np

    from normcheck.analysis.emulate import Emulation

    Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What becomes of the channels of a norm.

    `nonfinite`: channels with a NaN or an infinity. `bad`: channels that are wrong in any way, those included. `step`:
    the first step that fails in the worst channel; None where none is bad. `headroom_bits`: how many times the input
    could double before a step overflows, negative where one does; None where that does not depend on the input's
    scale. `headroom_step`: that step.
    """

    channels: int
    nonfinite: int
    bad: int
    step: str | None
    headroom_bits: float | None
    headroom_step: str | None

    @property
    def fails(self) -> bool:
        """Whether nothing can be learned.

        One channel of NaN makes the loss NaN, since the next layer mixes the channels; channels that are finite and
        wrong leave the others to learn from.
        """
        return self.nonfinite > 0 or self.bad == self.channels


def predicted(inputs: Array, norm: str, implementation: str, precision: str, eps: float) -> Prediction:
    """Run `normcheck.emulate` on (N, C, H, W), the recorded input of a batch norm without gain and shift."""
    found: Emulation = emulate(inputs, norm, precision=precision, implementation=implementation, eps=eps)
    rows, worst = found.rows, found.worst_rows
    return Prediction(
        channels=rows.total,
        nonfinite=rows.nonfinite,
        bad=rows.bad,
        step=worst[0].first_bad_step if worst else None,
        headroom_bits=found.headroom.overflow_bits,
        headroom_step=found.headroom.overflow_step,
    )
