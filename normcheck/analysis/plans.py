"""From a layer to the studies that it is checked by: modes, norms, precisions, and where its input comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from normcheck.analysis.assemble import Labels, Plan
from normcheck.analysis.parameter_facts import parameter_facts
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic.formats import FLOAT32, wider
from normcheck.errors import UsageError
from normcheck.layers.sources import FromStatistics, Given, Synthetic
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.constants import scale_of
from normcheck.norms.implementations import IMPLEMENTATIONS, MEANINGFUL_PURE_PRECISION, Implementation
from normcheck.norms.parameters import Parameters, check_lengths, storage_named
from normcheck.norms.table import Norm, grouping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from normcheck.analysis.backward import Incoming
    from normcheck.analysis.study import Source
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.orders import Order
    from normcheck.arithmetic.rounding import Rounding
    from normcheck.layers.layer import Layer
    from normcheck.norms.aliases import Alias

Array = np.ndarray[Any, np.dtype[Any]]
Mode = Literal["train", "eval"]

TOKENS = 64
"""Rows drawn for a layer or RMS norm, whose n is known: only the extremes of the sample depend on it."""

EVAL_SAMPLE = 256
"""Elements drawn of each channel in eval mode, where n changes nothing but the extremes of the sample."""

MOMENTUM = 0.1
"""torch's default weight of a batch in the running statistics, where a file does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Premise:
    """What all layers of a model are checked under.

    norms: put in place of a layer's own, besides it. implementations: those asked for; empty for the defaults.
    mode: None for both where a layer keeps running statistics. activations: recorded inputs by layer name, in torch's
    layout, read when asked for; recorded: what they are called. incoming: the gradient that arrives at the layers'
    outputs; None for the forward pass alone. simd: lanes of CPU vectors; None for this machine's.
    """

    precisions: tuple[Format, ...]
    norms: tuple[Norm, ...]
    implementations: tuple[Implementation | Alias, ...]
    params: str
    mode: Mode | None
    noise: Synthetic
    batch_size: int
    spatial: tuple[int, ...]
    constant: Literal["exact", "paper"]
    k: int
    rounding: Rounding
    order: Order | None
    activations: Mapping[str, Array] = field(default_factory=dict)
    recorded: str = ""
    incoming: Incoming | None = None
    simd: int | None = None


@dataclass(frozen=True, slots=True)
class _Input:
    """Where a layer's elements come from, and how they fall into rows."""

    source: Source
    label: str
    assumed: bool
    shape: tuple[int, ...]


def default_rows(io: Format) -> tuple[tuple[Implementation, ...], frozenset[str]]:
    """Return what `analyze` runs unless told, and which of these are a view that nobody asked for.

    `wide` is how frameworks compute; `pure` beside it only where it differs and where n and eps fit the format.
    """
    wide, pure = IMPLEMENTATIONS["wide"], IMPLEMENTATIONS["pure"]
    is_meaningful = io.precision >= MEANINGFUL_PURE_PRECISION and wider(io, FLOAT32) != io
    return ((wide, pure), frozenset({"pure"})) if is_meaningful else ((wide,), frozenset())


def shape_of(layer: Layer, premise: Premise) -> tuple[int, ...]:
    """The shape that a layer's input is taken to have, where none was recorded."""
    if layer.norm.is_weight:
        return (layer.channels, layer.vector_size)
    if layer.norm.where == "layer":
        return (TOKENS, math.prod(layer.normalized_shape) if layer.normalized_shape else layer.channels)
    return (premise.batch_size, layer.channels, *(() if layer.spatial is False else premise.spatial))


def assumptions_of(layer: Layer, premise: Premise) -> tuple[str, ...]:
    """The settings of a layer that nothing but a default says."""
    recorded = layer.name in premise.activations
    sized = layer.norm.is_weight or layer.norm.where == "layer" or recorded
    stands = {
        "eps": layer.eps_source == "assumed" and not layer.norm.is_weight,
        "num_groups": layer.groups_assumed,
        "batch_size": not sized,
        "spatial": not sized and layer.spatial is not False,
        "input": not layer.norm.is_weight and not recorded,
    }
    return tuple(name for name, holds in stands.items() if holds)


def plans_of(layer: Layer, premise: Premise) -> Iterator[Plan]:
    """Yield the layer's plans: for each mode, each norm in its place, each precision."""
    for mode in _modes(layer, premise):
        source = _input(layer, premise, mode)
        for norm in (layer.norm, *alternatives(layer, premise.norms)):
            given = _parameters(layer, norm)
            for io in premise.precisions:
                yield from _plan(layer, premise, norm, mode, given, source, io)


def alternatives(layer: Layer, norms: tuple[Norm, ...]) -> list[Norm]:
    """Those of some norms that can stand in a layer's place."""
    return [norm for norm in norms if norm.where == layer.norm.where and norm != layer.norm]


