"""Calls of a model on batches of data: what a loader yields, as arguments and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from normcheck.errors import UsageError

Calls = Callable[[], Iterable["Call"]]
"""What starts a pass over the same batches, as often as it is called."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One batch: the model's positional and keyword arguments, and the class of each sample where it is known."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    classes: torch.Tensor | None = None

    @property
    def samples(self) -> int:
        """The first dimension of the first tensor."""
        tensors = [x for x in (*self.args, *self.kwargs.values()) if isinstance(x, torch.Tensor) and x.ndim]
        return len(tensors[0]) if tensors else 0


def calls_of(batches: Any) -> Calls:
    """Return how often one likes the calls that batches stand for.

    A tensor or a mapping is one batch; anything else is iterated over, each time anew, as a loader is. A generator,
    which can be iterated over once only, is read into memory. Of a batch that is a tuple or list the first item is
    what the model is called with, as in `torch.optim.swa_utils.update_bn`; the second one, where it is a vector of
    integers, one a sample, is the classes. A mapping holds keyword arguments.

    Raises:
        UsageError: nothing that can be iterated over; when called, a batch that is none of these, or no batch at all.
    """
    if isinstance(batches, torch.Tensor | Mapping | Call):
        batches = [batches]
    if not isinstance(batches, Iterable):
        raise UsageError(f"batches: expected a tensor or a loader of batches, received {type(batches).__name__}")
    source = list(batches) if isinstance(batches, Iterator) else batches

    def calls() -> Iterator[Call]:
        empty = True
        for batch in source:
            empty = False
            yield _call(batch)
        if empty:
            raise UsageError("there is no batch to run the model on: is the loader empty?")

    return calls


def _call(batch: Any) -> Call:
    if isinstance(batch, Call):
        return batch
    if isinstance(batch, torch.Tensor):
        return Call((batch,))
    if isinstance(batch, Mapping):
        return Call((), dict(batch))
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], torch.Tensor | Mapping):
        call = _call(batch[0])
        classes = batch[1] if len(batch) > 1 else None
        return Call(call.args, call.kwargs, classes if _are_classes(classes, call.samples) else None)
    raise UsageError(
        f"a batch is a tensor, a mapping of keyword arguments, or a tuple that begins with one, "
        f"received {type(batch).__name__}"
    )


def _are_classes(value: Any, samples: int) -> bool:
    if not isinstance(value, torch.Tensor) or value.shape != (samples,):
        return False
    return not value.is_floating_point() and not value.is_complex()


def run(model: torch.nn.Module, call: Call) -> Any:
    """Call a model on the device of its parameters, without gradients.

    Raises:
        UsageError: it does not take that.
    """
    place = next((p.device for p in model.parameters()), torch.device("cpu"))
    args, kwargs = ((_moved(x, place) for x in call.args), {k: _moved(x, place) for k, x in call.kwargs.items()})
    try:
        with torch.no_grad():
            return model(*args, **kwargs)
    except UsageError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{type(model).__name__} does not take these inputs: {type(error).__name__}: {what}"
        ) from error


def _moved(value: Any, place: torch.device) -> Any:
    return value.to(place) if isinstance(value, torch.Tensor) else value


@contextmanager
def evaluating(*models: torch.nn.Module) -> Iterator[None]:
    """Put models into evaluation, and each of their modules back into what it was."""
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
