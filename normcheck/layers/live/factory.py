"""A live model from the user's own code, its inputs from a file, and a checkpoint's tensors put into it.

This imports and runs the user's code, and only because he asked for it by name.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.errors import UnreadableError, UsageError
from normcheck.layers.live.modules import identity_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import torch

    from normcheck.layers.contents import Contents, Tensor

_LISTED = 4
"""Names that an error lists before it says how many more there are."""

_OPTIONAL = "num_batches_tracked"
"""A counter that checkpoints of old versions of torch do not have."""

_INPUT_SUFFIXES = (".pt", ".pth", ".npz", ".npy", ".safetensors")


def load_model(spec: str) -> torch.nn.Module:
    """Return the model that ``package.module:factory`` names.

    The current directory is importable, as under ``python -m``. What follows the colon may be dotted; it is a
    torch.nn.Module, or a class or function that is called without arguments and returns one.

    Raises:
        UsageError: no colon, no such module, no such attribute, something that cannot be called without arguments,
            code that raises, a result that is no torch.nn.Module.
    """
    import torch  # noqa: PLC0415 - loaded when a model is asked for

    module_name, colon, path = spec.partition(":")
    if not (module_name and colon and path):
        raise UsageError(f"model {spec!r}: expected package.module:factory, such as mypackage.models:build")
    target = _attribute(_imported(spec, module_name), spec, module_name, path)
    if isinstance(target, torch.nn.Module):
        return target
    model = _called(target, spec)
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"model {spec!r}: {path} returned {_article(model)}, which is no torch.nn.Module")
    return model


def load_inputs(path: str | os.PathLike[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that a model is to be called with; they stay in their types.

    Formats: .pt and .pth (one tensor, a list or tuple of tensors, or a dict of tensors, which are keyword arguments);
    .npz and .safetensors (one tensor is positional, several are keyword arguments by their names); .npy.

    Raises:
        UnreadableError: no such file, another format, damaged, or something else in it. No code in it is run.
    """
    file = Path(path)
    if not file.is_file():
        raise UnreadableError(f"{path}: there is no such file; give a file of inputs")
    suffix = file.suffix.lower()
    if suffix not in _INPUT_SUFFIXES:
        raise UnreadableError(f"{path}: not a file of inputs; give one of {', '.join(_INPUT_SUFFIXES)}")
    loaded = _read_inputs(file)
    tensors = loaded.values() if isinstance(loaded, dict) else loaded
    _check_tensors(file, tensors)
    if not isinstance(loaded, dict):
        return tuple(loaded), {}
    if len(loaded) == 1 and suffix in (".npz", ".safetensors"):
        return tuple(loaded.values()), {}
    return (), {str(name): tensor for name, tensor in loaded.items()}


def load_weights(model: torch.nn.Module, contents: Contents) -> None:
    """Put a checkpoint's tensors into a model, each in the type that the model has.

    Names, shapes and types are checked before anything is changed. Names must be the same on both sides, but that a
    tensor shared by several names may come under one of them, and that ``num_batches_tracked`` may be missing.

    Raises:
        UsageError: missing or unexpected names, another shape, quantised tensors, a model without values (meta device).
    """
    import torch  # noqa: PLC0415 - loaded when there is a model

    own = {name: t for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, torch.Tensor)}
    _check_names(own, contents)
    given = {name: tensor for name, tensor in contents.tensors.items() if name in own}
    for name, tensor in given.items():
        _check_fit(name, own[name], tensor, contents.path)
    with torch.no_grad():
        for name, tensor in given.items():
            own[name].copy_(torch.from_numpy(tensor.load()))


# --------------------------------------------------------------------------------------------------- the model


