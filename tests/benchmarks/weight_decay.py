"""How near directions stay to a run with weight decay without it, and where the correction blows up.

    python tests/benchmarks/weight_decay.py [--write docs/optim.md]

Everything is float64 on one thread; normcheck/paper/weight_decay_task.py has the task. It takes about two minutes.
`--write` puts the tables between the marks of the page, so that its figures are those of a run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from normcheck import __version__
from normcheck.optim import UnstableCorrectionWarning
from normcheck.optim.correction import STABLE_GROWTH
from normcheck.paper.weight_decay_task import BLOWN_UP, FORMS, Form, Settings, corrected, lengthened, trained

BEGIN, END = "<!-- measured by tests/benchmarks/weight_decay.py -->\n", "<!-- until here -->\n"

SEEDS = range(5)
TASKS = {
    "MLP, SGD, learning rate 0.02, weight decay 0.1": Settings(),
    "CNN, SGD, learning rate 0.02, weight decay 0.1": Settings(kind="cnn"),
    "MLP, AdamW, learning rate 0.01, weight decay 1": Settings(optimizer="adamw", learning_rate=0.01, weight_decay=1.0),
}

RATES = ((0.02, 0.02), (0.02, 0.1), (0.05, 0.02), (0.05, 0.05), (0.1, 0.005), (0.1, 0.02), (0.2, 0.005), (0.3, 0.002))
RATES += ((0.3, 0.005), (0.3, 0.02))
"""Learning rates and weight decays of the runs that may blow up."""


class Outcome(NamedTuple):
    """Of a run that may blow up: the largest growth of a factor, and by how much a norm grew."""

    growth: float
    longer: float
    blows_up_later: bool


OF_ADAM: dict[str, Form] = {"corrected at every step, by the square (degree=1)": corrected(1, degree=1)}


def displacement(settings: Settings) -> str:
    """Displacement errors and accuracies of every form after three epochs."""
    forms = FORMS | (OF_ADAM if settings.optimizer == "adamw" else {})
    errors: dict[str, list[float]] = {name: [] for name in forms}
    accuracies: dict[str, list[float]] = {name: [] for name in ("weight decay", *forms)}
    for seed in SEEDS:
        task = replace(settings, seed=seed)
        reference = trained(task, decays=True)
        accuracies["weight decay"].append(reference.accuracy)
        for name, form in forms.items():
            run = form(task, reference.recorded)
            errors[name].append(run.error(reference))
            accuracies[name].append(run.accuracy)
    rows = [_row("weight decay", "", "", _percent(accuracies["weight decay"]))]
    rows += [
        _row(name, f"{statistics.median(e):.2g}", f"{min(e):.2g}...{max(e):.2g}", _percent(accuracies[name]))
        for name, e in errors.items()
    ]
    return _table(("run", "median error", "of 5 seeds", "accuracy, %"), rows)


def stability() -> str:
    """Of forms that may blow up: what became of the runs that passed the bound and of those that did not."""
    forms = {name: form for name, form in FORMS.items() if name.startswith("corrected")}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in forms}
    for momentum, (rate, decay), seed in itertools.product((0.9, 0.5), RATES, range(2)):
        settings = Settings("mlp", "sgd", rate, decay, momentum, epochs=20, label_noise=0.4, seed=seed)
        reference = trained(settings, decays=True).recorded
        for name, form in forms.items():
            run = form(settings, reference)
            growth, longer = max(run.growth), lengthened(run)
            outcomes[name].append(
                Outcome(growth, longer, blows_up_later=_blows_up_later(form, settings, growth, longer))
            )
    rows = [_stability_row(name, found, beyond) for name, found in outcomes.items() for beyond in (False, True)]
    bound = f"growth of factors, bound {STABLE_GROWTH:g}"
    return _table(("form", bound, "runs", "blown up", "if run on to epoch 40", "norms grew, times"), rows)


def _blows_up_later(form: Form, settings: Settings, growth: float, longer: float) -> bool:
    """Whether a run that went beyond the bound and has not blown up does within twice its epochs."""
    if not (growth > STABLE_GROWTH and longer <= BLOWN_UP):
        return False
    on = replace(settings, epochs=2 * settings.epochs)
    return lengthened(form(on, trained(on, decays=True).recorded)) > BLOWN_UP


def _stability_row(name: str, found: list[Outcome], beyond: bool) -> str:
    chosen = [o for o in found if (o.growth > STABLE_GROWTH) is beyond]
    if not chosen:
        return _row(name, "beyond" if beyond else "within", 0, "", "", "")
    longer = [o.longer for o in chosen]
    blown = sum(x > BLOWN_UP for x in longer)
    later = blown + sum(o.blows_up_later for o in chosen) if beyond else "not run on"
    return _row(
        name, "beyond" if beyond else "within", len(chosen), blown, later, f"{min(longer):.3g}...{max(longer):.3g}"
    )


def _percent(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(names: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*names), _row(*["---"] * len(names)), *rows, ""])


def _machine() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    cpu = models[0] if models else platform.machine()
    versions = f"normcheck {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{versions}; {cpu}, {os.cpu_count()} processors.\n"


def report() -> str:
    """All tables."""
    parts = [_machine()]
    for title, settings in TASKS.items():
        parts.append(f"### {title}\n\n{displacement(settings)}")
    parts.append(f"### Blowing up: forty runs of twenty epochs each\n\n{stability()}")
    return "\n".join(parts)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    page = parser.parse_args().write
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableCorrectionWarning)
        text = report()
    print(text)
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
