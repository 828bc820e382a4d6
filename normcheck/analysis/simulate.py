"""`simulate`: norms on a synthetic activation distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from normcheck.analysis.assemble import Labels, Outcome, Plan, assemble
from normcheck.analysis.backward import incoming_of
from normcheck.analysis.reporting import report_of
from normcheck.analysis.rules import policy
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.formats import Format, format_named
from normcheck.arithmetic.orders import Order, check_lanes, order_named
from normcheck.arithmetic.rounding import Mode, Rounding
from normcheck.errors import UsageError, unknown_name
from normcheck.layers.distributions import parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.catalogue import choices, names_of
from normcheck.norms.constants import scale_of
from normcheck.norms.implementations import Implementation, default_implementations
from normcheck.norms.parameters import Parameters, Storage, storage_form, storage_named
from normcheck.norms.table import Grouping, Norm, grouping, norm_named
from normcheck.results import Report, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from normcheck.arithmetic.emulated import Machine

ModeName = Literal["train", "eval"]
ConstantKind = Literal["exact", "paper"]


def simulate(
    *,
    distribution: str = "gaussian",
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    precisions: Sequence[str] = ("fp16",),
    norms: Sequence[str] = ("batch-l2",),
    implementations: Sequence[str | Implementation] = (),
    shape: tuple[int, ...] = (32, 64, 28, 28),
    num_groups: int | None = None,
    mode: ModeName = "train",
    eps: float = 1e-5,
    eps_comparable: bool = False,
    constant: ConstantKind = "exact",
    k: int = 10,
    rounding: Mode = "nearest-even",
    order: str | None = None,
    simd: int | None = None,
    ftz: bool = False,
    daz: bool = False,
    params: str = "half",
    backward: bool = False,
    loss_scale: float = 1.0,
    grad_dist: str = "gaussian",
    grad_std: float = 1.0,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    severity: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    thresholds: Mapping[str, float] | Sequence[tuple[str, float]] = (),
    jobs: int | None = None,
    progress: Callable[[float], None] | None = None,
    watch: Callable[[Plan, Outcome], None] | None = None,
) -> Report:
    """Simulate norms on a synthetic tensor and return the report.

    Every norm, precision and implementation sees the same tensor, of `shape` in torch's layout.

    Args:
        distribution: such as ``"gaussian"`` or ``"student-t(df=4)"``; `normcheck distributions` lists them.
        mean, std: location and scale of the elements. seed: of the random numbers (also of stochastic rounding).
        precisions: names of formats. norms: names. implementations: names or rows of one's own; without any, each
            precision's default.
        shape: (N, C, ...) or (..., D). num_groups: of group norms; 32 or the largest divisor of C below it.
        mode: ``"eval"`` uses the distribution's own mean and deviation as running statistics (batch norm only).
        eps: added to the variance, or to the statistic. eps_comparable: statistics get sqrt(eps), the same floor.
        constant: of l1, linf, topk and range: unbiased on Gaussians, or the paper's. k: of topk.
        rounding, ftz, daz: of every operation. order: of every sum, instead of each implementation's own.
        simd: float32 lanes of CPU vectors, for implementations whose sums depend on them; this machine's unless told.
        params: where running statistics live: half, autocast, half-except-norms, io, float32 or stored.
        backward: also run the backward pass. grad_dist, grad_std: distribution and scale of the gradient that arrives
            at the output, drawn with the next seed. loss_scale: what it is multiplied by before it is stored. The
            gradients of gamma and beta are computed as of 1 and 0.
        select, ignore, severity, thresholds: which rules are in force, and how: see `analysis.policy.policy_of`.
        jobs: threads; all processors unless given. The report does not depend on it.
        progress: called with the fraction done. watch: called with each result, and with the plan that led to it.

    Raises:
        UsageError: a name or value that cannot be used, or a combination that contradicts itself.
    """
    settings = {name: value for name, value in locals().items() if name not in ("progress", "watch", "jobs")}
    _check(shape, eps, mode, constant, k, jobs)
    check_lanes(simd)
    rules = policy(select, ignore, severity, thresholds)
    rounds = Rounding(rounding, None, ftz, daz, seed)
    source = Synthetic(parse_distribution(distribution), mean, std, seed)
    storage, association = storage_named(params), None if order is None else order_named(order)
    common = _Common(
        source, shape, num_groups, mode, eps, eps_comparable, constant, k, rounds, association, simd, storage, params
    )
    incoming = incoming_of(
        backward=backward, loss_scale=loss_scale, grad_dist=grad_dist, grad_std=grad_std, seed=seed, analyzed=False
    )
    plans, skipped = _plans(common, _unique(norms, "norm"), _unique(precisions, "precision"), implementations)
    outcomes: list[Outcome] = []
    for place, plan in enumerate(plans):

        def report(fraction: float, place: int = place) -> None:
            if progress is not None:
                progress((place + fraction) / len(plans))

        ran = assemble(plan.study, plan.labels, rounds, jobs=jobs, progress=report, policy=rules, incoming=incoming)
        outcomes += ran
        if watch is not None:
            for outcome in ran:
                watch(replace(plan, incoming=incoming), outcome)
    return report_of(
        "simulate",
        settings | {"distribution": str(source.distribution), "implementations": names_of(implementations)},
        jobs,
        results=[outcome.result for outcome in outcomes],
        findings=[finding for outcome in outcomes for finding in outcome.findings],
        skipped=skipped,
        ignored=sum(outcome.ignored for outcome in outcomes),
    )


@dataclass(frozen=True, slots=True)
class _Common:
    """Settings that all studies of a simulation share."""

    source: Synthetic
    shape: tuple[int, ...]
    num_groups: int | None
    mode: ModeName
    eps: float
    eps_comparable: bool
    constant: ConstantKind
    k: int
    rounding: Rounding
    order: Order | None
    simd: int | None
    storage: Storage
    params: str


def _check(shape: tuple[int, ...], eps: float, mode: str, constant: str, k: int, jobs: int | None) -> None:
    if any(d < 1 for d in shape) or not shape:
        raise UsageError(f"shape {','.join(map(str, shape))}: every dimension must be at least 1")
    if not (eps >= 0 and math.isfinite(eps)):
        raise UsageError(f"eps must be finite and not negative, received {eps:g}")
    if mode not in get_args(ModeName):
        raise unknown_name("mode", mode, get_args(ModeName), "normcheck simulate --help")
    if constant not in get_args(ConstantKind):
        raise unknown_name("constant", constant, get_args(ConstantKind), "normcheck simulate --help")
    if k < 1:
        raise UsageError(f"k must be at least 1, received {k}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs must be at least 1, received {jobs}")


def _unique(names: Sequence[str], what: str) -> list[str]:
    out = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if not out:
        raise UsageError(f"no {what} given: name at least one")
    return out


def _plans(
    common: _Common, norms: list[str], precisions: list[str], implementations: Sequence[str | Implementation]
) -> tuple[list[Plan], list[Skipped]]:
    plans, skipped = [], []
    asked = choices(implementations)
    for norm in dict.fromkeys(map(norm_named, norms)):
        group = grouping(norm, common.shape, common.num_groups)
        for io in dict.fromkeys(map(format_named, precisions)):
            param = storage_form(common.storage, io)
            chosen = asked or choices(default_implementations(io))
            rows, without = chosen_rows(chosen, norm, io, param, group, common.mode)
            skipped += [Skipped(name=f"{norm.name} {io.label} {name}", reason=reason) for name, reason in without]
            if rows:
                plans.append(_plan(common, norm, group, io, rows))
    return plans, skipped


def _plan(common: _Common, norm: Norm, group: Grouping, io: Format, rows: list[Implementation]) -> Plan:
    _check_norm(common, norm, group)
    scale, k = scale_of(norm, common.constant, group.size, common.k)
    comparable = common.eps_comparable and norm.statistic.eps_on == "statistic"
    eps = 0.0 if norm.is_weight else (math.sqrt(common.eps) if comparable else common.eps)
    given = _parameters(common, norm, group)
    stored = given.cast(common.storage, io, common.rounding)
    param = stored.form or io
    runners = tuple(Runner(row, _machine(row, io, param, common, group)) for row in rows)
    study = Study(norm, group, io, common.source, eps, scale, k or 1, given, stored, runners)
    labels = Labels(
        layer=None,
        precision=io.label,
        mode=common.mode,
        params=common.params,
        constant=common.constant if norm.has_constant else None,
        k=k,
        eps_source="option",
        source=common.source.label,
        assumed=False,
    )
    return Plan(study, labels)


def _machine(row: Implementation, io: Format, param: Format, common: _Common, group: Grouping) -> Machine:
    return row.machine(io, param, common.rounding, common.order, group=group, simd=common.simd)


def _check_norm(common: _Common, norm: Norm, group: Grouping) -> None:
    if common.mode == "eval" and norm.where != "batch":
        raise UsageError(f"mode eval: {norm.name} has no running statistics, only batch norms do; leave --mode out")
    flat = common.source.std == 0 or common.source.distribution.moments[1] == 0
    if norm.is_weight and flat and common.source.mean == 0:
        raise UsageError(
            f"{norm.name}: a weight vector of zeros has no direction; give --std or --mean a value other than 0"
        )
    if group.size == 1 and norm.centred:
        raise UsageError(
            f"shape {','.join(map(str, common.shape))}: {norm.name} would normalise single elements "
            "(n = 1), which leaves zeros; "
            "give a shape with at least 2 elements a row"
        )


def _parameters(common: _Common, norm: Norm, group: Grouping) -> Parameters:
    """Running statistics of the distribution in eval mode, else none; no affine step.

    Weight norm has g = 1; bounded weight norm the rho that the tensor's expected norm gives, ||V||_F / sqrt(N).
    """
    center, deviation = common.source.distribution.moments
    mean, std = common.source.mean + common.source.std * center, common.source.std * deviation
    if norm.where == "bounded-weight":
        power = {"l2": 0.5, "l1": 1.0, "linf": 0.0}[norm.statistic.name]
        return Parameters(weight=np.array([math.hypot(std, mean) * group.size**power]))
    if norm.where == "weight":
        return Parameters(weight=np.ones(group.groups))
    if common.mode == "train":
        return Parameters()
    if not math.isfinite(mean + std):
        raise UsageError(f"mode eval: {common.source.label} has no finite mean and variance; use mode train")
    spread = std**2 if norm.statistic.name == "l2" else std
    channels = np.ones(group.channels)
    return Parameters(running_mean=mean * channels if norm.centred else None, running_statistic=spread * channels)


__all__ = ["simulate"]
