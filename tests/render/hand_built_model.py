"""A report on a model, written by hand: layers that fold, a view not asked for, advice, open findings."""

from __future__ import annotations

import dataclasses
from math import inf

from hand_built import COLLAPSED, deviation, result

from normcheck.results import (
    Advice,
    Finding,
    FindingCounts,
    Headroom,
    Input,
    LayerFacts,
    ParameterFacts,
    Report,
    Result,
    Rows,
    Shape,
    Skipped,
    Summary,
    Tally,
    Tool,
    WorstRow,
)

FILE = "resnet.pt"
STEM, HEAD = "stem.bn", "head.norm"
BLOCKS = tuple(f"layer{stage}.{block}.bn{index}" for stage in (1, 2, 3) for block in (0, 1) for index in (1, 2))
BATCH = (STEM, *BLOCKS)
UNSAFE = ("layer3.0.bn2", "layer3.1.bn2")
TIGHT = ("layer2.1.bn1", "layer3.0.bn1", "layer3.1.bn1")
LOUDEST = "layer1.1.bn2"


def facts(name: str, **changes: object) -> LayerFacts:
    fields: dict[str, object] = {
        "name": name,
        "file": FILE,
        "norm": "batch-l2",
        "aliases": (),
        "how": "its running statistics",
        "sure": True,
        "might_be": (),
        "channels": 64,
        "num_groups": None,
        "eps": 1e-5,
        "eps_source": "assumed",
        "stored": "float32",
        "assumed": ("eps", "batch_size", "spatial", "input"),
        "size": 2048,
    }
    return LayerFacts(**{**fields, **changes})


def room(bits: float, step: str = "square") -> Headroom:
    return Headroom(overflow_bits=bits, overflow_step=step, underflow_bits=21.5, underflow_step="statistic")


CAST = ParameterFacts(
    format="float16",
    of=256,
    beyond=0,
    beyond_running_var=0,
    weights=64,
    flushed=0,
    scale_change=0.000466,
    shift=2.5e-5,
    worst=17,
)
BEYOND = dataclasses.replace(CAST, beyond=3, beyond_running_var=3, flushed=1, scale_change=0.0125, shift=None, worst=9)


def of_layer(layer: str, **changes: object) -> Result:
    fields: dict[str, object] = {
        "layer": layer,
        "implementation": "wide",
        "eps_source": "assumed",
        "input": Input(source="gaussian on the running statistics", assumed=True, rows=64, elements=131072),
        "rows": Rows(total=64, nonfinite=0, collapsed=0, amplified=0, shrunk=0),
        "shape": Shape(groups=64, size=2048),
        "headroom": room(9.0 + BATCH.index(layer) / 4 if layer in BATCH else 12.0),
        "safe_scale": (2.0**-12, 512.0),
        "safe_magnitude": 181.0,
        "parameters": CAST,
    }
    return result(**{**fields, **changes})


def in_training(layer: str, precision: str) -> Result:
    if precision == "fp16" and layer in TIGHT:
        place = TIGHT.index(layer)
        return of_layer(
            layer,
            overflow=Tally(count=0, of=1000, rows=0),
            underflow=Tally(count=place, of=1000, rows=place),
            deviation=deviation(0.0125, 0.000211),
            headroom=room(0.25 * (3 - place), "store"),
            safe_scale=(2.0**-10, 1.0 + place / 8),
            verdict="degraded",
        )
    loud = deviation(0.000413, 0.000211) if layer == LOUDEST else deviation(0.000234, 0.000211)
    return of_layer(layer, precision=precision, deviation=loud)


def in_use(layer: str, precision: str) -> Result:
    if precision == "fp16" and layer in UNSAFE:
        bad = 2 + UNSAFE.index(layer)
        return of_layer(
            layer,
            mode="eval",
            overflow=Tally(count=bad, of=4000, rows=bad),
            rows=Rows(total=64, nonfinite=0, collapsed=bad, amplified=0, shrunk=0),
            worst_rows=(WorstRow(index=9, kind="collapsed", s=520.25, s_emulated=inf, first_bad_step="load"),),
            deviation=deviation(0.25 * bad, 0.000211),
            headroom=Headroom(overflow_bits=None, overflow_step=None, underflow_bits=None, underflow_step=None),
            safe_scale=None,
            verdict="unsafe",
            parameters=BEYOND,
        )
    return of_layer(layer, mode="eval", precision=precision)


def computed_in(layer: str, precision: str) -> Result:
    """The view "if your runtime computes norms in this precision"."""
    changes = {"layer": layer, "precision": precision, "implementation": "pure", "asked": False}
    if precision == "fp16" and layer in BLOCKS[:7]:
        return dataclasses.replace(COLLAPSED, **changes)
    return dataclasses.replace(of_layer(layer, verdict="ok" if precision == "fp16" else "degraded"), **changes)


TOKENS = {
    "norm": "layer-l2",
    "eps": 1e-12,
    "eps_source": "config",
    "shape": Shape(groups=2048, size=512),
    "rows": Rows(total=2048, nonfinite=0, collapsed=0, amplified=0, shrunk=0),
    "input": Input(source="gaussian(mean=0, std=1)", assumed=True, rows=2048, elements=1048576),
}
PRECISIONS = ("fp16", "bf16")
RESULTS = (
    *(of(layer, precision) for of in (in_training, in_use) for precision in PRECISIONS for layer in BATCH),
    *(of_layer(HEAD, precision=precision, **TOKENS) for precision in PRECISIONS),
    *(computed_in(layer, precision) for precision in PRECISIONS for layer in BATCH),
)


