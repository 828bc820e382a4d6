"""Speed and memory, measured side by side with memcpy and the peers in one run.

    python tests/benchmarks/compare.py [--write docs/performance.md] [--quick]

Every figure is the median processor time of several repetitions on one thread; figures of two threads and of whole
commands are wall time. Every comparison runs both sides in this process, in turn. Peers that are not installed are
left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from normcheck import __version__
from normcheck.analysis.engine import run, run_block
from normcheck.analysis.study import Runner, Study
from normcheck.arithmetic import kernels, sums
from normcheck.arithmetic.events import no_events
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.operations import rounded
from normcheck.arithmetic.rounding import NEAREST, fast_constants
from normcheck.norms.catalogue import implementation_named
from normcheck.norms.parameters import Parameters
from normcheck.norms.table import grouping, norm_named

_HOW = (
    "Written by `python tests/benchmarks/compare.py --write docs/performance.md`: medians, both sides of every "
    "comparison in one run and in turn. Processor time of one thread, but wall time for two threads and for commands."
)
Run = Callable[[], object]


def medians(*runs: Run, repeat: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Median seconds of each, run in turn so that a drift of the machine's speed meets all of them.

    Processor time unless told otherwise: what else runs on the machine does not count.
    """
    for once in runs:
        once()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeat):
        for place, once in enumerate(runs):
            start = clock()
            once()
            times[place].append(clock() - start)
    return [float(np.median(t)) for t in times]


def row(*cells: object) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |"


def table(*rows: str) -> str:
    columns = rows[0].count("|") - 1
    return "\n".join([rows[0], "|" + "---|" * columns, *rows[1:]]) + "\n"


def verdict(value: float, target: float, *, at_least: bool) -> str:
    met = value >= target if at_least else value <= target
    return "met" if met else f"missed by {abs(value / target - 1):.0%}"


def rounding_rates(n: int, repeat: int) -> str:
    """Rounding n float32 values to a format: plain, with event counts, and the peers."""
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    out, block, block_out = np.empty_like(x), x.reshape(1, -1), np.empty((1, n), np.float32)
    lines = [row("to", "what", "G elements/s", "of memcpy's rate", "target")]
    for name in ("float16", "bfloat16", "float8_e4m3fn"):
        form, events = format_named(name), no_events(1)
        k, none = fast_constants(form, NEAREST), np.zeros((1, 1), np.float32)

        def counted(k: np.ndarray = k, none: np.ndarray = none, events: object = events) -> None:
            kernels.fast_elementwise(
                kernels.COPY, block, none, block_out, k, events.counts, events.extremes, events.flags, np.False_
            )

        def plain(k: np.ndarray = k) -> None:
            kernels.fast_round_only(x, out, k)

        runs: dict[str, Run] = {"plain": plain, "with events": counted} | _rounding_peers(x, out, name)
        copy, *rest = medians(lambda: np.copyto(out, x), *runs.values(), repeat=repeat)
        lines.append(row(name, "memcpy (numpy.copyto)", f"{n / copy / 1e9:.2f}", "1", ""))
        for label, seconds in zip(runs, rest, strict=True):
            target = {"plain": 0.7, "with events": 0.4}.get(label)
            met = "" if target is None else f">= {target}: {verdict(copy / seconds, target, at_least=True)}"
            ours = f"normcheck, {label}" if target else label
            lines.append(row(name, ours, f"{n / seconds / 1e9:.3g}", f"{copy / seconds:.2g}", met))
    return table(*lines)


