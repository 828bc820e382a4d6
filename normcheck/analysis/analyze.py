"""`analyze`: the norm layers of a model, each under the precisions and kernels that it is to run in."""

from __future__ import annotations

import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

from normcheck.analysis.advice import Checked, advice_of
from normcheck.analysis.assemble import assemble
from normcheck.analysis.backward import incoming_of
from normcheck.analysis.models import Loaded, load, matches
from normcheck.analysis.plans import Mode as ModeName
from normcheck.analysis.plans import Premise, alternatives, assumptions_of, plans_of, shape_of
from normcheck.analysis.reporting import report_of
from normcheck.analysis.rules import layer_findings, policy, skipped_findings
from normcheck.arithmetic.formats import format_named
from normcheck.arithmetic.orders import check_lanes, order_named
from normcheck.arithmetic.rounding import Mode, Rounding
from normcheck.errors import UnreadableError, UsageError, unknown_name
from normcheck.layers.distributions import parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.aliases import chosen_rows
from normcheck.norms.catalogue import choices, names_of
from normcheck.norms.parameters import storage_form, storage_named
from normcheck.norms.table import grouping, norm_named
from normcheck.results import LayerFacts, Report, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from normcheck.analysis.assemble import Outcome, Plan
    from normcheck.analysis.models import Found
    from normcheck.analysis.policy import Policy
    from normcheck.layers.layer import Layer
    from normcheck.norms.implementations import Implementation

ConstantKind = Literal["exact", "paper"]

WORTH_A_THREAD = 1 << 16
"""Elements of a layer from which threads gain: of smaller ones most of the time is the interpreter's, which has one."""

MOST_ELEMENTS = 1 << 32
"""Elements that may share a statistic: a batch larger than this fits no accelerator."""


