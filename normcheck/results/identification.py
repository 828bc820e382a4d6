"""Which implementation computed an output, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normcheck.results.report import Skipped, Tool  # noqa: TC001  # read at run time, for the schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Where a candidate and the real kernel part, told from the rows that differ.

    `step`: where most of the rows looked at part: "mean", "variance" (or what follows from it, up to 1/s), or
    "normalize" (the elements' own steps: normalize, gain, bias, store), the earlier one of two with as many rows; None
    where no row was looked at. `rows`: how many rows that differ were looked at. `by_mean`: those that become identical
    with a mean a few units in the last place away (and a variance to go with it). `by_variance`: those that become so
    with another variance alone. `by_elements`: all others.
    """

    step: str | None
    rows: int
    by_mean: int
    by_variance: int
    by_elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One implementation beside the real kernel's output.

    `implementation`: its name. `status`: how well the row is known. `compared`: elements; fewer than the output has
    where the row was not among the nearest on the first of them. `identical`: those of the same value, NaN with NaN and
    0 with -0. `share`: of identical elements. `zero_signs`: zeros whose sign differs. `max_ulp`: the largest distance,
    in numbers of the output's format. `parting`: where they part; None where all is identical, and for all but the
    nearest, where it was not looked for.
    """

    implementation: str
    status: str
    compared: int
    identical: int
    share: float
    zero_signs: int
    max_ulp: float
    parting: Parting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What sets the nearest implementation apart from the next one.

    `implementation`: the next one. `step`: the first step whose results differ on this input; None where all agree.
    """

    implementation: str
    step: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What `normcheck identify` writes.

    `format`: 1. `tool`: the program that wrote it. `environment`: versions and machine. `input`: what was given as
    input. `output`: what was given as output. `norm`: the norm. `precision`: format of input and output. `why`: why
    that format, where it was told from the numbers of wider files; else empty. `params`: where gamma and beta live.
    `eps`: of the norm. `shape`: of the arrays. `num_groups`: of a group norm; else None. `candidates`: the nearest
    first. `contrast`: None where there is one candidate only. `skipped`: implementations that were not tried, and why.
    """

    format: Literal[1]
    tool: Tool
    environment: dict[str, Any]
    input: str
    output: str
    norm: str
    precision: str
    why: str
    params: str
    eps: float
    shape: tuple[int, ...]
    num_groups: int | None
    candidates: tuple[Candidate, ...]
    contrast: Contrast | None
    skipped: tuple[Skipped, ...]
