"""Experiments on the claims of the paper as data: what was claimed, what was measured, and how that compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normcheck.results.report import Tool  # noqa: TC001  # read at run time, for the schema

Standing = Literal["reproduced", "not reproduced", "not comparable at this size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim and what became of it.

    `claim`: in one sentence. `published`: the paper's own figure, and where it is from; None where it has none.
    `measured`: ours, as text, with seeds and spread. `standing`: as measured, by the criterion `by`, which is fixed
    before the run. `reason`: why the two differ, where they do; it says whether that is measured or a guess.
    """

    claim: str
    published: str | None
    measured: str
    standing: Standing
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a plot: y over x, with a band from `low` to `high` over the seeds where there are several."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A plot of lines. `name` is that of its file, without an ending."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a map: what was measured there, what the simulator says of it, and whether the two agree.

    `values`: one a seed. `step`: the failing step that the simulator names; None where it names none.
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
    """A map of cells over two axes, such as element counts and activation scales, for one way of computing."""

    name: str
    title: str
    x_label: str
    y_label: str
    value_label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment: its letter and name, what was run, what became of each claim, and its plots.

    `setup`: model, data, steps, seeds, in words. `facts`: the figures behind the claims, by name, for JSON.
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
    """What `normcheck reproduce` writes. `quick`: the short form, of fewer seeds and steps."""

    format: Literal[1]
    tool: Tool
    environment: dict[str, str]
    quick: bool
    experiments: tuple[Experiment, ...]
