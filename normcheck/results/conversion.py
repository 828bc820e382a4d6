"""What converting a model's norms changed, layer by layer, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normcheck.results.report import Skipped, Tool  # noqa: TC001  # read at run time, for the schema


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedLayer:
    """One norm that was replaced.

    `layer`: its name. `before`: the norm it was. `after`: the norm it is. `eps_before`: its eps, on the variance for
    l2 and on the statistic for all others. `eps`: that of the new norm. `constant`: of the new statistic; None for l2.
    `k`: of topk; None for all others. `change`: relative rms difference of its output where both models see the same
    input, so that the changes of all norms before it are in it; None where no input was run or it was not reached.
    `own_change`: the same where it sees the input that the old norm saw: what it contributes itself.
    """

    layer: str
    before: str
    after: str
    eps_before: float
    eps: float
    constant: str | None
    k: int | None
    change: float | None
    own_change: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How many samples were classified right.

    `before`: by the model as it was. `after`: by the converted one. `of`: samples with a class.
    """

    before: int
    after: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What converting a model's norms changed, both models in evaluation.

    `layers`: those converted, the most changed output first. `skipped`: norms that were left as they are, and why.
    `samples`: how many were run to measure the changes; 0 without input. `change`: relative rms difference of the
    model's output; None where nothing was run or the output holds no floating-point tensor. `accuracy`: None without
    classes.
    """

    layers: tuple[ConvertedLayer, ...]
    skipped: tuple[Skipped, ...]
    samples: int
    change: float | None
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReport:
    """What `normcheck convert` writes.

    `format`: 1. `tool`: the program that wrote it. `environment`: versions and machine. `checkpoint`: the file that was
    read. `to`: the norm that was asked for. `out`: the file that was written. `model`: what built the model; None where
    the file was converted alone. `calibrated_on`: in words. `input`: what changes were measured on; None without.
    `conversion`: what changed.
    """

    format: Literal[1]
    tool: Tool
    environment: dict[str, Any]
    checkpoint: str
    to: str
    out: str
    model: str | None
    calibrated_on: str
    input: str | None
    conversion: Conversion
