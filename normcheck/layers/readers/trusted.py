"""Files of torch that are loaded by running their own code, because the user said that he trusts them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Contents, Tensor
from normcheck.layers.live.modules import contents_of, identity_of, live_tensor
from normcheck.layers.readers.directory import merged
from normcheck.layers.readers.names import AVERAGED, MAX_DEPTH, named_tensors, settings
from normcheck.layers.readers.stored import unloadable

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def read(path: Path, name: str) -> Contents:
    """Load a file with everything in it, on the CPU, and describe the modules found in it, else the state dicts.

    Raises:
        UnreadableError: its code fails, or needs what is not installed.
    """
    import torch  # noqa: PLC0415 - heavy, and needed for trusted files alone

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UnreadableError(f"{name}: its code fails to load it: {reason}; {_remedy(reason)}") from error
    if modules := _modules(loaded):
        return _of_modules(modules, name, settings(loaded))
    tensors, omitted = named_tensors(loaded, lambda v: isinstance(v, torch.Tensor), lambda v, n: _tensor(v, n, name))
    return Contents(
        path=name,
        reader="PyTorch file, trusted",
        tensors=tensors,
        config=settings(loaded),
        omitted=omitted,
        trusted=True,
    )


def _remedy(reason: str) -> str:
    """Return what helps: a class of the script that saved the file is in no package that could be installed."""
    if "__main__'" in reason:
        return "its class is in the script that saved it: save its state dict; with that, --model MODULE:NAME builds it"
    return "install what it needs"


def _modules(loaded: Any) -> dict[str, torch.nn.Module]:
    """Return the modules by where they lie; averaged copies only where there is nothing else."""
    import torch  # noqa: PLC0415 - as above

    found: dict[str, torch.nn.Module] = {}
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), loaded)])
    seen: set[int] = set()
    while waiting:
        path, value = waiting.popleft()
        if id(value) in seen or len(path) > MAX_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            found[".".join(path)] = value
        elif isinstance(value, dict):
            waiting += [((*path, key), item) for key, item in value.items() if isinstance(key, str)]
        elif isinstance(value, list | tuple):
            waiting += [((*path, str(i)), item) for i, item in enumerate(value)]
    own = {where: module for where, module in found.items() if not AVERAGED.search(where.lower())}
    return own or found


def _of_modules(modules: dict[str, torch.nn.Module], name: str, config: dict[str, Any]) -> Contents:
    parts = {f"{where}.": contents_of(module, path=name) for where, module in modules.items()}
    contents = next(iter(parts.values())) if len(parts) == 1 else merged(name, "", parts, nested=True)
    return replace(contents, path=name, reader="module in a PyTorch file, trusted", config=config, trusted=True)


def _tensor(value: torch.Tensor, name: str, path: str) -> Tensor:
    import torch  # noqa: PLC0415 - as above

    shape, dtype = tuple(value.shape), str(value.dtype).removeprefix("torch.")
    if value.is_quantized or value.layout != torch.strided or value.device.type == "meta" or value.is_complex():
        kind = "quantized " * value.is_quantized or "sparse " * value.is_sparse or f"{value.device.type} "
        return unloadable(name, shape, f"{kind}{dtype}", ("odd", id(value)), path)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return unloadable(name, shape, f"expanded {dtype}", identity_of(value), path)
    return live_tensor(name, value)
