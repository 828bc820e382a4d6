"""A checkpoint's norms converted: into the bytes of a safetensors file, and what that changed."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from normcheck.errors import UsageError
from normcheck.layers.discovery.discover import discover
from normcheck.layers.live.factory import load_inputs, load_model, load_weights
from normcheck.layers.live.modules import contents_of, identity_of
from normcheck.layers.readers import read
from normcheck.layers.readers.converted import metadata_of
from normcheck.nn.batch import running_key
from normcheck.nn.convert import Settings, check_convertible, converted_by, moved_eps, moved_statistic
from normcheck.nn.convert_calls import Call
from normcheck.nn.convert_changes import conversion_of
from normcheck.results.conversion import Conversion, ConvertedLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normcheck.layers.contents import Tensor
    from normcheck.nn.convert_running import Tick

LABELS = "labels"
"""The array of a file of inputs that holds the class of each sample."""

_SETTINGS = "normcheck_conversion"
"""Key of the file's metadata for what it was converted by; its `batch_norm_eps` is where `analyze` looks for eps."""

_BY_HAND = "sqrt(running_var), which is right for Gaussian inputs alone"
_LARGEST_EXACT = 2**53
_VARIANCE = re.compile(r"(?P<layer>.*?)\.?running_var")


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """The bytes of the new file, what changed, and in words what running statistics were measured on."""

    data: bytes
    conversion: Conversion
    calibrated_on: str
    warning: str = ""


def convert_with_model(
    path: str,
    settings: Settings,
    spec: str,
    *,
    input_file: str,
    calibration_files: Sequence[str] = (),
    labels_file: str | None = None,
    batch_size: int | None = None,
    trust: bool = False,
    tick: Tick | None = None,
) -> Converted:
    """Build a model, load a checkpoint, convert it, measure its running statistics and what changed.

    Args:
        path: the checkpoint. settings: what to convert to. spec: ``package.module:factory``, whose code is run.
        input_file: what changes are measured on, as of `load_inputs`; an array `labels` in it is each sample's class.
        calibration_files: what running statistics are measured on; the input without any.
        labels_file: the classes, where they are in a file of their own.
        batch_size: samples of a batch; None for all of a file. trust, tick: as of `read` and `converted_by`.

    Raises:
        UnreadableError: a file that cannot be read. UsageError: see `convert`; inputs that the model does not take;
            as many classes as there are no samples.
    """
    contents = read(path, trust=trust)
    calls = _calls(input_file, batch_size, labels_file)
    given = [call for file in calibration_files for call in _calls(file, batch_size)] or calls
    before = load_model(spec)
    check_convertible(before)
    load_weights(before, contents)
    after, guessed = converted_by(copy.deepcopy(before), settings, lambda: given, tick)
    conversion = conversion_of(before, after, calls)
    names = ", ".join(calibration_files) or input_file
    number = sum(call.samples for call in given)
    batches = f"{len(given)} batch{'es' if len(given) > 1 else ''}"
    calibrated = f"{number} samples of {names}, in {batches}"
    if not any("batch" in layer.after for layer in conversion.layers):
        calibrated = "nothing: no norm that was converted has running statistics"
    described = contents_of(after).stated
    metadata = metadata_of(described) | {_SETTINGS: json.dumps(_told(settings, calibrated))}
    warning = f"no batch reached {', '.join(guessed)}: their running statistics are {_BY_HAND}" if guessed else ""
    return Converted(bytes_of(after.state_dict(), metadata), conversion, calibrated, warning)


def convert_alone(path: str, settings: Settings, *, trust: bool = False) -> Converted:
    """Convert the batch norms of a checkpoint without its model, by the names of their tensors.

    ``running_var`` becomes ``running_l1`` or its like, its root: what the statistic of Gaussian inputs would be. A
    tensor that the file has under several names is written under each.

    Raises:
        UnreadableError: it cannot be read. UsageError: other norms than batch norms, which state dicts do not tell
            apart; no running variance; the published constants, which depend on the size of batches; numbers that are
            quantised.
    """
    if settings.where != ("batch",) or settings.statistic == "l2":
        raise UsageError("without --model only batch norms can be converted, and from l2: give --model")
    if settings.constant == "paper" and settings.statistic != "l1":
        raise UsageError(f"the published constant of {settings.statistic} depends on the size of batches: give --model")
    contents = read(path, trust=trust)
    layers_of = discover(contents).layers
    found = {layer.name: layer.eps for layer in layers_of if layer.norm.name == "batch-l2"}
    tensors: dict[str, torch.Tensor] = {}
    layers: list[ConvertedLayer] = []
    for name, tensor in contents.tensors.items():
        matched = _VARIANCE.fullmatch(name)
        layer = matched["layer"] if matched else ""
        if matched is None or layer not in found or not any(fnmatchcase(layer, p) for p in settings.layers):
            tensors[name] = _whole(tensor)
            continue
        key = running_key(settings.statistic)
        tensors[f"{layer}.{key}"] = moved_statistic(_whole(tensor), "l2", settings.statistic)
        layers.append(_by_name(layer, found[layer], settings))
    if not layers:
        raise UsageError(f"{path}: no batch norm with a running_var that matches {', '.join(settings.layers)}")
    epsilons = {layer.eps for layer in layers}
    more = {"batch_norm_eps": epsilons.pop()} if len(epsilons) == 1 else {}
    conversion = Conversion(layers=tuple(layers), skipped=(), samples=0, change=None, accuracy=None)
    data = bytes_of(tensors, {_SETTINGS: json.dumps(_told(settings, _BY_HAND) | more)})
    warning = f"running statistics are {_BY_HAND}: give --model and --input to measure them"
    return Converted(data, conversion, f"no data: {_BY_HAND}", warning)


