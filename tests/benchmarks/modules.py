"""Time and memory of the modules of `normcheck.nn` beside torch's own, and beside L2 composed of the same parts.

    python tests/benchmarks/modules.py [--write docs/performance.md] [--rounds 40]

All sides run in turn in one process, a round each, and of the rounds the fastest counts: what else runs on the machine
only ever adds time. Processor time of one thread, wall time of two. float32 on the CPU, with channels before the rest.
It takes about a minute on a quiet machine. `--write` puts the tables between the marks of the page, so that its figures
are those of a run.

L2 is composed of what L1 is composed of (mean, subtraction, square for magnitude, mean, root, division, gain and bias):
by automatic differentiation of those parts, with a backward pass of its own, and with one that works in place as L1's
does. These keep no running averages, which L1 does where it is a batch norm.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from normcheck import __version__
from normcheck import nn as ours

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN, END = "<!-- measured by tests/benchmarks/modules.py -->\n", "<!-- until here -->\n"

CASES = {
    "BatchNorm2d, (64, 64, 28, 28)": ((64, 64, 28, 28), (0, 2, 3), 64),
    "BatchNorm2d, (32, 256, 14, 14)": ((32, 256, 14, 14), (0, 2, 3), 256),
    "LayerNorm, (8, 512, 768)": ((8, 512, 768), (2,), 768),
}
"""Shapes of the input, the dimensions that a group extends over, and the length of gamma."""
THREADS = (1, 2)
STATISTICS = ("l1", "linf", "topk", "range")
FUSED = "torch's own, l2"
COMPOSED, WRITTEN, IN_PLACE = (f"l2 composed, {how}" for how in ("by autograd", "own backward", "the same in place"))
EPS = 1e-5


class Written(torch.autograd.Function):
    """L2 with a backward pass of its own: y and s are kept, and dx = (g - y mean(g y) - mean(g)) / s."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, over: tuple[int, ...]) -> Any:
        """y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias."""
        c = x - x.mean(over, keepdim=True)
        s = ((c * c).mean(over, keepdim=True) + EPS).sqrt()
        y = c / s
        ctx.save_for_backward(y, s, weight)
        ctx.over = over
        return y * weight + bias

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """The gradients of x, gamma and beta."""
        y, s, weight = ctx.saved_tensors
        d_weight = (grad * y).sum_to_size(weight.shape)
        g = grad * weight
        h = g - y * (g * y).mean(ctx.over, keepdim=True)
        return (h - h.mean(ctx.over, keepdim=True)) / s, d_weight, grad.sum_to_size(weight.shape), None


