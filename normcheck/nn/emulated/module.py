"""`EmulatedPrecision`: a module whose norms, and on request all else, compute in the engine's arithmetic."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch.func import functional_call

from normcheck.arithmetic.formats import FLOAT32, Format, format_named
from normcheck.arithmetic.rounding import Mode, Rounding, general_constants
from normcheck.errors import UsageError
from normcheck.layers.live.modules import check_module
from normcheck.nn.emulated.calls import Caller
from normcheck.nn.emulated.counting import Counter
from normcheck.nn.emulated.functions import mapped, through
from normcheck.nn.emulated.reporting import Recorder
from normcheck.nn.emulated.rounded import Rounder, leaves_of
from normcheck.nn.emulated.sites import Choice, Setting, Site, sites_of
from normcheck.norms.constants import Kind
from normcheck.norms.implementations import Implementation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from normcheck.results import Report, Step

Weights = Literal["master", "low"]
REPORTS_KEPT = 16
"""Of the reports of a run, the latest so many are kept."""


class EmulatedPrecision(torch.nn.Module):
    """A module whose norms compute forward and backward in low precision, as a kernel would that is named.

    Inside, every norm (torch's, those of `normcheck.nn`, and hand-written ones that `normcheck.analyze` recognises)
    runs in the arithmetic of `normcheck.emulate`, and its gradients in that of ``simulate --backward``: each step in
    the format and each sum in the order of the implementation, one rounding an operation. Everything else stays what
    it is, unless asked for. Formulas: docs/numerics.md; Hoffer et al., "Norm matters" (arXiv 1803.01814).

    The wrapped module is ``.module``, unchanged: its parameters, class and state dict are its own, and the state dict
    of the whole has its keys with the prefix ``module.``. Training loops stay as they are.

    Args:
        module: in float32, or float64 for precisions that float32 does not hold; on the CPU, else inputs of the norms
            are copied there and back.
        implementation: of the norms: a name, an `Implementation`, or a mapping from patterns of layer names, or names
            of norms, to one of these; of several keys that fit a layer the first decides; None leaves it as it is.
        precision: name or `Format` of the elements.
        loss_scale: what the gradients inside are multiplied by. Gradients of parameters and inputs come out divided by
            it again, exactly for a power of two unless they overflowed.
        rounding, seed: of all that is emulated; each step, layer and call has random bits of its own, and the same
            seed gives the same bits, whatever `jobs`.
        constant: of statistics other than l2 whose modules do not say theirs.
        activations: also round the outputs of all modules without submodules, and the gradients that arrive there.
        weights: None for parameters as they are; ``"master"`` to compute with copies rounded to the precision while
            the optimizer keeps the originals; ``"low"`` to round the parameters themselves whenever the module is
            called. Gradients of parameters are rounded with both, and norms keep running statistics in the precision.
        report_every: make a report of every so many training steps, counted from the first; a step is a call in
            training mode with gradients enabled. on_report: called with the number of the step and the report.
        jobs: threads for large layers; all processors unless given.

    Attributes:
        module: the wrapped module.
        reports: the latest reports, oldest first, at most 16.

    NaN, infinities, -0 and subnormals behave as the formats say. There is no second derivative of a norm, and no
    torch.compile. One thread at a time may call it.

    Raises:
        UsageError: a setting that cannot be, a module without norms where nothing else is emulated; when run, inputs
            of another type or shape.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        implementation: str | Implementation | Mapping[str, Choice] = "wide",
        precision: str | Format = "fp16",
        *,
        loss_scale: float = 1.0,
        rounding: Mode = "nearest-even",
        seed: int = 0,
        constant: Kind = "exact",
        activations: bool = False,
        weights: Weights | None = None,
        report_every: int | None = None,
        on_report: Callable[[int, Report], None] | None = None,
        jobs: int | None = None,
    ) -> None:
        super().__init__()
        check_module(module)
        _refuse(module)
        io = precision if isinstance(precision, Format) else format_named(precision)
        rounds = Rounding(rounding, None, seed=seed)
        general_constants(io, rounds)  # refused here rather than in the first step
        _check(loss_scale, constant, weights, report_every, on_report, jobs)
        self.module = module
        self.implementation = implementation
        self.loss_scale, self.activations, self.weights = float(loss_scale), activations, weights
        self.report_every, self.on_report = report_every, on_report
        self.reports: list[Report] = []
        self._setting = Setting(io, rounds, constant, halved=weights is not None)
        self._jobs = jobs or os.cpu_count() or 1
        self._counter = Counter()
        self._steps = {True: 0, False: 0}
        self._recorder: Recorder | None = None
        self._known: tuple[int, ...] = ()
        self._sites: list[Site] = []
        if not self._norms() and not activations and weights is None:
            raise UsageError(f"{type(module).__name__} has no norms, and nothing else of it is to be emulated")

    @property
    def precision(self) -> str:
        """The name of the precision."""
        return self._setting.io.label

    @property
    def events(self) -> dict[str, dict[str, Step]]:
        """Events of every layer by step, summed over all calls since the last reset; extremes are of all calls.

        A step that both passes have is counted as one. Besides those of norms there are, where these are rounded,
        ``activation`` and ``activation-gradient``, and for each parameter such as weight ``parameter-weight`` and
        ``parameter-weight-gradient``.
        """
        return self._counter.events()

    def reset_events(self) -> None:
        """Begin counting anew."""
        self._counter.reset()

    @property
    def step(self) -> int:
        """How many training steps there were."""
        return self._steps[True]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapped module."""
        learning = self.training and torch.is_grad_enabled()
        self._steps[learning] += 1
        stream = (int(learning), self._steps[learning])
        rounder = Rounder(self._setting, self._counter, stream)
        recorder = self._begin_report() if learning else None
        caller = Caller(self._setting, self._counter, self._jobs, stream, recorder)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_without_fused_encoders())
            for site in self._norms():
                stack.enter_context(_as_forward(site.found.module, _norm_forward(caller, site)))
            if self.activations:
                for name, leaf in leaves_of(self.module, self._sites):
                    stack.enter_context(_as_forward(leaf, _rounded_forward(rounder, name, leaf.forward)))
            args, kwargs = mapped(self._leaving, (args, kwargs))
            swapped = self._parameters_inside(rounder)
            run = functional_call(self.module, swapped, args, kwargs) if swapped else self.module(*args, **kwargs)
        return mapped(self._entering, run)

    # ---------------------------------------------------------------------------------------------- gradients

    def _entering(self, y: torch.Tensor) -> torch.Tensor:
        """An output, whose gradient is multiplied by the loss scale."""
        if self.loss_scale == 1 or not y.requires_grad:
            return y
        return through(y, None, lambda gradient: gradient * self.loss_scale)

    def _leaving(self, x: torch.Tensor) -> torch.Tensor:
        """An input, whose gradient is divided by the loss scale."""
        if self.loss_scale == 1 or not x.requires_grad:
            return x
        return through(x, None, lambda gradient: gradient / self.loss_scale)

    def _parameters_inside(self, rounder: Rounder) -> dict[str, torch.Tensor]:
        """The parameters that the module computes with, by name; nothing where they are its own as they stand."""
        if self.weights is None and self.loss_scale == 1:
            return {}
        named = {name: p for name, p in self.module.named_parameters() if p.is_floating_point()}
        if self.weights == "low":
            with torch.no_grad():
                for name, parameter in named.items():
                    rounder.settle(name, parameter)
        return {name: self._inside(rounder, name, p) for name, p in named.items()}

    def _inside(self, rounder: Rounder, name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        def back(gradient: torch.Tensor) -> torch.Tensor:
            if self.weights is not None:
                gradient = rounder.parameter(name, gradient, "-gradient")
            return gradient if self.loss_scale == 1 else gradient / self.loss_scale

        there = (lambda p: rounder.parameter(name, p, "")) if self.weights == "master" else None
        return through(parameter, there, back)

    # ------------------------------------------------------------------------------------------------ reports

    def _begin_report(self) -> Recorder | None:
        """The recorder of this step, if there is to be a report of it; an unfinished one is finished first."""
        unfinished, self._recorder = self._recorder, None
        if unfinished is not None:
            unfinished.finish()
        if self.report_every is None or (self.step - 1) % self.report_every:
            return None
        masters = dict(self.module.named_parameters()) if self.weights == "master" else {}
        self._recorder = Recorder(self._settings(), masters, self._jobs, self._deliver)
        return self._recorder

    def _settings(self) -> dict[str, Any]:
        chosen, used = self.implementation, {site.implementation.name for site in self._sites}
        return {
            "models": [type(self.module).__name__],
            "module": type(self.module).__name__,
            "step": self.step,
            "implementation": chosen if isinstance(chosen, str) else sorted(used),
            "precision": self.precision,
            "loss_scale": self.loss_scale,
            "rounding": self._setting.rounding.mode,
            "seed": self._setting.rounding.seed,
            "constant": self._setting.constant,
            "activations": self.activations,
            "weights": self.weights,
        }

    def _deliver(self, step: int, report: Report) -> None:
        self.reports = [*self.reports, report][-REPORTS_KEPT:]
        if self.on_report is not None:
            self.on_report(step, report)

    # -------------------------------------------------------------------------------------------------- norms

    def _norms(self) -> list[Site]:
        """The norms of the module; found again where modules were put in or taken out."""
        present = tuple(map(id, self.module.modules()))
        if present != self._known:
            io, param = self._setting.io, self._setting.io if self._setting.halved else FLOAT32
            self._known, self._sites = present, sites_of(self.module, self.implementation, io, param)
        return self._sites

    def extra_repr(self) -> str:
        """Return the settings."""
        chosen = self.implementation
        name = chosen.name if isinstance(chosen, Implementation) else chosen
        return f"{name}, {self.precision}, loss_scale={self.loss_scale:g}, rounding={self._setting.rounding.mode}"


def _norm_forward(caller: Caller, site: Site) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return caller.run(site, x)

    return forward


def _rounded_forward(rounder: Rounder, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def rounded(*args: Any, **kwargs: Any) -> Any:
        return mapped(lambda y: rounder.activation(name, y), forward(*args, **kwargs))

    return rounded


@contextlib.contextmanager
def _as_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module run as another function does, without changing its class."""
    own = module.__dict__
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before


