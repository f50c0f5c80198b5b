"""Operators on quantized tensors: each is QuantizeLinear of what it is over the dequantized values."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Untaught
from graphcheck.kernel.ops import arithmetic, contraction, erasing, recurrent, reduction, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of
from graphcheck.kernel.ops.node import Node


def _read(m: Algebra, node: Node, x: Some, scale: Some, zero: Value, axis: int = 1) -> Some:
    return arithmetic.dequantize(m, dataclasses.replace(node, attributes={"axis": axis}), x, scale, zero)


def _write(m: Algebra, node: Node, y: Some, scale: Some, zero: Value, axis: int = 1) -> Some:
    return arithmetic.quantize(m, dataclasses.replace(node, attributes={"axis": axis}), y, scale, zero)


def _bias(m: Algebra, b: Some, sx: Some, sw: Some) -> Some:
    """An int32 bias has the scale of the products."""
    if isinstance(b, np.ndarray) and erasing.format_of(m, b.dtype):
        return m.ew("mul", erasing.near(m, b), m.mul(sx, sw))
    if isinstance(b, np.ndarray) and not (np.abs(b.astype(np.int64)) < 2**24).all():
        b = Tensor(m.lift(b).cls, b.shape, np.dtype(np.float32))  # as it is: float32 does not hold it
    if isinstance(b, np.ndarray) and isinstance(sx, np.ndarray) and isinstance(sw, np.ndarray):
        return np.asarray(b.astype(np.float32) * (sx * sw))
    return m.ew("mul", arithmetic.cast_to(m, b, np.dtype(np.float32)), m.mul(sx, sw))


def matmul(m: Algebra, node: Node, *xs: Some) -> Some:
    """Scales per row of A and per column of B."""
    a, sa, za, b, sb, zb, sy, zy = xs
    return _write(m, node, m.matmul(_read(m, node, a, sa, za, -2), _read(m, node, b, sb, zb, -1)), sy, zy)


def conv(m: Algebra, node: Node, *xs: Some) -> Some:
    """Weights with a scale per filter; the bias has the scale of the products."""
    x, sx, zx, w, sw, zw, sy, zy, *bias = xs
    b = _bias(m, bias[0], sx, sw) if bias else None

    def of(m: Algebra, node: Node, x: Some) -> Some:
        y = contraction.conv(m, node, _read(m, node, x, sx, zx), _read(m, node, w, sw, zw, 0), b)
        return _write(m, node, y, sy, zy)

    return _channels_first(m, node, x, of)


def _channels_first(m: Algebra, node: Node, x: Some, of: Callable[..., Some]) -> Some:
    """An operator on [N, C, ...], of [N, ..., C] where ``channels_last`` says so."""
    if not node.attr("channels_last", node.op_type.startswith("Nhwc")):
        return of(m, node, x)
    last = len(x.shape) - 1
    return m.transpose(of(m, node, m.transpose(x, (0, last, *range(1, last)))), (0, *range(2, last + 1), 1))


def gemm(m: Algebra, node: Node, *xs: Value) -> Some:
    """QGemm: alpha scales the bias too; without an output scale the result stays a float."""
    padded: list[Value] = [*xs, *[None] * (9 - len(xs))]
    (a, sa, za), (b, sb, zb), (c, sy, zy) = padded[:3], padded[3:6], padded[6:9]
    assert a is not None and sa is not None and b is not None and sb is not None
    bias = None if c is None else contraction.scaled(m, _bias(m, c, sa, sb), node.attr("alpha", 1.0))
    plain = dataclasses.replace(node, attributes={**node.attributes, "beta": 1.0})
    axis = 0 if node.attr("transB", 0) else 1
    y = contraction.gemm(m, plain, _read(m, node, a, sa, za), _read(m, node, b, sb, zb, axis), bias)
    return y if sy is None else _write(m, node, y, sy, zy)


def binary(verb: str) -> Callable[..., Some]:
    """QLinearAdd and QLinearMul."""

    def op(
        m: Algebra, node: Node, a: Some, sa: Some, za: Value, b: Some, sb: Some, zb: Value, sy: Some, zy: Value = None
    ) -> Some:
        return _write(m, node, getattr(m, verb)(_read(m, node, a, sa, za), _read(m, node, b, sb, zb)), sy, zy)

    return op


def unary(of: Callable[..., Some]) -> Callable[..., Some]:
    """An operator of one quantized input."""

    def op(m: Algebra, node: Node, x: Some, sx: Some, zx: Value, sy: Some, zy: Value = None) -> Some:
        return _channels_first(m, node, x, lambda m, node, x: _write(m, node, of(m, node, _read(m, node, x, sx, zx)), sy, zy))

    return op


def matmul_to_float(
    m: Algebra, node: Node, a: Some, b: Some, sa: Some, sb: Some, za: Value = None, zb: Value = None, c: Value = None
) -> Some:
    """MatMulIntegerToFloat: the product of integers times both scales, plus a float bias."""
    rows = m.reshape(sa, (-1, 1)) if math.prod(sa.shape) > 1 else sa
    whole = arithmetic.cast_to(m, contraction.matmul_integer(m, node, a, b, za, zb), np.dtype(np.float32))
    y: Some = m.mul(whole, m.mul(rows, sb))
    return y if c is None else m.add(y, c)


_POOL = "auto_pad ceil_mode count_include_pad dilations kernel_shape pads strides"
_LSTM = {"direction": "forward", "activations": [], "activation_alpha": [], "activation_beta": [], "clip": 0.0, "input_forget": 0}


def lstm(m: Algebra, node: Node, *xs: Value) -> tuple[Tensor, ...]:
    """DynamicQuantizeLSTM's Y [S, D, B, H], Y_h and Y_c [D, B, H] of x [S, B, I] and w [D, I, 4H]: an unknown function.

    How many rows are quantized with one scale depends on the threads of the runtime, but for few rows of many columns: there
    the operator is spelled out in a store that asks for it.
    Source: onnxruntime/contrib_ops/cpu/quantization/dynamic_quantize_lstm.cc, and SetNumThreads in
    onnxruntime/core/providers/cpu/rnn/uni_directional_lstm.cc
    """
    assert xs[0] is not None and xs[1] is not None
    (steps, batch, size), (ways, inputs, gates) = xs[0].shape, xs[1].shape
    if size != inputs or gates % 4:
        raise Refused(f"{node.op_type} of {list(xs[0].shape)} by {list(xs[1].shape)} is not defined", node.name)
    if erasing.format_of(m, np.dtype(np.int8)) and not any(isinstance(x, Tensor) for x in xs[1:5] + xs[7:]):
        return _spelled(m, node, *xs)
    if (batch == 1 or (batch <= 4 and gates > 4 * 256)) and not any(isinstance(x, Tensor) for x in xs[1:5] + xs[7:]):
        if m.spells:
            with contextlib.suppress(Untaught):
                return _spelled(m, node, *xs)
        m.spelling = True
    m.assumptions.add(f"{node.op_type} is taken as an unknown function")
    key = dataclasses.replace(node, attributes={name: node.attr(name, default) for name, default in _LSTM.items()}).key()
    args, last = [m.lift(x) for x in xs if x is not None], (ways, batch, gates // 4)
    shapes = [(steps, *last), last, last][: node.n_outputs]
    return tuple(m.unknown(key, args, i, shape, xs[0].dtype) for i, shape in enumerate(shapes))


def _spelled(m: Algebra, node: Node, *xs: Value) -> tuple[Tensor, ...]:
    """The LSTM over dequantized weights, its inputs and its states quantized before each product, all rows at once."""
    padded: list[Value] = [*xs, *[None] * (12 - len(xs))]
    x, w, r, b, lens, h, c, p = padded[:8]
    assert x is not None
    attributes = {name: node.attr(name, default) for name, default in _LSTM.items()}
    plain = dataclasses.replace(node, domain="", op_type="LSTM", version=14, attributes=attributes)
    w, r = _dequantized(m, w, *padded[8:10]), _dequantized(m, r, *padded[10:12])
    before = functools.partial(_marked, node) if erasing.format_of(m, np.dtype(np.int8)) else _through
    return recurrent.lstm(m, plain, x, w, r, b, lens, h, c, p, before=before)  # type: ignore[no-any-return]


def _marked(node: Node, m: Algebra, x: Some) -> Some:
    """The same, as what was quantized."""
    m.marks.append((node.name, erasing.format_of(m, np.dtype(np.int8)), m.lift(x).cls))
    return x


def _dequantized(m: Algebra, w: Value, scale: Value, zero: Value) -> Some:
    """Weights [D, I, 4H] as [D, 4H, I], exactly."""
    assert isinstance(w, np.ndarray) and isinstance(scale, np.ndarray) and not isinstance(zero, Tensor)
    if erasing.format_of(m, w.dtype):
        shape = (len(w), 1, -1)
        point = None if zero is None else zero.reshape(shape)
        return m.transpose(erasing.dequantized(m, w, scale.reshape(shape), point), (0, 2, 1))
    whole = w.astype(np.float64) - (0 if zero is None else zero.reshape(len(w), 1, -1))
    return (whole * scale.astype(np.float64).reshape(len(w), 1, -1)).transpose(0, 2, 1)


def _through(m: Algebra, x: Some) -> Some:
    """What is left of a tensor that DynamicQuantizeLinear and DequantizeLinear go through; all zeros stay what they are."""
    if isinstance(x, np.ndarray) and not x.any():
        return x
    nothing, most, axes = m.scalar(0, x), m.scalar(255, x), range(len(x.shape))
    low = m.ew("min", m.extreme("min", x, axes, False), nothing)
    scale = m.div(m.sub(m.ew("max", m.extreme("max", x, axes, False), nothing), low), most)
    zero = m.ew("round", m.div(m.neg(low), scale))
    whole = m.add(m.ew("round", m.div(x, scale)), zero)
    return m.mul(m.sub(m.ew("min", m.ew("max", whole, nothing), most), zero), scale)


def _softmax(m: Algebra, node: Node, x: Some) -> Some:
    """Softmax; before operator set 13 it is one over all axes from ``axis`` on."""
    if axis_of(x, node.attr("axis", -1)) != len(x.shape) - 1 and node.attr("opset", 13) < 13:
        raise Untaught("QLinearSoftmax over several axes", node.name)
    return m.along("softmax", x, node.attr("axis", -1))


def concat(m: Algebra, node: Node, sy: Some, zy: Some, *parts: Some) -> Some:
    """QLinearConcat of tensors, each with its scale and zero point."""
    read = [_read(m, node, x, scale, zero) for x, scale, zero in zip(*(parts[i::3] for i in range(3)), strict=True)]
    axis, shape = axis_of(read[0], node.attr("axis")), list(read[0].shape)
    shape[axis] = sum(part.shape[axis] for part in read)
    ends = np.cumsum([0, *(math.prod(part.shape) for part in read)])
    places = [np.arange(1, 1 + math.prod(part.shape)).reshape(part.shape) + end for part, end in zip(read, ends, strict=False)]
    return _write(m, node, m.join(read, np.concatenate(places, axis), shape, np.float32), sy, zy)


def where(m: Algebra, node: Node, c: Some, *parts: Some) -> Some:
    """QLinearWhere."""
    x, sx, zx, y, sy, zy, s, z = parts
    return _write(m, node, m.where(c, _read(m, node, x, sx, zx), _read(m, node, y, sy, zy)), s, z)


# Their kernels round in ways of their own: they mean this where roundings are erased.
ERASED: dict[str, tuple[Callable[..., Any], str]] = {
    "QLinearSoftmax": (unary(_softmax), "axis opset"),
    "QLinearAveragePool": (unary(reduction.average_pool), f"{_POOL} channels_last"),
    "QLinearConcat": (concat, "axis"),
    "QLinearWhere": (where, ""),
}

STANDARD: dict[str, Callable[..., Any]] = {
    "QLinearMatMul": rows.Op(matmul, rows.scaled_product(3, columns=(4, 5))),
    "QLinearConv": rows.Op(conv, rows.first),
}

_CONV = "auto_pad dilations group kernel_shape pads strides channels_last"
CONTRIB: dict[str, tuple[Callable[..., Any], str, rows.Rule]] = {
    "QuantizeLinear": (arithmetic.quantize, "axis", rows.quantized),
    "DequantizeLinear": (arithmetic.dequantize, "axis", rows.quantized),
    "QLinearConv": (conv, _CONV, rows.first),
    "NhwcMaxPool": (functools.partial(_channels_first, of=reduction.max_pool), _POOL, rows.first),
    "QLinearAdd": (binary("add"), "", rows.elementwise),
    "QLinearMul": (binary("mul"), "", rows.elementwise),
    "QLinearSigmoid": (unary(lambda m, node, x: m.sigmoid(x)), "", rows.elementwise),
    "QLinearLeakyRelu": (unary(arithmetic.leaky_relu), "alpha", rows.elementwise),
    "QLinearGlobalAveragePool": (unary(reduction.global_pool("mean")), "channels_last", rows.first),
    "QGemm": (gemm, "alpha transA transB", rows.quantized_gemm),
    "DynamicQuantizeLSTM": (lstm, f"{' '.join(_LSTM)} hidden_size", rows.mixed),
    "MatMulIntegerToFloat": (matmul_to_float, "", rows.scaled_product(1, columns=(3, 5, 6))),
}
