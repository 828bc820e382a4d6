"""Modules of torch with the norms of the paper, to put in the place of torch's own.

Batch, layer, group, instance and RMS norm of any statistic, mean-only batch norm, and bounded weight norm. For l2 they
are torch's, to the bit; the rest has the same arguments and, where the meaning is the same, the same state dict.
"""

from __future__ import annotations

from normcheck.nn.batch import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    L1BatchNorm1d,
    L1BatchNorm2d,
    L1BatchNorm3d,
    LinfBatchNorm1d,
    LinfBatchNorm2d,
    LinfBatchNorm3d,
    RangeBatchNorm1d,
    RangeBatchNorm2d,
    RangeBatchNorm3d,
    TopKBatchNorm1d,
    TopKBatchNorm2d,
    TopKBatchNorm3d,
)
from normcheck.nn.bounded_weight_norm import BoundedWeightNorm, bounded_weight_norm
from normcheck.nn.by_sample import GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, LayerNorm, RMSNorm
from normcheck.nn.convert import convert
from normcheck.nn.convert_changes import conversion_of
from normcheck.nn.emulated import EmulatedPrecision
from normcheck.nn.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BoundedWeightNorm",
    "EmulatedPrecision",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "L1BatchNorm1d",
    "L1BatchNorm2d",
    "L1BatchNorm3d",
    "LayerNorm",
    "LinfBatchNorm1d",
    "LinfBatchNorm2d",
    "LinfBatchNorm3d",
    "MeanOnlyBatchNorm1d",
    "MeanOnlyBatchNorm2d",
    "MeanOnlyBatchNorm3d",
    "RMSNorm",
    "RangeBatchNorm1d",
    "RangeBatchNorm2d",
    "RangeBatchNorm3d",
    "TopKBatchNorm1d",
    "TopKBatchNorm2d",
    "TopKBatchNorm3d",
    "bounded_weight_norm",
    "conversion_of",
    "convert",
]
