"""Both passes of a norm on arrays of rows, in the engine's arithmetic and nothing else: no reference, no figures.

The blocks, the order of operations and, under stochastic rounding, the random bits are those of
`normcheck.analysis.engine.run_block` and `normcheck.analysis.backward.run_backward_block`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from normcheck.analysis.emulate import carrier
from normcheck.analysis.engine import drawn
from normcheck.analysis.parameter_gradients import affine_of, parts_of
from normcheck.analysis.threads import in_order
from normcheck.arithmetic.emulated import Emulated, Machine
from normcheck.arithmetic.values import PART, Elements
from normcheck.nn.emulated.sharing import joined
from normcheck.norms.backward import backward, gradient_machine
from normcheck.norms.forward import forward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.analysis.parameter_gradients import Name, Part
    from normcheck.analysis.study import Study
    from normcheck.arithmetic.emulated import StepRecord
    from normcheck.norms.forward import Outputs, Problem

Array = np.ndarray[Any, np.dtype[Any]]
Records = list[dict[str, "StepRecord"]]
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Held:
    """What the backward pass of a block of rows needs of its forward pass."""

    start: int
    stop: int
    x: Elements
    outputs: Outputs
    problem: Problem


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward pass: the output (groups, size), what is held of it, new running statistics a row, and all events."""

    out: Array
    held: tuple[Held, ...]
    running_mean: Array | None
    running_statistic: Array | None
    records: Records


@dataclass(frozen=True, slots=True)
class Backward:
    """A backward pass: dx (groups, size), gradients of gamma and beta as vectors where there are any, all events."""

    x: Array
    weight: Array | None
    bias: Array | None
    records: Records


def run_forward(study: Study, jobs: int, *, hold: bool) -> Forward:
    """Run the forward pass of a study of one implementation, on up to `jobs` threads.

    hold: also keep what the backward pass needs.
    """
    g, (runner,) = study.grouping, study.runners
    out = np.empty((g.groups, g.size), carrier(study.io))

    def run(rows: tuple[int, int]) -> tuple[Held, Outputs, dict[str, StepRecord]]:
        start, stop = rows
        loader = Emulated(Machine({"load": study.io}, {}, runner.machine.rounding), stop - start, g.size, start)
        x = loader.load(drawn(study, start, stop))
        machine = Emulated(runner.machine, stop - start, g.size, start)
        problem = study.problem(study.stored, start, stop, study.stored.form)
        outputs = forward(machine, x, problem, runner.implementation)
        _read(outputs.y, out[start:stop])
        if machine.steps["load"].form == study.io:
            machine.steps["load"] = loader.steps["load"]
        slim = replace(outputs, y=x, normalized=None)  # what they refer to is as large as the input, many times
        return Held(start, stop, x, slim, problem), outputs, machine.steps

    blocks = list(in_order(run, study.blocks(), jobs))
    running = [outputs.running for _, outputs, _ in blocks if outputs.running is not None]
    means = [mean.data[:, 0] for mean, _ in running if mean is not None]
    return Forward(
        out,
        tuple(held for held, _, _ in blocks) if hold else (),
        np.concatenate(means) if means else None,
        np.concatenate([statistic.data[:, 0] for _, statistic in running]) if running else None,
        [steps for _, _, steps in blocks],
    )


def run_backward(study: Study, held: Sequence[Held], gradient: Array, jobs: int) -> Backward:
    """Run the backward pass on what a forward pass held and the gradient of its output (groups, size)."""
    g, (runner,) = study.grouping, study.runners
    how, machine, affine = runner.implementation, gradient_machine(runner.machine), affine_of(study, always=False)
    out = np.empty((g.groups, g.size), carrier(study.io))

    def run(block: Held) -> tuple[dict[Name, Part], dict[str, StepRecord]]:
        rows = slice(block.start, block.stop)
        a = Emulated(machine, block.stop - block.start, g.size, block.start)
        got = backward(a, Elements.of(gradient[rows]), block.x, block.outputs, block.problem, how, affine)
        _read(got.x, out[rows])
        return parts_of(got), a.steps

    blocks = list(in_order(run, held, jobs))
    records = [steps for _, steps in blocks]
    weight, of_weight = joined(study, "weight", [parts["weight"] for parts, _ in blocks if "weight" in parts])
    bias, of_bias = joined(study, "bias", [parts["bias"] for parts, _ in blocks if "bias" in parts])
    return Backward(out, weight, bias, [*records, of_weight, of_bias])


def _read(values: Elements, out: Array) -> None:
    for index in range(values.parts):
        out[:, index * PART : (index + 1) * PART] = values.part(index)
