"""A reproducer as a script: plain torch code, made from a Jinja2 template (`normcheck/render/script/`).

What comes from a model or a user enters as literals of Python, in ASCII; names in the code are normcheck's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from normcheck.render.layout import inline
from normcheck.results.reproducer import TORCH_FORMATS

if TYPE_CHECKING:
    from normcheck.results.reproducer import Claim, Formula, Operation, Program, Reproducer

MARKER = "Written by normcheck"
"""How the first line of every script goes on after the hash: what begins so may be replaced."""


def script(made: Reproducer, *, data: str, digest: str) -> str:
    """Return the script that shows a failure. data: name of the file of its arrays; digest: SHA-256 of that file."""
    environment = Environment(
        loader=PackageLoader("normcheck.render", "script"),
        autoescape=False,  # noqa: S701  # no HTML: `python` writes every text as a literal
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = python
    program = made.program
    lines = [_assignment(operation) for operation in program.operations]
    return environment.get_template("reproducer.py.j2").render(
        marker=MARKER,
        made=made,
        program=program,
        formula=program.formula,
        data=data,
        digest=digest,
        has_constant=_has_constant(program.formula),
        inputs=_inputs(program),
        lines=lines,
        helpers=_helpers(program.operations),
        reference=_reference(program.formula),
        is_torch=program.io in TORCH_FORMATS,
        own=_own_kernel(program) if program.gradient is None else None,
        verdict=_verdict(made.claim, program),
    )


def python(value: Any) -> str:
    """Return a literal of Python for a text, a number, None, or a tuple of them: ASCII, control characters escaped."""
    match value:
        case str():
            text = ascii(inline(value))
            return text if '"' in text or "\\'" in text else f'"{text[1:-1]}"'
        case float() if not math.isfinite(value):
            return f"float('{value}')"
        case tuple():
            return f"({', '.join(map(python, value))}{',' * (len(value) == 1)})"
        case _:
            return repr(value)


def _has_constant(formula: Formula) -> bool:
    return not (formula.is_weight or formula.fixed or formula.statistic == "l2")


def _inputs(program: Program) -> list[str]:
    """The recorded arrays that the operations take, but for x."""
    used = [name for operation in program.operations for name in operation.operands if isinstance(name, str)]
    used += [program.statistic, program.divisor, program.output]
    made = {operation.name for operation in program.operations}
    return sorted({name for name in used if name not in made and name != "x"})


def _assignment(operation: Operation) -> str:
    """One operation as one line of torch."""
    if operation.replayed is not None:
        return f"{operation.name} = array({python(operation.name)})  # recorded"
    form = f"torch.{operation.format}"
    if operation.operation == "sum":
        return f"{operation.name} = {_sum(operation, form)}"
    formula = _formula(operation)
    if operation.within is not None:
        formula = f"rounded({formula}, torch.{operation.within})"
    return f"{operation.name} = rounded({formula}, {form})"


_FORMULAS = {
    "copy": "{0}",
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "absolute": "{0}.abs()",
    "sqrt": "torch.sqrt({0})",
    "rsqrt": "1 / torch.sqrt({0})",
    "maximum": "{0}.amax(dim=1, keepdim=True)",
    "minimum": "{0}.amin(dim=1, keepdim=True)",
}


def _formula(operation: Operation) -> str:
    if operation.operation == "constant":
        return f"number({python(operation.number)})"
    operands = [name if isinstance(name, str) else f"number({python(name)})" for name in operation.operands]
    if operation.operation == "largest":
        return f"largest_of({operands[0]}, {python(operation.number)})"
    return _FORMULAS[operation.operation].format(*operands)


def _sum(operation: Operation, form: str) -> str:
    order, terms = operation.order, operation.operands[0]
    assert order is not None  # noqa: S101  # every sum has one
    if order.kind == "lanes":
        merge = "tree" if order.merge == "tree" else "one_after_another"
        return f"{merge}(lanes({terms}, {order.width}, {form}), {form})"
    if order.kind == "blocks":
        return f"mean_of_means({terms}, {order.width}, {form})"
    return f"{_PLAIN_SUMS[order.kind]}({terms}, {form})"


_PLAIN_SUMS = {"sequential": "one_after_another", "pairwise": "in_pairs", "tree": "tree"}


def _helpers(operations: tuple[Operation, ...]) -> set[str]:
    """The functions that the script needs."""
    lines = [_assignment(operation) for operation in operations]
    names = ("tree", "lanes", "one_after_another", "in_pairs", "mean_of_means", "largest_of")
    called = {name for name in names if any(f"{name}(" in line for line in lines)}
    return called | ({"tree"} if "mean_of_means" in called else set())


_STATISTICS = {
    "l2": "(c * c).mean(dim=1, keepdim=True)",
    "l1": "CONSTANT * c.abs().mean(dim=1, keepdim=True)",
    "linf": "CONSTANT * c.abs().max(dim=1, keepdim=True).values",
    "topk": "CONSTANT * torch.topk(c.abs(), {k}, dim=1).values.mean(dim=1, keepdim=True)",
    "range": "CONSTANT * (c.max(dim=1, keepdim=True).values - c.min(dim=1, keepdim=True).values)",
}
_P_NORMS = {
    "l2": "torch.sqrt((c * c).sum(dim=1, keepdim=True))",
    "l1": "c.abs().sum(dim=1, keepdim=True)",
    "linf": "c.abs().max(dim=1, keepdim=True).values",
}
"""Of equal elements the derivative of `max` belongs to the first, as in the norms; that of `amax` is shared."""


def _reference(formula: Formula) -> list[str]:
    """The body of the exact norm."""
    mean = 'array("running_mean")' if formula.fixed else "x.mean(dim=1, keepdim=True)"
    lines = [f"c = x - {mean}" if formula.centred else "c = x"]
    if formula.is_weight:
        lines += [f"statistic = s = {_P_NORMS[formula.statistic]}"]
    else:
        fixed = 'array("running_statistic")'
        lines += [f"statistic = {fixed if formula.fixed else _STATISTICS[formula.statistic].format(k=formula.k)}"]
        lines += ["s = torch.sqrt(statistic + EPS)" if formula.statistic == "l2" else "s = statistic + EPS"]
    y = "c / s"
    if formula.weights:
        y += " * " + _plus('array("weight")', formula.weight_offset)
    if formula.biases:
        y += ' + array("bias")'
    return [*lines, f"return {y}, statistic, s"]


def _plus(weight: str, offset: float) -> str:
    return f"({weight} + {python(offset)})" if offset else weight


@dataclass(frozen=True, slots=True)
class _Own:
    """A function of torch.nn.functional, and the lines that call it on x."""

    name: str
    lines: list[str]


def _own_kernel(program: Program) -> _Own | None:
    """How torch computes this norm itself; None where it does not."""
    formula = program.formula
    where = formula.where if formula.centred else f"{formula.where}, uncentred"
    calls = {
        "batch": ("batch_norm", _batch_norm(formula)),
        "layer": ("layer_norm", ["y = torch.nn.functional.layer_norm(x, (SIZE,), weight, bias, EPS)"]),
        "layer, uncentred": ("rms_norm", ["y = torch.nn.functional.rms_norm(x, (SIZE,), weight, EPS)"]),
        "instance": (
            "instance_norm",
            ["y = torch.nn.functional.instance_norm(x[None], weight=weight, bias=bias, eps=EPS)[0]"],
        ),
        "group": ("group_norm", _group_norm(formula)),
    }
    if formula.statistic != "l2" or where not in calls or not {program.io, program.parameters} <= set(TORCH_FORMATS):
        return None
    name, lines = calls[where]
    return _Own(name, [*_own_parameters(program), *lines, "return y.double()"])


def _own_parameters(program: Program) -> list[str]:
    formula, to = program.formula, f".to(torch.{program.parameters})"
    shape = "" if formula.where == "group" else ".reshape(-1)"
    weight = _plus('array("stored_weight")', formula.weight_offset) + shape + to if formula.weights else "None"
    bias = f'array("stored_bias"){shape}{to}' if formula.biases else "None"
    centred = formula.centred or not formula.biases
    lines = [f"weight = {weight}"] + [f"bias = {bias}"] * centred
    if formula.fixed:
        lines += [f'mean = array("stored_running_mean").reshape(-1){to}']
        lines += [f'variance = array("stored_running_statistic").reshape(-1){to}']
    return lines


def _batch_norm(formula: Formula) -> list[str]:
    if formula.fixed:
        return ["y = torch.nn.functional.batch_norm(x.T, mean, variance, weight, bias, training=False, eps=EPS).T"]
    return ["y = torch.nn.functional.batch_norm(x.T, None, None, weight, bias, training=True, eps=EPS).T"]


def _group_norm(formula: Formula) -> list[str]:
    """Row by row: each is a group of channels, whose parameters stand element by element."""
    n = formula.per_channel
    ours = [
        f"{name}[i, ::{n}]" if has else name for name, has in (("weight", formula.weights), ("bias", formula.biases))
    ]
    call = f"torch.nn.functional.group_norm(row.reshape(1, -1, {n}), 1, {', '.join(ours)}, EPS).reshape(-1)"
    return [f"y = torch.stack([{call} for i, row in enumerate(x)])"]


_WORST = [
    "worst = {0}.nan_to_num(nan=0.0, posinf=0.0).max().item()",
    "there = worst >= limit",
    'what = f"{1} {{worst:.3g}}, and {{limit:.3g}} is half of what was recorded"',
]


def _verdict(claim: Claim, program: Program) -> list[str]:
    """Lines that decide whether the failure is `there`, and say `what` decided."""
    if claim.figure == "rows":
        return [
            f"there = any(became in {python(claim.states)} for became in states)",
            "having = {each: [str(r) for r, s in zip(ROWS, states) if s == each] for each in states}",
            'what = "; ".join(f"{each}: {ROW} {\', \'.join(rows)}" for each, rows in having.items())',
        ]
    limit = f"limit = {python(claim.limit)}"
    if claim.figure == "deviation":
        return [limit, *(line.format("errors", "the largest relative rms error is") for line in _WORST)]
    if claim.figure == "flushed":
        said = "of a row of dx the share that is flushed to 0 is"
        return [limit, *(line.format("flushed(dx, exact_dx)", said) for line in _WORST)]
    culprit = next(operation for operation in program.operations if operation.name == claim.operation)
    value = f"values[{python(culprit.name)}]"
    if claim.figure == "overflow":
        return [
            f"count = int({value}.isinf().any(dim=1).sum())",
            "there = count > 0",
            f'what = f"{culprit.step} is infinite in {{count}} of {{rows}} rows"',
        ]
    if claim.figure == "headroom":
        return [
            limit,
            f"largest = {value}.abs().nan_to_num(nan=0.0, posinf=math.inf).max().item()",
            f"room = math.log2({python(culprit.limit)} / largest) if largest < math.inf else -math.inf",
            f"bits = room / {claim.degree}",
            "there = bits <= limit",
            f'what = f"{culprit.step} has {{bits:.3g}} bits of headroom; {{limit:.3g}} or fewer show it"',
        ]
    times = " * terms.shape[1]" if culprit.order is not None and culprit.order.kind == "blocks" else ""
    return [
        limit,
        f"terms = values[{python(culprit.operands[0])}]",
        f"off = ({value}{times} - terms.sum(dim=1, keepdim=True)).abs() / terms.abs().sum(dim=1, keepdim=True)",
        *(line.format("off", f"of its terms' magnitude, the lost mass of {culprit.step} is") for line in _WORST),
    ]
