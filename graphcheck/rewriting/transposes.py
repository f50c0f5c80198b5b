"""Takes out Transposes that undo each other, also where elementwise operators stand between them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphcheck.graphs import walk
from graphcheck.kernel.ops import rows
from graphcheck.kernel.ops.table import TAUGHT

_LONGEST = 32  # nodes between two Transposes: a Gelu that is written out has five
_ELEMENTWISE = (rows.elementwise, rows.clipped, rows.identity)


def cancel_transposes(nodes: Sequence[ir.Node]) -> None:
    """Take out, in place, those of ``nodes`` that are Transposes and undo the Transposes before them.

    From channels last to first and back between two sites, say. What is elementwise in between is computed in the order
    from before, where nothing else reads it. Of several Transposes of one tensor to one order the first stays.
    """
    same: dict[tuple[ir.Value | None, tuple[int, ...]], ir.Node] = {}
    for node in nodes:
        perm = _perm(node)
        first = node if perm is None else same.setdefault((node.inputs[0], tuple(perm)), node)
        if first is not node and first.graph is node.graph and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(first.outputs[0])
            continue
        found = None if perm is None else _before(node, perm)
        if perm is not None and found is not None:
            _take_out(*found, perm)


def _before(node: ir.Node, perm: Sequence[int]) -> tuple[list[ir.Node], list[ir.Node], list[ir.Node]] | None:
    """(Transposes that ``node`` undoes, elementwise nodes in between, Transposes that undo them alike); None if not so."""
    def undone(maker: ir.Node) -> bool:
        first = _perm(maker)
        return first is not None and [first[axis] for axis in perm] == list(range(len(perm)))

    def further(value: ir.Value) -> Sequence[ir.Value | None]:
        maker = value.producer()
        return () if maker is None or undone(maker) or not _is_elementwise(maker) else maker.inputs

    starts: list[ir.Node] = []
    between: list[ir.Node] = []
    for value in walk.back(node.inputs[:1], further):
        maker = value.producer()
        if _is_scalar(value, len(perm)):
            continue
        if maker is None or len(between) > _LONGEST or not (undone(maker) or _is_elementwise(maker)):
            return None
        (starts if undone(maker) else between).append(maker)
    starts, between = list(dict.fromkeys(starts)), list(dict.fromkeys(between))
    users = [user for maker in between for value in maker.outputs for user in value.consumers() if user not in between]
    ends = list(dict.fromkeys([node, *users]))
    if any(_perm(end) != perm or end.graph is not node.graph for end in ends) or not starts:
        return None
    kept = any(value.is_graph_output() for maker in (*between, *ends) for value in maker.outputs)
    return None if kept else (starts, between, ends)


def _take_out(
    starts: Sequence[ir.Node], between: Sequence[ir.Node], ends: Sequence[ir.Node], perm: Sequence[int]
) -> None:
    for node in between:
        for at, value in enumerate(node.inputs):
            start = None if value is None else value.producer()
            if start in starts:
                node.replace_input_with(at, start.inputs[0])  # type: ignore[union-attr]
        for value in node.outputs:
            value.shape = None if value.shape is None else ir.Shape([value.shape[axis] for axis in perm])
    for end in ends:
        result = end.inputs[0] if between else starts[0].inputs[0]
        assert result is not None
        end.outputs[0].replace_all_uses_with(result)


def _perm(node: ir.Node) -> list[int] | None:
    """The order of a Transpose that states it; None for any other node."""
    stated = node.op_type == "Transpose" and node.domain in ("", "ai.onnx") and "perm" in node.attributes
    return list(node.attributes["perm"].as_ints()) if stated else None


def _is_elementwise(node: ir.Node) -> bool:
    """Whether a node computes each element from those at the same place, or from a scalar."""
    op = TAUGHT.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    return isinstance(op, rows.Op) and op.rows in _ELEMENTWISE


def _is_scalar(value: ir.Value, rank: int) -> bool:
    """Whether a value is a constant of one element, which broadcasts to any order of ``rank`` axes."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size == 1 and len(tensor.shape) <= rank