def analyze(
    model: Any = (),
    *,
    inputs: Any = None,
    activations: str | None = None,
    model_factory: str | None = None,
    input_file: str | None = None,
    precisions: Sequence[str] = ("fp16", "bf16"),
    norms: Sequence[str] = (),
    implementations: Sequence[str | Implementation] = (),
    params: str = "half",
    mode: ModeName | None = None,
    distribution: str = "gaussian",
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    spatial: tuple[int, ...] = (8, 8),
    kinds: Sequence[tuple[str, str]] = (),
    eps: float | Sequence[tuple[str | None, float]] = (),
    layers: Sequence[str] = (),
    match: Any = None,
    trust: bool = False,
    constant: ConstantKind = "exact",
    k: int = 10,
    rounding: Mode = "nearest-even",
    order: str | None = None,
    simd: int | None = None,
    ftz: bool = False,
    daz: bool = False,
    backward: bool = False,
    loss_scale: float = 1.0,
    grad_dist: str = "gaussian",
    grad_std: float = 1.0,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    severity: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    thresholds: Mapping[str, float] | Sequence[tuple[str, float]] = (),
    jobs: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    say: Callable[[str], None] | None = None,
    watch: Callable[[Plan, Outcome], None] | None = None,
) -> Report:
    """Check every normalization layer of a model and return the report.

    Args:
        model: the path of a checkpoint or of a directory with one, several of them, or a live torch module.
        inputs: of a live module: a tensor, a tuple of them, or a mapping of keywords; the module is run on them once,
            and its norms are checked on what reaches them.
        activations: file of recorded inputs (`normcheck.record`), by layer.
        model_factory: ``package.module:factory``, which is imported and called for the module; the weights of `model`
            are put into it. input_file: what it is run on.
        precisions: formats of the elements. norms: put in place of a layer's own, besides it.
        implementations: how kernels compute, names or rows of one's own; without any, `wide`, and `pure` as a view
            whose findings are notes.
        params: where parameters and running statistics live: half, autocast, half-except-norms, io, float32, stored.
        mode: of norms with running statistics; both unless given.
        distribution, mean, std: of inputs of which nothing is known; with running statistics, the distribution's
            shape alone. seed: of the random numbers.
        batch_size, spatial: assumed where a norm's n depends on them.
        kinds: (pattern, kind) for layers whose kind is known better. eps: of all layers, or
            (pattern or None, value).
        layers: patterns; only layers whose names match one are checked.
        match: classes of one's own that are norms, see `normcheck.record`.
        trust: run the code in a file that cannot be read otherwise.
        constant, k: of l1, linf, topk and range. rounding, ftz, daz: of every operation. order: of every sum.
        simd: float32 lanes of CPU vectors, for implementations whose sums depend on them; this machine's unless told.
        backward: also run the backward pass, under running statistics too, as of a frozen norm. grad_dist, grad_std:
            distribution and scale of the gradient that arrives at each layer's output, drawn with the next seed: always
            an assumption. loss_scale: what it is multiplied by before it is stored.
        select, ignore, severity, thresholds: which rules are in force, and how: see `analysis.policy.policy_of`.
        jobs: threads; all processors unless given. The report does not depend on it.
        progress: called with the fraction done and the layer at work. say: called with lines about what was found.
        watch: called with each result, and with the plan that led to it, in any order.

    Raises:
        UsageError: a name, value or combination that cannot be used. UnreadableError: no file could be read.
    """
    settings = {
        name: value
        for name, value in locals().items()
        if name not in ("model", "inputs", "match", "progress", "say", "watch", "jobs")
    }
    _check(mode, batch_size, spatial, constant, k, jobs)
    storage_named(params)  # refused before anything is read
    check_lanes(simd)
    rules = policy(select, ignore, severity, thresholds)
    premise = Premise(
        precisions=tuple(dict.fromkeys(map(format_named, _listed(precisions, "precision")))),
        norms=tuple(dict.fromkeys(map(norm_named, _listed(norms)))),
        implementations=choices(implementations),
        params=params,
        mode=mode,
        noise=Synthetic(parse_distribution(distribution), mean, std, seed),
        batch_size=batch_size,
        spatial=tuple(spatial),
        constant=constant,
        k=k,
        rounding=Rounding(rounding, None, ftz, daz, seed),
        order=None if order is None else order_named(order),
        simd=simd,
        incoming=incoming_of(
            backward=backward, loss_scale=loss_scale, grad_dist=grad_dist, grad_std=grad_std, seed=seed, analyzed=True
        ),
    )
    loaded = load(
        model,
        inputs=inputs,
        activations=activations,
        factory=model_factory,
        input_file=input_file,
        kinds=kinds,
        eps=[(None, float(eps))] if isinstance(eps, int | float) else eps,
        match=match,
        trust=trust,
        seed=seed,
    )
    premise = replace(premise, activations=loaded.activations, recorded=loaded.recorded)
    chosen = _chosen(loaded.found, _listed(layers))
    for line in (*_announced(loaded.found, chosen), *_idle(rules, loaded)):
        if say is not None:
            say(line)
    checked = _run(chosen, premise, rules, jobs, progress or (lambda _fraction, _text: None), watch)
    what_ran = {
        "models": [found.path for found in loaded.found],
        "trusted": [found.path for found in loaded.found if found.trusted],
        "distribution": str(premise.noise.distribution),
        "implementations": names_of(implementations),
    }
    report = _report(settings | what_ran, jobs, premise, rules, loaded, checked, named=bool(layers))
    if loaded.unreadable and not loaded.found:
        error = UnreadableError(*(item.reason for item in loaded.unreadable))
        error.report = report
        raise error
    return report


