"""Which weights of a file are scale invariant, told from what stands behind them: names and structure, nothing run.

A norm that subtracts a mean or divides by a deviation over each channel (batch, instance) makes every output channel of
the weight before it scale invariant, whatever its bias. One over all channels (layer, group) makes the weight
invariant as a whole, and only without a bias. Where it is not certain what stands between the two, nothing is claimed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.layers.discovery.candidates import modules_of, split, without_optimizer
from normcheck.layers.discovery.discover import discover
from normcheck.layers.discovery.neighbours import Neighbours
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from normcheck.layers.contents import Contents, Tensor
    from normcheck.layers.layer import Layer
    from normcheck.results.track import Scope

_PARTS = re.compile(r"^(.*?)_?(\d*)$")
_NOTHING = "no norm is known to follow it"


@dataclass(frozen=True, slots=True)
class Invariance:
    """What of a weight can be scaled without effect, and how that is known."""

    scope: Scope
    how: str


@dataclass(frozen=True, slots=True)
class _Operator:
    """A weight as the linear layer or convolution that it belongs to."""

    name: str
    weight: str
    outputs: int
    inputs: int
    biased: bool
    place: int


@dataclass(frozen=True, slots=True)
class _Pair:
    """An operator and a norm of one module that belong together by their names."""

    operator: _Operator
    norm: Layer
    place: int


def invariances(contents: Contents, weights: Mapping[str, Tensor]) -> dict[str, Invariance]:
    """Return what is known of each of these weights, by name.

    Args:
        contents: of the file that holds them; the parameters of its norms are read.
        weights: tensors with output channels in dimension 0.
    """
    tensors, _ = without_optimizer(contents.tensors)
    norms = [layer for layer in discover(contents).layers if not layer.norm.is_weight]
    operators = _operators(tensors, weights)
    found = {name: Invariance("none", _NOTHING) for name in weights}
    for one, what in (*_in_rows(tensors, norms, operators), *_by_names(tensors, norms, operators, contents.reader)):
        if found[one].scope in ("none", "unknown"):
            found[one] = what
    own = {name: _reparametrised(name, tensors) for name in weights}
    return found | {name: what for name, what in own.items() if what is not None}


def _operators(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, _Operator]:
    places = {name: place for place, name in enumerate(tensors)}
    found = {}
    for name, tensor in weights.items():
        module, leaf = split(name)
        if leaf == "weight":
            found[module] = _Operator(
                module, name, tensor.shape[0], tensor.shape[1], f"{module}.bias" in tensors, places[name]
            )
    return found


def _in_rows(
    tensors: Mapping[str, Tensor], norms: Sequence[Layer], operators: Mapping[str, _Operator]
) -> Iterator[tuple[str, Invariance]]:
    """Norms in a numbered row of modules, as of torch.nn.Sequential, behind a weight of the same row."""
    neighbours = Neighbours(modules_of(tensors))
    for norm in norms:
        before = neighbours.of(norm.name, norm.channels).before
        parent, _, number = norm.name.rpartition(".")
        if before is None or before.name not in operators or before.name.rpartition(".")[0] != parent:
            continue
        operator = operators[before.name]
        between = int(number) - int(before.name.rpartition(".")[2]) - 1
        if between:
            what = "a module" if between == 1 else f"{between} modules"
            how = f"followed by {norm.norm.name} {norm.name}, with {what} without parameters between"
            yield operator.weight, Invariance("unknown", how)
        else:
            yield operator.weight, _behind(operator, norm)


def _behind(operator: _Operator, norm: Layer) -> Invariance:
    """What a norm makes of the weight that stands just before it."""
    followed = f"followed by {norm.norm.name} {norm.name}"
    grains = {_over_channels(norm_named(kind).where, norm) for kind in (norm.norm.name, *norm.might_be)}
    if len(grains) > 1 or norm.groups_assumed:
        return Invariance("unknown", f"{followed}, of which the file does not say over which channels it goes")
    if operator.biased and not (norm.norm.centred and grains == {False}):
        return Invariance("none", f"{followed}, but its bias does not scale with it")
    return Invariance("tensor" if grains == {True} else "channel", followed)


def _over_channels(where: str, norm: Layer) -> bool:
    """Whether channels share a statistic."""
    return where == "layer" or (where == "group" and norm.num_groups != norm.channels)


def _by_names(
    tensors: Mapping[str, Tensor], norms: Sequence[Layer], operators: Mapping[str, _Operator], reader: str
) -> Iterator[tuple[str, Invariance]]:
    """Norms beside a weight of the same module whose names go together: conv1 and bn1, conv and bn."""
    pairs = list(_pairs(tensors, norms, operators.values()))
    before = [p for p in pairs if p.norm.channels == p.operator.inputs != p.operator.outputs]
    behind = [p for p in pairs if p.norm.channels == p.operator.outputs]
    decided = any(p.operator.inputs != p.operator.outputs for p in behind) and not before
    ordered = reader.startswith("PyTorch")
    for pair in behind:
        operator, norm = pair.operator, pair.norm
        if ordered and pair.place < operator.place:
            continue  # a norm before its convolution: that of a block before activation
        if norm.norm.where not in ("batch", "instance"):
            how = f"{norm.norm.name} {norm.name} goes with it, but a sum may come between"
            yield operator.weight, Invariance("unknown", how)
        elif ordered or decided:
            found = _behind(operator, norm)
            yield operator.weight, Invariance(found.scope, f"{found.how}, by their names")
        else:
            how = f"{norm.norm.name} {norm.name} goes with it, before or behind"
            yield operator.weight, Invariance("unknown", how)


def _pairs(tensors: Mapping[str, Tensor], norms: Sequence[Layer], operators: Iterable[_Operator]) -> Iterator[_Pair]:
    """Pairs of one operator and one norm that have the same number, or none, in one module."""
    places = {split(name)[0]: place for place, name in reversed(list(enumerate(tensors)))}
    beside: dict[tuple[str, str], tuple[list[_Operator], list[Layer]]] = {}
    for operator in operators:
        beside.setdefault(_key(operator.name), ([], []))[0].append(operator)
    for norm in norms:
        beside.setdefault(_key(norm.name), ([], []))[1].append(norm)
    for ours, theirs in beside.values():
        names = [*(one.name for one in ours), *(one.name for one in theirs)]
        row = any(name.rpartition(".")[2].isdigit() for name in names)
        if len(ours) == len(theirs) == 1 and not row:
            yield _Pair(ours[0], theirs[0], places.get(theirs[0].name, 0))


def _key(name: str) -> tuple[str, str]:
    """The module that something stands in, and the number in its own name."""
    parent, _, leaf = name.rpartition(".")
    match = _PARTS.match(leaf)
    return parent, match[2] if match else ""


def _reparametrised(name: str, tensors: Mapping[str, Tensor]) -> Invariance | None:
    """The direction of a weight norm, which divides by its length itself."""
    stem, _, leaf = name.rpartition(".")
    gain = None
    if leaf == "original1" and f"{stem}.original0" in tensors:
        gain = tensors[f"{stem}.original0"]
    elif name.endswith("_v") and f"{name[:-2]}_g" in tensors:
        gain = tensors[f"{name[:-2]}_g"]
    if gain is not None:
        whole = max(gain.shape, default=1) == 1 < tensors[name].shape[0]
        return Invariance("tensor" if whole else "channel", "the direction of a weight norm")
    if leaf == "original" and f"{stem}.0.rho" in tensors:
        return Invariance("channel", "the direction of a bounded weight norm")
    spectral = (leaf == "original" and f"{stem}.0._u" in tensors) or (
        name.endswith("_orig") and f"{name[:-5]}_u" in tensors
    )
    return Invariance("tensor", "divided by its largest singular value") if spectral else None
