"""Norms of a run with weight decay, recorded so that a run without it can follow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from normcheck.errors import NormcheckError, UnreadableError, UsageError
from normcheck.optim.directions import channel_norms, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

_FORMAT = {"normcheck": "recorded norms 1"}
"""What a file of recorded norms says of itself."""


class NormRecorder:
    """Records ‖w‖₂ of every output channel of some weights whenever it is told to.

        recorder = NormRecorder(weights)
        for batch in batches:
            ...
            recorder.record()  # before each step, or once at the start of every epoch
            optimizer.step()
        recorder.recorded.save("norms.safetensors")

    The first record is of the weights as the run begins: the one that eq. 4 divides the first step by. A record is
    eight bytes a channel, kept on the CPU. A norm that is not finite is recorded as it is.

    Args:
        named_parameters: the scale-invariant weights by name, pairs or a mapping; they are not changed.

    Raises:
        UsageError: one of them has no output channels, or a channel without a direction.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, Tensor]] | Mapping[str, Tensor]) -> None:
        self._weights = weights_of(named_parameters)
        self._rows: dict[str, list[Tensor]] = {name: [] for name in self._weights}

    def record(self) -> None:
        """Add a record of the weights as they are now."""
        for name, weight in self._weights.items():
            self._rows[name].append(channel_norms(weight).cpu())

    @property
    def recorded(self) -> RecordedNorms:
        """What was recorded so far.

        Raises:
            UsageError: nothing was.
        """
        if not all(self._rows.values()):
            raise UsageError("no norms were recorded: call record() before each step, or once an epoch")
        return RecordedNorms({name: torch.stack(rows) for name, rows in self._rows.items()})


@dataclass(frozen=True, eq=False)
class RecordedNorms:
    """Norms by the name of the weight: float64 of shape (records, channels), all with as many records."""

    norms: Mapping[str, Tensor]

    def __len__(self) -> int:
        return min(map(len, self.norms.values()))

    def every(self, records: int) -> RecordedNorms:
        """Every so-manieth record, beginning with the first: of one a step, with the steps of an epoch, one an epoch.

        Raises:
            UsageError: `records` is not positive.
        """
        if records < 1:
            raise UsageError(f"records: expected a positive number, received {records}")
        return RecordedNorms({name: norms[::records] for name, norms in self.norms.items()})

    def row(self, name: str, index: int) -> Tensor:
        """The norms of one weight at one record, (channels,).

        Raises:
            UsageError: there are fewer records.
        """
        if index >= len(self):
            raise UsageError(
                f"{len(self)} norms were recorded, and number {index + 1} is asked for: "
                "record a run that is as long as this one"
            )
        return self.norms[name][index]

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Make sure that the norms can be divided by and belong to these weights.

        Raises:
            UsageError: a weight is missing or has another number of channels, or a norm is zero or not finite.
        """
        for name, weight in weights.items():
            norms = self.norms.get(name)
            if norms is None:
                raise UsageError(f"no norms were recorded of {name!r}, but of {sorted(self.norms)}; names must agree")
            if norms.shape[1] != len(weight):
                raise UsageError(
                    f"{name!r} has {len(weight)} channels, and norms of {norms.shape[1]} were recorded: "
                    "record a run of the same model"
                )
            if not bool(((norms > 0) & norms.isfinite()).all()):
                raise UsageError(
                    f"the recorded norms of {name!r} are not all positive and finite: that run did not train; "
                    "record one that does"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, which appears whole or not at all.

        Raises:
            NormcheckError: it cannot be written.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        tensors = {name: norms.contiguous() for name, norms in self.norms.items()}
        try:
            save_file(tensors, temporary, _FORMAT)
            temporary.replace(target)
        except (OSError, SafetensorError) as error:
            raise NormcheckError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RecordedNorms:
        """Read what `save` wrote.

        Raises:
            UnreadableError: it cannot be read, or holds something else.
        """
        try:
            with safe_open(path, "pt") as file:
                if file.metadata() != _FORMAT:
                    raise UnreadableError(f"{path}: holds no recorded norms; pass what RecordedNorms.save wrote")
                return RecordedNorms({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
        except (OSError, SafetensorError) as error:
            raise UnreadableError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
