"""What `normcheck convert` writes into a safetensors file of the norms in it, since their tensors do not tell.

An L1 layer norm has the keys of any layer norm, and eps is in no state dict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.errors import UsageError
from normcheck.layers.contents import ROLES, NormFacts, Omitted, Stated
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from normcheck.layers.contents import Tensor

METADATA = "normcheck_norms"
"""Key of the file's metadata; its value is a JSON object with the facts of each norm of the model by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described(NormFacts):
    """The facts of a norm, and which norm it is."""

    norm: str


_FACTS = tuple(field.name for field in fields(NormFacts))


def metadata_of(norms: Iterable[Stated]) -> dict[str, str]:
    """Return the metadata that describe all norms of a model."""
    described: dict[str, Any] = {}
    for norm in norms:
        facts = {name: getattr(norm, name) for name in _FACTS}
        described[norm.name] = _Described(norm=norm.norm.name, **facts)
    return {METADATA: msgspec.json.encode(described).decode()}


def stated_in(
    metadata: Mapping[str, str], tensors: Mapping[str, Tensor]
) -> tuple[tuple[Stated, ...], tuple[Omitted, ...]]:
    """Return the norms that metadata describe, if they describe these tensors; else none, and why they are ignored."""
    if METADATA not in metadata:
        return (), ()
    try:
        described = msgspec.json.decode(metadata[METADATA], type=dict[str, _Described])
        stated = tuple(_stated(name, facts) for name, facts in described.items())
    except (msgspec.MsgspecError, UsageError, RecursionError) as error:
        return (), (Omitted(METADATA, f"these metadata are damaged and not used: {' '.join(str(error).split())}"),)
    wanted = [name for norm in stated for role in ROLES if (name := getattr(norm, role)) is not None]
    missing = next((name for name in wanted if name not in tensors), None)
    if missing is not None:
        return (), (Omitted(METADATA, f"these metadata are of other tensors and not used: {missing} is not there"),)
    return stated, ()


def _stated(name: str, described: _Described) -> Stated:
    eps = described.eps
    if eps is not None and not (math.isfinite(eps) and eps >= 0):
        raise UsageError(f"{name} has eps {eps:g}")
    facts: dict[str, Any] = {field: getattr(described, field) for field in _FACTS}
    return Stated(name=name, norm=norm_named(described.norm), **facts)
