"""How near the numbers of a copy come to the ends of their types, over the reals: what overflows and what vanishes.

A runtime may hide it: onnxruntime's CPU provider computes float16 in float32 and rounds seldom. A result beyond its type's range
is infinite wherever the type is what the model says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphcheck.kernel.values.float64 import Real
from graphcheck.precision.kinds import Kind
from graphcheck.precision.program import Result, Step

_ADDED = ("infinite", "zero", "subnormal", "elements", "cut", "over", "least", "among", "sign")
MASK = -1e30  # what is below is a mask


class Ranges:
    """Rows for each result of a narrow type, filled by a walk over the reals: hand :meth:`settle` and :meth:`inside` to it, and
    keep the ``outputs`` that it gives."""

    def __init__(self) -> None:
        self.outputs: dict[str, np.ndarray] = {}
        self.rows: list[dict[str, Any]] = []
        self.narrowed: list[dict[str, Any]] = []
        self.quantizers: dict[str, None] = {}  # the nodes whose ranges were looked at
        self._inside = 0.0

    def settle(self, step: Step, result: Result, value: np.ndarray) -> np.ndarray:
        """Note a result, and leave it as it is but for what a quantizer cuts off, which may be a Relu."""
        kind = result.kind
        if kind is None or step.keeps:
            return value
        if not kind.is_float or step.op_type == "QuantizeLinear":
            self.quantizers[step.node] = None
        if not value.size:
            return value
        if kind.is_float:
            self.rows.append(_row(step, result, kind, value, self._inside))
            self._inside = 0.0
            return value
        self.narrowed.append(_cut(step, result, kind, value))
        return np.asarray(np.clip(value, kind.low, kind.high)) if self.narrowed[-1]["cut"] else value

    @property
    def saturated(self) -> list[dict[str, Any]]:
        """The rows of those that cut something off."""
        return [row for row in self.narrowed if row["cut"]]

    def join(self, other: Ranges) -> None:
        """Add what was seen at another input."""
        self.rows = _joined(self.rows, other.rows)
        self.narrowed = _joined(self.narrowed, other.narrowed)

    def inside(self, step: Step, value: Real) -> None:
        """Note the largest number inside of a step."""
        self._inside = max(self._inside, _largest(value.raw))


def _joined(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of two inputs as one: counts are added, and of magnitudes the larger one stays."""
    rows = {(row["node"], row["tensor"]): row for row in old}
    for row in new:
        known = rows.setdefault((row["node"], row["tensor"]), row)
        if known is row:
            continue
        joined = known | {key: known[key] + row[key] for key in _ADDED if key in row}
        joined |= {key: max(known[key] or 0.0, row[key] or 0.0) or None for key in ("inside",) if key in row}
        joined |= {key: max(known[key], row[key]) for key in ("largest", "lost", "steps", "sign_steps") if key in row}
        rows[row["node"], row["tensor"]] = joined | _distance(joined)
    return list(rows.values())


def overflowed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of what does not fit into its type, in order of the graph."""
    return [row for row in rows if row["infinite"]]


def vanished(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that lose more to the least number of their type than to its roundings."""
    return [row for row in rows if row["lost"] > row["unit"] * row["largest"]]


def _row(step: Step, result: Result, kind: Kind, value: np.ndarray, inside: float) -> dict[str, Any]:
    wide = value.astype(np.float64, copy=False)
    seen = np.abs(wide[np.isfinite(wide) & (wide != 0) & (wide > MASK)])
    largest = float(seen.max(initial=0.0))
    gone = seen <= kind.least / 2
    row = {
        "tensor": result.name,
        "node": step.node,
        "op_type": step.op_type,
        "format": kind.name,
        "largest": largest,
        "limit": kind.high,
        "normal": kind.normal,
        "above": None,
        "below": None,
        "infinite": int((seen >= kind.over).sum()),
        "zero": int(gone.sum()),
        "subnormal": int((seen < kind.normal).sum() - gone.sum()),
        "elements": int(value.size),
        "lost": float(seen[gone].max(initial=0.0)),
        "unit": kind.unit,
        "inside": inside if inside > largest else None,
    }
    return row | _distance(row)


def _distance(row: dict[str, Any]) -> dict[str, Any]:
    """The powers of two up to the largest number of the type, and down to the least normal one."""
    if "limit" not in row:
        return {}
    return {"above": _bits(row["limit"], row["largest"]), "below": _bits(row["largest"], row["normal"])}


def _cut(step: Step, result: Result, kind: Kind, value: np.ndarray) -> dict[str, Any]:
    """The elements that a quantizer cuts to an end of its range, and by how many steps."""
    over = np.rint(value) - kind.high
    under = kind.low - np.rint(value)
    beyond = np.maximum(over, under)
    cut = beyond > 0
    signs = ((over, kind.high - step.zero, value > step.zero + 0.5), (under, step.zero - kind.low, value < step.zero - 0.5))
    # half of a number or more is cut
    halved = [(end, int(((end > 0) & (end >= kept)).sum()), int(sign.sum())) for end, kept, sign in signs]
    gone = [(end, count) for end, count, of in halved if 2 * count > of]
    least = int((value == value.min()).sum()) if value.size > 1 else 0
    return {
        "tensor": result.name,
        "node": step.node,
        "op_type": step.op_type,
        "format": kind.name,
        "cut": int(cut.sum()),
        "over": int((over > 0).sum()),
        "sign": sum(count for _, count in gone),
        "sign_steps": max((float(end.max()) for end, _ in gone), default=0.0),
        "elements": int(value.size),
        "least": least,
        "among": int(value.size) - least if cut.any() else 0,  # of the inputs where something is cut off
        "steps": max(float(beyond.max()), 0.0),
        "range": kind.high - kind.low + 1,
    }


def _bits(a: float, b: float) -> float | None:
    """Powers of two from b up to a; None where there are no numbers."""
    return round(math.log2(a / b), 1) if a > 0 and b > 0 else None


def _largest(values: np.ndarray) -> float:
    if values.dtype.kind in "OSUTb":
        return 0.0
    wide = values.astype(np.float64, copy=False)
    return float(np.abs(wide).max(initial=0.0, where=np.isfinite(wide) & (wide > MASK)))
