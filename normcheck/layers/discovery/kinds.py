"""Which norm a candidate is, and what says so: structure first, then config, then what stands beside it, then names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from normcheck.layers.discovery import conventions
from normcheck.layers.discovery.candidates import is_vector, looks_like_norm, words
from normcheck.norms.table import Norm, default_num_groups, norm_named

if TYPE_CHECKING:
    from normcheck.layers.discovery.candidates import Candidate
    from normcheck.layers.discovery.neighbours import Beside
    from normcheck.layers.discovery.settings import Scope

BATCH, LAYER, RMS, GROUP = (norm_named(name) for name in ("batch", "layer", "rms", "group"))
_PER_CHANNEL = ("group-l2", "instance-l2", "layer-l2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a candidate is.

    Attributes:
        norm: the norm; None where it is none, or none of the table's.
        how: what decided, in words; why it is no norm, where it is none.
        sure, might_be, num_groups, groups_assumed, normalized_shape, weight_offset, spatial: as of layers.
        eps: where the model type fixes it, whatever the config says; None where not.
    """

    norm: Norm | None
    how: str
    sure: bool = True
    might_be: tuple[str, ...] = ()
    num_groups: int | None = None
    groups_assumed: bool = False
    normalized_shape: tuple[int, ...] = ()
    weight_offset: float = 0.0
    spatial: bool | None = None
    eps: float | None = None


def kind_of_candidate(candidate: Candidate, beside: Beside, scope: Scope) -> Kind:
    """Decide which norm a candidate is."""
    if "running_mean" in candidate.tensors:
        return _with_statistics(candidate, beside)
    other = next((w for w in words(candidate.name) if w in conventions.OTHER_NORMS), None)
    if other:
        return Kind(norm=None, how=conventions.OTHER_NORMS[other])
    if not is_vector(candidate.shape) and conventions.PER_HEAD.intersection(words(candidate.name)):
        return Kind(
            norm=None, how=f"weights of shape {candidate.shape}: each head has its own, on one statistic a head"
        )
    if "bias" in candidate.tensors:
        return _with_bias(candidate, beside, scope)
    return _weight_alone(candidate, beside, scope)


def _with_statistics(candidate: Candidate, beside: Beside) -> Kind:
    how = "running mean and variance"
    spatial = False if beside.behind_linear else None
    other = next((leaf for leaf in conventions.OTHER_STATISTICS if leaf in candidate.leaves), None)
    if other is not None and "running_var" not in candidate.leaves:
        norm = norm_named(conventions.OTHER_STATISTICS[other])
        return Kind(norm=norm, how=f"running mean and {other}", spatial=spatial)
    if hinted(candidate.name) == "instance-l2":
        how += "; by its name it may be instance norm, whose running statistics look the same"
        return Kind(norm=BATCH, how=how, sure=False, might_be=("instance-l2",), spatial=spatial)
    return Kind(norm=BATCH, how=how, spatial=spatial)


def hinted(name: str) -> str | None:
    """The kind that the words of a module's name hint at: ``ln``, ``LayerNorm``, ``layer_norm``, not ``norm_layer``."""
    parts = words(name)
    for word, following in pairwise((*parts, "")):
        if word in conventions.KIND_WORDS and (
            word not in conventions.NEEDS_NORM or following in conventions.NORM_ITSELF
        ):
            return conventions.KIND_WORDS[word]
    return None


# -------------------------------------------------------------------------------------------- weight and bias


def _with_bias(candidate: Candidate, beside: Beside, scope: Scope) -> Kind:
    other = next((leaf for leaf in candidate.leaves if leaf in conventions.OTHER_LEAVES), None)
    if other:
        return Kind(norm=None, how=conventions.OTHER_LEAVES[other])
    if not looks_like_norm(candidate.name) and (candidate.size == 1 or _named_otherwise(candidate)):
        return Kind(norm=None, how="")
    if len(candidate.shape) > 3 and is_vector(candidate.shape) and candidate.shape[-1] != 1:
        return Kind(norm=None, how=conventions.OTHER_NORMS["grn"])
    if not is_vector(candidate.shape) or (len(candidate.shape) > 1 and candidate.shape[-1] != 1):
        how = f"weight and bias of shape {candidate.shape}"
        return Kind(norm=LAYER, how=how, normalized_shape=candidate.shape)
    kind = _special(candidate, scope) or _by_config(candidate, beside, scope) or _by_evidence(candidate, beside)
    return _offset(kind, candidate, scope)


def _named_otherwise(candidate: Candidate) -> bool:
    return bool(conventions.NO_NORM_WORDS.intersection(words(candidate.name)))


def _special(candidate: Candidate, scope: Scope) -> Kind | None:
    for row in conventions.SPECIAL:
        if row.value in scope.texts(row.key) and fnmatchcase(candidate.name, row.pattern):
            groups = row.groups or candidate.size
            return Kind(norm=norm_named(row.kind), how=f"config {row.key} {row.value}", num_groups=groups, eps=row.eps)
    return None


