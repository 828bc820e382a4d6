"""`emulate`: one norm on an array of the user's, in low precision, with its output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcheck.analysis.engine import Block, column, run_block
from normcheck.analysis.headroom import headroom
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.formats import FLOAT32, format_named, holds
from normcheck.arithmetic.orders import check_lanes, order_named
from normcheck.arithmetic.rounding import Mode, Rounding, round_to
from normcheck.errors import UsageError
from normcheck.layers.sources import Given
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.catalogue import choices
from normcheck.norms.constants import scale_of
from normcheck.norms.parameters import Parameters, check_lengths, storage_named
from normcheck.norms.table import Grouping, Norm, grouping, norm_named

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.values import PerRow
    from normcheck.norms.forward import Outputs
    from normcheck.norms.implementations import Implementation
    from normcheck.results import Deviation, Headroom, Rows, Statistic, Step, WorstRow

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Emulation:
    """What an emulated norm yields; the items have the names of the report's fields.

    output: as the input is shaped; float32 where that holds the io format, else float64. running_mean, running_var:
    updated, where they were given in train mode. mean, rstd: of each row, the mean and 1/s as the kernel keeps them;
    None where the norm is not centred, or the elements are divided by s. study: what was run, for who asks more of it.
    """

    output: Array
    steps: tuple[Step, ...]
    rows: Rows
    worst_rows: tuple[WorstRow, ...]
    statistic: Statistic
    deviation: Deviation
    headroom: Headroom
    running_mean: Array | None = None
    running_var: Array | None = None
    mean: Array | None = None
    rstd: Array | None = None
    study: Study | None = field(default=None, repr=False)


def emulate(
    x: ArrayLike,
    norm: str,
    *,
    precision: str,
    implementation: str | Implementation = "pure",
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    num_groups: int | None = None,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    momentum: float = 0.1,
    mode: Literal["train", "eval"] = "train",
    params: str = "half",
    constant: Literal["exact", "paper"] = "exact",
    k: int = 10,
    rounding: Mode = "nearest-even",
    order: str | None = None,
    ftz: bool = False,
    daz: bool = False,
    seed: int = 0,
    residual: ArrayLike | None = None,
    simd: int | None = None,
    threads: int = 1,
) -> Emulation:
    """Compute a norm of `x` in low precision, as an implementation would, and count what goes wrong at each step.

    Args:
        x: float32 or float64 values in torch's shape for the norm: (N, C, ...) for batch, instance and group,
            (..., D) for layer and rms, (out, ...) for weight norms.
        norm: such as ``"batch-l2"``, ``"layer-l1"``, ``"rms"``. precision: the io format.
        implementation: the name of a row or of an alias, the path of a TOML file of rows, or an
            `Implementation` of one's own; of several rows the first that defines what is asked.
        weight, bias: gamma and beta, one per channel (per element of the last dimension for layer norms; g, or one
            rho, for weight norms).
        eps: added to the variance, or to the statistic. num_groups: of group norms.
        running_mean, running_var: of batch norms: used in eval mode, updated with `momentum` in train mode. For
            statistics other than l2, `running_var` is the statistic itself.
        params: where weight, bias and running statistics live: half, autocast, half-except-norms, io, float32, stored.
        constant, k: of l1, linf, topk and range. rounding, ftz, daz, seed: of every operation; order: of every sum.
        residual: shaped as `x`, rounded to the io format as `x` is, and added to it first.
        simd: float32 lanes of the vectors that an implementation's orders of width ``simd`` have; this machine's unless
            told. threads: how many share the sums of those orders that are told apart by that.

    Returns:
        The output, and per step the events; NaN, infinities and -0 propagate as the formats and formulas say.

    Raises:
        UsageError: a name, shape or value that cannot be used.
    """
    values = np.asarray(x)
    if values.dtype != np.float32:
        values = values.astype(np.float64, copy=False)
    what, io = norm_named(norm), format_named(precision)
    group = grouping(what, values.shape, num_groups)
    if constant not in ("exact", "paper"):
        raise UsageError(f"constant must be exact or paper, received {constant!r}")
    if not (eps >= 0 and math.isfinite(eps)):
        raise UsageError(f"eps must be finite and not negative, received {eps:g}")
    check_lanes(simd)
    rounds = Rounding(rounding, None, ftz, daz, seed)
    given = _parameters(what, group, mode, weight, bias, running_mean, running_var)
    _refuse_zero_vectors(what, values)
    stored = given.cast(storage_named(params), io, rounds)
    how = _row(implementation, what, io, stored.form, group, mode)
    association = None if order is None else order_named(order)
    machine = how.machine(io, stored.form or io, rounds, association, group=group, threads=threads, simd=simd)
    scale, terms = scale_of(what, constant, group.size, k)
    updates = mode == "train" and given.running_statistic is not None
    study = Study(
        what,
        group,
        io,
        Given.of(values, group),
        0.0 if what.is_weight else eps,
        scale,
        terms or 1,
        given,
        stored,
        (Runner(how, machine),),
        momentum if updates else None,
        residual=_residual(what, residual, values.shape, group, io, rounds),
    )
    return _run(study, values.shape)


def _row(
    implementation: str | Implementation, norm: Norm, io: Format, param: Format | None, group: Grouping, mode: str
) -> Implementation:
    rows, without = chosen_rows(choices(implementation), norm, io, param, group, mode)
    if not rows:
        raise UsageError(without[0][1])
    return rows[0]


def _residual(
    norm: Norm, residual: ArrayLike | None, shape: tuple[int, ...], group: Grouping, io: Format, rounding: Rounding
) -> Given | None:
    """What is added to the input, in the io format."""
    if residual is None:
        return None
    if norm.is_weight:
        raise UsageError(f"{norm.name} has no residual")
    values = np.asarray(residual, dtype=np.float64)
    if values.shape != shape:
        raise UsageError(f"residual: expected the input's shape {shape}, received {values.shape}")
    return Given.of(round_to(values, io, overflow=rounding.overflow, ftz=rounding.ftz).astype(carrier(io)), group)


def arranged(rows: Array, group: Grouping, shape: tuple[int, ...]) -> Array:
    """Return rows (groups, size) in the layout of the tensor that they are of."""
    if group.contiguous:
        return rows.reshape(shape)
    split = rows.reshape(group.groups, -1, group.inner)
    return np.ascontiguousarray(split.transpose(1, 0, 2)).reshape(shape)


def rows_of(x: Array, group: Grouping) -> Array:
    """Return the rows (groups, size) of a tensor: what `arranged` undoes."""
    if group.contiguous:
        return x.reshape(group.groups, group.size)
    split = x.reshape(-1, group.groups, group.inner)
    return np.ascontiguousarray(split.transpose(1, 0, 2)).reshape(group.groups, group.size)


def carrier(io: Format) -> type[np.float32 | np.float64]:
    """Return the type of arrays that hold numbers of a format."""
    return np.float32 if holds(FLOAT32, io) else np.float64


def _run(study: Study, shape: tuple[int, ...]) -> Emulation:
    group, total = study.grouping, None
    out = np.empty((group.groups, group.size), carrier(study.io))
    running: list[tuple[Array | None, Array]] = []
    saved: list[tuple[Array | None, Array | None]] = []
    for start, stop in study.blocks():

        def keep(outputs: Outputs, start: int = start, stop: int = stop) -> None:
            column = 0
            for index in range(outputs.y.parts):
                part = outputs.y.part(index)
                out[start:stop, column : column + part.shape[1]] = part
                column += part.shape[1]
            saved.append((_each(outputs.saved[0], stop - start), _each(outputs.saved[1], stop - start)))
            if outputs.running is not None:
                mean, statistic = outputs.running
                running.append((None if mean is None else mean.data[:, 0].copy(), statistic.data[:, 0].copy()))

        block = run_block(study, start, stop, keep=keep)
        total = _added(total, block)
    assert total is not None  # noqa: S101  # a grouping has at least one row
    t = total.totals[0]
    means = [mean for mean, _ in running if mean is not None]
    return Emulation(
        arranged(out, group, shape),
        tuple(s.step(name) for name, s in t.steps.items()),
        t.rows(),
        tuple(t.worst),
        t.statistic(),
        t.deviation(),
        headroom(t),
        np.concatenate(means) if means else None,
        np.concatenate([var for _, var in running]) if running else None,
        _joined([mean for mean, _ in saved]),
        _joined([rstd for _, rstd in saved]),
        study,
    )


def _each(value: PerRow | None, rows: int) -> Array | None:
    return None if value is None else column(value, rows).copy()


def _joined(blocks: list[Array | None]) -> Array | None:
    known = [block for block in blocks if block is not None]
    return np.concatenate(known) if known else None


def _added(total: Block | None, block: Block) -> Block:
    if total is None:
        return block
    total.totals[0].merge(block.totals[0])
    return total


def _parameters(
    norm: Norm,
    group: Grouping,
    mode: str,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
) -> Parameters:
    def vector(x: ArrayLike | None) -> Array | None:
        return None if x is None else np.atleast_1d(np.asarray(x, dtype=np.float64)).reshape(-1)

    if mode not in ("train", "eval"):
        raise UsageError(f"mode must be train or eval, received {mode!r}")
    keeps = running_mean is not None or running_var is not None
    if keeps and norm.where != "batch":
        raise UsageError(f"{norm.name} has no running statistics; batch norms do")
    if (keeps or mode == "eval") and (running_var is None or (norm.centred and running_mean is None)):
        raise UsageError(f"{norm.name}: {mode} mode with running statistics needs running_mean and running_var")
    if bias is not None and norm.is_weight:
        raise UsageError(f"{norm.name} has no bias")
    parameters = Parameters(vector(weight), vector(bias), vector(running_mean), vector(running_var))
    check_lengths(parameters, group, norm)
    return parameters


def _refuse_zero_vectors(norm: Norm, values: Array) -> None:
    if not norm.is_weight:
        return
    zero = np.flatnonzero(~values.reshape(len(values), -1).any(axis=1))
    if zero.size:
        raise UsageError(
            f"{norm.name}: the weight vector of output channel {zero[0]} is all zeros, which has no direction (0/0)"
        )


__all__ = ["Emulation", "emulate"]
