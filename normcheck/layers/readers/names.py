"""Which of a checkpoint's tensors are the model's, and what they are called there.

Training scripts put the weights below any nesting of dicts and lists, beside an optimizer's state and averaged copies.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from normcheck.layers.contents import Omitted, Tensor
from normcheck.layers.readers.unpickling import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_DEPTH = 32
MAX_SETTINGS = 10_000
MAX_TENSORS = 150_000
MAX_CONTAINERS = 200_000
MAX_NAME = 500
"""Characters of the path of a container or module."""
MAX_TENSOR_NAME = 1 << 14
"""Characters of a tensor's own name; those with more are left out, and it is said."""
_WRAPPERS = ("module.", "_orig_mod.")
_CONTAINERS = frozenset(
    {"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module", "state"}
)
_SETTINGS = frozenset({"hyper_parameters", "hparams", "config", "cfg", "args", "model_args", "model_config", "opt"})
AVERAGED = re.compile(r"^(model_|state_dict_|net_)?(ema|swa|averaged|shadow)(_|$)|_(ema|swa)(_|$)|^shadow_params$")
_AVERAGED_KEYS = ("model_ema.", "ema_model.", "swa_model.")
_OF_GENERATORS = "state of random generators"
_RANDOM = re.compile(r"^(\w+_)?(rng|random)(_\w+)?$")
_TRAINING = {
    "optimizer state": re.compile(
        r"optim|^opt(_state(s|_dict)?)?$|^param_groups$|^exp_avg(_sq)?$|^momentum_buffer$|^max_exp_avg_sq$"
    ),
    "state of the learning rate's schedule": re.compile(r"sched"),
    "state of the loss scale": re.compile(r"scaler"),
    _OF_GENERATORS: _RANDOM,
    "state of the training loop": re.compile(r"^(callbacks|loops)$"),
}
Path = tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What a walk through a checkpoint found: state dicts by their path, and what is left out."""

    groups: dict[Path, dict[str, Any]] = field(default_factory=dict)
    omitted: list[Omitted] = field(default_factory=list)


def named_tensors(
    loaded: Any, is_tensor: Callable[[Any], bool], make: Callable[[Any, str], Tensor]
) -> tuple[dict[str, Tensor], tuple[Omitted, ...]]:
    """Return a checkpoint's tensors by their names in the model, and what is not analysed.

    Args:
        loaded: any nesting of dicts, lists and tuples.
        is_tensor: whether an object is a tensor.
        make: makes the tensor of that name.
    """
    found = _walk(loaded, is_tensor, averaged=False)
    if not found.groups:
        found = _walk(loaded, is_tensor, averaged=True)
    names = _names(found.groups)
    _omit_averaged_keys(names, found.omitted)
    return {name: make(value, name) for name, value in _unwrapped(names).items()}, tuple(found.omitted)


def renamed_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Omitted, ...]]:
    """The same of a file whose tensors lie side by side under their whole names."""
    return named_tensors(tensors, lambda value: isinstance(value, Tensor), lambda t, name: replace(t, name=name))


def settings(loaded: Any) -> dict[str, Any]:
    """Return the plain values of mappings named config, args, hparams or hyper_parameters, the first one's winning."""
    result: dict[str, Any] = {}
    left = [MAX_SETTINGS]
    for mapping in (loaded, *(value for _, value in _items(loaded) if isinstance(value, dict))):
        for key, value in _items(mapping):
            if key in _SETTINGS and isinstance(value, dict) and left[0] > 0:
                result = _plain(value, MAX_DEPTH, left) | result
    return result


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """Return `value` with nothing in it but plain values, at most `depth` deep and `left` items in all."""
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        return None

    def more(_: Any) -> bool:
        return left[0] > 0

    if isinstance(value, dict):
        pairs = ((k, _plain(v, depth - 1, left)) for k, v in takewhile(more, _items(value)))
        return {k: v for k, v in pairs if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v, depth - 1, left) for v in takewhile(more, value)]
    return value if type(value) in (str, int, float, bool) else None


