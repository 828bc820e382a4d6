"""The RMS norms of Hugging Face Transformers: torch's operations, one after another, here on the CPU."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.fidelity.kernel import Kernel, Observed

if TYPE_CHECKING:
    from collections.abc import Callable

    from normcheck.fidelity.kernel import Trial

MODULES: tuple[tuple[str, str, str], ...] = (
    ("hf-llama-rmsnorm", "llama", "LlamaRMSNorm"),
    ("hf-llama-rmsnorm", "qwen2", "Qwen2RMSNorm"),
    ("hf-llama-rmsnorm", "mistral", "MistralRMSNorm"),
    ("hf-qwen3-rmsnorm", "qwen3", "Qwen3RMSNorm"),
    ("hf-gemma-rmsnorm", "gemma", "GemmaRMSNorm"),
    ("hf-gemma-rmsnorm", "gemma2", "Gemma2RMSNorm"),
    ("hf-gemma-rmsnorm", "gemma3", "Gemma3RMSNorm"),
    ("hf-t5-layernorm", "t5", "T5LayerNorm"),
)
"""Row of the catalogue, model, class."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
EPS = (1e-6, 1e-5, 1e-12)
LEAST = 0.9999


def kernels() -> tuple[Kernel, ...]:
    """Return the kernel of every class, element type and storage of the weight.

    Raises:
        ImportError: transformers or torch is not installed.
    """
    found: list[Kernel] = []
    for row, model, name in MODULES:
        norm = getattr(import_module(f"transformers.models.{model}.modeling_{model}"), name)
        found += [_kernel(row, norm, precision, float32=False) for precision in DTYPES]
        found += [_kernel(row, norm, precision, float32=True) for precision in DTYPES if precision != "fp32"]
    return tuple(found)


def _kernel(row: str, norm: Any, precision: str, *, float32: bool) -> Kernel:
    return Kernel(
        implementation=row,
        norm="rms",
        precision=precision,
        run=_run(norm, DTYPES[precision], "float32" if float32 else DTYPES[precision]),
        packages=("transformers", "torch"),
        params="float32" if float32 else "io",
        affine=("weight",),
        eps=EPS,
        least=LEAST,
        threads=(1, 2),
        variant=norm.__name__,
    )


def _run(norm: Any, form: str, stored: str) -> Callable[[Trial], Observed]:
    def run(trial: Trial) -> Observed:
        import torch  # noqa: PLC0415

        torch.set_num_threads(trial.threads)
        assert trial.weight is not None  # noqa: S101  # these layers have one always
        layer = norm(trial.x.shape[-1], eps=trial.eps)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(trial.weight)).to(getattr(torch, stored))
        x = torch.from_numpy(np.ascontiguousarray(trial.x)).to(getattr(torch, form))
        with torch.no_grad():
            return Observed(layer(x).float().numpy())

    return run
