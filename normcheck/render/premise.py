"""What a model's report rests on: files, layers, precisions, parameters, input, sizes and eps."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from normcheck.render.figures import number
from normcheck.render.layout import inline
from normcheck.render.places import counted, distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from normcheck.results import LayerFacts, Report, Result

_FEW = 4
"""Values that differ between layers are told one by one up to so many, the commonest first."""


def of_model(report: Report, asked: Sequence[Result]) -> list[str]:
    """Return the facts, in the order in which they are read."""
    facts = [
        *_layers(report, asked),
        *(f"code of {inline(str(path))} was run (--trust)" for path in report.settings.get("trusted") or ()),
        _all("", (result.precision for result in asked)),
        _all("implementation", (result.implementation for result in asked)),
        _all("params", (result.params for result in asked)),
        _some([r.input.source + " (assumed)" * r.input.assumed for r in asked], "inputs"),
        *_sizes(report, asked),
        _all("mode", (result.mode for result in asked)),
        _eps(report.layers),
    ]
    return [fact for fact in facts if fact]


def _all(label: str, values: Iterable[str]) -> str:
    """Return all values after their label, of many the first ones and how many more; nothing where there are none."""
    every = distinct(values)
    told = every if len(every) <= _FEW else [", ".join(every[: _FEW - 1]), f"{len(every) - _FEW + 1} more"]
    each = " and ".join(told)
    return f"{label} {each}".strip() if each else ""


def _layers(report: Report, asked: Sequence[Result]) -> list[str]:
    """Return the files, how many layers of which kind they hold, and as what they are computed where that differs."""
    kinds = Counter(layer.norm for layer in report.layers)
    total = len(report.layers)
    held = f"{counted(total, 'layer')}: {_counted(kinds)}" if total else ""
    norms = distinct(result.norm for result in asked)
    computed = f"computed as {' and '.join(norms)}" if total and not set(norms) <= set(kinds) else ""
    files = [str(name) for name in report.settings.get("models") or ()] or [layer.file for layer in report.layers]
    return [_some(map(inline, files), "files"), held, computed]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{many} {name}" for name, many in counts.most_common())


def _some(values: Iterable[str], what: str) -> str:
    """Return the values, each once; of many the commonest ones, and how many there are besides."""
    counts = Counter(values)
    if len(counts) <= _FEW:
        return " or ".join(counts) if what != "files" else ", ".join(counts)
    shown = [value for value, _ in counts.most_common(_FEW - 1)]
    return f"{', '.join(shown)} and {len(counts) - len(shown)} more {what}"


def _sizes(report: Report, asked: Sequence[Result]) -> list[str]:
    """Return batch and spatial size where some layer's n was assumed from them, the seed and n."""
    settings, assumed = report.settings, {name for layer in report.layers for name in layer.assumed}
    batch, spatial, seed = (settings.get(name) for name in ("batch_size", "spatial", "seed"))
    drawn = any(result.input.assumed for result in asked)
    sizes = [layer.size for layer in report.layers if layer.size]
    return [
        f"batch {batch} (assumed)" if "batch_size" in assumed else "",
        f"spatial {_by(spatial)} (assumed)" if "spatial" in assumed else "",
        f"seed {seed}" if drawn and seed is not None else "",
        f"n = {_range(sizes)}" if sizes else "",
    ]


def _by(sizes: object) -> str:
    return " x ".join(map(str, sizes)) if isinstance(sizes, list | tuple) else str(sizes)


def _range(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} to {high}"


def _eps(layers: Sequence[LayerFacts]) -> str:
    """Return the values of eps, for how many layers where they differ, and which are assumed."""
    counts = Counter((number(layer.eps), layer.eps_source == "assumed") for layer in layers)
    values = []
    for (value, assumed), many in counts.most_common(_FEW):
        notes = [counted(many, "layer")] * (len(counts) > 1) + ["assumed"] * assumed
        values.append(f"{value} ({', '.join(notes)})" if notes else value)
    rest = f" and {len(counts) - _FEW} more" if len(counts) > _FEW else ""
    return f"eps {', '.join(values)}{rest}" if values else ""
