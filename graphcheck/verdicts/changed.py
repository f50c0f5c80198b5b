"""Constants that alone separate two graphs: which they are, and by how much they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.graphs.structure import Structure
from graphcheck.runs.statistics import is_float, parts, ulps

_LISTED, _LOOKED_AT = 200, 2**23  # constants, and elements of them in all


def changed(structure: Structure) -> list[dict[str, Any]]:
    """A row for each pair of constants at one place: ``a`` and ``b`` (names), ``shape_a``, ``shape_b``, ``elements`` (of A's).

    Where the shapes are one also ``unequal`` (elements), ``max_abs`` and, of one floating type, ``max_ulp``: these are None
    behind a few hundred constants, and behind many elements.
    """
    rows, left = [], _LOOKED_AT
    for place, (a, b) in enumerate(structure.changed):
        x, y = (ir.convenience.get_const_tensor(value) for value in (a, b))
        row: dict[str, Any] = {"a": a.name or "", "b": b.name or "", "unequal": None, "max_abs": None, "max_ulp": None}
        if x is None or y is None:
            continue
        row |= {"shape_a": list(x.shape.numpy()), "shape_b": list(y.shape.numpy()), "elements": x.size}
        left -= x.size
        if row["shape_a"] == row["shape_b"] and place < _LISTED and left >= 0:
            row |= _apart(x.numpy(), y.numpy())
        rows.append(row)
    return rows


def used(structure: Structure) -> dict[str, int]:
    """How many constants the nodes of A, and of B, use."""
    return {side: len(list(flat.used_constants())) for side, flat in (("a", structure.left), ("b", structure.right))}


def _apart(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """How many elements differ, and the largest distance of those that are numbers."""
    if "O" in (x.dtype.kind, y.dtype.kind):
        return {"unequal": int((x != y).sum())}
    told: dict[str, Any] = {"unequal": 0}
    wide = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    for one, other in parts(x.reshape(-1), y.reshape(-1)):
        with np.errstate(invalid="ignore"):  # a signalling NaN, and inf - inf
            u, v = one.astype(wide), other.astype(wide)
            sizes = np.abs(u - v)
        unequal = (one != other) & ~(np.isnan(u) & np.isnan(v))
        finite = unequal & np.isfinite(sizes)
        told["unequal"] += int(unequal.sum())
        if finite.any():
            told["max_abs"] = max(told.get("max_abs", 0.0), float(sizes[finite].max()))
            if x.dtype == y.dtype and is_float(x.dtype):
                told["max_ulp"] = max(told.get("max_ulp", 0.0), float(ulps(one[finite], other[finite], x.dtype).max()))
    return told
