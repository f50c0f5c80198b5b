"""One named fault in a model, and whether the first divergence is where it was put."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from tests.zoo.editing import Editor, Mutation, name_of
from tests.zoo.mutations import MUTATIONS


def outputs_swapped(e: Editor) -> onnx.NodeProto | None:
    """Two outputs of the graph change places: each node gives what the other's output was."""
    outputs = [v for v in e.graph.output if e.shape(v.name)]
    for v in outputs:
        for w in outputs:
            if v.name < w.name and e.shape(v.name) == e.shape(w.name) and e.types[v.name] == e.types[w.name]:
                makers = {name: n for n in e.graph.node for name in n.output}
                one, two = makers.get(v.name), makers.get(w.name)
                if one is None or two is None:
                    continue
                rename = {v.name: w.name, w.name: v.name}
                for node in e.graph.node:
                    for names in (node.input, node.output):
                        names[:] = [rename.get(name, name) for name in names]
                return two
    return None


def negated(e: Editor) -> onnx.NodeProto | None:
    """A whole weight changes its sign."""
    for node in e.nodes("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul"):
        value = e.constant(node, 1)
        if value is not None and value.dtype == np.float32 and value.ndim > 1:
            e.set_constant(node, 1, -value)
            return node
    return None


def weight_transposed(e: Editor) -> onnx.NodeProto | None:
    """A weight is read in the other order of its axes and keeps its shape."""
    for node in e.nodes("Conv", "FusedConv", "MatMul", "Gemm", "FusedMatMul"):
        value = e.constant(node, 1)
        if value is not None and value.dtype == np.float32 and value.ndim > 1 and min(value.shape[:2]) > 1:
            e.set_constant(node, 1, np.ascontiguousarray(np.swapaxes(value, 0, 1)).reshape(value.shape))
            return node
    return None


def recurrent_weight(e: Editor) -> onnx.NodeProto | None:
    """The first two gates of a recurrent layer change places."""
    for node in e.nodes("LSTM", "GRU"):
        value = e.constant(node, 2)
        if value is not None and value.dtype == np.float32:
            rows = value.shape[1] // (4 if node.op_type == "LSTM" else 3)
            value = value.copy()
            value[:, : 2 * rows] = np.concatenate([value[:, rows : 2 * rows], value[:, :rows]], axis=1)
            e.set_constant(node, 2, value)
            return node
    return None


OWN: dict[str, Mutation] = {
    "outputs swapped": outputs_swapped,
    "weight negated": negated,
    "weight transposed": weight_transposed,
    "gates exchanged": recurrent_weight,
}
FAULTS: dict[str, Mutation] = OWN | {
    name: MUTATIONS[name]
    for name in (
        "pads",
        "perm of Transpose",
        "axis of Concat",
        "axis of Softmax",
        "axis of a reduction",
        "slice bounds",
        "gather index",
        "order of Concat",
        "order of Split",
        "sign of a weight",
        "two rows swapped",
        "bias dropped",
        "epsilon",
        "residual rewired",
        "layer dropped",
        "operands swapped",
        "scalar factor times 2",
        "strides",
        "two elements swapped",
    )
}


def faulty(model: onnx.ModelProto, fault: str, seed: int) -> tuple[onnx.ModelProto, str] | None:
    """The model with one fault and the name of the node that has it; None where there is no place for it."""
    editor = Editor(model, seed)
    if not any(editor.nodes("Conv", "MatMul", "Gemm", "LSTM", "GRU")):
        inner = [a.g for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
        if inner:
            editor.enter(max(range(len(inner)), key=lambda i: len(inner[i].node)))
    node = FAULTS[fault](editor)
    return None if node is None else (editor.model, name_of(node))


def located(
    a: onnx.ModelProto, b: onnx.ModelProto, node: str, shapes: Mapping[str, Any] | None = None, whole: bool = False
) -> tuple[str, str]:
    """How near the first divergence is (exact, next, near, elsewhere, none, no change, fails), and what it is."""
    try:
        found = (_compared if whole else _looked_at)(a, b, dict(shapes or {}))
    except Exception as error:  # a row like the others
        return "fails", f"{type(error).__name__}: {str(error)[:150]}"
    if found is None:
        return "no change", ""
    name = (found.get("b") or {}).get("node")
    return distance(b, name, node), f"{name} of B, {(found.get('a') or {}).get('node')} of A"


def distance(mutant: onnx.ModelProto, found: str | None, node: str) -> str:
    """exact for the node or what the fault put in, next for a neighbour of it, near for one at most three away."""
    if found is None:
        return "none"
    if found == node or "of_the_mutation" in found:
        return "exact"
    graphs = [mutant.graph, *(a.g for n in mutant.graph.node for a in n.attribute if a.HasField("g"))]
    near = {node}
    for step in range(3):
        for graph in graphs:
            tensors = {t for n in graph.node if name_of(n) in near for t in (*n.input, *n.output) if t}
            near = near | {name_of(n) for n in graph.node if tensors & {*n.output, *n.input}}
        if found in near:
            return "near" if step else "next"
    return "elsewhere"


def _compared(a: onnx.ModelProto, b: onnx.ModelProto, shapes: dict[str, Any]) -> dict[str, Any] | None:
    from graphcheck.verdicts.compare import compare

    found = compare(a, b, shapes=shapes, timeout=60.0)
    if str(found.verdict) in ("identical", "proved"):
        return None
    return found.evidence["divergence"] or {}


def _looked_at(a: onnx.ModelProto, b: onnx.ModelProto, shapes: dict[str, Any]) -> dict[str, Any] | None:
    from graphcheck.options import Options
    from graphcheck.verdicts.case import opened
    from graphcheck.verdicts.rungs import witness

    with opened(a, b, Options(run=False, shapes=shapes, timeout=120.0)) as case:
        known = case.sizes.prove((), ("congruence", "rows"), lambda _: None)
        attempt = next((x for x in known if not x.proved), None)
        if attempt is None:
            return None
        divergence = witness.beyond_rounding(case, witness.parted(case, attempt)).divergence
        return divergence.to_json() if divergence is not None else {}


__all__ = ["FAULTS", "distance", "faulty", "located"]
