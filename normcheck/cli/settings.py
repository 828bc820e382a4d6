"""Settings: what a configuration file and the environment say of the options of a command, checked, with their places.

The file is TOML: ``normcheck.toml``, or the table ``[tool.normcheck]`` of a ``pyproject.toml``. Keys are the long names
of options; one at the top holds for every command that has the option, one in the table of a command for that command.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normcheck.cli.files import STDOUT
from normcheck.cli.values import check
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

OWN_FILE, SHARED_FILE = "normcheck.toml", "pyproject.toml"
"""The names of files that are looked for; in one folder the first of them is taken."""

PREFIX, _OF_TESTS = "NORMCHECK_", "NORMCHECK_TEST_"
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

PAIRS: dict[str, type] = {"eps": float, "kind": str, "severity": str, "threshold": float}
"""Options of ``NAME=VALUE``, which a file may write as a table, and what the values are."""

_ALIASES = {"thresholds": "threshold"}
RUNS_CODE = ("model", "trust")
"""Options that let code run: only for the command line and the environment, since a file may be somebody else's."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option that can be set.

    Attributes:
        key: its long name. parameter: that of the command's function.
        kind: of one value: bool, int, float, str or a StrEnum. repeats: whether it takes several.
        is_path: whether it names a file.
    """

    key: str
    parameter: str
    kind: type
    repeats: bool
    is_path: bool

    @property
    def allowed(self) -> str:
        """What a file may give it, in words."""
        if self.repeats:
            number = "a number, " if self.key == "eps" else ""
            table = f", or a table of NAME = {_named(PAIRS[self.key])}" if self.key in PAIRS else ""
            return f"{number}a text or a list of texts{table}"
        return _named(self.kind)


@dataclass(frozen=True, slots=True)
class Value:
    """What an option is set to, as the command takes it, and what set it."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class File:
    """A configuration file: its path, the table that is normcheck's, and what stands before its keys."""

    path: Path
    table: dict[str, Any]
    prefix: str = ""

    def at(self, *keys: str) -> str:
        """Where a key is."""
        return f"{shown(self.path)}: {self.prefix}{'.'.join(keys)}"


Commands = dict[str, dict[str, Option]]
"""The options of each command that takes settings, by their keys."""
Values = dict[str, Value]
"""What is set, by the parameters of the command's function."""


def find(start: Path) -> File | None:
    """Return the nearest configuration file at or above a folder, within the repository; None where there is none."""
    for folder in (start, *start.parents):
        if os.path.isfile(folder / OWN_FILE):  # noqa: PTH113 - False, and no error, in a folder that is closed to us
            return load(folder / OWN_FILE)
        if os.path.isfile(folder / SHARED_FILE) and _mine(table := _toml(folder / SHARED_FILE)):  # noqa: PTH113
            return _shared(folder / SHARED_FILE, table)
        if os.path.lexists(folder / ".git"):
            return None
    return None


def load(path: Path) -> File:
    """Return a configuration file that is there by name.

    Raises:
        UsageError: it cannot be read, is no TOML, or is a pyproject.toml without ``[tool.normcheck]``.
    """
    table = _toml(path)
    if path.name != SHARED_FILE:
        if _mine(table):
            raise UsageError(
                f"{shown(path)}: tool.normcheck is for {SHARED_FILE}: here keys stand without it, as [analyze]"
            )
        return File(path, table)
    if not _mine(table):
        raise UsageError(f"{shown(path)}: it has no table [tool.normcheck]; add one, or name another file")
    return _shared(path, table)


def _mine(table: dict[str, Any]) -> bool:
    tools = table.get("tool")
    return isinstance(tools, dict) and "normcheck" in tools


def _shared(path: Path, table: dict[str, Any]) -> File:
    mine = table["tool"]["normcheck"]
    if not isinstance(mine, dict):
        raise UsageError(f"{shown(path)}: tool.normcheck: give a table, received {_written(mine)}")
    return File(path, mine, "tool.normcheck.")


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read {shown(path)}: {error.strerror}") from error
    except ValueError as error:  # of TOML and of UTF-8
        raise UsageError(f"{shown(path)}: this is no TOML: {error}") from error


def shown(path: Path) -> str:
    """Return a path as it is shown: from the current folder, unless it is shorter as it is."""
    return min(os.path.relpath(path), str(path), key=len)


# ---------------------------------------------------------------------------------------------------- of a file


def of_file(file: File, commands: Commands, command: str) -> Values:
    """Return what a file says of a command; all of the file is checked.

    Raises:
        UsageError: an unknown key, a value of the wrong type, or a name that does not exist.
    """
    general = {key: value for key, value in file.table.items() if key not in commands}
    _refuse_unknown(general, {key for options in commands.values() for key in options}, (*commands,), file)
    found = {}
    for name, options in commands.items():
        own = file.table.get(name, {})
        if not isinstance(own, dict):
            raise UsageError(f"{file.at(name)}: give a table of settings, received {_written(own)}")
        _refuse_unknown(own, options, (), file, name)
        found[name] = {**_taken(general, name, options, file), **_taken(own, name, options, file, name)}
    return found[command]


