"""What one run of experiment (b) is: a net of one batch norm in emulated float16, and how it learned.

The element count n and the scale of the pre-activations are set from outside, so that exact arithmetic learns the same
whatever they are. Images are enlarged by repeating pixels and the convolution is dilated as much, which repeats each
pre-activation and moves no mean; a factor on the pixels is a factor on the pre-activations, which the norm takes off.
What changes with n and scale is therefore the arithmetic's doing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from normcheck.nn import BatchNorm2d, EmulatedPrecision
from normcheck.paper.half_precision_prediction import Prediction, predicted
from normcheck.paper.training import Images, batches, images, train

if TYPE_CHECKING:
    from collections.abc import Iterator

EPS = 1e-5
"""Of the variance; other statistics have its root, which is the same floor of s."""

LOSS_SCALE = 1024.0
PRECISION = "fp16"

RAW = 255.0
"""The largest pixel as image files hold it."""

_CHANNELS, _POOLED, _CLASSES = 8, 4, 10
_CONVOLUTION, _NORM = "0", "1"
"""Names of the layers."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute a batch norm: its statistic, and the implementation; None for torch's own float32."""

    name: str
    statistic: Literal["l2", "l1", "linf", "topk"]
    implementation: str | None

    @property
    def eps(self) -> float:
        """What is added to the variance, or to the statistic."""
        return EPS if self.statistic == "l2" else math.sqrt(EPS)


@dataclass(frozen=True, slots=True)
class Size:
    """How many elements share a statistic: `batch` images of `side` by `side` pixels; and how long they are trained."""

    side: int
    batch: int
    steps: int
    rate: float

    @property
    def n(self) -> int:
        """Elements of a group."""
        return self.batch * self.side**2


@dataclass(frozen=True, slots=True)
class Run:
    """One net to train.

    scale: standard deviation of each channel of the norm's input on the first batch, before training; None for
    pixels from 0 to 255 and the scale that they give. every: steps between the points of the curve; None for no curve.
    small: torch's own initial filters, 2.4 times smaller than He's, so that the same steps move them more.
    """

    way: Way
    size: Size
    scale: float | None
    seed: int
    every: int | None = None
    small: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    `accuracy`: of the held-out images, with the statistics of batches as large as in training. `running`: with the
    running statistics, as a trained net is used. `sigma`: the scale as measured. `finite`: whether every loss was.
    `stopped`: the last step. `growth_bits`: log2 of the largest pre-activation of all batches over that of the first;
    `overflowed`: the first step of the norm in which something overflowed or became NaN, of all batches; both None
    without emulation, the latter also where nothing did. `at`, `curve`: steps, and `running` there.
    """

    accuracy: float
    running: float
    sigma: float
    finite: bool
    stopped: int
    growth_bits: float | None
    overflowed: str | None
    prediction: Prediction | None
    at: tuple[int, ...]
    curve: tuple[float, ...]


def measured(run: Run) -> Outcome:
    """Train one net, and predict from its first batch what is to become of it."""
    torch.manual_seed(run.seed)
    data, model = images(run.size.side, by="repetition"), _network(run)
    convolution: Any = model[0]
    first = next(batches(len(data.train), run.size.batch, 1, run.seed))
    sigma = _equalised(convolution, data.train[first])
    factor = RAW if run.scale is None else run.scale / sigma
    data = dataclasses.replace(data, train=data.train * factor, test=data.test * factor)
    with torch.no_grad():
        inputs = convolution(data.train[first])
    way, prediction = run.way, None
    if way.implementation is not None:
        prediction = predicted(inputs.numpy(), f"batch-{way.statistic}", way.implementation, PRECISION, way.eps)
    emulated = _emulated(model, way)
    curve = train(
        emulated,
        data,
        torch.optim.SGD(model.parameters(), lr=run.size.rate, momentum=0.9),
        steps=run.size.steps,
        batch=run.size.batch,
        seed=run.seed,
        every=run.every,
    )
    return Outcome(
        accuracy=_by_batches(emulated, data, run.size.batch),
        running=curve.accuracy,
        sigma=sigma * factor,
        finite=curve.finite,
        stopped=curve.steps[-1],
        growth_bits=_growth(emulated, float(inputs.abs().max())),
        overflowed=_overflowed(emulated),
        prediction=prediction,
        at=curve.steps,
        curve=curve.accuracies,
    )


def _network(run: Run) -> nn.Sequential:
    """One convolution, its norm, and a linear layer on 4 by 4 means."""
    dilation = run.size.side // 8
    convolution = nn.Conv2d(1, _CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)
    if not run.small:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(
        convolution,
        BatchNorm2d(_CHANNELS, run.way.eps, statistic=run.way.statistic),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(_POOLED),
        nn.Flatten(),
        nn.Linear(_CHANNELS * _POOLED**2, _CLASSES),
    )


def _emulated(model: nn.Module, way: Way) -> nn.Module:
    if way.implementation is None:
        return model
    return EmulatedPrecision(
        model, way.implementation, PRECISION, loss_scale=LOSS_SCALE, activations=True, weights="master", jobs=1
    )


def _growth(model: nn.Module, first: float) -> float | None:
    if not isinstance(model, EmulatedPrecision):
        return None
    return math.log2(model.events[_CONVOLUTION]["activation"].max_abs / first)


def _overflowed(model: nn.Module) -> str | None:
    if not isinstance(model, EmulatedPrecision):
        return None
    return next((name for name, step in model.events[_NORM].items() if step.overflow or step.invalid), None)


@torch.no_grad()
def _equalised(convolution: nn.Conv2d, inputs: Tensor) -> float:
    """Give all channels the same deviation over these inputs, the root of their mean square; return it."""
    each = convolution(inputs).transpose(0, 1).flatten(1).std(1, correction=0)
    common = each.square().mean().sqrt()
    convolution.weight.mul_((common / each)[:, None, None, None])
    return float(common)


@torch.no_grad()
def _by_batches(model: nn.Module, data: Images, batch: int) -> float:
    """Return the share of the held-out images that are right with the statistics of their batch; NaN is wrong.

    The last batch is filled with images of the first, which count once. The running statistics move on, so this comes
    last.
    """
    model.train()
    right = torch.cat([_right(model, data, rows) for rows in _rows(len(data.test), batch)])
    return float(right[: len(data.test)].double().mean())


def _rows(count: int, batch: int) -> Iterator[Tensor]:
    for start in range(0, count, batch):
        yield torch.arange(start, start + batch) % count


def _right(model: nn.Module, data: Images, rows: Tensor) -> Tensor:
    logits: Tensor = model(data.test[rows])
    return (logits.argmax(1) == data.test_classes[rows]) & logits.isfinite().all(1)
