"""The few identities that hold exactly over the reals, applied while terms are made.

1. x + 0 = x * 1 = x, and x * 0 = 0 (where x is defined)
2. -(-x) = x
3. 1 / 2**n is the constant 2**-n
4. Exp(-x) = 1 / Exp(x): the one sign that is kept
5. Exp(x) * (1 / ReduceSum(Exp(x))), row by row, is Softmax(x)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphcheck.domains.terms import Operand, Terms

_PAIRS = ((0, 1), (1, 0))


def simplify(terms: Terms, fn: str, views: Sequence[Operand], size: int) -> int | None:
    """The class that ``fn`` of the operands is by an identity, or None."""
    if fn in ("add", "mul") and len(views) == 2:
        for one, other in _PAIRS:
            value = terms.scalar(views[one][0])
            found = None if value is None else _with_scalar(terms, fn, value, views[one], views[other], size)
            if found is not None:
                return found
    if fn == "recip":
        value = terms.scalar(views[0][0])
        if value and abs(math.frexp(value)[0]) == 0.5 and abs(value) > 2.0**-126:  # 3
            return terms.seen((terms.const(np.array([1 / value])), None), size)
    if not terms.normalize:
        return None
    if fn == "exp":
        argument = _negated(terms, views[0], size)
        if argument is not None:  # 4
            return terms.ew("recip", [(terms.ew("exp", [argument], size), None)], size)
    if fn == "mul" and len(views) == 2:
        for one, other in _PAIRS:
            found = _softmax(terms, views[one], views[other], size)
            if found is not None:  # 5
                return found
    return None


def _with_scalar(terms: Terms, fn: str, value: float, scalar: Operand, other: Operand, size: int) -> int | None:
    if (fn, value) in (("add", 0.0), ("mul", 1.0)):  # 1
        return terms.seen(other, size)
    if fn == "mul" and value == 0.0 and not terms.neginf[other[0]]:
        return terms.seen((scalar[0], None), size)
    if fn == "mul" and value == -1.0:
        inner = _negated(terms, other, size)
        return None if inner is None else terms.seen(inner, size)  # 2
    return None


def _negated(terms: Terms, view: Operand, size: int) -> Operand | None:
    """What a view is the negative of, seen at the same places; None if it is no negation."""
    cls, map_ = view
    term = terms.terms[cls]
    if term.kind != "ew" or term.params[0] != "mul" or len(term.args) != 2 or (map_ is None and term.size != size):
        return None
    for one, other in _PAIRS:
        if terms.scalar(term.args[one]) == -1.0 and terms.size(term.args[other]) == term.size:
            return terms.find(term.args[other]), terms.maps.compose(term.params[1][other], map_)
    return None


def _softmax(terms: Terms, power: Operand, inverse: Operand, size: int) -> int | None:
    e, r = terms.terms[power[0]], terms.terms[inverse[0]]
    if power[1] is not None or e.kind != "ew" or e.params[0] != "exp" or r.kind != "ew" or r.params[0] != "recip":
        return None
    total = terms.terms[terms.find(r.args[0])]
    if total.kind != "sum" or terms.find(total.args[0]) != power[0] or r.params[1][0] is not None:
        return None
    rows, k = total.params
    along = inverse[1]
    if size != rows * k or (along is None and rows > 1):
        return None
    if along is not None and not np.array_equal(along.index, np.repeat(np.arange(1, rows + 1), k)):
        return None
    return terms.rows("softmax", terms.seen((terms.find(e.args[0]), e.params[1][0]), size), rows, k)
