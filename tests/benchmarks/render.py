"""Time and memory of every output for a report on many layers, beside what was promised.

    python tests/benchmarks/render.py [--layers 10000] [--only json,table]

The report has three precisions a layer. Each output is made in a process of its own, which builds the report, makes
the output and throws it away piece by piece. `seconds` are of the output alone, the peak is of the whole process:
`report` is what the report takes by itself.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import Report

TIME_TARGET, MEMORY_TARGET = 10, 500
"""Seconds and MiB for each output of 10,000 layers, but the steps of all, which nobody reads."""

ALONE, TABLE, STEPS = "report", "table", "steps"


def outputs() -> list[str]:
    """Return the report alone, which is no output, and every output; `steps` is the table with those of each layer."""
    from normcheck.cli.deliver import OUTPUTS

    return [ALONE, TABLE, *OUTPUTS, STEPS]


def measure(output: str, layers: int) -> dict[str, float]:
    """Return what one output takes in a process of its own: seconds by the clock and the processor, MiB, bytes."""
    command = [sys.executable, __file__, "--layers", str(layers), "--child", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        text = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code:
        raise SystemExit(f"{output}: exit {code}")
    peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 2**20
    return {**json.loads(text), "peak": peak}


def child(output: str, layers: int) -> None:
    """Make one output, throw it away, and print what that took."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
    from large_reports import large_report

    report = large_report(layers)
    start, processor = time.perf_counter(), time.process_time()
    size = sum(len(piece.encode()) for piece in pieces(output, report))
    took = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor, "bytes": size}
    sys.stdout.write(json.dumps(took))


def pieces(output: str, report: Report) -> Iterator[str]:
    """Return the text of an output in pieces."""
    from normcheck.cli.deliver import OUTPUTS

    if output == ALONE:
        return iter(())
    if output in (TABLE, STEPS):
        from normcheck.render import table

        return table.pieces(report, width=80, with_steps=output == STEPS)
    made: Iterator[str] = importlib.import_module(OUTPUTS[output]).pieces(report)
    return made


def main() -> None:
    """Measure the outputs asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=10_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=None)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.layers)
        return
    print(f"{arguments.layers} layers x 3 precisions; the aim for 10000: {TIME_TARGET} s, {MEMORY_TARGET} MiB")
    print("output     seconds  processor  peak MiB  MB written")
    for output in arguments.only or outputs():
        took = measure(output, arguments.layers)
        figures = f"{took['seconds']:7.2f}  {took['processor']:9.2f}  {took['peak']:8.0f}  {took['bytes'] / 1e6:10.1f}"
        print(f"{output:9}  {figures}", flush=True)


if __name__ == "__main__":
    main()
