"""normcheck.paper.experiments: which experiments a name means, and one result of all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hand_built_reproduction import ROWS, Stand

from normcheck.errors import UsageError
from normcheck.paper.experiments import EXPERIMENTS, experiments_named, reproduce


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


def names(*given):
    return [row.name for row in experiments_named(given)]


def test_names_and_letters_mean_the_same_in_the_order_of_the_table():
    assert names("e", "statistics") == names("constants", "a", "a") == ["statistics", "constants"]
    assert names() == list(EXPERIMENTS)
    assert [row.letter for row in EXPERIMENTS.values()] == ["a", "b", "c", "d", "e"]


def test_an_unknown_name_is_refused_with_those_that_are_near():
    with pytest.raises(UsageError, match=r"unknown experiment 'weight-nrom': did you mean weight-norm"):
        names("weight-nrom")


def test_the_list_loads_neither_torch_nor_the_experiments():
    code = "import sys; import normcheck.paper.experiments; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "normcheck.paper.runs" in loaded
    assert loaded.isdisjoint({"torch", "numba", "scipy", "matplotlib", "numpy"})


def test_all_are_run_one_after_the_other_and_timed(stand):
    ended = []
    found = reproduce(list(ROWS.values()), quick=True, jobs=1, done=ended.append)
    assert stand.calls == [("first", True, 1), ("second-one", True, 1)]
    assert tuple(ended) == found.experiments
    assert [experiment.name for experiment in ended] == ["first", "second-one"]
    assert all(0 <= experiment.seconds < 5 for experiment in ended)
    assert (found.format, found.quick, found.tool.name) == (1, True, "normcheck")
    assert {"torch", "numpy", "machine"} <= found.environment.keys()
    assert found.environment["jobs"] == "1"


@pytest.mark.usefixtures("stand")
def test_progress_is_of_the_whole():
    told = []
    reproduce(list(ROWS.values()), jobs=1, tick=lambda share, at: told.append((share, at)))
    assert told[0] == (0.0, "first: counting")
    assert (0.25, "first: counting") in told
    assert told[-1] == (1.0, "second-one: counting")
    assert [share for share, _ in told] == sorted(share for share, _ in told)
