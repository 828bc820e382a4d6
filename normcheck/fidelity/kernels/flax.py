"""Flax's norms (linen) on JAX on the CPU: each operation by itself, or compiled together by `jax.jit`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.fidelity.kernel import Kernel, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.fidelity.kernel import Affine, Array, Trial

    Run = Callable[[Trial], Observed]

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What JAX calls the io formats."""
EPS = (1e-6, 1e-5, 1e-3)
FROM, UP_TO, VECTOR = 4096, 32768, 4
"""Elements of a tensor from which XLA leaves a sum to YNNPACK, and of one of its tiles; those of the least vector."""
ESTIMATED = 0.5
"""The share of float32 outputs that is promised: a whole row differs where its reciprocal root does."""
ESTIMATE = (
    "XLA's rsqrt is the processor's estimate, whose bits x86 leaves open, with one Newton step: on 19 % of numbers it "
    "is not the correctly rounded one that the row has"
)
VARIANTS: dict[str, dict[str, bool]] = {
    "": {},
    "-two-pass": {"use_fast_variance": False},
    "-no-fp32": {"force_float32_reductions": False},
    "-no-fp32-two-pass": {"force_float32_reductions": False, "use_fast_variance": False},
    "-jit": {},
    "-two-pass-jit": {"use_fast_variance": False},
}
"""Endings of the rows' names, and the arguments of the layers that they stand for."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm, form, element type and storage of the parameters.

    Raises:
        ImportError: flax or jax is not installed.
    """
    import flax.linen  # noqa: F401, PLC0415  # to fail here, not in the first trial

    return tuple(
        kernel
        for precision in PRECISIONS
        for params in (("io",) if precision == "fp32" else ("io", "float32"))
        for ending in VARIANTS
        for kernel in _of(precision, params, ending)
    )


def _of(precision: str, params: str, ending: str) -> Iterator[Kernel]:
    """The kernels of one form for one io format and one storage of the parameters."""
    if ("no-fp32" in ending and precision == "fp32") or ("jit" in ending and precision == "bf16"):
        return  # compiled together, YNNPACK adds bfloat16 numbers in an order of its own
    every: tuple[Affine, ...] = ("none", "both") if "jit" in ending else ("none", "weight", "bias", "both")
    dtype, stored = PRECISIONS[precision], PRECISIONS[precision] if params == "io" else "float32"
    form = _Form(dtype, stored, VARIANTS[ending], jit="jit" in ending)

    def kernel(name: str, norm: str, run: Run, affine: tuple[Affine, ...] = every, **more: Any) -> Kernel:
        return Kernel(
            implementation=f"flax-{name}{ending}{of(precision)}",
            norm=norm,
            precision=precision,
            run=run,
            packages=("flax", "jax", "jaxlib"),
            params="io" if params == "io" else "float32",
            affine=tuple(each for each in affine if params == "io" or each in ("weight", "both")),
            eps=EPS,
            compiled=True,
            **by_format(precision),
            **more,
        )

    rows = rows_of_vectors if "jit" in ending else one_tile_of_rows
    yield kernel("layernorm", "layer-l2", form.rows("LayerNorm"), fits=rows)
    if "two-pass" not in ending:
        yield kernel("rmsnorm", "rms", form.rows("RMSNorm"), ("none", "weight"), fits=rows)
    yield kernel("groupnorm", "group-l2", form.groups, shapes="images", fits=one_tile_of_groups)
    yield kernel("batchnorm", "batch-l2", form.batch, shapes="images", fits=one_tile)
    if ending in ("", "-jit"):
        yield kernel("batchnorm", "batch-l2", form.batch_eval, shapes="images", mode="eval")


def of(precision: str) -> str:
    """The ending of the names of rows for elements of that format."""
    return "-fp32" if precision == "fp32" else ""


def by_format(precision: str) -> dict[str, Any]:
    """What XLA's arithmetic means to elements of that format: float32's subnormals are 0, and roots are estimated."""
    settings: dict[str, Any] = {} if precision == "fp16" else {"options": {"ftz": True, "daz": True}}
    return {**settings, "least": ESTIMATED, "reason": ESTIMATE} if precision == "fp32" else settings


