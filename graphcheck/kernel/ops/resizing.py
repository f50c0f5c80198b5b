"""Resize and Upsample: interpolation axis by axis, each axis' matrix by the coordinates as exact fractions.

onnx.reference (1.23) is not asked: where a coordinate lies within a rounding of an element, it takes the one beside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Unshaped, Untaught
from graphcheck.kernel.ops import erasing, reference, rows
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value, axis_of
from graphcheck.kernel.ops.node import Node

_HALF = Fraction(1, 2)


def resize(m: Algebra, node: Node, x: Value, *rest: Value) -> Value:
    """Each axis times its matrix, or its elements picked. Constants are multiplied by what is ``about`` the matrix: what a
    runtime has made of them is near to that, and no equal."""
    if any(isinstance(r, Tensor) for r in rest):
        raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    out = m.lift(x)  # type: ignore[arg-type]
    axes = [axis_of(out, a) for a in node.attr("axes") or range(len(out.shape))]
    given: list[Any] = [r if r is not None and r.size else None for r in (*rest, None, None, None)[:3]]  # type: ignore[union-attr]
    roi, scales, sizes = given
    lengths = sizes if scales is None else [_length(node, out.shape[a], by) for a, by in zip(axes, scales, strict=True)]
    mode, crops = node.attr("mode", "nearest"), node.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    if doubt := reference.broken_length(node, out.shape, *rest):
        raise (Unshaped if crops else Untaught)(f"{node.op_type} {doubt}", node.name)
    if mode != "nearest" and out.dtype.name.startswith(("int", "uint")):
        inside = mode == "linear" and not crops  # no 0 beside them
        means = erasing.between(m, node, out, lambda x: resize(m, node, x, *rest)) if inside else None  # type: ignore[arg-type,return-value]
        if means is None:
            raise Untaught("Resize of integers between their values: the standard leaves the rounding open", node.name)
        return means
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch" or node.attr("extrapolation_value", 0.0) != 0.0:
        raise Untaught("Resize that keeps the aspect ratio, or puts a value outside of its region", node.name)
    for at, axis in enumerate(axes):
        n, to = out.shape[axis], int(lengths[at])
        scale = Fraction(float(scales[at])) if scales is not None else Fraction(to, max(n, 1))
        region = (0.0, 1.0) if roi is None else (float(roi[at]), float(roi[at + len(axes)]))
        key = ("resize", node.key(), n, to, scale, region)
        if key not in m.memo:
            m.memo[key] = weights(node, n, to, scale, region)
        out = _along(m, out, axis, m.memo[key], _off(node, m.memo[key]) if isinstance(x, np.ndarray) else None)
    return out


def upsample(m: Algebra, node: Node, x: Value, scales: Value = None) -> Value:
    """Upsample, and Resize before opset 11: coordinates are divided by the scale, nearest takes the floor."""
    scales = np.asarray(node.attr("scales"), np.float32) if scales is None else scales
    if isinstance(scales, Tensor):
        raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    mode = node.attr("mode", "nearest")
    if mode == "nearest" and bool(((scales < 1) & (1 / scales % 1 != 0)).any()):
        for n, scale in zip(x.shape, scales, strict=True):  # type: ignore[union-attr]
            _length(node, n, scale)
        raise Untaught("Resize before opset 11 that shrinks by no whole factor: the standard leaves its rounding open", node.name)
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    plain = dataclasses.replace(node, op_type="Resize", version=13, attributes=attributes)
    return resize(m, plain, x, None, scales)


def _near(n: int | Fraction) -> Fraction:
    """How far from a coordinate on an axis of n elements, or from a length n, that of a runtime may lie: some roundings of
    float32."""
    return max(Fraction(1, 10_000), Fraction(n) / 2**22)


def _length(node: Node, n: int, scale: Any) -> int:
    length = Fraction(float(scale)) * n
    to = math.floor(length)
    if to != math.floor(length + _near(length)):
        raise Unshaped("Resize to a length that depends on how the scale is rounded", node.name)
    return to


def weights(node: Node, n: int, to: int, scale: Fraction, region: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """The matrix [n, to] of one axis (onnx.ai/onnx/operators/onnx__Resize.html); ``scale`` is that of the axis, exactly."""
    limits.current().check_elements(n * to, "the matrix of a Resize")
    at, how = _coordinates(node, n, to, scale, region), node.attr("coordinate_transformation_mode", "half_pixel")
    mode, near = node.attr("mode", "nearest"), node.attr("nearest_mode", "round_prefer_floor")
    exact = scale * 2**10 % 1 == 0 and how not in ("half_pixel_symmetric", "tf_crop_and_resize")
    if mode == "nearest" and not exact and any(_on_the_edge(x, n, near) for x in at):
        raise Untaught("Resize whose nearest element depends on how its coordinates are rounded", node.name)
    width = min(scale, Fraction(1)) if node.attr("antialias", 0) else Fraction(1)
    kernel, reach = _kernel(node), math.ceil((2 if mode == "cubic" else 1) / width)
    found = np.zeros((n, to))
    for j, x in enumerate(at):
        first = math.floor(x)
        if how == "tf_crop_and_resize" and not 0 <= x <= n - 1:
            continue  # extrapolation_value, which is 0
        if mode == "nearest":
            taken, taps = np.ones(1), np.array([_NEAREST[near](x)])
        else:
            taps = np.arange(first - reach + 1, first + reach + 1)
            taken = kernel(np.abs(taps - first - float(x - first)) * float(width))
            taken = taken / taken.sum() if width < 1 else taken
            if node.attr("exclude_outside", 0):
                taken = np.where((taps < 0) | (taps >= n), 0.0, taken)
                taken = taken / (taken.sum() or 1.0)
        np.add.at(found[:, j], np.clip(taps, 0, n - 1), taken)
    if to == n and (scale != 1 or how == "tf_crop_and_resize") and not np.array_equal(found, np.eye(n)):
        raise Untaught("Resize of an axis to its own length: the standard and the runtimes differ", node.name)
    return found


_NEAREST: dict[str, Callable[[Fraction], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda x: math.ceil(x - _HALF),
    "round_prefer_ceil": lambda x: math.floor(x + _HALF),
}


def _on_the_edge(x: Fraction, n: int, near: str) -> bool:
    """Whether a coordinate lies so near to the edge between two elements that its rounding decides."""
    x = x + _HALF if near.startswith("round") else x
    return abs(x - round(x)) < _near(n)


def _coordinates(node: Node, n: int, to: int, scale: Fraction, region: tuple[float, float]) -> list[Fraction]:
    """Where each element of the result lies among the elements of the axis."""
    how, (low, high) = node.attr("coordinate_transformation_mode", "half_pixel"), map(Fraction, region)
    places = [Fraction(j) for j in range(to)]
    match how:
        case "asymmetric":
            return [j / scale for j in places]
        case "align_corners":
            return [j * (n - 1) / (to - 1) if to != 1 else Fraction(0) for j in places]
        case "tf_crop_and_resize":
            part = (high - low) * (n - 1)
            found = [low * (n - 1) + (j * part / (to - 1) if to != 1 else part / 2) for j in places]
            if region != (0.0, 1.0) and any(min(abs(x), abs(x - n + 1)) < _near(n) for x in found):
                raise Untaught("Resize of a region that ends at an element: the runtimes differ", node.name)
            return found
        case "pytorch_half_pixel" if to == 1:
            return [-_HALF] * to
        case "half_pixel" | "pytorch_half_pixel":
            return [(j + _HALF) / scale - _HALF for j in places]
        case "half_pixel_symmetric":
            return [Fraction(n, 2) * (1 - to / (scale * n)) + (j + _HALF) / scale - _HALF for j in places]
    raise Untaught(f"Resize with coordinate_transformation_mode={how}", node.name)


def _kernel(node: Node) -> Callable[[np.ndarray], np.ndarray]:
    """The weight of an element by its distance."""
    if node.attr("mode", "nearest") != "cubic":
        return lambda d: np.maximum(1 - d, 0.0)
    a = node.attr("cubic_coeff_a", -0.75)

    def cubic(d: np.ndarray) -> np.ndarray:  # Keys, "Cubic convolution interpolation for digital image processing", 1981
        inner, outer = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))

    return cubic


def _off(node: Node, weights: np.ndarray) -> np.ndarray:
    """How far runtimes, which compute in float32, may be from the weights [n, to] of an interpolation.

    Four roundings of the coordinate are felt by the slope of the kernel (1 for linear; at most 1.5 + abs(a) for cubic), by
    elements beside the window too; the kernel itself is a polynomial, which cubic computes with terms of 12 abs(a).
    """
    if not weights.size:
        return weights
    a = abs(node.attr("cubic_coeff_a", -0.75))
    slope, own = (1.5 + a, 32 * (1 + a)) if node.attr("mode") == "cubic" else (1.0, 4.0)
    seen = np.pad(weights != 0, ((1, 1), (0, 0)))
    seen = seen[:-2] | seen[1:-1] | seen[2:]
    reach = len(weights) + 1 - seen[::-1].argmax(axis=0)
    off: np.ndarray = 2.0**-24 * np.where(seen, 4 * slope * reach + own, 0.0)
    return off


def _along(m: Algebra, x: Tensor, axis: int, weights: np.ndarray, off: np.ndarray | None) -> Tensor:
    n, to = weights.shape
    if to == n and np.array_equal(weights, np.eye(n)):
        return x
    if bool(((weights == 0) | (weights == 1)).all() and (weights.sum(axis=0) == 1).all()):
        sides = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        picked = m.terms.maps.along(sides[0], n, sides[1], weights.argmax(axis=0))
        return m.pick(x, picked, (*x.shape[:axis], to, *x.shape[axis + 1 :]))
    rank = len(x.shape)
    factors = weights if off is None else m.ew("about", weights, off)
    out = m.matmul(m.transpose(x, [*(i for i in range(rank) if i != axis), axis]), factors)
    return m.transpose(Tensor(out.cls, out.shape, x.dtype), [*range(axis), rank - 1, *range(axis, rank - 1)])


OPS: dict[str, Callable[..., Any]] = {
    "Resize": rows.Op(lambda m, node, *xs: (resize if node.version >= 11 else upsample)(m, node, *xs), rows.resized),
    "Upsample": rows.Op(upsample, rows.resized),
}
