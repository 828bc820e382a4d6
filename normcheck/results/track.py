"""Weights over a series of checkpoints as data: their norms, how fast their directions move, which updates are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normcheck.results.report import Severity, Skipped, Tool  # noqa: TC001  # read at run time, for the schema

Scope = Literal["channel", "tensor", "none", "unknown"]
"""What of a weight can be scaled without effect on the output: each output channel, only all of it, nothing."""

UpdateSource = Literal["optimizer", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One number for each output channel, in short; channels in which it is not finite are left out.

    `median`: of the channels. `low`: their 5 % quantile. `high`: their 95 % quantile. `smallest`: of all channels.
    `largest`: of all channels.
    """

    median: float
    low: float
    high: float
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Updates that change nothing where the weights are kept in a format: round(w + u) = w, with w in that format.

    `precision`: the format. `lost`: weights whose update is not zero and is lost. `of`: weights whose update is not
    zero, and which the format holds. `share`: `lost` over `of`; null where no update is counted. `beyond`: weights that
    are infinite in the format, or not finite. `channels`: output channels that lose more than half of their updates.
    """

    precision: str
    lost: int
    of: int
    share: float | None
    beyond: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A weight in one checkpoint.

    `checkpoint`: its place in `checkpoints`, from 0 on. `norm`: L2 norm of the whole weight. `channel_norms`: of the
    output channels. `zero_channels`: channels whose norm is 0. `nonfinite_channels`: channels whose norm is infinite or
    NaN. `lr`: learning rate of this weight; null where nothing says it. `effective_step`: lr / norm^power of the
    channels, or of the whole weight where its scope is "tensor"; null without a learning rate. `angle_degrees`: angle
    between the directions of each channel here and in the checkpoint before; null in the first. `relative_change`: L2
    norm of the difference to the checkpoint before, over the norm there; null in the first. `update_from`: where the
    update of one step comes from: the optimizer's state, or the difference to the checkpoint before over the steps
    between; null where there is neither. `estimated`: whether that update is not one that was made, but a mean of
    several or one that the state gives only nearly. `relative_update`: L2 norm of that update over that of the weight.
    `lost`: for each format. `norms_of_channels`: one number a channel, on request; else null.
    """

    checkpoint: int
    norm: float
    channel_norms: Spread | None
    zero_channels: int
    nonfinite_channels: int
    lr: float | None
    effective_step: Spread | None
    angle_degrees: Spread | None
    relative_change: float | None
    update_from: UpdateSource | None
    estimated: bool
    relative_update: float | None
    lost: tuple[Lost, ...]
    norms_of_channels: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """From the first checkpoint to the last; channels whose norm is 0 or not finite in either are left out.

    `norm_ratio`: norm of each channel, last over first. `step_ratio`: effective step size of each channel (of the whole
    weight where its scope is "tensor"), last over first; without learning rates, at a constant one. `trend`: factor
    by which its median goes from one checkpoint to the next, by least squares on its logarithm.
    """

    norm_ratio: Spread
    step_ratio: Spread
    trend: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """An output channel that stands out.

    `index`: along dimension 0. `norm`: in the last checkpoint. `step_ratio`: its effective step size, last over first;
    null where that is not defined. `lost`: share of its updates that is lost in the last checkpoint that has updates,
    by format; null where it has none.
    """

    index: int
    norm: float
    step_ratio: float | None
    lost: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedLayer:
    """A weight of two dimensions or more, through all checkpoints.

    `name`: the tensor's. `shape`: output channels first. `channels`: the size of dimension 0. `stored`: format in the
    last checkpoint. `scope`: what of it is scale invariant: each "channel", the "tensor" as a whole, "none" of it, or
    "unknown". `how`: how that is known. `power`: exponent of the norm in the effective step size: 2 for SGD, 1 for Adam
    and its kin, whose updates do not grow with the gradient. `points`: one a checkpoint. `drift`: null with one
    checkpoint, or where no channel has a direction. `worst`: channels that lose most or have drifted most.
    """

    name: str
    shape: tuple[int, ...]
    channels: int
    stored: str
    scope: Scope
    how: str
    power: int
    points: tuple[Point, ...]
    drift: Drift | None
    worst: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A file or folder of the series.

    `path`: as it was given or found. `reader`: what it turned out to be. `step`: steps of the optimizer that it states;
    null where it states none. `steps_since`: steps since the checkpoint before, as stated or given; null in the first
    and where nothing says it. `optimizer`: the kind that it states or that was given; null where neither does. `lr`:
    its learning rates, each once. `from_state`: weights whose update comes from the optimizer's state. `note`: what is
    not read of it and why; null where all is.
    """

    path: str
    reader: str
    step: int | None
    steps_since: int | None
    optimizer: str | None
    lr: tuple[float, ...]
    from_state: int
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackFinding:
    """Something to look at, and what to do.

    `kind`: a stable name. `severity`: how bad. `layer`: null where it is about the series. `precision`: null where it
    holds in any. `checkpoint`: path of the checkpoint where it shows; null where it is about several. `message`: what
    was found. `fix`: what to do. `assumed`: whether it rests on an estimate or an assumption.
    """

    kind: str
    severity: Severity
    layer: str | None
    precision: str | None
    checkpoint: str | None
    message: str
    fix: str
    assumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackReport:
    """What `normcheck track` reports.

    `format`: version of this JSON, raised when a field is renamed or removed. `tool`: the program. `command`: "track".
    `settings`: the options in force. `checkpoints`: in the order of the series. `layers`: the weights, worst first.
    `findings`: worst first. `skipped`: tensors that are not tracked, and why. `unreadable`: files that could not be
    read, and why. `fail_on`: the least severe finding that fails the run.
    """

    format: Literal[1]
    tool: Tool
    command: Literal["track"]
    settings: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    layers: tuple[TrackedLayer, ...]
    findings: tuple[TrackFinding, ...]
    skipped: tuple[Skipped, ...]
    unreadable: tuple[Skipped, ...]
    fail_on: str
