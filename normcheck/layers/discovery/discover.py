"""Find the normalization layers of a model in what a file, directory or module holds: by structure and evidence.

Names decide only where nothing else does, since BatchNorm, LayerNorm and GroupNorm go under each other's names; each
layer says how its kind was decided, and whether other kinds remain possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.errors import UsageError
from normcheck.layers.contents import Omitted
from normcheck.layers.discovery import conventions
from normcheck.layers.discovery.candidates import (
    Candidate,
    candidates,
    modules_of,
    without_optimizer,
)
from normcheck.layers.discovery.found import Found, merged
from normcheck.layers.discovery.kinds import kind_of_candidate
from normcheck.layers.discovery.neighbours import Neighbours
from normcheck.layers.discovery.options import chosen, parse_eps, parse_kind, with_kinds
from normcheck.layers.discovery.settings import Settings, kind_of
from normcheck.layers.discovery.stated import from_stated
from normcheck.layers.discovery.weights import reparametrised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from normcheck.layers.contents import Contents, Tensor
    from normcheck.layers.layer import EpsSource, Layer
    from normcheck.norms.table import Norm

__all__ = ["Discovery", "discover", "parse_eps", "parse_kind"]

Eps = tuple[str | None, float]


@dataclass(frozen=True, slots=True)
class Discovery:
    """The norms of a model in the order of its file, and what looks like a norm and is not analysed, with why."""

    layers: tuple[Layer, ...]
    omitted: tuple[Omitted, ...]


def discover(contents: Contents, *, kinds: Sequence[tuple[str, str]] = (), eps: Sequence[Eps] = ()) -> Discovery:
    """Find the norms of a model, with their parameters; no other tensor's values are read but for 1-D weights.

    Args:
        contents: what a reader found.
        kinds: glob patterns on names of layers, and the kind that those are: a norm's name, ``group(8)`` for group
            norm in 8 groups, ``none`` to leave them out. Of several that match, the last counts.
        eps: the same, with eps; None instead of a pattern means all layers.

    Raises:
        UsageError: a kind that does not exist or that a layer cannot have, or a pattern that matches no layer.
    """
    tensors, omitted = without_optimizer(contents.tensors)
    found: list[Found] = []
    for one in _everything(contents, tensors):
        if isinstance(one, Found):
            found.append(one)
        else:
            omitted.append(one)
    if not contents.stated:
        found = _in_order(found, tensors)
    given = with_kinds(merged(found), kinds)
    norms = [(one, one.kind.norm) for one in given if one.kind.norm is not None]
    omitted += [Omitted(one.name, one.kind.how) for one in given if one.kind.norm is None and one.kind.how]
    chosen_eps = _chosen_eps([one for one, _ in norms], eps)
    settings = Settings(contents.config)
    layers = tuple(_layer(one, norm, settings, chosen_eps.get(one.name)) for one, norm in norms)
    return Discovery(layers, (*contents.omitted, *omitted))


def _everything(contents: Contents, tensors: Mapping[str, Tensor]) -> Iterator[Found | Omitted]:
    for stated in contents.stated:
        yield from_stated(stated, tensors)
    yield from reparametrised(tensors)
    if contents.stated:
        return
    modules = modules_of(tensors)
    neighbours, settings = Neighbours(modules), Settings(contents.config)
    for one in candidates(modules):
        yield _found(one, neighbours, settings) if isinstance(one, Candidate) else one


def _found(candidate: Candidate, neighbours: Neighbours, settings: Settings) -> Found:
    beside = neighbours.of(candidate.name, candidate.size)
    kind = kind_of_candidate(candidate, beside, settings.of(candidate.name))
    return Found(
        name=candidate.name,
        channels=candidate.size,
        kind=kind,
        tensors=candidate.tensors,
    )


def _in_order(found: Sequence[Found], tensors: Mapping[str, Tensor]) -> list[Found]:
    order = {tensor.name: i for i, tensor in enumerate(tensors.values())}
    return sorted(found, key=lambda f: min(order[tensor.name] for tensor in f.tensors.values()))


def _chosen_eps(found: Sequence[Found], eps: Sequence[Eps]) -> dict[str, float]:
    given: dict[str, float] = {}
    for pattern, value in eps:
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"eps must be finite and not negative, received {value:g}")
        places = range(len(found))
        option = f"--eps {pattern}={value:g}"
        for place in places if pattern is None else chosen(found, pattern, option):
            given[found[place].name] = value
    return given


def _layer(found: Found, norm: Norm, settings: Settings, option: float | None) -> Layer:
    scope = settings.of(found.name)
    momentum = found.momentum
    if momentum is None and norm.where == "batch":
        stated = scope.number(conventions.MOMENTUM_KEYS)
        momentum = stated[1] if stated else None
    value, source = _eps(found, norm, scope.eps(found.name, norm), option)
    return found.layer(norm, value, source, momentum)


def _eps(found: Found, norm: Norm, config: float | None, option: float | None) -> tuple[float, EpsSource]:
    if norm.is_weight:
        return 0.0, "module"
    if option is not None:
        return option, "option"
    if found.eps is not None:
        return found.eps, "module"
    known = config if found.kind.eps is None else found.kind.eps
    if known is not None:
        return known, "config"
    return conventions.DEFAULT_EPS.get(kind_of(norm), 1e-5), "assumed"
