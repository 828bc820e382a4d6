"""What a conversion changed: outputs of both models on the same input, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from normcheck.errors import UsageError
from normcheck.nn.choice import ChosenNorm
from normcheck.nn.convert import Settings, eps_of, modules_by_name, planned, where_of
from normcheck.nn.convert_calls import calls_of, evaluating, run
from normcheck.nn.convert_counterparts import norm_of
from normcheck.nn.convert_running import first
from normcheck.results import Skipped
from normcheck.results.conversion import Accuracy, Conversion, ConvertedLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.nn.convert_calls import Call

Modules = dict[str, tuple[torch.nn.Module, ChosenNorm]]
"""The norms that were replaced, by name: what they were, and what they are."""


class Change:
    """Relative rms difference, sqrt(sum |a - b|^2 / sum |b|^2), of pairs of tensors; sums in float64."""

    def __init__(self) -> None:
        self._difference = self._before = 0.0
        self._compared = 0

    def add(self, after: torch.Tensor, before: torch.Tensor) -> None:
        """Add a pair; of another shape it is left out."""
        if after.shape != before.shape or not before.is_floating_point():
            return
        self._compared += before.numel()
        wide = before.detach().double().cpu()
        self._difference += float((after.detach().double().cpu() - wide).square().sum())
        self._before += float(wide.square().sum())

    @property
    def value(self) -> float | None:
        """The ratio; None where nothing was compared, infinite where only the difference is not 0."""
        if not self._compared:
            return None
        if self._before == 0:
            return 0.0 if self._difference == 0 else math.inf
        return math.sqrt(self._difference / self._before)


class _Changes:
    """The changes of all layers and of the output, gathered over batches, and the samples classified right."""

    def __init__(self, layers: Modules) -> None:
        self.layers = layers
        self.change = {name: Change() for name in layers}
        self.own = {name: Change() for name in layers}
        self.output = Change()
        self.right = [0, 0]
        self.classified = self.samples = 0

    def add(self, before: torch.nn.Module, after: torch.nn.Module, call: Call) -> None:
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in self.layers}
        with self._seen(kept):
            outputs = run(before, call)
        with self._compared(kept):
            changed = run(after, call)
        for a, b in zip(tensors_in(changed), tensors_in(outputs), strict=False):
            self.output.add(a, b)
        self.samples += call.samples
        if call.classes is not None:
            self.classified += len(call.classes)
            for place, result in enumerate((outputs, changed)):
                self.right[place] += _right(result, call.classes)

    @contextmanager
    def _seen(self, kept: dict[str, list[torch.Tensor]]) -> Iterator[None]:
        """Keep what each old norm gives, and compare it with what the new one gives for the same input."""
        handles = []
        for name, (old, new) in self.layers.items():

            def hook(
                _: Any, args: Any, kwargs: Any, output: torch.Tensor, name: str = name, new: ChosenNorm = new
            ) -> None:
                kept[name].append(output.detach())
                self.own[name].add(new.forward(first(args, kwargs)), output)

            handles.append(old.register_forward_hook(hook, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _compared(self, kept: dict[str, list[torch.Tensor]]) -> Iterator[None]:
        handles = []
        for name, (_, new) in self.layers.items():

            def hook(_: Any, __: Any, output: torch.Tensor, name: str = name) -> None:
                if kept[name]:
                    self.change[name].add(output, kept[name].pop(0))

            handles.append(new.register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def conversion_of(before: torch.nn.Module, after: torch.nn.Module, batches: Any = None) -> Conversion:
    """Measure what converting a model changed, layer by layer; both models run in evaluation, without gradients.

    For each converted norm: the relative rms difference of its output, sqrt(sum |after - before|^2 / sum |before|^2)
    over all batches, once with the same input of the model, and once with the same input of the layer. NaN where an
    output is, infinite where only the difference is not 0. Of each batch the outputs of all converted norms are kept
    in memory until the converted model has run on it.

    Args:
        before: the model as it was. after: what `convert` made of it.
        batches: as of `normcheck.nn.convert_calls.calls_of`; None to say what was converted without running it. Pairs
            of inputs and classes also give the accuracy, by the largest of the first output along dimension 1.

    Returns:
        The layers, the most changed first, the change of the model's output, the accuracy, and the norms of the same
        kind that were left as they are, with reasons.

    Raises:
        UsageError: models with no converted norm between them, or that do not take the batches.
    """
    layers = _replaced(before, after)
    if not layers:
        raise UsageError("no norm of the second model takes the place of one of the first: is it a converted copy?")
    changes = _Changes(layers)
    if batches is not None:
        with evaluating(before, after):
            for call in calls_of(batches)():
                changes.add(before, after, call)
    told = [_told(name, old, new, changes) for name, (old, new) in layers.items()]
    return Conversion(
        layers=tuple(sorted(told, key=_amount, reverse=True)),
        skipped=_skipped(before, layers),
        samples=changes.samples,
        change=changes.output.value,
        accuracy=_accuracy(changes),
    )


def tensors_in(output: Any) -> list[torch.Tensor]:
    """Return the tensors of a model's output, in order, whatever lists and mappings they are in."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in tensors_in(value)]
    if isinstance(output, tuple | list):
        return [tensor for value in output for tensor in tensors_in(value)]
    return []


