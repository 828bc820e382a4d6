"""What experiments that train have in common: the digits in any size, and a loop of steps with fixed seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from normcheck.errors import UsageError
from normcheck.paper.digits import TRAINED, digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

Pixels = Literal["unit", "raw"]
"""Pixels from 0 to 1, or from 0 to 255 as image files hold them."""

Enlarging = Literal["interpolation", "repetition"]

_LARGEST = 16.0
_TOP: dict[Pixels, float] = {"unit": 1.0, "raw": 255.0}
_MODES: dict[Enlarging, str] = {"interpolation": "bilinear", "repetition": "nearest"}

CHANCE = 0.1
"""Accuracy of a guess: ten classes of about the same size."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images as (N, 1, H, W) and their classes: what is trained on, and what is held out."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


@cache
def images(
    size: int = 8,
    *,
    pixels: Pixels = "unit",
    by: Enlarging = "interpolation",
    trained: int = TRAINED,
    dtype: torch.dtype = torch.float32,
) -> Images:
    """Return the digits, enlarged so that a norm has more elements; do not write into them.

    Args:
        size: height and width. 8 leaves the scans as they are.
        pixels: their scale.
        by: bilinear interpolation, or repetition of whole pixels.
        trained: only the first so many of the 1437 images to train on. All 360 others are held out, always.
        dtype: of the images.

    Raises:
        UsageError: a size below 8, or more images than there are.
    """
    if size < 8:
        raise UsageError(f"digits are 8 by 8 pixels, received size {size}: give 8 or more")
    if not 1 <= trained <= TRAINED:
        raise UsageError(f"there are {TRAINED} digits to train on, received trained={trained}")
    scans, classes = digits()
    shown = scans * (_TOP[pixels] / _LARGEST)
    if size != 8:
        interpolating = {"align_corners": False} if by == "interpolation" else {}
        shown = functional.interpolate(shown, (size, size), mode=_MODES[by], **interpolating)
    shown = shown.to(dtype)
    return Images(shown[:trained], classes[:trained], shown[TRAINED:], classes[TRAINED:])


def batches(count: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the indices of `steps` batches: one epoch after the other, each in a new order that `seed` decides.

    The last images of an epoch, which fill no batch, are left out of it.

    Raises:
        UsageError: a batch larger than the data.
    """
    if batch > count:
        raise UsageError(f"a batch of {batch} images, but only {count} to train on: give a smaller batch")
    generator = torch.Generator().manual_seed(seed)
    given = 0
    while given < steps:
        for rows in torch.randperm(count, generator=generator)[: count // batch * batch].view(-1, batch):
            if given < steps:
                yield rows
            given += 1


@dataclass(frozen=True, slots=True)
class Curve:
    """How a run went, at each of `steps`, counted from 1: the last one is where it ended.

    `losses`: mean training loss of the steps since the one before. `accuracies`: share of the held-out images that are
    right, in eval mode. `finite`: whether every loss was; training stops at the first that is not.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    finite: bool

    @property
    def accuracy(self) -> float:
        """At the end."""
        return self.accuracies[-1]


def train(
    model: nn.Module,
    data: Images,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batch: int,
    seed: int,
    every: int | None = None,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    after: Callable[[int], None] | None = None,
) -> Curve:
    """Train by cross-entropy.

    Args:
        model: what maps images to the logits of ten classes; it is in eval mode afterwards.
        data: from `images`.
        optimizer: of the model's parameters.
        steps: batches in all. batch: images in one. seed: of their order; not of the model's initial weights.
        every: steps between evaluations; None for only one, at the end.
        schedule: stepped after each step.
        after: called after each step with its number, from 1 on.

    Raises:
        UsageError: no step, or a batch larger than the data.
    """
    if steps < 1:
        raise UsageError(f"give 1 step or more to train, received {steps}")
    found: list[tuple[int, float, float]] = []
    total, since, last, finite = 0.0, 0, 0, True
    for step, rows in enumerate(batches(len(data.train), batch, steps, seed), 1):
        model.train()
        loss = functional.cross_entropy(model(data.train[rows]), data.train_classes[rows])
        total, since, last = total + float(loss.detach()), since + 1, step
        finite = math.isfinite(total)
        if not finite:
            break
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if schedule is not None:
            schedule.step()
        if after is not None:
            after(step)
        if every is not None and step % every == 0 and step < steps:
            found.append((step, total / since, accuracy(model, data.test, data.test_classes)))
            total, since = 0.0, 0
    found.append((last, total / max(since, 1), accuracy(model, data.test, data.test_classes)))
    at, losses, accuracies = zip(*found, strict=True)
    return Curve(at, losses, accuracies, finite)


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, classes: Tensor) -> float:
    """Return the share of images that a model classifies right in eval mode, in which it is left; NaN is wrong."""
    logits = model.eval()(inputs)
    right = (logits.argmax(1) == classes) & logits.isfinite().all(1)
    return float(right.double().mean())
