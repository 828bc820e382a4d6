"""tinygrad's norms on its CPU device: C that it generates for each shape, and that clang compiles for this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.fidelity.kernel import Kernel, Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from normcheck.fidelity.kernel import Array, Trial

    Run = Callable[[Trial], Observed]

DTYPES = {"fp32": "float32", "fp16": "float16"}
EPS = (1e-5, 1e-3, 1e-6)
UNROLLED, FEW, SPLIT = 32, 3, 32768
"""Elements of a row up to which its loop is unrolled; of two loops, up to which both are; from which sums are split."""
LEAST = 0.9999
"""Of identical outputs. A row of one element, -0, keeps its sign where a sum from +0 loses it."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm, element type and storage of the parameters.

    Raises:
        ImportError: tinygrad is not installed, or the clang that compiles its kernels is not on the path.
    """
    import tinygrad.nn  # noqa: F401, PLC0415  # to fail here, not in the first trial

    if shutil.which("clang") is None:
        raise ImportError("tinygrad compiles its CPU kernels with clang, which is not on the path: install clang")
    found = [kernel for precision in DTYPES for kernel in _of(precision, "io")]
    return (*found, *_of("fp16", "float32"))


def _of(precision: str, params: str) -> Iterator[Kernel]:
    """The kernels for one io format and one storage of the parameters."""

    def kernel(row: str, norm: str, run: Run, **more: Any) -> Kernel:
        settings: dict[str, Any] = {"affine": ("none", "both"), **more}
        if params != "io":
            settings["affine"] = settings["affine"][1:]
        return Kernel(
            implementation=row,
            norm=norm,
            precision=precision,
            run=run,
            packages=("tinygrad",),
            params="io" if params == "io" else "float32",
            eps=EPS,
            compiled=True,
            least=LEAST,
            **settings,
        )

    form, stored = DTYPES[precision], DTYPES[precision] if params == "io" else "float32"
    yield kernel("tinygrad-layernorm", "layer-l2", _rows("LayerNorm", form, stored))
    yield kernel("tinygrad-rmsnorm", "rms", _rows("RMSNorm", form, stored), affine=("none", "weight"))
    yield kernel("tinygrad-groupnorm", "group-l2", _samples("GroupNorm", form, stored), shapes="images")
    yield kernel("tinygrad-groupnorm", "instance-l2", _samples("InstanceNorm", form, stored), shapes="images")
    run = _batch(form, stored, training=True)
    yield kernel("tinygrad-batchnorm", "batch-l2", run, shapes="images", fits=_is_one_loop)
    fits = _by_fours if stored == "float16" else None  # which rounds a root that they share
    run = _batch(form, stored, training=False)
    yield kernel("tinygrad-batchnorm-eval", "batch-l2", run, shapes="images", mode="eval", fits=fits)


def _is_one_loop(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether a channel's sum is either unrolled as a whole, as a row of so few elements is, or not; and not split."""
    samples, channels, positions = shape[0], shape[1], shape[2] * shape[3]
    whole = 1 in (samples, channels, positions) or max(samples, positions) <= FEW
    return (samples * positions > UNROLLED or whole) and samples * positions < SPLIT


def _by_fours(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether tinygrad computes four positions of a channel at once."""
    return shape[2] * shape[3] % 4 == 0


# -------------------------------------------------------------------------------------------- numbers of tinygrad


def _given(x: Array | None, form: str) -> Any:
    """Return the numbers as a tensor of that type, in memory before any norm; None stays."""
    from tinygrad.dtype import dtypes  # noqa: PLC0415
    from tinygrad.tensor import Tensor  # noqa: PLC0415

    if x is None:
        return None
    return Tensor(np.ascontiguousarray(x), device="CPU").cast(getattr(dtypes, form)).realize()


def _computed(y: Any) -> Array:
    """Run the norm that gives the tensor, by itself, and return the numbers as float32."""
    from tinygrad.dtype import dtypes  # noqa: PLC0415

    out: Array = y.realize().cast(dtypes.float32).numpy()
    return out


def _padded(x: Array, axis: int) -> Array:
    """Rows of zeros at the end of an axis whose rows are independent, up to a power of two: fewer shapes to compile."""
    count = x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, (1 << (count - 1).bit_length()) - count)
    return np.pad(x, widths)


def _layer(name: str, trial: Trial, arguments: tuple[int, ...], stored: str) -> Any:
    """A layer of tinygrad.nn with the trial's eps and parameters."""
    from tinygrad import nn  # noqa: PLC0415

    layer = getattr(nn, name)(*arguments, eps=trial.eps)
    layer.weight, layer.bias = _given(trial.weight, stored), _given(trial.bias, stored)
    return layer


# ------------------------------------------------------------------------------------------------------ each norm


def _rows(name: str, form: str, stored: str) -> Run:
    def run(trial: Trial) -> Observed:
        layer = _layer(name, trial, trial.x.shape[-1:], stored)
        return Observed(_computed(layer(_given(_padded(trial.x, 0), form)))[: len(trial.x)])

    return run


def _samples(name: str, form: str, stored: str) -> Run:
    """Norms of each sample: group and instance."""

    def run(trial: Trial) -> Observed:
        channels = trial.x.shape[1:2]
        arguments = channels if trial.num_groups is None else (trial.num_groups, *channels)
        layer = _layer(name, trial, arguments, stored)
        return Observed(_computed(layer(_given(_padded(trial.x, 0), form)))[: len(trial.x)])

    return run


def _batch(form: str, stored: str, *, training: bool) -> Run:
    def run(trial: Trial) -> Observed:
        from tinygrad import nn  # noqa: PLC0415
        from tinygrad.helpers import Context  # noqa: PLC0415

        channels = trial.x.shape[1]
        x = _padded(trial.x, 1)
        layer = nn.BatchNorm(x.shape[1], eps=trial.eps, track_running_stats=not training)
        for name in ("weight", "bias", *(() if training else ("running_mean", "running_var"))):
            values = getattr(trial, name)
            setattr(layer, name, None if values is None else _given(_padded(values, 0), stored))
        with Context(TRAINING=int(training)):
            return Observed(_computed(layer(_given(x, form)))[:, :channels])

    return run
