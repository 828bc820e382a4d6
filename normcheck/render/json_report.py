"""The report as strict JSON (format 1), and back.

JSON knows neither NaN nor infinity: such figures are the strings "inf", "-inf" and "nan". Keys come in the
order of the fields; finite floats are written with the fewest digits that give them back. Text that is no Unicode
(a file's name of any bytes) has its lone surrogates escaped.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck.results import FORMAT, Report

if TYPE_CHECKING:
    from collections.abc import Iterator

_INDENT = "  "

_NO_NUMBER = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
"""How MessagePack spells floats that are infinite or NaN: a mark, and the bits with all ones for an exponent."""


def render(report: Report) -> str:
    """Return the report as indented JSON, one object."""
    return "".join(pieces(report))


def pieces(report: Report) -> Iterator[str]:
    """Yield the text of `render`, so that no more than one result is held as text at a time."""
    start = "{"
    for field in fields(report):
        yield f'{start}\n{_INDENT}"{field.name}": '
        value = getattr(report, field.name)
        yield from _array(value) if isinstance(value, tuple) and value else (_indented(value, _INDENT),)
        start = ","
    yield "\n}\n"


def _array(items: tuple[Any, ...]) -> Iterator[str]:
    start = "["
    for item in items:
        yield f"{start}\n{2 * _INDENT}{_indented(item, 2 * _INDENT)}"
        start = ","
    yield f"\n{_INDENT}]"


def _indented(data: Any, indent: str) -> str:
    """Return data as JSON whose lines after the first are indented so; a line feed within a string is escaped."""
    return msgspec.json.format(encoded(data), indent=len(_INDENT)).decode().replace("\n", f"\n{indent}")


def dumps(plain: Any) -> str:
    """Return plain data (see `to_plain`) as indented strict JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(plain), indent=len(_INDENT)).decode() + "\n"


def encoded(data: Any) -> bytes:
    """Return the JSON of `to_plain`, at once where that changes nothing: where all is finite and Unicode."""
    return msgspec.json.encode(data if _is_plain(data) else to_plain(data), enc_hook=_item)


def _is_plain(data: Any) -> bool:
    """Whether JSON can hold data as it is: MessagePack shows what JSON would write as null.

    Bytes of text or of whole numbers may look like a float that is not finite. That costs time only.
    """
    try:
        return _NO_NUMBER.search(msgspec.msgpack.encode(data, enc_hook=_item)) is None
    except (UnicodeEncodeError, OverflowError):
        return False


def to_plain(data: Any) -> Any:
    """Return dataclasses, mappings and sequences as dicts, lists, strings, numbers, booleans and None.

    Non-finite floats become the strings "inf", "-inf" and "nan"; numpy scalars become Python's; lone surrogates
    are escaped.
    """
    return _strict(msgspec.to_builtins(data, enc_hook=_item))


def from_json(text: str | bytes) -> Report:
    """Return the report that `render` wrote, its infinities and NaN floats again.

    Fields that this version does not know are ignored; those that an older version did not write have their defaults.

    Raises:
        ValueError: the text is no JSON, or no report of this format; the message says what, where and what to do.
    """
    try:
        # Lax mode is what turns the strings "inf", "-inf" and "nan" into floats where a float belongs.
        return msgspec.json.decode(text, type=Report, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(_refused(text, error)) from error


class _Head(msgspec.Struct):
    """The format of a report, whatever else is in it."""

    format: Any


def _refused(text: str | bytes, error: Exception) -> str:
    """Return why a text is no report that this version reads."""
    try:
        format_ = msgspec.json.decode(text, type=_Head).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        format_ = None
    if type(format_) is not int or format_ == FORMAT:
        return f"not a normcheck report of format {FORMAT}: {error}"
    age, remedy = ("newer", "update normcheck") if format_ > FORMAT else ("older", "write the report again")
    return f"a report of format {format_}, {age} than what this version of normcheck reads ({FORMAT}): {remedy}"


def _item(value: Any) -> Any:
    """Return a numpy scalar as Python's own number."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no data")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_strict(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
