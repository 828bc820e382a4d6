"""What the paper claims of bounded weight norm, and how each claim stands by the runs that were made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.paper.seeds import difference, percent, standing_of_better, standing_of_equal
from normcheck.paper.weight_norm_task import (
    BATCH,
    BOUNDED,
    FIXED,
    FREE,
    INFINITE,
    KEPT_RATE,
    ONE,
    TRAINS,
    WEIGHT,
    Found,
    Kept,
    Way,
)
from normcheck.results.experiment import Claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normcheck.results.experiment import Standing

MARGIN = 0.01
"""Accuracies closer than this count as equal; the paper's gaps are 0.025 and 0.05."""
KEPT = 1e-6
"""Relative change of a norm that counts as none, in float32."""

_BETTER = "mean accuracy on held-out images at the end: the 95 % interval of the difference over seeds lies above 0"
_EQUAL = (
    "mean accuracy on held-out images at the end: the 95 % interval of the difference over seeds lies within "
    f"+-{MARGIN:.0%}"
)
_POSTER = "error of ResNet-50 on ImageNet: {} (read off the poster's plot)"


def claims_of_accuracy(found: Mapping[Way, Found]) -> list[Claim]:
    """Which way is better, and up to which learning rate."""
    claims = [
        _better(BATCH, BOUNDED, "Batch norm is somewhat better than bounded weight norm.", found,
                _POSTER.format("batch norm near 25.5 %, bounded weight norm near 28 %")),
        _better(BOUNDED, WEIGHT, "Bounded weight norm is better than plain weight norm.", found,
                _POSTER.format("bounded weight norm near 28 %, weight norm near 33 %")),
    ]  # fmt: skip
    others = {
        FIXED: "Bounded weight norm without gains trains as well as with them.",
        ONE: "Bounded weight norm trains as well with p = 1 as with p = 2.",
        INFINITE: "Bounded weight norm trains as well with p = inf as with p = 2.",
    }
    claims += [_equal(way, BOUNDED, claim, found) for way, claim in others.items() if way in found]
    return [*claims, claim_of_rates(found)]


def _better(way: Way, other: Way, claim: str, found: Mapping[Way, Found], published: str) -> Claim:
    apart = difference(found[way].accuracies, found[other].accuracies)
    standing = standing_of_better(apart, MARGIN)
    reason = "" if standing == "reproduced" else _control(found)
    measured = _measured(way, other, found)
    return Claim(claim=claim, published=published, measured=measured, standing=standing, by=_BETTER, reason=reason)


def _equal(way: Way, other: Way, claim: str, found: Mapping[Way, Found]) -> Claim:
    apart = difference(found[way].accuracies, found[other].accuracies)
    standing = standing_of_equal(apart, MARGIN)
    wide = "the seeds do not decide: the interval lies across the margin"
    reason = {"reproduced": "", "not reproduced": "not known"}.get(standing, wide)
    published = "a form of the paper, of which no figure was read" if way.p != 2 else None
    measured = _measured(way, other, found)
    return Claim(claim=claim, published=published, measured=measured, standing=standing, by=_EQUAL, reason=reason)


def _measured(way: Way, other: Way, found: Mapping[Way, Found]) -> str:
    apart = difference(found[way].accuracies, found[other].accuracies).text("points", scale=100)
    both = " against ".join(f"{percent(found[each].accuracies)} ({each.name})" for each in (way, other))
    return f"accuracy {both}, {len(found[way].curves)} seeds; difference {apart}"


def _control(found: Mapping[Way, Found]) -> str:
    """Why a gap may be missing: what a net does whose weights nothing holds."""
    apart = difference(found[FREE].accuracies, found[BOUNDED].accuracies)
    alone = f"with mean-only batch norm alone the net comes to {percent(found[FREE].accuracies)}"
    if apart.mean < -MARGIN:
        return f"a guess: digits of 8 by 8 pixels are too easy for the gaps that ImageNet shows; {alone}"
    return (
        f"measured: a net of this size does not need norms of its weights; {alone}, a difference from bounded weight "
        f"norm of {apart.text('points', scale=100)}"
    )


def claim_of_rates(found: Mapping[Way, Found]) -> Claim:
    """Which way trains at the larger learning rate; the search does not tell where both train at its last."""
    largest = {way: each.largest_rate for way, each in found.items()}
    standing: Standing = "reproduced" if largest[BOUNDED] > largest[WEIGHT] else "not reproduced"
    if min(largest[BOUNDED], largest[WEIGHT]) == max(found[BOUNDED].searched):
        standing = "not comparable at this size"
    return Claim(
        claim="Bounded weight norm trains at larger learning rates than plain weight norm.",
        published=None,
        measured="largest that trains: " + ", ".join(f"{rate:g} ({way.name})" for way, rate in largest.items()),
        standing=standing,
        by=(
            f"of the learning rates that were searched, the largest at which all runs of the search come to "
            f"{TRAINS:.0%} is larger"
        ),
    )


def claim_of_norms(found: Mapping[Way, Kept], steps: int) -> Claim:
    """Whether norms stay, in runs of so many steps."""
    of_layers = {way: each.layer for way, each in found.items()}
    of_channels = {way: each.channel for way, each in found.items() if not way.gain}
    held = all(change <= KEPT for change in (*of_layers.values(), *of_channels.values()))
    channels = "".join(f"; of each channel {change:.1g} ({way.name})" for way, change in of_channels.items())
    moved = min((each.moved for each in found.values()), default=math.nan)
    return Claim(
        claim="Bounded weight norm leaves the norm of a layer where it was.",
        published="by its formula",
        measured=(
            "largest relative change of a layer's norm "
            + ", ".join(f"{change:.1g} ({way.name})" for way, change in of_layers.items())
            + f"{channels}; every layer's weights went at least {moved:.0%} of their norm"
        ),
        standing="reproduced" if held else "not reproduced",
        by=(
            f"float32, after each of {steps} steps at learning rate {KEPT_RATE:g}: at most {KEPT:g} in every layer, "
            "and in every channel where rho is fixed"
        ),
    )
