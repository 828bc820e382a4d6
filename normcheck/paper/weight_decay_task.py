"""A small float64 task on the digits, on which runs without weight decay can be compared to one with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from normcheck.optim import (
    CorrectedLearningRate,
    NormRecorder,
    NormScheduler,
    RecordedNorms,
    UnstableCorrectionWarning,
    displacement_error,
)
from normcheck.paper.digits import TRAINED
from normcheck.paper.runs import one_thread
from normcheck.paper.training import accuracy, images

BATCH = 64
STEPS = TRAINED // BATCH
"""Steps of an epoch: 22. The last images of a shuffled epoch, which fill no batch, are left out."""

NO_EPS = 1e-30
"""An eps that no variance feels; torch refuses 0 in training."""

Kind = Literal["mlp", "cnn"]
Attach = Callable[[torch.optim.Optimizer, dict[str, nn.Parameter]], CorrectedLearningRate]
"""Attaches a correction to the optimizer of a run, for its scale-invariant weights."""


@dataclass(frozen=True)
class Settings:
    """What all runs that are compared have in common; `drop_every` epochs the learning rate is divided by ten."""

    kind: Kind = "mlp"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    weight_decay: float = 0.1
    momentum: float = 0.9
    epochs: int = 3
    label_noise: float = 0.0
    drop_every: int | None = None
    seed: int = 0

    def divisor(self, epoch: int) -> float:
        """By how much the learning rate is divided at an epoch, counted from 0."""
        return 1.0 if self.drop_every is None else 10.0 ** (epoch // self.drop_every)


@dataclass
class Run:
    """A run: its weights, those before a norm by name, as they began and ended, and what it recorded at every step.

    `accuracies` are those of the held-out images after each epoch, in 0...1.
    """

    start: dict[str, Tensor]
    end: dict[str, Tensor]
    recorded: RecordedNorms
    accuracies: list[float]
    growth: list[float] = field(default_factory=list)
    """The largest growth of a factor at each correction but the first."""

    @property
    def accuracy(self) -> float:
        """That of the run's end."""
        return self.accuracies[-1]

    def error(self, reference: Run) -> float:
        """The displacement error against another run."""
        return displacement_error(*(list(w.values()) for w in (reference.start, self.end, reference.end)))


Form = Callable[[Settings, RecordedNorms], Run]


def network(kind: Kind, seed: int, eps: float = 1e-5) -> nn.Sequential:
    """Two linear layers or three convolutions, each before a batch norm and a ReLU, and a linear layer, in float64."""
    torch.manual_seed(seed)
    if kind == "mlp":
        parts = [part for width in (64, 64) for part in (nn.Linear(64, width, bias=False), nn.BatchNorm1d(width, eps))]
        layers: list[nn.Module] = [nn.Flatten(), *parts[:2], nn.ReLU(), *parts[2:], nn.ReLU(), nn.Linear(64, 10)]
    else:
        layers = [*_block(1, 8, 1, eps), *_block(8, 16, 2, eps), *_block(16, 16, 1, eps)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(*layers).double()


def _block(inputs: int, outputs: int, stride: int, eps: float) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, eps), nn.ReLU()]


