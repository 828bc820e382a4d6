"""Experiment (b): L2 and L1 batch norm in emulated half precision, over element counts and scales.

Paper: Hoffer et al., "Norm matters" (arXiv 1803.01814), where a residual net learns ImageNet. Here a net of one norm
learns the digits, so that its element count and the scale of its input can be set: `half_precision_net`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from normcheck.paper.half_precision_maps import (
    FAILS,
    TRAINS,
    at_borders,
    borders,
    broken_running,
    disagreements,
    heat_map,
    places,
)
from normcheck.paper.half_precision_net import LOSS_SCALE, Run, Size, Way, measured
from normcheck.paper.seeds import band, percent
from normcheck.results.experiment import Claim, Curves, Experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normcheck.paper.half_precision_maps import Place
    from normcheck.paper.half_precision_net import Outcome
    from normcheck.paper.runs import Runs
    from normcheck.results.experiment import Standing

FLOAT32 = Way("L2, float32", "l2", None)
L2_WIDE = Way("L2, wide", "l2", "wide")
L2 = Way("L2, wide-sum", "l2", "wide-sum")
L1 = Way("L1, pure-scaled", "l1", "pure-scaled")
L1_LANES = Way("L1, pure", "l1", "pure")
TOP10 = Way("top-10, pure-scaled", "topk", "pure-scaled")
LINF = Way("L-infinity, pure-scaled", "linf", "pure-scaled")
WAYS = (FLOAT32, L2_WIDE, L2, L1, L1_LANES, TOP10, LINF)
MAPPED = (L2, L1, L1_LANES)

SMALL = Size(side=8, batch=8, steps=150, rate=0.05)
SIZES = tuple(Size(side=side, batch=64, steps=80, rate=0.1) for side in (8, 16, 32))
DEMONSTRATED = SIZES[0]
"""Where the ways are compared on raw pixels: n = 4096."""

CLOSE = 0.02
"""Mean accuracies closer than this to float32's count as equal."""

AGREEING = 0.95
"""The share of cells in which the simulator must be right for the two to agree."""

