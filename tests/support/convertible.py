"""A small network with norms to convert, and inputs for it."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import norm_modules
import torch
from torch import nn

from normcheck import nn as ours


@contextmanager
def on_one_thread():
    """Small tensors gain nothing from threads, and lose much where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def network():
    """Two convolutions with batch norms that have seen data which is not Gaussian, in float64."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3))
    model.double()
    norm_modules.settled(model)
    for _ in range(3):
        model(inputs())
    return model.eval()


def inputs(samples=8):
    return torch.rand(samples, 2, 9, 9, dtype=torch.float64).pow(2) * 3


def quietly(*arguments, **options):
    """Convert where the warning about running statistics is not the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ours.convert(*arguments, **options)
