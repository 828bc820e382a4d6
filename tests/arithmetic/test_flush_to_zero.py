"""Another library may set the processor to flush subnormals: results stay right, or a clear error is raised."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import oracle
import pytest
from oracle import target

SCRIPT = """
import sys
import threading
import numpy as np
from normcheck.arithmetic.operations import operate, summed
from normcheck.arithmetic.rounding import round_to
from normcheck.errors import NormcheckError

moment, path = sys.argv[1:]
data = dict(np.load(path))


def work(key):
    _, job, name, dtype = key.split()
    x = data[key].view(dtype)
    if job == "round":
        return round_to(x, name)
    if job == "sum":
        return summed(x.reshape(2, -1), format=name, order="sequential").result
    return operate(job, x, x[::-1], format=name).result


def answers(prefix, into):
    for key in data:
        try:
            into[f"{prefix} {key}"] = np.ascontiguousarray(work(key)).view(np.uint8)
        except NormcheckError as error:
            assert "subnormal" in str(error), error


results = {}
if moment == "after":
    answers("unused", {})
import torch
assert torch.set_flush_denormal(True)
answers("main", results)
thread = threading.Thread(target=answers, args=("thread", results))  # inherits the processor's mode
thread.start()
thread.join()
np.savez(path, **results)
"""
JOBS = [
    ("round", "bfloat16", "float32"),
    ("round", "bfloat16", "float64"),
    ("round", "tf32", "float32"),
    ("round", "float32", "float64"),
    ("round", "float64", "float64"),
    ("add", "bfloat16", "float64"),
    ("add", "bfloat16", "float32"),
    ("multiply", "float32", "float32"),
    ("sum", "bfloat16", "float32"),
    ("sum", "float32", "float32"),
]


def numbers(name, dtype):
    form = target(name)
    tiny = float(form.magnitude(1)) * np.arange(1, 100)
    x = np.concatenate([tiny, 1.5 * tiny[:50], [float(form.smallest_normal), 1.0, -3.0, 0.1]])
    return np.concatenate([x, -x]).astype(dtype)


def expected(job, name, x):
    form = target(name)
    wide = oracle.widened(x)
    if job == "round":
        return [oracle.round_float(v, form) for v in wide.tolist()]
    if job == "sum":
        totals = []
        for row in wide.reshape(2, -1).tolist():
            total = 0.0
            for term in row:
                total = oracle.calculate("add", total, term, form=form)
            totals.append(total)
        return totals
    return [oracle.calculate(job, a, b, form=form) for a, b in zip(wide.tolist(), wide[::-1].tolist(), strict=True)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_flushing_before_or_after_the_first_use_is_never_silently_wrong(moment, tmp_path):
    path = tmp_path / "x.npz"
    keys = {f"{i} {job} {name} {dtype}": (job, name, dtype) for i, (job, name, dtype) in enumerate(JOBS)}
    data = {key: numbers(name, dtype) for key, (_, name, dtype) in keys.items()}
    np.savez(path, **{key: x.view(np.uint8) for key, x in data.items()})
    command = [sys.executable, "-c", SCRIPT, moment, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    wrong = []
    for key, raw in np.load(path).items():
        where, _, job, name, dtype = key.split()
        kind = np.float32 if job == "round" and dtype == "float32" else np.float64
        want = expected(job, name, data[key.removeprefix(where + " ")])
        good = oracle.agree(oracle.widened(raw.view(kind)), np.array(want))
        if not good.all():
            wrong.append(f"{key}: {np.count_nonzero(~good)} of {len(want)}")
    assert not wrong
