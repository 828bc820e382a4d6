"""What stands beside a norm: the linear layers and convolutions near it with as many inputs or outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from normcheck.layers.discovery import conventions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from normcheck.layers.contents import Tensor

OperatorKind = Literal["linear", "pointwise", "depthwise", "dense"]
Counts = dict[int, Counter[OperatorKind]]
LEVELS = 3
"""How many enclosing modules are looked through, from the nearest, until one has an operator that fits."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A linear layer (or embedding, or matrix) or convolution, with its width on either side."""

    name: str
    kind: OperatorKind
    outputs: int
    inputs: int


@dataclass(frozen=True, slots=True)
class Beside:
    """The operators of a norm's width in the nearest module that has any.

    Attributes:
        linear, pointwise, depthwise, dense: how many there are, counting inputs and outputs; convolutions are
            pointwise (kernels of 1), depthwise (each channel for itself), or dense.
        before: the operator of its width just before it in a numbered row; None where that is not known.
        numbered: whether it stands in a numbered row of modules.
        directly: whether they stand in that module itself, not further in.
        convolutional: whether the model has dense convolutions at all.
        opens_blocks: whether it is the norm before the transformer blocks that a convolutional model wraps.
    """

    linear: int = 0
    pointwise: int = 0
    depthwise: int = 0
    dense: int = 0
    before: Operator | None = None
    numbered: bool = False
    directly: bool = False
    convolutional: bool = False
    opens_blocks: bool = False

    @property
    def convolutions(self) -> int:
        """How many convolutions there are."""
        return self.pointwise + self.depthwise + self.dense

    @property
    def any(self) -> bool:
        """Whether there is an operator."""
        return self.linear + self.convolutions > 0

    @property
    def only_convolutions(self) -> bool:
        """Whether it stands among convolutions and beside no linear layer."""
        return self.linear == 0 and self.convolutions > 0

    @property
    def behind_convolution(self) -> bool:
        """Whether it stands just behind a convolution."""
        return self.before is not None and self.before.kind != "linear"

    @property
    def behind_linear(self) -> bool:
        """Whether it stands behind a linear layer, or beside nothing else."""
        if self.numbered:
            return self.before is not None and self.before.kind == "linear"
        return self.directly and self.linear > 0 == self.convolutions


class Neighbours:
    """Operators by the modules that they stand in."""

    def __init__(self, modules: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Index the operators of all modules."""
        self._within: dict[str, Counts] = {}
        self._directly: dict[str, Counts] = {}
        self._last: dict[str, Operator] = {}
        self._convolutional = False
        for name, leaves in modules.items():
            for operator in _operators(name, leaves):
                self._add(operator)

    def _add(self, operator: Operator) -> None:
        self._convolutional |= operator.kind == "dense"
        module = operator.name.rpartition(".")[0]
        _count(self._directly.setdefault(module, {}), operator)
        self._last[operator.name] = operator
        while module:
            _count(self._within.setdefault(module, {}), operator)
            self._last[module] = operator
            module = module.rpartition(".")[0]
        _count(self._within.setdefault("", {}), operator)

    def of(self, name: str, width: int) -> Beside:
        """What stands beside the norm of that name and width: the module's own operators, else those further in."""
        module = name
        general: dict[str, Any] = {
            "before": self._before(name, width),
            "numbered": name.rpartition(".")[2].isdigit(),
            "convolutional": self._convolutional,
            "opens_blocks": self._opens_blocks(name),
        }
        for _ in range(LEVELS):
            module = module.rpartition(".")[0]
            for index in (self._directly, self._within):
                count = index.get(module, {}).get(width)
                if count:
                    counted: dict[str, Any] = {str(kind): number for kind, number in count.items()}
                    return Beside(**counted, **general, directly=index is self._directly)
            if not module:
                break
        return Beside(**general)

    def _opens_blocks(self, name: str) -> bool:
        module, _, leaf = name.rpartition(".")
        return self._convolutional and leaf == "norm" and f"{module}.{conventions.WRAPPED_BLOCKS}" in self._within

    def _before(self, name: str, width: int) -> Operator | None:
        parent, _, number = name.rpartition(".")
        if not number.isdigit():
            return None
        for index in range(int(number) - 1, max(-1, int(number) - 4), -1):
            operator = self._last.get(f"{parent}.{index}" if parent else str(index))
            if operator is not None:
                return operator if width == operator.outputs else None
        return None


def _count(counts: Counts, operator: Operator) -> None:
    for width in (operator.outputs, operator.inputs):
        counts.setdefault(width, Counter())[operator.kind] += 1


def _operators(name: str, leaves: Mapping[str, Tensor]) -> Iterator[Operator]:
    for leaf in conventions.OPERATORS:
        tensor = leaves.get(leaf)
        if tensor is not None and len(tensor.shape) in range(2, 6) and 0 not in tensor.shape:
            bias = leaves.get("bias")
            yield _operator(name, leaf, tensor.shape, bias.shape if bias else ())
            return
    stem, _, parameter = name.rpartition(".")
    if parameter != "weight":
        return
    for leaf in conventions.PARAMETRIZED:  # X.parametrizations.weight.original1, X.weight.qweight
        tensor = leaves.get(leaf)
        if tensor is not None and len(tensor.shape) in range(2, 6) and 0 not in tensor.shape:
            yield _operator(stem.removesuffix(".parametrizations"), leaf, tensor.shape, ())
            return


def _operator(name: str, leaf: str, shape: tuple[int, ...], bias: tuple[int, ...]) -> Operator:
    outputs, inputs = shape[:2]
    kernel = shape[2:]
    if leaf == "kernel":  # of Keras and flax: inputs and outputs come last
        outputs, inputs, kernel = shape[-1], shape[-2], shape[:-2]
    elif bias == (inputs,) != (outputs,):
        outputs, inputs = inputs, outputs  # stored transposed
    return Operator(name, _kind(name, inputs, kernel), outputs, inputs)


def _kind(name: str, inputs: int, kernel: tuple[int, ...]) -> OperatorKind:
    if not kernel or _makes_tokens(name, inputs, kernel):
        return "linear"
    if all(k == 1 for k in kernel):
        return "pointwise"
    return "depthwise" if inputs == 1 else "dense"


def _makes_tokens(name: str, inputs: int, kernel: tuple[int, ...]) -> bool:
    """Whether a convolution cuts an image into patches, which makes it a linear layer on tokens.

    Its name says so, or it takes few channels through a kernel without a middle: (out, 3, 16, 16). An `embedder` may
    be the stem of a convolutional model.
    """
    named = "embed" in name and "embedder" not in name
    return named or (inputs <= 4 and all(k % 2 == 0 for k in kernel))
