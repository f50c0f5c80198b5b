"""Operators that sum products: MatMul, Gemm, Einsum, Conv, ConvTranspose and their integer and fused forms."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Untaught
from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.ops import erasing, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, shaped
from graphcheck.kernel.ops.node import Node


def matmul(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """numpy's matmul."""
    return m.matmul(a, b)


def gemm(m: Algebra, node: Node, a: Some, b: Some, c: Value = None) -> Some:
    """alpha * op(A) @ op(B) + beta * C."""
    a = m.transpose(a, (1, 0)) if node.attr("transA", 0) else a
    b = m.transpose(b, (1, 0)) if node.attr("transB", 0) else b
    y: Some = scaled(m, m.matmul(a, b), node.attr("alpha", 1.0))
    return y if c is None else shaped(node, m.add(y, scaled(m, c, node.attr("beta", 1.0))), y.shape)


def scaled(m: Algebra, x: Some, factor: float) -> Some:
    """``factor`` * x; nothing where the factor is one. Of integers it has to be one as well."""
    if x.dtype.kind in "iu" and factor != int(factor):
        raise Untaught(f"integers times {factor:g}")
    return x if factor == 1.0 else m.mul(x, m.scalar(factor, x))


def einsum(m: Algebra, node: Node, *xs: Some) -> Some:
    """Pairwise contractions from the left."""
    equation = node.attr("equation").replace(" ", "")
    if isinstance(equation, bytes):
        equation = equation.decode()
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        terms, right = _spell_ellipsis(terms, right, [len(x.shape) for x in xs], "->" in equation)
    elif "->" not in equation:
        letters = "".join(terms)
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    operands = [_diagonal(m, x, t) for x, t in zip(xs, terms, strict=True)]
    value, names = operands[0]
    for i, (x, letters) in enumerate(operands[1:], 1):
        rest = "".join(t for _, t in operands[i + 1 :]) + right
        value, names = _pair(m, value, names, x, letters, rest)
    gone = [i for i, c in enumerate(names) if c not in right]
    if gone:
        value = m.lift(m.sum(value, gone, keepdims=False))
        names = "".join(c for c in names if c in right)
    return m.transpose(value, [names.index(c) for c in right])


def _diagonal(m: Algebra, x: Some, names: str) -> tuple[Tensor, str]:
    """The diagonal over letters that are repeated in one operand."""
    x = m.lift(x)
    if len(set(names)) == len(names):
        return x, names
    letters = "".join(dict.fromkeys(names))
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    index = np.einsum(index, [letters.index(c) for c in names], list(range(len(letters))))
    return m.pick(x, np.ascontiguousarray(index), index.shape), letters


def _spell_ellipsis(terms: list[str], right: str, ranks: list[int], explicit: bool) -> tuple[list[str], str]:
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in "".join(terms)]
    width = max((r - len(t) + 3 for t, r in zip(terms, ranks, strict=True) if "..." in t), default=0)
    spelled = []
    for t, r in zip(terms, ranks, strict=True):
        n = r - len(t) + 3
        spelled.append(t.replace("...", "".join(spare[width - n : width])))
    if not explicit:
        letters = "".join(terms).replace(".", "")
        right = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return spelled, right.replace("...", "".join(spare[:width]))


def _wide(m: Algebra, x: Tensor, names: str, sizes: dict[str, int]) -> Tensor:
    """``x`` with axes of one element broadcast to what the other operand has under the same letter."""
    return m.expand(x, [sizes.get(c, n) if n == 1 else n for c, n in zip(names, x.shape, strict=True)])


def _pair(m: Algebra, a: Tensor, na: str, b: Tensor, nb: str, rest: str) -> tuple[Tensor, str]:
    """Contract two operands: letters in both and needed later are batch, in both and not needed are summed."""
    batch = [c for c in na if c in nb and c in rest]
    summed = [c for c in na if c in nb and c not in rest]
    sizes_a, sizes_b = dict(zip(na, a.shape, strict=True)), dict(zip(nb, b.shape, strict=True))
    a, b = _wide(m, a, na, sizes_b), _wide(m, b, nb, sizes_a)
    only_a, only_b = [c for c in na if c not in nb], [c for c in nb if c not in na]
    size = {**dict(zip(nb, b.shape, strict=True)), **dict(zip(na, a.shape, strict=True))}
    if any(size[c] != n for c, n in zip(nb, b.shape, strict=True)):
        raise Refused(f"Einsum of {na} by {nb} with sizes {list(a.shape)} and {list(b.shape)} is not defined")
    at = m.transpose(a, [na.index(c) for c in (*batch, *only_a, *summed)])
    bt = m.transpose(b, [nb.index(c) for c in (*batch, *only_b, *summed)])
    ba, na_, nb_, k = (math.prod(size[c] for c in letters) for letters in (batch, only_a, only_b, summed))
    out = m.contract(m.reshape(at, (ba, na_, k)), m.reshape(bt, (ba, nb_, k)))
    names = (*batch, *only_a, *only_b)
    return m.reshape(out, [size[c] for c in names]), "".join(names)


