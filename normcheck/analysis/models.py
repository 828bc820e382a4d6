"""From what the user names to layers: files and directories read, modules walked and run, recordings found."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from normcheck.errors import UnreadableError, UsageError
from normcheck.layers.contents import Contents
from normcheck.layers.discovery.discover import discover
from normcheck.layers.readers import read
from normcheck.norms.table import norm_named
from normcheck.results import Skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from normcheck.layers.activations import RecordedLayer
    from normcheck.layers.contents import Array
    from normcheck.layers.layer import Layer


@dataclass(frozen=True, slots=True)
class Found:
    """A model and its norm layers; of several models, their names begin with `prefix`."""

    path: str
    reader: str
    prefix: str
    layers: tuple[Layer, ...]
    trusted: bool


@dataclass(slots=True)
class Loaded:
    """All that the user named: models, what was left out, what could not be read, and recorded inputs.

    activations: by layer; recorded: what they are called; seen: what the recording knows of its layers. matched:
    patterns of options that match some layer.
    """

    found: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    unreadable: list[Skipped] = field(default_factory=list)
    activations: Mapping[str, Array] = field(default_factory=dict)
    seen: Mapping[str, RecordedLayer] = field(default_factory=dict)
    recorded: str = ""
    matched: set[str] = field(default_factory=set)


def load(
    model: Any,
    *,
    inputs: Any,
    activations: str | None,
    factory: str | None,
    input_file: str | None,
    kinds: Sequence[tuple[str, str]],
    eps: Sequence[tuple[str | None, float]],
    match: Any,
    trust: bool,
    seed: int,
) -> Loaded:
    """Read, build and run what is needed to know the layers and, where there is input, what reaches them.

    Raises:
        UsageError: options that contradict each other. UnreadableError: recorded inputs that cannot be read.
    """
    loaded = Loaded()
    module, contents = _contents(model, factory, loaded, match=match, trust=trust)
    _record(module, inputs, input_file, activations, loaded, match=match, seed=seed)
    loaded.skipped += [
        Skipped(name=name, reason=seen.note) for name, seen in loaded.seen.items() if seen.note is not None
    ]
    for item, prefix in zip(contents, _prefixes([item.path for item in contents]), strict=True):
        _discover(item, loaded, kinds, eps, prefix)
    _check_patterns(loaded, [pattern for pattern, _ in (*kinds, *eps)])
    _check_recorded(loaded, activations)
    return loaded


def _check_recorded(loaded: Loaded, path: str | None) -> None:
    """Refuse recorded inputs of which none is of a layer: everything would silently rest on assumptions."""
    names = [layer.name for model in loaded.found for layer in model.layers]
    if path is None or not names or set(names) & set(loaded.activations):
        return
    theirs, ours = ", ".join(list(loaded.activations)[:3]), ", ".join(names[:3])
    raise UsageError(f"{path}: none of its {len(loaded.activations)} names ({theirs}, ...) is a layer ({ours}, ...)")


def _discover(
    item: Contents,
    loaded: Loaded,
    kinds: Sequence[tuple[str, str]],
    eps: Sequence[tuple[str | None, float]],
    prefix: str,
) -> None:
    """Find the layers of one model; of several models each takes only the options that match a layer of its own."""
    try:
        if prefix:
            names = _names(discover(item).layers)
            kinds, eps = _matching(kinds, names), _matching(eps, names)
        found = discover(item, kinds=kinds, eps=eps)
        told = _told_by_the_recording(item, found.layers, loaded, kinds, eps)
    except UnreadableError as error:  # a tensor that turns out to be damaged
        loaded.unreadable.append(Skipped(name=item.path, reason=str(error)))
        return
    loaded.matched |= {pattern for pattern, _ in (*kinds, *eps) if pattern is not None}
    better = {layer.name: layer for layer in told}
    layers = [better.pop(layer.name, layer) for layer in found.layers]
    named = tuple(replace(layer, name=prefix + layer.name) for layer in (*layers, *better.values()))
    loaded.found.append(Found(item.path, item.reader, prefix, named, item.trusted))
    if prefix and not named:
        loaded.skipped.append(Skipped(name=item.path, reason="no normalization layers were found in it"))
    loaded.skipped += [Skipped(name=prefix + o.name, reason=o.reason) for o in found.omitted]


def _told_by_the_recording(
    item: Contents,
    layers: Sequence[Layer],
    loaded: Loaded,
    kinds: Sequence[tuple[str, str]],
    eps: Sequence[tuple[str | None, float]],
) -> tuple[Layer, ...]:
    """The layers that a recording knows better than the file, and calls of norm functions, which no file shows."""
    known = {f"{name}.weight" for name in _names(layers)}
    stated = []
    for name, seen in loaded.seen.items():
        again = seen.weight in known if seen.functional else bool(item.stated) or not _has_parameters(seen, item)
        if name in loaded.activations and not again:
            shape = loaded.activations[name].shape
            channels = shape[-1] if norm_named(seen.norm).where == "layer" else shape[1]
            stated.append(replace(seen.stated(name), num_channels=channels))
    if not stated:
        return ()
    contents = Contents(path=item.path, reader=item.reader, tensors=item.tensors, stated=tuple(stated))
    names = {one.name for one in stated}
    plain = [layer for layer in discover(contents).layers if layer.name in names]
    chosen = _names(plain)
    given = discover(contents, kinds=_matching(kinds, chosen), eps=_matching(eps, chosen)).layers
    return tuple(layer for layer in given if layer.name in names)


def _has_parameters(seen: RecordedLayer, item: Contents) -> bool:
    """Whether all tensors that a recorded layer names are in the file."""
    named = (seen.weight, seen.bias, seen.running_mean, seen.running_var)
    return all(name is None or name in item.tensors for name in named)


def _names(layers: Sequence[Layer]) -> list[str]:
    return [name for layer in layers for name in (layer.name, *layer.aliases)]


_Pattern = TypeVar("_Pattern", bound="str | None")
_Value = TypeVar("_Value")


def _matching(pairs: Sequence[tuple[_Pattern, _Value]], names: Sequence[str]) -> list[tuple[_Pattern, _Value]]:
    """The options whose pattern matches one of the names, or that have none."""
    return [pair for pair in pairs if pair[0] is None or matches(pair[0], names)]


def _prefixes(paths: Sequence[str]) -> list[str]:
    """What tells the layers of several models apart: the last parts of their paths, as few as it takes."""
    if len(paths) <= 1:
        return [""] * len(paths)
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-depth:]) for part in parts]
        if len(set(ends)) == len(ends):
            return [f"{end}:" for end in ends]
    return [f"{place}:" for place, _ in enumerate(paths, start=1)]  # the same model more than once


def matches(pattern: str, names: Sequence[str]) -> bool:
    """Whether a glob pattern matches one of the names."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def _check_patterns(loaded: Loaded, patterns: Sequence[str | None]) -> None:
    unmatched = [p for p in patterns if p is not None and p not in loaded.matched]
    if unmatched and loaded.found:
        raise UsageError(f"pattern {unmatched[0]!r} matches no layer of any of {len(loaded.found)} models")


