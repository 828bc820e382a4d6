"""What to change, tried before it is said: parameters in float32, or a norm that squares nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from normcheck.analysis.assemble import assemble
from normcheck.analysis.plans import Premise, plans_of
from normcheck.analysis.rule import KEEP_PARAMETERS, absolute_norm
from normcheck.arithmetic.formats import format_named
from normcheck.norms.aliases import Alias
from normcheck.norms.catalogue import implementation_named
from normcheck.norms.table import norm_named
from normcheck.results import Advice, Finding, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.models import Found
    from normcheck.layers.layer import Layer
    from normcheck.norms.implementations import Implementation

_WIDE = "wide"


@dataclass(frozen=True, slots=True)
class Checked:
    """A layer of a model, with all its results and findings; `ignored`: how many more were deselected."""

    model: Found
    layer: Layer
    results: list[Result]
    findings: list[Finding]
    ignored: int = 0

    @property
    def own_name(self) -> str:
        """The layer's name within its model."""
        return self.layer.name.removeprefix(self.model.prefix)


def advice_of(checked: Sequence[Checked], premise: Premise) -> list[Advice]:
    """Return what would mend the layers of one model that failed, each remedy tried on each of them."""
    return [advice for part in (_parameters, _statistics) for advice in [part(checked, premise)] if advice]


def _parameters(checked: Sequence[Checked], premise: Premise) -> Advice | None:
    """Parameters in float32, for layers whose own format breaks them and that this helps."""
    broken = [(item, wrong) for item in checked if (wrong := _broken_by_parameters(item))]
    changed = replace(premise, params="autocast")
    helped = [item for item, wrong in broken if all(_is_mended(item.layer, result, changed) for result in wrong)]
    if not helped:
        return None
    return Advice(
        title="keep the parameters and running statistics of these layers in float32",
        layers=tuple(item.layer.name for item in helped),
        snippet=_COPY + _listed([item.own_name for item in helped]) + _KEEP,
        evidence=(
            f"tried with --params autocast: it helps {_share(len(helped), len(broken))} that parameters break, "
            "where no row is lost but to infinite input"
        ),
    )


_COPY = "import copy\n\n"
_KEEP = """\
norms = {name: model.get_submodule(name) for name in layers}
kept = {name: copy.deepcopy(norms[name].state_dict()) for name in layers}
model.half()  # or .bfloat16(): whatever casts the model
for name, norm in norms.items():  # if hand-written, it must cast its output
    norm.float().load_state_dict(kept[name])
"""


def _broken_by_parameters(item: Checked) -> list[Result]:
    fixes = {(f.precision, f.implementation, f.mode) for f in item.findings if f.fix == KEEP_PARAMETERS}
    return [r for r in item.results if r.asked and r.rows.bad and (r.precision, r.implementation, r.mode) in fixes]


def _is_mended(layer: Layer, result: Result, premise: Premise) -> bool:
    again = _run(layer, replace(premise, mode=result.mode), result.norm, result.precision, result.implementation)
    return bool(again) and all(r.rows.bad == r.rows.infinite_input for r in again)


def _statistics(checked: Sequence[Checked], premise: Premise) -> Advice | None:
    """Statistics in float32, or L1 by means of means, for layers that fail where the io format computes them."""
    failed = [(item, wrong) for item in checked if (wrong := _failing_in_pure(item))]
    if not failed:
        return None
    safe_wide = [item for item, wrong in failed if all(_is_safe_in_wide(item, result) for result in wrong)]
    absolute = [item for item, wrong in failed if all(_is_safe_in_l1(item.layer, result, premise) for result in wrong)]
    kernels = sorted({result.implementation for _, wrong in failed for result in wrong})
    both_modes = any(result.mode == "eval" for item, _ in failed for result in item.results)
    return Advice(
        title=f"where norms are computed as in `{'`, `'.join(kernels)}`, keep these layers in float32",
        layers=tuple(item.layer.name for item, _ in failed),
        snippet=_listed([item.own_name for item, _ in failed]),
        evidence=(
            f"tried{' in train mode' if both_modes else ''}: `wide` is safe in {_share(len(safe_wide), len(failed))}; "
            f"the L1 statistic in its place, under `pure-scaled`, in {_share(len(absolute), len(failed))}"
        ),
        asked=any(result.asked for _, wrong in failed for result in wrong),
    )


def _failing_in_pure(item: Checked) -> list[Result]:
    return [
        r
        for r in item.results
        if r.implementation != _WIDE and r.mode == "train" and _fails(r) and r.norm == item.layer.norm.name
    ]


def _fails(result: Result) -> bool:
    """Whether the forward pass is unsafe: what is wrong with gradients alone, a loss scale mends or nothing here."""
    return result.verdict == "unsafe" and bool(result.rows.bad or result.overflow.count)


def _is_safe_in_wide(item: Checked, failed: Result) -> bool:
    same = [
        r
        for r in item.results
        if (r.norm, r.precision, r.mode) == (failed.norm, failed.precision, failed.mode) and r.implementation == _WIDE
    ]
    return bool(same) and not any(map(_fails, same))


def _is_safe_in_l1(layer: Layer, failed: Result, premise: Premise) -> bool:
    if layer.norm.is_weight:
        return False
    name = absolute_norm(failed.norm)
    asked = replace(premise, norms=(norm_named(name),), mode=failed.mode)
    again = _run(layer, asked, name, failed.precision, "pure-scaled")
    return bool(again) and all(r.verdict != "unsafe" for r in again)


def _run(layer: Layer, premise: Premise, norm: str, precision: str, implementation: str) -> list[Result]:
    """Run a layer once more, in one precision under one implementation."""
    row = _row(premise, implementation)
    narrowed = replace(premise, precisions=(format_named(precision),), implementations=(row,))
    plans = [plan for plan in plans_of(layer, narrowed) if plan.study.norm.name == norm]
    runs = [assemble(plan.study, plan.labels, premise.rounding, jobs=1, search=False) for plan in plans]
    return [outcome.result for run in runs for outcome in run]


def _row(premise: Premise, name: str) -> Implementation:
    """Return the row of a result: one of the user's own, which no table holds, or the catalogue's."""
    own = (row for row in premise.implementations if not isinstance(row, Alias) and row.name == name)
    return next(own, None) or implementation_named(name)


def _share(count: int, of: int) -> str:
    return f"{count} of {of} {'layer' if of == 1 else 'layers'}"


def _listed(names: Sequence[str]) -> str:
    """The names as a list in Python, one a line."""
    return "layers = [\n" + "".join(f"    {name!r},\n" for name in names) + "]\n"
