"""Norms that a graph or module states itself, with their tensors looked up and checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from normcheck.layers.contents import ROLES, Omitted
from normcheck.layers.discovery.candidates import LARGEST
from normcheck.layers.discovery.found import Found
from normcheck.layers.discovery.kinds import Kind
from normcheck.norms.table import default_num_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from normcheck.layers.contents import Role, Stated, Tensor


def from_stated(stated: Stated, tensors: Mapping[str, Tensor]) -> Found | Omitted:
    """The norm as stated, or why it cannot be analysed."""
    names = {role: getattr(stated, role) for role in ROLES if getattr(stated, role) is not None}
    missing = next((name for name in names.values() if name not in tensors), None)
    if missing is not None:
        return Omitted(stated.name, f"its tensor {missing} is not in the file")
    own = {role: tensors[name] for role, name in names.items()}
    channels = _channels(stated, own)
    problem = _problem(stated, own, channels)
    if problem:
        return Omitted(stated.name, problem)
    return Found(
        name=stated.name,
        channels=channels,
        kind=_kind(stated, channels),
        tensors=own,
        eps=stated.eps,
        momentum=stated.momentum,
    )


def _channels(stated: Stated, own: Mapping[Role, Tensor]) -> int:
    if stated.normalized_shape:
        return math.prod(stated.normalized_shape)
    if own:
        return math.prod(next(iter(own.values())).shape)
    return stated.num_channels or 0


def _problem(stated: Stated, own: Mapping[Role, Tensor], channels: int) -> str:
    if channels < 1:
        return "it has no parameters, and nothing says how many channels it has"
    if channels > LARGEST:
        return f"it has {channels} channels, more than any norm"
    for role, tensor in own.items():
        if not tensor.is_floating:
            return f"quantised: its {role} is stored as {tensor.dtype}"
        if math.prod(tensor.shape) != channels:
            return f"its {role} has shape {tensor.shape}, where {channels} numbers are expected"
    if stated.num_groups is not None and (stated.num_groups < 1 or channels % stated.num_groups):
        return f"its {channels} channels do not divide into {stated.num_groups} groups"
    return ""


def _kind(stated: Stated, channels: int) -> Kind:
    grouped = stated.norm.where == "group"
    assumed = grouped and stated.num_groups is None
    shape = (stated.normalized_shape or (channels,)) if stated.norm.where == "layer" else ()
    return Kind(
        norm=stated.norm,
        how=stated.how,
        num_groups=default_num_groups(channels) if assumed else stated.num_groups,
        groups_assumed=assumed,
        normalized_shape=shape,
        weight_offset=stated.weight_offset,
        spatial=stated.spatial,
    )
