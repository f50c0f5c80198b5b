"""Max and Min in normal form: exact identities over the reals, applied while terms are made.

1. Max(Max(x, y), z) = Max(x, y, z); an operand counts once; scalar constants are one
2. Max(-x, -y) = -Min(x, y)
3. Max(Min(x, b), a) = Min(Max(x, a), b) for a < b; otherwise it is a, as Min(Max(x, a), b) is b for b <= a
4. Max(x, 0) = x * pos(x) = Relu(x), Max(-x, 0) = Relu(x) - x, Min(x, 0) = x - Relu(x)
5. Max(x, s x) is x times 1 or s, by the sign of x; Max(x, -x) = |x|
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphcheck.kernel.terms.rules.identities import Applied, is_step, negated
from graphcheck.kernel.terms.store import Found, Operand, Terms
from graphcheck.kernel.terms.verbs import Ew

OPPOSITE = {"max": "min", "min": "max"}


def simplify(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Found | None:
    """The identity, and the class that Max or Min of the operands is by it; or the operands in normal form (case 1)."""
    if any(terms.neginf[c] for c, _ in views):
        return None
    rest, bound = _parts(terms, fn, views, size)
    if not rest or (len(rest) == 1 and bound is None):
        return 1, terms.seen(rest[0] if rest else _scalar(terms, bound), size)
    inner = [negated(terms, view, size) for view in rest]
    if all(view is not None for view in inner) and (fn, bound) != ("max", 0):
        flipped = [view for view in inner if view is not None]
        flipped += [] if bound is None else [_scalar(terms, -bound)]
        return 2, _negative(terms, terms.ew(OPPOSITE[fn], flipped, size), size)
    if bound is not None and len(rest) == 1:
        found = _clipped(terms, fn, rest[0], bound, size)
        if found is not None:
            return found
    if bound is None and len(rest) == 2:
        for x, y in (rest, rest[::-1]):
            sloped = _sloped(terms, fn, x, y, size)
            if sloped is not None:
                return 5, sloped
    kept = rest if bound is None else [*rest, _scalar(terms, bound)]
    return None if len(kept) == len(views) and set(kept) == set(views) else (1, kept)


def _parts(terms: Terms, fn: str, views: Sequence[Operand], size: int) -> tuple[list[Operand], float | None]:
    """The operands of nested Max (or Min), those that are scalar constants as one bound."""
    rest: list[Operand] = []
    bound: float | None = None
    stack = list(reversed(views))
    while stack:
        cls, map_ = stack.pop()
        value = terms.scalar(cls) if terms.size(cls) == 1 or map_ is not None else None
        if value is not None and abs(value) < 2.0**53:
            bound = value if bound is None else (max if fn == "max" else min)(bound, value)
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


def _clipped(terms: Terms, fn: str, x: Operand, bound: float, size: int) -> Applied | None:
    """Cases 3 and 4: one operand and one bound."""
    inside = _nested(terms, OPPOSITE[fn], x, size)
    below, other = ([], None) if inside is None else _parts(terms, OPPOSITE[fn], inside, size)
    if other is not None:
        if (other <= bound) if fn == "max" else (other >= bound):
            return 3, terms.seen(_scalar(terms, bound), size)
        if fn == "max":
            least = terms.ew("min", below, size) if len(below) > 1 else terms.seen(below[0], size)
            raised = terms.ew("max", [(least, None), _scalar(terms, bound)], size)
            return 3, terms.ew("min", [(raised, None), _scalar(terms, other)], size)
    if bound != 0:
        return None
    inner = negated(terms, x, size)
    positive = x if fn == "min" or inner is None else inner
    relu = terms.ew("mul", [positive, (terms.ew("pos", [positive], size), None)], size)
    if fn == "min":
        relu = _negative(terms, relu, size)
    return 4, relu if positive == x and fn == "max" else terms.ew("add", [x, (relu, None)], size)


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
            return size_of if fn == "max" else _negative(terms, size_of, size)
        above = (terms.ew("pos", [x], size), None)
        below = (terms.ew("add", [_scalar(terms, 1.0), (_negative(terms, above[0], size), None)], size), None)
        steep = (slope > 1) == (fn == "max")  # whether s x is taken where x > 0
        scaled = (terms.ew("mul", [(terms.find(s), None), above if steep else below], size), None)
        factor = terms.ew("add", [scaled, below if steep else above], size)
        return terms.ew("mul", [x, (factor, None)], size)
    return None


def _scalar(terms: Terms, value: float | None) -> Operand:
    assert value is not None
    return terms.const(np.array([value]), 0), None


def _negative(terms: Terms, cls: int, size: int) -> int:
    return terms.ew("mul", [_scalar(terms, -1.0), (cls, None)], size)
