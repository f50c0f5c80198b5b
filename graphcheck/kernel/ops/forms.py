"""Sizes as numbers a + b N: the small integer arrays of a graph, with one free size N of its inputs kept as a symbol.

A form holds for every N >= 1. Where the arithmetic takes another way at some N (a comparison, Min, a division that leaves
a rest), the sizes on both sides are noted, and the form that is true at the size of the trace goes on, as one of which
it is known that it may hold there alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from graphcheck.kernel.ops import reference
from graphcheck.kernel.ops.node import Node

Number = int | Fraction
Form = tuple[Number, Number]  # (a, b): a + b N

_MOST = 4096  # elements of an array of sizes
_NARROW, _WIDE = 2**16, 2**31  # in types below 64 bits, and in the others, a form has to fit up to this size


class Formless(Exception):
    """The result is no a + b N."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Sized:
    """An array of forms: ``start + slope * N``, element by element. ``sure``: for every N >= 1, not at the traced one alone."""

    start: np.ndarray
    slope: np.ndarray
    sure: bool

    @property
    def constant(self) -> bool:
        """Whether every element is the same for every N."""
        return self.sure and not self.slope.any()

    def forms(self) -> list[Form]:
        """The elements in order."""
        return list(zip(self.start.reshape(-1).tolist(), self.slope.reshape(-1).tolist(), strict=True))


@dataclasses.dataclass(eq=False)
class Meeting:
    """The arithmetic at one size ``n`` of the symbol; ``sure`` turns false, and ``note`` hears of both sides, at a breakpoint."""

    n: int
    note: Callable[[int], None]
    sure: bool = True

    def part(self, root: Fraction) -> None:
        """The form changes where N passes ``root``: the sizes there and behind it, as seen from the traced one, are noted."""
        self.sure = False
        below, above = (math.ceil(root) - 1, math.ceil(root)), (math.floor(root), math.floor(root) + 1)
        for size in (*(below if self.n >= root else ()), *(above if self.n <= root else ())):
            if size != self.n:
                self.note(size)

    def sign(self, form: Form) -> int:
        """The sign of a form, at the traced size where it is not the same for every N."""
        a, b = form
        first = a + b
        if b and not (first > 0 < b or first < 0 > b):
            self.part(Fraction(-a) / b)
            first = a + b * self.n
        return (first > 0) - (first < 0)

    def at(self, form: Form) -> Number:
        """The value at the traced size."""
        return form[0] + form[1] * self.n

    def steps(self, same: Callable[[int], bool]) -> None:
        """The value changes where ``same`` turns false, above and below the traced size: both sides of each are noted."""
        self.sure = False
        for way, last in ((1, self.n + _NARROW), (-1, 1)):
            good, bad, far = self.n, self.n, 1
            while bad != last and same(bad):
                good, far = bad, 2 * far
                bad = min(self.n + far, last) if way > 0 else max(self.n - far, last)
            if same(bad):
                continue
            while abs(bad - good) > 1:
                middle = (good + bad) // 2
                good, bad = (middle, bad) if same(middle) else (good, middle)
            for size in (good, bad):
                if size != self.n:
                    self.note(size)

    def fit(self, form: Form, dtype: np.dtype[Any]) -> None:
        """The type holds the form exactly at all sizes that it has to; else it does not hold at all of them."""
        a, b = form
        if not b or dtype.kind not in "iuf":
            self.sure &= not b or dtype.kind == "b"  # such as bfloat16 and the types of 4 and 8 bits
            return
        if dtype.kind == "f":
            high = 2 ** (np.finfo(dtype).nmant + 1)
            low = -high
        else:
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        reach = _WIDE if dtype.itemsize >= 8 else _NARROW
        if not (low <= a + b <= high and low <= a + b * reach <= high):
            self.steps(lambda n: low <= a + b * n <= high)


def constants(array: np.ndarray) -> Sized:
    """The forms of an array that does not depend on N. Raises :class:`Formless` for what is no small array of finite numbers."""
    if array.size > _MOST or array.dtype.kind not in "iubf" or not np.isfinite(array.astype(np.float64)).all():
        raise Formless
    whole = array.dtype.kind != "f"
    start = np.empty(array.shape, object)
    start.reshape(-1)[:] = [int(v) if whole or float(v).is_integer() else Fraction(float(v)) for v in array.reshape(-1)]
    return Sized(start, np.zeros(array.shape, object), True)


def of(forms: Sequence[Form], sure: bool) -> Sized:
    """A vector of forms."""
    start, slope = np.empty(len(forms), object), np.empty(len(forms), object)
    start[:], slope[:] = [a for a, _ in forms], [b for _, b in forms]
    return Sized(start, slope, sure)


