"""What the paper claims of weight decay and what replaces it, and how each claim stands by runs that were kept."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from normcheck.paper.seeds import difference, percent, standing_of_better, standing_of_equal
from normcheck.paper.weight_decay_task import (
    BLOWN_UP,
    EPOCHWISE,
    EPOCHWISE_HELD,
    FLOOR,
    OFF,
    ON,
    ROUNDING,
    SCHEDULED,
    STEPWISE,
    STEPWISE_HELD,
    UNDROPPED,
)
from normcheck.results.experiment import Claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from normcheck.paper.weight_decay_task import Settings, Trace
    from normcheck.results.experiment import Standing

ByForm = dict[str, list["Trace"]]
"""Runs by the name of their form, one a seed."""

FOLLOWS, STRAYS = 0.06, 0.5
"""Displacement errors up to which directions follow the run with weight decay, and from which they do not."""
RECOVERED = 0.75
"""Share of what weight decay gains in accuracy."""
EQUAL = 0.02
"""Accuracies closer than this count as equal; the paper's gap between weight decay on and off is 0.015."""

_POSTER = "VGG-11 on CIFAR-10: near 90.5 % with weight decay, {what}, near 89 % without (read off the poster's plot)"
_EQUATION = "eq. 4 of the poster, without a figure"


def claims_of_directions(found: ByForm, settings: Settings) -> tuple[Claim, ...]:
    """How near directions stay to those of the run with weight decay."""
    errors = {name: [trace.error for trace in each] for name, each in found.items()}
    floor = f"floor of chaos {_range(errors[FLOOR])} and {_range(errors[ROUNDING])} (start changed by 1e-12, 6e-8)"
    between = [a < b < c for a, b, c in zip(errors[STEPWISE], errors[EPOCHWISE], errors[OFF], strict=True)]
    return (
        Claim(
            claim="With the learning rate corrected at every step, weights turn as they do with weight decay.",
            published=_EQUATION,
            measured=f"displacement error {_range(errors[STEPWISE])}; {floor}",
            standing=_all(error <= FOLLOWS for error in errors[STEPWISE]),
            by=f"displacement error after {settings.epochs} epochs at most {FOLLOWS:g} with every seed",
            reason=(
                "what is left is the correction's own error, far above the floor: the decay within a step, and "
                "remembered gradients, which it scales by the norm of now (derived in docs/optim.md)"
            ),
        ),
        Claim(
            claim="Without weight decay and without correction they do not.",
            published=_EQUATION,
            measured=f"displacement error {_range(errors[OFF])}",
            standing=_all(error >= STRAYS for error in errors[OFF]),
            by=f"displacement error after {settings.epochs} epochs at least {STRAYS:g} with every seed",
        ),
        Claim(
            claim="Corrected once an epoch, as in the paper, they follow less closely than at every step.",
            published="the form of the paper's experiments; directions were not measured",
            measured=(
                f"displacement error {_range(errors[EPOCHWISE])}; norms held: {_range(errors[EPOCHWISE_HELD])}, at "
                f"every step {_range(errors[STEPWISE_HELD])}; norms set once an epoch: {_range(errors[SCHEDULED])}"
            ),
            standing=_all(between),
            by="with every seed above the error of every step and below that of no correction",
            reason="within an epoch the factor stays and the norms do not (derived)",
        ),
    )


def claim_of_stability(away: Mapping[float, ByForm], settings: Settings) -> Claim:
    """Whether the correction runs away, by learning rate; the other settings are the same."""
    rates = sorted(away)
    free, held = (STEPWISE, EPOCHWISE), (STEPWISE_HELD, EPOCHWISE_HELD)
    blown = {
        name: {rate: sum(trace.longer > BLOWN_UP for trace in away[rate][name]) for rate in rates}
        for name in (*free, *held)
    }
    seeds = len(away[rates[0]][ON])
    as_claimed = all(blown[name][rates[0]] == 0 and blown[name][rates[-1]] == seeds for name in free)
    return Claim(
        claim="The correction runs away where the learning rate is large, and does not if norms are held.",
        published=None,
        measured="; ".join(f"{name}: {_blown(blown[name], seeds)}" for name in blown),
        standing=_all([as_claimed, *(blown[name][rate] == 0 for name in held for rate in rates)]),
        by=(
            f"weight decay {settings.weight_decay:g}, {settings.epochs} epochs: a channel becomes {BLOWN_UP:g} times "
            f"as long with every seed at learning rate {rates[-1]:g}, with none at {rates[0]:g}, and with none at any "
            "learning rate where norms are held"
        ),
        reason="the factor grows with the norm and the norm with the factor (derived in docs/optim.md)",
    )


