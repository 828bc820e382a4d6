"""What a norm costs: operations by kind and format, bytes read, written and kept, and energy where it is published.

The operations are those of the one definition, `forward` and `backward`, run under an arithmetic that counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

from normcheck.arithmetic.counting import KINDS, Count, Counting, Kind, passes
from normcheck.arithmetic.formats import FLOAT32
from normcheck.norms.backward import backward, with_gradient_orders, with_gradient_steps
from normcheck.norms.constants import effective_k
from normcheck.norms.forward import Outputs, Problem, forward
from normcheck.norms.table import grouping

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.values import Elements, PerRow
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.table import Grouping, Norm

Pass = Literal["forward", "backward"]


class Picojoules(NamedTuple):
    """Energy of one multiplication and of one addition, in picojoules."""

    multiply: float
    add: float


ENERGY: dict[str, Picojoules] = {
    "int8": Picojoules(0.2, 0.03),
    "float16": Picojoules(1.1, 0.40),
    "float32": Picojoules(3.7, 0.90),
}
"""Energy as published for 45 nm, on the poster of Banner et al. (arXiv 1805.11046), after Sze et al. (2017). It has
neither other formats, nor other operations, nor memory."""

_TYPES_OF_TORCH = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Operations:
    """Operations of one kind.

    `per_element`: those on elements, sums and selections over them included, divided by the elements of a row.
    `per_row`: those on one number a row. `total`: of all rows.
    """

    per_element: float
    per_row: int
    total: int


@dataclass(frozen=True, slots=True)
class StepOperations:
    """Operations of one kind in one step.

    `step`: its name, as in reports. `kind`: one of `KINDS`. `format`: what they are performed in. `per_element`: those
    on elements, sums and selections over them included, divided by the elements of a row. `per_row`: those on one
    number a row. `total`: of all rows.
    """

    step: str
    kind: Kind
    format: str
    per_element: float
    per_row: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes that go through memory, of all rows; elements and parameters are in the io format.

    `read`: each operand once, which is x, gamma and beta; backward, the gradient of the output, x, gamma, mean and 1/s.
    `passes`: how often the elements of a row are passed over, since what a pass needs is known after the one before.
    `read_by_passes`: as `read`, but the elements once a pass, for rows that do not stay near. `written`: the output;
    backward, dx and the gradients of gamma and beta.
    """

    read: int
    passes: int
    read_by_passes: int
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Bytes kept from the forward pass for the backward one, of all rows, without parameters.

    `formula`: what the formulas need beside the gradient, which is y and 1/s, in the io format. `for_dx`: what is left
    of that to form dx once the sums of a row are known, which is 1/s with the elements for l2, with their signs, one
    bit each, for l1, and with sign and place of the elements that decide all others. `modules`: what the modules of
    `normcheck.nn` keep on the CPU, input and parameters in the io format, which is x, mean and 1/s for l2, as torch
    does (and gamma once a row for instance norms), and y, s in float32 or wider and places of 64 bits for the others;
    None where there is no such module, in formats that torch does not compute in, and for rms, which torch composes of
    parts that keep their own.
    """

    formula: int
    for_dx: int
    modules: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of the additions and multiplications, by the published table `ENERGY`.

    `picojoules`: of all rows; None where one of them is in a format that the table does not have. `per_element`: that,
    divided by the elements. `left_out`: by kind, the operations for which none is published; they are not in the sum,
    and neither is memory.
    """

    picojoules: float | None
    per_element: float | None
    left_out: dict[Kind, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one pass of a norm costs.

    `norm`: which one. `precision`: the io format, of the elements and parameters. `implementation`: formats of the
    steps, and the algorithm. `direction`: the pass, the forward one being that of training. `groups`: rows. `size`:
    elements of a row. `operations`: by kind, in the order of `KINDS`; only those that occur. `steps`: the same by step,
    in the order of the program. `bytes`: through memory. `saved`: kept for the backward pass. `energy`: of the
    arithmetic.
    """

    norm: str
    precision: str
    implementation: str
    direction: Pass
    groups: int
    size: int
    operations: dict[Kind, Operations]
    steps: tuple[StepOperations, ...]
    bytes: Traffic
    saved: Saved
    energy: Energy


def cost(
    norm: Norm,
    io: Format,
    how: Implementation,
    shape: tuple[int, ...],
    *,
    direction: Pass = "forward",
    num_groups: int | None = None,
    k: int = 10,
) -> Cost:
    """Count what one pass of a norm costs, with gamma and beta (g or rho of weight norms), in the io format all.

    Args:
        norm: which one; batch norms in training, without the update of running statistics.
        io: format of the elements and parameters. how: formats of the steps, and the algorithm.
        shape: torch's shape of the input. num_groups: of group norms. k: of topk; all elements where there are fewer.
        direction: the pass. The backward one computes c and y from x again, as the definition does; the places of the
            largest elements are there from the forward pass, and gradients of parameters that rows share (of layer,
            instance and group norms) are not formed.

    Values play no part: NaN, infinities and zeros cost what numbers cost. Clamps and changes of sign count for nothing.

    Raises:
        UsageError: a shape that the norm does not take, k < 1.
    """
    rows = grouping(norm, shape, num_groups)
    k = effective_k(rows.size, k)
    counting, traffic = (
        _forward(norm, io, how, rows, k) if direction == "forward" else _backward(norm, io, how, rows, k)
    )
    steps = tuple(
        StepOperations(step, kind, str(form), *_shares(count, rows))
        for (step, kind, form), count in counting.counts.items()
    )
    return Cost(
        norm=norm.name,
        precision=io.label,
        implementation=how.name,
        direction=direction,
        groups=rows.groups,
        size=rows.size,
        operations=_by_kind(counting, rows),
        steps=steps,
        bytes=traffic,
        saved=_saved(norm, io, rows, k),
        energy=_energy(steps, rows),
    )


def _forward(norm: Norm, io: Format, how: Implementation, rows: Grouping, k: int) -> tuple[Counting, Traffic]:
    a = Counting(rows.size, how.formats(io, io), how.orders())
    problem = _problem(a, norm, io, rows, k)
    outputs = forward(a, a.elements(io), problem, how)
    parameters = _parameters(norm, rows)
    many = passes(outputs.y)
    x = rows.groups * rows.size
    return a, Traffic(
        read=_bytes(io, x + parameters),
        passes=many,
        read_by_passes=_bytes(io, many * x + parameters),
        written=_bytes(io, x),
    )


def _backward(norm: Norm, io: Format, how: Implementation, rows: Grouping, k: int) -> tuple[Counting, Traffic]:
    a = Counting(rows.size, with_gradient_steps(how.formats(io, io)), with_gradient_orders(how.orders()))
    problem = _problem(a, norm, io, rows, k)
    outputs = _kept(a, norm, how)
    gradients = backward(a, a.elements(io), a.elements(io), outputs, problem, how)
    many, x = passes(gradients.x), rows.groups * rows.size
    weights, kept = _weights(norm, rows), rows.groups * (2 if norm.centred else 1)
    return a, Traffic(
        read=_bytes(io, 2 * x + weights + kept),
        passes=many,
        read_by_passes=_bytes(io, 2 * many * x + weights + kept),
        written=_bytes(io, x + _parameters(norm, rows)),
    )


def _kept(a: Counting, norm: Norm, how: Implementation) -> Outputs:
    """What a forward pass leaves for the backward one: its mean, s and 1/s, in the formats of their steps."""
    mean = a.per_row(a.formats["mean"]) if norm.centred else None
    s = a.per_row(a.formats["reciprocal"])
    divides = how.root_form == "divide" and not norm.is_weight
    token = a.elements(a.formats["store"])
    return Outputs(token, None, mean, s, s, None if divides else s)


def _problem(a: Counting, norm: Norm, io: Format, rows: Grouping, k: int) -> Problem:
    """The norm with gamma, and with beta where it has one; eps and C are of some size."""
    by_element = rows.channel_of in ("element", "group") and not norm.is_weight

    def parameter() -> PerRow | Elements:
        return a.elements(io) if by_element else a.per_row(io)

    return Problem(norm, eps=1.0, k=k, weight=parameter(), bias=None if norm.is_weight else parameter())


def _weights(norm: Norm, rows: Grouping) -> int:
    """Numbers in gamma: one a channel, an element of layer norms, an output channel; one in all of bounded weights."""
    return 1 if norm.where == "bounded-weight" else rows.channels


def _parameters(norm: Norm, rows: Grouping) -> int:
    """Numbers in gamma and beta."""
    return _weights(norm, rows) * (1 if norm.is_weight else 2)


def _shares(count: Count, rows: Grouping) -> tuple[float, int, int]:
    total = rows.groups * (count.on_elements + count.on_rows)
    return count.on_elements / rows.size, count.on_rows, total


def _by_kind(counting: Counting, rows: Grouping) -> dict[Kind, Operations]:
    kinds: dict[Kind, Count] = {kind: Count() for kind in KINDS}
    for (_, kind, _), count in counting.counts.items():
        kinds[kind].on_elements += count.on_elements
        kinds[kind].on_rows += count.on_rows
    return {kind: Operations(*_shares(count, rows)) for kind, count in kinds.items() if count != Count()}


def _energy(steps: tuple[StepOperations, ...], rows: Grouping) -> Energy:
    known, total = True, 0.0
    left_out: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    for step in steps:
        if step.kind not in ("add", "multiply"):
            left_out[step.kind] += step.total
        elif (published := ENERGY.get(step.format)) is None:
            known = False
        else:
            total += step.total * (published.add if step.kind == "add" else published.multiply)
    elements = rows.groups * rows.size
    total = round(total, 2)  # of figures with two decimals: what binary sums add to that is theirs
    return Energy(
        picojoules=total if known else None,
        per_element=total / elements if known else None,
        left_out={kind: count for kind, count in left_out.items() if count},
    )


def _saved(norm: Norm, io: Format, rows: Grouping, k: int) -> Saved:
    elements, each = rows.groups * rows.size, _stored_bits(io)
    place = 1 + (rows.size - 1).bit_length()
    match norm.statistic.name:
        case "l2":
            bits, places = rows.size * each, 0
        case "l1":
            bits, places = rows.size, 0
        case "linf":
            bits, places = place, 1
        case "topk":
            bits, places = k * place, k
        case "range":
            bits, places = 2 * place, 2
        case other:
            assert_never(other)
    return Saved(
        formula=_bytes(io, elements + rows.groups),
        for_dx=math.ceil(rows.groups * (bits + each) / 8),
        modules=_kept_by_modules(norm, io, rows, places),
    )


def _kept_by_modules(norm: Norm, io: Format, rows: Grouping, places: int) -> int | None:
    is_l2 = norm.statistic.name == "l2"
    is_module = norm.centred or (norm.where == "layer" and not is_l2)
    if norm.is_weight or not is_module or io.name not in _TYPES_OF_TORCH:
        return None
    numbers = rows.groups * rows.size
    if is_l2:
        return _bytes(io, numbers + rows.groups * (3 if norm.where == "instance" else 2))
    return _bytes(io, numbers) + rows.groups * (max(4, _stored_bits(io) // 8) + 8 * places)


def _bytes(form: Format, numbers: int) -> int:
    return math.ceil(numbers * _stored_bits(form) / 8)


def _stored_bits(form: Format) -> int:
    """Bits of a number in memory: those of the format, but tf32 lies there as float32."""
    return FLOAT32.bits if form.name == "tf32" else form.bits
