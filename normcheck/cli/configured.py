"""A command whose options a configuration file and the environment also set; the command line goes before both."""

from __future__ import annotations

import os
import types
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from typer.core import TyperCommand

from normcheck.cli.deliver import OUTPUTS
from normcheck.cli.exit_codes import ExitCode
from normcheck.cli.files import STDOUT
from normcheck.cli.listing import show_list
from normcheck.cli.options import EMPTY_PATH, PATHS, ListFormat, names
from normcheck.cli.settings import (
    CONFIG,
    PREFIX,
    Commands,
    File,
    Option,
    Value,
    Values,
    find,
    load,
    of_environment,
    of_file,
    shown,
)
from normcheck.cli.values import check
from normcheck.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from normcheck.render.lists import Entry

_NOT_SET = ("help", "debug", "show-settings", "config", "isolated")
"""Options that are about one call, not settings."""

_COMMAND_LINE, _DEFAULT = "command line", "default"

_VALUES, _FILE, _SHOWN_AS = "normcheck.values", "normcheck.file", "normcheck.shown_as"
"""What a context keeps: what was set by what, the file that was read, and how settings are to be listed."""


class Configured(TyperCommand):
    """A command that reads its settings before its command line, and can show them instead of running."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line over what the settings say; not for help or completion."""
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            if not given.get("help"):
                self._configure(ctx, given)
        return super().parse_args(ctx, args)

    def _configure(self, ctx: Any, given: dict[str, Any]) -> None:
        """Let the settings be the defaults of the context; `given` is what the command line says."""
        commands = commands_of(ctx.parent.command)
        file, layers = None, []
        if not given.get("isolated"):
            file = _file(given.get("config", os.environ.get(CONFIG) or None))
            layers = [of_file(file, commands, self.name or "")] if file else []
            layers.append(of_environment(commands, self.name or "", os.environ))
        elif "config" in given:
            raise UsageError("--config and --isolated contradict each other: give one of them")
        shown_as = given.pop("form", None) if given.get("show_settings") else None  # it says how to list the settings
        layers.append({name: Value(value, _COMMAND_LINE) for name, value in given.items()})
        values = _merged(layers, commands[self.name or ""].values())
        ctx.default_map = {parameter: value.value for parameter, value in values.items()}
        ctx.meta.update({_VALUES: values, _FILE: file, _SHOWN_AS: shown_as})

    def invoke(self, ctx: Any) -> Any:
        """Run the command, or show its settings."""
        if not ctx.params["show_settings"]:
            if file := ctx.meta[_FILE]:  # also one that was found, not named
                ctx.params["config"] = str(file.path)
            return super().invoke(ctx)
        _show(self, ctx)
        return ExitCode.CLEAN


def commands_of(group: Any) -> Commands:
    """Return the options of each command that takes settings."""
    return {name: options_of(command) for name, command in group.commands.items() if isinstance(command, Configured)}


def options_of(command: Any) -> dict[str, Option]:
    """Return the options of a command that can be set, by their keys."""
    hints = get_type_hints(command.callback)
    options = [
        Option(_key(param), param.name, _kind(hints[param.name]), param.multiple, param.metavar in PATHS)
        for param in command.params
        if param.param_type_name == "option" and _key(param) not in _NOT_SET
    ]
    return {option.key: option for option in options}


def _key(param: Any) -> str:
    return str(param.opts[0].removeprefix("--"))


def _kind(hint: Any) -> type:
    """Return the type of one value: ``str`` of ``list[str] | None``."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    kind: type = get_args(hint)[0] if get_args(hint) else hint
    return kind


def _file(path: str | None) -> File | None:
    if path == "":
        raise UsageError(f"--config: {EMPTY_PATH}")
    if path is not None:
        return load(Path(path))
    try:
        return find(Path.cwd())
    except FileNotFoundError:  # the current folder is gone
        return None


def _merged(layers: Iterable[Values], options: Iterable[Option]) -> Values:
    """Return what the layers set, later ones before earlier ones.

    What one of them puts on standard output displaces what earlier ones put there, and --steps, which is for the
    table: else a format in a file would forbid ``--json -``.
    """
    outputs = {option.parameter for option in options if option.key in OUTPUTS}

    def is_shown(name: str, value: Value) -> bool:
        return name == "form" or (name in outputs and value.value == STDOUT)

    merged: Values = {}
    for layer in layers:
        if any(is_shown(*item) for item in layer.items()):
            merged = {name: value for name, value in merged.items() if name != "steps" and not is_shown(name, value)}
        merged |= layer
    return merged


# ------------------------------------------------------------------------------------------------- --show-settings


def _show(command: Any, ctx: Any) -> None:
    """Print each setting, its value, and what set it."""
    from normcheck.render.lists import Listing

    values: Values = ctx.meta[_VALUES]
    as_json = ctx.meta[_SHOWN_AS] == "json"
    ctx.params["form"] = values["form"].value if "form" in values else None
    params = {param.name: param for param in command.params}
    options = options_of(command).values()
    for option in options:  # what files and variables say is known to be good
        if (value := ctx.params[option.parameter]) is not None:
            check(option.key, value, f"--{option.key}")
    entries = tuple(_entry(option, params[option.parameter], ctx, as_json=as_json) for option in options)
    listing = Listing(
        entries=entries,
        columns={"value": "value", "origin": "set by"},
        narrow=("value", "origin"),
        note=_read(ctx.meta[_FILE], isolated=ctx.params["isolated"]),
    )
    show_list(listing, ListFormat.JSON if as_json else ListFormat.TABLE)


def _entry(option: Option, param: Any, ctx: Any, *, as_json: bool) -> Entry:
    from normcheck.render.lists import Entry

    values: Values = ctx.meta[_VALUES]
    value = ctx.params[option.parameter]
    if option.repeats:
        value = names(value) or None
    elif isinstance(value, Enum):
        value = value.value
    means = param.show_default if value is None and isinstance(param.show_default, str) else None
    if not as_json:
        value = "\n".join(value) if isinstance(value, tuple) else means if value is None else value
    origin = values[option.parameter].origin if option.parameter in values else _DEFAULT
    return Entry(option.key, {"value": value, "means": means, "origin": origin})


def _read(file: File | None, *, isolated: bool) -> str:
    if isolated:
        return f"--isolated: no configuration file and no {PREFIX} variable was read"
    return f"configuration file: {shown(file.path)}" if file else "no configuration file was found"
