"""Quantizers whose roundings are allowed (decision 19): exact affine maps with a mark, and stored integers that stand for what
was rounded to them.

QuantizeLinear(x, s, z) is x / s + z and DequantizeLinear is (q - z) s, so that both together are nothing; a scale, a zero point
or an axis that is not the other one's leaves a factor or a shift. A stored integer is ``near`` what it stands for: half a step
is the error of its leaf in :class:`graphcheck.kernel.proof.room.Roundings`. The proof takes ``near`` as an unknown function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.renewal import digest
from graphcheck.kernel.terms.rules.numbers import positive
from graphcheck.kernel.terms.verbs import RANGE, Move, Opaque, Term
from graphcheck.kernel.values.bounds import FLOAT8, span

_LARGE = 64  # elements of a constant that is no scale of a Resize, and no shape
_CURVED = ("Exp", "Sigmoid", "Softplus", "Tanh")  # functions of a trained number, and of nothing that a graph counts
_READS = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")  # integers that stand for numbers
SIGNS = "signs"  # beside erased formats: a factor that is stored is known to be positive by its integers
INTEGERS = ("int8", "int4", "int16")  # the types without a sign belong to them, and a bias in int32 to any


def format_of(m: Algebra, dtype: np.dtype[Any]) -> str:
    """The erased format of a type that a quantizer writes, "" for none."""
    erased = [name for name in INTEGERS if name in m.erased]
    name = dtype.name.removeprefix("u").replace("_", "")
    if name in erased or (name in m.erased and dtype.name in FLOAT8):
        return name
    return erased[0] if erased and dtype.name == "int32" else ""


def near(m: Algebra, x: Some, name: str = "") -> Tensor:
    """Stored integers, or float8, as the numbers that were rounded to them; zeros are zeros."""
    zeros = isinstance(x, np.ndarray) and not x.any()
    found = m.lift(x if zeros else m.ew(f"near:{name or x.dtype.name}", m.lift(x)))
    return Tensor(found.cls, x.shape, np.dtype(np.float32))


def quantized(m: Algebra, node: Node, x: Some, scale: Some, zero: Value, to: np.dtype[Any]) -> Tensor | None:
    """x / scale + zero, with a mark, for parameters shaped to x; None where that is not what the quantizer does but for
    roundings: a scale that is computed or not positive, a range that starts at 0 in one channel alone."""
    steps, points = m.lower(scale), np.zeros(()) if zero is None else m.lower(zero)
    if not isinstance(steps, np.ndarray) or not isinstance(points, np.ndarray):
        return None
    steps = steps.astype(np.float64)
    low, high = ((end - points.astype(np.float64)) * steps for end in span(to))
    if not (np.isfinite(steps) & (steps > 0)).all() or any(end.any() != end.all() for end in (low, high)):
        return None
    kept = _within(m, m.lift(x), low, high, steps)
    m.marks.append((node.name, format_of(m, to), kept.cls))
    return _affine(m, kept, scale, zero, to)


def _affine(m: Algebra, x: Tensor, scale: Some, zero: Value, to: np.dtype[Any]) -> Tensor:
    scaled = m.div(x, scale)
    q = m.lift(scaled if zero is None else m.add(scaled, _wide(zero)))
    m.memo[RANGE, q.cls] = x, _parameters(m, x, scale, zero)
    return Tensor(q.cls, q.shape, to)


def _parameters(m: Algebra, x: Some, scale: Some, zero: Value) -> tuple[Any, ...]:
    """What tells one pair of scale and zero point from another: along an axis, the shape as well."""
    classes = [m.lift(np.zeros(()) if part is None else part).cls for part in (scale, zero)]
    shapes = (scale.shape, None if zero is None else zero.shape)
    return (*map(m.terms.find, classes), *((x.shape, *shapes) if any(shapes) else ()))


def _wide(zero: Some) -> Some:
    return Tensor(zero.cls, zero.shape, np.dtype(np.float64)) if isinstance(zero, Tensor) else zero.astype(np.float64)


def _within(m: Algebra, x: Tensor, low: np.ndarray, high: np.ndarray, steps: np.ndarray) -> Tensor:
    """What a quantizer leaves of x but for roundings and what its range cuts off. It gives the same behind any Clip that its
    range lies within, up to half a step (a tie may go either way): which of those it is depends on the other graph, and is found
    once its operand is one that both have (``facing.ranges``). A range that ends at 0 is a Relu."""
    ties = 2.0**-22 * np.maximum(np.abs(low), np.abs(high))  # bounds and scales are of float32
    half, known = steps / 2 + ties, sorted({ends for cls, ends in m.clips.items() if m.terms.size(cls) == m.terms.size(x.cls)})
    around = [
        (*ends, bool((ends[1] <= high + half).all()))  # whether the range reaches up to the end of the Clip
        for ends in known
        if (ends[0] <= low + half).all() and (ends[1] >= high - half).all()
    ]
    sign = 0 if low.any() and high.any() else -1 if low.any() else 1
    if not around and (not sign or (sign > 0 and positive(m.terms, x.cls, near=SIGNS in m.erased))):
        return x
    cls = m.terms.opaque(((RANGE, sign, tuple(around)),), [x.cls], m.terms.size(x.cls))
    return Tensor(cls, x.shape, x.dtype)


def dequantized(m: Algebra, x: Some, scale: Some, zero: Value, name: str = "") -> Some:
    """(x - zero) * scale of parameters shaped to x: of stored integers (of the type ``name``, if not their own), of what
    :func:`quantized` gave, or of rows of a table."""
    found, parameters = known(m, x), _parameters(m, x, scale, zero)
    if found is not None and found[1] == parameters:
        return Tensor(found[0].cls, x.shape, scale.dtype)
    of, stored, step, point = format_of(m, x.dtype), m.lower(x), m.lower(scale), np.zeros(()) if zero is None else m.lower(zero)
    if isinstance(stored, np.ndarray):
        if isinstance(point, np.ndarray) and (stored == point).all():
            return np.zeros(x.shape, scale.dtype)
        x = near(m, stored, name)
    elif isinstance(x, Tensor) and len(parameters) == 2:
        term = m.terms.term(x.cls)
        match term.verb:
            case Opaque(((_, "Gather", *_), *_)) if term.args[0] in m.terms.arrays:
                table = Tensor(term.args[0], (m.terms.size(term.args[0]),), x.dtype)
                whole = m.lift(dequantized(m, table, scale, zero))
                return Tensor(m.terms.make(term, (whole.cls, *term.args[1:])), x.shape, scale.dtype)
            case Move(map_) if len(term.args) == 1 and not map_.has_zero:
                rows = Tensor(term.args[0], (m.terms.size(term.args[0]),), x.dtype)
                return Tensor(m.terms.move((m.lift(dequantized(m, rows, scale, zero)).cls,), map_), x.shape, scale.dtype)
    wide = Tensor(m.lift(x).cls, x.shape, scale.dtype)
    y = m.lift(m.ew("mul", wide if zero is None else m.sub(wide, _wide(zero)), scale, dtype=scale.dtype))
    if all(isinstance(part, np.ndarray) and part.size == 1 for part in (stored, step, point)):
        number, by, zeros = (float(part.reshape(())) for part in (stored, step, point))  # type: ignore[union-attr]
        m.memo[RANGE, "number", y.cls] = of, (number - zeros) * by, by
    return y


def exponent(m: Algebra, node: Node, y: Some) -> Some:
    """A stored integer that stands for an exponent as the multiple of a half that is nearest, if that is within half a step."""
    format_, value, step = m.memo.get((RANGE, "number", y.cls), ("", 0.0, 0.0)) if isinstance(y, Tensor) else ("", 0.0, 0.0)
    half = round(2 * value) / 2
    if not format_ or abs(half - value) > step / 2:
        return y
    m.marks.append((node.name, format_, m.lift(y).cls))
    return np.full(y.shape, half, y.dtype)


def known(m: Algebra, x: Some) -> tuple[Tensor, tuple[Any, ...]] | None:
    """What was quantized to x, and the parameters by which; behind movement, those of one scale and zero point."""
    if not isinstance(x, Tensor):
        return None
    if (RANGE, x.cls) in m.memo:
        return m.memo[RANGE, x.cls]  # type: ignore[no-any-return]
    match m.terms.term(x.cls):
        case Term(Move(map_), (source,)) if not map_.has_zero:
            found = known(m, Tensor(source, (m.terms.size(source),), x.dtype))
            if found is not None and len(found[1]) == 2:
                return Tensor(m.terms.move((found[0].cls,), map_), x.shape, found[0].dtype), found[1]
    return None


def between(m: Algebra, node: Node, x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Means of elements of x: ``of`` what was quantized to it, quantized by the same scale and zero point; None where x is no
    such tensor. How the means are rounded is the runtime's choice."""
    if (found := known(m, x)) is None or len(found[1]) != 2:
        return None
    y = of(Tensor(found[0].cls, x.shape, found[0].dtype))
    scale, zero = (Tensor(cls, (), np.dtype(np.float32)) for cls in found[1])
    m.marks.append((node.name, format_of(m, x.dtype), y.cls))
    return _affine(m, y, scale, zero, x.dtype)


