"""``normcheck orders``."""

from __future__ import annotations

from normcheck.cli.listing import show_list, show_page
from normcheck.cli.options import Debug, ListAs, ListFormat, Name

_NOTE = (
    "W, T, V and B are written as in lanes(8, serial), block(128, 4), blocks(64); simd in place of W stands for the "
    "float32 lanes of this machine's vectors, or of --simd"
)


def orders(
    name: Name = None,
    *,
    form: ListAs = ListFormat.TABLE,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the orders of summation of --order and of implementations, or show one."""
    from normcheck.arithmetic.orders import ORDERS, order_named
    from normcheck.render.lists import Entry, Listing

    if name is not None:
        kind = order_named(name).kind
        show_page(Entry(kind, {"title": ORDERS[kind]}), form)
        return
    entries = tuple(Entry(kind, {"title": title}) for kind, title in ORDERS.items())
    show_list(Listing(entries=entries, columns={"title": "what it is"}, narrow=("title",), note=_NOTE), form)
