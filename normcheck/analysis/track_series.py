"""A series of checkpoints of one run: which files, in which order, and what each says of the training."""

from __future__ import annotations

import glob
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError, UsageError
from normcheck.layers.discovery.candidates import is_vector, looks_like_norm, split, without_optimizer
from normcheck.layers.discovery.conventions import MORE_VARIANCES, OPERATORS, PARAMETRIZED, STATISTICS
from normcheck.layers.readers import read
from normcheck.layers.readers.directory import weights_in
from normcheck.layers.readers.optimizer_state import Slot, Training, matched, read_training
from normcheck.results import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from normcheck.layers.contents import Contents, Tensor

_NUMBER = re.compile(r"(\d+)")
_SERIES = re.compile(r"\d")
_GLOB = re.compile(r"[*?\[]")
_WHOLE = ("config.json", "model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")
_STATISTICS = frozenset(
    name for mean, variance in STATISTICS.items() for name in (mean, variance, *MORE_VARIANCES.get(mean, ()))
)
_FIRST = frozenset({"mean", "var"})  # names so common that a parameter may have them


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A checkpoint that was opened; its tensors are loaded one by one.

    Attributes:
        path: as given or found.
        contents: what it holds.
        parameters: its trainable tensors, each memory once, in the order of the file.
        slots: what the optimizer holds of each, by name.
        settings: of all groups of its optimizer, whether or not their parameters are known.
        step: steps made so far; None where nothing says it.
        note: what of it is not read; None where all is.
    """

    path: str
    contents: Contents
    parameters: Mapping[str, Tensor]
    slots: Mapping[str, Slot] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()
    step: int | None = None
    note: str | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters with output channels: those of two dimensions or more that are no norm's and no gains."""
        return {name: tensor for name, tensor in self.parameters.items() if _has_channels(name, tensor.shape)}

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of its optimizer, each once."""
        found = (group.get("lr") for group in self.settings)
        return tuple(dict.fromkeys(float(lr) for lr in found if isinstance(lr, int | float)))


def _has_channels(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a linear layer, a convolution or an embedding.

    A vector among dimensions of 1 is one where its name says so: of a layer with one output or input.
    """
    module, leaf = split(name)
    named = leaf in OPERATORS or leaf in PARAMETRIZED
    return len(shape) >= 2 and not looks_like_norm(module) and (named or not is_vector(shape))


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return what sorts texts so that numbers in them count as numbers: epoch-2 before epoch-10."""
    parts = _NUMBER.split(text)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the checkpoints that the user named: files as given, folders of checkpoints and patterns in natural order.

    Raises:
        UsageError: a path is empty, or a pattern matches nothing.
    """
    found: list[str] = []
    for path in paths:
        if not path:
            raise UsageError("the path of a checkpoint is empty: is a variable unset? Give . for the current folder")
        if _GLOB.search(path) and not Path(path).exists():
            matching = sorted(glob.glob(path), key=natural)  # noqa: PTH207  # paths as the user writes them
            if not matching:
                raise UsageError(f"{path}: the pattern matches no file; give checkpoints or a folder of them")
            found += matching
        else:
            found += _of_folder(Path(path), path)
    return found


def _of_folder(folder: Path, name: str) -> list[str]:
    """The checkpoints in a folder: its numbered folders of weights, else itself as a hub has it, else its files."""
    if not folder.is_dir():
        return [name]
    stem = name.rstrip("/") or name
    numbered = [d.name for d in folder.iterdir() if d.is_dir() and _SERIES.search(d.name) and weights_in(d)]
    if numbered:
        return [f"{stem}/{each}" for each in sorted(numbered, key=natural)]
    files = weights_in(folder)
    if any((folder / part).exists() for part in _WHOLE) or any("-of-" in file for file in files) or not files:
        return [name]
    return [f"{stem}/{each}" for each in sorted(files, key=natural)]


def opened(paths: Iterable[str], *, trust: bool) -> tuple[list[Snapshot], list[Skipped]]:
    """Return the checkpoints that can be read, in their order, and those that cannot, with why."""
    snapshots, unreadable = [], []
    for path in paths:
        try:
            snapshots.append(_snapshot(path, trust=trust))
        except UnreadableError as error:
            unreadable.append(Skipped(name=path, reason=str(error)))
    return snapshots, unreadable


def _snapshot(path: str, *, trust: bool) -> Snapshot:
    contents = read(path, trust=trust)
    tensors, _ = without_optimizer(contents.tensors)
    parameters = {tensor.name: tensor for tensor in _trainable(tensors.values())}
    untold = Training(note="code of it was run: the optimizer's state is not read")
    training = untold if contents.trusted else read_training(path)
    slots = training.optimizer.slots if training.optimizer else ()
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    by_name = matched(slots, shapes, ordered=contents.reader.startswith("PyTorch"))
    return Snapshot(
        path=path,
        contents=contents,
        parameters=parameters,
        slots=by_name,
        settings=tuple({slot.group: slot.settings for slot in slots}.values()),
        step=training.step if training.step is not None else _counted(slots),
        note=training.note or _unmatched(slots, shapes, by_name),
    )


def _trainable(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Floating tensors that are no running statistics; of several names of one memory the first."""
    seen = set()
    for tensor in tensors:
        leaf = tensor.name.rpartition(".")[2]
        statistic = leaf in _STATISTICS and (leaf not in _FIRST or len(tensor.shape) < 2)
        if tensor.is_floating and not statistic and 0 not in tensor.shape and tensor.storage not in seen:
            seen.add(tensor.storage)
            yield tensor


def _counted(slots: Sequence[Slot]) -> int | None:
    """The steps that the optimizer has counted itself, as Adam does."""
    for slot in slots:
        if (step := steps_of(slot)) is not None:
            return int(step)
    if slots and all("betas" in slot.settings and not slot.tensors for slot in slots):
        return 0  # of Adam's kin, which count from their first step on
    return None


def steps_of(slot: Slot) -> float | None:
    """The steps that an optimizer has counted for one parameter; None where it counts none."""
    tensor = slot.tensors.get("step")
    stored = tensor is not None and math.prod(tensor.shape) == 1
    steps = float(tensor.load().reshape(-1)[0]) if tensor is not None and stored else slot.step
    return steps if steps is not None and math.isfinite(steps) else None


def _unmatched(slots: Sequence[Slot], shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Slot]) -> str | None:
    held = [slot for slot in slots if len(slot.shape or ()) >= 2]
    lost = sum(len(shape) >= 2 for name, shape in shapes.items() if name not in found)
    if not held or not lost:
        return None
    return (
        f"the optimizer's state names no parameters, and which of it belongs to {lost} of the weights cannot be told "
        "by shape and order: give the optimizer model.named_parameters() when you train"
    )