def _blown(counts: Mapping[float, int], seeds: int) -> str:
    found = [f"{count} of {seeds} at {rate:g}" for rate, count in counts.items() if count]
    return ", ".join(found) if found else "none"


def claims_of_accuracy(found: ByForm, right_labels: ByForm) -> tuple[Claim, ...]:
    """Whether weight decay gains accuracy, and what replaces it gains as much."""
    on, off = _accuracies(found, ON), _accuracies(found, OFF)
    gap = difference(on, off)
    first = Claim(
        claim="Weight decay before batch norm makes the net better.",
        published=_POSTER.format(what="corrected or scheduled"),
        measured=f"{percent(on)} with, {percent(off)} without; difference {gap.text('points', scale=100)}",
        standing=standing_of_better(gap, EQUAL),
        by="the 95 % interval of the difference over seeds lies above 0",
        reason=f"the settings were looked for, on other seeds{_of_right_labels(right_labels)}",
    )
    claims = {
        STEPWISE: "Without weight decay, correcting the learning rate at every step gains as much.",
        EPOCHWISE: "Correcting it once an epoch, as in the paper, gains as much.",
        EPOCHWISE_HELD: "Correcting it once an epoch with norms held gains as much.",
        STEPWISE_HELD: "Correcting it at every step with norms held gains as much.",
        SCHEDULED: "Setting the norms once an epoch to those of the run with weight decay gains as much.",
    }
    return first, *(_recovering(claim, name, found) for name, claim in claims.items())


def _of_right_labels(found: ByForm) -> str:
    """What weight decay gains where no label is wrong, as far as that was run."""
    if not found:
        return ""
    gap = difference(_accuracies(found, ON), _accuracies(found, OFF))
    return f"; where all labels are right, the difference is {gap.text('points', scale=100)}"


def _recovering(claim: str, name: str, found: ByForm) -> Claim:
    """Whether a form gains what weight decay gains."""
    on, off, ours = (_accuracies(found, each) for each in (ON, OFF, name))
    gained, gap, missing = difference(ours, off), difference(on, off), difference(ours, on)
    share = gained.mean / gap.mean if gap.mean > 0 else math.nan
    standing: Standing = "not comparable at this size"
    if gap.low > 0 and gained.low > 0 and share >= RECOVERED:
        standing = "reproduced"
    elif gap.low > 0 and share < RECOVERED and missing.high < 0:
        standing = "not reproduced"
    held = name in {STEPWISE_HELD, EPOCHWISE_HELD}
    return Claim(
        claim=claim,
        published=None if held else _POSTER.format(what="scheduled" if name == SCHEDULED else "corrected"),
        measured=f"{percent(ours)}, {share:.0%} of the gain; less weight decay's: {missing.text('points', scale=100)}",
        standing=standing,
        by=(
            f"the mean gain is at least {RECOVERED:.0%} of weight decay's, and the 95 % intervals of both gains over "
            "seeds lie above 0"
        ),
        reason="" if standing == "reproduced" else "not known",
    )


def claims_of_dropped_rate(found: ByForm) -> tuple[Claim, ...]:
    """What is claimed of a learning rate that drops, where that was run."""
    if not found:
        return ()
    on, off, ours, undropped = (_accuracies(found, each) for each in (ON, OFF, SCHEDULED, UNDROPPED))
    apart, gained = difference(ours, on), difference(ours, undropped)
    standing = standing_of_equal(apart, EQUAL)
    if standing == "reproduced":
        standing = standing_of_better(gained, EQUAL)
    guess = "a guess: remembered gradients are not rescaled where norms jump, and norms move within an epoch"
    return (
        Claim(
            claim="Norms that grow by the root of 10 replace both weight decay and a learning rate divided by 10.",
            published=_POSTER.format(what="scheduled"),
            measured=(
                f"{percent(ours)} against {percent(on)} with weight decay and the dropped learning rate, difference "
                f"{apart.text('points', scale=100)}; without weight decay {percent(off)}; with it and a learning rate "
                f"that is not dropped {percent(undropped)}, {gained.text('points', scale=100)} less"
            ),
            standing=standing,
            by=(
                f"the 95 % interval of the difference over seeds lies within +-{EQUAL:.0%}, and that of the gain over "
                "a learning rate that is not dropped above 0"
            ),
            reason="" if standing == "reproduced" else guess,
        ),
    )


def _accuracies(found: ByForm, name: str) -> list[float]:
    return [trace.accuracy for trace in found[name]]


def _range(values: Sequence[float]) -> str:
    return f"{median(values):.2g} ({min(values):.2g} to {max(values):.2g})"


def _all(held: Iterable[bool]) -> Standing:
    return "reproduced" if all(held) else "not reproduced"
