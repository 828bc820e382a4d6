"""A report on the norms of one training step, from its real inputs and gradients."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.analysis.assemble import Labels, assemble
from normcheck.analysis.backward import Incoming
from normcheck.analysis.parameter_facts import parameter_facts
from normcheck.analysis.reporting import report_of
from normcheck.analysis.rules import layer_findings
from normcheck.results import Finding, LayerFacts, Report, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from normcheck.analysis.study import Study
    from normcheck.nn.emulated.calls import Call
    from normcheck.norms.parameters import Parameters
    from normcheck.norms.table import Grouping

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Unscaled:
    """A gradient (groups, size) as it arrived, divided by the loss scale that it arrived under, in float64."""

    rows: Array
    loss_scale: float

    def draw(self, grouping: Grouping, row_start: int, row_stop: int, start: int, stop: int) -> Array:  # noqa: ARG002
        """A rectangle of the rows; under no loss scale as it is."""
        part: Array = self.rows[row_start:row_stop, start:stop]
        return part if self.loss_scale == 1 else part.astype(np.float64) / self.loss_scale


@dataclass(slots=True, eq=False)
class _Seen:
    """A call of the step, the parameters as the optimizer has them, and the gradient, once it has arrived."""

    call: Call
    given: Parameters
    gradient: Array | None = None


class Recorder:
    """Keeps what the norms of one step saw, and makes a report of it when the last gradient has arrived.

    masters: parameters as the optimizer has them, by name, where the norms are given rounded copies.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        masters: Mapping[str, torch.Tensor],
        jobs: int,
        deliver: Callable[[int, Report], None],
    ) -> None:
        self.settings, self.masters, self.jobs, self.deliver = settings, masters, jobs, deliver
        self.seen: list[_Seen] = []
        self.waiting = 0
        self.is_done = False

    def take(self, call: Call) -> None:
        """Take note of a call."""
        self.seen.append(_Seen(call, call.site.masters(call.study.parameters, self.masters)))
        self.waiting += call.hold

    def take_gradient(self, call: Call, rows: Array) -> None:
        """Take note of the gradient of a call's output; with the last one, make the report."""
        if self.is_done:
            return
        for seen in self.seen:
            if seen.call is call and seen.gradient is None:
                seen.gradient = rows
                self.waiting -= 1
        if self.waiting == 0:
            self.finish()

    def finish(self) -> None:
        """Make the report with the gradients that have arrived, unless that is done."""
        if self.is_done or not self.seen:
            return
        self.is_done = True
        seen, self.seen = self.seen, []
        self.deliver(self.settings["step"], self._report(seen))

    def _report(self, seen: list[_Seen]) -> Report:
        results: list[Result] = []
        findings: list[Finding] = []
        facts: dict[str, LayerFacts] = {}
        times: Tally[str] = Tally()
        for one in seen:
            name = one.call.site.name
            times[name] += 1
            facts.setdefault(name, _facts(one.call, self.settings["module"]))
            label = name if times[name] == 1 else f"{name} (call {times[name]})"
            study = replace(one.call.study, parameters=one.given)
            (outcome,) = assemble(
                study,
                self._labels(one, label),
                study.runners[0].machine.rounding,
                jobs=self.jobs,
                incoming=self._incoming(one),
            )
            results.append(outcome.result)
            findings += outcome.findings
        findings += [finding for fact in facts.values() for finding in layer_findings(fact)]
        return report_of(
            "analyze",
            self.settings,
            self.jobs or None,
            results=results,
            findings=findings,
            skipped=(),
            layers=list(facts.values()),
        )

    def _incoming(self, one: _Seen) -> Incoming | None:
        scale = float(self.settings["loss_scale"])
        label = f"step {self.settings['step']} of training"
        return None if one.gradient is None else Incoming(Unscaled(one.gradient, scale), label, scale)

    def _labels(self, one: _Seen, label: str) -> Labels:
        site, study = one.call.site, one.call.study
        has_constant = study.norm.has_constant
        return Labels(
            layer=label,
            precision=study.io.label,
            mode="eval" if study.has_fixed_statistics else "train",
            params="stored" if self.settings["weights"] is None else "half",
            constant=site.constant(self.settings["constant"]) if has_constant else None,
            k=study.k if study.norm.statistic.name == "topk" else None,
            eps_source="module",
            source=f"step {self.settings['step']} of training",
            assumed=False,
            parameters=_parameter_facts(study, one.given),
        )


def _parameter_facts(study: Study, given: Parameters) -> Any:
    return parameter_facts(
        study.norm,
        given,
        study.stored,
        eps=study.eps,
        weight_offset=study.weight_offset,
        momentum=study.momentum,
    )


def _facts(call: Call, file: str) -> LayerFacts:
    site, study = call.site, call.study
    form = study.parameters.form
    return LayerFacts(
        name=site.name,
        file=file,
        norm=site.norm.name,
        aliases=(),
        how=site.found.stated.how,
        sure=True,
        might_be=(),
        channels=study.grouping.channels,
        num_groups=site.found.stated.num_groups,
        eps=study.eps,
        eps_source="module",
        stored=None if form is None else form.name,
        assumed=(),
        size=study.grouping.size,
    )