def _report(
    settings: dict[str, Any],
    jobs: int | None,
    premise: Premise,
    rules: Policy,
    loaded: Loaded,
    checked: Sequence[Checked],
    *,
    named: bool,
) -> Report:
    """Gather results and findings, what was assumed or left out, and advice. named: only some layers were asked for."""
    facts = [_facts(item.model.path, item.layer, premise) for item in checked]
    results = [result for item in checked for result in item.results]
    of_results = [(item.findings, item.ignored) for item in checked]
    of_layers = [rules.judged(layer_findings(fact)) for fact in facts]
    of_tensors = [rules.judged(skipped_findings(item)) for item in loaded.skipped]
    every = [*of_results, *of_layers, *of_tensors]
    layers = [item.layer for item in checked]
    unmatched = [] if named else _unmatched(loaded, layers)
    of_models = ([item for item in checked if item.model is model] for model in loaded.found)
    return report_of(
        "analyze",
        settings,
        jobs,
        results=results,
        findings=[finding for findings, _ in every for finding in findings],
        ignored=sum(ignored for _, ignored in every),
        skipped=[*loaded.skipped, *_degenerate(facts), *_not_run(layers, premise), *unmatched],
        layers=facts,
        advice=[advice for items in of_models for advice in advice_of(items, premise)],
        unreadable=loaded.unreadable,
    )


