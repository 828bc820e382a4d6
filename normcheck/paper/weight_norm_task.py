"""Plain nets on the digits, with norms of weights or of activations, and what is kept of their training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from normcheck.nn import BatchNorm2d, MeanOnlyBatchNorm2d, bounded_weight_norm
from normcheck.paper.training import Curve, Images, images, train

Kind = Literal["batch", "weight", "bounded", "none"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to normalise a convolution: batch norm, or a norm of its weights with mean-only batch norm behind it.

    `p` and `gain` are those of bounded weight norm.
    """

    name: str
    kind: Kind
    p: float = 2
    gain: bool = False


BATCH, WEIGHT = Way("batch norm", "batch"), Way("weight norm", "weight")
BOUNDED = Way("bounded weight norm", "bounded", gain=True)
"""The form that the authors trained: gains are trained too, and the norm of a layer as a whole is fixed."""
FIXED = Way("bounded, rho fixed", "bounded")
ONE, INFINITE = (
    Way("bounded, p = 1", "bounded", p=1, gain=True),
    Way("bounded, p = inf", "bounded", math.inf, gain=True),
)
FREE = Way("weights free", "none")
"""Mean-only batch norm and nothing else: what the rest must be better than to have been of use."""
WAYS = (BATCH, BOUNDED, FIXED, ONE, INFINITE, WEIGHT, FREE)


def convolution(way: Way, inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A convolution of 3 by 3, its norm, and a ReLU; initial weights by He, from the global generator."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if way.kind == "weight":
        weight_norm(layer)
    elif way.kind == "bounded":
        bounded_weight_norm(layer, p=way.p, gain=way.gain)
    return [layer, BatchNorm2d(outputs) if way.kind == "batch" else MeanOnlyBatchNorm2d(outputs), nn.ReLU()]


def network(way: Way, convolutions: int, seed: int) -> nn.Sequential:
    """A plain net for 8 by 8 pixels, with the same initial weights for one seed whatever the way.

    A third of the convolutions have 16 channels, the others 32; size is halved after each third.
    """
    torch.manual_seed(seed)
    third = (convolutions + 1) // 3
    layers: list[nn.Module] = []
    for index in range(convolutions):
        inputs = 1 if index == 0 else 16 if index <= third else 32
        stride = 2 if index in {third, 2 * third} else 1
        layers += convolution(way, inputs, 16 if index < third else 32, stride)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


# ------------------------------------------------------------------------------------------------------ the runs


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run: with `rates` and `rate_seeds` each way finds its learning rate, with `seeds` it is compared."""

    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    rate_seeds: tuple[int, ...]
    steps: int
    every: int
    ways: tuple[Way, ...]
    kept_steps: int
    convolutions: int


FITTED = 1200
"""Images that a search for a learning rate trains on; it judges by the others of those that are trained on later."""
BATCH_SIZE = 64
KEPT_RATE = 0.1
"""Learning rate of the runs whose norms are watched."""


@dataclass(frozen=True, slots=True)
class Call:
    """One net to train. `searching`: for a learning rate, without a look at the images held out."""

    way: Way
    rate: float
    seed: int
    size: Size
    searching: bool = False


def trained(call: Call) -> Curve:
    """Train one net. Its learning rate goes to 0 along half a cosine."""
    model, steps = network(call.way, call.size.convolutions, call.seed), call.size.steps
    optimizer = _optimizer(model, call.rate)
    return train(
        model,
        data(searching=call.searching),
        optimizer,
        steps=steps,
        batch=BATCH_SIZE,
        seed=call.seed,
        every=None if call.searching else call.size.every,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
    )


def data(*, searching: bool) -> Images:
    """The digits, with mean 0 and deviation 1 over those trained on; the held-out ones not while searching."""
    raw = images()
    mean, deviation = raw.train.mean(), raw.train.std()
    train_images, test_images = (raw.train - mean) / deviation, (raw.test - mean) / deviation
    if not searching:
        return Images(train_images, raw.train_classes, test_images, raw.test_classes)
    inputs, classes = train_images, raw.train_classes
    return Images(inputs[:FITTED], classes[:FITTED], inputs[FITTED:], classes[FITTED:])


def _optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


@dataclass(frozen=True, slots=True)
class Kept:
    """By how much, relatively, norms had changed at most after any step of a run, in the p of its way.

    `layer`: of a whole layer, the root of the sum of its channels' squared norms. `channel`: of one channel. `moved`:
    how far the weights of the layer that moved least went in all, over their norm.
    """

    layer: float
    channel: float
    moved: float


def kept(call: Call) -> Kept:
    """Train one net, without a schedule, and watch the norms of its convolutions."""
    model = network(call.way, call.size.convolutions, call.seed)
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    start = [layer.weight.detach().clone() for layer in convolutions]
    first = [_norms(weight, call.way.p) for weight in start]
    layers, channels = [], []

    def watch(_: int) -> None:
        for layer, norms in zip(convolutions, first, strict=True):
            now = _norms(layer.weight.detach(), call.way.p)
            layers.append(float((now.norm() / norms.norm() - 1).abs()))
            channels.append(float((now / norms - 1).abs().max()))

    steps, optimizer = call.size.kept_steps, _optimizer(model, call.rate)
    train(model, data(searching=False), optimizer, steps=steps, batch=BATCH_SIZE, seed=call.seed, after=watch)
    moved = [float((c.weight.detach() - w).norm() / w.norm()) for c, w in zip(convolutions, start, strict=True)]
    return Kept(max(layers), max(channels), min(moved))


def _norms(weight: Tensor, p: float) -> Tensor:
    """Of every output channel, in float64, so that what is found is of the weights and not of the sum."""
    norms: Tensor = torch.linalg.vector_norm(weight.double().flatten(1), ord=p, dim=1)
    return norms


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a way: of each rate the accuracies of the search, the rate chosen, and the runs with it."""

    searched: dict[float, list[float]]
    rate: float
    curves: list[Curve]

    @property
    def accuracies(self) -> list[float]:
        """Of the held-out images at the end."""
        return [at_end(curve) for curve in self.curves]

    @property
    def largest_rate(self) -> float:
        """The largest rate at which every run of the search came to `TRAINS`; 0 for none."""
        return max((rate for rate, found in self.searched.items() if min(found) >= TRAINS), default=0.0)


TRAINS = 0.8
"""Accuracy from which a net counts as one that trains."""


def at_end(curve: Curve) -> float:
    """The accuracy that a run ended with: 0 if its loss was not finite."""
    return curve.accuracy if curve.finite else 0.0
