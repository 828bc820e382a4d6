"""A reproduction written by hand, and stand-ins for the experiments of normcheck."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

from normcheck.paper import experiments
from normcheck.paper.experiments import Row
from normcheck.results.experiment import Cell, Claim, Curves, Experiment, HeatMap, Reproduction, Series
from normcheck.results.report import Tool

CLAIMS = (
    Claim(
        claim="A sum of |c| over n elements trains.",
        published="error near 34 % (a plot)",
        measured="accuracy 92.5 +- 1.2 % (L1) against 92.6 +- 1.0 % (L2), 16 seeds",
        standing="reproduced",
        by="the interval is within +-1 %",
    ),
    Claim(
        claim="L-infinity is worse.",
        published=None,
        measured="difference 0.6",
        standing="not comparable at this size",
        by="the interval is above 0",
        reason="the seeds do not decide",
    ),
    Claim(
        claim="4C is worse.", published="a plot", measured="difference -0.1", standing="not reproduced", by="above 0",
        reason="a guess: gamma takes it up",
    ),
)  # fmt: skip
CURVES = Curves(
    name="accuracy",
    title="$Accuracy",
    x_label="step",
    y_label="accuracy",
    series=(
        Series(name="L2", x=(10.0, 20.0), y=(0.5, 0.9), low=(0.4, 0.85), high=(0.6, 0.95)),
        Series(name="L1", x=(10.0, 20.0), y=(0.4, 0.9)),
    ),
    log_x=True,
)
CELLS = (
    Cell(x=1.0, y=512.0, values=(0.9, 1.0), fails=False, step=None, predicted=False, agrees=True),
    Cell(x=64.0, y=512.0, values=(0.1, 0.1), fails=True, step="square", predicted=True, agrees=True),
    Cell(x=1.0, y=4096.0, values=(0.9, 0.8), fails=False, step="sum", predicted=True, agrees=False),
    Cell(x=64.5, y=4096.0, values=(0.1, 0.2), fails=True, step="sum", predicted=True, agrees=True),
)
MAP = HeatMap(
    name="l2", title="L2 in wide-sum", x_label="scale", y_label="n", value_label="accuracy", cells=CELLS
)  # fmt: skip
FIRST = Experiment(
    name="first", title="Statistics", setup="A net.", seeds=(0, 1), claims=CLAIMS, curves=(CURVES,),
    facts={"L1": {"accuracies": [0.9, float("nan")]}}, seconds=12.3,
)  # fmt: skip
SECOND = Experiment(
    name="second-one", title="Half precision", setup="Another net.", seeds=(0,), claims=CLAIMS[:1], maps=(MAP,),
    facts={}, seconds=1.0,
)  # fmt: skip
REPRODUCTION = Reproduction(
    format=1,
    tool=Tool(name="normcheck", version="0"),
    environment={"python": "3"},
    quick=False,
    experiments=(FIRST, SECOND),
)
QUICK = dataclasses.replace(REPRODUCTION, quick=True)
ROWS = {row.name: row for row in (Row("a", "first", "the first", 10), Row("b", "second-one", "the second", 30))}


class Stand:
    """In the place of the experiments; keeps what each was given. An `error` is raised by the second."""

    def __init__(self, monkeypatch):
        self.calls, self.error = [], None
        monkeypatch.setattr(experiments, "EXPERIMENTS", ROWS)
        for name, found in (("first", FIRST), ("second_one", SECOND)):
            monkeypatch.setitem(sys.modules, f"normcheck.paper.{name}", SimpleNamespace(run=self._runner(found)))

    def _runner(self, found):
        def run(*, quick, runs):
            self.calls.append((found.name, quick, runs.jobs))
            runs.map(abs, (1, 2), label="counting")
            if self.error is not None and found is SECOND:
                raise self.error
            return found

        return run