def bare(m: Algebra, x: Some, zero: Value, shift: Callable[[Some], Some]) -> tuple[Some, Some | None]:
    """(y, s) with x - zero = y / s, s being None for 1: of a factor of a product of integers."""
    if not format_of(m, x.dtype):
        return shift(x), None
    found = known(m, x)
    zeros = m.terms.find(m.lift(np.zeros(()) if zero is None else zero).cls)
    if found is not None and len(found[1]) == 2 and found[1][1] == zeros:
        return found[0], Tensor(found[1][0], (), np.dtype(np.float32))
    stored = m.lower(x)
    return shift(near(m, stored) if isinstance(stored, np.ndarray) else x), None


def dynamic(m: Algebra, node: Node, x: Some) -> tuple[Tensor, ...]:
    """DynamicQuantizeLinear: a scale and a zero point that are drawn for this tensor, so that those of another one leave a factor
    (of 4/3 at least) or a shift. Its range holds all of x.

    The drawn numbers hang on the whole store, so that nobody can put them into a model.
    """
    x = m.lift(x)
    drawn: dict[int, int] = m.remembered((RANGE, "drawn"), dict)
    at = drawn.setdefault(x.cls, len(drawn))
    rng = np.random.default_rng([at, m.remembered((RANGE, "seed"), lambda: digest(m.terms))])
    scale = np.ldexp(1 + np.float32(rng.integers(1, 2**18)) / 2**19, (at * 37) % 121 - 60).astype(np.float32)
    zero = np.asarray(rng.integers(1, 255), np.uint8)
    m.marks.append((node.name, format_of(m, np.dtype(np.uint8)), x.cls))
    parameters = [Tensor(m.lift(p).cls, (), p.dtype) for p in (np.asarray(scale), zero)]
    return (_affine(m, x, parameters[0], parameters[1], np.dtype(np.uint8)), *parameters)


def stands(m: Algebra, node: Node, inputs: Sequence[Value]) -> bool:
    """Whether an operator on constants has to be told, for what it reads stands for other numbers."""
    if node.op_type == "DynamicQuantizeLinear":
        return bool(format_of(m, np.dtype(np.uint8)))
    first = inputs[0] if inputs else None
    return node.op_type in _READS and first is not None and bool(format_of(m, first.dtype))


def ends(low: np.ndarray | None, high: np.ndarray | None) -> tuple[float, float]:
    """The bounds of a Clip."""
    return -math.inf if low is None else float(low.reshape(())), math.inf if high is None else float(high.reshape(()))


def unfolded(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """The operands of a sum or a product of large constants as tensors, and those of a function that is curved, for a copy has
    rounded each of them."""
    many = _LARGE if node.op_type in ("Add", "Sub", "Mul") else 2 if node.op_type in _CURVED else math.inf
    if not m.erased or not any(isinstance(x, np.ndarray) and x.ndim > (many > 2) and x.size >= many for x in inputs):
        return inputs
    floats = all(isinstance(x, np.ndarray) and x.dtype.kind not in "biuOUS" for x in inputs)  # bfloat16 is of no kind
    return [m.lift(x) for x in inputs] if floats else inputs
