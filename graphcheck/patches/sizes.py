"""What one model does with each of its free sizes: rows by themselves, or the node that mixes them, and where it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.files.model import declared_shape, node_name
from graphcheck.graphs import walk
from graphcheck.kernel.every import Sizing
from graphcheck.kernel.ops import forms, rows
from graphcheck.kernel.ops.algebra import Value


def sizes(model: ir.Model, sizings: Sequence[Sizing], values: Mapping[ir.Value, Value]) -> list[dict[str, Any]]:
    """For each free dim of the inputs: ``symbol``; ``rows``, whether every output is made row by row; ``mixed``, the first
    output that is not, with node and reason; ``bakes``, the node that has the size of one batch in it, and how;
    ``breakpoints``; and ``declared``, outputs that contradict their declared shape. ``values`` are those of the trace.
    """
    return [_told(model, sizing, values) for sizing in sizings]


def _told(model: ir.Model, sizing: Sizing, values: Mapping[ir.Value, Value]) -> dict[str, Any]:
    symbol, declared = sizing.symbol.name, []
    mixed: dict[str, Any] | None = None
    bakes: dict[str, Any] | None = None
    for value, kind in zip(model.graph.outputs, sizing.outputs, strict=True):
        if isinstance(kind, rows.Mixed):
            mixed = mixed or {"output": value.name, "node": kind.node, "reason": kind.reason}
        elif contrary := _contrary(value, kind, symbol):
            declared.append({"output": value.name, "reason": contrary})
            bakes = bakes or _baked(_cutting(value, sizing, values), values)
    if mixed is not None and mixed["reason"].startswith(rows.BAKES):
        node = next((node for node in model.graph if node_name(node) == mixed["node"]), None)
        reason = mixed["reason"].removeprefix(rows.BAKES).removeprefix(": ")
        bakes = _baked(node, values) or {"node": mixed["node"], "reason": reason}
    breaks = [{"size": size, "node": node} for size, node in sorted(sizing.breaks.items())]
    told = {"symbol": symbol, "rows": mixed is None, "mixed": mixed, "bakes": bakes}
    return {**told, "breakpoints": breaks, "declared": declared}


def _contrary(value: ir.Value, kind: rows.Kind, symbol: str) -> str | None:
    """How the declared shape of an output contradicts what it is, None where it does not."""
    dims = declared_shape(value)
    if not isinstance(kind, rows.Rows) or dims is None:
        return None
    size = forms.text((0, kind.outer * kind.inner), symbol)
    for axis, dim in enumerate(dims):
        if axis == kind.axis and (isinstance(dim, int) or (dim == symbol and size != symbol)):
            return f"axis {axis} is declared {dim} and has the size {size}"
        if axis != kind.axis and dim == symbol:
            return f"axis {axis} is declared {dim} and has one size, axis {kind.axis} has {size}"
    return None


def _cutting(value: ir.Value, sizing: Sizing, values: Mapping[ir.Value, Value]) -> ir.Node | None:
    """The node before an output that lays rows into an axis beside other elements; None where none does."""

    def ahead(node: ir.Node) -> ir.Value | None:
        known = (x for x in node.inputs if x is not None and x in values)
        return next((x for x in known if isinstance(sizing.of(values[x]), rows.Rows)), None)

    for made in walk.chain(value, ahead):
        node = made.producer()
        before = None if node is None else ahead(node)
        if before is not None and _alone(sizing.of(values[before])):
            kind = sizing.of(values[made]) if made in values else None
            return node if isinstance(kind, rows.Rows) and not _alone(kind) else None
    return None


def _alone(kind: rows.Kind | None) -> bool:
    """Whether each row has a place of its own on its axis."""
    return isinstance(kind, rows.Rows) and kind.outer == kind.inner == 1


def _baked(node: ir.Node | None, values: Mapping[ir.Value, Value]) -> dict[str, Any] | None:
    """A Reshape with the shape that stands in the model; None for another node."""
    shape = values.get(node.inputs[1]) if node is not None and node.op_type == "Reshape" and node.inputs[1] is not None else None
    if node is None or not isinstance(shape, np.ndarray):
        return None
    return {"node": node_name(node), "reason": f"Reshape to {shape.reshape(-1).tolist()}"}
