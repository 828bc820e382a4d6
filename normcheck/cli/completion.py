"""What the shell offers for the values of options, once ``normcheck --install-completion`` has told it to ask.

Each function returns words with a line of help. It loads the table that the words are from and no engine: the shell
waits for the answer. Typer drops the words that do not begin with what was typed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

Words = list[tuple[str, str]]


def _listed(incomplete: str, words: Iterable[tuple[str, str]]) -> Words:
    """Return the words for the end of a list, `incomplete`, whose items are separated by commas."""
    before, comma, _ = incomplete.rpartition(",")
    taken = before.split(",")
    return [(before + comma + word, text) for word, text in words if word not in taken]


def precisions(incomplete: str) -> Words:
    """Formats."""
    return _listed(incomplete, _formats())


def _formats() -> Words:
    from normcheck.arithmetic.formats import FORMATS

    return [(name, form.title) for form in FORMATS for name in dict.fromkeys((form.label, form.name))]


def norms(incomplete: str) -> Words:
    """Norms."""
    return _listed(incomplete, _norms())


def _norms() -> Words:
    from normcheck.norms.table import NORMS

    return [(norm.name, f"divides by: {norm.statistic.title}") for norm in NORMS.values()]


def implementations(incomplete: str) -> Words:
    """Implementations: rows, then aliases."""
    return _listed(incomplete, _implementations())


def _implementations() -> Words:
    from normcheck.norms.catalogue import aliases, catalogue

    rows = [(row.name, row.title) for row in catalogue().values()]
    return rows + [(alias.name, alias.title) for alias in aliases()]


def projects() -> Words:
    """Projects whose kernels the catalogue has."""
    from normcheck.norms.catalogue import catalogue

    return [(name, "") for name in dict.fromkeys(row.project for row in catalogue().values())]


def statuses() -> Words:
    """How well a row is known."""
    from normcheck.norms.catalogue import catalogue

    return [(name, "") for name in dict.fromkeys(row.status for row in catalogue().values())]


def distributions() -> Words:
    """Distributions of the table; those of scipy are too many."""
    from normcheck.layers.distributions import DISTRIBUTIONS

    return [(row.name, row.title) for row in DISTRIBUTIONS.values()]


def experiments() -> Words:
    """Experiments on the paper's claims."""
    from normcheck.paper.experiments import EXPERIMENTS

    return [(row.name, row.title) for row in EXPERIMENTS.values()]


def cases() -> Words:
    """Published failures, and controls."""
    from normcheck.analysis.corpus.records import records

    return [(record.id, record.where) for record in records().values()]


def signatures() -> Words:
    """How norms fail."""
    from normcheck.analysis.corpus.signatures import MEANINGS

    return list(MEANINGS.items())


def selectors(incomplete: str) -> Words:
    """Codes of rules."""
    return _listed(incomplete, [("ALL", "all rules"), *_rules()])


def _rules() -> Words:
    from normcheck.analysis.rules import RULES

    return [(rule.code, rule.title) for rule in RULES]


def severities(incomplete: str) -> Words:
    """Codes of rules, each with each level."""
    from normcheck.results import SEVERITIES

    return _listed(incomplete, [(f"{code}={level}", title) for code, title in _rules() for level in SEVERITIES])


def thresholds(incomplete: str) -> Words:
    """Thresholds, with their usual values."""
    from normcheck.analysis.policy import THRESHOLDS
    from normcheck.analysis.thresholds import DEFAULTS

    return _listed(incomplete, [(f"{name}=", f"usually {getattr(DEFAULTS, name):g}") for name in THRESHOLDS])


def params() -> Words:
    """Presets of where parameters live."""
    from normcheck.norms.parameters import PARAMS

    return [(name, f"parameters in the format {storage}") for name, storage in PARAMS.items()]


def roundings() -> Words:
    """Rounding modes."""
    from normcheck.arithmetic.rounding import MODES

    return [(mode, "") for mode in MODES]


def orders() -> Words:
    """Orders of summation."""
    from normcheck.arithmetic.orders import ORDERS

    return list(ORDERS.items())


def entries(context: typer.Context) -> Words:
    """Names in the list that a command shows."""
    lists = {
        "formats": _formats,
        "norms": _norms,
        "implementations": _implementations,
        "orders": orders,
        "distributions": distributions,
        "rules": _rules,
    }
    return lists[context.info_name or ""]()
