"""Runs of experiment (b) by cell: what each map shows, where its borders are, and where the simulator was wrong."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from normcheck.paper.training import CHANCE
from normcheck.results.experiment import Cell, HeatMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from normcheck.paper.half_precision_net import Outcome, Run, Way

FAILS = 2 * CHANCE
"""A net that classifies fewer of the held-out images right has learned nothing."""

TRAINS = 0.8
"""One that classifies so many right has learned; float32 reaches about 0.9. In between it is degraded."""

State = Literal["trains", "degraded", "fails"]


@dataclass(frozen=True, slots=True)
class Place:
    """All seeds of one way at one element count and scale."""

    way: Way
    n: int
    scale: float
    outcomes: tuple[Outcome, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The accuracy of each seed."""
        return tuple(outcome.accuracy for outcome in self.outcomes)

    @property
    def fails(self) -> bool:
        """Whether most seeds learn nothing."""
        return _most(value < FAILS for value in self.values)

    @property
    def predicted(self) -> bool:
        """Whether the simulator says so of most of them."""
        return _most(_predicted(outcome) for outcome in self.outcomes)

    @property
    def state(self) -> State:
        """What becomes of most seeds that there are; degraded where neither of the others is."""
        if self.fails:
            return "fails"
        return "trains" if all(value >= TRAINS for value in self.values) else "degraded"

    @property
    def step(self) -> str | None:
        """The step that the simulator names for most of the seeds for which it names one."""
        named = Counter(o.prediction.step for o in self.outcomes if o.prediction is not None and o.prediction.step)
        return named.most_common(1)[0][0] if named else None

    def cell(self) -> Cell:
        """Return the cell of a map."""
        return Cell(
            x=float(self.n),
            y=self.scale,
            values=self.values,
            fails=self.fails,
            step=self.step,
            predicted=self.predicted,
            agrees=self.fails == self.predicted,
        )


def _most(found: Iterable[bool]) -> bool:
    every = list(found)
    return 2 * sum(every) > len(every)


def _predicted(outcome: Outcome) -> bool:
    return outcome.prediction is not None and outcome.prediction.fails


def places(outcomes: Mapping[Run, Outcome], *, small: bool = False) -> dict[Way, list[Place]]:
    """Return the runs that have a scale of their own by way, then by element count and scale in rising order.

    small: those with torch's initial filters, instead of those with He's.
    """
    grouped: dict[tuple[Way, int, float], list[Outcome]] = defaultdict(list)
    for run, outcome in outcomes.items():
        if run.scale is not None and run.small == small:
            grouped[run.way, run.size.n, run.scale].append(outcome)
    found: dict[Way, list[Place]] = defaultdict(list)
    for (way, n, scale), several in sorted(grouped.items(), key=lambda item: item[0][1:]):
        found[way].append(Place(way, n, scale, tuple(several)))
    return dict(found)


def heat_map(way: Way, found: Sequence[Place]) -> HeatMap:
    """Return the map of one way."""
    return HeatMap(
        name=f"map-{way.name.replace(', ', '-').lower()}",
        title=f"{way.name}, in float16",
        x_label="elements of a group, n",
        y_label="deviation of the norm's input",
        value_label="accuracy on held-out digits",
        cells=tuple(place.cell() for place in found),
    )


def borders(found: Sequence[Place]) -> dict[str, dict[str, Any]]:
    """Return for each n the largest scale up to which all trains, the least that fails, and what lies between."""
    out = {}
    for n, row in itertools.groupby(found, key=lambda place: place.n):
        every = list(row)
        trains = list(itertools.takewhile(lambda place: place.state == "trains", every))
        failing = [place for place in every if place.state == "fails"]
        out[str(n)] = {
            "trains_to": trains[-1].scale if trains else None,
            "fails_from": failing[0].scale if failing else None,
            "step": failing[0].step if failing else None,
            "degraded": [place.scale for place in every if place.state == "degraded"],
        }
    return out


def at_borders(found: Sequence[Place]) -> list[Place]:
    """Return the cells beside a border: of two neighbouring scales with the same n, one fails and the other does not.

    Far from a border a prediction is easy.
    """
    out: list[Place] = []
    for one, other in itertools.pairwise(found):
        if one.n == other.n and one.fails != other.fails:
            out += [place for place in (one, other) if place not in out]
    return out


def broken_running(found: Sequence[Place]) -> dict[str, list[float]]:
    """Return for each n the scales at which a seed that learned fails with its running statistics."""
    out: dict[str, list[float]] = {}
    for place in found:
        if any(o.accuracy >= TRAINS and o.running < FAILS for o in place.outcomes):
            out.setdefault(str(place.n), []).append(place.scale)
    return out


def disagreements(found: Sequence[Place]) -> list[dict[str, Any]]:
    """Return the cells in which the simulator is wrong, each with what was measured of the seeds that it misjudges."""
    return [
        {
            "way": place.way.name,
            "n": place.n,
            "scale": place.scale,
            "predicted": "fails" if place.predicted else "learns",
            "values": list(place.values),
            "reasons": [_reason(o) for o in place.outcomes if (o.accuracy < FAILS) != _predicted(o)],
        }
        for place in found
        if place.fails != place.predicted
    ]


def _reason(outcome: Outcome) -> str:
    """Say why a prediction from the first batch did not come true, as far as it was measured."""
    prediction = outcome.prediction
    if prediction is None:
        return "nothing was predicted"
    if prediction.fails:
        return f"{prediction.bad} of {prediction.channels} channels bad on the first batch, at {prediction.step}"
    bits = prediction.headroom_bits
    room = "no bound" if bits is None else f"{bits:.2f} bits at {prediction.headroom_step}"
    return (
        f"{prediction.bad} of {prediction.channels} channels bad on the first batch, headroom {room}; until step "
        f"{outcome.stopped} the largest pre-activation grew by {outcome.growth_bits or 0:.2f} bits, and the first step "
        f"to overflow was {outcome.overflowed}"
    )
