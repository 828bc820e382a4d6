"""Rules about a layer, before anything is computed: what of it was assumed, is ambiguous, or was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import Hit, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.results import LayerFacts, Skipped


def _eps_assumed(layer: LayerFacts) -> Iterator[Hit]:
    if layer.eps_source == "assumed":
        eps = f"{layer.eps:g}".replace("e-0", "e-")
        fix = f"give it: --eps {eps}, or --eps 'PATTERN={eps}' for some layers"
        yield Hit(None, f"eps is not in the file: {eps}, the default of its kind, is assumed", fix=fix)


def _degenerate(layer: LayerFacts) -> Iterator[Hit]:
    if layer.size == 1:
        yield Hit(None, "each statistic is of a single element: the output is beta, whatever the input")


def _ambiguous(layer: LayerFacts) -> Iterator[Hit]:
    if not layer.sure:
        also = f"; it could be {', '.join(layer.might_be)}" if layer.might_be else ""
        yield Hit(None, f"taken for {layer.norm}: {layer.how}{also}")
    if "num_groups" in layer.assumed:
        yield Hit(None, f"the number of groups is not in the file: {layer.num_groups} are assumed")


def _skipped(tensor: Skipped) -> Iterator[Hit]:
    yield Hit(None, tensor.reason)


LAYER_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC401",
        slug="eps-assumed",
        title="Eps assumed",
        severity="note",
        why="A file of weights does not say eps, and a smaller one may round to zero.",
        fix="give it: --eps 1e-5, or --eps 'PATTERN=1e-5' for some layers",
        accuracy=False,
        check=_eps_assumed,
    ),
    Rule(
        code="NC402",
        slug="degenerate-group",
        title="Degenerate group",
        severity="note",
        why="A single element is its own mean: the norm passes nothing on.",
        fix="normalise over more elements: more channels a group, a larger batch, or another norm",
        accuracy=False,
        check=_degenerate,
    ),
    Rule(
        code="NC403",
        slug="kind-ambiguous",
        title="Kind ambiguous",
        severity="note",
        why="Group, instance and layer norms look alike in a file of weights, and differ in what shares a statistic.",
        fix="say what it is: --kind 'PATTERN=group(32)'",
        accuracy=False,
        check=_ambiguous,
    ),
    Rule(
        code="NC404",
        slug="tensor-skipped",
        title="Tensor skipped",
        severity="note",
        why="What is not analysed is not known to be safe.",
        fix="analyse the model as it was before it was quantised or converted",
        accuracy=False,
        check=_skipped,
    ),
)
