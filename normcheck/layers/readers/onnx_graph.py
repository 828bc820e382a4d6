"""ONNX models: the norms of their graphs, as operators or written out, with initialisers as parameters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from normcheck.errors import UnreadableError
from normcheck.layers.contents import Contents, Omitted, Stated
from normcheck.layers.readers.onnx_norms import operator_norm
from normcheck.layers.readers.onnx_patterns import reshaped_group, written_out
from normcheck.layers.readers.onnx_values import Graph, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

_MAX_NODES = 10**6
_MAX_DEPTH = 64
_MAX_INFERRED_BYTES = 2**28
"""Inference of shapes copies the model twice."""
_OWN_DOMAINS = {"", "ai.onnx"}


def read(path: Path, name: str) -> Contents:
    """Find the norms of an ONNX model's graph, its subgraphs and its functions; elements are read when loaded.

    Parameters are constants of the graph, also where they are cast, reshaped or dequantised first. Those that lie in a
    file beside the model's are read from inside the model's directory only. Operators that give no norm of normcheck
    are left out with a reason. ONNX's momentum weighs the old running statistics; here it weighs the batch's.

    Raises:
        UnreadableError: it cannot be opened, is no ONNX model, is damaged, or the onnx package is not installed.
    """
    onnx = _library(name)
    model = _model(onnx, path, name)
    source = Source(onnx, path, name)
    opset = max((o.version for o in model.opset_import if o.domain in _OWN_DOMAINS), default=1)
    found = list(_norms(source, model.graph, None, opset))
    stated, omitted = _named([s for s in found if isinstance(s, Stated)]), [o for o in found if isinstance(o, Omitted)]
    return Contents(
        path=name,
        reader="ONNX graph",
        tensors=source.tensors,
        config={entry.key: entry.value for entry in model.metadata_props},
        stated=stated,
        omitted=tuple(omitted),
    )


def _library(name: str) -> ModuleType:
    try:
        import onnx  # noqa: PLC0415 - optional, and needed for these files alone
        import onnx.inliner  # noqa: PLC0415
        import onnx.shape_inference  # noqa: PLC0415
    except ImportError as error:
        raise UnreadableError(
            f"{name}: an ONNX model, which the onnx package is needed for; pip install 'normcheck[onnx]'"
        ) from error
    return onnx


def _model(onnx: ModuleType, path: Path, name: str) -> Any:
    """Return the model without what lies in other files, and with its functions' nodes in the place of their calls."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        _check(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except OSError as error:
        raise UnreadableError(f"{name}: cannot be opened: {error.strerror or error}") from error
    except Exception as error:  # protobuf's and the inliner's errors have no common base
        why = " ".join(str(error).split())
        raise UnreadableError(f"{name}: not a complete ONNX model ({why}); export or download it again") from error
    return _with_shapes(onnx, model)


def _with_shapes(onnx: ModuleType, model: Any) -> Any:
    """Return the model with the shapes of its values where they follow from the inputs'; itself if it is large."""
    if model.ByteSize() > _MAX_INFERRED_BYTES:
        return model
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - whatever it dislikes, shapes are only a help
        return model


def _check(model: Any) -> None:
    """Refuse a model without a graph, and functions that call themselves or would make an endless graph of nodes."""
    if not model.HasField("graph"):
        raise ValueError("it has no graph")
    bodies = {(f.domain, f.name): f for f in model.functions}
    calls = {key: [c for c in _calls(body.node, 0) if c in bodies] for key, body in bodies.items()}
    size: dict[tuple[str, str], int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            size[key] = len(bodies[key].node) + sum(size[call] for call in calls[key])
    except CycleError as error:
        raise ValueError(f"its function {error.args[1][0][1]!r} calls itself") from error
    nodes = sum(size.get(call, 1) for call in _calls(model.graph.node, 0))
    if nodes > _MAX_NODES:
        raise ValueError(f"its functions would make a graph of {nodes:.2g} nodes")


def _calls(nodes: Any, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"its graphs are nested more than {_MAX_DEPTH} deep")
    for node in nodes:
        yield node.domain, node.op_type
        for inner in _subgraphs(node):
            yield from _calls(inner.node, depth + 1)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _norms(source: Source, proto: Any, outer: Graph | None, opset: int) -> Iterator[Stated | Omitted]:
    graph = Graph(source, proto, outer)
    for index, node in enumerate(graph.nodes):
        try:
            found = (
                reshaped_group(graph, node, index)
                or operator_norm(graph, node, index, opset)
                or written_out(graph, node, index)
            )
        except IndexError as error:
            raise UnreadableError(
                f"{source.name}: an operator at node {node.name or index!r} ({node.op_type}) lacks operands; "
                "export the model again"
            ) from error
        if found is not None:
            yield found
        for inner in _subgraphs(node):
            yield from _norms(source, inner, graph, opset)


def _named(stated: list[Stated]) -> tuple[Stated, ...]:
    """Return each norm once, whatever the number of its uses, under a name of its own."""
    result: dict[Any, Stated] = {}
    names: set[str] = set()
    taken: Counter[str] = Counter()
    for norm in stated:
        parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        key = (norm.norm.name, *parameters, norm.eps) if norm.weight is not None else (norm.name, len(result))
        if key in result:
            continue
        name = norm.name
        while name in names:
            taken[norm.name] += 1
            name = f"{norm.name}#{taken[norm.name] + 1}"
        names.add(name)
        result[key] = replace(norm, name=name)
    return tuple(result.values())
