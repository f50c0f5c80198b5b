"""What is known exactly of constants and of sums: numbers as fractions, views as linear forms, ranges of integers."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Opaque, Rows, Sum, ranged

Form = dict[Operand | None, Fraction]  # a factor for each view; beside None the constant
_MOST, _BITS = 64, 4096  # steps of one look, and bits of one number
_exactly = functools.lru_cache(4096)(Fraction)  # most nodes share a few numbers
_FAR = 10  # a stored integer stands for what is nine and a half steps off at most, where nine are allowed


def number(terms: Terms, cls: int, known: dict[int, Fraction | None] | None = None) -> Fraction | None:
    """The exact value of a scalar made of constants by sums, products and reciprocals; None for anything else, and for one
    of more than 4,096 bits. What is ``known`` is not looked at again."""
    known = {} if known is None else known
    if cls not in known:
        found = _number(terms, cls, known)
        short = found is not None and max(found.numerator.bit_length(), found.denominator.bit_length()) <= _BITS
        known[cls] = found if short else None
    return known[cls]


def _number(terms: Terms, cls: int, known: dict[int, Fraction | None]) -> Fraction | None:
    value = terms.scalar(cls)
    term = terms.terms[terms.find(cls)]
    if value is not None:
        array = terms.arrays[terms.find(term.args[0] if isinstance(term.verb, Move) else cls)]
        return _exactly(int(array[0]) if array.dtype.kind in "iu" else value) if math.isfinite(value) else None
    if term.size != 1 or not isinstance(term.verb, Ew) or not terms.constant_like(cls):
        return None
    if term.verb.fn not in ("add", "mul", "recip"):
        return None
    parts = [number(terms, a, known) for a in term.args]
    if None in parts:
        return None
    a, *rest = (part for part in parts if part is not None)
    if term.verb.fn == "recip":
        return 1 / a if a else None
    return a + rest[0] if term.verb.fn == "add" else a * rest[0]


def stored(terms: Terms, value: Fraction) -> int | None:
    """The constant of a number; None where float64 does not hold it."""
    try:
        near = float(value)
    except OverflowError:
        return None
    return terms.const(np.array([near]), 0) if math.isfinite(near) and Fraction(near) == value else None


def linear(terms: Terms, view: Operand, size: int) -> Form | None:
    """A view as a sum of multiples of others; None where that takes too many steps."""
    found: Form = {}
    stack, steps = [(view, Fraction(1))], 0
    while stack:
        (cls, map_), factor = stack.pop()
        cls, map_ = terms._view(cls, map_, size)
        steps += 1
        if steps > _MOST:
            return None
        value = number(terms, cls) if map_ is None and terms.size(cls) == 1 else None
        if value is not None:
            found[None] = found.get(None, Fraction(0)) + factor * value
            continue
        inner = scaled(terms, (cls, map_))
        term = terms.terms[cls]
        if inner is not None:
            stack.append((inner[1], factor * inner[0]))
        elif isinstance(term.verb, Ew) and term.verb.fn == "add":
            stack += [(through(terms, a, m, map_), factor) for a, m in term.views]
        else:
            found[cls, map_] = found.get((cls, map_), Fraction(0)) + factor
    return {key: factor for key, factor in found.items() if factor}


def through(terms: Terms, cls: int, inner: object, outer: object) -> Operand:
    """An operand of a view, seen at the view's places."""
    scalar = inner is None and terms.size(cls) == 1
    return terms.find(cls), None if scalar else terms.maps.compose(inner, outer)  # type: ignore[arg-type]


def scaled(terms: Terms, view: Operand, fn: str = "mul") -> tuple[Fraction, Operand, int] | None:
    """(s, x, class of s) of a view that is s * x (or s + x) with a number s."""
    term = terms.terms[view[0]]
    if not isinstance(term.verb, Ew) or term.verb.fn != fn:
        return None
    for (s, at), (x, map_) in (term.views, term.views[::-1]):
        value = number(terms, s) if at is None and terms.size(s) == 1 else None
        if value is not None and (terms.size(x) == term.size or map_ is not None):
            return value, through(terms, x, map_, view[1]), terms.find(s)
    return None


