"""torch.compile in one graph, with the gradients, and torch.export, of every module."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from norm_modules import OTHERS, PAIRS, build, input_of

from normcheck.nn import MeanOnlyBatchNorm2d, bounded_weight_norm

MODULES = {f"{name} {s}": lambda n=name, s=s: build(n, s, dtype=torch.float32) for name in PAIRS for s in OTHERS}
MODULES |= {
    "batch-2d l1, no momentum": lambda: build("batch-2d", "l1", dtype=torch.float32, momentum=None),
    "batch-2d mean-only": lambda: MeanOnlyBatchNorm2d(4),
    "batch-2d bounded": lambda: bounded_weight_norm(torch.nn.Conv2d(4, 3, 2)),
    "batch-2d bounded with gain": lambda: bounded_weight_norm(torch.nn.Conv2d(4, 3, 2), p=1, gain=True),
}

# torch.compile itself instantiates each autograd.Function that it traces, which torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def stepped(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(y.detach().cos())
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters())]


def close(a, b):
    return torch.allclose(a.float(), b.float(), atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_compiled_in_one_graph_it_does_the_same_for_every_size_of_batch(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    twin = copy.deepcopy(module)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    x = input_of(name.partition(" ")[0], torch.float32)
    for batch in (x, torch.cat((x, x[:1] + 1)), torch.cat((x, x[:2] - 1))):
        pairs = zip(stepped(compiled, batch), stepped(module, batch), strict=True)
        assert all(close(a, b) for a, b in pairs)
    pairs = zip(twin.state_dict().values(), module.state_dict().values(), strict=True)
    assert all(close(a, b) for a, b in pairs)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_exported_it_does_the_same(name, train):
    module = MODULES[name]().train(train)
    x = input_of(name.partition(" ")[0], torch.float32)
    program = torch.export.export(copy.deepcopy(module), (x,))
    assert close(program.module()(x), module(x))


SIZED = {(name, s, True) for name in ("layer", "rms", "group", "instance-2d") for s in OTHERS}
SIZED |= {("batch-2d", "l1", True)} | {("batch-2d", s, False) for s in OTHERS}


@pytest.mark.parametrize(("name", "statistic", "train"), sorted(SIZED))
def test_exported_it_takes_batches_of_any_size_where_n_does_not_follow_from_that(name, statistic, train):
    module, x = build(name, statistic, dtype=torch.float32).train(train), input_of(name, torch.float32)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert close(program.module()(x[:2]), module(x[:2]))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which torch's default compiler still uses
def test_the_default_compiler_does_the_same():
    module, x = build("batch-2d", "l1", dtype=torch.float32), input_of("batch-2d", torch.float32)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True)
    assert all(close(a, b) for a, b in zip(stepped(compiled, x), stepped(module, x), strict=True))
