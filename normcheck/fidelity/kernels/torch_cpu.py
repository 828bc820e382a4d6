"""torch's own norms on the CPU: `torch.native_layer_norm` and its like, which also return what they save."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from normcheck.fidelity.hosts import PLAIN
from normcheck.fidelity.kernel import Kernel, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.fidelity.kernel import Affine, Array, Trial
    from normcheck.norms.implementations import Implementation

    Run = Callable[[Trial], Observed]
    Params = Literal["io", "float32"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EVERY_AFFINE: tuple[Affine, ...] = ("none", "weight", "bias", "both")
WITH_PARAMETERS: tuple[Affine, ...] = ("weight", "bias", "both")
EPS = (1e-5, 1e-3, 1e-6, 1e-12)
LEAST = 0.9999
FEW = 2
"""Numbers a channel up to which torch computes a batch norm of channels-last data otherwise."""
LARGE = 1024
"""Pixels from which torch computes a group norm of channels-last data otherwise."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm, element type, storage of the parameters and memory format."""
    found: list[Kernel] = []
    for precision in DTYPES:
        for params in ("io", "float32") if precision != "fp32" else ("io",):
            storage: Params = "float32" if params == "float32" else "io"
            found += _layer(precision, storage)
            found += _group(precision, storage)
            found += _batch(precision, storage)
            found += _instance(precision, storage)
        found += _rms(precision)
    return tuple(found)


def _kernel(row: str, norm: str, precision: str, params: Params, run: Run, **more: object) -> Kernel:
    """A kernel of torch, of which more is promised than of others."""
    plain = torch.backends.cpu.get_cpu_capability() == PLAIN
    settings: dict[str, object] = {
        "adapted": _without_fma if plain else None,
        "affine": WITH_PARAMETERS if _is_mixed(precision, params) else EVERY_AFFINE,
        "eps": EPS,
        "least": LEAST,
        "most_ulps": 1,
        **more,
    }
    return Kernel(
        implementation=row,
        norm=norm,
        precision=precision,
        run=run,
        packages=("torch",),
        params=params,
        **settings,  # type: ignore[arg-type]
    )


def _without_fma(row: Implementation) -> Implementation:
    """The row of code for any processor: nothing is fused, and lanes are added one by one."""
    order = replace(row.order, merge="serial") if row.order.kind == "vertical" else row.order
    recurrence = "aten-cpu-portable" if row.recurrence.startswith("aten-cpu") else row.recurrence
    return replace(row, contracted=(), order=order, recurrence=recurrence)


def _is_mixed(precision: str, params: Params) -> bool:
    """Whether 16-bit elements meet float32 parameters."""
    return params == "float32" and precision != "fp32"


