"""Elementwise operators: arithmetic, comparisons, activations, casts and quantization."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Untaught
from graphcheck.kernel.ops import erasing, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of, shaped
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.rules.identities import is_step
from graphcheck.kernel.terms.verbs import Ew
from graphcheck.kernel.values import bounds
from graphcheck.kernel.values.bounds import FLOAT8, limits


def _numpy_dtype(code: int) -> np.dtype[Any]:
    import onnx_ir as ir

    return np.dtype(ir.DataType(code).numpy())


def _kind(dtype: np.dtype[Any]) -> str:
    """ "f" for floats (the small ones of ml_dtypes too), "i" for integers, "b" for bool."""
    if dtype.kind in "bf":
        return dtype.kind
    return "i" if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")) else "f"


def binary(fn: str) -> Callable[..., Some]:
    """An operator that is one verb of two operands."""
    return lambda m, node, a, b: getattr(m, fn)(a, b)


def wrapped(m: Algebra, x: Some) -> Some:
    """``x`` modulo the size of its type, where that is a small or unsigned integer; int32 is taken as wide enough."""
    narrow = isinstance(x, Tensor) and _kind(x.dtype) == "i" and (x.dtype.kind == "u" or x.dtype.itemsize < 4)
    return m.ew(f"wrap:{x.dtype.name}", x) if narrow else x


def unary(fn: str) -> Callable[..., Some]:
    """An uninterpreted function of one operand."""
    return lambda m, node, x: m.ew(fn, x)


def div(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """Quotient over the reals; an integer division is an uninterpreted function."""
    return m.div(a, b) if _kind(a.dtype) == "f" else m.ew("intdiv", a, b)


def mod(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """Remainder, uninterpreted."""
    return m.ew("fmod" if node.attr("fmod", 0) else "mod", a, b)


def pow_(m: Algebra, node: Node, x: Some, y: Some) -> Some:
    """Small integer powers are products, 0.5 is Sqrt; anything else is uninterpreted."""
    y = erasing.exponent(m, node, y)
    if _kind(x.dtype) == "i":
        whole = isinstance(y, np.ndarray) and y.size == 1 and float(y.reshape(-1)[0]) in (1.0, 2.0, 3.0)
        if not whole:
            raise Untaught("Pow of computed integers", node.name)
    if isinstance(y, np.ndarray) and y.size and bool((y == y.reshape(-1)[0]).all()):
        value = float(y.reshape(-1)[0])
        if value in (1.0, 2.0, 3.0, 4.0) or value in (-1.0, -2.0):
            power = functools.reduce(m.mul, [x] * int(abs(value)))
        elif value in (0.5, -0.5):
            power = m.ew("sqrt", x)
        else:
            return m.ew("pow", x, y)
        return m.expand(power if value > 0 else m.recip(power), np.broadcast_shapes(x.shape, y.shape))
    return m.ew("pow", x, y)


def chain(fn: str) -> Callable[..., Some]:
    """Sum, Max, Min over any number of operands."""

    def op(m: Algebra, node: Node, *xs: Some) -> Some:
        return functools.reduce(lambda a, b: m.ew(fn, a, b), xs)

    return op


def mean(m: Algebra, node: Node, *xs: Some) -> Some:
    """The average of the operands."""
    return m.div(functools.reduce(m.add, xs), np.asarray(len(xs), np.float64))


def clip(m: Algebra, node: Node, x: Some, low: Value = None, high: Value = None) -> Some:
    """Min(Max(x, low), high); bounds as attributes before opset 11."""
    if low is None and node.attr("min") is not None:
        low = np.asarray(node.attr("min"), x.dtype)
    if high is None and node.attr("max") is not None:
        high = np.asarray(node.attr("max"), x.dtype)
    low, high = (b if b is None else shaped(node, b, (), (1,)) for b in (low, high))
    low, high = _bound(m, x, low, -1), _bound(m, x, high, 1)
    y = x if low is None else m.ew("max", x, low)
    y = y if high is None else m.ew("min", y, high)
    if m.erased and isinstance(y, Tensor) and not isinstance(low, Tensor) and not isinstance(high, Tensor):
        m.clips[y.cls] = erasing.ends(low, high)
    return y


def _bound(m: Algebra, x: Some, bound: Value, sign: int) -> Value:
    """None for a bound of Clip that nothing finite passes: an infinite one, or the type's largest number."""
    if not isinstance(bound, np.ndarray) or _kind(bound.dtype) != "f":
        return bound
    import ml_dtypes

    wide = sign * bound.astype(np.float64)
    if not (wide >= float(ml_dtypes.finfo(x.dtype).max)).all():  # type: ignore[no-untyped-call]
        return bound
    if not np.isinf(wide).all():
        m.assumptions.add(FINITE)
    return None


