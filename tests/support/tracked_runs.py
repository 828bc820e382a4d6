"""Checkpoints of short real training runs: a small net with batch norms on the digits."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import nn

from normcheck.paper.digits import TRAINED, digits

EPOCHS, BATCH = 3, 128


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


def train(folder, make_optimizer, *, epochs=EPOCHS):
    """Train, and save a checkpoint before the first epoch and after each, in three ways.

    `folder` gets ``whole``, with the optimizer's state, ``weights``, of weights alone, and ``safetensors``.
    """
    images, classes = digits()
    x, y = (images[:TRAINED] / 16).float(), classes[:TRAINED]
    model = net()
    optimizer = make_optimizer(model)
    generator = torch.Generator().manual_seed(0)
    for way in ("whole", "weights", "safetensors"):
        (folder / way).mkdir(parents=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other on matrices as small as these
    for epoch in range(epochs + 1):
        state = model.state_dict()
        whole = {"model": state, "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(whole, folder / "whole" / f"epoch-{epoch}.pt")
        torch.save(state, folder / "weights" / f"epoch-{epoch}.pt")
        save_file(state, folder / "safetensors" / f"epoch-{epoch}.safetensors")
        for chosen in torch.randperm(TRAINED, generator=generator).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    torch.set_num_threads(threads)


def sgd(weight_decay=0.0):
    return lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)
