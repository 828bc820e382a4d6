"""MLX's norms on its CPU device, built for x86-64: graphs of its own operations, one after another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.fidelity.kernel import Kernel, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.fidelity.kernel import Affine, Array, Trial

    Run = Callable[[Trial], Observed]

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What MLX calls the io formats."""
STORAGES: tuple[tuple[str, str], ...] = (
    *((precision, "io") for precision in PRECISIONS),
    *((precision, "float32") for precision in PRECISIONS if precision != "fp32"),
)
EPS = (1e-5, 1e-3, 1e-6)
LEAST = 0.9999
"""Of identical outputs. A row of one element, -0, keeps its sign where a sum from +0 loses it."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm, element type and storage of the parameters.

    Raises:
        ImportError: mlx is not installed.
    """
    _layers()  # to fail here, not in the first trial
    return tuple(kernel for precision, params in STORAGES for kernel in _of(precision, params))


def _of(precision: str, params: str) -> Iterator[Kernel]:
    """The kernels for one io format and one storage of the parameters."""

    def kernel(row: str, norm: str, run: Run, affine: tuple[Affine, ...] = ("none", "both"), **more: Any) -> Kernel:
        taken = tuple(each for each in affine if params == "io" or each in ("weight", "both"))
        return Kernel(
            implementation=row,
            norm=norm,
            precision=precision,
            run=run,
            packages=("mlx",),
            params="io" if params == "io" else "float32",
            affine=taken,
            eps=EPS,
            least=LEAST,
            **more,
        )

    to, stored = PRECISIONS[precision], PRECISIONS[precision] if params == "io" else "float32"
    every: tuple[Affine, ...] = ("none", "weight", "bias", "both")
    yield kernel("mlx-fast-layernorm-cpu", "layer-l2", _layer(to, stored), every)
    yield kernel("mlx-fast-rmsnorm-cpu", "rms", _rms(to, stored), ("none", "weight"))
    yield kernel("mlx-instancenorm-cpu", "instance-l2", _instance(to, stored), shapes="images")
    yield kernel("mlx-groupnorm", "group-l2", _group(to, stored, compatible=False), shapes="images")
    name = "mlx-groupnorm-pytorch-compatible-cpu"
    yield kernel(name, "group-l2", _group(to, stored, compatible=True), shapes="images")
    running = precision == "fp32"  # 16-bit ones multiply by a momentum of 16 bits and divide by n - 1 of 16 bits
    run = _batch(to, stored)
    yield kernel("mlx-batchnorm", "batch-l2", run, shapes="images", running=running, fits=_is_one_run)
    yield kernel("mlx-batchnorm-eval", "batch-l2", _batch_eval(to, stored), shapes="images", mode="eval")


def _is_one_run(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether MLX adds a channel's elements one by one: of one channel of height 1 it adds up each sample first."""
    return shape[0] == 1 or shape[1] > 1 or shape[2] > 1


# ------------------------------------------------------------------------------------------------- numbers of MLX


def _layers() -> Any:
    """Return MLX's layers; the module does not list them for type checkers."""
    return import_module("mlx.nn")


def _given(x: Array | None, form: str) -> Any:
    """Return the numbers as an array of that type on the CPU; None stays."""
    import mlx.core as mx  # noqa: PLC0415

    mx.set_default_device(mx.cpu)
    return None if x is None else mx.array(np.ascontiguousarray(x)).astype(getattr(mx, form))


def _taken(x: Any) -> Array:
    """Return an array's numbers as float32."""
    import mlx.core as mx  # noqa: PLC0415

    return np.array(x.astype(mx.float32))


def _last(x: Array) -> Array:
    """(N, C, ...) as MLX takes it: channels last."""
    return np.moveaxis(x, 1, -1)


def _first(x: Array) -> Array:
    """The channels back in their place."""
    return np.moveaxis(x, -1, 1)


def _dressed(layer: Any, trial: Trial, stored: str) -> Any:
    """The layer with the trial's parameters, stored in that type."""
    if trial.weight is not None:
        layer.weight, layer.bias = _given(trial.weight, stored), _given(trial.bias, stored)
    return layer


# ------------------------------------------------------------------------------------------------------ each norm


def _layer(form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        import mlx.core as mx  # noqa: PLC0415

        x, weight, bias = _given(trial.x, form), _given(trial.weight, stored), _given(trial.bias, stored)
        return Observed(_taken(mx.fast.layer_norm(x, weight, bias, trial.eps)))

    return run


def _rms(form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        import mlx.core as mx  # noqa: PLC0415

        return Observed(_taken(mx.fast.rms_norm(_given(trial.x, form), _given(trial.weight, stored), trial.eps)))

    return run


def _instance(form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        layer = _layers().InstanceNorm(trial.x.shape[1], eps=trial.eps)
        x = _given(_last(trial.x), form)
        return Observed(_first(_taken(_dressed(layer, trial, stored)(x))))

    return run


def _group(form: str, stored: str, *, compatible: bool) -> Run:
    """Group norm; not compatible with PyTorch, MLX puts channel c into group c mod G, so channels are reordered."""

    def run(trial: Trial) -> Observed:
        channels, groups = trial.x.shape[1], trial.num_groups
        assert groups is not None  # noqa: S101  # the norm has groups
        order = np.arange(channels) if compatible else np.arange(channels).reshape(groups, -1).T.reshape(-1)
        layer = _layers().GroupNorm(groups, channels, eps=trial.eps, affine=False, pytorch_compatible=compatible)
        if trial.weight is not None and trial.bias is not None:
            layer.weight, layer.bias = _given(trial.weight[order], stored), _given(trial.bias[order], stored)
        y = _first(_taken(layer(_given(_last(trial.x[:, order]), form))))
        return Observed(y[:, np.argsort(order)])

    return run


def _batch(form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        layer = _batch_layer(trial, stored)
        y = _first(_taken(layer(_given(_last(trial.x), form))))
        if trial.running_mean is None:
            return Observed(y)
        return Observed(y, running_mean=_taken(layer.running_mean), running_var=_taken(layer.running_var))

    return run


def _batch_eval(form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        layer = _batch_layer(trial, stored)
        layer.eval()
        return Observed(_first(_taken(layer(_given(_last(trial.x), form)))))

    return run


def _batch_layer(trial: Trial, stored: str) -> Any:
    tracks = trial.running_mean is not None
    layer = _layers().BatchNorm(trial.x.shape[1], eps=trial.eps, affine=False, track_running_stats=tracks)
    if tracks:
        layer.running_mean, layer.running_var = _given(trial.running_mean, stored), _given(trial.running_var, stored)
    return _dressed(layer, trial, stored)