def _infinite(m: Algebra, compare: Callable[..., Any], a: Some, b: Some) -> np.ndarray | None:
    """A comparison with a constant that is infinite throughout: the other is so only where a mask put -inf."""
    if not any(isinstance(x, np.ndarray) and x.size and np.isinf(x.astype(np.float64)).all() for x in (a, b)):
        return None
    m.assumptions.add(FINITE)
    stand_in = [x if isinstance(x, np.ndarray) else np.where(m.masked(x), -np.inf, 0) for x in (a, b)]
    return np.asarray(compare(*stand_in))


def less(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a < b is pos(b - a)."""
    if (known := _infinite(m, np.less, a, b)) is not None:
        return known
    return m.ew("pos", m.sub(_number(m, b), _number(m, a)), dtype=bool)


def greater(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a > b is pos(a - b)."""
    return less(m, node, b, a)


def not_(m: Algebra, node: Node, x: Some) -> Some:
    """1 - x."""
    return _typed(m.sub(np.asarray(1, np.float32), _number(m, x)), np.dtype(bool))


def less_equal(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a <= b is 1 - pos(a - b): not the same as a < b on ties."""
    return not_(m, node, greater(m, node, a, b))


def greater_equal(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a >= b is 1 - pos(b - a)."""
    return not_(m, node, less(m, node, a, b))


def equal(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a == b: neither is larger."""
    if (known := _infinite(m, np.equal, a, b)) is not None:
        return known
    larger, smaller = greater(m, node, a, b), less(m, node, a, b)
    return m.ew("mul", not_(m, node, larger), not_(m, node, smaller), dtype=bool)


def and_(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a * b."""
    return m.ew("mul", _number(m, a), _number(m, b), dtype=bool)


def or_(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """1 - (1 - a) * (1 - b)."""
    return not_(m, node, and_(m, node, not_(m, node, a), not_(m, node, b)))


def xor(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """a + b - 2 a b."""
    a, b = _number(m, a), _number(m, b)
    both = m.mul(np.asarray(-2, np.float32), m.mul(a, b))
    return _typed(m.add(m.add(a, b), both), np.dtype(bool))


def where(m: Algebra, node: Node, c: Some, x: Some, y: Some) -> Some:
    """A selection where the condition is concrete, c * x + (1 - c) * y otherwise."""
    return m.where(c, x, y)


FINITE = (
    "inputs and what is computed from them are finite and no softmax row is fully masked, so IsNaN and IsInf are false"
)


def isnan(m: Algebra, node: Node, x: Some) -> Some:
    """False: inputs are taken as finite and no row as fully masked; the verdict prints that assumption."""
    m.assumptions.add(FINITE)
    return np.zeros(x.shape, bool)


def isinf(m: Algebra, node: Node, x: Some) -> Some:
    """True where a mask put -inf, under the same assumption."""
    m.assumptions.add(FINITE)
    return m.masked(x) if node.attr("detect_negative", 1) else np.zeros(x.shape, bool)


def _number(m: Algebra, x: Some) -> Some:
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "b" else _typed(x, None)


def _typed(x: Some, dtype: np.dtype[Any] | None) -> Some:
    """The same values under another declared type."""
    if isinstance(x, np.ndarray):
        return x if dtype is None else x.astype(dtype)
    if dtype is None:
        dtype = np.dtype(np.float32) if x.dtype.kind == "b" else x.dtype
    return Tensor(x.cls, x.shape, dtype)


def sign(m: Algebra, node: Node, x: Some) -> Some:
    """pos(x) - pos(-x)."""
    return m.sub(m.pos(x), m.pos(m.neg(x)))


def leaky_relu(m: Algebra, node: Node, x: Some) -> Some:
    """x where x > 0, alpha * x elsewhere."""
    return prelu(m, node, x, m.scalar(node.attr("alpha", 0.01), x))


def prelu(m: Algebra, node: Node, x: Some, slope: Some) -> Some:
    """x where x > 0, slope * x elsewhere."""
    pos = m.pos(x)
    below = m.mul(slope, m.sub(m.scalar(1, x), pos))
    return m.mul(x, m.add(pos, below))


def softplus(m: Algebra, node: Node, x: Some) -> Some:
    """Log(1 + Exp(x))."""
    return m.ew("log", m.add(m.scalar(1, x), m.exp(x)))


def gelu(m: Algebra, node: Node, x: Some) -> Some:
    """0.5 x (1 + Erf(x / Sqrt(2))), or by Tanh; constants in the declared type.

    Sqrt(2 / pi) is rounded once, as exporters store it; ONNX's function body rounds 2 / pi first and is one ulp apart.
    """
    half, one = m.scalar(0.5, x), m.scalar(1, x)
    if node.attr("approximate", "none") == "tanh":
        cubic = m.mul(m.scalar(0.044715, x), m.mul(x, m.mul(x, x)))
        factor = m.scalar(float(np.sqrt(2 / np.pi)), x)
        return m.mul(m.mul(half, x), m.add(one, m.ew("tanh", m.mul(factor, m.add(x, cubic)))))
    root = np.sqrt(m.scalar(2, x)).astype(x.dtype)
    return m.mul(x, m.mul(half, m.add(one, m.ew("erf", m.div(x, root)))))


def hard_sigmoid(m: Algebra, node: Node, x: Some) -> Some:
    """Max(Min(alpha x + beta, 1), 0)."""
    line = m.add(m.mul(x, m.scalar(node.attr("alpha", 0.2), x)), m.scalar(node.attr("beta", 0.5), x))
    return m.ew("max", m.ew("min", line, m.scalar(1.0, x)), m.scalar(0.0, x))


def swish(m: Algebra, node: Node, x: Some) -> Some:
    """x * Sigmoid(alpha x)."""
    return m.mul(x, m.sigmoid(m.mul(m.scalar(node.attr("alpha", 1.0), x), x)))


def cast(m: Algebra, node: Node, x: Some) -> Some:
    """The same value where the type keeps it; narrowing floats and float to integer are uninterpreted, but for roundings that
    are erased."""
    return _cast(m, node, x, _numpy_dtype(node.attr("to")))


def cast_like(m: Algebra, node: Node, x: Some, like: Some) -> Some:
    """Cast to the type of the second input."""
    return _cast(m, node, x, np.dtype(like.dtype))


def _cast(m: Algebra, node: Node, x: Some, to: np.dtype[Any]) -> Some:
    if to.name.startswith("float8") and (not node.attr("saturate", 1) or "e8m0" in to.name):
        raise Untaught(f"{node.op_type} to {to.name} that does not saturate or rounds in its own way", node.name)
    name = to.name.replace("_", "")
    if name in m.erased and isinstance(x, Tensor) and _kind(x.dtype) in "fi" and not _keeps(to, x.held or x.dtype):
        exact = x if _kind(x.dtype) == "f" else cast_to(m, x, np.dtype(np.float32))
        assert isinstance(exact, Tensor)
        m.marks.append((node.name, name, exact.cls))
        return Tensor(exact.cls, x.shape, to)
    return cast_to(m, x, to)


def cast_to(m: Algebra, x: Some, to: np.dtype[Any]) -> Some:
    """``x`` in the declared type ``to``."""
    if isinstance(x, np.ndarray) and not to.name.startswith("float8"):
        return x.astype(to)
    x = m.lift(x)
    source, target = _kind(x.dtype), _kind(to)
    if target == "b" and source != "b":
        zero = np.asarray(0, np.float32)
        return _typed(or_any(m, less(m, _NO_NODE, x, zero), greater(m, _NO_NODE, x, zero)), to)
    held = x.held or x.dtype
    if _keeps(to, held):
        return Tensor(x.cls, x.shape, to, None if held == to else held)
    kind = "wrap" if source == target == "i" else "cast"
    return m.ew(f"{kind}:{to.name}", x, dtype=to)


def _keeps(to: np.dtype[Any], held: np.dtype[Any]) -> bool:
    """Whether ``to`` has every number of a type."""
    source, target = _kind(held), _kind(to)
    if source == target:
        return held == to or (_holds(to, held) if source == "i" else _wider(to, held))
    return source == "b" or (source == "i" and target == "f" and held.itemsize * 2 <= to.itemsize)  # 8 bits in 16 ...


def _holds(to: np.dtype[Any], source: np.dtype[Any]) -> bool:
    """Whether every integer of ``source`` is one of ``to``."""
    wide, narrow = bounds.ends(to), bounds.ends(source)
    return wide is not None and narrow is not None and wide[0] <= narrow[0] and wide[1] >= narrow[1]


def or_any(m: Algebra, a: Some, b: Some) -> Some:
    """Logical or of two exclusive conditions."""
    return m.ew("add", a, b, dtype=bool)


def _wider(to: np.dtype[Any], source: np.dtype[Any]) -> bool:
    order = {**dict.fromkeys(FLOAT8, 0), "float16": 1, "bfloat16": 1, "float32": 2, "float64": 3}
    return order.get(to.name, -1) > order.get(source.name, 9)


def dequantize(m: Algebra, node: Node, x: Some, scale: Some, zero: Value = None) -> Some:
    """(x - zero_point) * scale, per tensor or along ``axis``."""
    scale, zero = _along(m, node, x, scale), None if zero is None else _along(m, node, x, zero)
    if erasing.format_of(m, x.dtype):
        return erasing.dequantized(m, x, scale, zero)
    if isinstance(x, np.ndarray) and isinstance(scale, np.ndarray) and not isinstance(zero, Tensor):
        offset = 0 if zero is None else zero.astype(np.float32)
        return np.asarray((x.astype(np.float32) - offset) * scale).astype(scale.dtype)
    wide = Tensor(m.lift(x).cls, x.shape, scale.dtype)
    if (ends := limits(x.dtype)) is not None:
        m.terms.integers[wide.cls] = ends
    shifted = wide if zero is None else m.sub(wide, _wide(zero, scale.dtype))
    return m.ew("mul", shifted, scale, dtype=scale.dtype)


def quantize(m: Algebra, node: Node, x: Some, scale: Some, zero: Value = None) -> Some:
    """Saturate(Round(x / scale) + zero_point): rounding and saturation are uninterpreted."""
    if not node.attr("saturate", 1) or node.attr("precision", 0):
        raise Untaught("QuantizeLinear of a computed value that does not saturate, or in another precision", node.name)
    if zero is not None and math.prod(zero.shape) != math.prod(scale.shape):
        shaped(node, zero, scale.shape)
    to = zero.dtype if zero is not None else _numpy_dtype(node.attr("output_dtype") or 2)
    if erasing.format_of(m, to):
        points = None if zero is None else _along(m, node, x, zero)
        if (found := erasing.quantized(m, node, x, _along(m, node, x, scale), points, to)) is not None:
            return found
    ends = limits(to)
    scaled = m.div(_unclipped(m, m.lift(x), scale, zero, ends), _along(m, node, x, scale))
    scaled = m.ew("round", scaled) if _kind(to) == "i" else scaled
    shifted = scaled if zero is None else m.add(scaled, _wide(_along(m, node, x, zero), scaled.dtype))
    if ends is None:
        return m.ew(f"saturate:{to.name}", shifted, dtype=to)
    low, high = (np.asarray(end, np.int64) for end in ends)
    return m.ew("min", m.ew("max", shifted, low), high, dtype=to)


def _unclipped(m: Algebra, x: Tensor, scale: Some, zero: Value, ends: tuple[float, float] | None) -> Tensor:
    """What a quantizer of constant parameters gives the same of: what lies before a Relu or a Clip that its range lies within."""
    steps, points = m.lower(scale), np.zeros(()) if zero is None else m.lower(zero)
    if ends is None or not isinstance(steps, np.ndarray) or not isinstance(points, np.ndarray) or not (steps > 0).all():
        return x
    wide, zeros = steps.astype(np.float64), points.astype(np.float64)
    least, most = ((end + part - zeros) * wide for end, part in zip(ends, (0.49, -0.49), strict=True))
    while (inner := _before_clip(m, x.cls, float(least.min()), float(most.max()))) is not None:
        x = Tensor(inner, x.shape, x.dtype)
    return x


def _before_clip(m: Algebra, cls: int, least: float, most: float) -> int | None:
    """What is clipped at no more than ``least``, or at no less than ``most``."""
    term = m.terms.term(cls)
    if not isinstance(term.verb, Ew) or term.verb.maps != (None, None):
        return None
    fn, n = term.verb.fn, term.size
    for a, c in (term.args, term.args[::-1]):
        relu = fn == "mul" and is_step(m.terms, (c, None), (m.terms.find(a), None))
        end = 0.0 if relu else m.terms.scalar(c)
        if end is not None and m.terms.size(a) == n and (end <= least if relu or fn == "max" else fn == "min" and end >= most):
            return a
    return None


def _wide(zero: Some, dtype: np.dtype[Any]) -> Some:
    """A zero point beside values of the type ``dtype``, which need not hold it: float16 has no 40001."""
    return Tensor(zero.cls, zero.shape, dtype) if isinstance(zero, Tensor) else zero.astype(np.float64)


def _along(m: Algebra, node: Node, x: Some, parameter: Some) -> Some:
    """A per-axis parameter shaped to broadcast against ``x``; a blocked one repeated to its shape."""
    block = node.attr("block_size", 0)
    if block:
        axis = axis_of(x, node.attr("axis", 1))
        index = np.arange(1, 1 + math.prod(parameter.shape)).reshape(parameter.shape).repeat(block, axis)
        return m.pick(parameter, index.take(np.arange(x.shape[axis]), axis), x.shape)
    if math.prod(parameter.shape) == 1:
        return parameter.reshape(()) if isinstance(parameter, np.ndarray) else m.reshape(parameter, ())
    axis = axis_of(x, node.attr("axis", 1))
    shape = [1] * len(x.shape)
    shape[axis] = x.shape[axis]
    return parameter.reshape(shape) if isinstance(parameter, np.ndarray) else m.reshape(parameter, shape)


_NO_NODE = Node("", "", 0, "", {}, 0, 0, (), ())

_UNARY = "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Round Sin Sinh Sqrt Tan Tanh"

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": binary("add"),
    "Sub": binary("sub"),
    "Mul": binary("mul"),
    "Div": div,
    "Mod": mod,
    "Pow": pow_,
    "Sum": chain("add"),
    "Max": chain("max"),
    "Min": chain("min"),
    "Mean": mean,
    "Neg": lambda m, node, x: m.neg(x),
    "Reciprocal": lambda m, node, x: m.recip(x),
    "Less": less,
    "Greater": greater,
    "LessOrEqual": less_equal,
    "GreaterOrEqual": greater_equal,
    "Equal": equal,
    "Not": not_,
    "And": and_,
    "Or": or_,
    "Xor": xor,
    "Where": where,
    "IsNaN": isnan,
    "IsInf": isinf,
    "Sign": sign,
    "Relu": lambda m, node, x: m.relu(x),
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Sigmoid": lambda m, node, x: m.sigmoid(x),
    "Softplus": softplus,
    "Gelu": gelu,
    "Swish": swish,
    "HardSigmoid": hard_sigmoid,
    "Cast": cast,
    **{name: unary(name.lower()) for name in _UNARY.split()},
}
OPS: dict[str, Callable[..., Any]] = {
    **rows.ops(rows.elementwise, _ELEMENTWISE),
    "CastLike": rows.Op(cast_like, rows.identity),
    "Clip": rows.Op(clip, rows.clipped),
    "DequantizeLinear": rows.Op(dequantize, rows.quantized),
    "QuantizeLinear": rows.Op(quantize, rows.quantized),
}
