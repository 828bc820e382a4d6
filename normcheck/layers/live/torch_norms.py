"""The norm modules of torch.nn and their subclasses, as `Stated`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from normcheck.layers.contents import Omitted, Stated
from normcheck.layers.live.custom_norms import Recognised, class_name, recognised
from normcheck.layers.live.torch_functions import epsilon_of_none
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    import torch


def torch_norm(name: str, module: torch.nn.Module) -> Recognised | Omitted | None:
    """Return a norm module, or why it is not analysed; None where it is no norm.

    A subclass of torch's layer or RMS norm with a forward of its own is run as hand-written norms are (Nemotron's adds
    1 to its weight); where it cannot be run on tokens (channels first), it is what it derives from.

    A module with a method `normcheck_facts`, as all of `normcheck.nn`, is what that says: fields of `Stated`, or None.
    """
    from torch import nn  # noqa: PLC0415 - torch is loaded where there is a module, not with this one

    if hasattr(module, "normcheck_facts"):
        return _declared(name, module)
    if isinstance(module, nn.LocalResponseNorm | nn.CrossMapLRN2d):
        return Omitted(name, "local response norm divides by neighbouring channels: none of the norms analysed here")
    if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001 - the base of all batch and instance norms
        return Recognised(_running_norm(name, module), calls_function=True)
    if isinstance(module, nn.GroupNorm):
        return Recognised(_group_norm(name, module), calls_function=True)
    if not isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return recognised(name, module, None)
    stated = _layer_norm(name, module)
    is_own = type(module).forward not in (nn.LayerNorm.forward, nn.RMSNorm.forward)
    return recognised(name, module, None, stated) if is_own else Recognised(stated, calls_function=True)


def _declared(name: str, module: Any) -> Recognised | None:
    """What a module says of itself; of l2 it is taken to call torch's norm functions."""
    facts = module.normcheck_facts()
    if facts is None:
        return None
    stated = Stated(name=name, how=f"module {class_name(module)}", **facts)
    return Recognised(stated, calls_function=stated.norm.statistic.name == "l2")


def _running_norm(name: str, module: Any) -> Stated:
    from torch import nn  # noqa: PLC0415 - see `torch_norm`

    is_batch = isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the base of all batch norms
    return Stated(
        name=name,
        norm=norm_named("batch" if is_batch else "instance"),
        how=_how(module),
        weight="weight",
        bias="bias",
        running_mean="running_mean",
        running_var="running_var",
        eps=module.eps,
        momentum=module.momentum,
        num_channels=module.num_features,
        spatial=True if not is_batch or isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) else None,
    )


def _group_norm(name: str, module: torch.nn.GroupNorm) -> Stated:
    return Stated(
        name=name,
        norm=norm_named("group"),
        how=_how(module),
        weight="weight",
        bias="bias",
        eps=module.eps,
        num_groups=module.num_groups,
        num_channels=module.num_channels,
    )


def _layer_norm(name: str, module: torch.nn.LayerNorm | torch.nn.RMSNorm) -> Stated:
    from torch import nn  # noqa: PLC0415 - see `torch_norm`

    how, eps = _how(module), module.eps
    if eps is None:
        eps = epsilon_of_none(None if module.weight is None else module.weight.dtype)
        how += f"; its eps is None, which is the machine epsilon of what torch computes in, {eps:.3g}"
    return Stated(
        name=name,
        norm=norm_named("rms" if isinstance(module, nn.RMSNorm) else "layer"),
        how=how,
        weight="weight",
        bias="bias",
        eps=eps,
        num_channels=math.prod(module.normalized_shape),
        normalized_shape=tuple(module.normalized_shape),
    )


def _how(module: torch.nn.Module) -> str:
    """The class, and the one of torch that it derives from."""
    name = class_name(module)
    if type(module).__module__.startswith("torch.nn."):
        return f"module {name}"
    base = next(c for c in type(module).__mro__ if c.__module__.startswith("torch.nn."))
    return f"module {name}, a torch.nn.{base.__name__}"
