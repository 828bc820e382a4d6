"""What the user says of layers: ``--kind PATTERN=KIND`` and ``--eps [PATTERN=]X``."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from normcheck.errors import UsageError
from normcheck.layers.discovery.kinds import Kind
from normcheck.norms.table import Norm, default_num_groups, norm_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.layers.discovery.found import Found

HOW = "option --kind"
NONE = "none"
_GROUPS = re.compile(r"\s*(?P<norm>[\w-]+)\s*\(\s*(?P<groups>\d+)\s*\)\s*")


def parse_kind(text: str) -> tuple[str, str]:
    """Take ``PATTERN=KIND`` apart.

    Raises:
        UsageError: there is no pattern, or no such kind.
    """
    pattern, equals, kind = text.rpartition("=")
    if not equals or not pattern.strip():
        raise UsageError(f"--kind {text!r}: expected PATTERN=KIND, such as 'encoder.*.norm=layer' or 'aux.*=none'")
    kind_named(kind)
    return pattern.strip(), kind.strip()


def parse_eps(text: str) -> tuple[str | None, float]:
    """Take ``X`` or ``PATTERN=X`` apart.

    Raises:
        UsageError: X is no finite number that is not negative, or the pattern is empty.
    """
    pattern, equals, number = text.rpartition("=")
    try:
        eps = float(number)
    except ValueError:
        eps = math.nan
    if not (math.isfinite(eps) and eps >= 0) or (equals and not pattern.strip()):
        raise UsageError(f"--eps {text!r}: expected X or PATTERN=X with a number X >= 0, such as 1e-5 or '*.bn1=1e-3'")
    return (pattern.strip() if equals else None), eps


def kind_named(text: str) -> tuple[Norm | None, int | None]:
    """The norm that a kind names (None for ``none``), and the number of groups of ``group(8)``.

    Raises:
        UsageError: no such norm, or a number of groups on a norm that has no groups.
    """
    if text.strip().lower() == NONE:
        return None, None
    match = _GROUPS.fullmatch(text)
    if match is None:
        return norm_named(text), None
    norm = norm_named(match["norm"])
    if norm.where != "group" or int(match["groups"]) < 1:
        raise UsageError(f"kind {text!r}: only group norms take a number of groups, of at least 1")
    return norm, int(match["groups"])


def chosen(found: Sequence[Found], pattern: str, option: str) -> list[int]:
    """The places of the layers that a glob pattern means, by name or alias.

    What discovery took for no norm is meant only by a pattern that matches no layer: ``*`` does not mean it.

    Raises:
        UsageError: there is none; some that there are.
    """
    matching = [i for i, one in enumerate(found) if any(fnmatchcase(name, pattern) for name in one.names)]
    layers = [one.name for one in found if one.kind.norm is not None]
    if not matching:
        few = ", ".join(layers[:3]) or "none"
        more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
        raise UsageError(f"{option}: no layer matches {pattern!r}; the layers are {few}{more}")
    return [i for i in matching if found[i].kind.norm is not None] or matching


def with_kinds(found: Sequence[Found], kinds: Sequence[tuple[str, str]]) -> list[Found]:
    """The norms with the kinds that the user gave them, the last that matches; without a norm for ``none``.

    Raises:
        UsageError: a kind that does not exist or that a layer cannot have, or a pattern that matches no layer.
    """
    changed = list(found)
    for pattern, text in kinds:
        norm, groups = kind_named(text)
        for place in chosen(found, pattern, f"--kind {pattern}={text}"):
            changed[place] = replace(changed[place], kind=_as(found[place], norm, groups))
    return changed


def _as(found: Found, norm: Norm | None, groups: int | None) -> Kind:
    if norm is None:
        return Kind(norm=None, how=f"left out by {HOW}")
    before = found.kind.norm
    if norm.is_weight != (found.vectors is not None):
        raise UsageError(f"--kind: {found.name} cannot be {norm.name}: {_why_not(found)}")
    if groups is not None and found.channels % groups:
        raise UsageError(
            f"--kind: {found.name} has {found.channels} channels, which do not divide into {groups} groups"
        )
    grouped = norm.where == "group"
    known = found.kind.num_groups if not found.kind.groups_assumed else None
    number = (groups or known or default_num_groups(found.channels)) if grouped else None
    shape = (found.kind.normalized_shape or (found.channels,)) if norm.where == "layer" else ()
    return Kind(
        norm=norm,
        how=HOW,
        num_groups=number,
        groups_assumed=grouped and not (groups or known),
        normalized_shape=shape,
        weight_offset=found.kind.weight_offset if before is norm else 0.0,
        spatial=found.kind.spatial,
    )


def _why_not(found: Found) -> str:
    return "it has g and v of a weight" if found.vectors is not None else "it has no g and v of a weight"
