"""TorchScript archives, described from their pickled modules and the text of their code; nothing of it is run.

`torch.jit.load` is not used, since it builds and may run what the archive says. The pickle holds the tree of modules
with their class names and tensors; constants such as eps stand in the classes' source text, which is searched.
"""

from __future__ import annotations

import ast
import io
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError
from normcheck.layers.contents import ROLES, Contents, Stated, Tensor
from normcheck.layers.operators import OPERATORS
from normcheck.layers.readers.archive import Archive
from normcheck.layers.readers.names import MAX_CONTAINERS, MAX_NAME, MAX_TENSORS
from normcheck.layers.readers.pytorch import is_plain, listed, place_of
from normcheck.layers.readers.stored import Odd, Place, Strided, rebuild, storage_of, tensor_of
from normcheck.layers.readers.unpickling import MAX_OPERATIONS, Call, Global, Machine, MalformedError
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LISTS = "torch.jit._pickle"
_MODULES = ("__torch__", _LISTS)
_MANGLED = re.compile(r"___torch_mangle_\d+\.")
_FINAL = re.compile(r"^  (\w+) : Final\[[^\n=]*\] = ([^\n]{1,200})$", re.MULTILINE)
_CALL = re.compile(r"\btorch\.(\w+)\(([^\n()]{1,2000})\)")
_ARGUMENT = re.compile(r"\[[^\[\]]*\]|[^,\s\[\]]+")
_CLASS = re.compile(r"^class (\w+)\(", re.MULTILINE)
_EPS = ("eps", "variance_epsilon", "epsilon")
_KINDS = (  # of a class whose name contains the first: the norm
    ("BatchNorm", "batch-l2"),
    ("InstanceNorm", "instance-l2"),
    ("GroupNorm", "group-l2"),
    ("RMSNorm", "rms"),
    ("LayerNorm", "layer-l2"),
)
_ZERO_CENTRED = re.compile(r"^(Gemma|Qwen3Next)\w*RMSNorm$")


@dataclass(frozen=True, slots=True, eq=False)
class _Module:
    name: str
    kind: Global
    attributes: dict[str, Any]


def read(path: Path, name: str) -> Contents:
    """Describe a TorchScript archive.

    Raises:
        MalformedError: it breaks its format.
        UnreadableError: it names what no TorchScript does.
    """
    with Archive(path) as archive:
        modules = list(_modules(_unpickled(archive, "data.pkl", name)))
        tensors = _tensors(modules, place_of(archive, "data/", path, name))
        code = _Code(archive)
        stated = [s for m in modules if (s := _stated(m, tensors, code)) is not None]
        frozen = _frozen(archive, place_of(archive, "constants/", path, name))
        stated += _stated_by_calls(code, frozen)
    return Contents(path=name, reader="TorchScript archive", tensors=tensors | frozen, stated=tuple(stated))


def _unpickled(archive: Archive, entry: str, name: str, limit: int = MAX_OPERATIONS) -> Any:
    machine = Machine(_called, storage_of, limit)
    loaded = machine.run(io.BytesIO(archive.read(entry)))
    if strange := listed(g for g in machine.globals if not (g.module.startswith(_MODULES) or is_plain(g))):
        raise UnreadableError(f"{name}: refused, because it holds {strange}, as no TorchScript does; do not trust it")
    return loaded


def _called(function: Global, arguments: tuple[Any, ...]) -> Any:
    """As in any pickle of torch, and the typed lists and dicts of TorchScript are plain ones."""
    if function.module == _LISTS and arguments:
        return arguments[0]
    return rebuild(function, arguments)


def _modules(root: Any) -> Iterator[_Module]:
    """Return all modules by attribute path; one that is shared comes once, by its first path."""
    waiting, seen = deque([("", root)]), {id(root)}
    while waiting:
        name, value = waiting.popleft()
        if len(name) > MAX_NAME:
            raise MalformedError(f"its modules have names of more than {MAX_NAME} characters")
        if isinstance(value, Call) and isinstance(value.function, Global):
            attributes = value.state if isinstance(value.state, dict) else {}
            yield _Module(name, value.function, attributes)
        else:
            attributes = _children(value)
        for key, child in attributes.items():
            if isinstance(child, Call | dict | list | tuple) and id(child) not in seen:
                if len(seen) >= MAX_CONTAINERS:
                    raise MalformedError(f"it nests more than {MAX_CONTAINERS:,} modules")
                seen.add(id(child))
                waiting.append((f"{name}.{key}" if name else key, child))


