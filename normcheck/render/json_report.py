"""The report as strict JSON (format 1), and back.

JSON knows neither NaN nor infinity: such figures are the strings "inf", "-inf" and "nan". Keys come in the
order of the fields; finite floats are written with the fewest digits that give them back. Text that is no Unicode
(a file's name of any bytes) has its lone surrogates escaped.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from normcheck.results import FORMAT, Report


def render(report: Report) -> str:
    """Return the report as indented JSON, one object."""
    return dumps(to_plain(report))


def dumps(plain: Any) -> str:
    """Return plain data (see `to_plain`) as indented strict JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode() + "\n"


def to_plain(data: Any) -> Any:
    """Return dataclasses, mappings and sequences as dicts, lists, strings, numbers, booleans and None.

    Non-finite floats become the strings "inf", "-inf" and "nan"; numpy scalars become Python's; lone surrogates
    are escaped.
    """
    return _strict(msgspec.to_builtins(data, enc_hook=_item))


def from_json(text: str | bytes) -> Report:
    """Return the report that `render` wrote, its infinities and NaN floats again.

    Fields that this version does not know are ignored.

    Raises:
        ValueError: the text is no JSON, or no report of this format; the message says where.
    """
    try:
        # Lax mode is what turns the strings "inf", "-inf" and "nan" into floats where a float belongs.
        return msgspec.json.decode(text, type=Report, strict=False)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a normcheck report of format {FORMAT}: {error}") from error


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
