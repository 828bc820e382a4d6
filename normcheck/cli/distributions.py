"""``normcheck distributions``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

if TYPE_CHECKING:
    from normcheck.layers.distributions import Distribution, Parameter
    from normcheck.render.lists import Entry

_COLUMNS = {"usage": "write", "formula": "z", "title": "what it is"}
_NARROW = ("title",)
_NOTE = (
    "x = mean + std * z, with --mean and --std; N is a standard normal, U uniform on (0, 1). Every "
    "continuous distribution of scipy.stats is one too, as gamma(a=2): all its shape parameters must be "
    "given. A name shows its parameters: normcheck distributions outlier"
)


def distributions(
    name: Name = None,
    *,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the distributions of --dist, or show all facts of one."""
    from normcheck.layers.distributions import DISTRIBUTIONS, parse_distribution
    from normcheck.render.lists import Listing

    if name is not None:
        show_page(_entry(parse_distribution(name).distribution), form)
        return
    entries = tuple(map(_entry, DISTRIBUTIONS.values()))
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


def _entry(row: Distribution) -> Entry:
    from normcheck.render.lists import Entry

    facts = {
        "title": row.title,
        "usage": _usage(row),
        "formula": row.formula,
        "mean": row.mean,
        "std": row.std,
        "parameters": [_parameter(parameter) for parameter in row.parameters],
    }
    return Entry(row.name, facts)


def _usage(row: Distribution) -> str:
    from normcheck.render.figures import number

    values = [
        f"{p.name}={number(p.default) if isinstance(p.default, float | int) else p.default or '...'}"
        for p in row.parameters
    ]
    return f"{row.name}({', '.join(values)})" if values else row.name


def _parameter(row: Parameter) -> dict[str, Any]:
    return {
        "name": row.name,
        "default": row.default,
        "meaning": row.meaning,
        "low": row.low if math.isfinite(row.low) else None,
        "low_open": row.low_open or None,
        "high": row.high if math.isfinite(row.high) else None,
        "choices": list(row.choices) or None,
    }
