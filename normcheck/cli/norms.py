"""``normcheck norms``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

if TYPE_CHECKING:
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


def norms(name: Name = None, *, form: ListAs = ListFormat.TABLE, debug: Debug = False) -> None:  # noqa: ARG001
    """List the norms, or show all facts of one."""
    from normcheck.norms.table import NORMS, norm_named
    from normcheck.render.lists import Listing

    if name is not None:
        show_page(_entry(norm_named(name)), form)
        return
    entries = tuple(map(_entry, NORMS.values()))
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


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
