"""One report written by hand: every verdict and severity, infinities, NaN, absent figures, long names."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

from normcheck.results import (
    Deviation,
    Distance,
    Finding,
    FindingCounts,
    Headroom,
    Input,
    Report,
    Representation,
    Result,
    Rows,
    ScaleRatio,
    Shape,
    Skipped,
    Statistic,
    Step,
    Summary,
    Tally,
    Tool,
    WorstRow,
)

LONG_IMPLEMENTATION = "torch-cpu-groupnorm-channels-last-legacy-one-pass"
OPERATIONS = 107536


def error(relative_rms: float | None, **fields: float | None) -> Distance:
    plain = dict.fromkeys(
        ("max_abs", "mean_abs", "rms", "max_ulp", "mean_ulp", "sqnr_db", "gain", "gain_sd", "offset", "noise")
    )
    return Distance(relative_rms=relative_rms, **{**plain, **fields})


def deviation(relative_rms: float | None, ideal: float | None, **fields: float | None) -> Deviation:
    plain = error(relative_rms, **fields)
    return Deviation(ideal=error(ideal, sqnr_db=73.1), **{name: getattr(plain, name) for name in Distance.__slots__})


_NOUNS = {"batch": "channel", "instance": "instance", "layer": "token"}


def row_noun(norm: str) -> str:
    return _NOUNS[norm.split("-", maxsplit=1)[0]]


def result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "layer": None,
        "norm": "batch-l2",
        "precision": "fp16",
        "implementation": "pure",
        "mode": "train",
        "params": "half",
        "constant": None,
        "k": None,
        "shape": Shape(groups=16, size=512),
        "eps": 1e-5,
        "eps_on": "variance",
        "eps_source": "option",
        "input": Input(source="gaussian(mean=0, std=100)", assumed=False, rows=16, elements=8192),
        "steps": (),
        "overflow": Tally(count=0, of=OPERATIONS, rows=0),
        "underflow": Tally(count=0, of=OPERATIONS, rows=0),
        "invalid": Tally(count=0, of=OPERATIONS, rows=0),
        "absorbed": Tally(count=0, of=OPERATIONS, rows=0),
        "rows": Rows(total=16, nonfinite=0, collapsed=0, amplified=0, shrunk=0),
        "worst_rows": (),
        "statistic": Statistic(
            zero_rows=0,
            flushed_rows=0,
            negative_rows=0,
            max_relative_error=0.000712,
            eps_share_max=1.23e-9,
            eps_dominated_rows=0,
        ),
        "deviation": deviation(
            0.000234,
            0.000211,
            max_abs=0.00195,
            mean_abs=7.31e-5,
            rms=0.000234,
            max_ulp=1.25,
            mean_ulp=0.3125,
            sqnr_db=72.6,
            gain=-2.5e-5,
            gain_sd=1.5e-4,
            offset=3.0e-6,
            noise=0.000209,
        ),
        "representation": Representation(max_abs=0.0312, relative_rms=0.000208),
        "scale_ratio": ScaleRatio(mean=1.0, cv=0.0),
        "headroom": Headroom(
            overflow_bits=111.0, overflow_step="square", underflow_bits=70.25, underflow_step="statistic"
        ),
        "safe_scale": (1.25e-07, 655.2),
        "verdict": "ok",
    }
    made = Result(**{**fields, **changes})
    return replace(made, shape=replace(made.shape, row=row_noun(made.norm)))


COLLAPSED = result(
    steps=(
        Step(step="load", format="float16", degree=1, operations=8192, max_abs=397.25, min_abs=0.0117),
        Step(
            step="square",
            format="float16",
            degree=2,
            operations=8192,
            overflow=93,
            subnormal=2,
            underflow=1,
            rows_affected=16,
            max_abs=157807.5625,
            min_abs=3.1e-9,
        ),
        Step(
            step="sum",
            format="float16",
            degree=2,
            operations=8192,
            absorbed=41,
            overflow=7,
            rows_affected=4,
            lost_mass=inf,
            cancelled_bits=1.5,
            max_abs=inf,
            min_abs=0.25,
        ),
        Step(
            step="reciprocal",
            format="float16",
            degree=-1,
            operations=16,
            invalid=0,
            lost_mass=None,
            max_abs=0.0,
            min_abs=0.0,
        ),
        Step(
            step="normalize",
            format="float16",
            degree=None,
            operations=8192,
            invalid=3,
            underflow=8192,
            rows_affected=16,
            lost_mass=0.0125,
            max_abs=nan,
            min_abs=nan,
        ),
    ),
    overflow=Tally(count=100, of=OPERATIONS, rows=16),
    underflow=Tally(count=8193, of=OPERATIONS, rows=16),
    invalid=Tally(count=3, of=OPERATIONS, rows=1),
    rows=Rows(total=16, nonfinite=1, collapsed=13, amplified=1, shrunk=1),
    worst_rows=(
        WorstRow(index=7, kind="collapsed", s=100.25, s_emulated=inf, first_bad_step="square"),
        WorstRow(index=2, kind="nonfinite", s=99.5, s_emulated=nan, first_bad_step=None),
    ),
    statistic=Statistic(
        zero_rows=0,
        flushed_rows=0,
        negative_rows=1,
        max_relative_error=inf,
        eps_share_max=1.1e-9,
        eps_dominated_rows=0,
    ),
    deviation=deviation(
        0.991,
        0.000211,
        max_abs=4.01,
        mean_abs=0.79,
        rms=0.991,
        max_ulp=1030.5,
        mean_ulp=410.0,
        sqnr_db=0.0785,
        gain=-0.982,
        gain_sd=0.131,
        offset=0.0125,
        noise=0.119,
    ),
    headroom=Headroom(overflow_bits=-0.634, overflow_step="square", underflow_bits=10.5, underflow_step="statistic"),
    safe_scale=None,
    verdict="unsafe",
)

NEVER_FINITE = result(
    norm="instance-topk-uncentred",
    precision="float8_e4m3fnuz",
    implementation=LONG_IMPLEMENTATION,
    constant="paper",
    k=10,
    eps_on="statistic",
    shape=Shape(groups=128, size=64),
    input=Input(source="gaussian(mean=0, std=100)", assumed=False, rows=128, elements=8192),
    overflow=Tally(count=1234567, of=9876543, rows=128),
    underflow=Tally(count=17, of=9876543, rows=None),
    invalid=Tally(count=128, of=9876543, rows=None),
    rows=Rows(total=128, nonfinite=128, collapsed=0, amplified=0, shrunk=0),
    worst_rows=(WorstRow(index=0, kind="nonfinite", s=0.0, s_emulated=-inf, first_bad_step="load"),),
    statistic=Statistic(
        zero_rows=128,
        flushed_rows=0,
        negative_rows=0,
        max_relative_error=nan,
        eps_share_max=inf,
        eps_dominated_rows=128,
    ),
    deviation=deviation(None, None),
    representation=Representation(max_abs=inf, relative_rms=nan),
    scale_ratio=ScaleRatio(mean=nan, cv=nan),
    headroom=Headroom(overflow_bits=-inf, overflow_step="load", underflow_bits=None, underflow_step=None),
    safe_scale=None,
    verdict="unsafe",
)

TIGHT = result(
    norm="batch-l1",
    constant="exact",
    eps_on="statistic",
    underflow=Tally(count=5, of=OPERATIONS, rows=3),
    deviation=deviation(0.00512, 0.0, gain=0.0, noise=1.25e-5),
    headroom=Headroom(overflow_bits=0.583, overflow_step="sum", underflow_bits=20.0, underflow_step="statistic"),
    safe_scale=(0.00390625, 1.49609375),
    verdict="degraded",
)

CLEAN = result(implementation="wide")
UNBOUNDED = result(
    precision="fp32",
    implementation="pure-scaled",
    mode="eval",
    headroom=Headroom(overflow_bits=None, overflow_step=None, underflow_bits=None, underflow_step=None),
    safe_scale=(0.0, inf),
)


def finding(
    rule: str,
    severity: str,
    of: Result,
    message: str,
    fix: str,
    *,
    step: str | None = None,
    assumed: bool = False,
) -> Finding:
    return Finding(
        rule=rule,
        severity=severity,
        layer=of.layer,
        norm=of.norm,
        precision=of.precision,
        implementation=of.implementation,
        mode=of.mode,
        step=step,
        message=message,
        fix=fix,
        assumed=assumed,
    )


EPS_NOTE = "eps 1e-05 is subnormal in float16 (1.0014e-05, 1 bit of precision left)"
SQUARES = "13 of 16 channels came out as beta: the squares of 93 of 8192 elements are infinite"
FINDINGS = (
    finding("NC202", "note", COLLAPSED, EPS_NOTE, "use eps 6.2e-05 or more", step="eps"),
    finding("NC202", "note", TIGHT, EPS_NOTE, "use eps 6.2e-05 or more", step="eps"),
    finding(
        "NC103",
        "warning",
        TIGHT,
        "0.583 bits are left before the sum overflows",
        "use pure-scaled or wide",
        step="sum",
        assumed=True,
    ),
    finding(
        "NC102",
        "error",
        COLLAPSED,
        SQUARES,
        "accumulate and square in float32 (implementation wide), or use batch-l1",
        step="square",
    ),
    finding(
        "NC101",
        "error",
        NEVER_FINITE,
        "128 of 128 instances hold NaN or infinity",
        "store the input in bfloat16",
        step="load",
    ),
    finding("NC306", "warning", UNBOUNDED, "eps is 12 % of the variance (1e-05 of 8.3e-05)", ""),
)

REPORT = Report(
    format=1,
    tool=Tool(name="normcheck", version="0.1.0"),
    command="simulate",
    settings={
        "distribution": "gaussian(mean=0, std=100)",
        "shape": [8, 16, 8, 8],
        "eps": 1e-5,
        "seed": 7,
        "precisions": ["fp16", "float8_e4m3fnuz", "fp32"],
        "limit": inf,
    },
    environment={"python": "3.11.7", "machine": "x86_64"},
    results=(CLEAN, TIGHT, COLLAPSED, UNBOUNDED, NEVER_FINITE),
    findings=FINDINGS,
    skipped=(
        Skipped(
            name="fastertransformer-addbias-ln-v2-half",
            reason="defines layer norms only, batch-l2 was asked for",
        ),
    ),
    summary=Summary(layers=0, results=5, findings=FindingCounts(error=2, warning=2, note=2)),
)

EMPTY = Report(
    format=1,
    tool=REPORT.tool,
    command="simulate",
    settings={},
    environment={},
    results=(),
    findings=(),
    skipped=REPORT.skipped,
    summary=Summary(layers=0, results=0, findings=FindingCounts(error=0, warning=0, note=0)),
)
