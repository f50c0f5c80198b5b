"""Rows and the summed index in normal form.

1. A sum (a Max or Min of a row) does not depend on the order of its terms: they are ordered by where they come from
2. A product with a constant whose columns are one-hot only moves elements
3. A sum, a Max or a Min of one element is the element; Softmax of it is 1
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Found, Terms
from graphcheck.kernel.terms.verbs import Contract, Move

_UNORDERED = ("sum", "max", "min")


# where rows are looked at first: inside of an image, whatever its size
_PARTS = tuple(n * 0.6180339887498949 % 1 for n in range(1, 24))


def one_hot(array: np.ndarray | None, n: int, k: int) -> np.ndarray | None:
    """Which row each column of a constant [k, n] picks, if all are one-hot: such a product only moves elements."""
    if array is None or n * k < 2 or array.size != n * k:
        return None
    first = array.reshape(-1)[:64]  # in memory, where a column of a large weight would touch all of its pages
    if not ((first == 0) | (first == 1)).all():
        return None
    table = array.reshape(k, n).T
    if np.count_nonzero(table[0]) != 1 or table[0].max() != 1 or np.count_nonzero(table) != n:
        return None
    picked = table.argmax(axis=1)
    return picked if bool((table[np.arange(n), picked] == 1).all()) else None


def pick(terms: Terms, operands: Sequence[int], verb: Contract) -> Found | None:
    """Case 2."""
    a, b = operands
    picked = one_hot(terms.arrays.get(b), verb.n, verb.k) if verb.kn and verb.batches[1] == 1 else None
    if picked is None or terms.neginf[a] or a in terms.nan:
        return None  # 0 times what is not finite is no 0
    return 2, terms.move((a,), terms.maps.picked(max(verb.batches) * verb.m, verb.k, picked))


def swap(terms: Terms, operands: Sequence[int], verb: Contract) -> Found | None:
    """The older operand first, a constant behind, and so an expression of constants: its age says nothing of its place."""
    (a, b), batches, m, n = operands, verb.batches, verb.m, verb.n
    first, second = ((terms.constant_like(c), c in terms.arrays, c) for c in (a, b))
    if b in terms.arrays or first <= second:
        return None
    swapped = terms.contract(b, a, batches[::-1], n, m, verb.k)
    return 0, terms.move((swapped,), terms.maps.transpose((max(batches), n, m), (0, 2, 1)))


def sort(terms: Terms, operands: Sequence[int], verb: Contract) -> Found | None:
    """Case 1 for a product: the order of a flattened patch is no matter."""
    (a, b), moved, n, k = operands, terms.terms[operands[0]].verb, verb.n, verb.k
    found = order(moved.map, k, _ends(terms, a)) if isinstance(moved, Move) and verb.batches[1] == 1 else None
    if found is None:
        return None
    picked = terms.move((a,), terms.maps.picked(verb.batches[0] * verb.m, k, found))
    if verb.kn:
        return 1, (picked, terms.move((b,), terms.maps.picked_rows(found, n)))
    return 1, (picked, terms.move((b,), terms.maps.picked(n, k, found)))


def single(terms: Terms, operands: Sequence[int], fn: str, rows: int, k: int) -> Found | None:
    """Case 3."""
    (a,) = operands
    if k == 1 and fn in _UNORDERED:
        return 3, a
    if k == 1 and fn == "softmax" and not terms.neginf[a] and a not in terms.nan:
        return 3, terms.seen((terms.const(np.ones(1, np.float32)), None), rows)
    return None


def unordered(terms: Terms, operands: Sequence[int], fn: str, rows: int, k: int) -> Found | None:
    """Case 1 for a sum, a Max or a Min."""
    moved = terms.terms[operands[0]].verb
    if fn not in _UNORDERED or not isinstance(moved, Move):
        return None
    if fn != "sum" and moved.map.form is None and k * rows:  # windows that lie on an edge have fewer elements than others
        table = (moved.map.index if moved.map.once.size % k else moved.map.once).reshape(-1, k)
        if (table[:, 1:] < table[:, :-1]).any():
            once = elements(moved.map.index.reshape(rows, k))
            return 1, terms.rows(fn, terms.move(terms.terms[operands[0]].args, terms.maps.intern(once)), rows, once.shape[1])
    found = order(moved.map, k, _ends(terms, operands[0]))
    return None if found is None else (1, (terms.move(operands, terms.maps.picked(rows, k, found)),))


def elements(table: np.ndarray) -> np.ndarray:
    """Each row's elements once, in order, the last one repeated to the width of the longest."""
    ordered = np.sort(table, axis=1)
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    out = np.repeat(ordered[:, -1:], int(new.sum(axis=1).max()), axis=1)
    out[np.nonzero(new)[0], (new.cumsum(axis=1, dtype=np.int32) - 1)[new]] = ordered[new]
    return out


def _ends(terms: Terms, cls: int) -> tuple[int, ...]:
    """Where the sources of a movement end, laid one after the other."""
    return tuple(np.cumsum([terms.size(a) for a in terms.terms[cls].args]).tolist())


def order(map_: Map, k: int, ends: tuple[int, ...]) -> np.ndarray | None:
    """The order that sorts the columns of a map [rows, k] of sources with these ends, or None if they are in it (or for ties)."""
    if not map_.size or not k:
        return None
    key = ("columns", k, ends)
    if key not in map_.row_cache:
        row = _fullest(map_, k)
        found = np.argsort(row, kind="stable")
        ties = bool((np.diff(row[found]) == 0).any())
        found = _in_turn(row, found, ends) if not ties else found
        sorted_already = bool((np.diff(found) == 1).all())
        map_.row_cache[key] = None if ties or sorted_already else found
    return map_.row_cache[key]  # type: ignore[return-value]


def _in_turn(row: np.ndarray, found: np.ndarray, ends: tuple[int, ...]) -> np.ndarray:
    """Columns that are sorted by where they come from, such that few strides tell them: of sources that give different numbers
    of columns, no runs, equal shares of all of them in turn."""
    source = np.searchsorted(ends, row[found])
    parts = np.split(found, np.flatnonzero(np.diff(source)) + 1)
    counts = [part.size for part in parts]
    if len(set(counts)) == 1 or not any(np.diff(row[part], 2).any() for part in parts):
        return found
    share = math.gcd(*counts)
    return np.concatenate([part.reshape(share, -1) for part in parts], axis=1).reshape(-1)


def _fullest(map_: Map, k: int) -> np.ndarray:
    """A row [k] of a map without padding zeros, else one with the fewest: the same one in whatever order the columns are."""
    count = map_.size // k
    for row in dict.fromkeys([0, *(int(count * part) for part in _PARTS)]):
        found = map_.at(np.arange(row * k, (row + 1) * k))
        if found.all():
            return found
    table = map_.index.reshape(count, k)
    return np.asarray(table[int(np.argmin((table == 0).sum(axis=1)))])