_EVERY = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run. small: also with small initial filters, at one element count."""

    seeds: int
    sizes: tuple[Size, ...]
    scales: tuple[float, ...]
    small: bool


FULL = Plan(3, (SMALL, *SIZES), tuple(2.0**power for power in range(-2, 15)), small=True)
QUICK = Plan(1, (DEMONSTRATED,), (1.0, 16.0, 128.0, 16384.0), small=False)


def run(*, quick: bool, runs: Runs) -> Experiment:
    """Run the experiment."""
    plan = QUICK if quick else FULL
    seeds = range(plan.seeds)
    shown = [Run(way, DEMONSTRATED, None, seed, _EVERY) for way in WAYS for seed in seeds]
    swept = [
        Run(way, size, scale, seed)
        for size in sorted(plan.sizes, key=lambda size: -size.n)  # the longest first, so that no process waits long
        for way in MAPPED
        for scale in plan.scales
        for seed in seeds
    ]
    small = [
        Run(way, DEMONSTRATED, scale, seed, small=True)
        for way in MAPPED
        for scale in (*plan.scales, None)
        for seed in seeds
        if plan.small
    ]
    calls = swept + shown + small
    outcomes = dict(zip(calls, runs.map(measured, calls, label="training in float16"), strict=True))
    found = places(outcomes)
    moved = _Moved(
        places(outcomes, small=True),
        {way: [outcomes[call] for call in small if call.way == way and call.scale is None] for way in MAPPED},
    )
    on_raw = {way: [outcomes[call] for call in shown if call.way == way] for way in WAYS}
    return Experiment(
        name="half-precision",
        title="L2 and L1 batch norm in emulated half precision",
        setup=_setup(plan),
        seeds=tuple(seeds),
        claims=_claims(on_raw, found, moved if plan.small else None),
        curves=(_training(on_raw), *(_by_scale(found, size.n) for size in plan.sizes if size == DEMONSTRATED)),
        maps=tuple(heat_map(way, found[way]) for way in MAPPED),
        facts=_facts(on_raw, found, moved if plan.small else None),
    )


@dataclass(frozen=True, slots=True)
class _Moved:
    """What became of the nets with small initial filters, which training moves more: by scale, and on raw pixels."""

    found: Mapping[Way, Sequence[Place]]
    on_raw: Mapping[Way, Sequence[Outcome]]


def _setup(plan: Plan) -> str:
    sizes = ", ".join(f"{size.n} ({size.batch} images of {size.side} by {size.side})" for size in plan.sizes)
    return (
        f"One 3 by 3 convolution of 8 channels, its batch norm, ReLU, means over 4 by 4 fields and a linear layer, on "
        f"the digits, the 360 of other writers held out. float16 emulated: weights rounded from a float32 master, "
        f"activations and gradients between layers rounded, every operation of the norm rounded in both passes, loss "
        f"scale {LOSS_SCALE:.0f}; SGD with momentum 0.9. eps is 1e-5 on the variance and its root on the other "
        f"statistics. n = {sizes}: images are enlarged by repetition and the convolution is dilated as much, and the "
        f"scale is a factor on the pixels, so neither changes what exact arithmetic learns. Filters are scaled so "
        f"that all channels have that deviation on the first batch. wide-sum: float16 products, float32 accumulators. "
        f"pure-scaled: float16 throughout, sums as means of means. pure: float16 throughout, 32 lanes and a tree, "
        f"then a division by n. Accuracy is with the statistics of batches as in training, since running statistics "
        f"can break by themselves; accuracy below {FAILS:.0%} counts as failing, from {TRAINS:.0%} on as training. "
        f"The simulator predicts from the norm's input on the first batch, before training, that a net fails: with one "
        f"channel that is not finite, or with all channels bad. It computes as the nets do, so agreement says that "
        f"this one forward pass decides, not that the arithmetic is right."
    )


# --------------------------------------------------------------------------------------------------- the claims


def _claims(
    on_raw: Mapping[Way, Sequence[Outcome]], found: Mapping[Way, Sequence[Place]], moved: _Moved | None
) -> tuple[Claim, ...]:
    return (
        _l2_fails(on_raw, found[L2]),
        _l1_trains(on_raw, found[L1]),
        _lanes_fail(on_raw, found[L1_LANES]),
        _l1_reaches_farther(found),
        _others_train(on_raw),
        _simulator_agrees(found, moved),
    )


def _at_raw(on_raw: Mapping[Way, Sequence[Outcome]], ways: Sequence[Way]) -> str:
    sigmas = [outcome.sigma for outcome in on_raw[ways[0]]]
    spread = f"{min(sigmas):.0f}" if len(sigmas) == 1 else f"{min(sigmas):.0f} to {max(sigmas):.0f}"
    each = ", ".join(f"{percent([o.accuracy for o in on_raw[way]])} ({way.name}{_ended(on_raw[way])})" for way in ways)
    seeds = "1 seed" if len(sigmas) == 1 else f"{len(sigmas)} seeds"
    return f"accuracy on pixels of 0 to 255, n = {DEMONSTRATED.n}, deviation {spread}, {seeds}: {each}"


def _ended(outcomes: Sequence[Outcome]) -> str:
    """Say how many losses ended in NaN, whose answers all count as wrong."""
    lost = sum(not o.finite for o in outcomes)
    return f"; NaN in {lost} of {len(outcomes)}" if lost else ""


def _standing(holds: bool) -> Standing:
    return "reproduced" if holds else "not reproduced"


def _all(outcomes: Sequence[Outcome], *, train: bool) -> bool:
    return all(o.accuracy >= TRAINS if train else o.accuracy < FAILS for o in outcomes)


def _l2_fails(on_raw: Mapping[Way, Sequence[Outcome]], found: Sequence[Place]) -> Claim:
    return Claim(
        claim="Batch norm by L2 with float16 products and float32 accumulators does not train.",
        published="diverges: 77 to 97 % error, stopped near epoch 20 (read off the poster's plot)",
        measured=f"{_at_raw(on_raw, (L2, L2_WIDE, FLOAT32))}; {_extent(found)}",
        standing=_standing(_all(on_raw[L2], train=False) and _all(on_raw[L2_WIDE], train=True)),
        by=f"on raw pixels, n = {DEMONSTRATED.n}: accuracy below {FAILS:.0%} with every seed, and with float32 "
        f"statistics at least {TRAINS:.0%}",
        reason="it holds where the scale is so large that squares overflow, below that L2 trains (measured); the "
        "paper does not say how large its pre-activations were",
    )


def _l1_trains(on_raw: Mapping[Way, Sequence[Outcome]], found: Sequence[Place]) -> Claim:
    gap = abs(fmean(o.accuracy for o in on_raw[L1]) - fmean(o.accuracy for o in on_raw[FLOAT32]))
    return Claim(
        claim="Batch norm by L1 with float16 accumulators trains as float32 does.",
        published="34 % error against 33.3 % (read off the poster's plot)",
        measured=f"{_at_raw(on_raw, (L1, FLOAT32))}; {_extent(found)}",
        standing=_standing(_all(on_raw[L1], train=True) and gap <= CLOSE),
        by=f"on raw pixels, n = {DEMONSTRATED.n}: accuracy at least {TRAINS:.0%} with every seed, and its mean within "
        f"{CLOSE:.0%} of float32's with L2",
    )


def _lanes_fail(on_raw: Mapping[Way, Sequence[Outcome]], found: Sequence[Place]) -> Claim:
    return Claim(
        claim="For that L1 needs a scaled reduction: where float16 sums are divided by n at their end, it fails.",
        published=None,
        measured=f"{_at_raw(on_raw, (L1_LANES, L1))}; {_extent(found)}",
        standing=_standing(_all(on_raw[L1_LANES], train=False) and _all(on_raw[L1], train=True)),
        by=f"on raw pixels, n = {DEMONSTRATED.n}: with every seed below {FAILS:.0%} by lanes, at least {TRAINS:.0%} "
        f"by a mean of means",
    )


def _l1_reaches_farther(found: Mapping[Way, Sequence[Place]]) -> Claim:
    by_l1 = {(place.n, place.scale): place.state for place in found[L1]}
    worse = [p for p in found[L2] if p.state == "trains" and by_l1[p.n, p.scale] != "trains"]
    gained = [p for p in found[L2] if p.state == "fails" and by_l1[p.n, p.scale] == "trains"]
    lost = [place for place in found[L1] if place.state == "fails"]
    steps = ", ".join(sorted({place.step for place in lost if place.step})) or "no step"
    return Claim(
        claim="Wherever L2 with float32 accumulators trains, L1 with a scaled reduction in float16 does too.",
        published=None,
        measured=f"of {len(found[L2])} cells of element count and scale, L1 trains in {len(gained)} where L2 fails, "
        f"and does not in {len(worse)} where L2 trains; L1 fails in {len(lost)}, there the simulator names {steps}",
        standing=_standing(not worse and bool(gained)),
        by="no cell in which L2 trains and L1 does not, and at least one the other way round",
    )


def _others_train(on_raw: Mapping[Way, Sequence[Outcome]]) -> Claim:
    return Claim(
        claim="Top-10 and L-infinity train in float16 with a scaled reduction as well.",
        published=None,
        measured=_at_raw(on_raw, (TOP10, LINF)),
        standing=_standing(_all(on_raw[TOP10], train=True) and _all(on_raw[LINF], train=True)),
        by=f"on raw pixels, n = {DEMONSTRATED.n}: accuracy at least {TRAINS:.0%} with every seed",
    )


def _simulator_agrees(found: Mapping[Way, Sequence[Place]], moved: _Moved | None = None) -> Claim:
    right, of = _agreement(_every(found))
    return Claim(
        claim="The simulator tells from the first batch, before training, which nets learn nothing.",
        published=None,
        measured=f"right in {_rightly(found)}{'' if moved is None else _when_moved(moved)}",
        standing=_standing(right >= AGREEING * of),
        by=f"right in at least {AGREEING:.0%} of the cells of all maps, most seeds deciding in each",
        reason="" if right == of else _misjudged(disagreements(_every(found))),
    )


def _every(found: Mapping[Way, Sequence[Place]]) -> list[Place]:
    return [place for way in MAPPED for place in found[way]]


def _agreement(cells: Sequence[Place]) -> tuple[int, int]:
    """Return in how many cells the simulator is right, and of how many."""
    return sum(place.fails == place.predicted for place in cells), len(cells)


def _rightly(found: Mapping[Way, Sequence[Place]]) -> str:
    (right, of), (hard, beside) = _agreement(_every(found)), _agreement(_beside(found))
    return (
        f"{right} of {of} cells ({right / of:.1%}), and in {hard} of the {beside} beside a border, where one scale "
        f"fails and the next does not"
    )


def _beside(found: Mapping[Way, Sequence[Place]]) -> list[Place]:
    return [place for way in MAPPED for place in at_borders(found[way])]


def _when_moved(moved: _Moved) -> str:
    """Say how right the simulator is where the pre-activations grow more."""
    l2 = moved.on_raw[L2]
    failed, said = sum(o.accuracy < FAILS for o in l2), sum(o.prediction is not None and o.prediction.fails for o in l2)
    bits = [o.growth_bits or 0.0 for o in l2]
    room = [o.prediction.headroom_bits or 0.0 for o in l2 if o.prediction is not None]
    return (
        f"; with initial filters 2.4 times smaller, n = {DEMONSTRATED.n}: in {_rightly(moved.found)}. With these, L2 "
        f"by wide-sum on pixels of 0 to 255 fails with {failed} of {len(l2)} seeds and was said to with {said}: its "
        f"pre-activations grow by {min(bits):.1f} to {max(bits):.1f} bits in training, and the headroom on the first "
        f"batch was {min(room):.1f} to {max(room):.1f}"
    )


def _misjudged(cells: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{cell['way']}, n = {cell['n']}, deviation {cell['scale']:g}, predicted: {cell['predicted']}: "
        f"{cell['reasons'][0]}"
        for cell in cells
    )


def _extent(found: Sequence[Place]) -> str:
    """Say up to which scale a way trains and from which it fails, by element count."""
    each = []
    for n, border in borders(found).items():
        trains = "at no scale tried" if border["trains_to"] is None else f"to {border['trains_to']:g}"
        fails = "at none" if border["fails_from"] is None else f"from {border['fails_from']:g}"
        each.append(f"n = {n}: trains {trains}, fails {fails}")
    return "; ".join(each)


# ---------------------------------------------------------------------------------------------- plots and facts


def _training(on_raw: Mapping[Way, Sequence[Outcome]]) -> Curves:
    at = tuple(range(_EVERY, DEMONSTRATED.steps + 1, _EVERY))
    return Curves(
        name="raw-pixels",
        title=f"Batch norm in float16 on pixels of 0 to 255, n = {DEMONSTRATED.n}",
        x_label="step",
        y_label="accuracy, running statistics",
        series=tuple(band(way.name, at, [_sampled(o, at) for o in several]) for way, several in on_raw.items()),
    )


def _sampled(outcome: Outcome, at: Sequence[int]) -> list[float]:
    """Return the curve of a run at these steps; after one that stopped, what it stopped at."""
    reached = [[y for step, y in zip(outcome.at, outcome.curve, strict=True) if step <= x] for x in at]
    return [values[-1] if values else 0.0 for values in reached]


def _by_scale(found: Mapping[Way, Sequence[Place]], n: int) -> Curves:
    series = []
    for way in MAPPED:
        row = [place for place in found[way] if place.n == n]
        runs = list(zip(*(place.values for place in row), strict=True))
        series.append(band(way.name, [place.scale for place in row], runs))
    return Curves(
        name="scale",
        title=f"Batch norm in float16, n = {n}",
        x_label="deviation of the norm's input before training",
        y_label="accuracy on held-out digits",
        series=tuple(series),
        log_x=True,
    )


def _facts(
    on_raw: Mapping[Way, Sequence[Outcome]], found: Mapping[Way, Sequence[Place]], moved: _Moved | None
) -> dict[str, Any]:
    facts = {
        "raw_pixels": {way.name: {**asdict(way), **_of_seeds(several)} for way, several in on_raw.items()},
        "borders": {way.name: borders(found[way]) for way in MAPPED},
        "running_statistics_break": {way.name: broken_running(found[way]) for way in MAPPED},
        **_agreements(found),
    }
    if moved is not None:
        facts["small_filters"] = {
            "raw_pixels": {way.name: _of_seeds(several) for way, several in moved.on_raw.items()},
            "borders": {way.name: borders(moved.found[way]) for way in MAPPED},
            **_agreements(moved.found),
        }
    return facts


def _of_seeds(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    return {
        "sigma": [o.sigma for o in outcomes],
        "accuracies": [o.accuracy for o in outcomes],
        "with_running_statistics": [o.running for o in outcomes],
        "finite": [o.finite for o in outcomes],
        "growth_bits": [o.growth_bits for o in outcomes],
        "headroom_bits": [None if o.prediction is None else o.prediction.headroom_bits for o in outcomes],
        "predicted_to_fail": [None if o.prediction is None else o.prediction.fails for o in outcomes],
    }


def _agreements(found: Mapping[Way, Sequence[Place]]) -> dict[str, Any]:
    return {
        "agreement": {way.name: _counted(_agreement(found[way])) for way in MAPPED},
        "agreement_beside_borders": {way.name: _counted(_agreement(at_borders(found[way]))) for way in MAPPED},
        "agreement_of_runs": {way.name: _counted(_runs_right(found[way])) for way in MAPPED},
        "disagreements": disagreements(_every(found)),
    }


def _counted(agreement: tuple[int, int]) -> dict[str, int]:
    return {"right": agreement[0], "of": agreement[1]}


def _runs_right(found: Sequence[Place]) -> tuple[int, int]:
    """Return of how many single runs the simulator was right: a run fails with an accuracy below `FAILS`."""
    right = [
        o.prediction is not None and (o.accuracy < FAILS) == o.prediction.fails
        for place in found
        for o in place.outcomes
    ]
    return sum(right), len(right)