def _refuse_unknown(
    table: Mapping[str, Any], known: Collection[str], tables: tuple[str, ...], file: File, *above: str
) -> None:
    seen: dict[str, str] = {}
    for key in table:
        name = _normal(key)
        place = file.at(*above, key)
        if name in RUNS_CODE:
            raise UsageError(f"{place}: what runs code is not for files; give --{name} on the command line")
        if name not in known:
            hint = _hint(name, [*known, *_ALIASES, *tables])
            listing = f"`normcheck {''.join(above) or next(iter(tables))} --help`"
            raise UsageError(f"{place}: unknown key: {hint}{listing} lists what exists")
        if (other := seen.setdefault(name, key)) != key:
            raise UsageError(f"{place}: {file.at(*above, other)} is the same setting; give one of them")


def _normal(key: str) -> str:
    name = key.replace("_", "-")
    return _ALIASES.get(name, name)


def _hint(name: str, known: Collection[str]) -> str:
    """Return the nearest name as a question; the beginning that all variables share must not make them near."""
    by_end = {other.removeprefix(PREFIX): other for other in sorted(set(known) - set(RUNS_CODE))}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), by_end, n=1, cutoff=0.5)
    return f"did you mean {by_end[near[0]]}? " if near else ""


def _taken(table: Mapping[str, Any], command: str, options: Mapping[str, Option], file: File, *above: str) -> Values:
    """Return those values of a table that are of a command's options, as the command takes them."""
    out = {}
    for key, value in table.items():
        if option := options.get(_normal(key)):
            place = file.at(*above, key)
            if (taken := _from_toml(option, value, place)) is None:
                raise UsageError(f"{place}: {command} takes {option.allowed}, received {_written(value)}")
            if option.is_path and not taken:
                raise UsageError(f"{place}: the path is empty")
            taken = _placed(option, taken, file.path.parent)
            check(option.key, taken, place)
            out[option.parameter] = Value(taken, place)
    return out


def _from_toml(option: Option, value: Any, place: str) -> Any:
    """Return a value as the command takes it; None where it is of a type that the option does not take."""
    if not option.repeats:
        return value if _is(value, option.kind) else None
    if isinstance(value, dict) and option.key in PAIRS:
        return list(_entries(value, PAIRS[option.key], place, nested=option.key == "threshold"))
    items = value if isinstance(value, list) else [value]
    if PAIRS.get(option.key) is float:
        items = [_text(item) if _is(item, float) else item for item in items]
    return items if all(isinstance(item, str) for item in items) else None


def _entries(table: dict[str, Any], kind: type, place: str, *, nested: bool) -> Iterator[str]:
    """Yield ``NAME=VALUE`` for a table; where it may be nested, those of a pattern after all that have none."""
    inner = {name: value for name, value in table.items() if nested and isinstance(value, dict)}
    for name, value in table.items():
        if "," in name:
            raise UsageError(f"{place}: {name!r} has a comma, which separates entries; give one key for each")
        if name not in inner and not _is(value, kind):
            raise UsageError(f"{place}.{name}: give {_named(kind)}, received {_written(value)}")
    yield from (f"{name}={_text(value)}" for name, value in table.items() if name not in inner)
    for pattern, entries in inner.items():
        yield from (f"{pattern}:{entry}" for entry in _entries(entries, kind, f"{place}.{pattern}", nested=False))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _placed(option: Option, value: Any, folder: Path) -> Any:
    """Return a path of a file from the file's folder; anything else as it is."""
    if not option.is_path or value == STDOUT or folder == Path.cwd():
        return value
    return os.path.relpath(folder / value)


def _is(value: Any, kind: type) -> bool:
    if issubclass(kind, StrEnum):
        return isinstance(value, str) and value in [*kind]
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


def _named(kind: type) -> str:
    if issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]


def _written(value: Any) -> str:
    """Return a value as a file has it, more or less: JSON is close to TOML."""
    return json.dumps(value, default=str, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------- of the environment


def of_environment(commands: Commands, command: str, environment: Mapping[str, str]) -> Values:
    """Return what the environment says of a command; empty variables say nothing.

    Raises:
        UsageError: an unknown variable, or a value that the option does not take.
    """
    known = {variable(key): key for options in commands.values() for key in options}
    mine = {name: text for name, text in environment.items() if name.startswith(PREFIX)}
    out = {}
    for name, text in mine.items():
        if name.startswith(_OF_TESTS) or name == CONFIG or not text:
            continue
        if name not in known:
            hint = _hint(name, [*known, CONFIG])
            raise UsageError(f"{name}: unknown variable: {hint}`normcheck {command} --help` lists what exists")
        if option := commands[command].get(known[name]):
            value = _from_text(option, text, name)
            check(option.key, value, name)
            out[option.parameter] = Value(value, name)
    return out


def variable(key: str) -> str:
    """Return the variable of an option."""
    return PREFIX + key.upper().replace("-", "_")


CONFIG = variable("config")
"""Names the configuration file, as --config does."""


def _from_text(option: Option, text: str, name: str) -> Any:
    if option.repeats:
        return [text]
    if option.kind is bool and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    try:
        value = option.kind(text) if option.kind in (int, float) else text
    except ValueError:
        value = None
    if not _is(value, option.kind):
        raise UsageError(f"{name}: give {option.allowed}, received {text!r}")
    return value