def _rounding_peers(x: np.ndarray, out: np.ndarray, name: str) -> dict[str, Run]:
    peers: dict[str, Run] = {}
    if name == "float16":
        half = np.empty(x.shape, np.float16)

        def by_numpy() -> None:
            half[...] = x
            out[...] = half

        peers["numpy round trip, preallocated"] = by_numpy
    if _has("ml_dtypes"):
        import ml_dtypes

        kind = np.float16 if name == "float16" else getattr(ml_dtypes, name)
        if name != "float16":
            low = np.empty(x.shape, kind)

            def by_ml_dtypes() -> None:
                low[...] = x
                out[...] = low

            peers["ml_dtypes round trip, preallocated"] = by_ml_dtypes
    import torch

    torch.set_num_threads(1)
    t, back = torch.from_numpy(x), torch.from_numpy(out)
    narrow = torch.empty(x.shape, dtype=getattr(torch, name))
    peers["torch copy_ there and back, preallocated"] = lambda: back.copy_(narrow.copy_(t))
    if _has("gfloat"):
        import gfloat
        from gfloat import formats as gf

        info = {
            "float16": gf.format_info_binary16,
            "bfloat16": gf.format_info_bfloat16,
            "float8_e4m3fn": gf.format_info_ocp_e4m3,
        }[name]
        few = x[: max(1, len(x) // 20)].astype(np.float64)
        copies = len(x) // len(few)

        def by_gfloat() -> None:
            for _ in range(copies):
                gfloat.round_ndarray(info, few)

        peers["gfloat round_ndarray"] = by_gfloat
    return peers


def column_sums(repeat: int) -> str:
    """Sequential float16 sums down the columns of (100000, 64), absorbed terms counted."""
    half = np.abs(np.random.default_rng(0).standard_normal((100_000, 64))).astype(np.float16)
    x, k = half.astype(np.float32).reshape(1, -1), fast_constants(format_named("fp16"), NEAREST)
    events, acc, suspect = no_events(1), np.zeros((1, 64), np.float32), np.zeros(1, np.uint8)

    def ours() -> None:
        acc[:] = 0
        sums.fast_lanes(x, acc, k, events.counts, events.extremes, suspect)

    def numpys() -> np.ndarray:
        return np.add.reduce(half, axis=0)

    mine, theirs = medians(ours, numpys, repeat=max(3, repeat // 3))
    assert np.array_equal(acc[0], numpys().astype(np.float32)), "the two sums differ"
    ratio = theirs / mine
    return table(
        row("sequential float16 column sums, (100000, 64)", "G terms/s", "ratio", "target"),
        row("numpy add.reduce(float16, axis=0), no counts", f"{x.size / theirs / 1e9:.3g}", "1", ""),
        row(
            "normcheck, absorbed terms counted, same bits",
            f"{x.size / mine / 1e9:.3g}",
            f"{ratio:.3g}",
            f">= 15: {verdict(ratio, 15, at_least=True)}",
        ),
    )


class ArraySource:
    """Rows of an array."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def draw(self, _grouping: object, row_start: int, row_stop: int, start: int, stop: int) -> np.ndarray:
        return self.x[row_start:row_stop, start:stop]


def whole_check(side: int, repeat: int) -> str:
    """A layer-l2 float16 `pure` check of side x side: all events, float64 reference, deviation."""
    import torch

    torch.set_num_threads(1)
    x = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    norm, io, how = norm_named("layer-l2"), format_named("fp16"), implementation_named("pure")
    study = Study(
        norm,
        grouping(norm, x.shape),
        io,
        ArraySource(x),
        1e-5,
        1.0,
        1,
        Parameters(),
        Parameters(form=io),
        (Runner(how, how.machine(io, io, NEAREST)),),
    )
    tensor, half = torch.from_numpy(x), x.astype(np.float16)

    def check() -> None:
        for start, stop in study.blocks():
            run_block(study, start, stop, whole=False)

    def by_numpy() -> float:
        """The same figures with numpy's float16: statistics, three event counts a step, reference, deviation."""
        return _numpy_check(half)

    def by_torch() -> object:
        return torch.nn.functional.layer_norm(tensor, (side,))

    native, mine = medians(by_torch, check, repeat=repeat)
    (numpys,) = medians(by_numpy, repeat=2)
    one, two = medians(
        lambda: run(study, jobs=1), lambda: run(study, jobs=2), repeat=max(3, repeat // 2), clock=time.perf_counter
    )
    n = x.size
    return table(
        row(f"float16 layer-l2 `pure` check of {side} x {side}", "ns/element", "ratio", "target"),
        row("torch float32 layer_norm forward (no check)", f"{native / n * 1e9:.3g}", "1", ""),
        row(
            "normcheck: events, reference, deviation",
            f"{mine / n * 1e9:.3g}",
            f"{mine / native:.3g}",
            f"<= 3: {verdict(mine / native, 3, at_least=False)}",
        ),
        row(
            "the same with numpy float16",
            f"{numpys / n * 1e9:.3g}",
            f"{numpys / mine:.3g} times normcheck",
            f">= 8: {verdict(numpys / mine, 8, at_least=True)}",
        ),
        row("normcheck, whole study, 1 thread", f"{one / n * 1e9:.3g}", "", ""),
        row(
            "normcheck, whole study, 2 threads",
            f"{two / n * 1e9:.3g}",
            f"{one / two:.3g} times as fast",
            f"near 2: {verdict(one / two, 1.6, at_least=True)} (at least 1.6)",
        ),
    )


def _numpy_check(x: np.ndarray) -> float:
    def events(y: np.ndarray) -> tuple[int, int, int]:
        size = np.abs(y)
        tiny = np.float16(2.0**-14)
        return int(np.isinf(y).sum()), int((y == 0).sum()), int(((size > 0) & (size < tiny)).sum())

    n, counts = np.float16(x.shape[1]), []
    with np.errstate(all="ignore"):
        mean = _lane_sum(x, counts) / n
        c = x - mean
        q = c * c
        variance = _lane_sum(q, counts) / n
        y = c * (np.float16(1) / np.sqrt(variance + np.float16(1e-5)))
    counts += [events(v) for v in (x, c, q, y)]
    exact = x.astype(np.float64)
    d = exact - exact.mean(1, keepdims=True)
    reference = d / np.sqrt((d * d).mean(1, keepdims=True) + 1e-5)
    ideal, error = reference.astype(np.float16).astype(np.float64) - reference, y.astype(np.float64) - reference
    ulp = np.spacing(np.maximum(np.abs(reference), 1.0).astype(np.float16)).astype(np.float64)
    figures = [np.sqrt((e * e).mean()) + np.abs(e).max() + (np.abs(e) / ulp).max() for e in (ideal, error)]
    return float(sum(figures))


def _lane_sum(x: np.ndarray, counts: list[object]) -> np.ndarray:
    acc = np.zeros((len(x), 32), np.float16)
    for start in range(0, x.shape[1], 32):
        term = x[:, start : start + 32]
        after = acc + term
        counts.append(int(((after == acc) & (term != 0)).sum()))
        acc = after
    while acc.shape[1] > 1:
        acc = acc[:, : acc.shape[1] // 2] + acc[:, acc.shape[1] // 2 :]
    return acc


def commands(quick: bool) -> str:
    """Whole processes: help, the first run after install, later runs, and the memory of a large layer."""
    main = [sys.executable, "-m", "normcheck"]
    default = [*main, "simulate", "--dist", "gaussian", "--precision", "fp16"]
    with tempfile.TemporaryDirectory() as cache:
        fresh = os.environ | {"NUMBA_CACHE_DIR": cache}
        first = _process(default, fresh)
        warm = min(_process(default, fresh)[0] for _ in range(3))
        shape = "64,64,224,224" if quick else "256,64,224,224"
        large = _process([*default, "--shape", shape], fresh)
    help_time = min(_process([*main, "--help"], dict(os.environ))[0] for _ in range(5))
    return table(
        row("command", "wall s", "peak MiB", "target"),
        row("`normcheck --help`", f"{help_time:.2f}", "", f"<= 0.4 s: {verdict(help_time, 0.4, at_least=False)}"),
        row(
            "the default run, first after install",
            f"{first[0]:.1f}",
            f"{first[1]:.0f}",
            f"<= 25 s: {verdict(first[0], 25, at_least=False)}",
        ),
        row("the default run, later", f"{warm:.2f}", "", f"< 3 s: {verdict(warm, 3, at_least=False)}"),
        row(
            f"`simulate --shape {shape}`",
            f"{large[0]:.0f}",
            f"{large[1]:.0f}",
            f"< 1024 MiB: {verdict(large[1], 1024, at_least=False)}",
        ),
    )


def _process(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak resident MiB of a process (measured in a child of its own, which has no other children)."""
    script = textwrap.dedent(
        """
        import resource, subprocess, sys, time
        start = time.perf_counter()
        code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
        print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, code)
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", script, *command], env=environment, capture_output=True, text=True, check=True
    )
    wall, peak, code = out.stdout.split()
    assert code in {"0", "1"}, f"{' '.join(command)} exited {code}"  # 1: findings
    return float(wall), float(peak)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _machine() -> str:
    import numba
    import torch

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    missing = [m for m in ("gfloat", "ml_dtypes", "mptorch", "mx") if not _has(m)]
    absent = f" Not installed, so not measured: {', '.join(missing)}." if missing else ""
    return (
        f"normcheck {__version__}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"numba {numba.__version__}, torch {torch.__version__}; {cpu}, {os.cpu_count()} processors.{absent}\n"
    )


def _modules(page: Path) -> str:
    """The section of the page that another benchmark writes."""
    _, heading, rest = page.read_text().partition("\n## Modules\n") if page.is_file() else ("", "", "")
    return heading + rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="write the tables into this Markdown file")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and a smaller large layer")
    asked = parser.parse_args()
    repeat = 5 if asked.quick else 15
    rounded(np.zeros(4, np.float32), format_named("fp16"), NEAREST)
    text = "\n".join(
        [
            "# Performance",
            "",
            _HOW,
            "",
            _machine(),
            "## Rounding 10^7 float32 values",
            "",
            rounding_rates(10**7, repeat),
            "## Sums",
            "",
            column_sums(repeat),
            "## A whole check",
            "",
            whole_check(4096, max(3, repeat // 2)),
            "## Commands",
            "",
            commands(asked.quick),
        ]
    )
    print(text)
    print(f"(this process: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB)")
    if asked.write:
        asked.write.write_text(text + _modules(asked.write))


if __name__ == "__main__":
    main()
