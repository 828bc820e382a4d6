"""Torch's norm operators, in its graphs and as functions: what they compute, and which of their arguments say how."""

from __future__ import annotations

from dataclasses import dataclass

from normcheck.layers.contents import ROLES
from normcheck.norms.table import norm_named


@dataclass(frozen=True, slots=True)
class Operator:
    """A norm operator: its norm, the names of its arguments in order, and eps where none is given."""

    norm: str
    arguments: tuple[str, ...]
    eps: float | None = None

    def __post_init__(self) -> None:
        """Refuse a row whose norm does not exist."""
        norm_named(self.norm)


OPERATORS = {
    "batch_norm": Operator("batch-l2", ("input", *ROLES, "training", "momentum", "eps", "cudnn_enabled")),
    "cudnn_batch_norm": Operator("batch-l2", ("input", *ROLES, "training", "momentum", "eps")),
    "native_batch_norm": Operator("batch-l2", ("input", *ROLES, "training", "momentum", "eps")),
    "_native_batch_norm_legit": Operator("batch-l2", ("input", *ROLES, "training", "momentum", "eps")),
    "_native_batch_norm_legit_functional": Operator("batch-l2", ("input", *ROLES, "training", "momentum", "eps")),
    "_native_batch_norm_legit_no_training": Operator("batch-l2", ("input", *ROLES, "momentum", "eps")),
    "instance_norm": Operator("instance-l2", ("input", *ROLES, "use_input_stats", "momentum", "eps")),
    "layer_norm": Operator("layer-l2", ("input", "normalized_shape", "weight", "bias", "eps"), 1e-5),
    "native_layer_norm": Operator("layer-l2", ("input", "normalized_shape", "weight", "bias", "eps")),
    "group_norm": Operator("group-l2", ("input", "num_groups", "weight", "bias", "eps"), 1e-5),
    "native_group_norm": Operator("group-l2", ("input", "weight", "bias", "N", "C", "HxW", "group", "eps")),
    "rms_norm": Operator("rms", ("input", "normalized_shape", "weight", "eps")),
    "_fused_rms_norm": Operator("rms", ("input", "normalized_shape", "weight", "eps")),
}
"""By their names in aten; the functions of torch itself have the same names and arguments."""
