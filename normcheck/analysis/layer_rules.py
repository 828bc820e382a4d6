"""Rules about a layer, before anything is computed: what of it was assumed, is ambiguous, or was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normcheck.analysis.rule import NONE_KNOWN, Hit, Published, Rule

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


_OPEN = (
    "python -c \"import numpy; numpy.savez('open.npz', "
    "**{'conv.weight': numpy.ones((8, 3, 3, 3)), 'norm.weight': numpy.ones(8), 'norm.bias': numpy.zeros(8)})\" && "
    "normcheck analyze open.npz"
)
_QUANTISED = (
    "python -c \"import numpy; numpy.savez('norms.npz', "
    "**{'norm.weight': numpy.ones(8, 'TYPE'), 'norm.bias': numpy.zeros(8, 'f4')})\" && normcheck analyze norms.npz"
)

LAYER_RULES: tuple[Rule, ...] = (
    Rule(
        code="NC401",
        slug="eps-assumed",
        title="Eps assumed",
        severity="note",
        detects="neither the file, nor its configuration, nor an option says eps; state dicts never do",
        why="A file of weights does not say eps, and a smaller one may round to zero.",
        published=Published(
            "TVM's CUTLASS RMS norm had 1e-6 written into it: models trained with 1e-5, as Llama 2, lost accuracy on "
            "some inputs",
            "https://github.com/apache/tvm/pull/15856",
        ),
        fix="give it: --eps 1e-5, or --eps 'PATTERN=1e-5' for some layers",
        bad="normcheck analyze data/digits-cnn.pt --mode eval",
        good="normcheck analyze data/digits-cnn.pt --mode eval --eps 1e-5",
        check=_eps_assumed,
    ),
    Rule(
        code="NC402",
        slug="degenerate-group",
        title="Degenerate group",
        severity="note",
        detects="a statistic is of a single element: instance norm on 1 x 1 maps, batch norm on a batch of one, as "
        "many groups as channels without spatial dimensions. The layer is not run",
        why="A single element is its own mean: the norm passes nothing on.",
        published=Published(
            "torch: instance and group norms over a single element return zeros, silently, where batch norm refuses",
            "https://github.com/pytorch/pytorch/issues/19250",
        ),
        fix="normalise over more elements: more channels a group, a larger batch, or another norm",
        bad="normcheck analyze data/digits-cnn.pt --spatial 1,1 --batch-size 1",
        good="normcheck analyze data/digits-cnn.pt --spatial 1,1 --batch-size 2",
        check=_degenerate,
    ),
    Rule(
        code="NC403",
        slug="kind-ambiguous",
        title="Kind ambiguous",
        severity="note",
        detects="a layer's kind, or the number of its groups, follows from evidence that leaves other possibilities",
        why="Group, instance and layer norms look alike in a file of weights, and differ in what shares a statistic.",
        published=NONE_KNOWN,
        fix="say what it is: --kind 'PATTERN=group(32)'",
        bad=_OPEN,
        good=f"{_OPEN} --kind 'norm=group(4)'",
        check=_ambiguous,
    ),
    Rule(
        code="NC404",
        slug="tensor-skipped",
        title="Tensor skipped",
        severity="note",
        detects="something that belongs to a norm, or could, was left out: quantised weights, an optimizer's state, a "
        "second copy of the model. The message says why",
        why="What is not analysed is not known to be safe.",
        published=NONE_KNOWN,
        fix="analyse the model as it was before it was quantised or converted",
        bad=_QUANTISED.replace("TYPE", "i1"),
        good=_QUANTISED.replace("TYPE", "f4"),
        check=_skipped,
    ),
)
