"""What in a series of checkpoints deserves a look, and what to do about it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from normcheck.results import SEVERITIES
from normcheck.results.track import TrackFinding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from normcheck.results import Severity
    from normcheck.results.track import Checkpoint, Lost, TrackedLayer

GROWN = 10.0
"""A change of the effective step size, either way, beyond which a layer learns at another pace than it was set to."""
SHARE = 0.1
"""Share of lost updates from which a layer visibly learns less than its optimizer means it to."""
HALF = 0.5
"""A channel that loses more than this share of its updates counts as losing them."""
COLLAPSED = 0.01
"""A norm that has fallen below this share of its first has all but vanished."""

_FIXES = {
    "step-grown": "use less weight decay on this layer, a smaller learning rate, or hold its norms: "
    "normcheck.optim.CorrectedLearningRate with hold_norms=True",
    "step-shrunk": "use some weight decay on this layer, or scale its learning rate with the square of its norm "
    "(with the norm, for Adam): normcheck.optim.CorrectedLearningRate",
    "updates-lost": "keep float32 master weights, or round stochastically; a larger learning rate makes it less",
    "zero-channels": "such a channel has no direction: prune it, or look at its gain and weight decay",
    "norm-collapsed": "use less weight decay on this layer, or bound its norms: normcheck.nn.bounded_weight_norm",
    "not-finite": "training has diverged: go back to the checkpoint before, with a smaller learning rate or loss scale",
    "missing-weight": "give checkpoints of one run and one model; the layer is followed through the others",
    "shape-changed": "give checkpoints of one model: the weight is not followed",
    "order": "give them in the order of training, or a folder, which is sorted by its numbers",
    "steps-assumed": "give the number of steps with --steps-between, or checkpoints with the optimizer's state",
    "rate-unknown": "give it with --lr, or checkpoints with the optimizer's state; ratios take it as constant",
    "optimizer-assumed": "name it with --optimizer, or give checkpoints with the optimizer's state",
    "state-not-read": "updates are then the difference of checkpoints over the steps between",
}


def found(
    kind: str,
    severity: Severity,
    message: str,
    *,
    layer: str | None = None,
    precision: str | None = None,
    checkpoint: str | None = None,
    assumed: bool = False,
) -> TrackFinding:
    """Return a finding with what to do about its kind."""
    return TrackFinding(
        kind=kind,
        severity=severity,
        layer=layer,
        precision=precision,
        checkpoint=checkpoint,
        message=message,
        fix=_FIXES[kind],
        assumed=assumed,
    )


def of_layer(layer: TrackedLayer, checkpoints: Sequence[Checkpoint]) -> Iterator[TrackFinding]:
    """Yield what is to be said of one weight."""
    last = layer.points[-1]
    path = checkpoints[last.checkpoint].path
    if last.nonfinite_channels:
        message = f"{last.nonfinite_channels} of {layer.channels} channels hold an infinity or NaN"
        yield found("not-finite", "error", message, layer=layer.name, checkpoint=path)
    if last.zero_channels:
        message = f"{last.zero_channels} of {layer.channels} channels are 0"
        yield found("zero-channels", "warning", message, layer=layer.name, checkpoint=path)
    yield from _of_drift(layer)
    updated = next((point for point in reversed(layer.points) if point.lost), None)
    for lost in updated.lost if updated else ():
        if lost.share is not None and lost.share > SHARE:
            yield found(
                "updates-lost",
                "warning",
                _told(layer, lost),
                layer=layer.name,
                precision=lost.precision,
                checkpoint=checkpoints[updated.checkpoint].path if updated else None,
                assumed=bool(updated and updated.estimated),
            )


def _told(layer: TrackedLayer, lost: Lost) -> str:
    told = f"{lost.share:.1%} of the updates of a step would be lost, below half an ulp of their weight"
    if not lost.channels:
        return told
    named = [str(channel.index) for channel in layer.worst if (channel.lost.get(lost.precision) or 0) > HALF]
    first = f" (worst: {', '.join(named)})" if named else ""
    return f"{told}; more than half of those of {lost.channels} of {layer.channels} channels{first}"


def _of_drift(layer: TrackedLayer) -> Iterator[TrackFinding]:
    drift = layer.drift
    if drift is None:
        return
    if drift.norm_ratio.smallest < COLLAPSED:
        message = f"the norm of a channel has fallen to {drift.norm_ratio.smallest:.2g} of what it was"
        yield found("norm-collapsed", "warning", message, layer=layer.name)
    ratio = drift.step_ratio.median
    if layer.scope == "none" or 1 / GROWN <= ratio <= GROWN:
        return
    by_norms = math.exp(min(-layer.power * math.log(drift.norm_ratio.median), 700))  # of float64, beyond which is inf
    by_itself = not 1 / GROWN <= by_norms <= GROWN
    message = f"its effective step size has become {ratio:.3g} times what it was: {by_norms:.3g} by its norm"
    rates = layer.points[0].lr, layer.points[-1].lr
    if rates[0] and rates[1] is not None:
        message += f", {rates[1] / rates[0]:.3g} by the learning rate"
    yield found(
        "step-grown" if ratio > 1 else "step-shrunk",
        "warning" if by_itself and layer.scope != "unknown" else "note",
        message,
        layer=layer.name,
        assumed=layer.scope == "unknown",
    )


def of_series(checkpoints: Sequence[Checkpoint], layers: Sequence[TrackedLayer]) -> Iterator[TrackFinding]:
    """Yield what is to be said of the checkpoints as a whole."""
    steps = [c.step for c in checkpoints if c.step is not None]
    if any(after < before for before, after in pairwise(steps)):
        yield found("order", "warning", f"their steps go back: {', '.join(map(str, steps))}")
    points = [point for layer in layers for point in layer.points]
    if any(p.update_from == "difference" and checkpoints[p.checkpoint].steps_since is None for p in points):
        message = (
            "updates are differences of checkpoints, taken as one step apart: over more steps they are smaller, and "
            "more of them are lost"
        )
        yield found("steps-assumed", "note", message, assumed=True)
    if any(point.lr is None for point in points):
        yield found("rate-unknown", "note", "no learning rate is known: effective step sizes are not reported")
    if layers and not any(checkpoint.optimizer for checkpoint in checkpoints):
        message = "no optimizer is known: SGD is assumed, whose effective step size is lr/norm^2"
        yield found("optimizer-assumed", "note", message, assumed=True)
    for checkpoint in checkpoints:
        if checkpoint.note is not None:
            yield found("state-not-read", "note", checkpoint.note, checkpoint=checkpoint.path)


def worst_first(findings: Sequence[TrackFinding]) -> tuple[TrackFinding, ...]:
    """Return the findings by severity, those of one kind together, else in their order."""
    kinds = list(_FIXES)
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), kinds.index(f.kind))))