class InPlace(torch.autograd.Function):
    """`Written` as `normcheck.nn.statistics` would have it, were l2 one of its statistics: the same operations."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, over: tuple[int, ...]) -> Any:
        """As `Written`."""
        c = x - x.mean(over, keepdim=True)
        s = ((c * c).mean(over, keepdim=True) + EPS).sqrt()
        y = c.div_(s)
        ctx.save_for_backward(y, s, weight)
        ctx.over = over
        return (y * weight).add_(bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        """As `Written`."""
        y, s, weight = ctx.saved_tensors
        product = grad * y
        d_weight = product.sum_to_size(weight.shape)
        g = grad * weight
        if weight.ndim == y.ndim:  # a batch norm: gamma is one number a group
            dot = product.mean(ctx.over, keepdim=True) * weight
        else:
            dot = product.mul_(weight).mean(ctx.over, keepdim=True)
        h = (y * -dot).add_(g)
        return h.sub_(h.mean(ctx.over, keepdim=True)).div_(s), d_weight, grad.sum_to_size(weight.shape), None


class Composed(torch.nn.Module):
    """L2 norm of torch's elementary operations, by automatic differentiation unless `function` has its own backward."""

    def __init__(
        self, length: int, over: tuple[int, ...], function: type[torch.autograd.Function] | None = None
    ) -> None:
        super().__init__()
        shape = (1, length, 1, 1) if over != (2,) else (length,)
        self.over, self.function = over, function
        self.weight, self.bias = torch.nn.Parameter(torch.ones(shape)), torch.nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise."""
        if self.function is not None:
            out: torch.Tensor = self.function.apply(x, self.weight, self.bias, self.over)
            return out
        c = x - x.mean(self.over, keepdim=True)
        s = (c.square().mean(self.over, keepdim=True) + EPS).sqrt()
        return c / s * self.weight + self.bias


def sides(over: tuple[int, ...], length: int) -> dict[str, torch.nn.Module]:
    """What is compared, by name."""
    is_batch = over != (2,)
    norm = ours.BatchNorm2d if is_batch else ours.LayerNorm
    found: dict[str, torch.nn.Module] = {
        FUSED: (torch.nn.BatchNorm2d if is_batch else torch.nn.LayerNorm)(length),
        "l2": norm(length, statistic="l2"),
        COMPOSED: Composed(length, over),
        WRITTEN: Composed(length, over, Written),
        IN_PLACE: Composed(length, over, InPlace),
    }
    return found | {name: norm(length, statistic=name) for name in STATISTICS}


def saved_bytes(module: torch.nn.Module, x: torch.Tensor) -> int:
    """Bytes that a module keeps for its backward pass, each memory once, and none of parameters or buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(x)
    return sum(kept.values())


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run: of the processor, where there is one thread, so that other processes do not count."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def measured(shape: tuple[int, ...], over: tuple[int, ...], length: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds of forward, and of forward and backward, of each side: the least of the rounds."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    grad = torch.randn(shape, generator=generator)
    modules = sides(over, length)

    def both(module: torch.nn.Module) -> None:
        x.grad = None
        module.zero_grad()
        module(x).backward(grad)

    best = dict.fromkeys(modules, (float("inf"), float("inf")))
    for _ in range(rounds + 1):  # the first is slow, and not the least
        for name, module in modules.items():
            one, two = timed(lambda module=module: module(x)), timed(lambda module=module: both(module))
            best[name] = (min(best[name][0], one), min(best[name][1], two))
    return best


def tables(rounds: int) -> str:
    """A table for each case, and how L1 stands to each composed L2 in all of them."""
    parts = []
    ratios: dict[str, list[float]] = {COMPOSED: [], WRITTEN: [], IN_PLACE: []}
    for title, (shape, over, length) in CASES.items():
        x = torch.zeros(shape, requires_grad=True)
        kept = {name: saved_bytes(module, x) for name, module in sides(over, length).items()}
        for threads in THREADS:
            torch.set_num_threads(threads)
            best = measured(shape, over, length, rounds)
            for name, found in ratios.items():
                found.append(best["l1"][1] / best[name][1])
            parts.append(f"### {title}, {threads} thread{'s' * (threads > 1)}\n\n{_table(best, kept)}\n")
    rows = [_row(name, f"{min(found):.2f} to {max(found):.2f}", _verdict(found)) for name, found in ratios.items()]
    heads = _row("forward and backward beside", "L1's time over its", "no slower")
    parts.append("\n".join(["### L1 beside L2, all of the above\n", heads, _row(*["---"] * 3), *rows, ""]))
    return "\n".join(parts)


def _verdict(ratios: list[float]) -> str:
    return "met" if max(ratios) <= 1 else f"missed, by up to {max(ratios) - 1:.0%}"


def _table(best: dict[str, tuple[float, float]], kept: dict[str, int]) -> str:
    fused, composed = best[FUSED][1], best[COMPOSED][1]
    rows = [
        _row(
            name,
            f"{1e3 * one:.2f}",
            f"{1e3 * both:.2f}",
            f"{both / fused:.2f}",
            f"{both / composed:.2f}",
            f"{kept[name] / 2**20:.2f}",
        )
        for name, (one, both) in best.items()
    ]
    heads = ("norm", "forward, ms", "and backward, ms", "of torch's own", "of l2 by autograd", "kept, MiB")
    return "\n".join([_row(*heads), _row(*["---"] * len(heads)), *rows])


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _machine() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    cpu = models[0] if models else platform.machine()
    versions = f"normcheck {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{versions}; {cpu}, {os.cpu_count()} processors.\n"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    parser.add_argument("--rounds", type=int, default=40, help="of which the fastest counts")
    given = parser.parse_args()
    text = f"{_machine()}\n{tables(given.rounds)}"
    print(text)
    if given.write is not None:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(BEGIN)
        given.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