def _modes(layer: Layer, premise: Premise) -> tuple[Mode, ...]:
    if premise.mode is not None:
        return (premise.mode,)
    return ("eval", "train") if layer.parameters.running_statistic is not None else ("train",)


def _parameters(layer: Layer, norm: Norm) -> Parameters:
    """The layer's parameters for a norm in its place: another statistic's running value is the deviation."""
    given = layer.parameters
    running = given.running_statistic
    if running is not None and norm.statistic.name != "l2" and layer.norm.statistic.name == "l2":
        running = np.sqrt(np.maximum(running, 0.0))
    return replace(given, running_mean=given.running_mean if norm.centred else None, running_statistic=running)


def _input(layer: Layer, premise: Premise, mode: Mode) -> _Input:
    if layer.vectors is not None:
        vectors = layer.vectors()
        return _Input(Given(vectors), "the layer's weights", False, vectors.shape)
    if layer.name in premise.activations:
        return _recorded(layer, premise)
    shape, given = shape_of(layer, premise), layer.parameters
    if given.running_statistic is None:
        return _Input(premise.noise, premise.noise.label, True, shape)
    deviation = given.running_statistic
    if layer.norm.statistic.name == "l2":
        with np.errstate(invalid="ignore"):
            deviation = np.sqrt(deviation)
    source = FromStatistics(premise.noise, given.running_mean, deviation)
    if mode == "eval" and layer.norm.where == "batch":
        shape = (1, layer.channels, min(EVAL_SAMPLE, math.prod(shape) // layer.channels))
    return _Input(source, source.label, True, shape)


def _recorded(layer: Layer, premise: Premise) -> _Input:
    x = premise.activations[layer.name]
    if layer.norm.where == "layer":
        size = shape_of(layer, premise)[1]
        if x.size % size or not x.size:
            raise UsageError(f"{premise.recorded}: {layer.name} takes rows of {size}, received shape {x.shape}")
        x = x.reshape(-1, size)
    elif x.ndim < 2 or x.shape[1] != layer.channels or not x.size:
        raise UsageError(f"{premise.recorded}: {layer.name} takes (N, {layer.channels}, ...), received shape {x.shape}")
    group = grouping(layer.norm, x.shape, layer.num_groups)
    return _Input(Given.of(x, group), premise.recorded, False, x.shape)


def _plan(
    layer: Layer, premise: Premise, norm: Norm, mode: Mode, given: Parameters, source: _Input, io: Format
) -> Iterator[Plan]:
    group = grouping(norm, source.shape, layer.num_groups)
    if group.size == 1 and norm.centred:
        return  # NC402 says so
    check_lengths(given, group, norm)
    chosen, unasked = _rows(premise, io)
    stored = given.cast(storage_named(premise.params), io, premise.rounding)
    rows, _ = chosen_rows(chosen, norm, io, stored.form or io, group, mode)
    if not rows:
        return
    updates = mode == "train" and given.running_statistic is not None
    momentum = (layer.momentum or MOMENTUM) if updates else None
    eps = _eps(layer, norm)
    facts = parameter_facts(norm, given, stored, eps=eps, weight_offset=layer.weight_offset, momentum=momentum)
    param = stored.form or io
    rounds, order, simd = premise.rounding, premise.order, premise.simd
    runners = [Runner(row, row.machine(io, param, rounds, order, group=group, simd=simd)) for row in rows]
    scale, k = scale_of(norm, premise.constant, group.size, premise.k)
    study = Study(
        norm=norm,
        grouping=group,
        io=io,
        source=source.source,
        eps=eps,
        scale=scale,
        k=k or 1,
        parameters=given,
        stored=stored,
        runners=tuple(runners),
        momentum=momentum,
        weight_offset=layer.weight_offset,
    )
    labels = Labels(
        layer=layer.name,
        precision=io.label,
        mode=mode,
        params=premise.params,
        constant=premise.constant if norm.has_constant else None,
        k=k,
        eps_source=layer.eps_source,
        source=source.label,
        assumed=source.assumed,
        unasked=unasked,
        parameters=facts,
    )
    yield Plan(study, labels, premise.incoming)


def _rows(premise: Premise, io: Format) -> tuple[tuple[Implementation | Alias, ...], frozenset[str]]:
    return (premise.implementations, frozenset()) if premise.implementations else default_rows(io)


def _eps(layer: Layer, norm: Norm) -> float:
    """The layer's eps; for a statistic in a variance's place its root, which is the same floor."""
    if norm.is_weight:
        return 0.0
    moved = norm.statistic.eps_on == "statistic" and layer.norm.statistic.eps_on == "variance"
    return math.sqrt(layer.eps) if moved else layer.eps
