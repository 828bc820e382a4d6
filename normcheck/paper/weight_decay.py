"""Experiment (d): weight decay on, off, off with a corrected learning rate, and norms set in its place.

Paper: Hoffer et al., "Norm matters" (arXiv 1803.01814), where VGG-11 learns CIFAR-10. Here a perceptron with batch
norms learns the digits, in float64, so that what rounding adds is far below what is measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from normcheck.paper.digits import TRAINED
from normcheck.paper.seeds import band
from normcheck.paper.weight_decay_claims import (
    ByForm,
    claim_of_stability,
    claims_of_accuracy,
    claims_of_directions,
    claims_of_dropped_rate,
)
from normcheck.paper.weight_decay_task import (
    BATCH,
    EPOCHWISE,
    EPOCHWISE_HELD,
    FLOOR,
    LAST,
    OFF,
    ON,
    ROUNDING,
    SCHEDULED,
    STEPS,
    STEPWISE,
    STEPWISE_HELD,
    UNDROPPED,
    Settings,
    Trace,
    traces,
)
from normcheck.results.experiment import Curves, Experiment, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from normcheck.paper.runs import Runs

TURNING = Settings()
"""Three epochs, for the way that directions go."""
MATTERING = Settings(learning_rate=0.3, weight_decay=0.002, epochs=40, label_noise=0.4)
"""Where weight decay matters: without it the steps become small and the net learns the labels that are wrong."""
RIGHT = replace(MATTERING, label_noise=0.0)
"""The same with labels that are right."""
DROPPING = Settings(learning_rate=0.1, weight_decay=0.02, epochs=45, label_noise=0.4, drop_every=15)
"""With a learning rate that is divided by ten twice, as the paper's is three times, and that gains by it."""
UNSTABLE = Settings(weight_decay=0.02, epochs=20, label_noise=0.4)
"""At learning rates of its own."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    seeds: tuple[int, ...]
    epochs: int
    rates: tuple[float, ...]
    rate_seeds: tuple[int, ...]
    others: bool


FULL = Size(tuple(range(10, 26)), MATTERING.epochs, (0.02, 0.05, 0.1, 0.2, 0.3), (10, 11, 12), others=True)
QUICK = Size((10, 11, 12), MATTERING.epochs, (0.02, 0.3), (10,), others=False)
"""Settings were chosen on seeds 0 to 2, which are in neither."""


# ------------------------------------------------------------------------------------------------------- the runs

TURNED = (OFF, STEPWISE, STEPWISE_HELD, EPOCHWISE, EPOCHWISE_HELD, SCHEDULED, FLOOR, ROUNDING)
INSTEAD = (STEPWISE, STEPWISE_HELD, EPOCHWISE, EPOCHWISE_HELD, SCHEDULED)
DROPPED = (OFF, STEPWISE, EPOCHWISE, SCHEDULED, UNDROPPED)
RUNNING_AWAY = (STEPWISE, EPOCHWISE, STEPWISE_HELD, EPOCHWISE_HELD)


def run(*, quick: bool, runs: Runs) -> Experiment:
    """Run the experiment."""
    return experiment(QUICK if quick else FULL, runs)


def experiment(size: Size, runs: Runs) -> Experiment:
    """Run it at a size."""
    mattering = replace(MATTERING, epochs=size.epochs)
    others = size.seeds if size.others else ()
    unstable = [replace(UNSTABLE, learning_rate=rate) for rate in size.rates]
    turning, accuracies, dropping, right, *stability = _all_runs(
        runs,
        Part(TURNING, TURNED, size.seeds),
        Part(mattering, (OFF, *INSTEAD), size.seeds),
        Part(DROPPING, DROPPED, others),
        Part(RIGHT, (OFF,), others),
        *(Part(settings, RUNNING_AWAY, size.rate_seeds) for settings in unstable),
    )
    away = dict(zip(size.rates, stability, strict=True))
    return Experiment(
        name="weight-decay",
        title="Weight decay as a learning rate",
        setup=_setup(mattering, size),
        seeds=size.seeds,
        claims=(
            *claims_of_directions(turning, TURNING),
            claim_of_stability(away, UNSTABLE),
            *claims_of_accuracy(accuracies, right),
            *claims_of_dropped_rate(dropping),
        ),
        curves=(*_plots(accuracies), _plot_of_stability(away)),
        facts={
            "directions": _facts(TURNING, turning),
            "accuracy": _facts(mattering, accuracies),
            "right labels": _facts(RIGHT, right),
            "learning rate dropped": _facts(DROPPING, dropping),
            "stability": [_facts(settings, found) for settings, found in zip(unstable, stability, strict=True)],
        },
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Runs with the same settings but for the seed: one with weight decay, and one of each form by its name."""

    settings: Settings
    forms: tuple[str, ...]
    seeds: tuple[int, ...]


