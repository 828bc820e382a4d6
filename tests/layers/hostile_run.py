"""The process that reads hostile files: it prints what became of each."""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np

SECONDS = 10


class TooLongError(BaseException):
    """Reading took more than `SECONDS` of CPU time; no reader can take it for an error of its own."""


def _alarm(_signal, _frame):
    raise TooLongError


def outcome(path):
    """Return what became of reading a file and loading its tensors: ``read``, ``refused: ...`` or ``WRONG ...``."""
    from normcheck.errors import UnreadableError
    from normcheck.layers.contents import Contents
    from normcheck.layers.readers import read

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        contents = read(path)
        if not isinstance(contents, Contents):
            return f"WRONG result {type(contents)}"
        for tensor in list(contents.tensors.values())[:2000]:
            load_one(tensor, UnreadableError)
    except UnreadableError as error:
        line = str(error)
        one_line = line.isprintable() and str(path) in line and len(line) < 3000
        return f"refused: {line}" if one_line else f"WRONG line {line!r}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
        return f"WRONG {type(error).__name__}: {error}"
    else:
        return "read"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def load_one(tensor, refusal):
    """Load a tensor that is small, or claims to be larger than any file."""
    elements = int(np.prod(np.array(tensor.shape, dtype=object))) if tensor.shape else 1
    if 1 << 20 < elements < 1 << 36:
        return
    try:
        values = tensor.load()
    except refusal as error:
        if not str(error).isprintable():
            raise AssertionError(repr(error)) from error
        return
    assert values.shape == tensor.shape
    assert values.dtype in (np.float32, np.float64)


def peak_memory():
    """Return the largest memory of this process so far, in MiB; getrusage would count the parent's before exec too."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))[1]) >> 10


def main(paths):
    """Print a JSON object for each path: the outcome, the seconds of CPU it took, the peak memory so far in MiB.

    Time is of the CPU because that of the clock depends on what else the machine does; a reader that waits instead
    of working runs into the time limit of this whole process.
    """
    signal.signal(signal.SIGPROF, _alarm)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    for path in paths:
        start = time.process_time()
        result = outcome(path)
        seconds, peak = time.process_time() - start, peak_memory()
        sys.stdout.write(json.dumps({"path": path, "outcome": result, "seconds": seconds, "peak": peak}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.stdin.read()))
