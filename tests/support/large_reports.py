"""Reports on models of any number of layers: no two objects are shared, as in a report that was computed or read."""

from __future__ import annotations

import random

from normcheck.results import (
    FORMAT,
    Deviation,
    Distance,
    Exponents,
    Finding,
    FindingCounts,
    FormatFacts,
    Headroom,
    Input,
    LayerFacts,
    Measure,
    ParameterFacts,
    Report,
    Representation,
    Result,
    Rows,
    RuleFacts,
    ScaleRatio,
    Shape,
    Statistic,
    Step,
    Summary,
    Tally,
    Tool,
    WorstRow,
)

PRECISIONS = {
    "fp16": FormatFacts(
        name="float16",
        label="fp16",
        precision=11,
        min_subnormal=2.0**-24,
        min_normal=2.0**-14,
        max_finite=65504.0,
        overflow_threshold=65520.0,
    ),
    "bf16": FormatFacts(
        name="bfloat16",
        label="bf16",
        precision=8,
        min_subnormal=2.0**-133,
        min_normal=2.0**-126,
        max_finite=255 * 2.0**120,
        overflow_threshold=511 * 2.0**119,
    ),
    "fp32": FormatFacts(
        name="float32",
        label="fp32",
        precision=24,
        min_subnormal=2.0**-149,
        min_normal=2.0**-126,
        max_finite=(2**24 - 1) * 2.0**104,
        overflow_threshold=(2**25 - 1) * 2.0**103,
    ),
}
STEPS = {
    "load": 1, "sum-mean": 1, "mean": 1, "center": 1, "square": 2, "sum": 2, "variance": 2, "eps": None,
    "root": None, "reciprocal": None, "normalize": None, "gain": None, "store": None,
}  # fmt: skip
RULES = {"NC102": "error", "NC103": "warning", "NC401": "note"}


def large_report(layers: int) -> Report:
    """Return a report on so many layers in three precisions: one result in twenty unsafe, one in ten degraded."""
    numbers = random.Random(0)  # noqa: S311 - figures, no secrets
    names = [f"stages.{i // 1000}.blocks.{i // 10 % 100}.norm{i % 10}" for i in range(layers)]
    results = [_result(name, precision, numbers) for name in names for precision in PRECISIONS]
    found = [_finding("NC401", name, None, "eps is 1e-05 by default: the file does not say", None) for name in names]
    found += [_of(result) for result in results if result.verdict != "ok"]
    counts = {severity: sum(f.severity == severity for f in found) for severity in RULES.values()}
    return Report(
        format=FORMAT,
        tool=Tool(name="normcheck", version="0.1.0"),
        command="analyze",
        settings={"models": ["large.safetensors"], "batch_size": 32, "spatial": [7, 7], "seed": 0},
        environment={"python": "3.11.7"},
        results=tuple(results),
        findings=tuple(found),
        skipped=(),
        summary=Summary(layers=layers, results=len(results), findings=FindingCounts(**counts)),
        layers=tuple(_layer(name) for name in names),
        rules=tuple(_rule(code) for code in RULES),
        formats=tuple(PRECISIONS.values()),
    )


def _layer(name: str) -> LayerFacts:
    return LayerFacts(
        name=name,
        file="large.safetensors",
        norm="batch-l2",
        aliases=(),
        how="its running statistics",
        sure=True,
        might_be=(),
        channels=256,
        num_groups=None,
        eps=1e-5,
        eps_source="assumed",
        stored="float32",
        assumed=("eps", "batch_size", "spatial"),
        size=1568,
    )


def _rule(code: str) -> RuleFacts:
    return RuleFacts(
        code=code,
        slug=code.lower(),
        title=f"the title of {code}",
        severity=RULES[code],
        why="why it matters",
        fix="what to do",
        documentation=f"docs/rules.md#{code.lower()}",
    )


def _finding(rule: str, layer: str, result: Result | None, message: str, measure: Measure | None) -> Finding:
    return Finding(
        rule=rule,
        severity=RULES[rule],
        layer=layer,
        norm="batch-l2",
        precision=result and result.precision,
        implementation=result and result.implementation,
        mode=result and result.mode,
        step=result and "square",
        message=message,
        fix=f"what to do about {rule}",
        assumed=False,
        params=result and result.params,
        measure=measure,
    )


