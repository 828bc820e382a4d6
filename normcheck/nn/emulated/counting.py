"""Running totals of events by layer and step, over as many calls as there were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.totals import StepTotal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normcheck.arithmetic.emulated import StepRecord
    from normcheck.results import Step


class Counter:
    """Events of every layer's steps since the last reset."""

    def __init__(self) -> None:
        self._totals: dict[str, dict[str, StepTotal]] = {}

    def add(self, layer: str, records: Iterable[dict[str, StepRecord]]) -> None:
        """Add the records of a call."""
        totals = self._totals.setdefault(layer, {})
        for steps in records:
            for name, record in steps.items():
                total = totals.get(name)
                if total is None:
                    total = totals[name] = StepTotal(record.form, record.degree)
                total.add(record, float(record.events.extremes[0]))

    def events(self) -> dict[str, dict[str, Step]]:
        """All totals as steps of a report; `max_abs` and the others are the largest of any call."""
        return {
            layer: {name: total.step(name) for name, total in totals.items()} for layer, totals in self._totals.items()
        }

    def reset(self) -> None:
        """Begin anew."""
        self._totals.clear()
