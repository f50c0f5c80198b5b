"""Two arrays as data for pictures: where they deviate over a token grid or an image, and one against the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MAX_SIDE, MAX_POINTS, FARTHEST = 64, 2000, 100
_EXTRA_TOKENS = 5  # a class token and registers in front of a token grid


def pictures(a: Array, b: Array) -> dict[str, Any]:
    """{"heatmap": {"values", "over"} | None, "scatter": [[a, b], ...]} of two numeric arrays of one shape, else nothing.

    ``values`` is |a - b| in two dims of at most 64 (NaN and infinite as None), each the largest of what it stands for;
    ``over`` says what the two dims are. ``scatter`` has at most 2,000 pairs of finite elements: evenly spread ones, and
    those that deviate most.
    """
    if a.shape != b.shape or not a.size or a.dtype.kind in "OSUTcb" or b.dtype.kind in "OSUTcb":
        return {}
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(np.isnan(x) & np.isnan(y) | (x == y), 0.0, np.abs(x - y))
    plane, over = _plane(apart)
    shown = _smaller(_smaller(plane, 0), 1)
    values = [[round_to(v) if math.isfinite(v) else None for v in row] for row in shown.tolist()]
    return {
        "heatmap": {"values": values, "over": over} if np.nan_to_num(shown).any() else None,
        "scatter": _scatter(x.reshape(-1), y.reshape(-1), apart.reshape(-1)),
    }


def round_to(value: float, digits: int = 4) -> float:
    """A float of so many significant digits, for the sake of the file's size."""
    return float(f"{value:.{digits}g}")


def _plane(apart: Array) -> tuple[Array, str]:
    """The array in two dims, by the largest over the others, and what the dims are."""
    shape = apart.shape
    last_is_channel = len(shape) == 4 and (shape[1] == shape[2] != shape[3] or shape[3] <= 4 < min(shape[1:3]))
    if len(shape) == 4 and min(shape[2:]) > 1 and not last_is_channel:
        return apart.max((0, 1)), f"the image of {shape[2]} by {shape[3]}, largest of batch and channels"
    if len(shape) == 4 and min(shape[1:3]) > 1:
        return apart.max((0, 3)), f"the image of {shape[1]} by {shape[2]}, largest of batch and channels"
    if len(shape) == 3:
        side = math.isqrt(shape[1])
        extra = shape[1] - side * side
        if side > 1 and extra <= _EXTRA_TOKENS:
            tokens = apart.max((0, 2))
            grid, above = tokens[extra:].reshape(side, side), np.full((1 if extra else 0, side), np.nan)
            above[:, : min(extra, side)] = tokens[: min(extra, side)]
            front = f" (in the row above, the {extra} in front)" if extra else ""
            return np.vstack(
                [above, grid]
            ), f"the grid of {side} by {side} tokens{front}, largest of batch and channels"
        return apart.max(0), f"{shape[1]} rows of {shape[2]}, largest of the batch"
    last = shape[-1] if shape else 1
    return apart.reshape(-1, last), f"{apart.size // last} rows of {last}"


def _smaller(plane: Array, axis: int) -> Array:
    """At most 64 along the axis, each the largest of a block."""
    size = plane.shape[axis]
    if size <= MAX_SIDE:
        return plane
    return np.asarray(np.fmax.reduceat(plane, [i * size // MAX_SIDE for i in range(MAX_SIDE)], axis=axis))


def _scatter(x: Array, y: Array, apart: Array) -> list[list[float]]:
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not finite.size:
        return []
    count = min(FARTHEST, finite.size)
    farthest = finite[np.argpartition(-apart[finite], count - 1)[:count]]
    even = finite[np.linspace(0, finite.size - 1, min(finite.size, MAX_POINTS - count)).astype(int)]
    chosen = np.union1d(even, farthest)
    return [[round_to(u), round_to(v)] for u, v in zip(x[chosen].tolist(), y[chosen].tolist(), strict=True)]
