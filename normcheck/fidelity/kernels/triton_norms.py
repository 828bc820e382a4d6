"""Layer and RMS norm in Triton, one program a row, in the arithmetic of flash-attention's: float32 until the store."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _norm(
    x_ptr: Any, w_ptr: Any, b_ptr: Any, y_ptr: Any, mean_ptr: Any, rstd_ptr: Any, size: Any, eps: Any,
    CENTRED: tl.constexpr, HAS_W: tl.constexpr, HAS_B: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    there = columns < size
    x = tl.load(x_ptr + row * size + columns, mask=there, other=0.0).to(tl.float32)
    if CENTRED:
        mean = tl.sum(x, axis=0) / size
        tl.store(mean_ptr + row, mean)
        c = tl.where(there, x - mean, 0.0)
    else:
        c = tl.where(there, x, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(c * c, axis=0) / size + eps)
    tl.store(rstd_ptr + row, rstd)
    y = c * rstd
    if HAS_W:
        y = y * tl.load(w_ptr + columns, mask=there).to(tl.float32)
    if HAS_B:
        y = y + tl.load(b_ptr + columns, mask=there).to(tl.float32)
    tl.store(y_ptr + row * size + columns, y, mask=there)


def normalized(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float, *, centred: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return the output in x's type, the mean (None where not centred) and 1/s in float32."""
    rows, size = x.numel() // x.shape[-1], x.shape[-1]
    y = torch.empty_like(x)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
    _norm[(rows,)](
        x, weight if weight is not None else x, bias if bias is not None else x, y, mean, rstd, size, eps,
        CENTRED=centred, HAS_W=weight is not None, HAS_B=bias is not None, BLOCK=triton.next_power_of_2(size),
    )  # fmt: skip
    return y, mean if centred else None, rstd
