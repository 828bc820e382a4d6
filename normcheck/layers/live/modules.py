"""The norms of a live torch model: what its modules state themselves, hand-written ones included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normcheck.errors import UsageError
from normcheck.layers.contents import ROLES, Contents, Omitted, Stated, Tensor
from normcheck.layers.live.custom_norms import class_name, recognised
from normcheck.layers.live.torch_norms import torch_norm
from normcheck.norms.table import norm_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from normcheck.layers.contents import Array
    from normcheck.norms.table import Norm

Match = Mapping[Any, str] | Callable[[Any], str | None]
"""Which modules are norms: a mapping from class names or classes to names of norms, or a function from a module to the
name of a norm or None."""

_COMPILED = "_orig_mod."


@dataclass(frozen=True, slots=True, eq=False)
class FoundNorm:
    """A norm module of a live model; `calls_function` and `channels_first` as of `Recognised`."""

    stated: Stated
    module: torch.nn.Module
    calls_function: bool
    channels_first: bool


def contents_of(module: torch.nn.Module, *, path: str = "module", match: Match | None = None) -> Contents:
    """Return all tensors and all norm modules of a live model.

    Norm modules are those of torch.nn and their subclasses, frozen batch norms, and hand-written layer and RMS norms:
    a class with "norm" in its name, no submodules and a vector of weights is run (a float32 copy, on a small random
    input, see `normcheck.layers.live.probing`) and compared with the formulas. `match` overrides what is recognised.

    Args:
        module: the model; DataParallel and torch.compile around it are looked through. It is neither run nor changed.
        path: what reports call the model.
        match: norms that are not recognised: class name or class to a norm's name (``{"MyNorm": "rms"}``), or a
            function from a module to a norm's name or None.

    Raises:
        UsageError: no torch module, a scripted one, one without values yet (meta device, lazy), a `match` that names
            no class of the model or no norm.
    """
    check_module(module)
    found, omitted = norms_of(module, match)
    tensors = {name: live_tensor(name, t) for name, t in tensors_of(module) if _is_plain(t)}
    for norm in found:
        for role in ROLES:
            _add_missing(tensors, norm, role)
    stated = [f.stated for f in found]
    sized = [s for s in stated if s.num_channels is not None]
    omitted += [
        Omitted(s.name, f"{s.how}: it has no parameters, and nothing says how many elements it sees; record its inputs")
        for s in stated
        if s.num_channels is None
    ]
    return Contents(path=path, reader="module", tensors=tensors, stated=tuple(sized), omitted=tuple(omitted))


def norms_of(module: torch.nn.Module, match: Match | None = None) -> tuple[list[FoundNorm], list[Omitted]]:
    """Return the norm modules of a model, each once, under its first name, and what looks like one and is not analysed.

    Raises:
        UsageError: `match` names no class of the model or no norm.
    """
    matched = _matcher(module, match)
    found: list[FoundNorm] = []
    omitted: list[Omitted] = []
    for name, child in named_modules(module):
        norm = matched(child)
        one = torch_norm(name, child) if norm is None else recognised(name, child, norm)
        if isinstance(one, Omitted):
            omitted.append(one)
        elif one is not None:
            stated = _with_tensor_names(one.stated, child, name, module)
            found.append(FoundNorm(stated, child, one.calls_function, one.channels_first))
    return found, omitted


def named_modules(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield every module of a model once, with its dotted name; the model itself goes by the name of its class."""
    seen = set()
    for name, outer in unwrapped(module).named_modules():
        child = _without_compiler(outer)
        if id(child) not in seen:
            seen.add(id(child))
            yield name.replace(_COMPILED, "") or type(child).__name__, child


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the model within DataParallel, DistributedDataParallel and torch.compile."""
    import torch  # noqa: PLC0415 - torch is loaded where there is a model, not with this module

    while True:
        inner = _without_compiler(module)
        if isinstance(inner, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = inner.module
        if inner is module:
            return module
        module = inner


def check_module(module: torch.nn.Module) -> None:
    """Refuse what is no module, and modules whose norms or tensors cannot be seen.

    Raises:
        UsageError: see `contents_of`.
    """
    import torch  # noqa: PLC0415 - see `unwrapped`

    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"expected a torch.nn.Module, received {type(module).__name__}")
    for name, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            where = f"module {name!r}" if name else "the model"
            raise UsageError(
                f"{where} is scripted and does not show its norms: give the model as it was before torch.jit, "
                "or save it with torch.jit.save and analyse the file"
            )
    for name, tensor in tensors_of(module):
        if torch.nn.parameter.is_lazy(tensor):
            raise UsageError(f"tensor {name!r} is not initialised yet: run the model once on an input, then analyse it")
        if tensor.is_meta:
            raise UsageError(f"tensor {name!r} is on the meta device and has no values: load the weights first")


def _without_compiler(module: torch.nn.Module) -> torch.nn.Module:
    inner = getattr(module, "_modules", {}).get("_orig_mod")
    return module if inner is None else inner


# ------------------------------------------------------------------------------------------------- the tensors


def tensors_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all parameters and buffers under their names in a state dict, those that share memory included."""
    inner = unwrapped(module)
    for named in (inner.named_parameters, inner.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            yield name.replace(_COMPILED, ""), tensor


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch  # noqa: PLC0415 - see `unwrapped`

    return tensor.layout == torch.strided and not tensor.is_complex()


def live_tensor(name: str, tensor: torch.Tensor) -> Tensor:
    """Return a tensor of torch, on any device, as one that is copied when it is loaded."""

    def load() -> Array:
        return _loaded(tensor)

    dtype = str(tensor.dtype).removeprefix("torch.")
    return Tensor(name, tuple(tensor.shape), dtype, identity_of(tensor), load)


def identity_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what two tensors have in common if they are the same elements of the same memory, and only then."""
    try:
        pointer = tensor.data_ptr()
    except RuntimeError:  # sparse tensors and many subclasses have no memory of their own
        pointer = 0
    if pointer == 0:
        return ("object", id(tensor))
    return (str(tensor.device), pointer, tuple(tensor.shape), tuple(tensor.stride()), str(tensor.dtype))


def _loaded(tensor: torch.Tensor) -> Array:
    import torch  # noqa: PLC0415 - see `unwrapped`

    x = tensor.detach().resolve_neg()
    x = x.dequantize() if x.is_quantized else x
    narrow = x.dtype.itemsize <= 2 or x.dtype == torch.float32
    loaded: Array = x.to("cpu", torch.float32 if narrow else torch.float64).numpy().copy()
    return loaded


def _with_tensor_names(stated: Stated, module: torch.nn.Module, name: str, root: torch.nn.Module) -> Stated:
    """The same with attributes replaced by names of tensors, None where the module has no such tensor."""
    prefix = "" if module is unwrapped(root) else f"{name}."

    def tensor_name(attribute: str | None) -> str | None:
        return None if attribute is None or getattr(module, attribute, None) is None else prefix + attribute

    names: dict[str, Any] = {role: tensor_name(getattr(stated, role)) for role in ROLES}
    return replace(stated, **names)


def _add_missing(tensors: dict[str, Tensor], norm: FoundNorm, role: str) -> None:
    """A parametrised weight is a tensor of the norm and not of the state dict."""
    name = getattr(norm.stated, role)
    if name is not None and name not in tensors:
        tensors[name] = live_tensor(name, getattr(norm.module, name.rpartition(".")[2]))


# ------------------------------------------------------------------------------------------------------- match


def _matcher(module: torch.nn.Module, match: Match | None) -> Callable[[torch.nn.Module], Norm | None]:
    """Return what names the norm of a module that the user matched; None for all others."""
    if match is None:
        return lambda _: None
    if isinstance(match, Mapping):
        norms = {key: norm_named(name) for key, name in match.items()}
        _check_keys(module, norms)
        return lambda m: next((norm for key, norm in norms.items() if _is_of(m, key)), None)
    if not callable(match):
        raise UsageError(f"match: expected a mapping or a function, received {type(match).__name__}")

    def ask(child: torch.nn.Module) -> Norm | None:
        name = match(child)
        return None if name is None else norm_named(name)

    return ask


def _is_of(module: torch.nn.Module, key: Any) -> bool:
    if isinstance(key, type):
        return isinstance(module, key)
    return key in (type(module).__name__, class_name(module))


def _check_keys(module: torch.nn.Module, keys: Iterable[Any]) -> None:
    children = [m for _, m in named_modules(module)]
    for key in keys:
        if not any(_is_of(m, key) for m in children):
            wanted = key.__qualname__ if isinstance(key, type) else key
            known = sorted({type(m).__name__ for m in children})
            listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise UsageError(f"match: the model has no module of class {wanted!r}; its classes are {listed}")
