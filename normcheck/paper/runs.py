"""Independent calls in processes of their own, each with one thread, and their results in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Self, TypeVar

from normcheck.errors import NormcheckError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

A = TypeVar("A")
R = TypeVar("R")


class Runs:
    """Where the runs of an experiment are computed. To be used in a ``with`` statement, which ends the processes.

    The processes are started anew (``spawn``) and take no state of this one: a function must set all seeds itself.
    torch has one thread in each, as it has here with ``jobs=1``, so results do not depend on `jobs`.

    Args:
        jobs: processes at once; 1 for none but this one; None for one a core.

    Attributes:
        watched: called with the share of the calls that have returned, from 0 to 1, and their label. It never falls:
            where an experiment maps several times, later calls count only beyond what was reached before.

    Raises:
        UsageError: fewer than one process.
    """

    def __init__(self, jobs: int | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs {jobs}: give 1 or more processes, or leave it out for one a core")
        self.jobs = jobs or os.cpu_count() or 1
        self._pool: ProcessPoolExecutor | None = None
        self._strangers = multiprocessing.active_children()
        self._watched: Callable[[float, str], None] | None = None
        self._asked = self._returned = 0
        self._shown = 0.0

    @property
    def watched(self) -> Callable[[float, str], None] | None:
        """What is told of progress; setting it begins the count anew."""
        return self._watched

    @watched.setter
    def watched(self, watched: Callable[[float, str], None] | None) -> None:
        self._watched = watched
        self._asked = self._returned = 0
        self._shown = 0.0

    def map(self, function: Callable[[A], R], arguments: Iterable[A], *, label: str) -> list[R]:
        """Return ``function(argument)`` of every argument, in their order.

        Args:
            function: one of a module, so that another process can import it.
            arguments: what pickle can carry, one to a call.
            label: what the calls do, in a few words, for the progress bar.

        Raises:
            NormcheckError: a process was lost, as where memory ran out. Whatever `function` raises: the other calls
                are given up.
        """
        calls = list(arguments)
        self._asked += len(calls)
        self._tell(label)
        if self.jobs == 1 or len(calls) == 1:
            return [self._counted(result, label) for result in _one_by_one(function, calls)]
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=context, initializer=_begin)
        futures: list[Future[R]] = []
        try:
            futures += [self._pool.submit(function, call) for call in calls]
            for future in as_completed(futures):
                self._counted(future.result(), label)
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise NormcheckError(
                f"{label}: a process ended before its result was there, which happens when memory runs out: "
                f"close what else is running, or give --jobs 1"
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _counted(self, result: R, label: str) -> R:
        self._returned += 1
        self._tell(label)
        return result

    def _tell(self, label: str) -> None:
        if self._watched is not None:
            self._shown = max(self._shown, self._returned / max(self._asked, 1))
            self._watched(self._shown, label)

    def __enter__(self) -> Self:
        """Begin; processes start when they are needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes: those still at work, after an error or an interrupt, at once."""
        if self._pool is None:
            return
        if error is not None:
            for child in multiprocessing.active_children():
                if child not in self._strangers:
                    child.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


def _one_by_one(function: Callable[[A], R], calls: Iterable[A]) -> Iterator[R]:
    with one_thread():
        for call in calls:
            yield function(call)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: the order of sums, and so the last bits, would depend on their number."""
    import torch  # noqa: PLC0415  # whoever lists the experiments does without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin() -> None:
    """Set up a process: one thread, silent at an interrupt from the keyboard, and not to outlive the one above."""
    import torch  # noqa: PLC0415  # as above

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    above: Any = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(above,), daemon=True).start()


def _end_with(above: Any) -> None:
    above.join()
    os._exit(1)
