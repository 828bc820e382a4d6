"""normcheck.paper.runs: results in order, one thread each, errors that end everything, progress that never falls."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch

from normcheck.errors import NormcheckError, UsageError
from normcheck.paper.runs import Runs


def slow_first(number):
    time.sleep(0.3 if number == 0 else 0)
    return number, os.getpid(), torch.get_num_threads()


def refuses(number):
    if number == 1:
        raise UsageError("number 1")
    return number


def dies(number):
    if number == 1:
        os._exit(7)
    return number


def interrupted_at_work(runs):
    runs.map(slow_first, (1, 2), label="counting")
    for _ in range(2):
        runs._pool.submit(time.sleep, 60)
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def two():
    with Runs(2) as runs:
        yield runs


def test_results_come_in_the_order_of_the_arguments_from_processes_of_one_thread(two):
    numbers, processes, threads = zip(*two.map(slow_first, range(5), label="counting"), strict=True)
    assert numbers == (0, 1, 2, 3, 4)
    assert os.getpid() not in processes
    assert set(threads) == {1}


def test_what_a_call_raises_is_raised_here_and_the_processes_serve_on(two):
    with pytest.raises(UsageError, match="number 1"):
        two.map(refuses, range(3), label="refusing")
    assert two.map(refuses, (2, 3), label="counting") == [2, 3]


def test_a_lost_process_is_one_line_that_says_what_to_do():
    with Runs(2) as runs, pytest.raises(NormcheckError, match=r"dying: a process ended.*--jobs 1"):
        runs.map(dies, range(2), label="dying")


def test_an_error_ends_the_processes_at_once():
    before = set(multiprocessing.active_children())
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Runs(2) as runs:
        interrupted_at_work(runs)
    assert time.monotonic() - start < 50
    assert set(multiprocessing.active_children()) <= before


def test_one_job_stays_in_this_process_and_gives_back_the_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with Runs(1) as runs:
            assert runs.map(slow_first, (1, 2), label="counting") == [(1, os.getpid(), 1), (2, os.getpid(), 1)]
            with pytest.raises(UsageError):
                runs.map(refuses, (0, 1), label="refusing")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_progress_goes_from_0_to_1_over_several_maps_and_never_falls():
    told = []
    with Runs(1) as runs:
        runs.watched = lambda share, label: told.append((share, label))
        runs.map(abs, (1, 2), label="first")
        runs.map(abs, (1, 2), label="second")
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (told[0], told[-1]) == ((0.0, "first"), (1.0, "second"))


def test_the_count_begins_anew_for_each_who_watches():
    told = []
    with Runs(1) as runs:
        for _ in range(2):
            runs.watched = lambda share, _: told.append(share)
            runs.map(abs, (1, 2), label="counting")
    assert told == [0.0, 0.5, 1.0] * 2


@pytest.mark.parametrize("jobs", [0, -1])
def test_fewer_than_one_process_is_refused(jobs):
    with pytest.raises(UsageError, match="1 or more"):
        Runs(jobs)


def test_without_a_number_there_is_a_process_a_core():
    assert Runs().jobs == os.cpu_count()