def _of(result: Result) -> Finding:
    """Return the finding on a result that is not ok."""
    bits, bad = result.headroom.overflow_bits, result.rows.collapsed
    if result.verdict == "unsafe":
        measure = Measure(name="rows.collapsed", value=float(bad), limit=0.0, worse="higher", unit="rows")
        return _finding("NC102", result.layer, result, f"{bad} of 256 rows collapse to beta", measure)
    measure = Measure(name="headroom.overflow_bits", value=bits, limit=1.0, worse="lower", unit="bits")
    return _finding("NC103", result.layer, result, f"{bits:.3g} bits are left before square overflows", measure)


def _result(layer: str, precision: str, numbers: random.Random) -> Result:
    verdict = "unsafe" if (u := numbers.random()) < 0.05 else "degraded" if u < 0.15 else "ok"
    unsafe = verdict == "unsafe"
    bad, bits = 1 + numbers.randrange(9) if unsafe else 0, numbers.uniform(-2, 0) if unsafe else numbers.uniform(0, 9)
    return Result(
        layer=layer,
        norm="batch-l2",
        precision=precision,
        implementation="wide",
        mode="train",
        params="half",
        constant=None,
        k=None,
        shape=Shape(groups=256, size=1568, row="channel"),
        eps=1e-5,
        eps_on="variance",
        eps_source="assumed",
        input=Input(
            source="running statistics, z ~ gaussian",
            assumed=True,
            rows=256,
            elements=401408,
            exponents=Exponents(lowest=-20, counts=tuple(1000 + numbers.randrange(10**5) for _ in range(30))),
        ),
        steps=tuple(_step(name, degree, precision, numbers, unsafe=unsafe) for name, degree in STEPS.items()),
        overflow=_tally(bad),
        underflow=_tally(0),
        invalid=_tally(0),
        absorbed=_tally(0),
        rows=Rows(total=256, nonfinite=0, collapsed=bad, amplified=0, shrunk=0),
        worst_rows=tuple(
            WorstRow(index=i, kind="collapsed", s=numbers.random(), s_emulated=float("inf"), first_bad_step="square")
            for i in range(min(bad, 3))
        ),
        statistic=Statistic(
            zero_rows=0,
            flushed_rows=0,
            negative_rows=0,
            max_relative_error=numbers.random(),
            eps_share_max=numbers.random(),
            eps_dominated_rows=0,
        ),
        deviation=Deviation(ideal=Distance(**_figures(numbers)), **_figures(numbers)),
        representation=Representation(max_abs=numbers.random(), relative_rms=numbers.random()),
        scale_ratio=ScaleRatio(mean=numbers.random(), cv=numbers.random()),
        headroom=Headroom(
            overflow_bits=bits, overflow_step="square", underflow_bits=numbers.random(), underflow_step="statistic"
        ),
        safe_scale=None if unsafe else (numbers.random(), 1 + numbers.random()),
        verdict=verdict,
        parameters=_parameters(numbers),
        safe_magnitude=200 * numbers.random(),
    )


def _step(name: str, degree: int | None, precision: str, numbers: random.Random, *, unsafe: bool) -> Step:
    return Step(
        step=name,
        format=PRECISIONS[precision if name in ("load", "store") else "fp32"].name,
        degree=degree,
        operations=300000 + numbers.randrange(10**5),
        overflow=3000 + numbers.randrange(99) if unsafe and name == "square" else 0,
        subnormal=300 + numbers.randrange(10**4),
        absorbed=300 + numbers.randrange(10**4),
        cancelled_bits=numbers.random(),
        lost_mass=numbers.random() if name.startswith("sum") else None,
        max_abs=float("inf") if unsafe and name == "sum" else 1e5 * numbers.random(),
        min_abs=1e-5 * numbers.random(),
    )


def _tally(count: int) -> Tally:
    return Tally(count=count, of=5000000 + count, rows=count)


def _figures(numbers: random.Random) -> dict[str, float]:
    return {name: numbers.random() for name in Distance.__dataclass_fields__}


def _parameters(numbers: random.Random) -> ParameterFacts:
    return ParameterFacts(
        format="float16",
        of=1024,
        beyond=0,
        beyond_running_var=0,
        weights=256,
        flushed=0,
        scale_change=numbers.random(),
        shift=numbers.random(),
        worst=numbers.randrange(10**6),
    )