def invariant(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights before a norm: all but those of the last layer, and the parameters of the norms."""
    weights = {name: p for name, p in model.named_parameters() if p.ndim >= 2}
    weights.popitem()
    return weights


@one_thread()
def trained(
    settings: Settings,
    *,
    decays: bool = False,
    perturbation: float = 0.0,
    correct: Attach | None = None,
    norm_schedule: Callable[[dict[str, nn.Parameter]], NormScheduler] | None = None,
) -> Run:
    """Train on the same batches for the same seed; weight decay of what no norm follows is always on.

    Args:
        settings: of the run.
        decays: whether the weights before a norm decay as well.
        perturbation: by how much, relatively, they differ at the start from those of the seed.
        correct: attaches a correction.
        norm_schedule: makes a scheduler, which is applied at every epoch; the learning rate of the weights that it
            schedules is left as it is in the first epoch.
    """
    model = network(settings.kind, settings.seed)
    weights = invariant(model)
    generator = torch.Generator().manual_seed(1000 + settings.seed)
    _perturb(weights, perturbation)
    optimizer = _optimizer(model, weights, settings, decays=decays)
    growth = _Growth(None if correct is None else correct(optimizer, weights))
    scheduler = None if norm_schedule is None else norm_schedule(weights)
    data = images(dtype=torch.float64)
    classes = _noisy(data.train_classes, settings.label_noise, generator)
    start: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in weights.items()}
    recorder, accuracies = NormRecorder(weights), []

    for epoch in range(settings.epochs):
        _set_rates(optimizer, settings, epoch, frozen=scheduler is not None)
        if scheduler is not None:
            scheduler.apply(epoch)
        _epoch(model, optimizer, (data.train, classes), generator, recorder.record, growth.look)
        accuracies.append(accuracy(model, data.test, data.test_classes))
    return Run(start, {**weights}, recorder.recorded, accuracies, growth.found)


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    generator: torch.Generator,
    before_step: Callable[[], None],
    after_step: Callable[[], None],
) -> None:
    inputs, classes = data
    model.train()
    for rows in torch.split(torch.randperm(TRAINED, generator=generator)[: STEPS * BATCH], BATCH):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(inputs[rows]), classes[rows]))
        before_step()
        optimizer.step()
        after_step()


class _Growth:
    """The largest growth of any factor of a correction, wherever they were computed anew."""

    def __init__(self, correction: CorrectedLearningRate | None) -> None:
        self._correction, self._factors = correction, dict[str, Tensor]()
        self.found: list[float] = []

    def look(self) -> None:
        """Compare the factors to those of the step before."""
        if self._correction is None:
            return
        before, self._factors = self._factors, self._correction.factors
        if before and any(self._factors[name] is not before[name] for name in before):
            self.found.append(max(float((self._factors[name] / before[name]).max()) for name in before))


def _perturb(weights: dict[str, nn.Parameter], perturbation: float) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(1 + perturbation * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))


def _optimizer(
    model: nn.Module, weights: dict[str, nn.Parameter], settings: Settings, *, decays: bool
) -> torch.optim.Optimizer:
    others = [p for name, p in model.named_parameters() if name not in weights]
    groups = [
        {"params": list(weights.values()), "weight_decay": settings.weight_decay if decays else 0.0},
        {"params": others, "weight_decay": settings.weight_decay},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, 0.999))
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def _set_rates(optimizer: torch.optim.Optimizer, settings: Settings, epoch: int, *, frozen: bool) -> None:
    """Set the learning rates of an epoch: of the weights before a norm, which may be frozen, and of all else."""
    scheduled = settings.learning_rate / settings.divisor(epoch)
    for group, rate in zip(
        optimizer.param_groups, (settings.learning_rate if frozen else scheduled, scheduled), strict=True
    ):
        group["lr"] = rate


def _noisy(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(classes), generator=generator) < share
    drawn = torch.randint(0, 10, (len(classes),), generator=generator)
    return torch.where(chosen, drawn, classes)


# ----------------------------------------------------------------------------------------- forms of doing without


def corrected(every: int, **options: Any) -> Form:
    """A run whose learning rate is corrected every so many steps; options are those of `CorrectedLearningRate`."""

    def run(settings: Settings, recorded: RecordedNorms) -> Run:
        def attach(optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter]) -> CorrectedLearningRate:
            return CorrectedLearningRate(optimizer, weights, recorded.every(every), steps_per_record=every, **options)

        return trained(settings, correct=attach)

    return run


def scheduled(settings: Settings, recorded: RecordedNorms) -> Run:
    """A run whose norms are set once an epoch to those of the run with weight decay and its learning rate schedule."""
    norms = recorded.every(STEPS)
    return trained(settings, norm_schedule=lambda weights: NormScheduler(weights, norms, settings.divisor))


ON, OFF = "weight decay", "no correction"
STEPWISE, EPOCHWISE = "corrected at every step", "corrected once an epoch"
STEPWISE_HELD, EPOCHWISE_HELD = "corrected at every step, norms held", "corrected once an epoch, norms held"
SCHEDULED = "norms set once an epoch"
UNDROPPED = "weight decay, learning rate not dropped"
FLOOR, ROUNDING = "weight decay, start changed by 1e-12", "weight decay, start changed by 6e-8"


FORMS: dict[str, Form] = {
    OFF: lambda settings, _: trained(settings),
    STEPWISE: corrected(1),
    STEPWISE_HELD: corrected(1, hold_norms=True),
    EPOCHWISE: corrected(STEPS),
    EPOCHWISE_HELD: corrected(STEPS, hold_norms=True),
    SCHEDULED: scheduled,
    FLOOR: lambda settings, _: trained(settings, decays=True, perturbation=1e-12),
    ROUNDING: lambda settings, _: trained(settings, decays=True, perturbation=6e-8),
}
"""Runs to be compared to one with weight decay, by name, from their settings and the norms that it recorded."""

CONTROLS: dict[str, Form] = {
    UNDROPPED: lambda settings, _: trained(replace(settings, drop_every=None), decays=True),
}
"""Runs that show what others must be better than."""

BLOWN_UP = 1e4
"""Times a channel's norm at the start."""


def lengthened(run: Run) -> float:
    """By how much the channel that has grown most had grown at any time; NaN where one is."""
    return max(float((norms.amax(0) / norms[0]).max()) for norms in run.recorded.norms.values())


# ------------------------------------------------------------------------------------------ what is kept of runs

LAST = 5
"""Epochs at the end of a run over which accuracy is averaged: at a learning rate that stays it swings."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of a run.

    `error`: of displacement against the run with weight decay. `accuracies`: after each epoch. `norms` and
    `step_sizes`: of each epoch, the median over channels and steps of the norm and of the effective step size.
    `longer`: how many times the channel that has grown most had grown. `growth`: the largest of a factor between
    two corrections.
    """

    error: float
    accuracies: tuple[float, ...]
    norms: tuple[float, ...]
    step_sizes: tuple[float, ...]
    longer: float
    growth: float

    @property
    def accuracy(self) -> float:
        """Over the last epochs."""
        return fmean(self.accuracies[-LAST:])


def traces(call: tuple[Settings, tuple[str, ...]]) -> dict[str, Trace]:
    """Run weight decay, and each form by its name in `FORMS` or `CONTROLS` after it, with the same settings."""
    settings, names = call
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableCorrectionWarning)  # it is what some of the runs are for
        reference = trained(settings, decays=True)
        found = {name: (FORMS | CONTROLS)[name](settings, reference.recorded) for name in names}
    return {name: _trace(name, run, reference, settings) for name, run in {ON: reference, **found}.items()}


