"""The process that runs a project's kernels: one JSON object in, lines of JSON out.

A kernel that kills the process takes no other result with it: whoever started it goes on behind the kernel.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from normcheck.errors import NormcheckError
from normcheck.fidelity.hosts import host
from normcheck.fidelity.projects import PROJECTS

if TYPE_CHECKING:
    from normcheck.fidelity.hosts import Host
    from normcheck.fidelity.kernel import Kernel
    from normcheck.fidelity.projects import Project
    from normcheck.fidelity.results import RowRun


ALL_KERNELS = "all kernels"
"""What was not run where a project was not run at all."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is to do.

    project: its name. rows: of the catalogue; empty for all. outputs: to compare for each row, shared out among its
    kernels. seed: of the inputs. done: how many kernels to leave out at the start.
    """

    project: str
    rows: tuple[str, ...]
    outputs: int
    seed: int
    done: int = 0


def main() -> None:
    """Do the job on standard input; results go to standard output, which nothing else may write to."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print
    given = json.loads(sys.stdin.read())
    job = Job(**{**given, "rows": tuple(given["rows"])})
    project = PROJECTS[job.project]
    try:
        kernels = [k for k in project.kernels() if not job.rows or k.implementation in job.rows]
    except ImportError as error:
        _say(out, failed=str(error), what=ALL_KERNELS)
        return
    if not kernels and not job.rows:
        _say(out, failed="there is no device for them", what=ALL_KERNELS)
    here = host(by_torch=project.by_torch)
    of_row = Counter(kernel.implementation for kernel in kernels)
    for index, kernel in enumerate(kernels[job.done :], start=job.done):
        share = -(-job.outputs // of_row[kernel.implementation])
        _one(out, project, kernel, here, replace(job, outputs=share), index / len(kernels), 1 / len(kernels))


def described(kernel: Kernel | RowRun) -> str:
    """Return a kernel, or the one of a run, in words: its row, norm, precision and what else tells it from others."""
    mode = " eval" if kernel.mode == "eval" else ""
    mixed = " with float32 parameters" if kernel.params == "float32" and kernel.precision != "fp32" else ""
    return f"{kernel.implementation}, {kernel.norm}{mode} {kernel.precision}{mixed} {kernel.variant}".strip()


def _one(out: IO[str], project: Project, kernel: Kernel, here: Host, job: Job, before: float, part: float) -> None:
    from normcheck.fidelity.run import run  # noqa: PLC0415  # loads numba: after the library's own first import

    what = described(kernel)
    _say(out, begins=what, at=before)
    shown = 0.0

    def tick(done: float) -> None:
        nonlocal shown
        if done - shown > 0.02:
            shown = done
            _say(out, at=before + part * done, what=what)

    try:
        found = run(kernel, project.name, here, outputs=job.outputs, seed=job.seed, tick=tick)
    except NormcheckError as error:
        _say(out, failed=str(error), what=what)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is a line of the table
        _say(out, failed=f"{type(error).__name__}: {error}", what=what)
    else:
        _say(out, row=asdict(found))


def _say(out: IO[str], **message: Any) -> None:
    out.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
