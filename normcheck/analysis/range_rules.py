"""Rules about what is too large: non-finite and collapsed rows, headroom, parameters, inputs and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import (
    INPUT_TOO_LARGE,
    KEEP_PARAMETERS,
    KEEP_WIDE,
    MEND_THE_FILE,
    SCALE_DOWN,
    Case,
    Hit,
    Published,
    Rule,
    breaks_any_input,
    channels,
    directed,
    keep_parameters,
    measure,
    reaches_float32,
    remedy,
    rows,
    share,
)
from normcheck.arithmetic.rounding import round_to
from normcheck.results import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator


def _nonfinite(case: Case) -> Iterator[Hit]:
    count = case.result.rows.nonfinite - case.result.rows.infinite_input
    if count:
        parameters = breaks_any_input(case)  # then no step is to blame
        yield Hit(
            None if parameters else case.suspect,
            f"{rows(case, count)} have NaN or infinite outputs",
            fix=remedy(case, case.suspect),
            fact=parameters,
            measure=measure("rows.nonfinite", count),
        )


def _collapsed(case: Case) -> Iterator[Hit]:
    count = case.result.rows.collapsed
    if not count:
        return
    fact = case.result.mode == "eval"  # there the divisor comes from the file alone
    step = case.step(case.suspect or "")
    cause = ""
    if fact and breaks_any_input(case):
        cause = "; the running variance is infinite"
    elif step and step.overflow:
        cause = f"; {step.step}: {share(step.overflow, step.operations)} overflow {step.format}"
    message = f"{rows(case, count)} collapse to beta, every output finite{cause}"
    fix = remedy(case, case.suspect)
    yield Hit(case.suspect, message, fix=fix, fact=fact, measure=measure("rows.collapsed", count))


def _little_headroom(case: Case) -> Iterator[Hit]:
    bits, step = case.result.headroom.overflow_bits, case.result.headroom.overflow_step
    if bits is None or bits >= case.limits.headroom_bits or case.result.rows.bad:
        return
    room = f"{bits:.3g} bit is left before it overflows" if bits >= 0 else f"overflows by {-bits:.3g} bit"
    yield Hit(
        step,
        f"{step}: {room} (input scale x {2.0**bits:.3g})",
        fix=_lower(remedy(case, step)),
        measure=Measure(
            name="headroom.overflow_bits", value=bits, limit=case.limits.headroom_bits, worse="lower", unit="bits"
        ),
    )


def _lower(fix: str | None) -> str | None:
    return fix if fix in (None, INPUT_TOO_LARGE, SCALE_DOWN) else f"scale the input down, or {fix}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}" if count else ""


def _beyond(case: Case) -> Iterator[Hit]:
    facts = case.result.parameters
    if facts is None:
        return
    if facts.beyond:
        running, others = facts.beyond_running_var, facts.beyond - facts.beyond_running_var
        kinds = " and ".join(filter(None, (_many(running, "running variance"), _many(others, "other"))))
        place = f", as in channel {facts.worst}" if facts.worst is not None else ""
        message = f"{share(facts.beyond, facts.of)} parameters are beyond {facts.format} ({kinds}){place}"
        figure = measure("parameters.beyond", facts.beyond, unit="parameters")
        yield Hit(None, message, fix=keep_parameters(facts.format), fact=True, measure=figure)
    if facts.folded_beyond and case.result.mode == "eval":
        message = f"folded into scale and shift, {channels(facts.folded_beyond, 'is', 'are')} beyond {facts.format}"
        figure = measure("parameters.folded_beyond", facts.folded_beyond, unit="channels")
        yield Hit(None, message, "warning", "keep folded scales and shifts in float32", fact=True, measure=figure)
    for name, count, what in (
        ("nonfinite", facts.nonfinite, "infinite or NaN"),
        ("negative", facts.negative, "negative running variances"),
    ):
        if count:
            message = f"{share(count, facts.of)} parameters are {what} in the file itself"
            figure = measure(f"parameters.{name}", count, unit="parameters")
            yield Hit(None, message, fix=MEND_THE_FILE, fact=True, measure=figure)


def _infinite_input(case: Case) -> Iterator[Hit]:
    count = case.result.rows.infinite_input
    if count:
        load = case.step("load")
        beyond = f"; load: {share(load.overflow, load.operations)} overflow {load.format}" if load else ""
        keeps = any(step.step.startswith("running") for step in case.result.steps)
        after = "; running statistics stay infinite or NaN from then on" if keeps else ""
        yield Hit(
            "load",
            f"{rows(case, count)} have infinite input: the norm is not at fault{beyond}{after}",
            fix=SCALE_DOWN if load is not None and reaches_float32(load.format) else None,
            measure=measure("rows.infinite_input", count),
        )


def _count(case: Case) -> Iterator[Hit]:
    step, n = case.step("count"), case.result.shape.size
    if step is None or case.result.norm.endswith(("topk-uncentred", "weight-l2")):  # those take k, or the root of n
        return
    rounded = float(round_to(float(n), step.format, rounding=directed(case), seed=case.rounding.seed))
    if not abs(rounded - n) <= case.limits.count_error * n:  # also where it is NaN
        figure = measure("steps.count.error", abs(rounded - n) / n, case.limits.count_error, "ratio")
        yield Hit("count", f"n = {n} becomes {rounded:g} in {step.format}", measure=figure)


RANGE_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC101",
        slug="non-finite-output",
        title="Non-finite output",
        severity="error",
        detects="some row of the output has a NaN or an infinity (`rows.nonfinite` above 0), and its input had none",
        why="NaN and infinities spread through every later layer.",
        published=Published(
            "TensorFlow on DirectML: batch norms of mixed_float16 models overflowed inside; training gave NaN or did "
            "not converge, until they ran in float32",
            "https://github.com/microsoft/tensorflow-directml-plugin/pull/321",
        ),
        fix=KEEP_WIDE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --mean 100",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --mean 10",
        figures=("rows.nonfinite",),
        check=_nonfinite,
    ),
    Rule(
        code="NC102",
        slug="silent-collapse",
        title="Silent collapse",
        severity="error",
        detects="every output of some row equals beta, where the exact row, rounded, does not "
        "(`rows.collapsed` above 0)",
        why="An infinite statistic or a reciprocal flushed to zero turns whole rows into beta, and nothing non-finite "
        "leaves the layer.",
        published=Published(
            "ONNX Runtime WebGPU, whisper-small: from layer 7 on the squares of a decomposed LayerNorm overflow "
            "float16, rows become their bias, and the output has neither Inf nor NaN",
            "https://github.com/microsoft/onnxruntime/issues/31626",
        ),
        fix=KEEP_WIDE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --std 100",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --std 1",
        figures=("rows.collapsed",),
        check=_collapsed,
    ),
    Rule(
        code="NC103",
        slug="little-headroom",
        title="Little headroom",
        severity="warning",
        detects="the input's scale may grow by less than `headroom_bits` bits before a step overflows, "
        "and no row is bad yet",
        why="A slightly larger input overflows.",
        published=Published(
            "ONNX Runtime CUDA, Qwen3-VL-2B in float16: the largest activation grows from 1.9 in layer 0 to 107.5 in "
            "layer 22; in layer 23 the sum of squares overflows, and all is NaN",
            "https://github.com/microsoft/onnxruntime/pull/28442",
        ),
        fix="scale the input down, or " + KEEP_WIDE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --std 6",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation pure --std 1",
        thresholds=("headroom_bits",),
        figures=("headroom.overflow_bits",),
        check=_little_headroom,
    ),
    Rule(
        code="NC104",
        slug="parameter-range",
        title="Parameter or running statistic beyond the format",
        severity="error",
        detects="a gamma, beta or running statistic becomes infinite, or is clipped, in the format that --params keeps "
        "it in, or is infinite, NaN or a negative variance in the file; a warning where only the folded scale or "
        "shift is beyond it",
        why="A running variance that becomes infinite turns its channel into beta, silently.",
        published=Published(
            "Core AI's torch converter cast batch norms' parameters to float16: a running_var above 65504 became "
            "infinite, and the output silently 0",
            "https://github.com/apple/coreai-torch/pull/54",
        ),
        fix=KEEP_PARAMETERS,
        bad="normcheck analyze data/breast-cancer-mlp.pt --precision fp16 --mode eval --implementation wide",
        good="normcheck analyze data/breast-cancer-mlp.pt --precision fp16 --mode eval --implementation wide "
        "--params autocast",
        figures=("parameters.beyond", "parameters.folded_beyond", "parameters.nonfinite", "parameters.negative"),
        check=_beyond,
    ),
    Rule(
        code="NC105",
        slug="infinite-input",
        title="Input already infinite",
        severity="warning",
        detects="some row's output is not finite because its input was not, once it was loaded "
        "(`rows.infinite_input` above 0)",
        why="The value was lost before the norm: no kernel of the norm can bring it back.",
        published=Published(
            "vLLM, Gemma 3 in float16: the sum that enters the norm is beyond 65504, and every token id comes out as 0",
            "https://github.com/vllm-project/vllm/pull/17364",
        ),
        fix=INPUT_TOO_LARGE,
        bad="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --std 30000 --precision fp16",
        good="normcheck simulate --norm layer-l2 --shape 8,1024 --implementation wide --std 30000 --precision bf16",
        figures=("rows.infinite_input",),
        check=_infinite_input,
    ),
    Rule(
        code="NC106",
        slug="element-count",
        title="Element count not representable",
        severity="error",
        detects="n, rounded to the format of the count, is off by more than `count_error` of itself; in float16 it is "
        "infinite from 65520 on",
        why="Sums are divided by a wrong n, or by infinity.",
        published=Published(
            "ExecuTorch's group norm cast the element count to the input's type, which overflows float16 or loses "
            "precision",
            "https://github.com/pytorch/executorch/pull/16727",
        ),
        fix="count in float32, or take a mean of means (implementation `pure-scaled`)",
        bad="normcheck simulate --norm layer-l2 --shape 1,65600 --implementation pure --std 0.1",
        good="normcheck simulate --norm layer-l2 --shape 1,65500 --implementation pure --std 0.1",
        thresholds=("count_error",),
        figures=("steps.count.error",),
        accuracy=True,
        check=_count,
    ),
)
