"""The few identities that hold exactly over the reals, applied while terms are made.

1. x + 0 = x * 1 = x, and x * 0 = 0 (where x is defined)
2. -(-x) = x
3. 1 / 2**n is the constant 2**-n
4. Exp(-x) = 1 / Exp(x): the one sign that is kept
5. Exp(x) * (1 / ReduceSum(Exp(x))), row by row, is Softmax(x)
6. pos(s x) = pos(x) for s > 0
7. Sqrt(x x) = |x|, Sqrt(1 / x) = 1 / Sqrt(x), Log(Exp(x)) = x
8. Log(ReduceSum(Exp(x))) is taken of x less its mean: so every shift of x gives the same; Log(Softmax(x)) is x less that
9. -x * pos(-x) is Max(-x, 0), which has a form of its own (:mod:`graphcheck.kernel.terms.rules.extremes`)
10. (x + c) + d = x for numbers with c + d = 0; (x c) d = x for numbers with c d = 1, and (x y) (1 / y) = x
11. Sqrt(x) Sqrt(x) = x; |x| = x where x is a sum of what is not negative; Round(x) = x where x is an integer
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphcheck.kernel.terms.rules.numbers import number, positive, scaled, through, whole
from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.verbs import Ew, Move, Rows, Sum

_PAIRS = ((0, 1), (1, 0))
_RECIP, _STEP = Ew("recip", (None,)), Ew("pos", (None,))


Applied = tuple[int, int]  # the number of an identity, and the class that it gives


def scalars(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Applied | None:
    """Cases 1 to 3, and the class that ``fn`` of the operands is by it; or None."""
    if fn != "recip":
        for one, other in _PAIRS:
            value = terms.scalar(views[one][0]) if terms.terms[views[one][0]].size == 1 else None
            found = None if value is None else _with_scalar(terms, fn, value, views[one], views[other], size)
            if found is not None:
                return found
        return None
    value = terms.scalar(views[0][0])
    if value and abs(math.frexp(value)[0]) == 0.5 and abs(value) > 2.0**-126:
        return 3, terms.seen((terms.const(np.array([1 / value]), 0), None), size)
    return None


def simplify(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Applied | None:
    """All other cases."""
    if fn == "exp":
        argument = negated(terms, views[0], size)
        if argument is not None:
            return 4, terms.ew("recip", [(terms.ew("exp", [argument], size), None)], size)
    if fn in ("add", "mul"):
        undone = _undone(terms, fn, views, size)
        if undone is not None or fn == "add":
            return undone
        kinds = [v.fn for c, _ in views if isinstance(v := terms.terms[c].verb, Ew)]
        if not ("pos" in kinds or "exp" in kinds):
            return None
        for one, other in _PAIRS:
            if is_step(terms, views[other], views[one]) and negated(terms, views[one], size) is not None:
                return 9, terms.ew("max", [views[one], (terms.const(np.zeros(1), 0), None)], size)
            rowwise = _softmax(terms, views[one], views[other], size)
            if rowwise is not None:
                return 5, rowwise
        return None
    return None if fn == "exp" else _of_one(terms, fn, views[0], size)


def _undone(terms: Terms, fn: str, views: Sequence[Operand], size: int) -> Applied | None:
    """Case 10, and the product of case 11."""
    for one, other in _PAIRS:
        inner, d = views[one], views[other]
        last = number(terms, d[0]) if d[1] is None and terms.terms[d[0]].size == 1 else None
        first = scaled(terms, inner, fn) if last is not None else None
        if first is not None and last is not None and (first[0] * last == 1 if fn == "mul" else first[0] + last == 0):
            return 10, terms.seen(first[1], size)
        term, recip = terms.terms[inner[0]], terms.terms[d[0]]
        if fn == "add" or not (isinstance(term.verb, Ew) and term.verb.fn == fn) or recip.verb != _RECIP:
            continue
        y = through(terms, recip.args[0], None, d[1])
        parts = [through(terms, c, m, inner[1]) for c, m in term.views]
        for x, factor in (parts, parts[::-1]):
            if factor == y and (inner[1] is not None or term.size == size):
                return 10, terms.seen(x, size)
    root = terms.terms[views[0][0]]
    if fn == "mul" and views[0] == views[1] and root.verb == Ew("sqrt", (None,)):
        return 11, terms.seen(through(terms, root.args[0], None, views[0][1]), size)
    return None


def is_step(terms: Terms, step: Operand, x: Operand) -> bool:
    """Whether a view is pos(x) of the other one."""
    term = terms.terms[step[0]]
    return term.verb == _STEP and (terms.find(term.args[0]), step[1]) == x


def _of_one(terms: Terms, fn: str, view: Operand, size: int) -> Applied | None:
    """Cases 6 to 8, and those of case 11 that are no product."""
    cls, map_ = view
    term = terms.terms[cls]
    if (fn == "round" and whole(terms, cls)) or (fn == "abs" and isinstance(term.verb, Sum) and positive(terms, cls)):
        return 11, terms.seen(view, size)
    if map_ is not None or term.size != size or terms.neginf[cls] or fn in ("abs", "round"):
        return None
    match fn, term.verb:
        case "log", Sum(rows, k):
            total = _log_sum(terms, terms.find(term.args[0]), rows, k)
            return None if total is None else (8, total)
        case "log", Rows("softmax", rows, k):
            x = terms.find(term.args[0])
            total = None if terms.neginf[x] else _log_sum(terms, terms.ew("exp", [(x, None)], size), rows, k)
            return None if total is None else (8, _less(terms, x, total, rows, k))
        case _, Ew(below, maps):
            inner = [(terms.find(a), m) for a, m in zip(term.args, maps, strict=True)]
            return _of_two(terms, fn, below, inner, size)
    return None


def _of_two(terms: Terms, fn: str, below: str, inner: list[Operand], size: int) -> Applied | None:
    """Cases 6 and 7: ``fn`` of the function ``below`` of what is inside."""
    match fn, below:
        case "log", "exp":
            return 7, terms.seen(inner[0], size)
        case "sqrt", "recip":
            return 7, terms.ew("recip", [(terms.ew("sqrt", inner, size), None)], size)
        case "sqrt", "mul" if inner[0] == inner[1]:
            return 7, terms.ew("abs", inner[:1], size)
        case "pos", "mul":
            for one, other in _PAIRS:
                if (terms.scalar(inner[one][0]) or 0) > 0 and terms.size(inner[other][0]) == size:
                    return 6, terms.ew("pos", [inner[other]], size)
    return None


def _log_sum(terms: Terms, power: int, rows: int, k: int) -> int | None:
    """Case 8: Log(Sum(Exp(x))) = mean + Log(Sum(Exp(x - mean))); None where x has its mean taken off already."""
    term, moved = terms.terms[power], None
    if isinstance(term.verb, Move) and len(term.args) == 1:
        moved, term = term.verb.map, terms.terms[terms.find(term.args[0])]
    if not (isinstance(term.verb, Ew) and term.verb.fn == "exp") or k < 1 or (moved is not None and moved.has_zero):
        return None  # a zero that movement put in is no power of anything
    x = terms.seen((terms.find(term.args[0]), terms.maps.compose(term.verb.maps[0], moved)), rows * k)
    count = terms.ew("recip", [(terms.const(np.array([float(k)]), 0), None)], 1)
    mean = terms.ew("mul", [(terms.sum(x, rows, k), None), (count, None)], rows)
    centred = _less(terms, x, mean, rows, k)
    if terms.neginf[x] or terms.find(x) in map(terms.find, terms.centred):
        return None
    terms.centred.add(centred)
    total = terms.sum(terms.ew("exp", [(centred, None)], rows * k), rows, k)
    return terms.ew("add", [(mean, None), (terms.ew("log", [(total, None)], rows), None)], rows)


def _less(terms: Terms, x: int, taken: int, rows: int, k: int) -> int:
    """x [rows, k] less one number a row."""
    along = terms.maps.box((rows, k), (1, 0))
    less = terms.ew("mul", [(terms.const(np.array([-1.0]), 0), None), (taken, None)], rows)
    return terms.ew("add", [(x, None), (less, along)], rows * k)


def _with_scalar(terms: Terms, fn: str, value: float, scalar: Operand, other: Operand, size: int) -> Applied | None:
    if (fn, value) in (("add", 0.0), ("mul", 1.0)):
        return 1, terms.seen(other, size)
    if fn == "mul" and value == 0.0 and not terms.neginf[other[0]] and other[0] not in terms.nan:
        return 1, terms.seen((scalar[0], None), size)
    if fn == "mul" and value == -1.0:
        inner = negated(terms, other, size)
        return None if inner is None else (2, terms.seen(inner, size))
    return None


def negated(terms: Terms, view: Operand, size: int) -> Operand | None:
    """What a view is the negative of, seen at the same places; None if it is no negation."""
    cls, map_ = view
    term = terms.terms[cls]
    if not (isinstance(term.verb, Ew) and term.verb.fn == "mul") or (map_ is None and term.size != size):
        return None
    for one, other in _PAIRS:
        if terms.scalar(term.args[one]) == -1.0 and terms.size(term.args[other]) == term.size:
            return terms.find(term.args[other]), terms.maps.compose(term.verb.maps[other], map_)
    return None


def _softmax(terms: Terms, power: Operand, inverse: Operand, size: int) -> int | None:
    e, r = terms.terms[power[0]], terms.terms[inverse[0]]
    if power[1] is not None or not (isinstance(e.verb, Ew) and e.verb.fn == "exp"):
        return None
    total = terms.terms[terms.find(r.args[0])] if r.verb == _RECIP else None
    if total is None or not isinstance(total.verb, Sum):
        return None
    rows, k, along = total.verb.rows, total.verb.k, inverse[1]
    if size != rows * k or (along is None and rows > 1):
        return None
    table = terms.terms[terms.find(total.args[0])]  # the powers as they are summed, maybe transposed
    places = np.arange(1, size + 1)
    if terms.find(total.args[0]) != power[0]:
        back = terms.maps.inverse(table.verb.map) if isinstance(table.verb, Move) else None
        if back is None or len(table.args) != 1 or terms.find(table.args[0]) != power[0]:
            return None
        places = back.index  # where each power stands in its row
    if along is not None and not np.array_equal(along.index, (places - 1) // k + 1):
        return None
    x = terms.seen((terms.find(e.args[0]), e.verb.maps[0]), size)
    if not isinstance(table.verb, Move):
        return terms.rows("softmax", x, rows, k)
    rowwise = terms.rows("softmax", terms.move((x,), table.verb.map), rows, k)
    return terms.move((rowwise,), terms.maps.intern(places))