def _imported(spec: str, name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"model {spec!r}: there is no module {error.name!r}, neither installed nor in {here}"
            ) from error
        raise UsageError(f"model {spec!r}: importing {name} failed: {_one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"model {spec!r}: importing {name} failed: {_one_line(error)}") from error


def _attribute(module: Any, spec: str, module_name: str, path: str) -> Any:
    target, where = module, module_name
    for part in path.split("."):
        if not hasattr(target, part):
            raise UsageError(f"model {spec!r}: {where} has no attribute {part!r}")
        target, where = getattr(target, part), f"{where}.{part}"
    return target


def _called(target: Any, spec: str) -> Any:
    if not callable(target):
        raise UsageError(f"model {spec!r}: it is {_article(target)}; name a torch.nn.Module or what returns one")
    required = _required(target)
    if required:
        raise UsageError(
            f"model {spec!r}: it needs the arguments {', '.join(required)}; name a function that needs none"
        )
    try:
        return target()
    except (Exception, SystemExit) as error:
        raise UsageError(f"model {spec!r}: calling it failed: {_one_line(error)}") from error


def _required(target: Any) -> list[str]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # builtins without one; the call will tell
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _article(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -------------------------------------------------------------------------------------------------- the inputs


def _read_inputs(file: Path) -> dict[Any, Any] | list[Any]:
    readers: dict[str, Callable[[Path], dict[Any, Any] | list[Any]]]
    readers = {".npz": _read_npz, ".npy": _read_npy, ".safetensors": _read_safetensors}
    try:
        return readers.get(file.suffix.lower(), _read_torch)(file)
    except UnreadableError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged file makes them stumble over
        raise UnreadableError(f"{file}: cannot be read as inputs: {_one_line(error)}; save it again") from error


def _read_torch(file: Path) -> dict[Any, Any] | list[Any]:
    import torch  # noqa: PLC0415 - loaded when a model is asked for

    loaded = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(loaded, torch.Tensor):
        return [loaded]
    if isinstance(loaded, dict):
        return dict(loaded)
    if isinstance(loaded, list | tuple):
        return list(loaded)
    raise UnreadableError(f"{file}: it holds {_article(loaded)}; inputs are a tensor, or a list or dict of tensors")


def _read_safetensors(file: Path) -> dict[Any, Any]:
    from safetensors.torch import load_file  # noqa: PLC0415 - it loads torch

    return dict(load_file(file))


def _read_npy(file: Path) -> list[Any]:
    return [_from_numpy(np.load(file, allow_pickle=False))]


def _read_npz(file: Path) -> dict[Any, Any]:
    if not zipfile.is_zipfile(file):
        raise UnreadableError(f"{file}: it is no npz archive; write it with numpy.savez")
    with np.load(file, allow_pickle=False) as archive:
        return {name: _from_numpy(archive[name]) for name in archive.files}


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]]) -> torch.Tensor:
    import torch  # noqa: PLC0415 - loaded when a model is asked for

    native = array.astype(array.dtype.newbyteorder("="), copy=True)
    return torch.from_numpy(native)


def _check_tensors(file: Path, values: Any) -> None:
    import torch  # noqa: PLC0415 - loaded when a model is asked for

    wrong = [value for value in values if not isinstance(value, torch.Tensor)]
    if wrong:
        raise UnreadableError(f"{file}: it holds {_article(wrong[0])} among its inputs; all of them must be tensors")
    if not values:
        raise UnreadableError(f"{file}: there are no tensors in it; save what the model is called with")


# ------------------------------------------------------------------------------------------------- the weights


def _check_names(own: dict[str, torch.Tensor], contents: Contents) -> None:
    given = set(contents.tensors)
    covered = {identity_of(own[name]) for name in given & set(own)}
    missing = [
        name
        for name, tensor in own.items()
        if name not in given and not name.endswith(_OPTIONAL) and identity_of(tensor) not in covered
    ]
    unexpected = sorted(given - set(own))
    problems = [
        f"{what}: {_some(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names
    ]
    if problems:
        raise UsageError(f"{contents.path}: its tensors are not the model's; {'; '.join(problems)}")


def _check_fit(name: str, own: torch.Tensor, given: Tensor, path: str) -> None:
    if own.is_meta:
        raise UsageError(f"tensor {name!r} of the model is on the meta device; create the model on the CPU")
    if tuple(own.shape) != given.shape:
        raise UsageError(f"{path}: {name} has shape {given.shape}, in the model it has {tuple(own.shape)}")
    if own.is_floating_point() and not given.is_floating:
        raise UsageError(
            f"{path}: {name} holds {given.dtype}, the model wants {own.dtype}; give a file that is not quantised"
        )


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
