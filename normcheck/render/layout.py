"""Pages of text: tables that stack their cells where the width is short, and never crop or split a figure.

A table is offered in several layouts, the widest first; the first that fits without breaking a cell is taken.
Where none fits, each row becomes a block of `title  value` lines. All is made of lines of exact text, and
colour comes last: what is read in a pipe is what is read on a terminal.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Row = TypeVar("Row")
Lines = list[Text]

STYLES = {
    "unsafe": "bold red",
    "degraded": "yellow",
    "ok": "green",
    "error": "bold red",
    "warning": "yellow",
    "note": "cyan",
    "unreadable": "bold red",
    "worse": "bold red",
    "reproduced": "green",
    "not reproduced": "bold red",
    "not comparable at this size": "yellow",
}
"""Colours of the words that judge. The word is always printed: no meaning is in the colour alone."""

_HEAD = "bold"
_GAP = "  "
_GLUE = "\N{NO-BREAK SPACE}"
"""A blank at which no line is broken; never part of printable text, which has it escaped."""

_FILLER = "\N{WORD JOINER}"
"""Stands for the second column of a wide character while lines are filled; never part of printable text."""

_PROSE_WIDTH = 28
"""Prose narrower than this is hard to read: a layout that would need it does not fit."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column of a table: what heads it, and the text of its cell in a row (line feeds stack).

    `right`: figures stand flush right. `prose`: the cell may be wrapped between words; the last column only.
    """

    title: str
    cell: Callable[[Row], str]
    right: bool = False
    prose: bool = False


@dataclass(frozen=True, slots=True)
class Layout(Generic[Row]):
    """The columns of a table, and perhaps a line of the full width above each row."""

    columns: tuple[Column[Row], ...]
    above: Callable[[Row], str] | None = None


def page(parts: Iterable[Lines], *, color: bool) -> str:
    """Return the parts one under the other, a blank line between; a part without lines leaves no trace."""
    return "".join(pieces(parts, color=color))


def pieces(parts: Iterable[Lines], *, color: bool) -> Iterator[str]:
    """Yield the text of a page, each part as soon as it is there."""
    gap: Lines = []
    for part in filter(None, parts):
        lines = gap + part
        for line in lines:
            line.rstrip()
        yield _colored(lines) if color else "".join(f"{line.plain}\n" for line in lines)
        gap = [Text("")]


def table(rows: Sequence[Row], layouts: Sequence[Layout[Row]], *, width: int) -> Lines:
    """Return the rows in the first layout that fits the width unbroken, or as blocks of the first layout."""
    for layout in layouts:
        cells = [[printable(column.cell(row)) for column in layout.columns] for row in rows]
        widths = _widths(layout, cells, width)
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
            return _grid(layout, rows, cells, widths, width)
    return _blocks(rows, layouts[0], width)


def pairs(items: Iterable[tuple[str, str]], *, width: int) -> Lines:
    """Return `title  value` lines, the values aligned, long ones wrapped beside their titles."""
    shown = [(printable(title), printable(value)) for title, value in items]
    indent = max((cell_len(title) for title, _ in shown), default=0) + len(_GAP)
    lines: Lines = []
    for title, value in shown:
        first, *rest = _wrapped(value, width - indent)
        lines.append(Text(set_cell_size(title, indent)).append(first, STYLES.get(value, "")))
        lines += [Text(" " * indent + text) for text in rest]
    return lines


def paragraph(text: str | Sequence[str], *, width: int, indent: int = 0, hanging: int = 0, head: str = "") -> Lines:
    """Return text wrapped between words, its second line further indented; `head` begins it in colour.

    A sequence is a list of facts: they are kept in one piece where that leaves no ragged lines.
    """
    inner = width - indent
    whole = printable(text) if isinstance(text, str) else "; ".join(_glued(fact, inner) for fact in text)
    first, *rest = _filled(f"{head} {whole}" if head else whole, inner, hanging)
    line = Text(" " * indent + first.replace(_GLUE, " "))
    line.stylize(STYLES.get(head, _HEAD), indent, indent + len(head))
    return [line, *(Text(" " * indent + other.replace(_GLUE, " ")) for other in rest)]


def exact(text: str) -> Lines:
    """Return text to be copied line by line as it is, whatever the width; tabs become blanks."""
    return [Text(printable(line)) for line in text.expandtabs(4).strip("\n").split("\n")] if text.strip() else []


def _glued(fact: str, width: int) -> str:
    shown = printable(fact)
    return shown.replace(" ", _GLUE) if len(shown) <= width // 3 else shown


def printable(text: str) -> str:
    """Return the text with all control characters but line feeds escaped: names must not steer terminals."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def inline(text: str) -> str:
    """Return a name with all control characters escaped, line feeds too: a name is one line."""
    return printable(text).replace("\n", "\\n")


