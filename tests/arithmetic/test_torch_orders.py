"""Orders and recurrences of torch's CPU kernels, against those kernels: sums, means and reciprocal deviations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

SCRIPT = Path(__file__).with_name("torch_orders.py")
LANES = {"AVX512": 16, "AVX2": 8, "DEFAULT": 8}


@pytest.mark.parametrize(("capability", "threads"), [("avx512", 1), ("avx2", 3), ("default", 1)])
def test_torchs_statistics_are_the_engines_to_the_bit(capability, threads):
    here = torch.backends.cpu.get_cpu_capability()
    if here not in LANES or LANES[here] < LANES[capability.upper()] or (here == "DEFAULT" and capability != "default"):
        pytest.skip(f"torch runs as {here} here")
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, str(SCRIPT), str(threads)]
    out = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert (found["capability"], found["lanes"]) == (capability.upper(), LANES[capability.upper()])
    assert found["differing"] == {name: [0] * len(counts) for name, counts in found["differing"].items()}
    assert len(found["differing"]) == 16
