"""Candidates for norms: the tensors of one module that have a norm's names and shapes, whatever it is in the end."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from normcheck.layers.contents import Omitted
from normcheck.layers.discovery import conventions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from normcheck.layers.contents import Role, Tensor

LARGEST = 2**26
"""Elements of the largest weight that is taken for a norm's: no model's norms come near."""

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Tensors of one module, of one shape, that may be a norm's.

    Attributes:
        name: the module's.
        tensors: by their role in a norm.
        leaves: the last parts of all keys of the module, roles or not.
    """

    name: str
    tensors: Mapping[Role, Tensor]
    leaves: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its statistics; without any, of its weight."""
        return next(iter(self.tensors.values())).shape

    @property
    def size(self) -> int:
        """Number of elements of that shape."""
        return math.prod(self.shape)


def words(name: str) -> tuple[str, ...]:
    """The words of a module's name, in lower case: of its last part that is no number, and of that part as a whole."""
    part = next((p for p in reversed(name.split(".")) if not p.isdigit()), "")
    return (*(w.lower() for w in _WORD.findall(part)), re.sub(r"[\W\d_]", "", part).lower())


def looks_like_norm(name: str) -> bool:
    """Whether a module's name calls it a norm."""
    found = words(name)
    return bool(conventions.NORM_WORDS.intersection(found)) or found[-1].endswith(("norm", "norms"))


def split(key: str) -> tuple[str, str]:
    """A key's module and leaf: at the last dot, or slash, or the underscore before a leaf that hangs on."""
    module, dot, leaf = key.replace("/", ".").removesuffix(":0").rpartition(".")
    for joined in conventions.JOINED:
        if leaf.endswith(f"_{joined}"):
            return f"{module}{dot}{leaf.removesuffix(f'_{joined}')}", joined
    return module, leaf


def modules_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by module and leaf, both in the order of the file; flax's two collections of a module as one."""
    collections = any(key.startswith(f"{conventions.COLLECTIONS[1]}.") for key in tensors)
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, leaf = split(key)
        if collections:
            module = _without_collection(module)
        modules.setdefault(module, {})[leaf] = tensor
    return modules


def _without_collection(module: str) -> str:
    first, _, rest = module.partition(".")
    return rest if first in conventions.COLLECTIONS else module


def without_optimizer(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Omitted]]:
    """The tensors that are not an optimizer's state, and what that left out."""
    kept: dict[str, Tensor] = {}
    left: dict[str, int] = {}
    for key, tensor in tensors.items():
        parts = key.replace("/", ".").split(".")
        at = next((i for i, part in enumerate(parts) if part in conventions.OPTIMIZER), None)
        if at is None:
            kept[key] = tensor
        else:
            root = ".".join(parts[: at + 1])
            left[root] = left.get(root, 0) + 1
    return kept, [Omitted(name, f"{count} tensors of an optimizer's state") for name, count in left.items()]


def candidates(modules: Mapping[str, Mapping[str, Tensor]]) -> Iterator[Candidate | Omitted]:
    """All modules with a norm's tensors, in the order of the file, and those that cannot be analysed."""
    for name, leaves in modules.items():
        quantised = _quantised(name, leaves)
        if quantised is not None:
            yield quantised
            continue
        if name.rpartition(".")[2] in conventions.PARTS:
            continue
        tensors = _statistics(name, leaves) or _affine(name, leaves)
        if tensors and (looks_like_norm(name) or any(tensor.is_floating for tensor in tensors.values())):
            yield _checked(Candidate(name or conventions.ROOT, tensors, frozenset(leaves)))


def _statistics(name: str, leaves: Mapping[str, Tensor]) -> dict[Role, Tensor]:
    weight, bias = _first(conventions.WEIGHTS, leaves), _first(conventions.BIASES, leaves)
    for mean, variance in conventions.STATISTICS.items():
        var = _first((variance, *conventions.MORE_VARIANCES.get(mean, ())), leaves)
        if mean not in leaves or var is None or leaves[mean].shape != var.shape or not is_vector(var.shape):
            continue
        if mean in conventions.VAGUE_STATISTICS and not (weight or bias or looks_like_norm(name)):
            continue
        roles: dict[Role, Tensor | None] = {"running_mean": leaves[mean], "running_var": var}
        roles |= {"weight": weight, "bias": bias}
        return {role: tensor for role, tensor in roles.items() if tensor is not None}
    return {}


def _affine(name: str, leaves: Mapping[str, Tensor]) -> dict[Role, Tensor]:
    weight, bias = _first(conventions.WEIGHTS, leaves), _first(conventions.BIASES, leaves)
    if weight is None or 0 in weight.shape:
        return {}
    if bias is None:
        fits = is_vector(weight.shape) or (len(weight.shape) == 2 and looks_like_norm(name))
        return {"weight": weight} if fits else {}
    return {"weight": weight, "bias": bias} if weight.shape == bias.shape and weight.shape else {}


def _first(names: Iterable[str], leaves: Mapping[str, Tensor]) -> Tensor | None:
    return next((leaves[name] for name in names if name in leaves), None)


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a vector, be it among dimensions of 1: (C,), (1, C, 1, 1)."""
    return bool(shape) and sum(d != 1 for d in shape) <= 1


def _checked(candidate: Candidate) -> Candidate | Omitted:
    for role, tensor in candidate.tensors.items():
        if not tensor.is_floating:
            return Omitted(candidate.name, f"quantised: its {role} is stored as {tensor.dtype}")
        if math.prod(tensor.shape) != candidate.size:
            return Omitted(candidate.name, f"its {role} has shape {tensor.shape}, which does not fit {candidate.shape}")
    if candidate.size == 0:
        return Omitted(candidate.name, "its tensors are empty")
    if candidate.size > LARGEST:
        return Omitted(candidate.name, f"it has {candidate.size} channels, more than any norm")
    return candidate


def _quantised(name: str, leaves: Mapping[str, Tensor]) -> Omitted | None:
    """The module as omitted, where its weight is a vector stored in a quantised form."""
    stem, _, leaf = name.rpartition(".")
    for key, tensor in leaves.items():
        inside = f"{leaf}.{key}" in conventions.QUANTISED
        owner = stem if inside else name
        if (inside or key in conventions.QUANTISED) and (looks_like_norm(owner) or is_vector(tensor.shape)):
            return Omitted(owner or conventions.ROOT, f"quantised: its weight is stored as {tensor.dtype}")
    return None
