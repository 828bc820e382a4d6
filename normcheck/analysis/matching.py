"""Which places and which findings of two reports are the same."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from normcheck.results import Finding, Report, Result

Place = tuple[str | None, ...]
"""Layer, norm, precision, implementation, mode and params; of a finding some may be None: it holds whatever they are.

Params come last: what else is the same and differs in them alone is the same place, its parameters stored otherwise.
"""

Pair = tuple["Finding | None", "Finding"]
"""A finding of the new report after its counterpart in the old one."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of two reports: its results and findings by place, and the layers that it is about.

    Findings are kept by place and rule, in their order.
    """

    results: dict[Place, Result]
    findings: dict[tuple[Place, str], list[Finding]]
    layers: frozenset[str | None]

    def analysed(self, place: Place) -> bool:
        """Whether something at that place would have been found; what is about a skipped tensor has no norm."""
        layer, norm, *kernel = place
        return place in self.results or not norm or (None in kernel and layer in self.layers)


def side_of(report: Report, renamed: Mapping[Place, Place] | None = None) -> Side:
    """Return a report by places, some of which are called otherwise."""
    names = renamed or {}
    params = {_place(result)[:-1]: result.params for result in report.results}
    findings: dict[tuple[Place, str], list[Finding]] = defaultdict(list)
    for finding in report.findings:
        place = _place(finding)
        if place[-1] is None:  # reports of old versions do not say it
            place = (*place[:-1], params.get(place[:-1]))
        findings[names.get(place, place), finding.rule].append(finding)
    layers = (*(printed(layer.name) for layer in report.layers), *(printed(r.layer) for r in report.results))
    results = {names.get(place, place): result for result in report.results for place in [_place(result)]}
    return Side(results, dict(findings), frozenset(layers))


def _place(item: Result | Finding) -> Place:
    return printed(item.layer), item.norm, item.precision, item.implementation, item.mode, item.params


def printed(name: str | None) -> str | None:
    """Return a name as a report's file has it: what is no Unicode is escaped there."""
    return name if name is None or name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def renamed_places(old: Iterable[Place], new: Iterable[Place]) -> dict[Place, Place]:
    """Return the old places that are in the new report but for their params, each with the new one.

    Only where there is no doubt: one such place on either side.
    """
    before, after = dict.fromkeys(old), dict.fromkeys(new)
    gone = _by_all_but_params(place for place in before if place not in after)
    come = _by_all_but_params(place for place in after if place not in before)
    return {gone[key][0]: come[key][0] for key in gone.keys() & come.keys() if len(gone[key]) == len(come[key]) == 1}


def _by_all_but_params(places: Iterable[Place]) -> dict[Place, list[Place]]:
    out: dict[Place, list[Place]] = defaultdict(list)
    for place in places:
        out[place[:-1]].append(place)
    return out


def matched(old: Iterable[Finding], new: Iterable[Finding]) -> tuple[list[Pair], list[Finding]]:
    """Return the new findings of one rule at one place with their counterparts, and the old ones that are no more.

    Counterparts are about the same figure at the same step, else about the same figure, else the next in order. A
    finding without a figure, as old versions wrote them, may be about any.
    """
    left, found = list(old), list(new)
    partners: dict[int, Finding] = {}
    for alike in (_same_step_and_figure, _same_step, _same_figure):
        for index, finding in enumerate(found):
            partner = next((other for other in left if alike(other, finding)), None) if index not in partners else None
            if partner is not None:
                left.remove(partner)
                partners[index] = partner
    return [(partners.get(index), finding) for index, finding in enumerate(found)], left


def _same_step_and_figure(old: Finding, new: Finding) -> bool:
    return old.step == new.step and _figure(old) == _figure(new)


def _same_step(old: Finding, new: Finding) -> bool:
    return old.step == new.step and _same_figure(old, new)


def _same_figure(old: Finding, new: Finding) -> bool:
    return None in (old.measure, new.measure) or _figure(old) == _figure(new)


def _figure(finding: Finding) -> str | None:
    return finding.measure.name if finding.measure else None
