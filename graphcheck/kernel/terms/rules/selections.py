"""Maxima of rows, and choices by comparison, in normal form: exact identities over the reals.

1. The maximum of a row of maxima is that of all their elements, each counted once (and so for minima)
2. Max over a row of s x, x + c, Max(x, c), Min(x, c), Relu(x) and of x rounded is that function of the maximum of x; for s < 0 of
   its minimum
3. ArgMin(x) = ArgMax(-x)
4. u > 0 ? x : y is Max(x, y) where x - y = k u with k > 0, and Min(x, y) where k < 0
5. s Gather(x) and s + Gather(x) are Gather(s x) and Gather(s + x), whatever the indices
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules.columns import elements
from graphcheck.kernel.terms.rules.extremes import OPPOSITE, negative
from graphcheck.kernel.terms.rules.identities import is_step
from graphcheck.kernel.terms.rules.numbers import linear, number, through
from graphcheck.kernel.terms.store import Found, Operand, Terms
from graphcheck.kernel.terms.verbs import Ew, Move, Opaque, Rows

_MOST = 2**25  # elements of a table that is made; beyond, maxima stay nested
_TABLE = 2**23  # elements of a table that is computed as a whole for those that are picked


def nested(terms: Terms, operands: Sequence[int], fn: str, rows: int, k: int) -> Found | None:
    """Case 1."""
    if fn not in OPPOSITE:
        return None
    outer = terms.terms[operands[0]]
    moved = outer.verb.map if isinstance(outer.verb, Move) else None
    if moved is not None and (len(outer.args) > 1 or moved.has_zero):
        return None
    inner = terms.terms[terms.find(outer.args[0])] if moved is not None else outer
    if not isinstance(inner.verb, Rows) or inner.verb.fn != fn:
        return None
    below = terms.find(inner.args[0])
    base = terms.terms[below]
    sources, map_ = (base.args, base.verb.map) if isinstance(base.verb, Move) else ((below,), terms.maps.whole(base.size))
    if max(rows * k, map_.size) > _MOST:
        return None
    above = moved or terms.maps.whole(rows * k)
    key = ("nested", above.key, k, inner.verb.k)
    if key not in map_.row_cache:  # the other graph has the same
        table = _nested(above, k, map_, inner.verb.k)
        map_.row_cache[key] = None if table is None else terms.maps.repeated(*table)
    found = map_.row_cache[key]
    if not isinstance(found, Map):
        return None
    return 1, terms.rows(fn, terms.move(sources, found), rows, found.size // rows)


def _nested(above: Map, k: int, below: Map, width: int) -> tuple[np.ndarray, int, int] | None:
    """The elements [rows, n] that rows of ``k`` rows of a ``width`` have, as a block, its step, and how many there are: images
    and channels that repeat one another are looked at once (13x13 windows are many)."""
    step, blocks = below.step, below.blocks
    if blocks > 1 and above.blocks == blocks and above.step * width == below.once.size and not above.once.size % k:
        first, low = above.once.reshape(-1, k), below.once.reshape(-1, width)
    else:
        high, low = above.index.reshape(-1, k), below.index.reshape(-1, width)
        count = math.gcd(len(high), len(low))
        for blocks in (b for b in range(count, 0, -1) if count % b == 0):
            first, step = high[: len(high) // blocks], int(low[len(low) // blocks % len(low), 0]) - int(low[0, 0])
            if _repeats(high, blocks, len(low) // blocks) and _repeats(low, blocks, step):
                break
    if first.size * width > _MOST:
        return None
    once = elements(low[first - 1].reshape(len(first), -1)).astype(np.int64)
    if once.size * blocks > _MOST:
        return None
    return once, step, blocks


def _repeats(table: np.ndarray, blocks: int, step: int) -> bool:
    """Whether each block of rows is the one before with ``step`` added (to places that are no padding zeros)."""
    if blocks == 1:
        return True
    parts = table.reshape(blocks, -1)
    if int(parts[1, 0]) - int(parts[0, 0]) != step:
        return False
    first = parts[0].astype(np.int64)  # the table itself may be in 32 bits, to save memory
    return all(np.array_equal(part, first + step * at) for at, part in enumerate(parts))


def monotone(terms: Terms, operands: Sequence[int], fn: str, rows: int, k: int) -> Found | None:
    """Cases 2 and 3."""
    (a,) = operands
    if fn.startswith("argmin"):
        return 3, terms.rows(fn.replace("min", "max"), negative(terms, a, rows * k), rows, k)
    layers: list[tuple[str, Operand | None]] = []
    while fn in OPPOSITE and (layer := _outermost(terms, a, fn, rows * k)):
        a, fn, of, other = layer
        layers.append((of, other))
    found = terms.rows(fn, a, rows, k) if layers else a
    for of, other in reversed(layers):  # in a loop: they may be hundreds
        found = terms.ew(of, [(found, None), *([] if other is None else [other])], rows)
    return (2, found) if layers else None


def _outermost(terms: Terms, a: int, by: str, size: int) -> tuple[int, str, str, Operand | None] | None:
    """(x, max or min of it, function, its other operand, if it has one): the outermost function of case 2 at ``a``."""
    term = terms.terms[a]
    map_ = term.verb.map if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero else None
    term = term if map_ is None else terms.terms[terms.find(term.args[0])]
    if not isinstance(term.verb, Ew) or term.verb.fn not in ("add", "mul", "max", "min", "round") or terms.neginf[a]:
        return None
    if len(term.args) != 2:  # not a maximum of several
        return (terms.seen(through(terms, *term.views[0], map_), size), by, "round", None) if term.verb.fn == "round" else None
    of, views = term.verb.fn, [(terms.find(c), m) for c, m in term.views]
    for x, other in (views, views[::-1]):
        value = number(terms, other[0]) if other[1] is None and terms.size(other[0]) == 1 else None
        if of == "mul" and x[1] is None and is_step(terms, other, x):
            of, other, value = "max", (terms.const(np.zeros(1), 0), None), Fraction(0)
        if value is not None and (of != "mul" or value):
            by = OPPOSITE[by] if of == "mul" and value < 0 else by
            return terms.seen(through(terms, *x, map_), size), by, of, other
    return None


def by_comparison(terms: Terms, c: int, x: int, y: int) -> str | None:
    """Case 4: "max" or "min" of x and y, all of one size; None where the choice is neither."""
    size = terms.size(c)
    condition = linear(terms, (c, None), size) or {}
    constant, steps = condition.pop(None, Fraction(0)), list(condition.items())
    if len(steps) != 1 or (constant, steps[0][1]) not in ((Fraction(0), Fraction(1)), (Fraction(1), Fraction(-1))):
        return None
    (step, map_), factor = steps[0]  # type: ignore[misc]
    term = terms.terms[step]
    if not isinstance(term.verb, Ew) or term.verb.fn != "pos":
        return None
    u = linear(terms, through(terms, term.args[0], term.verb.maps[0], map_), size)
    forms = [linear(terms, (v, None), size) for v in ((x, y) if factor > 0 else (y, x))]
    if not u or forms[0] is None or forms[1] is None:
        return None
    ratios: set[Fraction | None] = set()
    for view in {*forms[0], *forms[1], *u}:
        apart = forms[0].get(view, Fraction(0)) - forms[1].get(view, Fraction(0))
        ratios |= {apart / u[view]} if view in u else {None} if apart else set()
    ratio = ratios.pop() if len(ratios) == 1 else None
    return None if not ratio else "max" if ratio > 0 else "min"


def gathered(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Found | None:
    """Case 5."""
    for (cls, map_), scalar in ((views[0], views[1]), (views[1], views[0])):
        term = terms.terms[cls]
        if not isinstance(term.verb, Opaque) or len(term.args) != 2 or (map_ is None and term.size != size):
            continue
        node = term.verb.key[0]
        if node[:2] not in (("", "Gather"), ("", "GatherElements"), ("", "GatherND")):
            continue
        table, n = terms.find(term.args[0]), terms.size(term.args[0])
        if scalar[1] is not None or number(terms, scalar[0]) is None or n > _TABLE:
            return None
        made = terms.ew(fn, [(table, None), scalar], n)
        return 5, terms.seen((terms.opaque(term.verb.key, (made, term.args[1]), term.size), map_), size)
    return None
