"""What all pictures have in common: one look, colours that colour-blind readers tell apart, and the same bytes again.

A module that draws imports this one, and with it matplotlib: import such modules inside functions. Figures are made
without `pyplot`, so that nothing is kept between them, no window system is asked for, and threads do not meet.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, get_args

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context

from normcheck.errors import UsageError
from normcheck.render.layout import inline

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["png", "svg", "pdf"]
"""Formats of pictures, which are also the endings of their files."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""The colours of Okabe and Ito (Color Universal Design, 2008), the ones that read well on white first."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
"""Strokes, so that no meaning is in the colour alone: one for each round through the palette, or one a line."""

COLORMAP = "cividis"
"""Of maps: monotone in lightness, and alike to readers with and without colour vision deficiencies."""

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "figure.dpi": 100,
    "savefig.dpi": 144,
    "svg.hashsalt": "normcheck",  # ids within the file, else random
}

_MARK = b"normcheck"
_METADATA: dict[Kind, dict[str, Any]] = {
    "png": {"Software": "normcheck"},
    "svg": {"Creator": "normcheck", "Date": None},
    "pdf": {"Creator": "normcheck", "Producer": "normcheck", "CreationDate": None},
}
"""No dates and no versions: the same figure gives the same bytes."""

_BEGINNINGS: dict[Kind, bytes] = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


@contextmanager
def style() -> Iterator[None]:
    """What is drawn within has the common look, whatever the user's own settings of matplotlib are."""
    with context(["default", _STYLE]):
        yield


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, whose parts make room for each other; call it within `style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_bytes(figure: Figure, kind: Kind) -> bytes:
    """Return a figure as the bytes of a file: the same for the same figure and version of matplotlib."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    return buffer.getvalue()


def kind_of(path: str, option: str = "--plot") -> Kind:
    """Return the kind of picture that the ending of a path names.

    Raises:
        UsageError: it names none.
    """
    ending = PurePath(path).suffix.lower()
    for kind in get_args(Kind):
        if ending == f".{kind}":
            return kind  # type: ignore[no-any-return]  # a member of the literal
    raise UsageError(f"{option} {path}: pictures end in .{', .'.join(get_args(Kind))}; give the path such an ending")


def is_ours(content: bytes, kind: Kind) -> bool:
    """Whether the whole content of a file is a picture of that kind that `figure_bytes` made, or nothing at all."""
    return not content or (content.startswith(_BEGINNINGS[kind]) and _MARK in content)


def label(name: str) -> str:
    """Return a name as text for a figure: what would be mathematics or a control character stays text."""
    return inline(name).replace("$", r"\$")


def styled(index: int) -> dict[str, Any]:
    """Return the colour and stroke of the line of that number, as keywords of `Axes.plot`; all of the first 32 differ.

    Neighbours differ in both.
    """
    return {
        "color": PALETTE[index % len(PALETTE)],
        "linestyle": DASHES[(index + index // len(PALETTE)) % len(DASHES)],
    }