def one_tile_of_rows(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether YNNPACK sums each row, of as many as `padded` leaves, in one tile."""
    return shape[-1] <= UP_TO


def rows_of_vectors(shape: tuple[int, ...], groups: int | None) -> bool:
    """As `one_tile_of_rows`; compiled whole, rows of 2 and 3 elements are contracted in other places."""
    return one_tile_of_rows(shape, groups) and shape[-1] >= VECTOR


def one_tile_of_groups(shape: tuple[int, ...], groups: int | None) -> bool:
    """Whether YNNPACK sums each group of (N, C, H, W), channels last, in one tile of positions."""
    return math.prod(shape[1:]) <= UP_TO and groups != 1


def one_tile(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether YNNPACK sums over all axes but the channels' in one tile; one channel alone is a row to it."""
    return FROM <= math.prod(shape) <= UP_TO and shape[1] > 1


# ------------------------------------------------------------------------------------------------- numbers of JAX


def given(x: Array | None, dtype: str) -> Any:
    """Return the numbers as an array of that type; None stays."""
    import jax.numpy as jnp  # noqa: PLC0415

    return None if x is None else jnp.asarray(np.ascontiguousarray(x)).astype(dtype)


def taken(y: Any) -> Array:
    """Return an array's numbers as float32."""
    out: Array = np.asarray(y.astype("float32"))
    return out


def last(x: Array) -> Array:
    """(N, C, ...) with its channels last."""
    return np.moveaxis(x, 1, -1)


def first(x: Array) -> Array:
    """The channels back in their place."""
    return np.moveaxis(x, -1, 1)


def padded(x: Array) -> Array:
    """Zeros in rows of their own at the end of the first axis: a tensor that YNNPACK sums, of more than one row.

    Their number is a power of two: fewer shapes to compile.
    """
    count = max(len(x), 2, -(-FROM * len(x) // x.size))
    return np.pad(x, [(0, (1 << (count - 1).bit_length()) - len(x))] + [(0, 0)] * (x.ndim - 1))


class _Form:
    """How the layers are built: their output's type, their parameters', their arguments; compiled whole or not."""

    def __init__(self, dtype: str, stored: str, arguments: dict[str, bool], *, jit: bool) -> None:
        self.dtype, self.stored, self.arguments, self.jit = dtype, stored, arguments, jit

    def rows(self, name: str) -> Run:
        """Norms of the rows of (N, D)."""

        def run(trial: Trial) -> Observed:
            return Observed(taken(self._applied(name, trial, padded(trial.x)))[: len(trial.x)])

        return run

    def groups(self, trial: Trial) -> Observed:
        """Group norm of each sample."""
        y = self._applied("GroupNorm", trial, last(padded(trial.x)), num_groups=trial.num_groups)
        return Observed(first(taken(y))[: len(trial.x)])

    def batch(self, trial: Trial) -> Observed:
        """Batch norm by the statistics of the batch."""
        return self._batch(trial, running=False)

    def batch_eval(self, trial: Trial) -> Observed:
        """Batch norm by the running statistics."""
        return self._batch(trial, running=True)

    def _batch(self, trial: Trial, *, running: bool) -> Observed:
        zeros = np.zeros(trial.x.shape[1], np.float32)
        statistics = {
            "mean": given(zeros if trial.running_mean is None else trial.running_mean, "float32"),
            "var": given(zeros if trial.running_var is None else trial.running_var, "float32"),
        }
        y = self._applied("BatchNorm", trial, last(trial.x), statistics=statistics, use_running_average=running)
        return Observed(first(taken(y)))

    def _applied(
        self, name: str, trial: Trial, x: Array, *, statistics: dict[str, Any] | None = None, **arguments: Any
    ) -> Any:
        import flax.linen as nn  # noqa: PLC0415
        import jax  # noqa: PLC0415

        uses: dict[str, Any] = {"use_scale": trial.weight is not None}
        if name != "RMSNorm":
            uses["use_bias"] = trial.bias is not None
        layer = getattr(nn, name)(
            epsilon=trial.eps, dtype=self.dtype, param_dtype=self.stored, **uses, **arguments, **self._arguments(name)
        )
        held = {"scale": given(trial.weight, self.stored), "bias": given(trial.bias, self.stored)}
        variables: dict[str, Any] = {"params": {key: value for key, value in held.items() if value is not None}}
        mutable = []
        if statistics is not None:
            variables["batch_stats"] = statistics
            mutable = ["batch_stats"]

        def apply(variables: Any, x: Any) -> Any:
            return layer.apply(variables, x, mutable=mutable)[0]

        return (jax.jit(apply) if self.jit else apply)(variables, given(x, self.dtype))

    def _arguments(self, name: str) -> dict[str, bool]:
        """Of RMSNorm's there is one variance only."""
        return {key: value for key, value in self.arguments.items() if name != "RMSNorm" or "fast" not in key}
