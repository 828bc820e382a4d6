"""What a kernel runs on: the processor, and the instruction set that its package uses of it."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}

LANES = {"AVX512": 16, "AVX2": 8, "NEON": 4, "DEFAULT": 8}
"""float32 numbers in a vector of each instruction set; torch's own, of plain code, are as long as those of AVX2."""
PLAIN = "DEFAULT"
"""What torch calls code for any processor; ``ATEN_CPU_CAPABILITY=default`` asks for it. It fuses no multiply-add."""


@dataclass(frozen=True, slots=True)
class Host:
    """isa: one of ``LANES``, or a name that the package uses. lanes: float32 numbers in a vector. cpu: its name."""

    isa: str
    lanes: int
    cpu: str


def host(*, by_torch: bool) -> Host:
    """Return this process's host; torch is asked for its own instruction set where it computes."""
    isa = widest()
    if by_torch:
        import torch  # noqa: PLC0415  # other packages' kernels do without

        isa = torch.backends.cpu.get_cpu_capability()
    return Host(isa, LANES.get(isa, 1), processor())


def widest() -> str:
    """Return the widest instruction set of the processor that ``LANES`` knows."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "NEON"
    there = set(_field("flags").split())
    return "AVX512" if there >= _AVX512 else "AVX2" if "avx2" in there else "DEFAULT"


def processor() -> str:
    """Return the name of the processor."""
    return _field("model name") or platform.processor() or platform.machine()


def machine() -> str:
    """Return architecture, operating system and number of processors."""
    return f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors"


@functools.cache
def _field(name: str) -> str:
    """The first such field of the system's list of processors; empty where there is none."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