def _check(mode: str | None, batch_size: int, spatial: Sequence[int], constant: str, k: int, jobs: int | None) -> None:
    if mode is not None and mode not in get_args(ModeName):
        raise unknown_name("mode", mode, get_args(ModeName), "normcheck analyze --help")
    if constant not in get_args(ConstantKind):
        raise unknown_name("constant", constant, get_args(ConstantKind), "normcheck analyze --help")
    for name, value in (("batch size", batch_size), ("k", k), ("jobs", 1 if jobs is None else jobs)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, received {value}")
    if any(size < 1 for size in spatial):
        raise UsageError(f"spatial sizes must be at least 1, received {','.join(map(str, spatial))}")
    if (elements := batch_size * math.prod(spatial)) > MOST_ELEMENTS:
        raise UsageError(f"batch and spatial sizes make n = {elements:.3g} elements a channel; give at most 2^32")


def _listed(names: Sequence[str], what: str | None = None) -> tuple[str, ...]:
    listed = (names,) if isinstance(names, str) else tuple(names)
    if what is not None and not listed:
        raise UsageError(f"no {what} given: name at least one")
    return listed


def _chosen(found: Sequence[Found], patterns: Sequence[str]) -> list[tuple[Found, Layer]]:
    """The layers that are asked for, with their models; all where there are no patterns."""
    pairs = [(model, layer) for model in found for layer in model.layers]
    for pattern in patterns:
        if pairs and not any(_matches(layer, pattern) for _, layer in pairs):
            near = ", ".join(layer.name for _, layer in pairs[:3])
            raise UsageError(f"--layer {pattern!r} matches none of {len(pairs)} layers, such as {near}")
    if not patterns:
        return pairs
    return [(model, layer) for model, layer in pairs if any(_matches(layer, pattern) for pattern in patterns)]


def _matches(layer: Layer, pattern: str) -> bool:
    return matches(pattern, (layer.name, *layer.aliases))


def _announced(found: Sequence[Found], chosen: Sequence[tuple[Found, Layer]]) -> Iterator[str]:
    """One line a model: how many layers of which kinds."""
    for model in found:
        kinds = Counter(layer.norm.name for owner, layer in chosen if owner is model)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
        yield f"{model.path}: {model.reader}, norm layers: {listed}"


def _idle(rules: Policy, loaded: Loaded) -> Iterator[str]:
    """One line for each setting of the rules that is of layers which no model has."""
    if loaded.found:
        layers = [layer.name for model in loaded.found for layer in model.layers]
        yield from rules.idle([*layers, *(item.name for item in loaded.skipped)])


def _run(
    chosen: Sequence[tuple[Found, Layer]],
    premise: Premise,
    rules: Policy,
    jobs: int | None,
    progress: Callable[[float, str], None],
    watch: Callable[[Plan, Outcome], None] | None,
) -> list[Checked]:
    """Check the layers, several at once; in order, whatever finishes first."""
    work = [math.prod(shape_of(layer, premise)) for _, layer in chosen]
    total, done, lock = sum(work) or 1, 0.0, Lock()
    worth_it = sum(size >= WORTH_A_THREAD for size in work)
    workers = max(1, min(jobs or os.cpu_count() or 1, worth_it))
    inside = max(1, (jobs or os.cpu_count() or 1) // workers)

    def check(place: int) -> Checked:
        nonlocal done
        model, layer = chosen[place]
        progress(done / total, layer.name)
        ran = [
            (plan, outcome)
            for plan in plans_of(layer, premise)
            for outcome in assemble(
                plan.study, plan.labels, premise.rounding, jobs=inside, policy=rules, incoming=plan.incoming
            )
        ]
        outcomes = [outcome for _, outcome in ran]
        with lock:
            done += work[place]
            if watch is not None:
                for plan, outcome in ran:
                    watch(plan, outcome)
        progress(done / total, layer.name)
        return Checked(
            model,
            layer,
            [outcome.result for outcome in outcomes],
            [finding for outcome in outcomes for finding in outcome.findings],
            sum(outcome.ignored for outcome in outcomes),
        )

    if workers == 1:
        return [check(place) for place in range(len(chosen))]
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(check, range(len(chosen))))
        except BaseException:  # an interrupt too: layers that have not begun are not waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _facts(file: str, layer: Layer, premise: Premise) -> LayerFacts:
    recorded = None if layer.norm.where == "layer" else premise.activations.get(layer.name)
    shape = shape_of(layer, premise) if recorded is None else recorded.shape
    form = layer.parameters.form
    return LayerFacts(
        name=layer.name,
        file=file,
        norm=layer.norm.name,
        aliases=layer.aliases,
        how=layer.how,
        sure=layer.sure,
        might_be=layer.might_be,
        channels=layer.channels,
        num_groups=layer.num_groups,
        eps=layer.eps,
        eps_source=layer.eps_source,
        stored=None if form is None else form.name,
        assumed=assumptions_of(layer, premise),
        size=grouping(layer.norm, shape, layer.num_groups).size,
    )


def _degenerate(facts: Sequence[LayerFacts]) -> list[Skipped]:
    """Layers that were not run because each of their statistics is of a single element."""
    alone = [fact for fact in facts if fact.size == 1 and norm_named(fact.norm).centred]
    return [Skipped(name=fact.name, reason="each statistic is of a single element (NC402)") for fact in alone]


def _not_run(layers: Sequence[Layer], premise: Premise) -> list[Skipped]:
    """Norms and implementations that were asked for and fit no layer."""
    out = [
        Skipped(name=norm.name, reason=f"no layer that {norm.name} could stand in for")
        for norm in premise.norms
        if layers and not any(norm == layer.norm or alternatives(layer, (norm,)) for layer in layers)
    ]
    return out + list(dict.fromkeys(skip for layer in layers for skip in _without_row(layer, premise)))


def _without_row(layer: Layer, premise: Premise) -> Iterator[Skipped]:
    """Implementations that were asked for and do not define a layer's norm, in a precision or size."""
    recorded = premise.activations.get(layer.name)
    shape = shape_of(layer, premise) if recorded is None or layer.norm.where == "layer" else recorded.shape
    group = grouping(layer.norm, shape, layer.num_groups)
    for io in premise.precisions:
        param = storage_form(storage_named(premise.params), io)
        for name, reason in chosen_rows(premise.implementations, layer.norm, io, param, group, premise.mode)[1]:
            yield Skipped(name=f"{layer.norm.name} {name}", reason=reason)


def _unmatched(loaded: Loaded, layers: Sequence[Layer]) -> list[Skipped]:
    """Recorded inputs of layers that the model does not have."""
    names = {layer.name for layer in layers}
    reason = f"{loaded.recorded}, but the model has no such layer"
    return [Skipped(name=name, reason=reason) for name in loaded.activations if name not in names]