def _replaced(before: torch.nn.Module, after: torch.nn.Module) -> Modules:
    old, new = modules_by_name(before), modules_by_name(after)
    if len(old) == len(new) == 1:  # the model itself may be the norm, and is named for its class
        new = dict(zip(old, new.values(), strict=True))
    pairs = {name: (module, new[name]) for name, module in old.items() if name in new}
    return {name: (a, b) for name, (a, b) in pairs.items() if isinstance(b, ChosenNorm) and _differs(a, b)}


def _skipped(before: torch.nn.Module, layers: Modules) -> tuple[Skipped, ...]:
    """The norms of the kinds that were converted which were not, by the settings that the converted ones have."""
    new = next(iter(layers.values()))[1]
    where = tuple(dict.fromkeys(where_of(norm.norm) for _, norm in layers.values()))
    plan = planned(before, Settings(statistic=new.statistic, constant=new.constant, k=new.k, where=where))
    left = tuple(Skipped(name=name, reason="it was not asked for") for name in plan.chosen if name not in layers)
    return (*plan.skipped, *left)


def _differs(old: torch.nn.Module, new: ChosenNorm) -> bool:
    if not isinstance(old, ChosenNorm):
        return True
    return (old.norm, old.constant, old.k, old.eps) != (new.norm, new.constant, new.k, new.eps)


def _told(name: str, old: torch.nn.Module, new: ChosenNorm, changes: _Changes) -> ConvertedLayer:
    return ConvertedLayer(
        layer=name,
        before=norm_of(old).name,
        after=new.norm.name,
        eps_before=eps_of(old),
        eps=eps_of(new),
        constant=None if new.statistic == "l2" else new.constant,
        k=new.k if new.statistic == "topk" else None,
        change=changes.change[name].value,
        own_change=changes.own[name].value,
    )


def _amount(layer: ConvertedLayer) -> float:
    """What layers are sorted by: NaN is worst, no figure is best; the order of the model breaks ties."""
    if layer.change is None:
        return -1.0
    return math.inf if math.isnan(layer.change) else layer.change


def _right(output: Any, classes: torch.Tensor) -> int:
    logits = next((t for t in tensors_in(output) if t.is_floating_point()), None)
    if logits is None or logits.ndim != 2 or len(logits) != len(classes):
        shape = None if logits is None else list(logits.shape)
        raise UsageError(
            f"accuracy needs an output of shape [{len(classes)}, classes] for {len(classes)} classes, received {shape}"
        )
    return int((logits.argmax(1).cpu() == classes.cpu()).sum())


def _accuracy(changes: _Changes) -> Accuracy | None:
    if not changes.classified:
        return None
    return Accuracy(before=changes.right[0], after=changes.right[1], of=changes.classified)
