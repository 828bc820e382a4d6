"""Files of torch for the tests of their readers."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn


def word(dtype):
    return str(dtype).removeprefix("torch.")


def sample(dtype, shape=(3, 5), seed=0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 20
    return values.abs().to(dtype) if dtype in (torch.uint8, torch.bool) else values.to(dtype)


def saved(path, obj, *, legacy=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(obj, path, _use_new_zipfile_serialization=not legacy)
    return path


def small():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LayerNorm(6))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(sample(torch.float32, p.shape, seed=i))
    return model


def rezipped(path, change):
    """Write a zip archive again, entries changed by `change(name, data)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))
    return path


STATE = {"conv.weight": torch.ones(2, 2), "bn.weight": torch.ones(2), "bn.running_var": torch.zeros(2)}


class Canary:
    """Touches a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def quietly(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def scripted(model):
    return quietly(torch.jit.script, model.eval())
