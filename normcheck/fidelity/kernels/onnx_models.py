"""ONNX models of a single norm, whose kernels the reference evaluator and ONNX Runtime are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from normcheck.fidelity.kernel import Array, Trial

Attributes = tuple[tuple[str, Any], ...]
Declared = tuple[str, int]

TYPES: dict[str, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
IR_VERSION = 10
"""Of the file format: one that ONNX Runtime has read since 1.18."""
MOMENTUM = 0.9
"""Of batch norms in train mode: in ONNX the weight of the old statistics, where it is 0.1 of new ones in torch."""


def single(
    operator: str,
    opset: int,
    inputs: Mapping[str, Declared],
    outputs: Mapping[str, str],
    attributes: Attributes,
    domain: str = "",
) -> ModelProto:
    """Return a model of one operator.

    Args:
        operator, domain, opset: which one.
        inputs: precision and number of dimensions of each by its name, in the operator's order; the precision is empty
            for one that is left out.
        outputs: precision of each likewise.
        attributes: of the node.
    """
    kept_inputs = [name if precision else "" for name, (precision, _) in inputs.items()]
    while not kept_inputs[-1]:  # an empty last name ends the process in an optimisation of ONNX Runtime 1.32
        kept_inputs.pop()
    kept_outputs = [name if precision else "" for name, precision in outputs.items()]
    node = helper.make_node(operator, kept_inputs, kept_outputs, domain=domain, **dict(attributes))
    taken = [helper.make_tensor_value_info(name, TYPES[p], [None] * rank) for name, (p, rank) in inputs.items() if p]
    given = [helper.make_tensor_value_info(name, TYPES[p], None) for name, p in outputs.items() if p]
    graph = helper.make_graph([node], "norm", taken, given)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def stored(x: Array, precision: str) -> Array:
    """Return the numbers in an array of their own, which begins at a multiple of 16 bytes."""
    return np.array(x, DTYPES[precision])


def gamma(trial: Trial, channels: int) -> Array:
    """The trial's weight, or ones for an operator that demands one."""
    return np.ones(channels, np.float32) if trial.weight is None else trial.weight


def beta(trial: Trial, channels: int) -> Array:
    """The trial's bias, or zeros for an operator that demands one."""
    return np.zeros(channels, np.float32) if trial.bias is None else trial.bias


def running(trial: Trial, channels: int) -> tuple[Array, Array]:
    """The trial's running statistics, or new ones for an operator that demands them."""
    mean = np.zeros(channels, np.float32) if trial.running_mean is None else trial.running_mean
    variance = np.ones(channels, np.float32) if trial.running_var is None else trial.running_var
    return mean, variance
