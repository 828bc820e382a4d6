"""One call of a norm in emulated arithmetic: torch's tensors in and out, the engine in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from normcheck.analysis.emulate import arranged
from normcheck.arithmetic.elementwise import mix
from normcheck.arithmetic.formats import FLOAT32, holds
from normcheck.arithmetic.values import PART
from normcheck.errors import UsageError
from normcheck.layers.sources import Given
from normcheck.nn.emulated.functions import EmulatedNorm
from normcheck.nn.emulated.passes import run_backward, run_forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.study import Study
    from normcheck.nn.emulated.counting import Counter
    from normcheck.nn.emulated.passes import Held
    from normcheck.nn.emulated.reporting import Recorder
    from normcheck.nn.emulated.sites import Setting, Site

Array = np.ndarray[Any, np.dtype[Any]]


def check_input(x: torch.Tensor, setting: Setting, name: str) -> None:
    """Refuse types that cannot carry the emulation.

    Raises:
        UsageError: neither float32 nor float64, or float32 for a precision beyond it.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise UsageError(
            f"layer {name}: received a {str(x.dtype).removeprefix('torch.')} input; run the module in float32, "
            "without autocast: the precision is what EmulatedPrecision emulates"
        )
    if x.dtype == torch.float32 and not holds(FLOAT32, setting.io):
        raise UsageError(
            f"layer {name}: precision {setting.io.label} does not fit into the float32 input; run the module in "
            "float64 (module.double())"
        )


class Call:
    """A call of a norm on one input."""

    def __init__(self, site: Site, study: Study, jobs: int, counter: Counter, *, hold: bool) -> None:
        self.site, self.study, self.jobs, self.counter = site, study, jobs, counter
        self.hold = hold
        self.held: Sequence[Held] = ()
        self.recorder: Recorder | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output, and update running statistics."""
        done = run_forward(self.study, self.jobs, hold=self.hold)
        self.held = done.held
        self.counter.add(self.site.name, done.records)
        for role, values in (("running_mean", done.running_mean), ("running_var", done.running_statistic)):
            target = self.site.parameter(role)
            if values is not None and target is not None:
                target.copy_(torch.from_numpy(self._averaged(values, target.numel())).reshape(target.shape))
        return self._tensor(done.out, x)

    def backward(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients of x, weight and bias."""
        rows = Given.of(_array(gradient), self.study.grouping).rows
        done = run_backward(self.study, self.held, rows, self.jobs)
        self.counter.add(self.site.name, done.records)
        weight, bias = (
            None if values is None or of is None else torch.from_numpy(values).to(of.device, of.dtype).reshape(of.shape)
            for values, of in zip((done.weight, done.bias), self._affine, strict=True)
        )
        if self.recorder is not None:
            self.recorder.take_gradient(self, rows)
        return self._tensor(done.x, gradient), weight, bias

    @property
    def _affine(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return self.site.parameter("weight"), self.site.parameter("bias")

    def _averaged(self, values: Array, channels: int) -> Array:
        """One number a channel: of instance norms the mean over the samples, as torch keeps it."""
        return values if len(values) == channels else values.reshape(-1, channels).mean(axis=0)

    def _tensor(self, rows: Array, like: torch.Tensor) -> torch.Tensor:
        out = arranged(rows, self.study.grouping, tuple(like.shape))
        return torch.from_numpy(out).to(like.device, like.dtype)


def _array(x: torch.Tensor) -> Array:
    values: Array = x.detach().cpu().contiguous().numpy()
    return values


class Caller:
    """Runs the norms of a module while one forward of it lasts."""

    def __init__(
        self, setting: Setting, counter: Counter, jobs: int, stream: tuple[int, ...], recorder: Recorder | None
    ) -> None:
        self.setting, self.counter, self.jobs, self.stream, self.recorder = setting, counter, jobs, stream, recorder
        self.calls = 0

    def run(self, site: Site, x: torch.Tensor) -> torch.Tensor:
        """Return what the norm makes of `x`.

        Raises:
            UsageError: an input that does not fit; the message names the layer.
        """
        check_input(x, self.setting, site.name)
        if x.numel() == 0:
            return torch.empty_like(x)
        try:
            values = site.arranged(x)
            rounding = self.setting.rounding
            if rounding.mode == "stochastic":
                rounding = type(rounding)(rounding.mode, rounding.overflow, seed=self._seed(site))
            weight, bias = site.parameter("weight"), site.parameter("bias")
            learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
            array = _array(values)
            if self.recorder is not None or (learns and array.size > PART):  # read again later, whatever becomes of x
                array = array.copy()
            study = site.study(array, self.setting, rounding)
        except UsageError as error:
            raise UsageError(f"layer {site.name}: {error}") from None
        self._count(site)
        call = Call(site, study, self.jobs, self.counter, hold=learns)
        if self.recorder is not None:
            self.recorder.take(call)
            call.recorder = self.recorder
        y: torch.Tensor = EmulatedNorm.apply(values, weight, bias, call)  # type: ignore[no-untyped-call]
        return site.restored(y, x)

    def _count(self, site: Site) -> None:
        count = getattr(site.found.module, "num_batches_tracked", None)
        if site.updates and site.norm.where == "batch" and count is not None:  # torch's instance norms count nothing
            count.add_(1)

    def _seed(self, site: Site) -> int:
        """A stream of its own for each step, layer and call in it."""
        self.calls += 1
        return int(mix(self.setting.rounding.seed, *self.stream, site.place, self.calls))
