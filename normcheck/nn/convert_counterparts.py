"""Which module of this package stands for which norm of torch, and how one takes the other's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from normcheck.nn import batch, by_sample
from normcheck.nn.choice import ChosenNorm
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    import torch

    from normcheck.norms.constants import Kind
    from normcheck.norms.table import Norm, StatisticName

CLASSES: dict[type[nn.Module], type[ChosenNorm]] = {
    nn.BatchNorm1d: batch.BatchNorm1d,
    nn.BatchNorm2d: batch.BatchNorm2d,
    nn.BatchNorm3d: batch.BatchNorm3d,
    nn.LayerNorm: by_sample.LayerNorm,
    nn.RMSNorm: by_sample.RMSNorm,
    nn.GroupNorm: by_sample.GroupNorm,
    nn.InstanceNorm1d: by_sample.InstanceNorm1d,
    nn.InstanceNorm2d: by_sample.InstanceNorm2d,
    nn.InstanceNorm3d: by_sample.InstanceNorm3d,
}
"""Torch's norms, and what takes their place. Subclasses are other norms: their forward may do something else."""

_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
"""Torch has no other way to ask for a module's hooks. The same dicts are kept, so that handles still remove them."""

_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def norm_of(module: nn.Module) -> Norm:
    """Return the norm of a module of `CLASSES`, or of this package."""
    if isinstance(module, ChosenNorm):
        return module.norm
    ours = CLASSES[type(module)]
    return norm_named(f"{ours.where}-l2" if ours.centred else "rms")


def why_kept(module: Any, norm: Norm, statistic: StatisticName, constant: Kind, k: int) -> str:
    """Return why a norm is not replaced by one of that statistic; an empty text where it is."""
    same = norm.statistic.name == statistic and _is_as_wanted(module, constant, k)
    reasons = {
        "SyncBatchNorm shares its statistics between processes, as no norm here does": type(module) is nn.SyncBatchNorm,
        f"{type(module).__name__} is none of torch's own norms, and may compute something else": (
            type(module) not in CLASSES and not _is_ours(module)
        ),
        f"it is {norm.name} already": same,
        "it is an instance norm with running statistics, which the ones here do not keep": (
            isinstance(module, _INSTANCE_NORMS) and module.track_running_stats
        ),
        "it has hooks on its state dict, which are written for the keys that it has now": (
            any(getattr(module, name, None) for name in _STATE_HOOKS)
        ),
        "its weight or bias is reparametrised": not (_plain(module, "weight") and _plain(module, "bias")),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _is_ours(module: Any) -> bool:
    return isinstance(module, ChosenNorm) and type(module).__module__ in (batch.__name__, by_sample.__name__)


def _is_as_wanted(module: Any, constant: Kind, k: int) -> bool:
    if not isinstance(module, ChosenNorm) or module.statistic == "l2":
        return True
    return module.constant == constant and (module.statistic != "topk" or module.k == k)


def _plain(module: nn.Module, name: str) -> bool:
    """Whether a parameter is one of the module's own, or known to be none."""
    return name in module._parameters or getattr(module, name, None) is None  # noqa: SLF001  # the only way to know


def counterpart(old: Any, statistic: StatisticName, constant: Kind, k: int, eps: float | None) -> ChosenNorm:
    """Return the norm of that statistic with all that `old` has but its running statistic.

    Parameters are the same objects; the running mean is a copy. The running statistic is missing values: the caller
    registers it.

    Raises:
        UsageError: a constant or k that cannot be.
    """
    ours: Any = _class_of(old)
    chosen: dict[str, Any] = {"statistic": statistic, "constant": constant, "k": k, "eps": eps, "device": "meta"}
    new = ours(*_sizes(old), **chosen, **_flags(old, ours))
    for name in ("weight", "bias"):
        new.register_parameter(name, getattr(old, name, None))
    for name in ("running_mean", "num_batches_tracked"):
        if getattr(old, name, None) is not None:
            new.register_buffer(name, _copied(old.get_buffer(name)))
    if hasattr(old, "track_running_stats"):
        new.track_running_stats = old.track_running_stats
    for name in _HOOKS:
        setattr(new, name, getattr(old, name))
    new.training = old.training
    return new  # type: ignore[no-any-return]


def _class_of(old: Any) -> type[ChosenNorm]:
    """The class for any statistic: `L1BatchNorm2d` and its like are for one."""
    if type(old) in CLASSES:
        return CLASSES[type(old)]
    return next(ours for ours in CLASSES.values() if isinstance(old, ours))


def _sizes(old: Any) -> tuple[Any, ...]:
    if hasattr(old, "num_groups"):
        return (old.num_groups, old.num_channels)
    return (old.normalized_shape if hasattr(old, "normalized_shape") else old.num_features,)


def _flags(old: Any, ours: type[ChosenNorm]) -> dict[str, Any]:
    """The settings that norms differ in; which parameters there are is settled when they are handed over."""
    if hasattr(old, "elementwise_affine"):
        return {"elementwise_affine": old.elementwise_affine}
    flags = {"affine": old.affine}
    if issubclass(ours, batch.BatchNorm):
        flags |= {"momentum": old.momentum, "track_running_stats": old.running_mean is not None}
    elif issubclass(ours, by_sample.InstanceNorm):
        flags |= {"momentum": old.momentum}
    return flags


def _copied(buffer: torch.Tensor) -> torch.Tensor:
    return buffer.detach().clone()
