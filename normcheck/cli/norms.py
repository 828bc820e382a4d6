"""``normcheck norms``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normcheck.cli import completion
from normcheck.cli.files import emit
from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name, dimensions, names, whole
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.norms.cost import Cost
    from normcheck.norms.table import Norm
    from normcheck.render.lists import Entry

_COLUMNS = {
    "row": "one row is a",
    "divides_by": "divides by",
    "eps_on": "eps on",
    "statistic": "statistic",
    "where": "over",
}
_NARROW = ("row", "divides_by")
_NOTE = (
    "c is x minus the row's mean, or x itself where a norm is uncentred; C makes each statistic estimate the "
    "standard deviation. batch, layernorm, groupnorm, rms-norm and their like mean the L2 ones."
)
_ACTIVATIONS = "y = gamma * c / s + beta, c = {}"
_WEIGHTS = {"weight": "w = g * v / ||v||", "bounded-weight": "w = rho * v / ||v||"}
_POWERS = {"l2": "sqrt(sum(v^2))", "l1": "sum(|v|)", "linf": "max(|v|)"}

_THE_COST = "The cost"
ShowCost = Annotated[
    bool,
    typer.Option("--cost", rich_help_panel=_THE_COST, help="Operations by kind, bytes moved and kept, and energy."),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision", metavar="FORMAT,...", show_default="fp16", rich_help_panel=_THE_COST,
        autocompletion=completion.precisions, help="Formats of the elements; `normcheck formats` lists them.",
    ),
]  # fmt: skip
Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--implementation", metavar="NAME,...", show_default="pure, or wide below 11 bits", rich_help_panel=_THE_COST,
        autocompletion=completion.implementations,
        help="How kernels compute: rows or aliases of `normcheck implementations`, all, or a TOML file.",
    ),
]  # fmt: skip
Shape = Annotated[
    str | None,
    typer.Option(
        "--shape", metavar="N,C,...", show_default="32,64,28,28", rich_help_panel=_THE_COST,
        help="Dimensions: N,C,... or ...,D for layer and rms norms.",
    ),
]  # fmt: skip
NumGroups = Annotated[
    int | None,
    typer.Option(
        parser=whole, metavar="G", show_default="32 or fewer", rich_help_panel=_THE_COST, help="Groups of a group norm."
    ),
]
Terms = Annotated[
    int | None,
    typer.Option(
        "--k", parser=whole, metavar="K", show_default="10", rich_help_panel=_THE_COST,
        help="Elements of a topk statistic.",
    ),
]  # fmt: skip
Backward = Annotated[bool, typer.Option("--backward", rich_help_panel=_THE_COST, help="Of the backward pass too.")]

_COST_COLUMNS = {
    "passes": "passes",
    "read": "read,\nB/element",
    "written": "written,\nB/element",
    "kept": "kept,\nB/element",
    "for_dx": "for dx,\nB/element",
    "energy": "pJ/element",
    "operations": "operations",
}
_COST_NARROW = ("energy", "operations")
_STEP_COLUMNS = {
    "kind": "operation", "format": "in", "per_element": "per element", "per_row": "per row", "total": "in all",
}  # fmt: skip
_COST_NOTE = (
    "Operations of one element and of one row, in training. read: the elements once a pass; kept: for the backward "
    "pass by the module of normcheck.nn, and what dx needs of it once the sums of a row are known. pJ: additions and "
    "multiplications by the figures published for 45 nm, - for formats that have none; other operations and memory "
    "have none and are left out. A name shows every step: normcheck norms batch-l1 --cost"
)


def norms(
    name: Name = None,
    *,
    cost: ShowCost = False,
    precision: Precisions = None,
    implementation: Kernels = None,
    shape: Shape = None,
    num_groups: NumGroups = None,
    k: Terms = None,
    backward: Backward = False,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the norms, or show all facts of one, or what they cost."""
    from normcheck.norms.table import NORMS, norm_named
    from normcheck.render.lists import Listing

    chosen = [norm_named(name)] if name is not None else list(NORMS.values())
    if cost:
        size = dimensions(shape or "32,64,28,28")
        kinds = {"num_groups": num_groups, "k": 10 if k is None else k}
        costs = list(_costs(chosen, names(precision, "fp16"), names(implementation), size, backward, kinds))
        _show_costs(costs, form, one=name is not None)
        return
    given = {"--precision": precision, "--implementation": implementation, "--shape": shape, "--k": k}
    _refuse({**given, "--num-groups": num_groups, "--backward": backward or None})
    if name is not None:
        show_page(_entry(chosen[0]), form)
        return
    show_list(Listing(entries=tuple(map(_entry, chosen)), columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


def _refuse(given: dict[str, Any]) -> None:
    """Refuse options of the cost where it is not asked for.

    Raises:
        UsageError: the first of them.
    """
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option} says of which run to count the cost: add --cost, or leave it out")


def _entry(norm: Norm) -> Entry:
    from normcheck.norms.table import WHERES
    from normcheck.render.lists import Entry

    facts = {
        "formula": _WEIGHTS.get(norm.where) or _ACTIVATIONS.format("x - mean" if norm.centred else "x"),
        "row": norm.row_noun,
        "where": WHERES[norm.where],
        "divides_by": _POWERS[norm.statistic.name] if norm.is_weight else norm.statistic.formula,
        "statistic": norm.statistic.title if not norm.is_weight else f"{norm.statistic.name} norm of the weights",
        "centred": norm.centred,
        "constant": norm.has_constant,
        "eps_on": None if norm.is_weight else norm.statistic.eps_on,
    }
    return Entry(norm.name, facts)


def _costs(
    chosen: list[Norm],
    precisions: tuple[str, ...],
    implementations: tuple[str, ...],
    shape: tuple[int, ...],
    backward: bool,
    kinds: dict[str, Any],
) -> Iterator[Cost]:
    """Yield the cost of each norm in each precision and implementation that defines it, forward before backward.

    Raises:
        UsageError: an unknown name; a shape that a norm does not take; no implementation that defines the norm.
    """
    from normcheck.arithmetic.formats import format_named
    from normcheck.norms.aliases import defining
    from normcheck.norms.catalogue import choices
    from normcheck.norms.cost import cost
    from normcheck.norms.implementations import default_implementations

    forms = [format_named(precision) for precision in precisions]
    hows = choices(implementations)
    if hows and not any(defining(how, norm, io) for how in hows for norm in chosen for io in forms):
        raise UsageError(f"--implementation {','.join(implementations)}: none of them defines {chosen[0].name}")
    for norm in chosen:
        for io in forms:
            for choice in hows or choices(default_implementations(io)[0]):
                for how in defining(choice, norm, io):
                    yield cost(norm, io, how, shape, **kinds)
                    if backward:
                        yield cost(norm, io, how, shape, direction="backward", **kinds)


def _show_costs(costs: list[Cost], form: ListFormat, *, one: bool) -> None:
    """Print what norms cost: as a table, of one norm as a page with every step each, or all facts as JSON."""
    from normcheck.render.json_report import dumps, to_plain
    from normcheck.render.lists import Entry, Listing

    if form is ListFormat.JSON:
        emit(dumps(to_plain(costs)), "utf-8")
    elif not one:
        rows = tuple(Entry(f"{found.norm}\n{_run(found)}", _brief(found)) for found in costs)
        show_list(Listing(entries=rows, columns=_COST_COLUMNS, narrow=_COST_NARROW, note=_COST_NOTE), form)
    else:
        for place, found in enumerate(costs):
            if place:
                emit("\n")
            show_page(Entry(found.norm, _facts(found)), form)
            emit("\n")
            steps = tuple(Entry(step.step, dataclasses.asdict(step)) for step in found.steps)
            show_list(Listing(entries=steps, columns=_STEP_COLUMNS, narrow=tuple(_STEP_COLUMNS)), form)


def _brief(found: Cost) -> dict[str, Any]:
    """Return what a row of the table has, by element."""
    elements = found.groups * found.size
    kept = found.saved.modules
    return {
        "passes": found.bytes.passes,
        "read": found.bytes.read_by_passes / elements,
        "written": found.bytes.written / elements,
        "kept": None if kept is None else kept / elements,
        "for_dx": found.saved.for_dx / elements,
        "energy": found.energy.per_element,
        "operations": _per_element_and_row(found),
    }


def _per_element_and_row(found: Cost) -> str:
    from normcheck.render.figures import figure

    each = [f"{kind} {figure(done.per_element)}" for kind, done in found.operations.items() if done.per_element]
    rows = [f"{kind} {done.per_row}" for kind, done in found.operations.items() if done.per_row]
    return f"element: {', '.join(each)}; row: {', '.join(rows) or 'none'}"


def _run(found: Cost) -> str:
    passed = ", backward" if found.direction == "backward" else ""
    return f"{found.precision}, {found.implementation}{passed}"


def _facts(found: Cost) -> dict[str, Any]:
    """Return what the page of a cost has above its steps."""
    from normcheck.render.figures import figure

    energy, left_out = found.energy, ", ".join(found.energy.left_out)
    none = "none is published for a format of its additions or multiplications"
    modules = "" if found.saved.modules is None else f"\n{found.saved.modules} bytes by the module of normcheck.nn"
    operations = (
        f"{kind}: {figure(done.per_element)} an element and {done.per_row} a row, {done.total} in all"
        for kind, done in found.operations.items()
    )
    return {
        "computed_in": _run(found),
        "rows": f"{found.groups} of {found.size} elements",
        "operations": "\n".join(operations),
        "passes": found.bytes.passes,
        "read": f"{found.bytes.read} bytes, or {found.bytes.read_by_passes} with the elements once a pass",
        "written": f"{found.bytes.written} bytes",
        "saved": f"{found.saved.formula} bytes by the formula{modules}\n{found.saved.for_dx} bytes are what dx needs "
        "once the sums of a row are known",
        "energy": none
        if energy.picojoules is None
        else f"{figure(energy.picojoules / 1e6)} uJ, {figure(energy.per_element)} pJ an element; without memory"
        + (f", and without {left_out}, for which none is published" if left_out else ""),
    }
