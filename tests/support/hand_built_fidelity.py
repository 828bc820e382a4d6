"""One run of the fidelity suite, made by hand: what its table, its page and what it keeps are tried on."""

from normcheck.fidelity.results import Compared, RowRun
from normcheck.norms.catalogue import catalogue
from normcheck.norms.evidence import digest

ROW = RowRun(
    implementation="wide",
    project="mlx",
    norm="rms",
    precision="fp16",
    params="io",
    mode="train",
    variant="",
    packages={"mlx": "1.2"},
    isa="AVX2",
    lanes=8,
    cpu="a processor",
    date="2026-11-23",
    seed=0,
    trials=1,
    outputs=Compared(numbers=1000, identical=1000),
    mean=None,
    rstd=Compared(numbers=10, identical=10),
    running=None,
    worst=None,
    worst_statistic=None,
    promised=0.999,
    most_ulps=None,
    reason="",
    kernel_seconds=0.1,
    row_seconds=0.2,
    digest=digest(catalogue()["wide"]),
)