def text(form: Form, symbol: str = "N") -> str:
    """A form as people write it: ``3 + 2 N``."""
    a, b = form
    size = symbol if b == 1 else f"{b} {symbol}"
    return str(a) if not b else f"{a} + {size}" if a else size


def product(forms: Sequence[Form]) -> Form:
    """Raises :class:`Formless` where two of them depend on N."""
    one: Form = (1, 0)
    return functools.reduce(_mul, forms, one)


def _add(p: Form, q: Form) -> Form:
    return p[0] + q[0], p[1] + q[1]


def _sub(p: Form, q: Form) -> Form:
    return p[0] - q[0], p[1] - q[1]


def _mul(p: Form, q: Form) -> Form:
    if p[1] and q[1]:
        raise Formless
    return p[0] * q[0], p[0] * q[1] + p[1] * q[0]


def _ratio(m: Meeting, p: Form, q: Form) -> Form:
    """The exact quotient. Raises :class:`Formless` where it is no form."""
    if not m.sign(q):
        raise Formless
    if not q[1]:
        return _plain(Fraction(p[0]) / q[0]), _plain(Fraction(p[1]) / q[0])
    if p[0] * q[1] != p[1] * q[0]:
        raise Formless
    return _plain(Fraction(p[1]) / q[1]), 0


def _plain(value: Fraction) -> Number:
    return int(value) if value.denominator == 1 else value


def _whole(m: Meeting, form: Form, to: Callable[[Number], int]) -> Form:
    """A form rounded to whole numbers by ``to``: math.floor, math.ceil or math.trunc."""
    a, b = form
    if isinstance(b, int):  # N moves it by whole numbers
        if isinstance(a, int):
            return form
        if to is math.trunc:
            to = math.floor if m.sign(form) >= 0 else math.ceil
        return to(a), b
    value = to(m.at(form))
    m.steps(lambda n: to(a + b * n) == value)
    return value, 0


def _div(m: Meeting, p: Form, q: Form, whole: bool) -> Form:
    try:
        found = _ratio(m, p, q)
    except Formless:
        if not whole or not m.at(q):
            raise
        value = math.trunc(Fraction(m.at(p)) / m.at(q))
        m.steps(lambda n: math.trunc(Fraction(p[0] + p[1] * n) / ((q[0] + q[1] * n) or 1)) == value)
        return value, 0
    return _whole(m, found, math.trunc) if whole else found


def _mod(m: Meeting, p: Form, q: Form, to: Callable[[Number], int]) -> Form:
    return _sub(p, _mul(q, _whole(m, _ratio(m, p, q), to)))


def _equal(m: Meeting, p: Form, q: Form) -> Form:
    a, b = _sub(p, q)
    root = None if not b else Fraction(-a) / b
    if root is None or root < 1 or root.denominator != 1:
        return int(not a and not b), 0
    m.part(root)
    return int(m.n == root), 0


def _where(m: Meeting, c: Form, x: Form, y: Form) -> Form:
    return x if m.at(c) else y


def _either(sign: int) -> Callable[..., Form]:
    def choose(m: Meeting, *forms: Form) -> Form:
        return functools.reduce(lambda p, q: p if m.sign(_sub(p, q)) * sign >= 0 else q, forms)

    return choose


def _compared(test: Callable[[int], bool]) -> Callable[..., Form]:
    return lambda m, p, q: (int(test(m.sign(_sub(p, q)))), 0)


def _truth(m: Meeting, p: Form) -> bool:
    return not _equal(m, p, (0, 0))[0]


_ELEMENTWISE: dict[str, Callable[..., Form]] = {
    "Add": lambda m, p, q: _add(p, q),
    "Sub": lambda m, p, q: _sub(p, q),
    "Mul": lambda m, p, q: _mul(p, q),
    "Sum": lambda m, *ps: functools.reduce(_add, ps),
    "Neg": lambda m, p: (-p[0], -p[1]),
    "Equal": _equal,
    "Less": _compared(lambda s: s < 0),
    "Greater": _compared(lambda s: s > 0),
    "LessOrEqual": _compared(lambda s: s <= 0),
    "GreaterOrEqual": _compared(lambda s: s >= 0),
    "Max": _either(1),
    "Min": _either(-1),
    "Abs": lambda m, p: (p[0] * s, p[1] * s) if (s := m.sign(p)) else p,
    "Relu": lambda m, p: _either(1)(m, p, (0, 0)),
    "Where": _where,
    "Not": lambda m, p: (int(not _truth(m, p)), 0),
    "And": lambda m, p, q: (int(_truth(m, p) and _truth(m, q)), 0),
    "Or": lambda m, p, q: (int(_truth(m, p) or _truth(m, q)), 0),
    "Sign": lambda m, p: (m.sign(p), 0),
    "Floor": lambda m, p: _whole(m, p, math.floor),
    "Ceil": lambda m, p: _whole(m, p, math.ceil),
    "Identity": lambda m, p: p,
}
_REDUCED: dict[str, Callable[..., Form]] = {
    "ReduceProd": lambda m, ps: product(ps),
    "ReduceSum": lambda m, ps: functools.reduce(_add, ps),
    "ReduceMax": lambda m, ps: _either(1)(m, *ps),
    "ReduceMin": lambda m, ps: _either(-1)(m, *ps),
}


