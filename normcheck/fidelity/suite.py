"""All projects, each in processes of its own, and what they found together."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec

from normcheck import __version__
from normcheck.fidelity.hosts import machine
from normcheck.fidelity.projects import environments
from normcheck.fidelity.results import FORMAT, Fidelity, NotRun, RowRun
from normcheck.fidelity.worker import ALL_KERNELS, Job, described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from normcheck.fidelity.projects import Project

Found = RowRun | NotRun
_LINES_SHOWN = 3
"""Of what a process that died wrote last."""
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def run_suite(
    projects: Sequence[Project],
    *,
    rows: Sequence[str] = (),
    isas: Sequence[str] = (),
    outputs: int = 10**7,
    seed: int = 0,
    jobs: int | None = None,
    tick: Callable[[float, str], None] | None = None,
    done: Callable[[Found], None] | None = None,
) -> Fidelity:
    """Run the kernels of projects, in processes of their own, beside their rows.

    Args:
        projects: whose. rows: of the catalogue; empty for all. isas: instruction sets of torch; all of this machine
            where empty. outputs: elements to compare for each row, shared out among its kernels. seed: of the inputs:
            the same seed gives the same inputs.
        jobs: processes at once; None for one a core.
        tick: called with the share that is done, and what is being done. done: called with each result.

    Raises:
        UsageError: an instruction set that is not there. KeyboardInterrupt: so was a process.
    """
    tasks = [(project, env) for project in projects for env in environments(project, isas if project.isas else ())]
    shares, interrupted = [0.0] * len(tasks), threading.Event()

    def work(index: int) -> list[Found]:
        def at(share: float, what: str) -> None:
            shares[index] = share
            if tick is not None:
                tick(sum(shares) / len(tasks), what)

        if interrupted.is_set():
            return []
        project, env = tasks[index]
        try:
            return _Task(project, env, Job(project.name, tuple(rows), outputs, seed), at, done).run()
        except KeyboardInterrupt:
            interrupted.set()
            raise

    with ThreadPoolExecutor(os.cpu_count() if jobs is None else jobs) as pool:
        try:
            found = [each for several in pool.map(work, range(len(tasks))) for each in several]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Fidelity(
        format=FORMAT,
        version=__version__,
        python=platform.python_version(),
        machine=machine(),
        rows=tuple(each for each in found if isinstance(each, RowRun)),
        not_run=tuple(each for each in found if isinstance(each, NotRun)),
    )


@dataclass(slots=True)
class _Task:
    """A project in one environment; its process is started again behind a kernel that it died of."""

    project: Project
    environment: Mapping[str, str]
    job: Job
    at: Callable[[float, str], None]
    done: Callable[[Found], None] | None

    def run(self) -> list[Found]:
        missing = [name for name in self.project.packages if not _is_there(name)]
        if missing:
            return self._told([self._failed(ALL_KERNELS, f"{', '.join(missing)}: not installed")])
        found: list[Found] = []
        job, ended = self.job, False
        while not ended:
            told, begun, ended = self._process(job)
            found += told
            job = replace(job, done=job.done + begun)
        self.at(1.0, self.project.name)
        return found

    def _process(self, job: Job) -> tuple[list[Found], int, bool]:
        """What a process found, how many kernels it began, and whether it came to its end."""
        command = [sys.executable, "-m", "normcheck.fidelity.worker"]
        env = {**os.environ, **_THREADS, **self.environment}
        found: list[Found] = []
        begun, what = 0, ALL_KERNELS
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(  # noqa: S603  # our own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, text=True
            ) as process,
        ):
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  # both are pipes
            process.stdin.write(json.dumps(asdict(job)))
            process.stdin.close()
            for line in process.stdout:
                message = json.loads(line)
                if "begins" in message:
                    begun, what = begun + 1, message["begins"]
                found += self._told(self._read(message))
            code = process.wait()
            if code == -signal.SIGINT:
                raise KeyboardInterrupt
            if code:
                errors.seek(0)
                last = " ".join(errors.read().split("\n")[-_LINES_SHOWN - 1 :]).strip()
                found += self._told([self._failed(what, f"the process ended with code {code}: {last}")])
        return found, begun, code == 0 or begun == 0

    def _read(self, message: dict[str, Any]) -> list[Found]:
        if "at" in message:
            self.at(message["at"], str(message.get("what") or message.get("begins")))
        if "row" in message:
            return [msgspec.convert(message["row"], RowRun, strict=False)]
        if "failed" in message:
            return [self._failed(message["what"], message["failed"])]
        return []

    def _failed(self, what: str, reason: str) -> NotRun:
        return NotRun(project=self.project.name, what=what, reason=" ".join(reason.split()))

    def _told(self, found: list[Found]) -> list[Found]:
        if self.done is not None:
            for each in found:
                self.done(each)
        return found


def _is_there(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def merged(before: Fidelity | None, now: Fidelity, *, complete: bool = True) -> Fidelity:
    """Return both, runs of now in the place of earlier ones of the same key, in the order of projects and rows.

    An earlier run stays where it compared more than twice as many outputs of the same row and packages. complete: all
    kernels of the projects of now were asked for, so that earlier runs of others are of kernels that are gone.
    """
    if before is None:
        return now
    failed = {(item.project, item.what) for item in now.not_run}
    ran = {(row.project, row.isa) for row in now.rows}
    rows = {row.key: row for row in now.rows}
    for row in before.rows:
        gone = complete and (row.project, row.isa) in ran and (row.project, described(row)) not in failed
        if row.key in rows:
            rows[row.key] = _longer(row, rows[row.key])
        elif not gone:
            rows[row.key] = row
    there = {item for row in now.rows for item in ((row.project, described(row)), (row.project, ALL_KERNELS))}
    asked = {name for name, _ in failed | there} if complete else set()
    left = (i for i in before.not_run if i.project not in asked and (i.project, i.what) not in failed | there)
    return replace(now, rows=tuple(rows[key] for key in sorted(rows)), not_run=(*left, *now.not_run))


def _longer(before: RowRun, now: RowRun) -> RowRun:
    """The later run, unless the earlier one of the same row and packages compared more than twice as many outputs."""
    alike = (before.digest, before.packages) == (now.digest, now.packages)
    return before if alike and before.outputs.numbers > 2 * now.outputs.numbers else now


def kept(found: Iterable[RowRun]) -> bool:
    """Whether all promises were kept."""
    return all(row.kept for row in found)
