"""Constants that alone separate two graphs: which they are, and by how much they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.graphs.structure import Structure

_LISTED, _LOOKED_AT = 200, 2**23  # constants, and elements of them in all


def changed(structure: Structure) -> list[dict[str, Any]]:
    """A row for each pair of constants at one place: ``a`` and ``b`` (names), ``shape_a``, ``shape_b``, and, where those
    are one, ``unequal`` (elements) and ``max_abs``. Names alone behind a few hundred, and behind many elements."""
    rows, left = [], _LOOKED_AT
    for place, (a, b) in enumerate(structure.changed):
        x, y = (ir.convenience.get_const_tensor(value) for value in (a, b))
        row: dict[str, Any] = {"a": a.name or "", "b": b.name or "", "unequal": None, "max_abs": None}
        if x is None or y is None:
            continue
        row |= {"shape_a": list(x.shape.numpy()), "shape_b": list(y.shape.numpy())}
        left -= x.size
        if row["shape_a"] == row["shape_b"] and place < _LISTED and left >= 0:
            row["unequal"], row["max_abs"] = _apart(x.numpy(), y.numpy())
        rows.append(row)
    return rows


def _apart(x: np.ndarray, y: np.ndarray) -> tuple[int, float | None]:
    """How many elements differ, and the largest |x - y| of those that are numbers."""
    if "O" in (x.dtype.kind, y.dtype.kind):
        return int((x != y).sum()), None
    wide = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    u, v = x.astype(wide), y.astype(wide)
    unequal = (x != y) & ~(np.isnan(u) & np.isnan(v))
    with np.errstate(invalid="ignore"):
        sizes = np.abs(u - v)[unequal]
    finite = sizes[np.isfinite(sizes)]
    return int(unequal.sum()), float(finite.max()) if finite.size else None
