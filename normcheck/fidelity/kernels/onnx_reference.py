"""The reference evaluator of ONNX: each operator as a few numpy operations, in the type of its input."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from onnx.reference import ReferenceEvaluator

from normcheck.fidelity.kernel import Kernel, Observed
from normcheck.fidelity.kernels.onnx_models import DTYPES, MOMENTUM, beta, gamma, running, single, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from normcheck.fidelity.kernel import Array, Trial
    from normcheck.fidelity.kernels.onnx_models import Attributes, Declared

    Run = Callable[[Trial], Observed]

EPS = (1e-5, 1e-3, 1e-6, 1e-12)
LEAST = 0.9999
BUFFER = 8192
"""Elements that numpy converts at a time: a mean of float16 numbers adds longer runs in blocks of so many."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm and element type."""
    found: list[Kernel] = []
    for precision in DTYPES:
        found += [_layer(precision), _rms(precision), _instance(precision), *_batch(precision)]
        found += [_group(precision), _group_18(precision)]
    return tuple(found)


def _kernel(row: str, norm: str, precision: str, run: Run, **more: object) -> Kernel:
    """A kernel of numpy, whose operations are all known. bfloat16 sums are of ml_dtypes, and have rows of their own."""
    settings: dict[str, object] = {"eps": EPS, "least": LEAST, "most_ulps": 1, **more}
    name = f"onnx-reference-{row}"
    return Kernel(
        implementation=name,
        norm=norm,
        precision=precision,
        run=run,
        packages=("onnx", "numpy"),
        **settings,  # type: ignore[arg-type]
    )


def _called(
    operator: str,
    opset: int,
    precision: str,
    given: Mapping[str, Array | None],
    outputs: tuple[str, ...],
    **attributes: float,
) -> list[Array]:
    """Outputs of one operator on arrays that are stored in the precision first, as float32."""
    feeds = {name: stored(x, precision) for name, x in given.items() if x is not None}
    names = tuple((name, (precision, feeds[name].ndim) if name in feeds else ("", 0)) for name in given)
    evaluator = _evaluator(operator, opset, names, outputs, tuple(attributes.items()))
    with np.errstate(all="ignore"):
        return [np.asarray(y).astype(np.float32) for y in evaluator.run(None, feeds)]


@functools.lru_cache(maxsize=256)
def _evaluator(
    operator: str,
    opset: int,
    inputs: tuple[tuple[str, Declared], ...],
    outputs: tuple[str, ...],
    attributes: Attributes,
) -> ReferenceEvaluator:
    results = dict.fromkeys(outputs, inputs[0][1][0])
    return ReferenceEvaluator(single(operator, opset, dict(inputs), results, attributes))


# ------------------------------------------------------------------------------------------------------ each norm


def _layer(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        given = {"x": trial.x, "scale": gamma(trial, trial.x.shape[-1]), "bias": trial.bias}
        results = ("y", "mean", "rstd")
        y, mean, rstd = _called("LayerNormalization", 17, precision, given, results, axis=-1, epsilon=trial.eps)
        return Observed(y, mean, rstd)

    row = "layernorm-bf16" if precision == "bf16" else "layernorm"
    return _kernel(row, "layer-l2", precision, run, affine=("none", "weight", "both"))


def _rms(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        given = {"x": trial.x, "scale": gamma(trial, trial.x.shape[-1])}
        (y,) = _called("RMSNormalization", 23, precision, given, ("y",), axis=-1, epsilon=trial.eps)
        return Observed(y)

    row = "rmsnorm-bf16" if precision == "bf16" else "rmsnorm"
    return _kernel(row, "rms", precision, run, affine=("none", "weight"))


def _instance(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        channels = trial.x.shape[1]
        given = {"x": trial.x, "scale": gamma(trial, channels), "bias": beta(trial, channels)}
        (y,) = _called("InstanceNormalization", 22, precision, given, ("y",), epsilon=trial.eps)
        return Observed(y)

    row = "instancenorm-bf16" if precision == "bf16" else "instancenorm"
    return _kernel(row, "instance-l2", precision, run, shapes="images", fits=_unbuffered)


def _group(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        channels, groups = trial.x.shape[1], trial.num_groups
        assert groups is not None  # noqa: S101  # the norm has groups
        given = {"x": trial.x, "scale": gamma(trial, channels), "bias": beta(trial, channels)}
        (y,) = _called("GroupNormalization", 21, precision, given, ("y",), epsilon=trial.eps, num_groups=groups)
        return Observed(y)

    return _kernel("groupnorm", "group-l2", precision, run, shapes="images", affine=("weight", "bias", "both"))


def _group_18(precision: str) -> Kernel:
    """Of opset 18, whose gamma and beta are one for each group, and are left at 1 and 0 here."""

    def run(trial: Trial) -> Observed:
        groups = trial.num_groups
        assert groups is not None  # noqa: S101  # the norm has groups
        given = {"x": trial.x, "scale": np.ones(groups, np.float32), "bias": np.zeros(groups, np.float32)}
        (y,) = _called("GroupNormalization", 18, precision, given, ("y",), epsilon=trial.eps, num_groups=groups)
        return Observed(y)

    def fits(shape: tuple[int, ...], groups: int | None) -> bool:
        return shape[1] // (groups or 1) * shape[2] * shape[3] <= BUFFER

    row = "groupnorm-18-bf16" if precision == "bf16" else "groupnorm-18"
    return _kernel(row, "group-l2", precision, run, shapes="images", affine=("none",), fits=fits)


def _batch(precision: str) -> Iterator[Kernel]:
    """One kernel a mode."""
    row = "batchnorm-bf16" if precision == "bf16" else "batchnorm"
    modes: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    for mode in modes:
        yield _kernel(
            row,
            "batch-l2",
            precision,
            _batch_run(precision, training=mode == "train"),
            shapes="images",
            mode=mode,
            running=mode == "train",
            fits=_by_image if mode == "train" else None,
            most_ulps=None
            if (precision, mode) == ("fp16", "train")
            else 1,  # a channel in thousands has another variance
        )


def _batch_run(precision: str, *, training: bool) -> Run:
    def run(trial: Trial) -> Observed:
        channels = trial.x.shape[1]
        mean, variance = running(trial, channels)
        scale, bias = gamma(trial, channels), beta(trial, channels)
        given = {"x": trial.x, "scale": scale, "bias": bias, "mean": mean, "var": variance}
        results = ("y", "running_mean", "running_var") if training else ("y",)
        settings = {"epsilon": trial.eps, "momentum": MOMENTUM, "training_mode": int(training)}
        y, *kept = _called("BatchNormalization", 15, precision, given, results, **settings)
        return Observed(y) if trial.running_mean is None or not training else Observed(y, None, None, *kept)

    return run


def _unbuffered(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether numpy converts what it adds up in one go."""
    return shape[2] * shape[3] <= BUFFER


def _by_image(shape: tuple[int, ...], groups: int | None) -> bool:
    """Whether numpy adds up a channel image by image: a single channel of several images is one run to it."""
    return _unbuffered(shape, groups) and (shape[0] == 1 or shape[1] > 1)