def _told(settings: Settings, calibrated: str) -> dict[str, Any]:
    return {
        "statistic": settings.statistic,
        "constant": settings.constant,
        "k": settings.k,
        "calibrated_on": calibrated,
    }


def bytes_of(state: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """Return a state dict as a safetensors file; of tensors that are one in memory the first name has it.

    The others are entries of the metadata, as `safetensors.torch.save_model` writes them.

    Raises:
        UsageError: something in it that such a file cannot hold.
    """
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{name} is no tensor but {type(value).__name__}, which a safetensors file cannot hold")
        if value.layout != torch.strided:
            raise UsageError(f"{name} is {value.layout}, which a safetensors file cannot hold: make it dense")
        same = first.setdefault(identity_of(value), name)
        if same == name:
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        else:
            aliases[name] = same
    try:
        return save(tensors, {"format": "pt", **metadata, **aliases})
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"a safetensors file cannot hold this state dict: {error}") from error


# -------------------------------------------------------------------------------------------------- the inputs


def _calls(file: str, batch_size: int | None, labels_file: str | None = None) -> list[Call]:
    args, kwargs = load_inputs(file)
    classes = None
    if LABELS in kwargs and len(kwargs) > 1:
        classes = kwargs.pop(LABELS)
        if len(kwargs) == 1 and not file.endswith((".pt", ".pth")):  # as a file of one array is read
            args, kwargs = tuple(kwargs.values()), {}
    if labels_file is not None:
        given, named = load_inputs(labels_file)
        classes = next(iter((*given, *named.values())))
    call = Call(args, kwargs, None if classes is None else _classes(classes, Call(args, kwargs), labels_file or file))
    if batch_size is None or call.samples <= batch_size:
        return [call]
    return [_part(call, start, batch_size) for start in range(0, call.samples, batch_size)]


def _classes(value: torch.Tensor, call: Call, file: str) -> torch.Tensor:
    if value.shape != (call.samples,) or value.is_complex() or bool((value != value.long()).any()):
        raise UsageError(
            f"{file}: labels must be one whole number for each of {call.samples} samples, received "
            f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"
        )
    return value.long()


def _part(call: Call, start: int, size: int) -> Call:
    samples = call.samples

    def cut(value: Any) -> Any:
        whole = not isinstance(value, torch.Tensor) or not value.ndim or len(value) != samples
        return value if whole else value[start : start + size]

    return Call(tuple(map(cut, call.args)), {name: cut(x) for name, x in call.kwargs.items()}, cut(call.classes))


# ------------------------------------------------------------------------------------------ tensors of a file


def _whole(tensor: Tensor) -> torch.Tensor:
    """A tensor of a file in the type that it has there."""
    dtype = getattr(torch, tensor.dtype, None)
    if not isinstance(dtype, torch.dtype) or dtype.is_complex:
        raise UsageError(f"{tensor.name} is stored as {tensor.dtype}: give --model, or a file that is not quantised")
    values = torch.from_numpy(tensor.load())
    if not dtype.is_floating_point and values.numel() and float(values.double().abs().max()) >= _LARGEST_EXACT:
        raise UsageError(f"{tensor.name} holds {tensor.dtype} beyond 2^53, which is not kept exactly: give --model")
    return values.to(dtype)


def _by_name(layer: str, eps: float, settings: Settings) -> ConvertedLayer:
    return ConvertedLayer(
        layer=layer,
        before="batch-l2",
        after=f"batch-{settings.statistic}",
        eps_before=eps,
        eps=moved_eps(eps, "l2", settings),
        constant=settings.constant,
        k=settings.k if settings.statistic == "topk" else None,
        change=None,
        own_change=None,
    )
