"""Experiments on the claims of the paper as data: what was claimed, what was measured, and how that compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normcheck.results.report import Tool  # noqa: TC001  # read at run time, for the schema

FORMAT: Literal[1] = 1
"""Version of the JSON of a `Reproduction`: raised when a field is renamed or removed, not when one is added."""

Standing = Literal["reproduced", "not reproduced", "not comparable at this size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim and what became of it.

    `claim`: in one sentence. `published`: the paper's own figure, and where it is from; None where it has none.
    `measured`: ours, as text, with seeds and spread. `standing`: as measured. `by`: the criterion, fixed before the
    run. `reason`: why the two differ, where they do, and whether that is measured or a guess.
    """

    claim: str
    published: str | None
    measured: str
    standing: Standing
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a plot.

    `name`: for the legend. `x`: places. `y`: a value at each; the mean, of several seeds. `low`: the least over the
    seeds at each place; empty without a band. `high`: the largest, likewise.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A plot of lines.

    `name`: of its file, after the experiment's name and without an ending. `title`: above it. `x_label`: of the
    horizontal axis. `y_label`: of the vertical one. `series`: the lines. `log_x`: whether the horizontal axis is
    logarithmic. `log_y`: whether the vertical one is.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a map: what was measured there, and what the simulator says of it.

    `x`: where it is on the horizontal axis. `y`: on the vertical one. `values`: what was measured, one a seed. `fails`:
    whether that is a failure, by the criterion of the experiment. `step`: the failing step that the simulator names;
    None where it names none. `predicted`: whether the simulator says that it fails. `agrees`: whether the two agree.
    """

    x: float
    y: float
    values: tuple[float, ...]
    fails: bool
    step: str | None
    predicted: bool
    agrees: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A map of cells over two axes, such as element counts and activation scales, for one way of computing.

    `name`: of its file, after the experiment's name and without an ending. `title`: above it. `x_label`: of the
    horizontal axis. `y_label`: of the vertical one. `value_label`: what the values are. `cells`: those that were run.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    value_label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment: what was run, what became of each claim, and its plots.

    `name`: as it is asked for. `title`: in a line. `setup`: model, data and steps, in words. `seeds`: those that were
    run. `claims`: each with its standing. `curves`: plots of lines. `maps`: plots of cells. `facts`: the figures behind
    the claims, by name. `seconds`: how long it took, which differs from run to run.
    """

    name: str
    title: str
    setup: str
    seeds: tuple[int, ...]
    claims: tuple[Claim, ...]
    curves: tuple[Curves, ...] = ()
    maps: tuple[HeatMap, ...] = ()
    facts: dict[str, Any]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What `normcheck reproduce` writes.

    `format`: version of this format. `tool`: what wrote it. `environment`: versions and machine. `quick`: whether it
    is the short form, of fewer seeds and steps. `experiments`: those that were run.
    """

    format: Literal[1]
    tool: Tool
    environment: dict[str, str]
    quick: bool
    experiments: tuple[Experiment, ...]
