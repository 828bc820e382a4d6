"""``normcheck formats``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

if TYPE_CHECKING:
    from normcheck.arithmetic.formats import Format
    from normcheck.render.lists import Entry

_COLUMNS = {
    "label": "short",
    "bits": "bits",
    "precision": "precision",
    "max_finite": "largest",
    "min_normal": "smallest\nnormal",
    "min_subnormal": "smallest",
    "roundoff": "unit\nroundoff",
    "infinities": "infinities",
    "nan": "NaN",
    "overflow": "overflow",
    "title": "what it is",
}
_NARROW = ("bits", "precision", "max_finite", "min_normal", "min_subnormal", "roundoff")
_NOTE = (
    "precision: significant bits, the implicit one included. Any IEEE-like eXmY with X exponent and Y "
    "mantissa bits is a format too, as e5m10. A name shows all facts: normcheck formats fp16"
)


def formats(
    name: Name = None,
    *,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the number formats, or show all facts of one."""
    from normcheck.arithmetic.formats import FORMATS, format_named
    from normcheck.render.lists import Listing

    if name is not None:
        show_page(_entry(format_named(name)), form)
        return
    entries = tuple(map(_entry, FORMATS))
    show_list(Listing(entries=entries, columns=_COLUMNS, narrow=_NARROW, note=_NOTE), form)


def _entry(form: Format) -> Entry:
    from normcheck.render.lists import Entry

    facts = (
        "title", "label", "aliases", "bits", "exponent_bits", "mantissa_bits", "precision", "bias", "emin", "emax",
        "max_finite", "min_normal", "min_subnormal", "roundoff", "overflow_threshold", "threshold_overflows",
        "infinities", "nan", "signed_zero", "overflow", "source",
    )  # fmt: skip
    return Entry(form.name, {fact: getattr(form, fact) for fact in facts})
