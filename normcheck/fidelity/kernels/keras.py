"""Keras 3's norms on the backend that KERAS_BACKEND names: PyTorch or JAX, on the CPU, each operation by itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.fidelity.kernel import Kernel, Observed
from normcheck.fidelity.kernels.flax import by_format, of, one_tile, one_tile_of_groups, one_tile_of_rows, padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.fidelity.kernel import Array, Trial

    Run = Callable[[Trial], Observed]

BACKENDS = ("torch", "jax")
"""Those whose kernels are known; the suite runs this module once with each."""
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What Keras calls the io formats."""
EPS = (1e-3, 1e-5, 1e-6)
FOLDED = {
    "least": 0.98,
    "reason": "x * scale + shift cancels where the mean is large, which shows the ulp between XLA's estimate of the "
    "reciprocal root and the row's, correctly rounded one",
}
"""Of norms of 16-bit elements on JAX that fold mean and gain into one scale and shift."""
_VECTORS = 32
"""Channels from which torch's sum over the rows of a matrix takes columns 32 at a time, in another order."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm, element type and storage of the parameters on the backend that is set.

    Raises:
        ImportError: keras or its backend is not installed, or the backend is another one.
    """
    import keras  # noqa: PLC0415

    backend = keras.backend.backend()
    if backend not in BACKENDS:
        raise ImportError(f"KERAS_BACKEND is {backend}: set it to {' or '.join(BACKENDS)}")
    return tuple(
        kernel
        for precision in PRECISIONS
        for params in (("io",) if precision == "fp32" else ("io", "float32"))
        for kernel in _of(backend, precision, params)
    )


def _of(backend: str, precision: str, params: str) -> Iterator[Kernel]:
    """The kernels for one io format and one storage of the parameters: of a policy, mixed where they differ."""
    dtype = PRECISIONS[precision]
    policy = dtype if params == "io" else f"mixed_{dtype}"
    library = ("torch",) if backend == "torch" else ("jax", "jaxlib")

    def kernel(name: str, norm: str, run: Run, **more: Any) -> Kernel:
        xla = by_format(precision) if backend == "jax" else {}
        settings: dict[str, Any] = {"affine": ("none", "both"), **xla, **more}
        if params != "io":
            settings["affine"] = tuple(each for each in settings["affine"] if each != "none")
        return Kernel(
            implementation=f"keras3-{name}-{backend}{of(precision) if backend == 'jax' else ''}",
            norm=norm,
            precision=precision,
            run=run,
            packages=("keras", *library),
            params="io" if params == "io" else "float32",
            eps=EPS,
            compiled=backend == "jax",
            **settings,
        )

    layers = _Layers(dtype, policy, channels_first=backend == "torch")
    rows, groups, channels = (None, None, _few_channels) if backend == "torch" else _TILES
    folded = FOLDED if backend == "jax" and precision != "fp32" else {}
    yield kernel("layernorm", "layer-l2", layers.layer, fits=rows, **folded)
    if params == "io":  # under a mixed policy the gain is rounded to the io format first
        yield kernel("rmsnorm", "rms", layers.rms, affine=("weight",), fits=rows)
    yield kernel("layernorm-rms-scaling", "rms", layers.rms_scaling, affine=("weight",), fits=rows or _several)
    yield kernel("groupnorm", "group-l2", layers.group, shapes="images", fits=groups, **folded)
    yield kernel("batchnorm", "batch-l2", layers.batch, shapes="images", fits=channels, **folded)
    yield kernel("batchnorm", "batch-l2", layers.batch_eval, shapes="images", mode="eval", **folded)


_TILES = (one_tile_of_rows, one_tile_of_groups, one_tile)
"""The tensors of each kind of norm that XLA sums as the rows say."""


def _several(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether there is more than one row: torch's variance of a single one is that of all elements, another code."""
    return shape[0] > 1


def _few_channels(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether torch sums each channel of (..., C) in four interleaved cascades of its own."""
    return shape[1] in (2, 3) or 8 <= shape[1] < _VECTORS  # a vector of 8 channels at a time


# ------------------------------------------------------------------------------------------------------- layers


class _Layers:
    """Layers of one policy. channels_first: group norms take (N, C, ...) as it is, else with its channels last."""

    def __init__(self, dtype: str, policy: str, *, channels_first: bool) -> None:
        self.dtype, self.policy, self.channels_first = dtype, policy, channels_first

    def layer(self, trial: Trial) -> Observed:
        """Layer norm of each row."""
        return self._rows("LayerNormalization", trial)

    def rms(self, trial: Trial) -> Observed:
        """RMS norm of each row; the layer always has a gain."""
        return self._rows("RMSNormalization", trial, gain="scale")

    def rms_scaling(self, trial: Trial) -> Observed:
        """Layer norm that divides by the deviation and does not centre."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You passed `rms_scaling=True`")
            return self._rows("LayerNormalization", trial, rms_scaling=True)

    def _rows(self, name: str, trial: Trial, gain: str = "gamma", **arguments: Any) -> Observed:
        x = padded(trial.x)
        return Observed(
            self._applied(name, trial, x, {gain: trial.weight, "beta": trial.bias}, **arguments)[: len(trial.x)]
        )

    def group(self, trial: Trial) -> Observed:
        """Group norm of each sample."""
        axis = 1 if self.channels_first else -1
        x = np.moveaxis(padded(trial.x), 1, axis)
        held = {"gamma": trial.weight, "beta": trial.bias}
        y = self._applied("GroupNormalization", trial, x, held, axis=axis, groups=trial.num_groups)
        return Observed(np.moveaxis(y, axis, 1)[: len(trial.x)])

    def batch(self, trial: Trial) -> Observed:
        """Batch norm by the statistics of the batch."""
        return self._batch(trial, training=True)

    def batch_eval(self, trial: Trial) -> Observed:
        """Batch norm by the moving statistics."""
        return self._batch(trial, training=False)

    def _batch(self, trial: Trial, *, training: bool) -> Observed:
        held = {
            "gamma": trial.weight,
            "beta": trial.bias,
            "moving_mean": trial.running_mean,
            "moving_variance": trial.running_var,
        }
        x = np.moveaxis(trial.x, 1, -1)
        return Observed(np.moveaxis(self._applied("BatchNormalization", trial, x, held, training=training), -1, 1))

    def _applied(
        self, name: str, trial: Trial, x: Array, held: dict[str, Array | None], *, training: bool = False, **more: Any
    ) -> Array:
        """Build the layer, give it its parameters, and return what it makes of x."""
        import keras  # noqa: PLC0415

        if name != "RMSNormalization":
            more |= {"scale": trial.weight is not None, "center": trial.bias is not None}
        layer = getattr(keras.layers, name)(epsilon=trial.eps, dtype=self.policy, **more)
        layer.build((None, *x.shape[1:]))
        for variable, values in held.items():
            if values is not None:
                getattr(layer, variable).assign(values)
        given = keras.ops.cast(keras.ops.convert_to_tensor(np.ascontiguousarray(x)), self.dtype)
        arguments = {"training": training} if name == "BatchNormalization" else {}
        y = keras.ops.cast(layer(given, **arguments), "float32")
        return np.array(keras.ops.convert_to_numpy(y))
