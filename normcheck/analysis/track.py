"""`track`: the weights of a series of checkpoints, from paths to a report."""

from __future__ import annotations

import fnmatch
import math
from typing import TYPE_CHECKING

from normcheck import __version__
from normcheck.analysis.track_findings import found, of_layer, of_series, worst_first
from normcheck.analysis.track_invariance import Invariance, invariances
from normcheck.analysis.track_layer import Wanted, tracked
from normcheck.analysis.track_series import Snapshot, expanded, opened
from normcheck.analysis.track_updates import DEGREES, kind_of
from normcheck.arithmetic.formats import format_named
from normcheck.errors import UsageError, unknown_name
from normcheck.results import SEVERITIES, Skipped, Tool
from normcheck.results.track import Checkpoint, TrackedLayer, TrackFinding, TrackReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from normcheck.results.track import Scope

UPDATES = ("auto", "optimizer", "difference")
"""Where updates may be taken from."""


def track(
    paths: Sequence[str],
    *,
    rates: Sequence[float] | None = None,
    optimizer: str | None = None,
    precisions: Sequence[str] = ("fp16", "bf16"),
    layers: Sequence[str] = (),
    update: str = "auto",
    steps_between: int | None = None,
    scopes: Callable[[Snapshot], Mapping[str, tuple[Scope, str]]] | None = None,
    channels: bool = False,
    trust: bool = False,
    fail_on: str = "error",
    progress: Callable[[float, str], object] | None = None,
) -> TrackReport:
    """Follow the weights of a run through its checkpoints.

    Args:
        paths: files and folders in the order of training; folders of checkpoints and patterns count as what is in them.
        rates: learning rates: one for all checkpoints, or one for each; None takes what they state.
        optimizer: its name as torch has it, in any case; None takes what they state, else SGD.
        precisions: formats in which updates may be lost.
        layers: patterns of names of weights; none means all.
        update: "optimizer" takes the update of one step from the optimizer's state alone, "difference" from the
            checkpoints alone, "auto" from the state where there is one.
        steps_between: steps between two checkpoints, where they do not say it.
        scopes: what a run of the model says of weights, by name: what of them is scale invariant, and how that is
            known; called with the last checkpoint that can be read.
        channels: keep the norms of all channels.
        trust: run the code of files that cannot be read without.
        fail_on: the least severe finding that fails the run.
        progress: called with the fraction done and the name of a weight.

    Raises:
        UsageError: a name, number or pattern that cannot be used, or checkpoints of different models.
    """
    kind = _optimizer(optimizer)
    formats = tuple(format_named(name) for name in precisions)
    if update not in UPDATES:
        raise unknown_name("source of updates", update, UPDATES, "normcheck track --help")
    if steps_between is not None and steps_between < 1:
        raise UsageError(f"--steps-between {steps_between}: give 1 or more")
    snapshots, unreadable = opened(expanded(paths), trust=trust)
    steps = _steps(snapshots, steps_between)
    wanted = Wanted(
        formats=formats,
        rates=_rates(rates, len(snapshots), len(unreadable)),
        optimizer=kind,
        update=update,
        steps=steps,
        channels=channels,
    )
    names, findings, skipped = _followed(snapshots, layers)
    known = _scopes(snapshots, names, scopes)
    followed: list[TrackedLayer] = []
    for place, name in enumerate(names):
        if progress is not None:
            progress(place / len(names), name)
        followed.append(tracked(name, snapshots, known[name], wanted))
    checkpoints = _checkpoints(snapshots, steps, wanted, followed)
    findings += [f for layer in followed for f in of_layer(layer, checkpoints)]
    findings += of_series(checkpoints, followed)
    return TrackReport(
        format=1,
        tool=Tool(name="normcheck", version=__version__),
        command="track",
        settings={
            "lr": list(rates) if rates is not None else None,
            "optimizer": kind,
            "precision": [form.label for form in formats],
            "layer": list(layers),
            "update": update,
            "steps_between": steps_between,
            "channels": channels,
            "trust": trust,
        },
        checkpoints=checkpoints,
        layers=_sorted(followed, findings),
        findings=worst_first(findings),
        skipped=tuple(skipped),
        unreadable=tuple(unreadable),
        fail_on=fail_on,
    )


def _optimizer(name: str | None) -> str | None:
    if name is None:
        return None
    if name.lower() not in DEGREES:
        raise unknown_name("optimizer", name, DEGREES, "normcheck track --help")
    return name.lower()


def _rates(rates: Sequence[float] | None, count: int, unread: int) -> tuple[float, ...] | None:
    if rates is None:
        return None
    for rate in rates:
        if not (math.isfinite(rate) and rate >= 0):
            raise UsageError(f"--lr {rate:g}: give a finite number that is not negative")
    if len(rates) == 1:
        return tuple(rates) * count
    if len(rates) != count:
        unreadable = f", {unread} more cannot be read" if unread else ""
        raise UsageError(
            f"--lr: {len(rates)} learning rates for {count} checkpoints{unreadable}: give one, or one for each"
        )
    return tuple(rates)


