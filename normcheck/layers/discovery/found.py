"""A norm on its way to a layer: what it is and which tensors it has, before its parameters are read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from normcheck.arithmetic.formats import FLOAT32, Format, format_named, holds
from normcheck.layers.contents import ROLES
from normcheck.layers.layer import Layer
from normcheck.norms.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from normcheck.layers.contents import Array, Role, Tensor
    from normcheck.layers.discovery.kinds import Kind
    from normcheck.layers.layer import EpsSource
    from normcheck.norms.table import Norm


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Found:
    """A norm, or something that only looks like one (`kind.norm` is None).

    Attributes:
        name, aliases, channels, momentum, vectors, vector_size: as of layers.
        tensors: by their role in the norm.
        kind: what it is.
        vector_storage: what v has in common with other names of it; None where there is no v.
        eps: as stated by module or graph; None where not.
    """

    name: str
    channels: int
    kind: Kind
    tensors: Mapping[Role, Tensor] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    eps: float | None = None
    momentum: float | None = None
    vectors: Callable[[], Array] | None = None
    vector_size: int = 0
    vector_storage: Hashable = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its aliases."""
        return (self.name, *self.aliases)

    def layer(self, norm: Norm, eps: float, source: EpsSource, momentum: float | None) -> Layer:
        """The layer, its parameters read."""
        return Layer(
            name=self.name,
            aliases=self.aliases,
            norm=norm,
            how=self.kind.how,
            sure=self.kind.sure,
            might_be=self.kind.might_be,
            channels=self.channels,
            normalized_shape=self.kind.normalized_shape,
            num_groups=self.kind.num_groups,
            groups_assumed=self.kind.groups_assumed,
            parameters=self._parameters(norm),
            weight_offset=self.kind.weight_offset,
            eps=eps,
            eps_source=source,
            momentum=momentum,
            spatial=self.kind.spatial,
            vectors=self.vectors,
            vector_size=self.vector_size,
        )

    def _parameters(self, norm: Norm) -> Parameters:
        roles = {role: t for role, t in self.tensors.items() if norm.where == "batch" or not role.startswith("running")}
        read = {role: _vector(tensor) for role, tensor in roles.items()}
        return Parameters(
            weight=read.get("weight"),
            bias=read.get("bias"),
            running_mean=read.get("running_mean"),
            running_statistic=read.get("running_var"),
            form=widest(format_named(tensor.dtype) for tensor in roles.values()),
        )


def _vector(tensor: Tensor) -> Array:
    return np.asarray(tensor.load(), dtype=np.float64).reshape(-1)


def widest(formats: Iterable[Format]) -> Format | None:
    """The narrowest of the given formats that holds the numbers of all, else float32; None of none."""
    given = tuple(formats)
    for form in given:
        if all(holds(form, other) for other in given):
            return form
    return FLOAT32 if given else None


# ------------------------------------------------------------------------------------ one module, several names


def merged(found: Sequence[Found]) -> list[Found]:
    """Each module once, under its first name; further names become aliases."""
    first: dict[object, int] = {}
    modules: list[Found] = []
    for one in found:
        keys = [key for key in (_storage(one), _contents(one)) if key is not None]
        at = next((first[key] for key in keys if key in first), None)
        if at is None:
            first.update(dict.fromkeys(keys, len(modules)))
            modules.append(one)
        else:
            modules[at] = replace(modules[at], aliases=(*modules[at].aliases, *one.names))
    return modules


def _storage(found: Found) -> object:
    """What two names of one module have in common: the memory of all their tensors, and eps where stated."""
    if not found.tensors:
        return None
    return found.eps, found.vector_storage, frozenset((role, t.storage, t.shape) for role, t in found.tensors.items())


def _contents(found: Found) -> object:
    """The same for files that keep two copies: trained running statistics, weights and biases, all equal.

    Statistics of two modules are equal only before training, when they are all 0 and 1: those tell nothing.
    """
    if any(role not in found.tensors for role in ROLES):
        return None
    values = {role: found.tensors[role].load() for role in ROLES}
    if any(v.size < 2 or not np.isfinite(v).all() or np.all(v == v.flat[0]) for v in values.values()):
        return None
    return tuple((found.tensors[role].dtype, values[role].tobytes()) for role in ROLES)
