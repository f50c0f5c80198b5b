"""Tensors of two traced graphs that should be equal: by class, and behind a divergence by op and place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from graphcheck.files.model import node_name
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair
from graphcheck.parting.alignment import Alignment, Divergence

Partners = tuple[ir.Value, ir.Value, Tensor, bool]
"""The value in A, the value in B, A's tensor, and whether they are paired by their class or as outputs, not by place."""


def partners(
    models: tuple[ir.Model, ir.Model], pair: Pair, outputs: list[tuple[str, str]], divergence: Divergence | None
) -> Iterator[Partners]:
    """Float tensors of one shape that should be equal in both graphs and depend on the inputs, in A's order."""
    alignment = Alignment(*models, pair)
    nodes = [list(model.graph) for model in models]
    traces = (pair.a.values, pair.b.values)
    rows = {i: j for i, j, status in alignment.nodes() if status == "same"}
    makers = [{v.name: i for i, node in enumerate(nodes[side]) for v in node.outputs[:1]} for side in (0, 1)]
    for x, y in outputs:
        if x in makers[0] and y in makers[1] and makers[1][y] not in rows.values():
            rows.setdefault(makers[0][x], makers[1][y])
    sure = set(rows)
    if divergence is not None and divergence.a is not None and divergence.b is not None:
        places = (divergence.a.node, divergence.b.node)
        behind = [_behind(nodes[side], places[side]) for side in (0, 1)]
        used = (set(rows), set(rows.values()))
        free = [[i for i in behind[side] if i not in used[side]] for side in (0, 1)]
        first, second = ([(nodes[s][i].op_type, _shape(nodes[s][i], traces[s])) for i in free[s]] for s in (0, 1))
        for block in difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
            rows |= {free[0][block.a + k]: free[1][block.b + k] for k in range(block.size)}
    for i, j in sorted(rows.items()):
        values = [_tensor(nodes[0][i], traces[0]), _tensor(nodes[1][j], traces[1])]
        if values[0] is not None and values[1] is not None:
            a, b = traces[0][values[0]], traces[1][values[1]]
            if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape or a.dtype.kind in "iub":
                continue
            if pair.terms.find(a.cls) not in pair.terms.arrays:
                yield values[0], values[1], a, i in sure


def _behind(nodes: list[ir.Node], name: str) -> list[int]:
    """Indices of the node of that name and of all that read it."""
    found: set[ir.Value] = set()
    indices = []
    for i, node in enumerate(nodes):
        if node_name(node) == name or any(v in found for v in node.inputs):
            found.update(node.outputs)
            indices.append(i)
    return indices


def _tensor(node: ir.Node, values: Any) -> ir.Value | None:
    return next((v for v in node.outputs if v.name and isinstance(values.get(v), Tensor)), None)


def _shape(node: ir.Node, values: Any) -> tuple[int, ...] | None:
    value = _tensor(node, values)
    return None if value is None else tuple(values[value].shape)
