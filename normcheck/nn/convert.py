"""Norms of torch in a model replaced by those of this package, with their parameters: `convert`."""

from __future__ import annotations

import copy
import fnmatch
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from normcheck.errors import UsageError, unknown_name
from normcheck.layers.live.modules import check_module, named_modules, norms_of, unwrapped
from normcheck.layers.live.torch_functions import epsilon_of_none
from normcheck.nn.batch import BatchNorm
from normcheck.nn.choice import ChosenNorm
from normcheck.nn.convert_calls import calls_of
from normcheck.nn.convert_counterparts import CLASSES, counterpart, norm_of, why_kept
from normcheck.nn.convert_running import recalibrate
from normcheck.norms.table import STATISTICS, StatisticName, norm_named
from normcheck.results import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from normcheck.nn.convert_calls import Calls
    from normcheck.nn.convert_running import Tick
    from normcheck.norms.constants import Kind
    from normcheck.norms.table import Norm

Eps = Literal["comparable", "same"] | float
Where = Literal["batch", "layer", "rms", "group", "instance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What norms are converted to, and which; see `convert`.

    Raises:
        UsageError: a setting that cannot be.
    """

    statistic: StatisticName = "l1"
    constant: Kind = "exact"
    k: int = 10
    eps: Eps = "comparable"
    where: tuple[str, ...] = ("batch",)
    layers: tuple[str, ...] = ("*",)

    @property
    def norm(self) -> str:
        """The name of the first kind of norm that they convert to."""
        where, uncentred = ("layer", True) if self.where[0] == "rms" else (self.where[0], False)
        return norm_named(f"{where}-{self.statistic}{'-uncentred' if uncentred else ''}").name

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.statistic not in STATISTICS:
            raise unknown_name("statistic", str(self.statistic), STATISTICS, "normcheck norms")
        unknown = [where for where in self.where if where not in get_args(Where)]
        if unknown or not self.where:
            known = ", ".join(get_args(Where))
            raise UsageError(f"where: expected some of {known}, received {unknown or self.where}")
        is_number = isinstance(self.eps, int | float) and not isinstance(self.eps, bool)
        if self.eps not in ("comparable", "same") and not (is_number and 0 <= float(self.eps) < math.inf):
            raise UsageError(f"eps: expected 'comparable', 'same' or a number of at least 0, received {self.eps!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Which norms of a model are converted, by name, and which are not, and why."""

    chosen: dict[str, nn.Module]
    skipped: tuple[Skipped, ...]


def convert(
    model: nn.Module,
    statistic: StatisticName = "l1",
    *,
    calibrate: Any = None,
    constant: Kind = "exact",
    k: int = 10,
    eps: Eps = "comparable",
    where: Sequence[Where] | Where = ("batch",),
    layers: Sequence[str] | str = ("*",),
    inplace: bool = False,
) -> nn.Module:
    """Replace norms by those of another statistic, and measure their running statistics anew.

    gamma, beta (the same Parameter objects: tied ones stay tied, and optimizers keep theirs where `inplace`), momentum,
    flags, types, devices, the training flag and hooks on forward and backward passes are carried over. A norm that
    several places share is replaced by one that they share.

    Running mean and statistic of batch norms are measured on `calibrate`, see
    `normcheck.nn.convert_running.recalibrate`. Without it the mean is copied and the statistic is sqrt(running_var),
    which is right for Gaussian inputs of each channel alone; a warning says so, unless the norm has seen no batch yet.

    Replaced are torch's BatchNorm1d, 2d and 3d, LayerNorm, RMSNorm, GroupNorm and InstanceNorm1d, 2d and 3d, and those
    of `normcheck.nn`. Left as they are, with a reason in `conversion_of`: subclasses (SyncBatchNorm too), instance
    norms with running statistics, reparametrised norms, norms with hooks on their state dict, hand-written ones.

    Args:
        model: what to convert; a copy is, unless `inplace`.
        statistic: l2, l1, linf, topk or range.
        calibrate: batches as of `normcheck.nn.convert_calls.calls_of`: a tensor, or a loader of tensors or of pairs
            that begin with one. Needed for batch norms alone.
        constant: ``exact`` or ``paper``. k: of topk.
        eps: ``comparable`` for the same floor under the deviation: the root of an eps on the variance, and the square
            where l2 is what is converted to; ``same`` for the same number; or the number.
        where: which kinds of norms. layers: patterns of their names, as ``features.*``.
        inplace: change `model` itself, whose old norms are then not to be used any more. Data that the model does not
            take leave it converted, with running statistics as without data.

    Returns:
        The converted model.

    Raises:
        UsageError: a setting that cannot be, nothing to convert, a model that is scripted, lazy, on the meta device, or
            within DataParallel or torch.compile; what `recalibrate` raises; the published constant of linf, topk or
            range without data, which depends on the size of batches.
    """
    settings = Settings(
        statistic=statistic, constant=constant, k=k, eps=eps, where=_several(where), layers=_several(layers)
    )
    calls = None if calibrate is None else calls_of(calibrate)
    if not inplace:
        check_convertible(model)
        model = copy.deepcopy(model)
    converted, guessed = converted_by(model, settings, calls)
    if guessed:
        warnings.warn(said_of(guessed), stacklevel=2)
    return converted


def converted_by(
    model: nn.Module, settings: Settings, calls: Calls | None, tick: Tick | None = None
) -> tuple[nn.Module, list[str]]:
    """Convert a model in place; return it, and the norms whose running statistics are roots of variances.

    Raises:
        UsageError: see `convert`.
    """
    plan = planned(model, settings)
    if not plan.chosen:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in plan.skipped[:3])
        wanted = " or ".join(settings.where)
        none = f"none of the {wanted} norms can be: {reasons}" if reasons else f"the model has no {wanted} norm"
        raise UsageError(f"nothing to convert: {none}")
    new = {id(old): _replacement(name, old, settings, calls is not None) for name, old in plan.chosen.items()}
    model = _with(model, new)
    batch = {name: new[id(old)] for name, old in plan.chosen.items()}
    running = {name: m for name, m in batch.items() if isinstance(m, BatchNorm) and m.running_mean is not None}
    guessed = list(running)
    if calls is not None and running:
        guessed = recalibrate(model, running, calls, tick)
    return model, [name for name in guessed if _has_run(running[name])]