def finding(rule: str, severity: str, layer: str | None, message: str, fix: str, **changes: object) -> Finding:
    fields = {"norm": "batch-l2", "precision": "fp16", "implementation": "wide", "mode": "train", "step": None}
    return Finding(
        rule=rule, severity=severity, layer=layer, message=message, fix=fix, **{**fields, "assumed": False, **changes}
    )


ANY = {"precision": None, "implementation": None, "mode": None}
KEEP = "keep these layers in float32 (--params half-except-norms)"
BEYOND_MESSAGES = ("2 of 64 running variances are beyond float16", "3 of 64 running variances are beyond float16")
ROOMS = tuple(f"store: {0.25 * (3 - place):.3g} bit is left before it overflows" for place in range(len(TIGHT)))
FINDINGS_OF_TIGHT = (
    *(
        finding("NC103", "warning", name, message, "scale the input down", step="store", assumed=True)
        for name, message in zip(TIGHT, ROOMS, strict=True)
    ),
    *(
        finding("NC301", "warning", name, f"relative rms error 0.0125 in {name}", "use wide", assumed=True)
        for name in TIGHT
    ),
)
MODEL_FINDINGS = (
    *(finding("NC401", "note", name, "eps is 1e-5 by default", "give it with --eps", **ANY) for name in BATCH),
    *(
        finding("NC404", "note", name, "int8 is no number", "dequantise it", **{**ANY, "norm": ""})
        for name in ("head.scale", "head.shift")
    ),
    finding("NC403", "note", HEAD, "it might be instance-l2", "say which with --kind", **{**ANY, "norm": "layer-l2"}),
    *(
        finding("NC104", "error", name, message, KEEP, **{**ANY, "precision": "fp16", "step": "load", "mode": "eval"})
        for name, message in zip(UNSAFE, BEYOND_MESSAGES, strict=True)
    ),
    *FINDINGS_OF_TIGHT,
    finding("NC301", "warning", LOUDEST, f"relative rms error 0.000413 in {LOUDEST}", "use wide", assumed=True),
    *(
        finding("NC102", "note", name, "16 of 16 rows collapse", "compute it in float32", implementation="pure")
        for name in BLOCKS[:7]
    ),
)
SNIPPET = (
    "KEEP_IN_FLOAT32 = {\n"
    + "".join(f'    "{name}",\n' for name in UNSAFE)
    + "}\n"
    + (
        "model.half()\nfor name, module in model.named_modules():\n    if name in KEEP_IN_FLOAT32:"
        "\n        module.float()  # and its input with it, which a line of more than eighty columns says at length\n"
    )
)
MODEL = Report(
    format=1,
    tool=Tool(name="normcheck", version="0.1.0"),
    command="analyze",
    settings={"models": [FILE, "plain.pt"], "batch_size": 32, "spatial": [8, 8], "seed": 0, "params": "half"},
    environment={"python": "3.11.7"},
    results=RESULTS,
    findings=MODEL_FINDINGS,
    skipped=(
        Skipped(name="head.scale", reason="int8 is no number"),
        Skipped(name="head.shift", reason="int8 is no number"),
        Skipped(name="plain.pt", reason="no normalization layers among its 12 tensors"),
    ),
    summary=Summary(layers=14, results=len(RESULTS), findings=FindingCounts(error=2, warning=7, note=23)),
    layers=(
        *(facts(name) for name in BATCH),
        facts(
            HEAD,
            norm="layer-l2",
            aliases=("neck.norm",),
            how="one weight and one bias, and the name",
            sure=False,
            might_be=("instance-l2", "group-l2"),
            channels=512,
            num_groups=8,
            eps=1e-12,
            eps_source="config",
            assumed=("num_groups",),
            size=512,
        ),
    ),
    advice=(
        Advice(
            title="keep 2 layers in float32",
            layers=UNSAFE,
            snippet=SNIPPET,
            evidence="tried: with their parameters in float32 no row is bad, and the deviation is 0.000234",
        ),
    ),
    unreadable=(Skipped(name="broken.pt", reason="broken.pt: the archive ends early; download it again"),),
)
CLEAN_MODEL = dataclasses.replace(
    MODEL,
    results=tuple(of_layer(name) for name in BATCH),
    findings=(),
    skipped=(),
    layers=MODEL.layers[:-1],
    advice=(),
    unreadable=(),
)
NO_NORMS = dataclasses.replace(
    MODEL, results=(), findings=(), layers=(), advice=(), unreadable=(), skipped=MODEL.skipped[2:]
)
WITH_STEPS = dataclasses.replace(
    MODEL,
    results=(
        dataclasses.replace(of_layer(UNSAFE[0], mode="eval", parameters=BEYOND), steps=COLLAPSED.steps),
        of_layer(HEAD, **TOKENS, parameters=None),
    ),
    layers=tuple(layer for layer in MODEL.layers if layer.name in (UNSAFE[0], HEAD)),
)