def conv(m: Algebra, node: Node, x: Some, w: Some, b: Value = None) -> Some:
    """im2col and a matrix product per group: [g, N*L, C/g*K] x [g, M/g, C/g*K]."""
    x, w = m.lift(x), m.lift(w)
    groups, spatial = node.attr("group", 1), x.shape[2:]
    window = Window.resolve(node.attributes, spatial, w.shape[2:])
    out = window.out_shape(spatial)
    if min(out, default=1) < 1:
        raise Refused(f"the kernel of Conv does not fit its input {list(x.shape)}", node.name)
    if len(x.shape) < 3 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise Refused(f"Conv of {list(x.shape)} by {list(w.shape)} in {groups} groups is not defined", node.name)
    batch, filters, positions = x.shape[0], w.shape[0], math.prod(out)
    k = math.prod(w.shape[1:])
    limits.current().check_elements(groups * batch * positions * k, "a table of windows")
    shape = (groups, batch * positions, k)
    columns = m.remembered(
        ("im2col", x.shape, window, groups),
        lambda: m.terms.maps.of(im2col_form(x.shape, window, groups), lambda: np.zeros(shape, np.int64)),
    )
    patches = m.pick(x, columns, shape)
    y: Some = m.contract(patches, m.reshape(w, (groups, filters // groups, k)))
    if b is not None:
        y = m.add(y, m.reshape(b, (groups, 1, filters // groups)))
    y = m.reshape(y, (groups, batch, positions, filters // groups))
    return m.reshape(m.transpose(y, (1, 0, 3, 2)), (batch, filters, *out))


def conv_transpose(m: Algebra, node: Node, x: Some, w: Some, b: Value = None) -> Some:
    """A Conv that gives the ``stride`` elements of each step as channels, which are then laid side by side.

    Element s * q + r of an axis is the sum of x[q - j] * w[s * j + r] over j; a kernel that ends within a step, or is dilated
    beside a stride, is filled up with zeros. Without a stride it is the Conv by the flipped kernel.
    """
    x, w = m.lift(x), m.lift(w)
    groups, spatial, rank = node.attr("group", 1), x.shape[2:], len(x.shape) - 2
    plain = Window.resolve({**node.attributes, "auto_pad": "NOTSET", "pads": None}, spatial, w.shape[2:])
    extra = node.attr("output_padding") or (0,) * rank
    strides, extents, taps = plain.strides, plain.extents(), list(plain.kernel_shape)
    full = [(n - 1) * s + e for n, s, e in zip(spatial, strides, extents, strict=True)]
    pads = _transpose_pads(node, full, extra, spatial, strides, plain.kernel_shape)
    per_in, per_out = x.shape[1] // groups, w.shape[1]
    flip = np.arange(1, 1 + math.prod(w.shape)).reshape(groups, per_in, per_out, *w.shape[2:])
    begin, end, first, count = [], [], [], []  # of each axis: the Conv's pads, the first element that is kept, and how many
    dilations = list(plain.dilations)
    for i, (n, s, e) in enumerate(zip(spatial, strides, extents, strict=True)):
        if s > 1:
            taps[i], dilations[i] = -(-e // s), 1
            wide = np.zeros((*flip.shape[: 3 + i], taps[i] * s, *flip.shape[4 + i :]), np.int64)
            np.moveaxis(wide, 3 + i, 0)[: e : plain.dilations[i]] = np.moveaxis(flip, 3 + i, 0)
            flip = wide
        span = (taps[i] - 1) * dilations[i]
        first.append(pads[i] % s)
        count.append(full[i] + extra[i] - pads[i] - pads[rank + i])
        begin.append(span - pads[i] // s)
        end.append(-(-(first[i] + count[i]) // s) - n + span - begin[i])
    if min(count, default=1) < 1:
        raise Refused(f"the pads of ConvTranspose leave nothing of its input {list(x.shape)}", node.name)
    flip = flip.reshape(groups, per_in, per_out, *(v for pair in zip(taps, strides, strict=True) for v in pair))
    flip = np.flip(flip, axis=tuple(range(3, 3 + 2 * rank, 2)))
    flip = flip.transpose(0, *range(4, 4 + 2 * rank, 2), 2, 1, *range(3, 3 + 2 * rank, 2))
    filters = groups * per_out * math.prod(strides)
    kernel = m.pick(w, np.ascontiguousarray(flip), (filters, per_in, *taps))
    attributes = {"group": groups, "pads": [*begin, *end], "dilations": dilations, "strides": (1,) * rank}
    y = m.lift(conv(m, dataclasses.replace(node, attributes=attributes), x, kernel))
    steps = y.shape[2:]
    y = m.reshape(y, (x.shape[0], groups, *strides, per_out, *steps))
    y = m.transpose(y, [0, 1, 2 + rank, *(axis for i in range(rank) for axis in (3 + rank + i, 2 + i))])
    y = m.reshape(y, (x.shape[0], groups * per_out, *(n * s for n, s in zip(steps, strides, strict=True))))
    z: Some = m.cut(y, (0, 0, *first), (*y.shape[:2], *count))
    return z if b is None else m.add(z, m.reshape(b, (-1, *(1,) * rank)))


def _transpose_pads(node: Node, full: list[int], extra: Any, spatial: Any, strides: Any, kernel: Any) -> list[int]:
    """The pads of ConvTranspose, from output_shape or auto_pad where given (see its ONNX operator page)."""
    rank, auto_pad = len(full), node.attr("auto_pad", "NOTSET")
    shape = node.attr("output_shape")
    if auto_pad != "NOTSET" and auto_pad != "VALID" and any(s > k for s, k in zip(strides, kernel, strict=True)):
        raise Untaught("ConvTranspose with auto_pad SAME and strides beyond its kernel: the runtimes differ")
    if not shape and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        shape = [n * s for n, s in zip(spatial, strides, strict=True)]
    if not shape:
        return [0] * (2 * rank) if auto_pad == "VALID" else list(node.attr("pads") or [0] * (2 * rank))
    total = [f + o - n for f, o, n in zip(full, extra, list(shape)[-rank:], strict=True)]
    if min(total) < 0:
        raise Untaught("ConvTranspose to an output larger than the whole: the runtimes differ")
    half = [t // 2 for t in total]
    rest = [t - h for t, h in zip(total, half, strict=True)]
    return half + rest if auto_pad == "SAME_UPPER" else rest + half


def matmul_integer(m: Algebra, node: Node, a: Some, b: Some, za: Value = None, zb: Value = None) -> Some:
    """(A - a_zero_point) @ (B - b_zero_point); a per-row or per-column zero point is shaped to its axis."""
    return _products(m, m.matmul, _shift(m, a, za, -2), _shift(m, b, zb, -1))


def conv_integer(m: Algebra, node: Node, x: Some, w: Some, zx: Value = None, zw: Value = None) -> Some:
    """Conv of (x - x_zero_point) by (w - w_zero_point); padding is the zero point, that is 0 after the shift."""
    return _products(m, functools.partial(conv, m, node), _shift(m, x, zx, None), _shift(m, w, zw, 0))


Shifted = tuple[Some, Some | None]  # what stands for integers less their zero point, and the scale that it has to be divided by


def _products(m: Algebra, of: Callable[[Some, Some], Some], a: Shifted, b: Shifted) -> Tensor:
    y = of(a[0], b[0])
    for scale in (a[1], b[1]):
        y = y if scale is None else m.div(y, scale)
    exact = erasing.format_of(m, np.dtype(np.int32))  # it is no integer then, and any float holds it
    return Tensor(m.lift(y).cls, y.shape, np.dtype(np.int32), np.dtype(np.float32) if exact else None)


def _shift(m: Algebra, x: Some, zero: Value, axis: int | None) -> Shifted:
    def shifted(x: Some) -> Some:
        wide = Tensor(m.lift(x).cls, x.shape, np.dtype(np.float64))
        if zero is None:
            return wide
        point = zero
        if math.prod(zero.shape) > 1 and axis is not None:
            shape = [1] * len(x.shape)
            shape[axis] = -1
            point = m.reshape(zero, shape)
        flat = point.astype(np.float64) if isinstance(point, np.ndarray) else Tensor(point.cls, point.shape, wide.dtype)
        return m.sub(wide, flat.reshape(()) if isinstance(flat, np.ndarray) and flat.size == 1 else flat)

    return erasing.bare(m, x, zero, shifted)


OPS: dict[str, Callable[..., Any]] = {
    "MatMul": rows.Op(matmul, rows.multiplied),
    "Gemm": rows.Op(gemm, rows.gemm),
    "Einsum": rows.Op(einsum, rows.einsum),
    "Conv": rows.Op(conv, rows.first),
    "ConvTranspose": rows.Op(conv_transpose, rows.first),
    "MatMulInteger": rows.Op(matmul_integer, rows.scaled_product(1, columns=(3,))),
    "ConvInteger": rows.Op(conv_integer, rows.first),
}
