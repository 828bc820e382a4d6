"""HTML pages taken apart: what they say without their script, their data, their elements."""

from __future__ import annotations

import json
from html.parser import HTMLParser

_BLOCKS = {"p", "h1", "h2", "h3", "li", "div", "section", "summary", "details", "title", "pre", "dt", "nav", "button"}
_VOID = {"meta", "link", "input", "rect", "circle"}
_UNSEEN = {"script", "style", "noscript"}


class Page(HTMLParser):
    """A page: `elements` (name and attributes, in order), `text`, `data` (blocks by name), scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._text: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    @property
    def text(self) -> str:
        """What is read, a line a block."""
        lines = (" ".join(line.split()) for line in "".join(self._text).split("\n\n"))
        return "\n".join(filter(None, lines))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in _BLOCKS:
            self._text.append("\n\n")
        if tag == "script" and "id" in dict(attrs):
            self.data[str(dict(attrs)["id"]).removeprefix("data-")] = ""
        if tag not in _VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"an element {tag} is closed where it is not open"
        if tag in _BLOCKS:
            self._text.append("\n\n")

    def handle_data(self, data):
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script" and "id" in attributes:
            self.data[str(attributes["id"]).removeprefix("data-")] += data
        elif tag == "script":
            self.scripts.append(data)
        elif tag == "style":
            self.styles.append(data)
        elif tag not in _UNSEEN:
            self._text.append(data.replace("\n", " ") if tag != "pre" else data.replace("\n", "\n\n"))

    def lines(self, block):
        """The lines of a block of data, parsed as strict JSON."""
        return [strictly(line) for line in self.data[block].split("\n") if line]


def strictly(text):
    def fail(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=fail)


def digest(text):
    """A page as text to review: what it says, then its data, a line a column or an item."""
    page = Page(text)
    (table,) = page.lines("table")
    parts = [page.text, *(f"table {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())]
    for block in ("results", "layers", "findings", "changes"):
        parts += [f"{block}: {json.dumps(line, ensure_ascii=False)}" for line in page.lines(block)]
    return "\n".join(parts) + "\n"