def _steps(snapshots: Sequence[Snapshot], given: int | None) -> tuple[int | None, ...]:
    """Steps between each checkpoint and the one before: as given, else as the two state them."""
    found_here: list[int | None] = [None] * len(snapshots)
    for index in range(1, len(snapshots)):
        before, after = snapshots[index - 1].step, snapshots[index].step
        if given is not None:
            found_here[index] = given
        elif before is not None and after is not None and after > before:
            found_here[index] = after - before
    return tuple(found_here)


def _followed(
    snapshots: Sequence[Snapshot], patterns: Sequence[str]
) -> tuple[list[str], list[TrackFinding], list[Skipped]]:
    """The names of the weights to follow, those that some checkpoints lack, and those that cannot be followed.

    Raises:
        UsageError: the checkpoints have no weight in common with the first, or a pattern matches none.
    """
    weights = [snapshot.weights for snapshot in snapshots]
    for snapshot, held in zip(snapshots[1:], weights[1:], strict=True):
        if weights[0] and held and not weights[0].keys() & held.keys():
            raise UsageError(
                f"{snapshot.path}: none of its {len(held)} weights ({next(iter(held))}, ...) is one of the "
                f"{len(weights[0])} of {snapshots[0].path} ({next(iter(weights[0]))}, ...): give checkpoints of one run"
            )
    every = list(dict.fromkeys(name for held in weights for name in held))
    chosen = [name for name in every if not patterns or any(_matches(name, p) for p in patterns)]
    for pattern in patterns:
        if every and not any(_matches(name, pattern) for name in every):
            raise UsageError(f"--layer {pattern}: matches none of {len(every)} weights, {every[0]} for one")
    findings: list[TrackFinding] = []
    skipped: list[Skipped] = []
    names: list[str] = []
    for name in chosen:
        shapes = {
            snapshot.parameters[name].shape: snapshot.path for snapshot in snapshots if name in snapshot.parameters
        }
        missing = [snapshot.path for snapshot in snapshots if name not in snapshot.parameters]
        if len(shapes) > 1:
            told = ", ".join(f"{shape} in {path}" for shape, path in shapes.items())
            findings.append(found("shape-changed", "error", f"its shape changes: {told}", layer=name))
            skipped.append(Skipped(name=name, reason=f"its shape changes: {told}"))
            continue
        if missing:
            message = f"{len(missing)} of {len(snapshots)} checkpoints do not have it: {', '.join(missing[:3])}"
            findings.append(found("missing-weight", "warning", message, layer=name, checkpoint=missing[0]))
        names.append(name)
    return names, findings, skipped


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern is of a weight, or of the module that it is the weight of."""
    return any(fnmatch.fnmatchcase(each, pattern) for each in (name, name.removesuffix(".weight")))


def _scopes(
    snapshots: Sequence[Snapshot],
    names: Iterable[str],
    run: Callable[[Snapshot], Mapping[str, tuple[Scope, str]]] | None,
) -> dict[str, Invariance]:
    """What is known of each weight: by running the model, else by the structure of the last file that has it."""
    wanted = dict.fromkeys(names)
    known: dict[str, Invariance] = {}
    if run is not None and snapshots:
        known = {name: Invariance(*told) for name, told in run(snapshots[-1]).items()}
    for snapshot in (*snapshots[-1:], *snapshots):
        left = {name: t for name, t in snapshot.parameters.items() if name in wanted and name not in known}
        if left:
            known |= invariances(snapshot.contents, left)
    return known


def _checkpoints(
    snapshots: Sequence[Snapshot], steps: Sequence[int | None], wanted: Wanted, layers: Sequence[TrackedLayer]
) -> tuple[Checkpoint, ...]:
    made = []
    for index, snapshot in enumerate(snapshots):
        points = [point for layer in layers for point in layer.points if point.checkpoint == index]
        kinds = filter(None, map(kind_of, snapshot.slots.values()))
        made.append(
            Checkpoint(
                path=snapshot.path,
                reader=snapshot.contents.reader,
                step=snapshot.step,
                steps_since=steps[index],
                optimizer=wanted.optimizer or next(kinds, None),
                lr=(wanted.rates[index],) if wanted.rates is not None else snapshot.rates,
                from_state=sum(point.update_from == "optimizer" for point in points),
                note=snapshot.note if wanted.update != "difference" else None,
            )
        )
    return tuple(made)


def _sorted(layers: Sequence[TrackedLayer], findings: Sequence[TrackFinding]) -> tuple[TrackedLayer, ...]:
    """The layers, worst first: by their worst finding, then by lost updates, then by drift."""
    ranks: dict[str | None, int] = {}
    for one in findings:
        rank = SEVERITIES.index(one.severity)
        ranks[one.layer] = min(rank, ranks.get(one.layer, rank))

    def badness(layer: TrackedLayer) -> tuple[int, float, float]:
        last = next((point.lost for point in reversed(layer.points) if point.lost), ())
        drift = layer.drift.step_ratio.median if layer.drift else 1.0
        drifted = abs(math.log(drift)) if drift > 0 else math.inf
        return ranks.get(layer.name, len(SEVERITIES)), -max((lost.share or 0.0 for lost in last), default=0.0), -drifted

    return tuple(sorted(layers, key=badness))