def _contents(
    model: Any, factory: str | None, loaded: Loaded, *, match: Any, trust: bool
) -> tuple[Any, list[Contents]]:
    """The live module, if there is one, and what each model holds."""
    if hasattr(model, "named_modules"):
        from normcheck.layers.live.modules import contents_of  # noqa: PLC0415  # torch is loaded for live modules alone

        return model, [contents_of(model, match=match)]
    if match is not None and factory is None:
        raise UsageError("match names classes of a live model: give a module, or --model package.module:factory")
    paths = _paths(model)
    contents = [item for path in paths for item in _readable(path, loaded, trust=trust)]
    if factory is None:
        if not paths:
            raise UsageError("no model given: name a checkpoint, a directory, or --model package.module:factory")
        return None, contents
    if len(paths) > 1:
        raise UsageError(f"--model {factory} takes the weights of one checkpoint, received {len(paths)}")
    from normcheck.layers.live.factory import load_model, load_weights  # noqa: PLC0415  # the same
    from normcheck.layers.live.modules import contents_of  # noqa: PLC0415  # the same

    if paths and not contents:
        return None, []
    module = load_model(factory)
    for item in contents:
        load_weights(module, item)
    return module, [contents_of(module, path=factory, match=match)]


def _paths(model: Any) -> list[str | os.PathLike[str]]:
    """The paths that a user gave.

    Raises:
        UsageError: something else, such as a state dict, or an empty path.
    """
    if isinstance(model, Mapping):
        how = "save a state dict and give its path, or load it into its model and give that"
        raise UsageError(f"{type(model).__name__} is no model: {how}")
    listed = isinstance(model, Iterable) and not isinstance(model, str | bytes)
    paths = list(model) if listed else [model]
    if not all(isinstance(path, str | os.PathLike) for path in paths):
        raise UsageError(f"{type(model).__name__} is no model: give a path, several paths, or a live torch module")
    if "" in paths:
        raise UsageError("the path of a model is empty: is a variable unset? Give . for the current folder")
    return paths


def _readable(path: str | os.PathLike[str], loaded: Loaded, *, trust: bool) -> list[Contents]:
    """What a path holds, or nothing, and a line that says why."""
    try:
        return [read(path, trust=trust)]
    except UnreadableError as error:
        loaded.unreadable.append(Skipped(name=os.fspath(path), reason=str(error)))
        return []


def _record(
    module: Any, inputs: Any, input_file: str | None, activations: str | None, loaded: Loaded, *, match: Any, seed: int
) -> None:
    """Find the recorded inputs, or record them now."""
    given = [
        name
        for name, x in (("inputs", inputs), ("--input", input_file), ("--activations", activations))
        if x is not None
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say what the norms see: give one of them")
    if activations is not None:
        from normcheck.layers.activations import read_activations  # noqa: PLC0415  # few runs need it

        recording = read_activations(activations)
        loaded.skipped += [Skipped(name=item.name, reason=item.reason) for item in recording.omitted]
        loaded.activations, loaded.seen = recording, recording.layers
        loaded.recorded = f"recorded ({activations})"
        return
    if not given:
        return
    if module is None:
        raise UsageError("input is for a live model: a module, or --model package.module:factory")
    from normcheck.layers.live.factory import load_inputs  # noqa: PLC0415  # the same
    from normcheck.layers.live.observing import call_of, observe  # noqa: PLC0415  # torch is loaded for live modules alone

    arguments = call_of(inputs) if input_file is None else load_inputs(input_file)
    observed = observe(module, *arguments, match=match, seed=seed)
    loaded.activations, loaded.seen = observed.activations, observed.layers
    loaded.recorded = f"recorded ({input_file or 'inputs'})"