def _all_runs(runs: Runs, *parts: Part) -> list[ByForm]:
    """Return what came of each part; nothing of one without seeds."""
    calls = [(replace(part.settings, seed=seed), part.forms) for part in parts for seed in part.seeds]
    found = iter(runs.map(traces, calls, label="training"))
    by_seed = [[next(found) for _ in part.seeds] for part in parts]
    return [
        {name: [each[name] for each in of_part] for name in (ON, *part.forms)} if of_part else {}
        for part, of_part in zip(parts, by_seed, strict=True)
    ]


def _setup(mattering: Settings, size: Size) -> str:
    rates = ", ".join(f"{rate:g}" for rate in size.rates)
    dropped = f" Learning rate dropped: {_rate(DROPPING)}, {_rest(DROPPING)}." if size.others else ""
    return (
        f"A perceptron with two hidden layers of 64, each before a batch norm, in float64 on the digits of 8 by 8 "
        f"pixels ({TRAINED} to train on, the 360 of other writers held out); SGD, momentum {TURNING.momentum:g}, "
        f"batches of {BATCH}, {STEPS} steps an epoch. The last layer and the norms' parameters decay in every run. "
        f"Directions: {_rate(TURNING)}, {_rest(TURNING)}. Accuracy, which is the mean of the last {LAST} epochs: "
        f"{_rate(mattering)}, {_rest(mattering)}.{dropped} Stability: learning rates {rates}, {_rest(UNSTABLE)}, "
        f"{len(size.rate_seeds)} seeds."
    )


def _rate(s: Settings) -> str:
    return f"learning rate {s.learning_rate:g}" + (
        f", divided by 10 every {s.drop_every} epochs" if s.drop_every else ""
    )


def _rest(s: Settings) -> str:
    noise = f", {s.label_noise:.0%} of the labels drawn at random" if s.label_noise else ""
    return f"weight decay {s.weight_decay:g}, {s.epochs} epochs{noise}"


def _facts(settings: Settings, found: ByForm) -> dict[str, Any]:
    """Return the settings, and of each form one value a seed."""
    of_run = {key: value for key, value in asdict(settings).items() if key != "seed"}
    return {**of_run, "forms": {name: _of_form(each) for name, each in found.items()}}


def _of_form(found: Iterable[Trace]) -> dict[str, list[float]]:
    return {
        "displacement_errors": [t.error for t in found],
        "accuracies": [t.accuracy for t in found],
        "largest_growth_of_a_norm": [t.longer for t in found],
        "largest_growth_of_a_factor": [t.growth for t in found],
    }


# ---------------------------------------------------------------------------------------------------- the plots


def _plots(found: ByForm) -> tuple[Curves, ...]:
    epochs = range(1, 1 + len(found[ON][0].accuracies))
    shown = (ON, OFF, STEPWISE, EPOCHWISE, SCHEDULED)
    of_trace: tuple[tuple[str, str, Callable[[Trace], tuple[float, ...]], bool], ...] = (
        ("accuracy", "accuracy on held-out digits", lambda trace: trace.accuracies, False),
        ("norms", "norm of a channel, median", lambda trace: trace.norms, True),
        ("steps", "effective step size, median", lambda trace: trace.step_sizes, True),
    )
    return tuple(
        Curves(
            name=name,
            title=f"Weight decay and what replaces it: {label}",
            x_label="epoch",
            y_label=label,
            series=tuple(band(form, epochs, [values(trace) for trace in found[form]]) for form in shown),
            log_y=logarithmic,
        )
        for name, label, values, logarithmic in of_trace
    )


def _plot_of_stability(away: Mapping[float, ByForm]) -> Curves:
    rates = tuple(sorted(away))
    series = tuple(
        Series(
            name=name.removeprefix("corrected "),
            x=rates,
            y=tuple(max(trace.longer for trace in away[rate][name]) for rate in rates),
        )
        for name in RUNNING_AWAY
    )
    return Curves(
        name="stability",
        title=f"Where the correction runs away: weight decay {UNSTABLE.weight_decay:g}, {UNSTABLE.epochs} epochs",
        x_label="learning rate",
        y_label="growth of the longest channel, times",
        series=series,
        log_x=True,
        log_y=True,
    )
