"""What one model does with each of its free sizes: rows by themselves, or the node that mixes them, and where it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.files.model import declared_shape
from graphcheck.kernel.every import Sizing
from graphcheck.kernel.ops import forms, rows


def sizes(model: ir.Model, sizings: Sequence[Sizing]) -> list[dict[str, Any]]:
    """For each free dim of the inputs: ``symbol``; ``rows``, whether every output is made row by row; ``mixed``, the first
    output that is not, with node and reason; ``breakpoints``; and ``declared``, outputs that contradict their declared shape.
    """
    return [_told(model, sizing) for sizing in sizings]


def _told(model: ir.Model, sizing: Sizing) -> dict[str, Any]:
    symbol, mixed, declared = sizing.symbol.name, None, []
    for value, kind in zip(model.graph.outputs, sizing.outputs, strict=True):
        if isinstance(kind, rows.Mixed):
            mixed = mixed or {"output": value.name, "node": kind.node, "reason": kind.reason}
        elif contrary := _contrary(value, kind, symbol):
            declared.append({"output": value.name, "reason": contrary})
    breaks = [{"size": size, "node": node} for size, node in sorted(sizing.breaks.items())]
    return {"symbol": symbol, "rows": mixed is None, "mixed": mixed, "breakpoints": breaks, "declared": declared}


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
