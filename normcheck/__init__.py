"""normcheck: which normalization layer breaks in low precision, at which step, and with how much room left.

The public names are loaded when they are first used (PEP 562): ``import normcheck`` reads no table and loads
neither numpy, torch nor numba.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normcheck.analysis.analyze import analyze
    from normcheck.analysis.emulate import emulate
    from normcheck.analysis.rule import Rule
    from normcheck.analysis.simulate import simulate
    from normcheck.arithmetic.formats import Format
    from normcheck.arithmetic.rounding import round_to
    from normcheck.errors import NormcheckError, UnreadableError, UsageError
    from normcheck.layers.distributions import Distribution
    from normcheck.layers.live.recording import record
    from normcheck.norms.implementations import Implementation
    from normcheck.norms.table import Norm

__version__ = "0.1.0"

__all__ = [
    "NormcheckError",
    "UnreadableError",
    "UsageError",
    "__version__",
    "analyze",
    "distributions",
    "emulate",
    "formats",
    "implementations",
    "norms",
    "record",
    "round_to",
    "rules",
    "simulate",
]

_HOMES = {
    "NormcheckError": "normcheck.errors",
    "UnreadableError": "normcheck.errors",
    "UsageError": "normcheck.errors",
    "analyze": "normcheck.analysis.analyze",
    "emulate": "normcheck.analysis.emulate",
    "record": "normcheck.layers.live.recording",
    "round_to": "normcheck.arithmetic.rounding",
    "simulate": "normcheck.analysis.simulate",
}
"""The module of each public name that is not defined here, under the same name."""


def formats() -> tuple[Format, ...]:
    """Return the table of floating-point formats, without the user's own ``eXmY``."""
    from normcheck.arithmetic.formats import FORMATS

    return FORMATS


def implementations() -> tuple[Implementation, ...]:
    """Return the implementations, generic ones and the catalogue's: how each step of a norm is computed."""
    from normcheck.norms.catalogue import catalogue

    return tuple(catalogue().values())


def distributions() -> tuple[Distribution, ...]:
    """Return the table of distributions, without those of scipy.stats, which go by scipy's names."""
    from normcheck.layers.distributions import DISTRIBUTIONS

    return tuple(DISTRIBUTIONS.values())


def rules() -> tuple[Rule, ...]:
    """Return the table of rules: what makes a finding of a figure."""
    from normcheck.analysis.rules import RULES

    return RULES


class _CallablePackage(ModuleType):
    """The subpackage `normcheck.norms`, which is the public function ``normcheck.norms()`` as well.

    Importing any submodule of `normcheck.norms` makes Python bind the subpackage to that name, over whatever
    function stood there. So the subpackage itself can be called.
    """

    def __call__(self) -> tuple[Norm, ...]:
        """Return the table of norms: where x statistic x centred."""
        from normcheck.norms.table import NORMS

        return tuple(NORMS.values())


if TYPE_CHECKING:
    norms = _CallablePackage("normcheck.norms")
else:
    from normcheck import norms

    norms.__class__ = _CallablePackage

    def __getattr__(name: str) -> Any:
        """Load a public name from its module; hidden from type checkers, which see the imports above."""
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = globals()[name] = getattr(importlib.import_module(home), name)
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