def tensor(x: Array | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the numbers as a tensor of that type."""
    return None if x is None else torch.from_numpy(np.ascontiguousarray(x)).to(dtype)


def array(x: torch.Tensor) -> Array:
    """Return a tensor's numbers, in its own shape, as float32."""
    return x.detach().float().contiguous().numpy()


def _given(
    trial: Trial, precision: str, params: Params
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Input, weight and bias as tensors; sets the number of threads too."""
    torch.set_num_threads(trial.threads)
    x, stored = tensor(trial.x, DTYPES[precision]), DTYPES["fp32" if params == "float32" else precision]
    assert x is not None  # noqa: S101  # a trial has an input
    return x, tensor(trial.weight, stored), tensor(trial.bias, stored)


# ------------------------------------------------------------------------------------------------------ each norm


def _layer(precision: str, params: Params) -> Iterator[Kernel]:
    def run(trial: Trial) -> Observed:
        x, weight, bias = _given(trial, precision, params)
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, trial.eps)
        return Observed(array(y), array(mean), array(rstd))

    yield _kernel(f"torch-cpu-layernorm-{precision}", "layer-l2", precision, params, run)


def _rms(precision: str) -> Iterator[Kernel]:
    def run(trial: Trial) -> Observed:
        x, weight, _ = _given(trial, precision, "io")
        return Observed(array(torch.rms_norm(x, x.shape[-1:], weight, trial.eps)))

    eps = (1e-5, 1e-6, 2.0**-23)
    yield _kernel("torch-rmsnorm-composite", "rms", precision, "io", run, affine=("none", "weight"), eps=eps)


def _group(precision: str, params: Params) -> Iterator[Kernel]:
    def runs(form: torch.memory_format) -> Run:
        def run(trial: Trial) -> Observed:
            x, weight, bias = _given(trial, precision, params)
            n, c, height, width = x.shape
            assert trial.num_groups is not None  # noqa: S101  # the norm has groups
            x = x.contiguous(memory_format=form)
            size = height * width
            y, mean, rstd = torch.native_group_norm(x, weight, bias, n, c, size, trial.num_groups, trial.eps)
            return Observed(array(y), array(mean), array(rstd))

        return run

    name = "torch-cpu-groupnorm"
    last = "mixed" if _is_mixed(precision, params) and precision == "fp16" else precision
    rows: tuple[tuple[str, torch.memory_format, Callable[[tuple[int, ...]], bool], int], ...] = (
        (f"{name}-contiguous-{precision}", torch.contiguous_format, lambda _: True, 1),
        (f"{name}-channels-last-{last}", torch.channels_last, lambda s: _is_last(s) and s[2] * s[3] < LARGE, 1),
        (f"{name}-channels-last-large-{last}", torch.channels_last, _is_large, 1),
        (f"{name}-channels-last-large-{last}", torch.channels_last, lambda s: s[0] == 1 and _is_large(s), 2),
    )
    for row, form, fits, threads in rows:
        yield _kernel(
            row,
            "group-l2",
            precision,
            params,
            runs(form),
            shapes="images",
            threads=(threads,),
            variant="" if threads == 1 else f"{threads} threads",
            fits=lambda shape, _, fits=fits: fits(shape),
        )


def _is_large(shape: tuple[int, ...]) -> bool:
    return _is_last(shape) and shape[2] * shape[3] >= LARGE


def _is_last(shape: tuple[int, ...]) -> bool:
    """Whether torch can tell a channels-last tensor of that shape from a contiguous one."""
    return shape[1] > 1 and shape[2] * shape[3] > 1


def _batch(precision: str, params: Params) -> Iterator[Kernel]:
    storage = "mixed" if _is_mixed(precision, params) else precision
    name = "torch-cpu-batchnorm"
    suffix = "-fp16" if storage == "fp16" else "-mixed" if (storage, precision) == ("mixed", "fp16") else ""
    settings: tuple[tuple[str, Literal["train", "eval"], bool], ...] = (
        (f"{name}-{storage}", "train", False),
        (f"{name}-{storage}-channels-last", "train", True),
        (f"{name}-eval{suffix}", "eval", False),
        (f"{name}-eval{suffix}", "eval", True),
    )
    for row, mode, last in settings:
        yield _kernel(
            row,
            "batch-l2",
            precision,
            params,
            _batch_run(precision, params, mode, torch.channels_last if last else torch.contiguous_format),
            shapes="images",
            mode=mode,
            running=True,
            threads=(1, 2) if last else (1,),
            fits=_fits_last if last else _fits_contiguous,
            variant="channels-last" if last else "contiguous",
        )
    yield _kernel(
        f"{name}-{storage}-channels-last",
        "batch-l2",
        precision,
        params,
        _batch_run(precision, params, "train", torch.contiguous_format),
        running=True,
        fits=lambda shape, _: shape[0] > FEW,
        variant="two dimensions",
    )


def _fits_last(shape: tuple[int, ...], _groups: int | None) -> bool:
    return _is_last(shape) and shape[0] * shape[2] * shape[3] > FEW


def _fits_contiguous(shape: tuple[int, ...], _groups: int | None) -> bool:
    return shape[2] * shape[3] > 1


def _batch_run(precision: str, params: Params, mode: str, form: torch.memory_format) -> Run:
    def run(trial: Trial) -> Observed:
        x, weight, bias = _given(trial, precision, params)
        if x.dim() == 4:
            x = x.contiguous(memory_format=form)
        stored = DTYPES["fp32" if params == "float32" else precision]
        running = [None if v is None else tensor(v.copy(), stored) for v in (trial.running_mean, trial.running_var)]
        training = mode == "train"
        y, mean, rstd = torch.ops.aten.native_batch_norm(x, weight, bias, *running, training, 0.1, trial.eps)
        if not training:
            return Observed(array(y))
        kept = [None if r is None else array(r) for r in running]
        return Observed(array(y), array(mean), array(rstd), *kept)

    return run


def _instance(precision: str, params: Params) -> Iterator[Kernel]:
    def run(trial: Trial) -> Observed:
        x, weight, bias = _given(trial, precision, params)
        y = torch.instance_norm(x, weight, bias, None, None, True, 0.1, trial.eps, False)
        return Observed(array(y))

    row = f"torch-cpu-batchnorm-{'mixed' if _is_mixed(precision, params) else precision}"
    yield _kernel(row, "instance-l2", precision, params, run, shapes="images", fits=_fits_contiguous)
