"""A small float64 task on scikit-learn's digits, on which runs without weight decay can be compared to one with it."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from normcheck.optim import CorrectedLearningRate, NormRecorder, NormScheduler, RecordedNorms, displacement_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRAINED, BATCH = 1437, 64
STEPS = TRAINED // BATCH
"""Steps of an epoch: 22. The last images of a shuffled epoch, which fill no batch, are left out."""

NO_EPS = 1e-30
"""An eps that no variance feels; torch refuses 0 in training."""

Kind = Literal["mlp", "cnn"]


@dataclass(frozen=True)
class Settings:
    """What all runs that are compared have in common."""

    kind: Kind = "mlp"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    weight_decay: float = 0.1
    momentum: float = 0.9
    epochs: int = 3
    label_noise: float = 0.0
    seed: int = 0


@dataclass
class Run:
    """A run: its weights, those before a norm by name, as they began and ended, and what it recorded at every step."""

    start: dict[str, Tensor]
    end: dict[str, Tensor]
    recorded: RecordedNorms
    accuracy: float
    growth: list[float] = field(default_factory=list)
    """The largest growth of a factor at each correction but the first."""

    def error(self, reference: Run) -> float:
        """The displacement error against another run."""
        return displacement_error(*(list(w.values()) for w in (reference.start, self.end, reference.end)))


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in 0...1, in float64, and their classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.images)[:, None] / 16, torch.tensor(found.target)


def network(kind: Kind, seed: int, eps: float = 1e-5) -> nn.Sequential:
    """Two linear layers or three convolutions, each before a batch norm and a ReLU, and a linear layer, in float64."""
    torch.manual_seed(seed)
    if kind == "mlp":
        parts = [part for width in (64, 64) for part in (nn.Linear(64, width, bias=False), nn.BatchNorm1d(width, eps))]
        layers = [nn.Flatten(), *parts[:2], nn.ReLU(), *parts[2:], nn.ReLU(), nn.Linear(64, 10)]
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


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums, and so the last bits, would depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def trained(
    settings: Settings,
    *,
    decays: bool = False,
    perturbation: float = 0.0,
    correct: Callable[[torch.optim.Optimizer, dict[str, nn.Parameter]], CorrectedLearningRate] | None = None,
    norm_schedule: Callable[[dict[str, nn.Parameter]], NormScheduler] | None = None,
) -> Run:
    """Train on the same batches for the same seed; weight decay of what no norm follows is always on.

    Args:
        settings: of the run.
        decays: whether the weights before a norm decay as well.
        perturbation: by how much, relatively, they differ at the start from those of the seed.
        correct: attaches a correction.
        norm_schedule: makes a scheduler, which is applied at every epoch.
    """
    model = network(settings.kind, settings.seed)
    weights = invariant(model)
    generator = torch.Generator().manual_seed(1000 + settings.seed)
    _perturb(weights, perturbation)
    optimizer = _optimizer(model, weights, settings, decays=decays)
    correction = None if correct is None else correct(optimizer, weights)
    scheduler = None if norm_schedule is None else norm_schedule(weights)
    images, classes = digits()[0][:TRAINED], _noisy(digits()[1][:TRAINED], settings.label_noise, generator)
    recorder, start, factors, growth = NormRecorder(weights), copy.deepcopy(weights), {}, []
    for epoch in range(settings.epochs):
        if scheduler is not None:
            scheduler.apply(epoch)
        for rows in torch.randperm(TRAINED, generator=generator)[: STEPS * BATCH].split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), classes[rows]).backward()
            recorder.record()
            optimizer.step()
            if correction is not None:
                growth += _growth(correction.factors, factors)
                factors = correction.factors
    return Run(start, dict(weights), recorder.recorded, _accuracy(model), growth)


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


def _noisy(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(classes), generator=generator) < share
    drawn = torch.randint(0, 10, (len(classes),), generator=generator)
    return torch.where(chosen, drawn, classes)


def _growth(factors: dict[str, Tensor], before: dict[str, Tensor]) -> list[float]:
    """The largest growth of any factor, where they were computed anew."""
    if not before or all(factors[name] is before[name] for name in factors):
        return []
    return [max(float((factors[name] / before[name]).max()) for name in factors)]


def _accuracy(model: nn.Module) -> float:
    images, classes = digits()
    with torch.no_grad():
        chosen = model.eval()(images[TRAINED:]).argmax(1)
    return float((chosen == classes[TRAINED:]).double().mean())
