"""Max and Min in normal form: exact identities over the reals, applied while terms are made.

1. Max(Max(x, y), z) = Max(x, y, z); an operand counts once; scalar constants are one
2. Max(-x, -y) = -Min(x, y)
3. Max(Min(x, b), a) = Min(Max(x, a), b) for a < b; otherwise it is a, as Min(Max(x, a), b) is b for b <= a
4. Max(x, 0) = x * pos(x) = Relu(x), Max(-x, 0) = Relu(x) - x, Min(x, 0) = x - Relu(x)
5. Max(x, s x) is x times 1 or s, by the sign of x; Max(x, -x) = |x|
6. Min(Max(s x + t, a), b) is s times a Clip of x, plus t, for s > 0; Max(x, a) = x for integers of a type from a on
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from graphcheck.kernel.terms.rules.identities import Applied, is_step, negated
from graphcheck.kernel.terms.rules.numbers import number, scaled, stored
from graphcheck.kernel.terms.store import Found, Operand, Terms
from graphcheck.kernel.terms.verbs import Ew, Move

OPPOSITE = {"max": "min", "min": "max"}


def simplify(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Found | None:
    """The identity, and the class that Max or Min of the operands is by it; or the operands in normal form (case 1)."""
    if True in [terms.neginf[c] for c, _ in views]:
        return None
    if fn == "max" and _is_relu(terms, views, size):
        return 4, terms.placed("mul", [views[0], (terms.placed("pos", views[:1], size), None)], size)
    rest, bound = _parts(terms, fn, views, size)
    if not rest or (len(rest) == 1 and bound is None):
        return 1, terms.seen(rest[0] if rest or bound is None else (bound[1], None), size)
    inner = [negated(terms, view, size) for view in rest]
    if all(view is not None for view in inner) and not (fn == "max" and bound is not None and not bound[0]):
        flipped = [view for view in inner if view is not None]
        flipped += [] if bound is None else [(_made(terms, "mul", -bound[0], bound[1], -1.0), None)]
        return 2, negative(terms, terms.ew(OPPOSITE[fn], flipped, size), size)
    if bound is not None and len(rest) == 1:
        found = _clipped(terms, fn, rest[0], bound, size)
        if found is not None:
            return found
    if bound is None and len(rest) == 2:
        for x, y in (rest, rest[::-1]):
            sloped = _sloped(terms, fn, x, y, size)
            if sloped is not None:
                return 5, sloped
    kept = rest if bound is None else [*rest, (bound[1], None)]
    return None if len(kept) == len(views) and set(kept) == set(views) else (1, kept)


def _is_relu(terms: Terms, views: Sequence[Operand], size: int) -> bool:
    """Whether it is Max(x, 0) of an x in which no case finds anything but the fourth, as most are, nor any other rule anything
    in pos(x) and in the product: a short cut to that."""
    (x, map_), zero = views[0], views[-1]
    verb = terms.terms[x].verb
    whole = map_ is None and len(views) == 2 and terms.size(x) == size > 1 and x not in terms.integers
    plain = not isinstance(verb, Ew) or verb.fn not in ("max", "min", "mul")
    return whole and plain and zero[1] is None and terms.size(zero[0]) == 1 and terms.scalar(zero[0]) == 0


def _relu(terms: Terms, x: Operand, size: int) -> int:
    """x * pos(x)."""
    return terms.ew("mul", [x, (terms.ew("pos", [x], size), None)], size)


Bound = tuple[Fraction, int]  # a number, and the class that it is the value of


def _parts(terms: Terms, fn: str, views: Sequence[Operand], size: int) -> tuple[list[Operand], Bound | None]:
    """The operands of nested Max (or Min), those that are numbers as one bound."""
    rest: list[Operand] = []
    bound: Bound | None = None
    stack = list(reversed(views))
    while stack:
        cls, map_ = stack.pop()
        value = number(terms, cls) if terms.size(cls) == 1 or map_ is not None else None
        if value is not None and abs(value) < 2**53:
            if bound is None or ((value > bound[0]) if fn == "max" else (value < bound[0])):
                bound = value, terms.find(terms.terms[cls].args[0] if isinstance(terms.terms[cls].verb, Move) else cls)
            continue
        inner = _nested(terms, fn, (cls, map_), size)
        if inner is not None:
            stack += reversed(inner)
        elif (cls, map_) not in rest:
            rest.append((cls, map_))
    return rest, bound


def _nested(terms: Terms, fn: str, view: Operand, size: int) -> list[Operand] | None:
    """The operands of a view that is a Max (or Min) itself, Relu being Max(x, 0), seen at the same places."""
    cls, map_ = view
    term = terms.terms[cls]
    if not isinstance(term.verb, Ew) or (map_ is None and term.size != size):
        return None
    args = [terms.find(a) for a in term.args]
    if term.verb.fn == fn:
        scalars = [terms.size(a) == 1 and m is None for a, m in zip(args, term.verb.maps, strict=True)]
        maps = [None if s else terms.maps.compose(m, map_) for s, m in zip(scalars, term.verb.maps, strict=True)]
        return list(zip(args, maps, strict=True))
    if fn == "max" and term.verb.fn == "mul" and term.verb.maps == (None, None):
        for x, step in (args, args[::-1]):
            if is_step(terms, (step, None), (x, None)):
                return [(x, map_), _scalar(terms, 0.0)]
    return None


def _clipped(terms: Terms, fn: str, x: Operand, bound: Bound, size: int) -> Applied | None:
    """Cases 3, 4 and 6: one operand and one bound."""
    inside = _nested(terms, OPPOSITE[fn], x, size)
    below, other = ([], None) if inside is None else _parts(terms, OPPOSITE[fn], inside, size)
    if other is not None:
        if (other[0] <= bound[0]) if fn == "max" else (other[0] >= bound[0]):
            return 3, terms.seen((bound[1], None), size)
        if fn == "max":
            least = terms.ew("min", below, size) if len(below) > 1 else terms.seen(below[0], size)
            raised = terms.ew("max", [(least, None), (bound[1], None)], size)
            return 3, terms.ew("min", [(raised, None), (other[1], None)], size)
        bare = _bare(terms, below[0], other, bound, size) if len(below) == 1 else None
        if bare is not None:
            return 6, bare
    ends = terms.integers.get(x[0])
    if ends is not None and ((ends[0] >= bound[0]) if fn == "max" else (ends[1] <= bound[0])):
        return 6, terms.seen(x, size)
    if bound[0] != 0:
        return None
    inner = negated(terms, x, size)
    positive = x if fn == "min" or inner is None else inner
    relu = _relu(terms, positive, size)
    if fn == "min":
        relu = negative(terms, relu, size)
    return 4, relu if positive == x and fn == "max" else terms.ew("add", [x, (relu, None)], size)


def _bare(terms: Terms, x: Operand, low: Bound, high: Bound, size: int) -> int | None:
    """Case 6: s and t taken out of Min(Max(x, low), high) one by one; None where x has none."""
    taken: list[tuple[str, int]] = []
    while (step := _taken(terms, x)) is not None:
        fn, value, x, cls = step
        undo = terms.ew("recip", [(cls, None)], 1) if fn == "mul" else _made(terms, "mul", -value, cls, -1.0)
        numbers = [n / value if fn == "mul" else n - value for n, _ in (low, high)]
        low, high = ((n, _made(terms, fn, n, end, undo)) for n, (_, end) in zip(numbers, (low, high), strict=True))
        taken.append((fn, cls))
    if not taken:
        return None
    found = terms.ew("min", [(terms.ew("max", [x, (low[1], None)], size), None), (high[1], None)], size)
    for fn, cls in reversed(taken):
        found = terms.ew(fn, [(found, None), (cls, None)], size)
    return found


def _taken(terms: Terms, x: Operand) -> tuple[str, Fraction, Operand, int] | None:
    """The offset, or the positive scale, that is the last step to x."""
    both = ((fn, scaled(terms, x, fn)) for fn in ("add", "mul"))
    return next(((fn, *found) for fn, found in both if found is not None and (fn == "add" or found[0] > 0)), None)


def _made(terms: Terms, fn: str, value: Fraction, cls: int, other: int | float) -> int:
    """The class of a number: a constant where float64 holds it, else the expression that it is the value of."""
    found = stored(terms, value)
    if found is not None:
        return found
    second = other if isinstance(other, int) else _scalar(terms, other)[0]
    return terms.ew(fn, [(cls, None), (second, None)], 1)


def _sloped(terms: Terms, fn: str, x: Operand, y: Operand, size: int) -> int | None:
    """Case 5, for y = s x."""
    term = terms.terms[y[0]]
    if not (isinstance(term.verb, Ew) and term.verb.fn == "mul") or (y[1] is None and term.size != size):
        return None
    for s, base, map_ in zip(term.args, term.args[::-1], term.verb.maps[::-1], strict=True):
        slope = terms.scalar(s)
        if slope is None or (terms.find(base), terms.maps.compose(map_, y[1])) != x:
            continue
        if slope == -1:
            size_of = terms.ew("abs", [x], size)
            return size_of if fn == "max" else negative(terms, size_of, size)
        above = (terms.ew("pos", [x], size), None)
        below = (terms.ew("add", [_scalar(terms, 1.0), (negative(terms, above[0], size), None)], size), None)
        steep = (slope > 1) == (fn == "max")  # whether s x is taken where x > 0
        scaled = (terms.ew("mul", [(terms.find(s), None), above if steep else below], size), None)
        factor = terms.ew("add", [scaled, below if steep else above], size)
        return terms.ew("mul", [x, (factor, None)], size)
    return None


def _scalar(terms: Terms, value: float) -> Operand:
    return terms.const(np.array([value]), 0), None


def negative(terms: Terms, cls: int, size: int) -> int:
    """-x."""
    return terms.ew("mul", [_scalar(terms, -1.0), (cls, None)], size)
