"""Text as Markdown in which no name can be anything but text.

A word that a reader of Markdown might take for more than a word becomes a code span, inside of which nothing has a
meaning: not HTML, links, emphasis or entities, nor what GitHub makes of @names, #numbers and bare addresses.
"""

from __future__ import annotations

import re

from normcheck.render.groups import brief

_WORD = re.compile(r"(?:[^\W_]|[.,;:'\"()/%=+\-–→…×])+")
"""Letters of any script, digits, and punctuation that means nothing within a line."""

_SIGNS = {"<": "&lt;", "<=": "&lt;=", ">": "&gt;", ">=": "&gt;=", "->": "→"}
"""Signs that stand alone in sentences of ours."""

_LINKED = re.compile(r"://|www\.|:\w+:|\bGH-\d|^(?=\d*[a-f])[0-9a-f]{7,40}$", re.IGNORECASE)
"""Among such words those of which GitHub makes links or pictures."""

_SPAN = re.compile(r"[(\"']*`[^`\s]+`[.,;:)\"']*")
"""A code span already, which a message or a fix may contain."""

_CORE = re.compile(r"^(\()?(.+?)((?(1)\)?)[.,;:]*)$", re.DOTALL)
"""What of a word is in brackets, or before the punctuation that ends it."""

_STARTS_A_BLOCK = re.compile(r"[-+=:]+|\d+[.)]")
_BACKTICKS = re.compile(r"`+")
_LONGEST = 1000


def prose(text: str) -> str:
    """Return text of one line, to stand anywhere; of a very long one the middle is left out."""
    first, *rest = brief(text, _LONGEST).split() or [""]
    words = [code(first) if _STARTS_A_BLOCK.fullmatch(first) else _word(first), *map(_word, rest)]
    return " ".join(words)


def cell(text: str) -> str:
    """Return text, line feeds and all, for the cell of a table."""
    lines = (" ".join(map(_word_of_cell, brief(line, _LONGEST).split())) for line in text.split("\n"))
    # A table's row is cut at pipes before spans are seen. A backslash just before one would free it again.
    return "<br>".join(filter(None, lines)).replace("\\|", "\\x5c|").replace("|", "\\|")


def code(text: str) -> str:
    """Return text of one line as a code span, its fence longer than any run of backticks in it."""
    fence = "`" * (_longest_run(text) + 1)
    blank = " " if text[:1] in "` " or text[-1:] in "` " else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Return lines as a block of code, its fence longer than any run of backticks in it."""
    fence = "`" * max(_longest_run(text) + 1, 3)
    return f"{fence}{language}\n{text}\n{fence}\n"


def _word(word: str) -> str:
    if word in _SIGNS:
        return _SIGNS[word]
    plain = _WORD.fullmatch(word) and not _LINKED.search(word)
    if plain or not word or _SPAN.fullmatch(word):
        return word
    return _CORE.sub(lambda found: f"{found[1] or ''}{code(found[2])}{found[3]}", word, count=1)


def _word_of_cell(word: str) -> str:
    """Return a word in which pipes are none of the table's, so that ``|x|`` needs no span."""
    return word if _word(word.replace("|", "")) == word.replace("|", "") else _word(word)


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
