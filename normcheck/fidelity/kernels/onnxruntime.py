"""ONNX Runtime's norms on the CPU. Casts that it puts around float32 kernels belong to them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnx import helper

from normcheck.fidelity.kernel import Kernel, Observed
from normcheck.fidelity.kernels.onnx_models import DTYPES, MOMENTUM, TYPES, beta, gamma, running, single, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from onnx import ModelProto, NodeProto

    from normcheck.fidelity.kernel import Array, Trial
    from normcheck.fidelity.kernels.onnx_models import Attributes, Declared

    Run = Callable[[Trial], Observed]
    Inputs = tuple[tuple[str, Declared], ...]
    Outputs = tuple[tuple[str, str], ...]

EPS = (1e-5, 1e-3, 1e-6, 1e-12)
LEAST = 0.9999
MICROSOFT = "com.microsoft"
VECTOR_FROM = {"layer": {"fp32": 8, "fp16": 16}, "rms": {"fp32": 16, "fp16": 16}}
"""Elements of a row from which the vector kernel is taken; bfloat16 has none."""


def kernels() -> tuple[Kernel, ...]:
    """Return the kernels of every norm and of each element type that it runs in."""
    found: list[Kernel] = []
    for precision in DTYPES:
        found += [*_layer(precision), *_rms(precision), *_skipping(precision)]
    for precision in ("fp32", "fp16"):
        found += [_instance(precision), _group(precision), *_batch(precision)]
    return tuple(found)


def _kernel(row: str, norm: str, precision: str, run: Run, **more: object) -> Kernel:
    """A kernel of ONNX Runtime; each was told by its source."""
    settings: dict[str, object] = {"eps": EPS, "least": LEAST, "most_ulps": 1, **more}
    name = f"ort-cpu-{row}"
    return Kernel(
        implementation=name,
        norm=norm,
        precision=precision,
        run=run,
        packages=("onnxruntime",),
        **settings,  # type: ignore[arg-type]
    )


def _called(
    operator: tuple[str, str, int],
    precision: str,
    given: Mapping[str, Array | None],
    outputs: Mapping[str, str],
    threads: int,
    **attributes: float,
) -> list[Array]:
    """Outputs of one operator (name, domain, opset) on arrays of the precision, as float32.

    outputs: precision of each. Where an output has to be left out in between, its precision is empty.
    """
    feeds = {
        name: stored(x, "fp32" if precision == "bf16" else precision) for name, x in given.items() if x is not None
    }
    inputs = tuple((name, (precision, feeds[name].ndim) if name in feeds else ("", 0)) for name in given)
    session = _session(operator, inputs, tuple(outputs.items()), tuple(attributes.items()), threads)
    return [np.asarray(y).astype(np.float32) for y in session.run(None, feeds)]


@functools.lru_cache(maxsize=256)
def _session(
    operator: tuple[str, str, int], inputs: Inputs, outputs: Outputs, attributes: Attributes, threads: int
) -> onnxruntime.InferenceSession:
    name, domain, opset = operator
    model = single(name, opset, dict(inputs), dict(outputs), attributes, domain)
    _accept_float32(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _accept_float32(model: ModelProto) -> None:
    """Put casts, which are exact, around a node with bfloat16 inputs or outputs: numpy has no such type of its own."""
    graph, node = model.graph, model.graph.node[0]
    narrow, wide = TYPES["bf16"], TYPES["fp32"]
    before: list[NodeProto] = []
    after: list[NodeProto] = []
    for names, values, casts, is_input in (
        (node.input, graph.input, before, True),
        (node.output, graph.output, after, False),
    ):
        for value in values:
            if value.type.tensor_type.elem_type != narrow:
                continue
            inner = f"{value.name}_bf16"
            names[list(names).index(value.name)] = inner
            ends = ([value.name], [inner]) if is_input else ([inner], [value.name])
            casts.append(helper.make_node("Cast", *ends, to=narrow if is_input else wide))
            value.type.tensor_type.elem_type = wide
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


# ------------------------------------------------------------------------------------------------- rows of a matrix


def _layer(precision: str) -> Iterator[Kernel]:
    def run(trial: Trial) -> Observed:
        given = {"x": trial.x, "scale": gamma(trial, trial.x.shape[-1]), "bias": trial.bias}
        outputs = {"y": precision, "mean": "fp32", "rstd": "fp32"}
        operator = ("LayerNormalization", "", 17)
        y, mean, rstd = _called(operator, precision, given, outputs, trial.threads, axis=-1, epsilon=trial.eps)
        return Observed(y, mean, rstd)

    more = {"affine": ("none", "weight", "both"), "threads": (1, 2)}
    vector_row = "layernorm-half" if precision == "fp16" else "layernorm"
    yield from _by_length("layer", precision, vector_row, "layernorm-scalar", "layer-l2", run, more)


def _rms(precision: str) -> Iterator[Kernel]:
    def simplified(trial: Trial) -> Observed:
        given = {"x": trial.x, "scale": gamma(trial, trial.x.shape[-1])}
        outputs = {"y": precision, "rstd": "fp32"}
        operator = ("SimplifiedLayerNormalization", "", 17)
        y, rstd = _called(operator, precision, given, outputs, trial.threads, axis=-1, epsilon=trial.eps)
        return Observed(y, None, rstd)

    def standard(trial: Trial) -> Observed:
        given = {"x": trial.x, "scale": gamma(trial, trial.x.shape[-1])}
        operator = ("RMSNormalization", "", 23)
        (y,) = _called(operator, precision, given, {"y": precision}, trial.threads, axis=-1, epsilon=trial.eps)
        return Observed(y)

    rows = ("simplified-layernorm", "simplified-layernorm-scalar")
    more = {"affine": ("none", "weight"), "threads": (1, 2)}
    yield from _by_length("rms", precision, *rows, "rms", simplified, more)
    if precision != "bf16":
        yield from _by_length("rms", precision, *rows, "rms", standard, {**more, "variant": "RMSNormalization"})


def _by_length(
    kind: str, precision: str, vector_row: str, scalar_row: str, norm: str, run: Run, more: Mapping[str, object]
) -> Iterator[Kernel]:
    """The vector kernel, and the scalar one that has the shorter rows, or all of them."""
    least = VECTOR_FROM[kind].get(precision)
    if least is not None:
        yield _kernel(vector_row, norm, precision, run, fits=lambda shape, _: shape[-1] >= least, **more)
    yield _kernel(scalar_row, norm, precision, run, fits=lambda shape, _: least is None or shape[-1] < least, **more)


def _skipping(precision: str) -> Iterator[Kernel]:
    """x + residual first, which stays unrounded."""

    def layer(trial: Trial) -> Observed:
        given = {"x": _batched(trial.x), "skip": _batched(trial.residual), "gamma": gamma(trial, trial.x.shape[-1])}
        outputs = {"y": precision, "mean": "fp32", "rstd": "fp32"}
        operator = ("SkipLayerNormalization", MICROSOFT, 17)
        y, mean, rstd = _called(
            operator, precision, {**given, "beta": trial.bias}, outputs, trial.threads, epsilon=trial.eps
        )
        return Observed(y.reshape(trial.x.shape), mean, rstd)

    def rms(trial: Trial) -> Observed:
        given = {"x": _batched(trial.x), "skip": _batched(trial.residual), "gamma": gamma(trial, trial.x.shape[-1])}
        operator = ("SkipSimplifiedLayerNormalization", MICROSOFT, 17)
        (y,) = _called(operator, precision, given, {"y": precision}, trial.threads, epsilon=trial.eps)
        return Observed(y.reshape(trial.x.shape))

    more = {"residual": True, "threads": (1, 2)}
    yield _kernel("skiplayernorm", "layer-l2", precision, layer, affine=("none", "weight", "both"), **more)
    yield _kernel("skip-simplified-layernorm", "rms", precision, rms, affine=("none", "weight"), **more)


def _batched(x: Array | None) -> Array | None:
    """As (1, rows, elements): a batch of one sequence."""
    return None if x is None else x[None]


# --------------------------------------------------------------------------------------------------------- images


def _aligned(shape: tuple[int, ...], _groups: int | None) -> bool:
    """Whether each row begins at a multiple of 16 bytes, from where Eigen takes vectors."""
    return shape[2] * shape[3] % 4 == 0


def _instance(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        channels = trial.x.shape[1]
        given = {"x": trial.x, "scale": gamma(trial, channels), "bias": beta(trial, channels)}
        operator = ("InstanceNormalization", "", 22)
        (y,) = _called(operator, precision, given, {"y": precision}, trial.threads, epsilon=trial.eps)
        return Observed(y)

    return _kernel("instancenorm", "instance-l2", precision, run, shapes="images", fits=_aligned, threads=(1, 2))


def _group(precision: str) -> Kernel:
    def run(trial: Trial) -> Observed:
        channels, groups = trial.x.shape[1], trial.num_groups
        assert groups is not None  # noqa: S101  # the norm has groups
        given = {"x": trial.x, "scale": gamma(trial, channels), "bias": beta(trial, channels)}
        operator, settings = ("GroupNormalization", "", 21), {"epsilon": trial.eps, "num_groups": groups}
        (y,) = _called(operator, precision, given, {"y": precision}, trial.threads, **settings)
        return Observed(y)

    def fits(shape: tuple[int, ...], groups: int | None) -> bool:
        return shape[1] // (groups or 1) * shape[2] * shape[3] % 4 == 0

    more = {"affine": ("weight", "bias", "both"), "threads": (1, 2)}
    return _kernel("groupnorm", "group-l2", precision, run, shapes="images", fits=fits, **more)


def _batch(precision: str) -> Iterator[Kernel]:
    """One kernel a mode."""
    modes: tuple[Literal["train", "eval"], ...] = ("train", "eval")
    for mode in modes:
        training = mode == "train"
        yield _kernel(
            "batchnorm-train" if training else "batchnorm",
            "batch-l2",
            precision,
            _batch_run(precision, training=training),
            shapes="images",
            mode=mode,
            running=training,
            fits=_aligned if training else None,
            threads=(1, 2),
        )


def _batch_run(precision: str, *, training: bool) -> Run:
    def run(trial: Trial) -> Observed:
        channels = trial.x.shape[1]
        mean, variance = running(trial, channels)
        scale, bias = gamma(trial, channels), beta(trial, channels)
        given = {"x": trial.x, "scale": scale, "bias": bias, "mean": mean, "var": variance}
        names = ("y", "running_mean", "running_var") if training else ("y",)
        operator, outputs = ("BatchNormalization", "", 15), dict.fromkeys(names, precision)
        settings = {"epsilon": trial.eps, "momentum": MOMENTUM, "training_mode": int(training)}
        y, *kept = _called(operator, precision, given, outputs, trial.threads, **settings)
        return Observed(y) if trial.running_mean is None or not training else Observed(y, None, None, *kept)

    return run
