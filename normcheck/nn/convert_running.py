"""Running statistics of converted batch norms, measured on data: each norm behind those that are measured already."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from normcheck.errors import NormcheckError, UsageError
from normcheck.nn.batch import channel_rows, check_channels
from normcheck.nn.choice import refuse_one_element
from normcheck.nn.convert_calls import evaluating, run
from normcheck.nn.statistics import computing_type, normalized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from normcheck.nn.batch import BatchNorm
    from normcheck.nn.convert_calls import Call, Calls

    Tick = Callable[[float, str], None]
    Hook = Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any]], None]


class _StopError(BaseException):
    """Ends a run of the model: the layer that the pass is for was reached, or `error`. No model should catch it."""

    def __init__(self, error: UsageError | None = None) -> None:
        super().__init__()
        self.error = error


class _Average:
    """Mean and statistic of a norm's input, averaged over batches by their elements, in float64."""

    def __init__(self, name: str, norm: BatchNorm) -> None:
        self.name, self.norm = name, norm
        self.elements = 0
        self.mean = self.statistic = torch.zeros(norm.num_features, dtype=torch.float64)

    def add(self, x: torch.Tensor) -> None:
        try:
            mean, statistic, elements = _measured(self.norm, x)
        except NormcheckError as error:
            raise _StopError(UsageError(f"{self.name}: {error}")) from error
        self.elements += elements
        if elements:
            share = elements / self.elements
            self.mean = self.mean + (mean.double().cpu() - self.mean) * share
            self.statistic = self.statistic + (statistic.double().cpu() - self.statistic) * share

    def keep(self) -> None:
        """Write the averages into the norm; where nothing reached it, it keeps what it has."""
        if self.elements:
            with torch.no_grad():
                self.norm.get_buffer("running_mean").copy_(self.mean)
                self.norm.get_buffer(self.norm.running_key).copy_(self.statistic)


def recalibrate(
    model: torch.nn.Module, norms: Mapping[str, BatchNorm], calls: Calls, tick: Tick | None = None
) -> list[str]:
    """Measure the running mean and statistic of batch norms on data.

    The model runs in evaluation, so that each norm sees what it will see: predecessors that divide by their running
    statistics, which are measured before its own. One batch takes one run. Several take one pass over them for each
    norm, in the order in which the norms are reached; a pass ends where it is reached. The averages are over all
    batches, weighted by their elements, in float64; each batch's figures are in float32, or float64 for a model of
    it. A norm that is used more than once in a run gets the average of its uses.

    Args:
        model: the model, which has these norms.
        norms: batch norms with running statistics, by name.
        calls: the batches. tick: told how much is done, and which layer is next.

    Returns:
        The names of norms that no batch reached; they are as they were.

    Raises:
        UsageError: the model does not take a batch; a batch with one element a channel, or fewer than topk's k.
    """
    averages = {id(norm): _Average(name, norm) for name, norm in norms.items()}
    with evaluating(model):
        if len(list(islice(calls(), 2))) == 1:
            _at_once(model, averages, calls)
        else:
            _one_by_one(model, averages, calls, tick)
    return [average.name for average in averages.values() if not average.elements]


def _at_once(model: torch.nn.Module, averages: dict[int, _Average], calls: Calls) -> None:
    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        average = averages[id(module)]
        average.add(first(args, kwargs))
        average.keep()

    with _hooked(averages, hook):
        for call in calls():
            _run(model, call)


def _one_by_one(model: torch.nn.Module, averages: dict[int, _Average], calls: Calls, tick: Tick | None = None) -> None:
    uses = _uses(model, averages, calls)
    for done, key in enumerate(uses):
        average, left = averages[key], [0]
        if tick is not None:
            tick(done / len(uses), average.name)

        def hook(
            _: torch.nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            average: _Average = average,
            left: list[int] = left,
        ) -> None:
            average.add(first(args, kwargs))
            left[0] -= 1
            if left[0] <= 0:
                raise _StopError

        with _hooked({key: average}, hook):
            for call in calls():
                left[0] = uses[key]
                _run(model, call)
        average.keep()


def _run(model: torch.nn.Module, call: Call) -> None:
    try:
        run(model, call)
    except _StopError as stop:
        if stop.error is not None:
            raise stop.error from stop.__cause__


def _uses(model: torch.nn.Module, averages: dict[int, _Average], calls: Calls) -> Counter[int]:
    """Count how often one run reaches each norm, in the order in which it does."""
    uses: Counter[int] = Counter()

    def hook(module: torch.nn.Module, *_: Any) -> None:
        uses[id(module)] += 1

    with _hooked(averages, hook):
        run(model, next(iter(calls())))
    return uses


@contextmanager
def _hooked(averages: dict[int, _Average], hook: Hook) -> Iterator[None]:
    handles = [a.norm.register_forward_pre_hook(hook, with_kwargs=True) for a in averages.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the first argument of a call, whatever its name."""
    return args[0] if args else next(iter(kwargs.values()))


def _measured(norm: BatchNorm, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean and running statistic of each channel, and how many elements they are of."""
    check_channels(x, norm.num_features, norm.dimensions)
    rows = channel_rows(x)
    elements = rows[0] * rows[2]
    refuse_one_element(elements, x.shape, "value per channel")
    if not elements:
        empty = x.new_zeros(norm.num_features)
        return empty, empty, 0
    if norm.statistic == "l2":
        variance, mean = torch.var_mean(x.to(computing_type(x)).reshape(rows), (0, 2), correction=1)  # as torch's
        return mean, variance, elements
    _, mean, statistic = normalized(x, None, None, rows, **norm.settings())
    return mean.reshape(-1), statistic.reshape(-1), elements