@contextlib.contextmanager
def _without_fused_encoders() -> Iterator[None]:
    """Have transformer encoders call their norms, which torch's fused form of them, in evaluation, does not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _refuse(module: torch.nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, EmulatedPrecision):
            raise UsageError(f"{name or 'the module'} is an EmulatedPrecision already: wrap its .module instead")
        if "_orig_mod" in child._modules:  # noqa: SLF001 - torch has no other word for it
            raise UsageError(
                f"{name or 'the module'} is compiled, and compiled norms are never called: wrap it as it was before "
                "torch.compile"
            )


def _check(
    loss_scale: float, constant: str, weights: str | None, report_every: int | None, on_report: Any, jobs: int | None
) -> None:
    if not (math.isfinite(loss_scale) and loss_scale > 0):
        raise UsageError(f"loss_scale must be finite and above 0, received {loss_scale!r}")
    if constant not in get_args(Kind):
        raise UsageError(f"constant must be exact or paper, received {constant!r}")
    if weights is not None and weights not in get_args(Weights):
        raise UsageError(f"weights must be None, 'master' or 'low', received {weights!r}")
    for name, value in (("report_every", report_every), ("jobs", jobs)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"{name} must be an integer of at least 1, received {value!r}")
    if on_report is not None and report_every is None:
        raise UsageError("on_report is called every report_every steps: give report_every too")