def _colored(lines: Lines) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", no_color=False, legacy_windows=False)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    return file.getvalue()


def _wrapped(text: str, width: int) -> list[str]:
    """Return the text's lines, each wrapped between words, within a word only where that is too long."""
    return [line for part in text.split("\n") for line in _filled(part, max(width, 1))]


def _filled(text: str, width: int, hanging: int = 0) -> list[str]:
    """Return a text without line feeds as lines of at most so many columns, at least one line."""
    wide = not text.isascii() and any(cell_len(c) > 1 for c in text)
    if wide:  # textwrap counts characters: let it see one a column, and a column less, as it may tear a pair apart
        text, width = "".join(_FILLER * (cell_len(c) - 1) + c for c in text), max(width - 1, hanging + 1)
    lines = textwrap.wrap(text, width, subsequent_indent=" " * hanging, break_on_hyphens=False) or [""]
    return [line.replace(_FILLER, "") for line in lines] if wide else lines


def _widths(layout: Layout[Row], cells: list[list[str]], width: int) -> list[int]:
    """Return the width of each column: its longest line; for prose, what the others leave."""
    widths: list[int] = []
    for index, column in enumerate(layout.columns):
        lines = [line for text in (column.title, *(row[index] for row in cells)) for line in text.split("\n")]
        natural = max(map(cell_len, lines))
        left = width - sum(widths) - len(_GAP) * index
        widths.append(min(natural, max(left, _PROSE_WIDTH)) if column.prose else natural)
    return widths


def _grid(layout: Layout[Row], rows: Sequence[Row], cells: list[list[str]], widths: list[int], width: int) -> Lines:
    titles = [column.title for column in layout.columns]
    lines = _stacked(layout, titles, widths, _HEAD)
    lines.append(Text(_GAP.join("-" * each for each in widths)))
    blocks = [
        (paragraph(layout.above(row), width=width) if layout.above else []) + _stacked(layout, texts, widths)
        for row, texts in zip(rows, cells, strict=True)
    ]
    airy = layout.above is not None or any("\n" in cell for row in cells for cell in row)
    for index, block in enumerate(blocks):
        lines += [Text("")] * (airy and index > 0) + block
    return lines


def _stacked(layout: Layout[Row], texts: Sequence[str], widths: Sequence[int], style: str = "") -> Lines:
    """Return one row of cells as lines, short cells filled up with blanks."""
    columns = layout.columns
    parts = [
        _wrapped(text, each) if column.prose else text.split("\n")
        for column, text, each in zip(columns, texts, widths, strict=True)
    ]
    lines = []
    for across in zip_longest(*parts, fillvalue=""):
        plain, spans = "", []
        for index, (text, each) in enumerate(zip(across, widths, strict=True)):
            blanks = " " * (each - cell_len(text))
            begin = f"{plain}{_GAP if index else ''}{blanks if columns[index].right else ''}"
            spans.append((style or STYLES.get(text, ""), len(begin), len(begin) + len(text)))
            plain = begin + text + ("" if columns[index].right else blanks)
        line = Text(plain)
        for name, start, end in spans:
            line.stylize(name, start, end)
        lines.append(line)
    return lines


def _blocks(rows: Sequence[Row], layout: Layout[Row], width: int) -> Lines:
    lines: Lines = []
    for index, row in enumerate(rows):
        titled = ((column.title.replace("\n", " "), column.cell(row).replace("\n", ", ")) for column in layout.columns)
        lines += [Text("")] * bool(index) + pairs(titled, width=width)
    return lines