def _trace(name: str, run: Run, reference: Run, settings: Settings) -> Trace:
    norms = _by_epoch(_norms(run))
    longest = lengthened(run)
    return Trace(
        error=run.error(reference),
        accuracies=tuple(run.accuracies),
        norms=tuple(norms.flatten(1).median(1).values.tolist()),
        step_sizes=tuple(_by_epoch(_step_sizes(name, run, reference, settings)).flatten(1).median(1).values.tolist()),
        longer=math.inf if math.isnan(longest) else longest,
        growth=max(run.growth, default=1.0),
    )


def _norms(run: Run) -> torch.Tensor:
    """Of all channels at every step: (steps, channels)."""
    return torch.cat(list(run.recorded.norms.values()), 1)


def _by_epoch(values: torch.Tensor) -> torch.Tensor:
    """Of (steps, channels): (epochs, steps of an epoch, channels)."""
    return values.reshape(-1, STEPS, values.shape[1])


def _step_sizes(name: str, run: Run, reference: Run, settings: Settings) -> torch.Tensor:
    """The learning rate of each channel over its squared norm, at every step: (steps, channels)."""
    norms, wanted = _norms(run), _norms(reference)
    divisors = [1.0 if name == SCHEDULED else settings.divisor(epoch) for epoch in range(settings.epochs)]
    rates = settings.learning_rate / torch.tensor(divisors, dtype=norms.dtype).repeat_interleave(STEPS)[:, None]
    if name in {STEPWISE, STEPWISE_HELD}:
        return rates / wanted**2
    if name in {EPOCHWISE, EPOCHWISE_HELD}:
        factors = (norms[::STEPS] / wanted[::STEPS]) ** 2
        return rates * factors.repeat_interleave(STEPS, 0) / norms**2
    return rates / norms**2
