"""Kernels on a GPU of NVIDIA: torch's own norms, and layer and RMS norm in Triton as flash-attention computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from normcheck.fidelity.kernel import Kernel, Observed
from normcheck.fidelity.kernels.torch_cpu import DTYPES, EPS, EVERY_AFFINE, array, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.fidelity.kernel import Affine, Trial

    Call = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None, Trial], Observed]

UNSHIFTED: tuple[Affine, ...] = ("none", "weight")
VECTOR = 4
"""Elements that a thread of torch's vectorized kernels reads at once."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels; none without a GPU, and none in Triton where it is not installed."""
    if not torch.cuda.is_available():
        return ()
    found: list[Kernel] = []
    for precision in DTYPES:
        found += [
            _kernel("torch-cuda-layernorm-vec", "layer-l2", precision, _layer, fits=_is_vector),
            _kernel("torch-cuda-layernorm-fallback", "layer-l2", precision, _layer, fits=_is_no_vector),
            _kernel("torch-cuda-rmsnorm-vec", "rms", precision, _rms, affine=UNSHIFTED, fits=_is_vector),
            _kernel("torch-cuda-rmsnorm-fallback", "rms", precision, _rms, affine=UNSHIFTED, fits=_is_no_vector),
            _kernel("torch-cuda-groupnorm", "group-l2", precision, _group, shapes="images"),
            _kernel("torch-cuda-batchnorm-native", "batch-l2", precision, _batch, shapes="images"),
        ]
        triton = _triton()
        if triton is not None:
            name = "flash-attn-triton"
            found += [
                _kernel(f"{name}-ln", "layer-l2", precision, triton(True), packages=("torch", "triton")),
                _kernel(f"{name}-rms", "rms", precision, triton(False), affine=UNSHIFTED, packages=("torch", "triton")),
            ]
    return tuple(found)


def _kernel(row: str, norm: str, precision: str, call: Call, **more: Any) -> Kernel:
    def run(trial: Trial) -> Observed:
        given = (tensor(v, DTYPES[precision]) for v in (trial.x, trial.weight, trial.bias))
        x, weight, bias = (None if v is None else v.cuda() for v in given)
        assert x is not None  # noqa: S101  # a trial has an input
        return call(x, weight, bias, trial)

    settings: dict[str, Any] = {"affine": EVERY_AFFINE, "eps": EPS, "packages": ("torch",), **more}
    return Kernel(implementation=row, norm=norm, precision=precision, run=run, **settings)


def _is_vector(shape: tuple[int, ...], _groups: int | None) -> bool:
    return shape[-1] % VECTOR == 0


def _is_no_vector(shape: tuple[int, ...], groups: int | None) -> bool:
    return not _is_vector(shape, groups)


def _host(x: torch.Tensor) -> Any:
    return array(x.cpu())


def _layer(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, trial: Trial) -> Observed:
    return Observed(*map(_host, torch.native_layer_norm(x, x.shape[-1:], weight, bias, trial.eps)))


def _rms(x: torch.Tensor, weight: torch.Tensor | None, _bias: torch.Tensor | None, trial: Trial) -> Observed:
    return Observed(_host(torch.rms_norm(x, x.shape[-1:], weight, trial.eps)))


def _group(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, trial: Trial) -> Observed:
    n, c, height, width = x.shape
    found = torch.ops.aten.native_group_norm(x, weight, bias, n, c, height * width, trial.num_groups, trial.eps)
    return Observed(*map(_host, found))


def _batch(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, trial: Trial) -> Observed:
    with torch.backends.cudnn.flags(enabled=False):
        found = torch.ops.aten.native_batch_norm(x, weight, bias, None, None, True, 0.1, trial.eps)
    return Observed(*map(_host, found))


def _triton() -> Callable[[bool], Call] | None:
    """What makes a call in Triton, centred or not; None where Triton is not installed."""
    try:
        from normcheck.fidelity.kernels.triton_norms import normalized  # noqa: PLC0415  # imports triton
    except ImportError:
        return None

    def call(centred: bool) -> Call:
        def run(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, trial: Trial) -> Observed:
            y, mean, rstd = normalized(x, weight, bias, trial.eps, centred=centred)
            return Observed(_host(y), None if mean is None else _host(mean), _host(rstd))

        return run

    return call
