"""Reparametrised weights: weight norm, bounded weight norm, and spectral norm, which is neither.

w = g * v / ||v||        g one number an output channel: ``weight_g`` and ``weight_v``, or
                         ``parametrizations.weight.original0`` and ``.original1``
w = rho * v / ||v||_p    rho one number a layer: ``parametrizations.weight.original``, ``.0.rho`` and ``.0.p``
                         with ``.0.gain`` a trained g for each of N output channels: g * rho * sqrt(N) / ||g||_2
                         stands in rho's place, and it is a weight norm
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from normcheck.layers.contents import Omitted
from normcheck.layers.discovery.found import Found
from normcheck.layers.discovery.kinds import Kind
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from normcheck.layers.contents import Array, Tensor


_PARAMETRIZED = re.compile(r"(?P<module>.*\.|)parametrizations\.(?P<parameter>[^.]+)\.")
_SPECTRAL = "spectral norm: it divides the weight by its largest singular value, which is none of the norms here"
_NORM_OF_P = {1.0: "bounded-weight-l1", 2.0: "bounded-weight-l2", math.inf: "bounded-weight-linf"}


def reparametrised(tensors: Mapping[str, Tensor]) -> Iterator[Found | Omitted]:
    """All reparametrised weights of a model, in the order of the file."""
    for key in tensors:
        if key.endswith("_g"):
            yield from _hooked(key, tensors)
        elif key.endswith("_orig"):
            stem = key.removesuffix("_orig")
            if f"{stem}_u" in tensors:
                yield Omitted(_owner(stem), _SPECTRAL)
        elif ".original" in key:
            yield from _parametrized(key, tensors)


def _owner(stem: str) -> str:
    """The module of a parameter: the parameter's own name is kept where it is not `weight`."""
    module, _, parameter = stem.rpartition(".")
    return module if parameter == "weight" and module else stem


def _hooked(key: str, tensors: Mapping[str, Tensor]) -> Iterator[Found | Omitted]:
    stem = key.removesuffix("_g")
    v = tensors.get(f"{stem}_v")
    if v is None:
        return
    found = _weight_norm(_owner(stem), tensors[key], v)
    if isinstance(found, Found) or "weight" in stem.rpartition(".")[2]:
        yield found  # tensors of other names that do not fit together have nothing to do with weight norm


def _parametrized(key: str, tensors: Mapping[str, Tensor]) -> Iterator[Found | Omitted]:
    match = _PARAMETRIZED.match(key)
    if match is None:
        return
    root = key[: match.end()]
    owner = _owner(f"{match['module']}{match['parameter']}")
    leaf = key.removeprefix(root)
    if leaf == "original0" and f"{root}original1" in tensors:
        yield _weight_norm(owner, tensors[key], tensors[f"{root}original1"])
    elif leaf == "original" and f"{root}0._u" in tensors:
        yield Omitted(owner, _SPECTRAL)
    elif leaf == "original" and f"{root}0.rho" in tensors:
        p, gain = (tensors.get(f"{root}0.{name}") for name in ("p", "gain"))
        yield _bounded(owner, tensors[key], tensors[f"{root}0.rho"], p, gain)


def _weight_norm(name: str, g: Tensor, v: Tensor) -> Found | Omitted:
    if not (g.is_floating and v.is_floating):
        return Omitted(name, f"quantised: weight norm's g is stored as {g.dtype}, its v as {v.dtype}")
    if 0 in v.shape:
        return Omitted(name, f"weight norm of an empty weight of shape {v.shape}")
    axis = _kept(g.shape, v.shape)
    if axis is None:
        return Omitted(name, f"g of shape {g.shape} does not fit v of shape {v.shape} as weight norm's does")
    out = v.shape[axis] if axis >= 0 else 1
    kind = Kind(norm=norm_named("weight-l2"), how="weight norm: g and v, whose product is the weight")
    return Found(
        name=name,
        channels=out,
        kind=kind,
        tensors={"weight": g},
        vectors=_reader(v, axis),
        vector_storage=v.storage,
        vector_size=math.prod(v.shape) // out,
    )


def _kept(g: tuple[int, ...], v: tuple[int, ...]) -> int | None:
    """The dimension of v that g has; -1 where g is one number for all of v; None where they do not fit."""
    if math.prod(g) == 1 and len(g) in (0, len(v)):
        return -1
    if len(g) != len(v):
        return None
    return next((d for d in range(len(v)) if g == (*(1,) * d, v[d], *(1,) * (len(v) - d - 1))), None)


def _reader(v: Tensor, axis: int) -> Callable[[], Array]:
    def read() -> Array:
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, as in any cast
            values = np.asarray(v.load(), dtype=np.float32)
        rows = values.reshape(1, -1) if axis < 0 else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        return np.ascontiguousarray(rows)

    return read


def _bounded(name: str, v: Tensor, rho: Tensor, p: Tensor | None, gain: Tensor | None) -> Found | Omitted:
    if not rho.is_floating or any(t is not None and math.prod(t.shape) != 1 for t in (rho, p)):
        return Omitted(name, "bounded weight norm whose rho or p is no single number")
    if not v.shape or 0 in v.shape or not v.is_floating:
        return Omitted(name, f"bounded weight norm of a weight of shape {v.shape}, stored as {v.dtype}")
    power = 2.0 if p is None else float(np.asarray(p.load()).reshape(-1)[0])
    if power not in _NORM_OF_P:
        return Omitted(name, f"bounded weight norm with p = {power:g}, where p can be 1, 2 or inf")
    kind = Kind(norm=norm_named(_NORM_OF_P[power]), how="bounded weight norm: a weight and its scalar rho")
    if gain is not None:
        if not gain.is_floating or gain.shape != (v.shape[0],):
            return Omitted(name, f"bounded weight norm whose gain has shape {gain.shape}, stored as {gain.dtype}")
        norm = norm_named(_NORM_OF_P[power].removeprefix("bounded-"))
        kind = Kind(norm=norm, how="bounded weight norm: a weight, its scalar rho and trained gains")
    return Found(
        name=name,
        channels=v.shape[0],
        kind=kind,
        tensors={"weight": rho if gain is None else _bounded_gain(gain, rho)},
        vectors=_reader(v, 0),
        vector_storage=v.storage,
        vector_size=math.prod(v.shape) // v.shape[0],
    )


def _bounded_gain(gain: Tensor, rho: Tensor) -> Tensor:
    """What multiplies each direction: rho * sqrt(N) * g / ||g||_2, NaN where all g are 0."""

    def load() -> Array:
        g = np.asarray(gain.load(), np.float64)
        with np.errstate(all="ignore"):  # of damaged files
            total = float(rho.load().reshape(-1)[0]) * math.sqrt(g.size)
            return np.asarray(total * g / np.linalg.norm(g))

    return replace(gain, load=load)
