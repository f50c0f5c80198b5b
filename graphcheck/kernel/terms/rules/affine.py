"""Constant factors and terms gathered together: (x W + b) s + t becomes x (W s) + (b s + t), exactly.

Optimizers fold such chains (a BatchNormalization into a Conv) and store the rounded constants. In this form the stored
constant of one side faces the exact expression of the other, which is what ``within-rounding`` needs to see. Cases:

1. (x + c) + d = x + (c + d)
2. (x * c) * d = x * (c * d)
3. (x + c) * d = x * d + c * d
4. (x W) * d = x (W d), d depending on the column alone
5. (x s) y = (x y) s for a scalar s, x and y computed
6. (x y) d = x (y d), y being a sum or a product with a constant

A scalar can be gathered into the weights before it ("push": cases 3, 4 and 6), or out of the products behind it ("pull": case 5);
which of the two an optimizer did is not known beforehand, so both are tried.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules.identities import Applied
from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Term


def push(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Applied | None:
    """Cases 1 to 4, and 6."""
    return _gathered(terms, views, fn, size, pulls=False)


def pull(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Applied | None:
    """Cases 1 to 4, but that a scalar factor stays outside, and is taken out of products (case 5)."""
    if fn == "mul" and not any(terms.constant_like(c) or _is_step(terms, c) for c, _ in views):
        for (x, map_), other in (views, views[::-1]):
            if (found := _scalar_multiple(terms, x)) is not None:
                product = terms.ew("mul", [(found[0], map_), other], size)
                return 5, terms.ew("mul", [(product, None), (found[1], None)], size)
    return _gathered(terms, views, fn, size, pulls=True)


def _gathered(terms: Terms, views: Sequence[Operand], fn: str, size: int, *, pulls: bool) -> Applied | None:
    """The case, and the gathered form of ``fn(x, d)`` with one constant operand d, or None where there is nothing to gather."""
    constant = [terms.constant_like(c) for c, _ in views]
    if constant[0] == constant[1]:
        return None
    x, d = (views[1], views[0]) if constant[0] else (views[0], views[1])
    if x[1] is None and terms.size(x[0]) != size:
        return None  # a scalar spread over a tensor
    term = terms.terms[x[0]]
    pulled = pulls and fn == "mul" and terms.size(d[0]) == 1 and d[1] is None
    if isinstance(term.verb, Contract) and fn == "mul" and not pulled:
        return _into_weight(terms, term, d, size) if x[1] is None else _behind_a_view(terms, term, x[1], d)
    if not isinstance(term.verb, Ew) or term.verb.fn not in ("add", "mul"):
        return None
    inner, below = [], term.verb.fn
    for c, m in zip(term.args, term.verb.maps, strict=True):
        scalar = m is None and terms.size(c) == 1
        inner.append((terms.find(c), None if scalar else terms.maps.compose(m, x[1])))
    known = [terms.constant_like(c) for c, _ in inner]
    if fn == below == "mul" and not any(known) and not pulls:
        for y, other in (inner, inner[::-1]):
            chain = terms.terms[y[0]]
            if isinstance(chain.verb, Ew) and chain.verb.fn in ("add", "mul") and any(map(terms.constant_like, chain.args)):
                return 6, terms.ew("mul", [other, (terms.ew("mul", [y, d], size), None)], size)
    if known[0] == known[1] or (fn == "add" and below == "mul"):
        return None
    if pulled and not (below == "mul" and min(terms.size(c) for c, _ in inner) == 1):
        return None  # a scalar stays outside, but two of them are one
    free, fixed = (inner[1], inner[0]) if known[0] else (inner[0], inner[1])
    folded = terms.ew(fn, [fixed, d], size)
    if fn == below:
        return 1 if fn == "add" else 2, terms.ew(fn, [free, (folded, None)], size)
    return 3, terms.ew("add", [(terms.ew("mul", [free, d], size), None), (folded, None)], size)


def _into_weight(terms: Terms, term: Term, d: Operand, size: int) -> Applied | None:
    """Case 4."""
    assert isinstance(term.verb, Contract)
    batches, n, k, kn = term.verb.batches, term.verb.n, term.verb.k, term.verb.kn
    a, w = (terms.find(c) for c in term.args)
    if not terms.constant_like(w) or batches[1] not in (1, max(batches)):
        return None
    scalar = terms.size(d[0]) == 1 and d[1] is None
    if scalar:
        factor: Operand = d
    else:
        index = d[1].index if d[1] is not None else np.arange(1, size + 1)
        table = index.reshape(batches[1], -1, n)
        if (table != table[:, :1]).any():
            return None
        column = table[:, 0]  # [batch of W, n]
        spread = np.repeat(column[:, None, :], k, axis=1) if kn else np.repeat(column[:, :, None], k, axis=2)
        factor = (d[0], terms.maps.intern(spread))
    weight = terms.ew("mul", [(w, None), factor], batches[1] * n * k)
    return 4, terms.make(term, (a, weight))


def _behind_a_view(terms: Terms, term: Term, map_: Map, d: Operand) -> Applied | None:
    """Case 4 for products that are moved: the factor of each is that of a place where it is seen (a ConvTranspose, whose products
    are laid side by side)."""
    assert isinstance(term.verb, Contract)
    if terms.size(d[0]) == 1 and d[1] is None:
        found = _into_weight(terms, term, d, term.size)
    else:
        seen = map_.index
        factors = d[1].index if d[1] is not None else np.arange(1, map_.size + 1)
        there = np.zeros(term.size + 1, np.int64)
        there[seen] = factors
        if (there[seen] != factors)[seen > 0].any():
            return None  # one product, seen with unlike factors
        table = there[1:].reshape(term.verb.batches[1], -1, term.verb.n)
        most = table.max(axis=1, keepdims=True)
        if ((table != most) & (table > 0)).any() or (factors == 0).any():
            return None
        whole = np.broadcast_to(np.where(most > 0, most, most.max()), table.shape)  # what is seen nowhere has any factor
        found = _into_weight(terms, term, (d[0], terms.maps.intern(np.ascontiguousarray(whole).reshape(-1))), term.size)
    return None if found is None else (4, terms.move((found[1],), map_))


def pull_scalar(terms: Terms, operands: Sequence[int], verb: Contract) -> Applied | None:
    """Case 5, for either operand of a contraction; None where neither is a scalar multiple."""
    a, b = operands
    for first, (x, y) in enumerate(((b, a), (a, b))):
        found = None if terms.constant_like(x) else _scalar_multiple(terms, x)
        if found is not None:
            bare, factor = found
            c = (verb.batches, verb.m, verb.n, verb.k, verb.kn)
            product = terms.contract(bare, y, *c) if first else terms.contract(y, bare, *c)
            return 5, terms.ew("mul", [(product, None), (factor, None)], terms.size(product))
    return None


def _is_step(terms: Terms, cls: int) -> bool:
    """Whether a class is that of a Relu, which is known by what it is a step of."""
    return isinstance(verb := terms.terms[terms.find(cls)].verb, Ew) and verb.fn == "pos"


def _scalar_multiple(terms: Terms, cls: int) -> tuple[int, int] | None:
    """(x, s) of a class that is x * s, behind movement too."""
    match terms.terms[terms.find(cls)]:
        case Term(Move(map_), (source,)):
            inner = _scalar_multiple(terms, source)
            return None if inner is None else (terms.move((inner[0],), map_), inner[1])
        case Term(Ew("mul", (None, None)), (a, b), size):
            for x, s in ((a, b), (b, a)):
                if terms.size(x) == size and terms.size(s) == 1 and terms.constant_like(s):
                    return terms.find(x), terms.find(s)
    return None