def planned(model: nn.Module, settings: Settings) -> Plan:
    """Return which norms of a model are converted, and which are not, and why.

    Raises:
        UsageError: see `convert`; a pattern that matches no norm.
    """
    check_convertible(model)
    found, omitted = norms_of(model)
    chosen: dict[str, nn.Module] = {}
    skipped = [Skipped(name=item.name, reason=item.reason) for item in omitted]
    _check_patterns([item.stated.name for item in found], settings.layers)
    for item in found:
        name = item.stated.name
        if where_of(item.stated.norm) not in settings.where:
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.layers):
            reason = f"it matches none of {', '.join(settings.layers)}"
        else:
            reason = why_kept(item.module, item.stated.norm, settings.statistic, settings.constant, settings.k)
        if reason:
            skipped.append(Skipped(name=name, reason=reason))
        else:
            chosen[name] = item.module
    return Plan(chosen, tuple(skipped))


def check_convertible(model: nn.Module) -> None:
    """Refuse what is no model that norms can be replaced in.

    Raises:
        UsageError: see `convert`.
    """
    check_module(model)
    if unwrapped(model) is not model or any(type(m).__name__ == "OptimizedModule" for m in model.modules()):
        raise UsageError(f"{type(model).__name__}: convert the model before it is wrapped or compiled")


def settings_for(to: str, *, constant: Kind, k: int, eps: Eps, layers: Sequence[str] = ()) -> Settings:
    """Return the settings that convert norms to the one of that name, as ``batch-l1`` or ``layer-l1-uncentred``.

    Raises:
        UsageError: no such norm, one that no module computes, or settings that cannot be.
    """
    norm = norm_named(to)
    where = where_of(norm)
    if where not in get_args(Where):
        known = "batch-l1, layer-l1, layer-l1-uncentred (of RMS norms), group-l1 or instance-l1, or another statistic"
        raise UsageError(f"{norm.name} cannot be converted to: choose as {known}")
    statistic = norm.statistic.name
    return Settings(
        statistic=statistic, constant=constant, k=k, eps=eps, where=(where,), layers=tuple(layers) or ("*",)
    )


