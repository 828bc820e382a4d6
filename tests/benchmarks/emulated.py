"""Time of norms under `normcheck.nn.EmulatedPrecision`, forward and backward, beside torch's own module.

    python tests/benchmarks/emulated.py [--write docs/nn.md] [--rounds 20]

Processor time of one thread, all sides in turn in one process; of the rounds the fastest counts. fp16, on the CPU. It
takes about half a minute. `--write` puts the table between the marks of the page.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from normcheck import nn

BEGIN, END = "<!-- measured by tests/benchmarks/emulated.py -->\n", "<!-- until here -->\n"
SHAPES = ((64, 16, 8, 8), (64, 32, 4, 4), (64, 16, 32, 32))
IMPLEMENTATIONS = ("pure", "wide-sum", "pure-scaled", "wide")


def sides_of(shape, statistic):
    """Return the modules that are timed, by name."""
    plain = nn.BatchNorm2d(shape[1], statistic=statistic)
    emulated = {
        name: nn.EmulatedPrecision(nn.BatchNorm2d(shape[1], statistic=statistic), name, "fp16", jobs=1)
        for name in IMPLEMENTATIONS
    }
    return {"not emulated": plain, **emulated}


def timed(module, x, gradient):
    """Return the seconds of a forward and a backward pass."""
    begin = time.process_time()
    module(x).backward(gradient)
    return time.process_time() - begin


def milliseconds(seconds):
    """Return a time with as many digits as it is good for."""
    return f"{1e3 * seconds:.{2 if seconds < 1e-3 else 1 if seconds < 1e-2 else 0}f}"


def table(rounds):
    """Return the table as lines."""
    yield f"| (N, C, H, W) | s | {' | '.join(sides_of(SHAPES[0], 'l2'))} |"
    yield "|---|---|" + "---|" * (1 + len(IMPLEMENTATIONS))
    for shape in SHAPES:
        x, gradient = torch.randn(shape, requires_grad=True), torch.randn(shape)
        for statistic in ("l2", "l1"):
            sides = sides_of(shape, statistic)
            best = dict.fromkeys(sides, float("inf"))
            for _ in range(rounds):
                for name, module in sides.items():
                    best[name] = min(best[name], timed(module, x, gradient))
            cells = " | ".join(milliseconds(seconds) for seconds in best.values())
            yield f"| {', '.join(map(str, shape))} | {statistic} | {cells} |"


def main():
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = "\n".join(table(options.rounds)) + "\n"
    if options.write is None:
        print(text, end="")
        return
    page = options.write.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END, 1)[1]
    options.write.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
