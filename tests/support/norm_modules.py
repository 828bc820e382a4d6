"""The modules of `normcheck.nn` that divide by a statistic, with torch's own and an input, and what they are called."""

from __future__ import annotations

import torch

import normcheck
from normcheck import nn as ours

STATISTICS = ("l2", "l1", "linf", "topk", "range")
OTHERS = STATISTICS[1:]
SHAPES = {"1d": (6, 4, 5), "2d": (5, 4, 3, 4), "3d": (3, 4, 2, 3, 2)}
K = 3


def _pairs():
    for d, shape in SHAPES.items():
        yield f"batch-{d}", getattr(torch.nn, f"BatchNorm{d}"), getattr(ours, f"BatchNorm{d}"), (4,), {}, shape
        instance = getattr(ours, f"InstanceNorm{d}")
        yield f"instance-{d}", getattr(torch.nn, f"InstanceNorm{d}"), instance, (4,), {"affine": True}, shape
    yield "batch-rows", torch.nn.BatchNorm1d, ours.BatchNorm1d, (4,), {}, (7, 4)
    yield "batch-plain", torch.nn.BatchNorm2d, ours.BatchNorm2d, (4,), {"affine": False}, SHAPES["2d"]
    yield "group", torch.nn.GroupNorm, ours.GroupNorm, (2, 4), {}, SHAPES["2d"]
    yield "layer", torch.nn.LayerNorm, ours.LayerNorm, (7,), {}, (3, 2, 7)
    yield "layer-two", torch.nn.LayerNorm, ours.LayerNorm, ((3, 4),), {}, SHAPES["2d"]
    yield "layer-plain", torch.nn.LayerNorm, ours.LayerNorm, (7,), {"elementwise_affine": False}, (3, 2, 7)
    yield "rms", torch.nn.RMSNorm, ours.RMSNorm, (7,), {"eps": 1e-5}, (3, 2, 7)


PAIRS = {name: rest for name, *rest in _pairs()}
"""torch's class, ours, positional and keyword arguments, the shape of an input."""


def settled(module, seed=1):
    """Give every parameter a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def build(name, statistic="l2", dtype=torch.float64, **more):
    """One of ours, by its name in `PAIRS`, with parameters that hide nothing."""
    _, cls, arguments, keywords, _ = PAIRS[name]
    return settled(cls(*arguments, **keywords, statistic=statistic, k=K, dtype=dtype, **more))


def build_torch(name, dtype=torch.float64):
    """The one of torch, with the same parameters."""
    cls, _, arguments, keywords, _ = PAIRS[name]
    return settled(cls(*arguments, **keywords, dtype=dtype))


def input_of(name, dtype=torch.float64, seed=0):
    """An input of it; no two of its elements are near each other, nor one near a mean."""
    generator = torch.Generator().manual_seed(seed)
    return (1.5 * torch.randn(PAIRS[name][-1], generator=generator, dtype=torch.float64) + 0.7).to(dtype)


def exactly(module, x, **more):
    """What the engine computes in float64 for the norm that a module says it is."""
    weight, bias = (None if p is None else p.detach().numpy().reshape(-1) for p in (module.weight, module.bias))
    norm = module.norm
    shape = x.shape
    if norm.where == "layer":
        x = x.reshape(-1, len(weight) if weight is not None else shape[-1])
    return normcheck.emulate(
        x.numpy(),
        norm.name,
        precision="fp64",
        weight=weight,
        bias=bias,
        eps=module.eps,
        num_groups=getattr(module, "num_groups", None),
        constant=module.constant,
        k=module.k,
        **more,
    )