def _items(container: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(container, dict):
        yield from ((k, v) for k, v in container.items() if type(k) is str)
    elif isinstance(container, list | tuple):
        yield from ((str(i), v) for i, v in enumerate(container))


def _walk(loaded: Any, is_tensor: Callable[[Any], bool], *, averaged: bool) -> Found:
    """Find all mappings and lists that hold tensors; each object is visited once, by whichever path comes first."""
    found, seen = Found(), {id(loaded)}
    waiting: deque[tuple[Path, Any]] = deque([((), loaded)])
    checked: set[int] = set()
    tensors = containers = 0
    while waiting:
        path, container = waiting.popleft()
        for key, value in _items(container):
            if is_tensor(value):
                tensors += 1
                if len(key) > MAX_TENSOR_NAME:
                    found.omitted.append(Omitted(f"{key[:64]}...", f"its name has {len(key)} characters"))
                elif path or not _RANDOM.fullmatch(key):
                    found.groups.setdefault(path, {})[key] = value
                else:
                    found.omitted.append(Omitted(key, _OF_GENERATORS))
            elif isinstance(value, dict | list | tuple) and id(value) not in seen:
                containers += 1
                here = (*path, key)
                if (reason := _reason(key, averaged=averaged) or _reason_within(value)) is None:
                    seen.add(id(value))
                    waiting.append((here, value))
                elif _holds_tensor(value, is_tensor, checked):
                    found.omitted.append(Omitted(".".join(here), reason))
                _check_bounds(here, containers)
        if tensors > MAX_TENSORS:
            raise MalformedError(f"it holds more than {MAX_TENSORS:,} tensors")
    return found


def _check_bounds(path: Path, containers: int) -> None:
    if len(path) > MAX_DEPTH or sum(map(len, path)) > MAX_NAME:
        raise MalformedError(f"its containers are nested more than {MAX_DEPTH} deep or {MAX_NAME} characters long")
    if containers > MAX_CONTAINERS:
        raise MalformedError(f"it nests more than {MAX_CONTAINERS:,} containers")


def _reason(key: str, *, averaged: bool) -> str | None:
    """Return why what lies under `key` is not the model, or None; averaged copies count as it if `averaged`."""
    key = key.lower()
    if not averaged and AVERAGED.search(key):
        return "an averaged copy of the weights"
    return next((reason for reason, pattern in _TRAINING.items() if pattern.search(key)), None)


def _reason_within(value: Any) -> str | None:
    is_optimizer = isinstance(value, dict) and ("param_groups" in value or "exp_avg" in value)
    return "optimizer state" if is_optimizer else None


def _holds_tensor(value: Any, is_tensor: Callable[[Any], bool], seen: set[int]) -> bool:
    """Whether there is a tensor in `value`, apart from what was `seen` by an earlier question."""
    waiting = [value] if id(value) not in seen else []
    seen.add(id(value))
    while waiting:
        container = waiting.pop()
        for item in container.values() if isinstance(container, dict) else container:
            if is_tensor(item):
                return True
            if isinstance(item, dict | list | tuple) and id(item) not in seen:
                seen.add(id(item))
                waiting.append(item)
    return False


def _names(groups: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """Return all tensors by name: without the path that all state dicts share, or with it where names collide."""
    above = {path[:depth] for path in groups for depth in range(len(path))}
    leaves = [path for path in groups if path not in above]
    cut = _shared(leaves)
    for shorten in (lambda p: _without_containers(p[cut:]) if len(p) >= cut else (), lambda p: p):
        names = [(".".join((*shorten(path), key)), v) for path, group in groups.items() for key, v in group.items()]
        if len({name for name, _ in names}) == len(names):
            break
    return dict(names)


def _shared(paths: list[Path]) -> int:
    """Return how many first parts all paths share."""
    shared = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return shared


def _without_containers(path: Path) -> Path:
    return path[:1] + tuple(part for part in path[1:] if part not in _CONTAINERS)


def _omit_averaged_keys(names: dict[str, Any], omitted: list[Omitted]) -> None:
    """Take averaged copies out of one flat state dict, where there is a model beside them."""
    tops = Counter(name.partition(".")[0] + "." for name in names)
    for prefix in _AVERAGED_KEYS:
        if 0 < tops[prefix] < len(names) - tops[prefix] + 1:
            for name in [n for n in names if n.startswith(prefix)]:
                del names[name]
            omitted.append(Omitted(prefix[:-1], "an averaged copy of the weights"))


def without_wrappers(name: str) -> str:
    """Return a name without what wrappers put before it."""
    while wrapper := next((w for w in _WRAPPERS if name.startswith(w)), None):
        name = name.removeprefix(wrapper)
    return name


def _unwrapped(names: dict[str, Any]) -> dict[str, Any]:
    """Strip what wrappers put before every name: ``module.`` and ``_orig_mod.``."""
    while names and (wrapper := next((w for w in _WRAPPERS if all(n.startswith(w) for n in names)), None)):
        names = {n.removeprefix(wrapper): v for n, v in names.items()}
    return names
