"""One layer after the other: what it is, how that came to be known, what casting does to it, and its steps."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from normcheck.render import steps, strip
from normcheck.render.figures import figure, number, of
from normcheck.render.layout import Lines, inline, pairs
from normcheck.render.places import distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from normcheck.results import LayerFacts, ParameterFacts, Report, Result

_EPS = {"module": "from the module", "config": "from the model's configuration", "option": "as given with --eps"}


def parts(report: Report, width: int) -> Iterator[Lines]:
    """Yield the facts of each layer, each followed by the steps of its results."""
    of_layer: dict[str | None, list[Result]] = defaultdict(list)
    for result in report.results:
        if result.asked:
            of_layer[result.layer].append(result)
    formats = strip.ranges(report)
    for layer in report.layers:
        results = of_layer[layer.name]
        yield pairs(facts_of(layer, results), width=width)
        yield from steps.parts(results, formats, width=width)


def facts_of(layer: LayerFacts, results: Iterable[Result]) -> list[tuple[str, str]]:
    """Return the facts of a layer as titles and values, with what casting does to it in each of some results."""
    doubt = f"; might be {', '.join(layer.might_be)}: --kind says which" if layer.might_be else ""
    groups = f" in {layer.num_groups} groups{_assumed(layer, 'num_groups')}" if layer.num_groups is not None else ""
    others = [name for name in layer.assumed if name not in ("eps", "num_groups")]
    facts = [
        ("layer", inline(layer.name)),
        ("file", inline(layer.file)),
        ("also called", ", ".join(map(inline, layer.aliases))),
        ("kind", f"{layer.norm} ({'' if layer.sure else 'a guess: '}{layer.how}){doubt}"),
        ("channels", f"{layer.channels}{groups}"),
        ("n", f"{layer.size} elements share a statistic" if layer.size else ""),
        ("eps", f"{number(layer.eps)} ({_EPS.get(layer.eps_source, 'assumed: --eps says what it is')})"),
        ("assumed", ", ".join(others)),
        ("stored in", layer.stored or "no parameters"),
        ("cast to", "\n".join(distinct(cast(result.parameters) for result in results if result.parameters))),
    ]
    return [(title, value) for title, value in facts if value]


def _assumed(layer: LayerFacts, name: str) -> str:
    return " (assumed)" if name in layer.assumed else ""


def cast(facts: ParameterFacts) -> str:
    """Return what the format of the parameters does to them."""
    beyond = f"{of(facts.beyond, facts.of)} numbers beyond it"
    running = f" ({facts.beyond_running_var} running variances)" if facts.beyond_running_var else ""
    told = [
        f"{facts.format}: {beyond}{running}",
        f"{of(facts.flushed, facts.weights)} gammas become 0" if facts.weights else "",
        f"scale off by up to {figure(facts.scale_change)} of itself" if facts.scale_change is not None else "",
        f"shift by up to {figure(facts.shift)} deviations" if facts.shift is not None else "",
        f"folded into scale and shift {facts.folded_beyond} channels beyond it" if facts.folded_beyond else "",
        f"worst channel {facts.worst}" if facts.worst is not None else "",
    ]
    return ", ".join(filter(None, told))