def _by_config(candidate: Candidate, beside: Beside, scope: Scope) -> Kind | None:
    layer, groups = scope.number(conventions.LAYER_KEYS), scope.number(conventions.GROUP_KEYS)
    hint = "group-l2" if beside.opens_blocks else hinted(candidate.name)
    if groups and (hint == "group-l2" or (hint is None and beside.convolutions > beside.linear)):
        fits = groups[1] >= 1 and candidate.size % groups[1] == 0
        number = int(groups[1]) if fits else default_num_groups(candidate.size)
        return Kind(norm=GROUP, how=f"config {groups[0]}", num_groups=number, groups_assumed=not fits)
    if layer and (hint == "layer-l2" or (hint is None and not beside.behind_convolution)):
        how = f"weight and bias; config {layer[0]}"
        others = ("group-l2", "instance-l2") if hint is None and beside.only_convolutions else ()
        return _open(candidate, "layer-l2", how, others)
    return None


def _by_evidence(candidate: Candidate, beside: Beside) -> Kind:
    if beside.opens_blocks:
        return _open(
            candidate, "group-l2", "weight and bias; transformer blocks of a convolutional model follow", _PER_CHANNEL
        )
    hint = hinted(candidate.name)
    if beside.linear and beside.linear >= beside.convolutions:
        return _beside_linear(candidate, beside, hint)
    if beside.convolutions:
        how = "weight and bias beside convolutions of its width"
        if hint is None and beside.depthwise and not beside.dense:
            return _open(candidate, "layer-l2", f"{how}, depthwise ones among them and none dense", _PER_CHANNEL)
        name = hint if hint and hint != "rms" else "group-l2"
        how += "; its name" if hint else "; nothing that tells more"
        return _open(candidate, name, how, _PER_CHANNEL)
    how = "its name" if hint else "weight and bias of one dimension, and nothing else that tells"
    return _open(candidate, hint or "layer-l2", how, _PER_CHANNEL)


def _beside_linear(candidate: Candidate, beside: Beside, hint: str | None) -> Kind:
    how = "weight and bias beside linear layers of its width"
    if hint == "group-l2":
        return _open(candidate, "group-l2", f"{how}; its name", ("layer-l2",))
    if hint == "layer-l2" or (hint is None and not beside.convolutional):
        return _open(candidate, "layer-l2", how, ())
    return _open(candidate, "layer-l2", how, tuple(dict.fromkeys((hint or "group-l2", *_PER_CHANNEL))))


def _open(candidate: Candidate, name: str, how: str, might_be: tuple[str, ...]) -> Kind:
    norm = norm_named(name)
    groups = default_num_groups(candidate.size) if norm.where == "group" else None
    return Kind(
        norm=norm,
        how=how,
        sure=not might_be,
        might_be=tuple(kind for kind in might_be if kind != name),
        num_groups=groups,
        groups_assumed=groups is not None,
        normalized_shape=(candidate.size,) if norm.where == "layer" else (),
    )


# ---------------------------------------------------------------------------------------------- weight alone


def _weight_alone(candidate: Candidate, beside: Beside, scope: Scope) -> Kind:
    named = looks_like_norm(candidate.name)
    if not named and (_named_otherwise(candidate) or not _could_be_gain(candidate, beside)):
        return Kind(norm=None, how="")
    if not is_vector(candidate.shape):
        return Kind(norm=None, how=f"a weight of shape {candidate.shape} without bias, as no norm here has")
    if candidate.size == 1 and not beside.any:
        return Kind(norm=None, how="a single weight, and no operator of that width beside it")
    return _offset(_rms_or_layer(candidate, scope), candidate, scope)


def _could_be_gain(candidate: Candidate, beside: Beside) -> bool:
    """Whether a vector beside operators of its width has the values of a norm's weight, near 1."""
    if candidate.size < 2 or not candidate.leaves.intersection(("weight", "g")) or not beside.any:
        return False
    values = np.asarray(candidate.tensors["weight"].load(), dtype=np.float64)
    middle = float(np.median(values))
    return 0.5 < middle < 2.0


def _rms_or_layer(candidate: Candidate, scope: Scope) -> Kind:
    by_type = _by_model_type(scope.model_type)
    if by_type:
        return _open(candidate, by_type, f"weight without bias; config model_type {scope.model_type}", ())
    rms, layer = scope.number(conventions.RMS_KEYS), scope.number(conventions.LAYER_KEYS)
    hint = hinted(candidate.name)
    if rms and not layer:
        return _open(candidate, "rms", f"weight without bias; config {rms[0]}", ())
    if layer and not rms and hint != "rms":
        return _open(candidate, "layer-l2", f"weight without bias; config {layer[0]}", ("rms",))
    if hint == "rms":
        return _open(candidate, "rms", "weight without bias; its name", ())
    return _open(candidate, "rms", "weight without bias", ("layer-l2",))


def _by_model_type(model_type: str) -> str:
    if model_type in conventions.RMS_MODELS:
        return "rms"
    return "layer-l2" if model_type in conventions.LAYER_MODELS else ""


def _offset(kind: Kind, candidate: Candidate, scope: Scope) -> Kind:
    """Add the 1 of zero-centred weights, where the model type has them."""
    exceptions = conventions.ZERO_CENTRED.get(scope.model_type)
    wanted = LAYER if scope.model_type in conventions.ZERO_CENTRED_LAYER_NORMS else RMS
    if exceptions is None or kind.norm is not wanted or any(fnmatchcase(candidate.name, e) for e in exceptions):
        return kind
    how = f"{kind.how}; y = (1 + weight) * x, by model_type {scope.model_type}"
    return Kind(norm=kind.norm, how=how, normalized_shape=kind.normalized_shape, weight_offset=1.0)
