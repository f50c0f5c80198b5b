"""Constant factors and terms gathered together: (x W + b) s + t becomes x (W s) + (b s + t), exactly.

Optimizers fold such chains (a BatchNormalization into a Conv) and store the rounded constants. In this form the stored
constant of one side faces the exact expression of the other, which is what ``within-rounding`` needs to see. Cases:

1. (x + c) + d = x + (c + d)
2. (x * c) * d = x * (c * d)
3. (x + c) * d = x * d + c * d
4. (x W) * d = x (W d), d depending on the column alone
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from graphcheck.domains.terms import Operand, Terms


def gather(terms: Terms, fn: str, views: Sequence[Operand], size: int) -> int | None:
    """The gathered form of ``fn(x, d)`` with one constant operand d, or None where there is nothing to gather."""
    constant = [terms.constant_like(c) for c, _ in views]
    if constant[0] == constant[1]:
        return None
    x, d = (views[1], views[0]) if constant[0] else (views[0], views[1])
    if x[1] is None and terms.size(x[0]) != size:
        return None  # a scalar spread over a tensor
    term = terms.terms[x[0]]
    if term.kind == "contract" and fn == "mul" and x[1] is None:
        return _into_weight(terms, x[0], d, size)
    if term.kind != "ew" or term.params[0] not in ("add", "mul") or len(term.args) != 2:
        return None
    inner = []
    for c, m in zip(term.args, term.params[1], strict=True):
        scalar = m is None and terms.size(c) == 1
        inner.append((terms.find(c), None if scalar else terms.maps.compose(m, x[1])))
    known = [terms.constant_like(c) for c, _ in inner]
    if known[0] == known[1] or (fn == "add" and term.params[0] == "mul"):
        return None
    free, fixed = (inner[1], inner[0]) if known[0] else (inner[0], inner[1])
    folded = terms.ew(fn, [fixed, d], size)
    if fn == term.params[0]:  # cases 1 and 2
        return terms.ew(fn, [free, (folded, None)], size)
    return terms.ew("add", [(terms.ew("mul", [free, d], size), None), (folded, None)], size)  # case 3


def _into_weight(terms: Terms, cls: int, d: Operand, size: int) -> int | None:
    """Case 4."""
    term = terms.terms[cls]
    batches, m, n, k, kn = term.params
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
    return terms.contract(a, weight, batches, m, n, k, kn)