def _children(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {str(i): item for i, item in enumerate(value)} if isinstance(value, list | tuple) else {}


def _tensors(modules: list[_Module], place: Place) -> dict[str, Tensor]:
    named = {
        f"{module.name}.{key}" if module.name else key: value
        for module in modules
        for key, value in module.attributes.items()
        if isinstance(value, Strided | Odd)
    }
    if len(named) > MAX_TENSORS:
        raise MalformedError(f"it holds more than {MAX_TENSORS:,} tensors")
    return {name: tensor_of(value, name, place) for name, value in named.items()}


def _frozen(archive: Archive, place: Place) -> dict[str, Tensor]:
    """Return the weights of a frozen model: constants without names, as its code calls them."""
    constants = _unpickled(archive, "constants.pkl", place.name, MAX_OPERATIONS // 10)
    named = {f"CONSTANTS.c{i}": value for i, value in enumerate(constants if isinstance(constants, tuple) else ())}
    return {n: tensor_of(value, n, place) for n, value in named.items() if isinstance(value, Strided | Odd)}


def _stated_by_calls(code: _Code, frozen: dict[str, Tensor]) -> list[Stated]:
    """Return the norms that a frozen model's code calls on its constants; calls on other inputs are the same norm."""
    calls = [call for text in code.texts() for call in _CALL.findall(text)] if frozen else []
    found: list[Stated] = []
    for name, settings in dict.fromkeys((name, inside.partition(",")[2]) for name, inside in calls):
        operator, given = OPERATORS.get(name), _given(name, f"input, {settings}")
        weight, bias, mean, var = (n if (n := given.get(role)) in frozen else None for role in ROLES)
        if operator is None or (weight is None and mean is None):
            continue
        if len(found) == MAX_TENSORS:
            raise MalformedError(f"its code calls more than {MAX_TENSORS:,} norms")
        said = {key: _literal(text) for key, text in given.items()}
        found.append(
            Stated(
                name=f"{name}_{len(found)}",
                norm=norm_named(operator.norm),
                how=f"operator torch.{name}",
                weight=weight,
                bias=bias,
                running_mean=mean,
                running_var=var,
                eps=operator.eps if (eps := _number(said.get("eps"))) is None else eps,
                momentum=_number(said.get("momentum")),
                num_groups=_count(said.get("num_groups")),
                normalized_shape=_shape(said, None, frozen),
            )
        )
    return found


def _given(name: str, inside: str) -> dict[str, str]:
    """Return the text of each argument of a call of a norm operator, by its name."""
    operator = OPERATORS.get(name)
    return dict(zip(operator.arguments, _ARGUMENT.findall(inside), strict=False)) if operator is not None else {}


def _stated(module: _Module, tensors: dict[str, Tensor], code: _Code) -> Stated | None:
    """Return the norm that a module is by its class, or None."""
    kind = next((norm for part, norm in _KINDS if part in module.kind.name), None)
    weight, bias, mean, var = (_named(module, r, tensors) for r in ROLES)
    has_parts = any(isinstance(v, Call) for v in module.attributes.values())
    if kind is None or (has_parts and weight is None and mean is None):
        return None
    own = code.constants(module.kind) | module.attributes
    return Stated(
        name=module.name or module.kind.name,
        norm=norm_named(kind),
        how=f"module {_plain(module.kind)}",
        weight=weight,
        bias=bias,
        running_mean=mean,
        running_var=var,
        eps=next((e for key in _EPS if (e := _number(own.get(key))) is not None), None),
        momentum=_number(own.get("momentum")),
        num_groups=_count(own.get("num_groups")),
        num_channels=_count(own.get("num_channels")) or _count(own.get("num_features")),
        normalized_shape=_shape(own, weight, tensors) if kind in ("layer-l2", "rms") else (),
        weight_offset=1.0 if _ZERO_CENTRED.match(module.kind.name) else 0.0,
    )


def _plain(kind: Global) -> str:
    """Return the class's name without what TorchScript puts before and into it."""
    return _MANGLED.sub("", str(kind)).removeprefix("__torch__.")


def _named(module: _Module, role: str, tensors: dict[str, Tensor]) -> str | None:
    name = f"{module.name}.{role}" if module.name else role
    return name if name in tensors else None


def _shape(own: dict[str, Any], weight: str | None, tensors: dict[str, Tensor]) -> tuple[int, ...]:
    stated = own.get("normalized_shape")
    if isinstance(stated, list | tuple) and 0 < len(stated) < 16 and all(_count(v) for v in stated):
        return tuple(stated)
    return tensors[weight].shape if weight is not None else ()


class _Code:
    """The classes' source text, for the constants in it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._classes: dict[str, dict[str, str]] = {}

    def constants(self, kind: Global) -> dict[str, Any]:
        """Return what the text of a class says: arguments of its norm operator, and before them its constants."""
        text = self._text(kind)
        return _arguments(text) | {key: _literal(value) for key, value in _FINAL.findall(text)}

    def texts(self) -> list[str]:
        """Return the text of every file of code."""
        entries = sorted(n for n in self._archive.names if n.startswith("code/") and n.endswith(".py"))
        return [self._archive.read(n).decode("utf-8", "replace") for n in entries]

    def _text(self, kind: Global) -> str:
        """Return the text of one class, empty where it has none."""
        entry = f"code/{kind.module.replace('.', '/')}.py"
        if entry not in self._classes:
            here = entry in self._archive.names
            self._classes[entry] = _classes(self._archive.read(entry).decode("utf-8", "replace") if here else "")
        return self._classes[entry].get(kind.name, "")


def _classes(text: str) -> dict[str, str]:
    """Return the text of each class in a file."""
    found = list(_CLASS.finditer(text))
    ends = [*(m.start() for m in found[1:]), len(text)]
    return {m[1]: text[m.start() : end] for m, end in zip(found, ends, strict=False)}


def _arguments(text: str) -> dict[str, Any]:
    """Return the literal arguments of the first norm operator that a traced module calls."""
    for name, inside in _CALL.findall(text):
        if (operator := OPERATORS.get(name)) is not None:
            given = {key: literal for key, v in _given(name, inside).items() if (literal := _literal(v)) is not None}
            return {"eps": operator.eps} | given
    return {}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
