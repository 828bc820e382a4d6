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
from normcheck.errors import NormcheckError

moment, job, name, path, threaded = sys.argv[1:]
data = dict(np.load(path))
bits = {"float32": np.uint32, "float64": np.uint64}


def flush():
    import torch
    assert torch.set_flush_denormal(True)


def work():
    from normcheck.arithmetic.operations import operate, summed
    from normcheck.arithmetic.rounding import round_to
    x = data["x"].view(data["x"].dtype.name.replace("uint", "float"))
    if job == "round":
        return round_to(x, name)
    if job == "sum":
        return summed(x.reshape(2, -1), format=name, order="sequential").result
    return operate(job, x, x[::-1], format=name).result


def attempt():
    try:
        if moment == "before":
            flush()
        if moment == "after":
            work()
            flush()
        got = work()
    except NormcheckError as error:
        assert "subnormal" in str(error) or "flush" in str(error), error
        print("refused")
        return
    raw = got.astype(np.float64) if job != "round" else got  # widening float32 flushes, comparing bits does not
    np.save(path + ".npy", np.ascontiguousarray(raw).view(bits[raw.dtype.name]))
    print("computed")


if threaded == "thread":
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
else:
    attempt()
"""


def numbers(name, dtype):
    form = target(name)
    tiny = float(form.magnitude(1)) * np.arange(1, 200)
    x = np.concatenate([tiny, 1.5 * tiny[:50], [float(form.smallest_normal), 1.0, -3.0, 0.1]])
    x = np.concatenate([x, -x])
    return x.astype(dtype)


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


@pytest.mark.parametrize("moment", ["before", "after", "never"])
@pytest.mark.parametrize(
    ("job", "name", "dtype", "threaded"),
    [
        ("round", "bfloat16", np.float32, "main"),
        ("round", "bfloat16", np.float64, "thread"),
        ("round", "tf32", np.float32, "main"),
        ("add", "bfloat16", np.float64, "main"),
        ("multiply", "float32", np.float64, "main"),
        ("sum", "bfloat16", np.float32, "main"),
    ],
)
def test_never_silently_wrong(moment, job, name, dtype, threaded, tmp_path):
    x = numbers(name, dtype)
    path = tmp_path / "x.npz"
    np.savez(path, x=x.view(np.uint32 if dtype == np.float32 else np.uint64))
    command = [sys.executable, "-c", SCRIPT, moment, job, name, str(path), threaded]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip()
    assert answer in {"refused", "computed"}, done.stderr
    if moment == "never":
        assert answer == "computed"
    if answer == "computed":
        raw = np.load(f"{path}.npy")
        got = raw.view(np.float32 if raw.dtype == np.uint32 else np.float64)
        oracle.assert_same(got, expected(job, name, x), label=f"{moment} {job} {name}")
