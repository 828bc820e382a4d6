"""What the list commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.cli.files import emit
from normcheck.cli.options import ListFormat
from normcheck.cli.terminal import color, width

if TYPE_CHECKING:
    from normcheck.render.lists import Entry, Listing


def show_list(listing: Listing, form: ListFormat) -> None:
    """Print all entries."""
    from normcheck.render import lists

    if form is ListFormat.JSON:
        emit(lists.render_json(*listing.entries), "utf-8")
    else:
        emit(lists.render(listing, width=width(), color=color()))


def show_page(entry: Entry, form: ListFormat) -> None:
    """Print all facts of one entry."""
    from normcheck.render import lists

    if form is ListFormat.JSON:
        emit(lists.render_json(entry, one=True), "utf-8")
    else:
        emit(lists.render_page(entry, width=width(), color=color()))
