"""A comparison written by hand: every kind of change, many alike, one verdict alone, places of one report only."""

from __future__ import annotations

import dataclasses

from hand_built_model import BLOCKS, FINDINGS_OF_TIGHT, KEEP, MODEL, STEM, TIGHT, UNSAFE, finding

from normcheck.results import (
    Change,
    Comparison,
    FigureChange,
    FindingCounts,
    Measure,
    Report,
    SettingChange,
    Summary,
)

OLD, NEW = "main.json", "branch.json"


def figure(name: str, old: float | str | None, new: float | str | None, unit: str = "") -> FigureChange:
    return FigureChange(name=name, old=old, new=new, unit=unit)


def change(
    kind: str, rule: str | None, severity: str, layer: str | None, message: str, *figures: FigureChange, **of: str
):
    fields = {"norm": "batch-l2", "precision": "fp16", "implementation": "wide", "params": "half", "mode": "train"}
    return Change(
        kind=kind, rule=rule, severity=severity, layer=layer, message=message, figures=figures, **{**fields, **of}
    )


COLLAPSES = "2 of 64 rows collapse to beta, every output finite; the running variance is infinite"
LOSSES = tuple(0.0125 * place for place in range(5, 0, -1))
COLLAPSE = finding("NC102", "error", UNSAFE[0], COLLAPSES, KEEP, mode="eval", step="load", params="half")
DEVIATIONS = tuple(
    finding(
        "NC301",
        "warning",
        layer,
        f"relative rms error {loss:.3g}, 59.2 times that of one rounding",
        "use implementation `wide`",
        params="half",
        assumed=True,
        measure=Measure(name="deviation.relative_rms", value=loss, limit=0.00338, worse="higher", unit="ratio"),
    )
    for layer, loss in zip(BLOCKS, LOSSES, strict=False)
)
ROOM = dataclasses.replace(FINDINGS_OF_TIGHT[0], params="half")
REGRESSIONS = (
    change(
        "new",
        "NC102",
        "error",
        UNSAFE[0],
        COLLAPSES,
        figure("verdict", "ok", "unsafe"),
        figure("rows.bad", 0, 2, "rows"),
        figure("deviation.relative_rms", 0.000234, 0.5, "ratio"),
        figure("safe_scale.high", 512.0, None, "ratio"),
        mode="eval",
    ),
    change("worse", None, "error", STEM, "the verdict is unsafe, it was ok", figure("verdict", "ok", "unsafe")),
    *(
        change(
            "worse",
            "NC301",
            "warning",
            found.layer,
            found.message,
            figure("deviation.relative_rms", loss / 2, loss, "ratio"),
            figure("headroom.overflow_bits", 9.5, 4.0, "bits"),
        )
        for found, loss in zip(DEVIATIONS, LOSSES, strict=True)
    ),
    change(
        "new", "NC103", "warning", TIGHT[0], ROOM.message, figure("headroom.overflow_bits", 1.25, 0.75, "bits"),
    ),
)  # fmt: skip
IMPROVEMENTS = (
    change("gone", "NC104", "error", UNSAFE[1], "3 of 64 running variances are beyond float16", mode="eval"),
    change("better", "NC103", "warning", TIGHT[1], "0.5 bit", figure("headroom.overflow_bits", 0.25, 0.5, "bits")),
)
UNASKED = (
    change("new", "NC102", "note", BLOCKS[0], "16 of 16 rows collapse", implementation="pure"),
    change("gone", "NC202", "note", BLOCKS[1], "eps is subnormal in float16", implementation="pure"),
)
DIFF = dataclasses.replace(
    MODEL,
    command="diff",
    findings=(COLLAPSE, *DEVIATIONS, ROOM),
    advice=(),
    unreadable=(),
    summary=Summary(
        layers=14, results=len(MODEL.results), findings=FindingCounts(error=1, warning=6, note=0), known=23
    ),
    fail_on="note",
    comparison=Comparison(
        old=OLD,
        new=NEW,
        regressions=REGRESSIONS,
        improvements=IMPROVEMENTS,
        unchanged=22,
        only_old=("tail.norm", f"{STEM} batch-l2 float8_e5m2 wide train half"),
        only_new=tuple(f"{layer} batch-l2 fp32 wide train half" for layer in (STEM, *BLOCKS)),
        unasked=UNASKED,
        settings=(SettingChange(name="seed", old="0", new="1"), SettingChange(name="ftz", old="no", new="yes")),
    ),
)
SAME = dataclasses.replace(
    DIFF,
    findings=(),
    summary=dataclasses.replace(DIFF.summary, findings=FindingCounts(error=0, warning=0, note=0)),
    comparison=Comparison(old=OLD, new=NEW, regressions=(), improvements=(), unchanged=23),
)
AGAINST: Report = dataclasses.replace(
    DIFF, command="analyze", fail_on="error", comparison=dataclasses.replace(DIFF.comparison, new=None)
)