def whole(terms: Terms, cls: int, seen: set[int] | None = None) -> bool:
    """Whether every element is known to be an integer; what was ``seen`` on the way is looked at once."""
    cls, seen = terms.find(cls), set() if seen is None else seen
    term = terms.terms[cls]
    if cls in terms.integers or cls in seen or len(seen) == _MOST:
        return cls in terms.integers or cls in seen
    seen.add(cls)
    if cls in terms.arrays:
        array = terms.arrays[cls]
        return array.dtype.kind in "iu" or (array.size == 1 and float(array[0]).is_integer())
    match term.verb:
        case Ew("round" | "floor" | "ceil" | "pos"):
            return True
        case Move() | Ew("add" | "mul" | "max" | "min" | "abs"):
            return all(whole(terms, a, seen) for a in term.args)
    return False


def positive(terms: Terms, cls: int, seen: set[int] | None = None, near: bool = False) -> bool:
    """Whether no element is known to be negative; what was ``seen`` on the way is looked at once. ``near``: nor what a stored
    integer stands for."""
    cls, seen = terms.find(cls), set() if seen is None else seen
    term = terms.terms[cls]
    if cls in seen or len(seen) == _MOST:
        return cls in seen
    seen.add(cls)
    if (value := number(terms, cls)) is not None:
        return value >= 0
    if cls in terms.arrays:
        return bool((terms.arrays[cls] >= 0).all())
    match term.verb:
        case Ew("abs" | "exp" | "sqrt" | "pos"):
            return True
        case Ew("near:int8" | "near:uint8" | "near:int16" | "near:uint16") if near:
            return bool((terms.arrays.get(terms.find(term.args[0]), np.zeros(1)) >= _FAR).all())
        case Ew("mul") if any(_step(terms, step, x) for step, x in (term.views, term.views[::-1])):
            return True
        case Rows("softmax"):
            return True
        case Opaque(key) if ranged(key):
            return bool(key[0][1] > 0)
        case Rows("max" | "min"):
            return positive(terms, term.args[0], seen, near)
        case Ew("mul", maps) if maps[0] is maps[1] and terms.find(term.args[0]) == terms.find(term.args[1]):
            return True
        case Ew("add") if any(_above(terms, x, c) for x, c in (term.views, term.views[::-1])):
            return True
        case Ew("max"):
            return any(positive(terms, a, {*seen}, near) for a in term.args)  # one that is not counts for nothing elsewhere
        case Sum() | Contract() | Move() | Ew("add" | "mul" | "min" | "recip"):
            return all(positive(terms, a, seen, near) for a in term.args)
    return False


def above_zero(terms: Terms, cls: int, deep: int = 12) -> bool:
    """Whether all elements are known to be greater than 0, by a look ``deep`` verbs below."""
    cls = terms.find(cls)
    if (value := number(terms, cls)) is not None:
        return value > 0
    term = terms.terms[cls]
    below = [above_zero(terms, a, deep - 1) for a in term.args] if deep else [False]
    match term.verb:
        case Ew("exp"):
            return not terms.neginf[terms.find(term.args[0])]
        case Ew("add"):
            return any(below) and all(found or positive(terms, a) for found, a in zip(below, term.args, strict=True))
        case Ew("max"):
            return any(below)
        case Sum() | Contract() | Ew("mul" | "min" | "recip" | "sqrt"):
            return all(below)
        case Move(map_):
            return all(below) and not map_.has_zero
    return False


def _step(terms: Terms, step: Operand, x: Operand) -> bool:
    """Whether a view is pos(x) of the other one, so that their product is Relu(x)."""
    term = terms.terms[terms.find(step[0])]
    return term.verb == Ew("pos", (None,)) and step[1] is x[1] and terms.find(term.args[0]) == terms.find(x[0])


def _above(terms: Terms, x: Operand, c: Operand) -> bool:
    """Whether x is -1 or more for any operand of its function, and c is 1 or more."""
    verb, value = terms.terms[terms.find(x[0])].verb, number(terms, c[0])
    return value is not None and value >= 1 and isinstance(verb, Ew) and verb.fn in ("erf", "tanh", "sin", "cos")