def result(
    node: Node,
    operands: Sequence[Sized | None],
    inputs: Sequence[Any],
    at: int,
    output: np.ndarray,
    m: Meeting,
    data: Sequence[int] = (),
) -> Sized:
    """The forms of output number ``at``, which is ``output`` at the traced size. Raises :class:`Formless`.

    ``data``: of an operator that only moves elements, the inputs that it moves.

    A form that does not give ``output`` at the traced size (floats are rounded) does not hold.
    """
    m.sure = all(x is None or x.sure for x in operands)
    found = _moved(node, operands, inputs, at, data) if data else _found(node, operands, output, m)
    here = [m.at(form) for form in found.forms()]
    if not all(_same(value, have) for value, have in zip(here, output.reshape(-1), strict=True)):
        raise Formless
    for form in found.forms():
        m.fit(form, output.dtype)
    broken = output.dtype.kind == "f" and any(isinstance(v, Fraction) for form in found.forms() for v in form)
    return Sized(found.start.reshape(output.shape), found.slope.reshape(output.shape), m.sure and not broken)


def _same(value: Number, have: Any) -> bool:
    return bool(np.asarray(have) == np.asarray(float(value) if isinstance(value, Fraction) else value).astype(have.dtype))


def _found(node: Node, operands: Sequence[Sized | None], output: np.ndarray, m: Meeting) -> Sized:
    name, there = node.op_type, [x for x in operands if x is not None]
    if name in ("Cast", "CastLike"):
        kind = output.dtype.kind
        return _each(lambda m, p: _cast(m, p, kind), there[:1], m)
    if name == "Div":
        whole = output.dtype.kind in "iu"
        return _each(lambda m, p, q: _div(m, p, q, whole), there, m)
    if name == "Mod":
        to = math.trunc if node.attr("fmod", 0) else math.floor  # the sign of the dividend, or of the divisor
        return _each(lambda m, p, q: _mod(m, p, q, to), there, m)
    if name == "Clip" and node.version >= 11:  # before, its bounds are attributes
        low, high = [*operands[1:], None, None][:2]
        least = _each(_either(1), [x for x in (operands[0], low) if x is not None], m)
        return _each(_either(-1), [x for x in (least, high) if x is not None], m)
    if name in _ELEMENTWISE:
        return _each(_ELEMENTWISE[name], there, m)
    if name in _REDUCED and output.size == 1:
        return of([_REDUCED[name](m, there[0].forms())], m.sure)
    raise Formless


def _cast(m: Meeting, p: Form, kind: str) -> Form:
    if kind == "b":
        return int(_truth(m, p)), 0
    return _whole(m, p, math.trunc) if kind in "iu" else p


def _each(fn: Callable[..., Form], operands: Sequence[Sized], m: Meeting) -> Sized:
    shape = np.broadcast_shapes(*(x.start.shape for x in operands))
    if math.prod(shape) > _MOST:
        raise Formless
    columns = [
        zip(np.broadcast_to(x.start, shape).reshape(-1), np.broadcast_to(x.slope, shape).reshape(-1), strict=True)
        for x in operands
    ]
    return of([fn(m, *forms) for forms in zip(*columns, strict=True)], m.sure)


def _moved(
    node: Node, operands: Sequence[Sized | None], inputs: Sequence[Any], which: int, data: Sequence[int]
) -> Sized:
    """The operator on the numbers of the elements; what steers it must be the same for every N."""
    if node.attr("reduction", "none") != "none":
        raise Formless
    numbered, starts, slopes, sure, at = list(inputs), [np.zeros(1, object)], [np.zeros(1, object)], True, 1
    for i, x in enumerate(operands):
        if x is not None and i in data:
            numbered[i] = np.arange(at, at + x.start.size).reshape(x.start.shape)
            at += x.start.size
            starts.append(x.start.reshape(-1))
            slopes.append(x.slope.reshape(-1))
            sure &= x.sure
        elif x is not None and not x.constant:
            raise Formless
    index = reference.run(node, numbered)[which].reshape(-1)
    return Sized(np.concatenate(starts)[index], np.concatenate(slopes)[index], sure)
