"""Experiment (c): bounded weight norm with mean-only batch norm, against plain weight norm and batch norm.

Paper: Hoffer et al., "Norm matters" (arXiv 1803.01814), where ResNet-50 learns ImageNet. Here a plain net of 16
convolutions learns the digits.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from normcheck.paper.digits import TRAINED
from normcheck.paper.seeds import band
from normcheck.paper.weight_norm_claims import claim_of_norms, claims_of_accuracy
from normcheck.paper.weight_norm_task import (
    BATCH,
    BATCH_SIZE,
    BOUNDED,
    FITTED,
    FREE,
    KEPT_RATE,
    WAYS,
    WEIGHT,
    Call,
    Found,
    Kept,
    Size,
    Way,
    at_end,
    kept,
    trained,
)
from normcheck.results.experiment import Curves, Experiment, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normcheck.paper.runs import Runs

# ------------------------------------------------------------------------------------------------------ the runs


FULL = Size(tuple(range(10, 20)), (0.05, 0.1, 0.2, 0.4), (0, 1), 330, 22, WAYS, 1000, convolutions=16)
QUICK = Size((10, 11, 12), (0.1, 0.2), (0,), 110, 22, (BATCH, BOUNDED, WEIGHT, FREE), 100, convolutions=8)
"""Depth and learning rates were chosen by runs with seeds 0 to 3, which are compared in neither."""


def run(*, quick: bool, runs: Runs) -> Experiment:
    """Run the experiment."""
    return experiment(QUICK if quick else FULL, runs)


def experiment(size: Size, runs: Runs) -> Experiment:
    """Run it at a size."""
    found = _compared(size, _searched(size, runs), runs)
    bounded = [way for way in size.ways if way.kind == "bounded"]
    calls = [Call(way, KEPT_RATE, size.seeds[0], size) for way in bounded]
    norms = dict(zip(bounded, runs.map(kept, calls, label="norms"), strict=True))
    return Experiment(
        name="weight-norm",
        title="Bounded weight norm against weight norm and batch norm",
        setup=_setup(size, found),
        seeds=size.seeds,
        claims=(*claims_of_accuracy(found), claim_of_norms(norms, size.kept_steps)),
        curves=(_plot(found), _plot_of_rates(found)),
        facts={way.name: _facts(way, each, norms.get(way)) for way, each in found.items()},
    )


def _searched(size: Size, runs: Runs) -> dict[Way, dict[float, list[float]]]:
    calls = [
        Call(way, rate, seed, size, searching=True)
        for way in size.ways
        for rate in size.rates
        for seed in size.rate_seeds
    ]
    found: dict[Way, dict[float, list[float]]] = {way: {rate: [] for rate in size.rates} for way in size.ways}
    for call, curve in zip(calls, runs.map(trained, calls, label="learning rates"), strict=True):
        found[call.way][call.rate].append(at_end(curve))
    return found


def _compared(size: Size, searched: Mapping[Way, dict[float, list[float]]], runs: Runs) -> dict[Way, Found]:
    best = {way: max(size.rates, key=lambda rate: fmean(rates[rate])) for way, rates in searched.items()}
    calls = [Call(way, best[way], seed, size) for way in size.ways for seed in size.seeds]
    curves = dict(zip(calls, runs.map(trained, calls, label="accuracy"), strict=True))
    return {
        way: Found(rates, best[way], [curves[Call(way, best[way], seed, size)] for seed in size.seeds])
        for way, rates in searched.items()
    }


def _setup(size: Size, found: Mapping[Way, Found]) -> str:
    rates = ", ".join(f"{rate:g}" for rate in size.rates)
    chosen = ", ".join(f"{way.name} {each.rate:g}" for way, each in found.items())
    return (
        f"A plain net of {size.convolutions} convolutions of 3 by 3 (16 and 32 channels) and a linear layer on the "
        f"digits of 8 by 8 pixels ({TRAINED} to train on, the 360 of other writers held out); {size.steps} steps of "
        f"SGD, batch {BATCH_SIZE}, momentum 0.9, a learning rate that goes to 0 along half a cosine, no weight decay. "
        f"Every way but batch norm has mean-only batch norm behind each convolution. Each has a learning rate of its "
        f"own: of {rates} the one with the best mean accuracy on the last {TRAINED - FITTED} images to train on, which "
        f"were kept from the net in that search, over seeds of its own: {chosen}."
    )


def _facts(way: Way, found: Found, norms: Kept | None) -> dict[str, Any]:
    return {
        "p": "inf" if math.isinf(way.p) else way.p,
        "gain": way.gain,
        "learning_rate": found.rate,
        "accuracies": found.accuracies,
        "losses": [curve.losses[-1] for curve in found.curves],
        "accuracies_of_the_search": {f"{rate:g}": values for rate, values in found.searched.items()},
        "largest_learning_rate_that_trains": found.largest_rate,
        "norms": None if norms is None else asdict(norms),
    }


# ---------------------------------------------------------------------------------------------------- the plots


def _plot(found: Mapping[Way, Found]) -> Curves:
    finite = {way: [curve for curve in each.curves if curve.finite] for way, each in found.items()}
    return Curves(
        name="accuracy",
        title="Bounded weight norm, weight norm and batch norm, each at its own learning rate",
        x_label="step",
        y_label="accuracy on held-out digits",
        series=tuple(
            band(way.name, curves[0].steps, [curve.accuracies for curve in curves])
            for way, curves in finite.items()
            if curves
        ),
    )


def _plot_of_rates(found: Mapping[Way, Found]) -> Curves:
    return Curves(
        name="rates",
        title="What each learning rate comes to, on images kept for the search",
        x_label="learning rate",
        y_label="accuracy",
        series=tuple(_rates(way, each.searched) for way, each in found.items()),
        log_x=True,
    )


def _rates(way: Way, searched: Mapping[float, Sequence[float]]) -> Series:
    return band(way.name, tuple(searched), list(zip(*searched.values(), strict=True)))
