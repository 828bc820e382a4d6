"""What an optimizer of torch had stored beside the weights: its groups' settings and its tensors, nothing executed.

    {"state": {0: {"exp_avg": ..., "step": ...}, ...}, "param_groups": [{"lr": 0.1, "params": [0, ...]}, ...]}

is looked for at any place of a file of torch.save, and in the ``optimizer.pt`` or ``optimizer.bin`` of a folder.
"""

from __future__ import annotations

import io
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError
from normcheck.layers.readers.archive import Archive
from normcheck.layers.readers.pytorch import is_plain, listed, place_of
from normcheck.layers.readers.sniffing import Format, format_of
from normcheck.layers.readers.stored import Strided, rebuild, storage_of, tensor_of
from normcheck.layers.readers.unpickling import Machine, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from normcheck.layers.contents import Tensor
    from normcheck.layers.readers.stored import Place

_BESIDE = ("optimizer.pt", "optimizer.bin")
_LARGEST_KEY = 1 << 20
"""Whole numbers from here on are no numbers of parameters."""
_DEEPEST, _MOST = 8, 10_000
"""Levels and containers that are looked through."""
_STEPS = ("global_step", "step", "iteration", "iter")
"""Keys beside the model under which training loops keep the number of steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """What an optimizer holds of one parameter.

    Attributes:
        settings: the plain values of its group: ``lr``, ``momentum``, ``betas``.
        group: which group that is.
        name: the parameter's name, where the optimizer was given names; else None.
        tensors: its tensors by their names, such as ``momentum_buffer``; not loaded yet.
        step: the number of steps where it is a plain number; as a tensor it is among `tensors`.
    """

    settings: Mapping[str, Any]
    group: int
    name: str | None
    tensors: Mapping[str, Tensor]
    step: float | None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The parameter's, as its tensors have it; None where it has none."""
        return next((t.shape for key, t in self.tensors.items() if key != "step"), None)


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerState:
    """The state of one optimizer: a slot for each parameter, in the order in which the optimizer was given them."""

    slots: Sequence[Slot]


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a checkpoint says of the training.

    Attributes:
        optimizer: None where it holds none, or none that can be read.
        step: steps that the training loop had counted; None where it does not say.
        note: why there is no state though something of it is there; None where nothing is left out.
    """

    optimizer: OptimizerState | None = None
    step: int | None = None
    note: str | None = None


class _Machine(Machine):
    """Keeps small whole numbers as keys, in digits: they number the parameters."""

    def _set(self, items: list[Any]) -> None:
        keys = [str(k) if type(k) is int and 0 <= k < _LARGEST_KEY else k for k in items[::2]]
        super()._set([item for pair in zip(keys, items[1::2], strict=True) for item in pair])


def read_training(path: str | Path) -> Training:
    """Describe the optimizer's state of a checkpoint; its tensors are loaded later, one by one.

    Raises:
        UnreadableError: the file breaks its format, or cannot be read.
    """
    file = _file(Path(path))
    if file is None:
        return Training()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a pickle's text looks like
            return _read_zip(file) if format_of(file) is Format.TORCH_ZIP else Training(note=_note_on(file))
    except MalformedError as error:
        raise UnreadableError(f"{file}: {error}; fetch or save it again") from None
    except OSError as error:
        raise UnreadableError(f"{file}: cannot be read: {error.strerror or error}; check the file") from error


def _file(path: Path) -> Path | None:
    if not path.is_dir():
        return path
    return next((path / name for name in _BESIDE if (path / name).is_file()), None)


def _note_on(file: Path) -> str | None:
    """Of files of torch alone a user expects a state."""
    if format_of(file) is Format.TORCH_PICKLE:
        return "the optimizer's state is not read from files of torch before 1.6: save it again with torch"
    return None


def _read_zip(file: Path) -> Training:
    with Archive(file) as archive:
        machine = _Machine(rebuild, storage_of)
        loaded = machine.run(io.BytesIO(archive.read("data.pkl")))
        place = place_of(archive, "data/", file, str(file))
    if refused := listed(g for g in machine.globals if not is_plain(g)):
        return Training(note=f"the optimizer's state is not read, because the file holds {refused}")
    step = _stated_step(loaded)
    found = list(_optimizers(loaded))
    if not found:
        return Training(step=step)
    note = f"the first of its {len(found)} optimizers is read" if len(found) > 1 else None
    return Training(OptimizerState(tuple(_slots(found[0], place))), step, note)


def _stated_step(loaded: Any) -> int | None:
    if not isinstance(loaded, dict):
        return None
    return next((loaded[key] for key in _STEPS if type(loaded.get(key)) is int), None)


def _optimizers(loaded: Any) -> Iterator[dict[str, Any]]:
    """All states of optimizers, those that lie less deep first."""
    waiting, left = deque([(loaded, 0)]), _MOST
    seen: set[int] = set()
    while waiting and left:
        value, depth = waiting.popleft()
        left -= 1
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            if isinstance(value.get("param_groups"), list) and isinstance(value.get("state"), dict):
                yield value
                continue
            value = list(value.values())
        if isinstance(value, list | tuple) and depth < _DEEPEST:
            waiting.extend((item, depth + 1) for item in value if isinstance(item, dict | list | tuple))


def _slots(state: dict[str, Any], place: Place) -> Iterator[Slot]:
    held = state["state"]
    for number, group in enumerate(state["param_groups"]):
        if not isinstance(group, dict):
            raise MalformedError("a group of its optimizer's parameters is no mapping")
        settings = {key: value for key, value in group.items() if _is_plain_value(value)}
        indices, names = group.get("params"), group.get("param_names")
        for position, index in enumerate(indices if isinstance(indices, list | tuple) else ()):
            values = held.get(str(index)) if type(index) in (int, str) else None
            values = values if isinstance(values, dict) else {}
            step = values.get("step")
            yield Slot(
                settings=settings,
                group=number,
                name=_name(names, position),
                tensors={k: tensor_of(v, f"{k} of {index}", place) for k, v in values.items() if type(v) is Strided},
                step=float(step) if isinstance(step, int | float) else None,
            )


def _name(names: Any, position: int) -> str | None:
    listed_here = isinstance(names, list | tuple) and position < len(names)
    return names[position] if listed_here and type(names[position]) is str else None


def _is_plain_value(value: Any) -> bool:
    return type(value) in (int, float, bool, str) or (
        isinstance(value, tuple | list) and len(value) <= 4 and all(type(item) in (int, float) for item in value)
    )


def matched(slots: Sequence[Slot], parameters: Mapping[str, tuple[int, ...]], *, ordered: bool) -> dict[str, Slot]:
    """Return which slot is of which parameter, as far as that is certain.

    By names, where the optimizer was given names. Else by shape: parameters of a shape that no other parameter has; and
    those of a shape of which all are in one group and in as many slots, in their order, which is the model's.

    Args:
        slots: all of an optimizer.
        parameters: shapes of the trainable tensors by name, each tensor once.
        ordered: whether they stand in the order of the model, as in files of torch; safetensors sorts them.
    """
    by_name = {slot.name: slot for slot in slots if slot.name is not None}
    if by_name:
        return {name: by_name[name] for name in parameters if name in by_name}
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, shape in parameters.items():
        alike.setdefault(shape, []).append(name)
    found: dict[str, Slot] = {}
    for shape, names in alike.items():
        fitting = [slot for slot in slots if slot.shape == shape]
        together = len({slot.group for slot in fitting}) == 1
        if len(fitting) == len(names) and (len(names) == 1 or (ordered and together)):
            found.update(zip(names, fitting, strict=True))
    if not found and slots and not any(slot.tensors for slot in slots) and len({s.group for s in slots}) == 1:
        return dict.fromkeys(parameters, slots[0])  # SGD without momentum: settings alone, the same for all
    return found