def said_of(guessed: Sequence[str]) -> str:
    """Return the warning about running statistics that were not measured."""
    more = f" and {len(guessed) - 3} more" if len(guessed) > 3 else ""
    return (
        f"running statistics of {', '.join(guessed[:3])}{more} are sqrt(running_var), which is right for Gaussian "
        "inputs alone: calibrate on data"
    )


def _several(names: Sequence[str] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def where_of(norm: Norm) -> str:
    """Return the word of `Where` for a norm; of norms that no module computes another one."""
    return norm.where if norm.centred else "rms" if norm.where == "layer" else f"{norm.where}-uncentred"


def _check_patterns(names: Sequence[str], patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if names and not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UsageError(f"no norm matches {pattern!r}; the norms are {few}")


def _replacement(name: str, old: Any, settings: Settings, measured: bool) -> ChosenNorm:
    eps = eps_after(old, settings)
    new = counterpart(old, settings.statistic, settings.constant, settings.k, eps)
    if isinstance(new, BatchNorm) and old.running_mean is not None:
        statistic = old.get_buffer(old.running_key if isinstance(old, BatchNorm) else "running_var")
        before = norm_of(old).statistic.name
        if not measured and _has_run(new) and not _is_known(old, before, settings):
            raise UsageError(
                f"{name}: the published constants of linf, topk and range depend on the size of batches, which running "
                f"statistics do not tell: calibrate on data, or take constant='exact'"
            )
        new.register_buffer(new.running_key, moved_statistic(statistic, before, settings.statistic))
    return new


def _is_known(old: Any, before: StatisticName, settings: Settings) -> bool:
    """Whether a running value, but for its root, is of the scale of the new one: an estimate of the deviation."""
    free = ("l2", "l1")
    kinds = [getattr(old, "constant", "exact") if before not in free else "exact"]
    kinds += [settings.constant if settings.statistic not in free else "exact"]
    return kinds == ["exact", "exact"]


def moved_statistic(value: torch.Tensor, before: str, after: str) -> torch.Tensor:
    """Return a running value of one statistic as that of another for Gaussian inputs: only l2's is a variance."""
    wide = value.detach().to(torch.promote_types(value.dtype, torch.float32))
    if "l2" in (before, after) and before != after:
        wide = wide.clamp_min(0).sqrt() if before == "l2" else wide.square()
    return wide.to(value.dtype, copy=True)


def eps_after(old: Any, settings: Settings) -> float | None:
    """Return the eps of the norm that takes the place of `old`; None where torch's RMS norm keeps its None."""
    before = norm_of(old).statistic.name
    if old.eps is None and (
        settings.eps == "same" or STATISTICS[before].eps_on == STATISTICS[settings.statistic].eps_on
    ):
        return None
    return moved_eps(eps_of(old), before, settings)


def moved_eps(eps: float, before: str, settings: Settings) -> float:
    """Return the eps of a norm that takes the place of one of another statistic with that eps."""
    if not isinstance(settings.eps, str):
        return float(settings.eps)
    old, new = STATISTICS[before].eps_on, STATISTICS[settings.statistic].eps_on
    if settings.eps == "same" or old == new:
        return eps
    return math.sqrt(eps) if old == "variance" else eps**2


def eps_of(norm: Any) -> float:
    """Return the eps of a norm; of an RMS norm without one, what is computed with."""
    given: float | None = norm.eps
    return epsilon_of_none(None if norm.weight is None else norm.weight.dtype) if given is None else given


def _has_run(norm: BatchNorm) -> bool:
    """Whether running statistics are of data: a new norm's are 0 and 1, and nothing is lost with them."""
    tracked = norm.num_batches_tracked
    moved = bool((norm.get_buffer("running_mean") != 0).any()) if norm.running_mean is not None else False
    return moved or (tracked is not None and int(tracked) > 0)


def _with(model: nn.Module, new: dict[int, ChosenNorm]) -> nn.Module:
    """Put modules in the place of others, by the identity of these, wherever they are."""
    if id(model) in new:
        return new[id(model)]
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # noqa: SLF001  # named_children leaves shared ones out
            if id(child) in new:
                setattr(parent, name, new[id(child)])
    return model


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norm modules of a model that have a statistic, by the names that reports give them."""
    return {name: m for name, m in named_modules(model) if type(m) in CLASSES or isinstance(m, ChosenNorm)}
